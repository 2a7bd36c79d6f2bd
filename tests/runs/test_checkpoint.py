"""Checkpoints: every file is the one that was written, or the checkpoint is refused; what it says is data."""

from __future__ import annotations

import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import checkpoint_of, edit, evaluation, reseal, run, unseal
from safetensors.torch import load_file, save_file

from hblm.config import schema, train
from hblm.encoders.encoder import load_encoder
from hblm.encoders.pretrained import identity_of_entry, locate
from hblm.encoders.tokenizer import load_tokenizer
from hblm.errors import CheckpointError, ConfigError, TrainingError
from hblm.runs import checkpoint as checkpoint_module
from hblm.runs import paths
from hblm.runs.checkpoint import open_checkpoint
from hblm.runs.weights import read_tensors

FILES = [
    *("hblm.json", "model.safetensors", "taxonomy.json", "encoder/config.json", "encoder/tokenizer.json"),
    "encoder/tokenizer_config.json",
]


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """Return a checkpoint that may be damaged."""
    return Path(shutil.copytree(checkpoint_of(trained), tmp_path / "out" / "checkpoints" / "copy"))


def left(folder: Path) -> list[str]:
    """Return the results and predictions beside a checkpoint."""
    return sorted(str(path) for path in (folder.parents[1] / "results").glob("*"))


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 4
    path.write_bytes(data)


DAMAGES = {
    "a bit at the start": lambda path: flip(path, 0),
    "a bit in the middle": lambda path: flip(path, 0.5),
    "a bit near the end": lambda path: flip(path, 0.97),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: [path.unlink(), path.mkdir()],
}


def test_these_are_all_its_files(copy):
    found = [path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()]
    assert sorted(found) == sorted(FILES)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_changed_is_named(copy, name, damage):
    DAMAGES[damage](copy / name)
    with pytest.raises(CheckpointError, match=name):
        read_tensors(open_checkpoint(copy))


def test_a_file_too_much_is_named_and_hidden_ones_are_nobodys(copy):
    (copy / ".DS_Store").write_text("")
    open_checkpoint(copy)
    (copy / "encoder" / "added_tokens.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"encoder/added_tokens\.json does not belong to it"):
        open_checkpoint(copy)


def test_a_bit_of_the_weights_changes_no_score(copy):
    flip(copy / "model.safetensors", 0.97)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not the file that was written"):
        evaluation(copy)
    assert not left(copy)


@pytest.mark.parametrize("key", ["film", "run_id", "node_priors", "sha256", "files"])
def test_what_hblm_json_says_is_sealed(copy, key):
    meta = json.loads((copy / "hblm.json").read_text())
    if key == "film":
        meta["config"]["film"]["film_scale"] = 0.3
    else:
        meta.pop(key)
    (copy / "hblm.json").write_text(json.dumps(meta))
    with pytest.raises(CheckpointError, match=r"hblm\.json: not as it was written"):
        open_checkpoint(copy)


def test_the_order_and_form_of_hblm_json_are_free(copy):
    meta = json.loads((copy / "hblm.json").read_text())
    (copy / "hblm.json").write_text(json.dumps(dict(reversed(meta.items()))))
    open_checkpoint(copy)


# --- made before there were sums


def test_one_without_sums_is_evaluated_with_one_warning(copy, trained, caplog):
    unseal(copy)
    checkpoint_module._warn_of_no_sums.cache_clear()
    with caplog.at_level(logging.WARNING, logger="hblm"):
        found = evaluation(copy)
        open_checkpoint(copy)
    assert found["test"] == json.loads(trained.read_text())["test"]
    assert [record.getMessage() for record in caplog.records if "no sha256" in record.getMessage()] == [
        f"{copy} has no sha256 of its files (it was made before hblm wrote them): whether they are as they "
        "were written cannot be checked"
    ]


@pytest.mark.parametrize(
    "change", [{"film__film_scale": 0.3}, {"pooling__pooling": "mean"}, {"threshold": 0.4}, {"seed": 2}]
)
def test_without_sums_the_run_id_must_be_that_of_its_values(copy, change):
    unseal(copy, **change)
    with pytest.raises(CheckpointError, match="run_id says"):
        open_checkpoint(copy)


def test_without_sums_another_dataset_or_encoder_is_another_run(copy):
    unseal(copy)
    text = (copy / "hblm.json").read_text()
    for change in ({"encoder": {"model_name": "other", "revision": None}}, {"run_id": "0" * 64}):
        edit(copy / "hblm.json", **change)
        with pytest.raises(CheckpointError, match="run_id says"):
            open_checkpoint(copy)
        (copy / "hblm.json").write_text(text)


def test_without_sums_the_taxonomy_must_be_that_of_the_data(copy):
    unseal(copy)
    taxonomy = json.loads((copy / "taxonomy.json").read_text())
    taxonomy["nodes"][:2] = reversed(taxonomy["nodes"][:2])
    (copy / "taxonomy.json").write_text(json.dumps(taxonomy))
    with pytest.raises(CheckpointError, match=r"taxonomy\.json: not the taxonomy of"):
        evaluation(copy)


def renamed(copy: Path, **change: Any) -> None:
    """Change the config, and the run id with it."""
    unseal(copy, **change)
    meta = json.loads((copy / "hblm.json").read_text())
    config = schema.typed(meta["config"], train.TrainConfig)
    encoder = identity_of_entry(meta["encoder"])
    edit(copy / "hblm.json", run_id=paths.id_of(config, data=meta["dataset"]["fingerprint"], encoder=encoder))


def test_values_that_do_not_belong_together_are_one_message(copy):
    renamed(copy, encoder__max_length=100_000)
    with pytest.raises(CheckpointError, match=r"is damaged: encoder\.max_length=100000 is more than"):
        evaluation(copy)
    assert not left(copy)


def test_a_value_left_open_is_refused(copy):
    unseal(copy, trainer__epochs=None)
    with pytest.raises(CheckpointError, match=r"config has no trainer\.epochs"):
        open_checkpoint(copy)


# --- numbers that are none


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("has_sums", [True, False])
def test_weights_that_are_not_finite_are_refused_by_name(copy, number, has_sums):
    tensors = load_file(copy / "model.safetensors")
    tensors["branches.single.heads.1.output.bias"][0] = number
    save_file(tensors, copy / "model.safetensors")
    (reseal if has_sums else unseal)(copy)
    with pytest.raises(CheckpointError, match=r"branches\.single\.heads\.1\.output\.bias holds numbers that"):
        evaluation(copy)
    assert not left(copy)


def test_a_model_whose_logits_are_not_finite_has_no_result(copy):
    tensors = load_file(copy / "model.safetensors")
    tensors["branches.single.heads.1.output.weight"].fill_(3e38)
    save_file(tensors, copy / "model.safetensors")
    reseal(copy)
    with pytest.raises(TrainingError, match=r"logits that are not finite \(view single\)"):
        evaluation(copy, "predictions=true")
    assert not left(copy)


def test_no_training_starts_from_an_encoder_that_is_not_finite(learnable, tmp_path):
    encoder = load_encoder(locate("tiny"), dropout=None, gradient_checkpointing=False)
    with torch.no_grad():
        encoder.embeddings.word_embeddings.weight[7, 3] = math.nan  # of a token that no document may have
    encoder.save_pretrained(tmp_path / "encoder")
    load_tokenizer(locate("tiny")).save_pretrained(tmp_path / "encoder")
    with pytest.raises(ConfigError, match=r"not finite numbers, such as embeddings\.word_embeddings\.weight"):
        run(learnable, f"encoder.model_name={tmp_path / 'encoder'}")
    assert not list(Path("outputs").glob("*/*.json"))


# --- data, and nothing but data


PLACES = ["x/../../../../F", "..", ".", "", "a\\b", "a\0b", "\x1b[31mred", "a\nb", "long" * 70]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", ["tag", "name", "dataset"])
def test_a_name_that_cannot_name_a_file_is_refused(copy, key, place):
    meta = json.loads((copy / "hblm.json").read_text())
    reseal(copy, **{key: {**meta["dataset"], "name": place} if key == "dataset" else place})
    with pytest.raises(CheckpointError, match=f"no valid value of {key}"):
        open_checkpoint(copy)


@pytest.mark.parametrize("place", PLACES)
def test_the_configs_dataset_cannot_leave_the_folder_either(copy, place):
    meta = json.loads((copy / "hblm.json").read_text())
    meta["config"]["dataset"]["name"] = place
    reseal(copy, **meta)
    with pytest.raises(CheckpointError, match=r"dataset\.name"):
        open_checkpoint(copy)


@pytest.mark.parametrize("text", ['"\\ud800"', "NaN", "1e999", "[" * 100_000, "1" * 5000, "\\x00"])
def test_what_no_json_of_ours_holds_is_refused(copy, text):
    unseal(copy)
    content = (copy / "hblm.json").read_text()
    (copy / "hblm.json").write_text(content.replace('"seed": 1', f'"seed": {text}', 1))
    with pytest.raises(CheckpointError, match=r"hblm\.json: cannot be read|seed="):
        open_checkpoint(copy)


def test_no_secret_of_the_environment_is_read(copy, monkeypatch):
    """Neither into what is printed nor into files and their names."""
    monkeypatch.setenv("SECRET", "hunter2")
    text = "${oc.env:SECRET}"
    meta = json.loads((copy / "hblm.json").read_text())
    meta["config"]["dataset"] |= {
        "name": text,
        "converter": text,
        "source": text,
        "prepare": {"option": text},
    }
    meta["config"] |= {"output_dir": text, "cache_dir": text, "init_from": text}
    reseal(copy, **{**meta, "tag": text, "name": text})
    checkpoint = open_checkpoint(copy)
    assert checkpoint.config.dataset.name == checkpoint.config.init_from == text
    assert checkpoint.config.dataset.prepare == {"option": text}
    found = evaluation(copy)
    assert "hunter2" not in found["made"].name
    for path in copy.parents[1].rglob("*"):
        assert "hunter2" not in path.name
        assert path.is_dir() or b"hunter2" not in path.read_bytes()


@pytest.mark.parametrize("key", ["seed", "threshold", "posthoc_repath", "trackers"])
def test_an_interpolation_is_no_value_of_another_type(copy, monkeypatch, key):
    monkeypatch.setenv("SECRET", "1")
    meta = json.loads((copy / "hblm.json").read_text())
    meta["config"][key] = "${oc.env:SECRET}"
    reseal(copy, **meta)
    with pytest.raises(CheckpointError, match=key):
        open_checkpoint(copy)


def test_evaluating_runs_no_converter(copy, tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    meta = json.loads((copy / "hblm.json").read_text())
    meta["config"]["dataset"]["converter"] = str(tmp_path / "evil")
    reseal(copy, **meta)
    evaluation(copy)
