"""Loaded models: the predictions of their predictor, in every form in which texts are given."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from programs import checkpoint_of

import hblm
from hblm.config.stored_model import StoredModel
from hblm.data.dataset import open_prepared
from hblm.errors import CheckpointError, ConfigError, DataError
from hblm.inference.decision import PredictedPath
from hblm.inference.predictor import open_predictor
from hblm.inference.stored_decisions import decision_for


@pytest.fixture(scope="module")
def folder(trained) -> Path:
    return checkpoint_of(trained)


@pytest.fixture(scope="module")
def model(folder) -> hblm.inference.model.Model:
    return hblm.load(folder, device="cpu")


@pytest.fixture(scope="module")
def texts(learnable) -> list[str]:
    return [document.text for document in open_prepared(learnable).documents("test")]


def test_scores_and_sets_are_those_of_the_predictor(model, folder, texts):
    predictor = open_predictor(StoredModel(checkpoint=[str(folder)], device="cpu"))
    decision = predictor.decision()
    decided = decision.decide(predictor.scores(texts))
    assert model.classes_.tolist() == ["a", "b", "a1", "a2", "b1", "a1x", "a1y"]
    assert model.taxonomy == predictor.taxonomy
    np.testing.assert_array_equal(model.predict_proba(texts), decided.scores)
    rows = range(len(texts))
    assert model.predict(texts) == [decision.nodes(decided, row) for row in rows]
    assert model.predict_paths(texts) == [decision.paths(decided, row) for row in rows]
    for nodes, paths in zip(model.predict(texts), model.predict_paths(texts), strict=True):
        assert set(nodes) == {node for path in paths for node in path.nodes}


def test_a_model_predicts_what_it_learnt(model, learnable):
    documents = list(open_prepared(learnable).documents("test"))
    predicted = model.predict([document.text for document in documents])
    right = sum(
        set(nodes) == set(document.labels) for nodes, document in zip(predicted, documents, strict=True)
    )
    assert right > 0.9 * len(documents)


def test_one_text_gives_one_prediction_and_no_texts_give_none(model, texts):
    assert model.predict(texts[0]) == model.predict([texts[0]])[0]
    assert model.predict_paths(texts[0], top_k=2) == model.predict_paths([texts[0]], top_k=2)[0]
    assert model.predict_proba(texts[0]).shape == (7,)
    assert model.predict_proba([]).shape == (0, 7)
    assert model.predict([]) == model.predict_paths(iter(())) == []


def test_the_best_paths_end_at_leaves_and_with_a_threshold_only_predicted_ones_count(model, texts):
    for paths in model.predict_paths(texts, top_k=3):
        assert [len(paths), len({path.nodes[-1] for path in paths})] == [3, 3]
        assert all(path.nodes[-1] in ("a2", "b1", "a1x", "a1y") for path in paths)
        assert [path.scores[-1] for path in paths] == sorted(
            (path.scores[-1] for path in paths), reverse=True
        )
    first = model.predict_paths("A a1 C F x", top_k=1)[0]
    assert isinstance(first, PredictedPath)
    assert first.names == tuple(model.taxonomy.nodes[model.taxonomy.index[node]].name for node in first.nodes)
    assert model.predict_paths(texts, top_k=1, threshold=1.0) == [[] for _ in texts]
    assert model.predict(texts, top_k=1) == [
        list(paths[0].nodes) for paths in model.predict_paths(texts, top_k=1)
    ]


def test_options_of_a_call_and_of_the_model(folder, model, texts):
    strict = hblm.load(folder, device="cpu", threshold=0.9, consistency="cap")
    assert (strict.threshold, model.threshold) == (0.9, 0.5)
    assert strict.predict(texts) == model.predict(texts, threshold=0.9, consistency="cap")
    np.testing.assert_array_equal(strict.predict_proba(texts), model.predict_proba(texts, consistency="cap"))
    assert (strict.predict_proba(texts) <= model.predict_proba(texts)).all()
    assert strict.predict(texts, threshold=0.5, consistency="raise") == model.predict(texts)


def test_threads_get_equal_results(model, texts):
    expected = model.predict_proba(texts)
    with ThreadPoolExecutor(8) as pool:
        for scores in pool.map(lambda _: model.predict_proba(texts), range(8)):
            np.testing.assert_array_equal(scores, expected)


def test_tables_pickles_and_text(model, texts, tmp_path):
    frame = pd.DataFrame({"id": range(len(texts)), "body": texts})
    assert model.predict(frame, text="body") == model.predict(frame["body"]) == model.predict(texts)
    again = pickle.loads(pickle.dumps(model))
    assert again.predict(texts) == model.predict(texts)
    assert repr(model) == f"<hblm model {model.name}: 7 nodes on 3 levels>"
    with pytest.raises(DataError, match=r"texts\[2\] is missing"):
        model.predict([*texts[:2], None])


def test_several_models_are_averaged(folder, model, texts):
    pair = hblm.load([folder, str(folder)], device="cpu")
    np.testing.assert_allclose(pair.predict_proba(texts), model.predict_proba(texts), atol=1e-6)


def test_faults_are_all_named(folder, model, monkeypatch):
    with pytest.raises(ConfigError, match=r"(?s)threshold=2.*out of range.*consistency=riase.*mean raise"):
        hblm.load(folder, threshold=2, consistency="riase")
    with pytest.raises(ConfigError, match="fuse= weighs td, bu, mix, not fused"):
        hblm.load(folder, fuse={"fused": 1})
    with pytest.raises(CheckpointError, match="is not a folder"):
        hblm.load("/nowhere/at/all")
    with pytest.raises(ConfigError, match=r"threshold=-1.* out of range"):
        model.predict("a", threshold=-1)
    for share in (1, 0.9999, 0.001):
        with pytest.raises(ConfigError, match=rf"confidence={share} is not a number from 0\.01 to 0\.999"):
            model.predict("a", confidence=share)
    with pytest.raises(ConfigError, match="top_k=0 is not a whole number of at least 1"):
        model.predict_paths("a", top_k=0)
    for options, message in (
        ({"threshold": [0.5]}, r"threshold=\[0.5\] is not a number"),
        ({"confidence": "0.9"}, "confidence='0.9' is not a number from 0.01 to 0.999"),
        ({"confidence": 0.9, "calibrate": 3}, "calibrate=3 is not a folder"),
        ({"top_k": 1.5}, "top_k=1.5 is not a whole number"),
    ):
        with pytest.raises(ConfigError, match=message):
            model.predict("a", **options)
    for place in (None, [folder, 3]):
        with pytest.raises(ConfigError, match="expected a folder, a model of the hub, or a list"):
            hblm.load(place)


def test_numbers_of_numpy_are_options(model):
    given = {"top_k": np.int64(2), "threshold": np.float64(0.25)}
    assert model.predict("A a1 C F x", **given) == model.predict("A a1 C F x", top_k=2, threshold=0.25)


def test_a_calibration_is_made_once_until_its_folder_changes(model, monkeypatch, tmp_path):
    made = []

    def count(*_, **options):
        made.append(options)
        return model._predictor.decision()

    monkeypatch.setattr("hblm.inference.model.decision_for", count)
    for expected in (1, 1, 2):
        if expected == 2:
            (tmp_path / "test.jsonl").write_text("{}")
        model.predict("a", confidence=0.9, calibrate=tmp_path)
        assert len(made) == expected


def test_the_decisions_that_are_kept_are_few(model):
    for step in range(100):
        model.predict("a", threshold=step / 100)
    assert model._decided.cache_info().currsize < 100


def test_a_model_of_the_hub_is_downloaded_and_opened(folder, monkeypatch, texts, model):
    requests = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        requests.append((name, revision))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    loaded = hblm.load("someone/labels", revision="v1", device="cpu")
    assert requests == [("someone/labels", "v1")]
    assert loaded.predict(texts) == model.predict(texts)
    with pytest.raises(ConfigError, match="give a revision each"):
        hblm.load("someone/labels@v2", revision="v1")
    with pytest.raises(ConfigError, match="revision=v1 is of a model of the hub"):
        hblm.load(folder, revision="v1")


def test_a_model_that_the_hub_does_not_have():
    with pytest.raises(CheckpointError, match="someone/labels is not a folder, and as a model on the hub"):
        hblm.load("someone/labels")


@pytest.mark.slow
def test_a_joint_model_predicts_with_the_view_that_is_given(tri, texts):
    views = ("td", "bu", "mix")
    models = [hblm.load(checkpoint_of(tri), device="cpu", joint_eval_view=view) for view in views]
    scores = [model.predict_proba(texts) for model in models]
    assert not np.allclose(scores[0], scores[1])
    alone = hblm.load(checkpoint_of(tri), device="cpu", fuse={"td": 0, "bu": 0}, joint_eval_view="fused")
    np.testing.assert_allclose(alone.predict_proba(texts), scores[2], atol=1e-6)


@pytest.mark.slow
def test_decisions_of_the_validation_split_by_options_of_the_model_or_a_call(kept, texts):
    kept = checkpoint_of(kept)
    plain = hblm.load(kept, device="cpu")
    options = {"tune": "node", "calibrated": True}
    config = StoredModel(checkpoint=[str(kept)], device="cpu", **options)
    predictor = open_predictor(config)
    decision = decision_for(config, predictor)
    decided = decision.decide(predictor.scores(texts))
    expected = [decision.nodes(decided, row) for row in range(len(texts))]
    tuned = hblm.load(kept, device="cpu", **options)
    assert tuned.predict(texts) == expected == plain.predict(texts, **options)
    np.testing.assert_array_equal(tuned.predict_proba(texts), decided.scores)
    np.testing.assert_array_equal(plain.predict_proba(texts, calibrated=True), decided.scores)
    assert tuned.predict(texts, tune="none", threshold=0.5, calibrated=False) == plain.predict(texts)
    assert tuned.predict(texts, threshold=0.5, calibrated=False) == plain.predict(texts)
    strict = hblm.load(kept, device="cpu", threshold=1.0)
    assert strict.predict(texts) == [[] for _ in texts]
    assert strict.predict(texts, tune="node") == plain.predict(texts, tune="node") != strict.predict(texts)


@pytest.mark.slow
def test_confidence_cuts_paths_back_and_is_refused_without_kept_documents(kept, model, texts):
    loaded = hblm.load(checkpoint_of(kept), device="cpu", tune="node")
    sure = loaded.predict(texts, confidence=0.9)
    for nodes, all_nodes in zip(sure, loaded.predict(texts), strict=True):
        assert set(nodes) <= set(all_nodes)
        assert loaded.taxonomy.close(nodes) == set(nodes)
    assert [len(paths) for paths in loaded.predict_paths(texts, confidence=0.9, top_k=1)]
    with pytest.raises(ConfigError, match=r"confidence= needs labelled documents that training never saw"):
        model.predict(texts, confidence=0.9)
    with pytest.raises(ConfigError, match="calibrate=here acts with confidence="):
        loaded.predict(texts, calibrate="here")
