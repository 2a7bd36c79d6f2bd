"""Folders for a model hub: their files and card, and the way back from a hub's cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from programs import checkpoint_of, compose

from hblm.config.evaluate import EvaluateConfig
from hblm.config.export import ExportConfig
from hblm.config.stored_model import StoredModel
from hblm.errors import CheckpointError
from hblm.inference.arguments import without_stored
from hblm.inference.exports import export
from hblm.inference.exports.hub import local_folder, without_places
from hblm.inference.inputs import open_inputs
from hblm.inference.predictor import open_predictor
from hblm.runs.checkpoint import open_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="session")
def hub_folder(trained, made_once) -> Path:
    """Return the trained model's folder for a hub; tests only read it."""

    def make(folder: Path) -> None:
        given = (f"checkpoint={checkpoint_of(trained)}", "to=hub_folder", f"output={folder / 'model'}")
        export.run(compose("export", ExportConfig, *given))

    return made_once("hub-folder", make) / "model"


def test_the_folder_is_a_checkpoint_that_names_no_place_of_this_machine(hub_folder, trained):
    opened, original = open_checkpoint(hub_folder), open_checkpoint(checkpoint_of(trained))
    assert opened.meta["run_id"] == original.meta["run_id"]
    assert opened.meta["dataset"]["path"] == "fruit"
    home = str(Path(original.meta["dataset"]["path"]).parent)
    for file in hub_folder.rglob("*.*"):
        assert home.encode() not in file.read_bytes(), file
    places = [StoredModel(checkpoint=[str(folder)]) for folder in (hub_folder, checkpoint_of(trained))]
    given, expected = (open_predictor(place).scores(["A C F"]) for place in places)
    np.testing.assert_array_equal(given, expected)


def test_places_are_cut_to_their_last_part():
    value = {
        "path": ["/home/ann/x", "~/y/", r"C:\data\z", "data/wos", "FacebookAI/roberta-base"],
        "b": 3,
        "cache_dir": "/",
        "prepare": {"separator": "/", "label_separator": "~x"},
    }
    assert without_places(value) == {
        "path": ["x", "y", "z", "data/wos", "FacebookAI/roberta-base"],
        "b": 3,
        "cache_dir": ".",
        "prepare": {"separator": "/", "label_separator": "~x"},
    }


def test_the_card_has_the_scores_of_the_result(hub_folder, trained):
    card = (hub_folder / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    overall = json.loads(trained.read_text())["test"]["single"]["overall"]
    metrics = header["model-index"][0]["results"][0]["metrics"]
    assert [metric["value"] for metric in metrics] == [
        round(overall["micro_f1"], 4),
        round(overall["macro_f1"], 4),
    ]
    assert header["pipeline_tag"] == "text-classification"
    assert f"| all | {100 * overall['micro_f1']:.2f} | {100 * overall['macro_f1']:.2f} |" in card
    assert "60 train, 20 val, 23 test documents" in card
    assert "cut to 32 tokens" in card
    assert "nodes have fewer than 10 training documents" in card or "unreliable" not in card


def test_a_card_without_a_result_has_no_scores(trained, tmp_path):
    alone = shutil.copytree(checkpoint_of(trained), tmp_path / "alone" / "checkpoints" / "model")
    given = (f"checkpoint={alone}", "to=hub_folder", "output=new")
    export.run(compose("export", ExportConfig, *given))
    card = Path("new/README.md").read_text()
    assert "was not at hand" in card
    assert "model-index" not in card


def test_a_card_may_be_edited_and_no_other_file(hub_folder, tmp_path):
    copy = shutil.copytree(hub_folder, tmp_path / "copy")
    (copy / "README.md").write_text("another card")
    (copy / ".gitattributes").write_text("*.safetensors filter=lfs")
    (copy / "LICENSE").write_text("MIT")
    open_checkpoint(copy)
    (copy / "modeling.py").write_text("")
    with pytest.raises(CheckpointError, match=r"modeling\.py does not belong to it"):
        open_checkpoint(copy)


@pytest.fixture
def cached(hub_folder, tmp_path, monkeypatch) -> Path:
    """Return the snapshot folder of ann/topics in a hub's cache on this machine."""
    root = tmp_path / "models--ann--topics"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return Path(shutil.copytree(hub_folder, root / "snapshots" / COMMIT))


def test_a_hub_id_is_a_folder_of_the_hubs_cache(cached):
    for name in ("ann/topics", "ann/topics@main", f"ann/topics@{COMMIT}"):
        assert local_folder(name) == cached, name
    assert local_folder("ann/topics", revision="main") == cached
    predictor = open_predictor(StoredModel(checkpoint=["ann/topics"]))
    assert predictor.checkpoints[0].folder == cached


def test_a_model_of_the_hub_is_evaluated(cached, learnable):
    words = ["checkpoint=ann/topics", f"dataset.path={learnable}"]
    assert without_stored([*words, "film=sigmoid"]) == (words, [])
    assert open_inputs(compose("evaluate", EvaluateConfig, *words)).main.folder == cached


def test_what_is_neither_a_folder_nor_on_the_hub_is_named(cached):
    for name in ("ann/other", "ann/topics@v2"):
        with pytest.raises(
            CheckpointError, match=f"checkpoint={name} is not a folder, and as a model on the"
        ):
            local_folder(name)


def test_a_misspelt_folder_is_not_sought_on_the_hub(cached):
    Path("ann").mkdir()
    for name in ("ann/topics", "./topics", "a/b/c", "topics", "/a/b"):
        assert local_folder(name) == Path(name)
