"""Predictors: the scores of an evaluation for the same texts, whatever texts are predicted together."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from programs import checkpoint_of, run

from hblm.config.stored_model import StoredModel
from hblm.data.dataset import open_prepared
from hblm.errors import CheckpointError, ConfigError
from hblm.evaluate import main as evaluate
from hblm.inference import predictor
from hblm.inference.predictor import open_predictor
from hblm.runs.checkpoint import META, open_checkpoint

KINDS = {
    "single": (),
    "dual": ("joint_variant=dual",),
    "tri": ("joint_variant=tri_head_diffcat", "joint_variant.joint_eval_view=mix", "loss=focal"),
    "softmax": ("loss=conditional_softmax",),
    "conditional": ("loss=conditional", "film=none", "dataset_fraction=0.5"),
}


EVERY_SCORE = ("predictions=true", "predictions_floor=0")


def texts_of(folder: Path, split: str = "test") -> list[str]:
    return [document.text for document in open_prepared(folder).documents(split)]


@pytest.fixture(scope="module")
def stored(one_path, made_once):
    """Return the checkpoint of each kind of model; tests only read them."""

    def train(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            places = {
                kind: str(checkpoint_of(run(one_path, *overrides, "trainer.epochs=1")).absolute())
                for kind, overrides in KINDS.items()
            }
        (folder / "places.json").write_text(json.dumps(places))

    folder = made_once("predictor-models", train)
    return {kind: Path(place) for kind, place in json.loads((folder / "places.json").read_text()).items()}


def evaluated(checkpoint: Path, *overrides: str) -> pd.DataFrame:
    """Return an evaluation's scores, a row a document, in the order of the split and of the taxonomy."""
    evaluate([f"checkpoint={checkpoint}", *EVERY_SCORE, "output_dir=out", *overrides])
    (folder,) = Path("out/results").glob("*.predictions")
    opened = open_checkpoint(checkpoint)
    table = pd.read_parquet(folder).astype({"node": str, "document": str})
    wide = table.pivot_table(index="document", columns="node", values="score")
    order = [
        document.id for document in open_prepared(Path(opened.meta["dataset"]["path"])).documents("test")
    ]
    return wide.loc[order, [node.id for node in opened.taxonomy.nodes]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_an_evaluation(kind, stored, one_path):
    predictor = open_predictor(StoredModel(checkpoint=[str(stored[kind])], precision="fp32"))
    np.testing.assert_allclose(predictor.scores(texts_of(one_path)), evaluated(stored[kind]), atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["conditional", "softmax"])
def test_an_early_checkpoint_takes_its_counts_from_the_dataset(kind, stored, one_path, monkeypatch):
    new = open_predictor(StoredModel(checkpoint=[str(stored[kind])], precision="fp32"))
    monkeypatch.setattr("hblm.inference.predictor.open_checkpoint", without_counts)
    early = open_predictor(StoredModel(checkpoint=[str(stored[kind])], precision="fp32"))
    texts = texts_of(one_path)
    np.testing.assert_array_equal(early.scores(texts), new.scores(texts))
    monkeypatch.setattr("hblm.inference.predictor.open_checkpoint", without_dataset)
    with pytest.raises(CheckpointError, match="not at its recorded path"):
        open_predictor(StoredModel(checkpoint=[str(stored[kind])]))


def without_counts(folder: Path, **_: object):
    opened = open_checkpoint(folder)
    del opened.meta["training_counts"]
    return opened


def without_dataset(folder: Path, **_: object):
    opened = without_counts(folder)
    opened.meta["dataset"]["path"] = "nowhere"
    return opened


def test_a_text_has_the_same_scores_alone_and_among_others(stored, one_path):
    predictor = open_predictor(StoredModel(checkpoint=[str(stored["single"])], precision="fp32"))
    texts = [*texts_of(one_path), "", " \n", "A " * 400]
    together = predictor.scores(texts)
    assert together.dtype == np.float32
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_allclose(predictor.scores([text])[0], row, atol=1e-6)
    assert predictor.scores([]).shape == (0, together.shape[1])


def test_threads_share_a_predictor(stored, one_path):
    predictor = open_predictor(StoredModel(checkpoint=[str(stored["dual"])], precision="fp32"))
    texts = texts_of(one_path)
    expected = predictor.scores(texts)
    results: dict[int, np.ndarray] = {}

    def predict(number: int) -> None:
        results[number] = predictor.scores(texts)

    threads = [threading.Thread(target=predict, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for scores in results.values():
        np.testing.assert_array_equal(scores, expected)


def test_two_directions_are_averaged_as_in_an_evaluation(pair, learnable):
    td, bu = pair
    texts = texts_of(learnable)
    both = open_predictor(StoredModel(checkpoint=[str(bu), str(td)], ensemble_weight=0.2, precision="fp32"))
    alone = {
        place: open_predictor(StoredModel(checkpoint=[str(place)], precision="fp32")).scores(texts)
        for place in (td, bu)
    }
    logits = {place: np.log(scores) - np.log1p(-scores) for place, scores in alone.items()}
    expected = 1 / (1 + np.exp(-(0.2 * logits[td] + 0.8 * logits[bu])))
    np.testing.assert_allclose(both.scores(texts), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"joint_eval_view": "td"}, "has one view"),
        ({"backend": "onnx"}, r"export it: python -m hblm\.export to=onnx checkpoint=.+"),
        ({"tri_fuse_td": 2.0}, "acts on tri_head_diffcat"),
        ({"precision": "fp16", "device": "cpu"}, "precision=fp16 needs a GPU"),
        ({"device": "mps"}, "device=mps is not available"),
    ],
)
def test_keys_that_do_not_apply_are_refused(keys, message, stored):
    with pytest.raises(ConfigError, match=message):
        open_predictor(StoredModel(checkpoint=[str(stored["single"])], **keys))


def test_models_that_cannot_be_averaged_are_refused(stored):
    with pytest.raises(CheckpointError, match="whose logits mean different things"):
        open_predictor(StoredModel(checkpoint=[str(stored["single"]), str(stored["softmax"])]))
    places = [str(stored["single"]), str(stored["dual"])]
    with pytest.raises(ConfigError, match="acts between a top_down and a bottom_up"):
        open_predictor(StoredModel(checkpoint=places, ensemble_weight=0.5))


def test_no_view_is_chosen_where_no_model_has_several(stored):
    place = str(stored["single"])
    with pytest.raises(ConfigError, match="have one view, single"):
        open_predictor(StoredModel(checkpoint=[place, place], joint_eval_view="td"))


def test_exported_models_are_averaged_by_their_own_thresholds_and_as_one(stored):
    plain = open_checkpoint(stored["single"])
    record = {"to": "onnx", "threshold": 0.3, "members": [{}, {}]}
    exported = replace(plain, meta={**plain.meta, "export": record})
    for checkpoints in ([plain, exported], [exported, plain]):
        with pytest.raises(CheckpointError, match=r"one has threshold=0\.[35].*give threshold="):
            predictor._require_alike(checkpoints, None)
        predictor._require_alike(checkpoints, 0.4)
    other = replace(plain.config, direction=replace(plain.config.direction, cascade_direction="bottom_up"))
    assert predictor._weights([plain, replace(plain, config=other)], 0.2) == [0.2, 0.8]
    with pytest.raises(ConfigError, match="these have no direction and bottom_up"):
        predictor._weights([exported, replace(plain, config=other)], 0.2)


def test_a_checkpoint_has_the_counts_of_its_training(stored):
    meta = json.loads((stored["conditional"] / META).read_text())
    counts = meta["training_counts"]
    assert counts["documents"] == 30  # half of 60
    assert len(counts["positives"]) == len(counts["stops"]) == 7
    assert sum(counts["positives"][:2]) >= 30  # every document has a root
