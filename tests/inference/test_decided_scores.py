"""Tuned thresholds, calibration and confidence: after training, at evaluation and for prediction."""

from __future__ import annotations

import json
import shutil
from math import inf
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from programs import LEARNING, TINY, checkpoint_of, compose, edit, evaluation, run

from hblm.config.evaluate import EvaluateConfig
from hblm.config.stored_model import StoredModel
from hblm.config.train import TrainConfig
from hblm.data.dataset import open_prepared
from hblm.engine import risk, training, tuning
from hblm.errors import CheckpointError, ConfigError
from hblm.inference.confidence import critical_of, least_score, stored_critical
from hblm.inference.predictor import open_predictor
from hblm.inference.stored_decisions import decision_for, stored_or_chosen
from hblm.runs.checkpoint import open_checkpoint
from hblm.runs.decisions import read_decisions, write_decisions


@pytest.fixture
def copied(trained, tmp_path):
    """Return a checkpoint without decisions in a folder of its own, and its result."""
    shutil.copytree(trained.parent.parent, tmp_path / "outputs")
    return checkpoint_of(tmp_path / "outputs" / "results" / trained.name)


def table_of(result, column):
    """Return a value of every document and node, (documents, nodes) in taxonomy order."""
    names = ["a", "b", "a1", "a2", "b1", "a1x", "a1y"]
    table = pd.read_parquet(result["predictions"]["path"])
    return table.pivot(index="document", columns="node", values=column)[names].to_numpy()


def model(checkpoint, **keys):
    return StoredModel(checkpoint=[str(checkpoint)], device="cpu", precision="fp32", **keys)


def test_a_training_keeps_documents_and_writes_decisions(kept):
    record = json.loads(kept.read_text())
    assert record["dataset"]["documents"] == {"train": 60, "val": 10, "test": 23, "calibration": 10}
    assert record["val"]["single"]["documents"] == 10
    checkpoint = open_checkpoint(checkpoint_of(kept))
    chosen = read_decisions(checkpoint)["single"]
    assert (chosen.documents, chosen.conformal.documents) == (10, 10)
    settings = {"threshold": 0.5, "tune": "node", "consistency": "raise", "calibrated": False}
    settings["precision"] = "fp32"
    assert chosen.conformal.settings == settings
    assert record["tuned"]["thresholds"]["global"] == chosen.everywhere
    overall = {split: record["tuned"][split]["single"]["overall"] for split in ("val", "test")}
    assert record["tuned"]["monitor"] == "macro_f1"
    assert overall["val"]["macro_f1"] >= record["val"]["single"]["repath"]["overall"]["macro_f1"]


@pytest.mark.precision
def test_an_evaluation_repeats_what_the_training_stored(kept):
    record = json.loads(kept.read_text())
    found = evaluation(checkpoint_of(kept), "tune=node")
    assert found["tuned"]["test"] == record["tuned"]["test"]
    assert found["test"] == record["test"]
    assert found["settings"]["tune"] == "node"
    assert "tune" not in evaluation(checkpoint_of(kept))["settings"]


def test_the_tuned_scores_are_those_of_the_closed_sets_at_the_thresholds(copied, capsys):
    found = evaluation(copied, "tune=level", "predictions=true", "predictions_floor=0")
    chosen = read_decisions(open_checkpoint(copied))["single"]
    taxonomy = open_checkpoint(copied).taxonomy
    thresholds = np.array(chosen.thresholds("level", taxonomy), np.float32)
    assert thresholds.tolist() == np.repeat(np.array(chosen.level, np.float32), [2, 3, 2]).tolist()
    predicted = tuning.raised(table_of(found, "score").astype(np.float32) >= thresholds, taxonomy)
    gold = table_of(found, "target").astype(bool)
    overall = found["tuned"]["test"]["single"]["overall"]
    hits = (predicted & gold).sum()
    assert overall["micro_f1"] == pytest.approx(2 * hits / (predicted.sum() + gold.sum()))
    assert "tune=level: micro-F1" in capsys.readouterr().out


@pytest.mark.precision
def test_prediction_and_evaluation_choose_alike(copied):
    evaluation(copied, "tune=global")
    by_evaluation = read_decisions(open_checkpoint(copied))
    (copied / "decisions.json").unlink()
    decision = decision_for(model(copied, tune="node"), open_predictor(model(copied)))
    by_prediction = read_decisions(open_checkpoint(copied))
    assert by_prediction["single"].node == by_evaluation["single"].node
    assert by_prediction["single"].temperatures == pytest.approx(
        by_evaluation["single"].temperatures, rel=1e-3
    )
    assert decision.thresholds.tolist() == np.array(by_evaluation["single"].node, np.float32).tolist()


def test_calibrated_scores_change_no_predicted_node_at_tuned_thresholds(kept):
    raw = np.random.default_rng(0).random((50, 7), np.float32)
    predictor = open_predictor(model(checkpoint_of(kept)))
    plain, calibrated = (
        decision_for(model(checkpoint_of(kept), tune="node", calibrated=flag), predictor).decide(raw)
        for flag in (False, True)
    )
    assert (plain.predicted == calibrated.predicted).all()
    assert (plain.scores != calibrated.scores).any()


def test_decisions_of_another_checkpoint_and_damaged_ones_are_refused(kept, copied, tmp_path):
    file = copied / "decisions.json"
    shutil.copy(checkpoint_of(kept) / "decisions.json", file)
    with pytest.raises(CheckpointError, match=r"belongs to another checkpoint; delete it, .*tune=global"):
        evaluation(copied, "tune=node")
    edit(file, training=json.loads((copied / "hblm.json").read_text())["training"], schema_version=9)
    with pytest.raises(CheckpointError, match="version 9; this program reads 1"):
        evaluation(copied, "tune=node")
    file.write_text(file.read_text().replace('"documents": 10', '"documents": 11'))
    with pytest.raises(CheckpointError, match="not as it was written"):
        evaluation(copied, "tune=node")
    assert evaluation(copied)["test"]  # the checkpoint itself is sound


def test_without_data_a_prediction_names_the_evaluation(copied):
    meta = json.loads((copied / "hblm.json").read_text())
    edit(copied / "hblm.json", dataset={**meta["dataset"], "path": "/nowhere"})
    with pytest.raises(
        CheckpointError, match=r"has no decisions.json with view single; .*tune=node dataset.path"
    ):
        decision_for(model(copied, tune="node"), open_predictor(model(copied)))


def test_the_kept_documents_are_those_that_no_other_part_has(kept):
    """Critical scores stored by the training equal those that a prediction computes on the kept documents."""
    checkpoint = open_checkpoint(checkpoint_of(kept))
    stored = read_decisions(checkpoint)["single"].conformal
    predictor = open_predictor(model(checkpoint.folder))
    decision = decision_for(model(checkpoint.folder, tune="node"), predictor)
    from_file = least_score(predictor, decision, 0.5)
    finite = np.array(stored.critical, np.float64)
    critical = np.concatenate([finite, np.full(stored.documents - len(finite), -inf)])
    assert from_file == risk.least_score(critical, 0.5)
    (checkpoint.folder / "decisions.json").rename(checkpoint.folder / ".kept")
    try:
        assert least_score(predictor, decision, 0.5) == pytest.approx(from_file, abs=1e-5)
    finally:
        (checkpoint.folder / ".kept").rename(checkpoint.folder / "decisions.json")


def test_confidence_is_measured(kept, capsys):
    found = evaluation(checkpoint_of(kept), "confidence=0.8", "tune=node")
    entry = found["confidence"]
    assert entry["documents"] == 23
    assert entry["risk"] <= entry["risk_before"]
    assert entry["depth"] <= entry["depth_before"]
    assert "confidence 0.8: " in capsys.readouterr().out


def test_returned_sets_have_no_orphan_and_scores_above_the_least(kept):
    predictor = open_predictor(model(checkpoint_of(kept)))
    raw = np.random.default_rng(0).random((200, 7), np.float32)
    for consistency in ("raise", "cap"):
        config = model(checkpoint_of(kept), consistency=consistency)
        whole, cut = (decision_for(config, predictor, confidence=share).decide(raw) for share in (None, 0.85))
        assert (cut.predicted <= whole.predicted).all()
        for node, parent in enumerate(predictor.taxonomy.parents):
            if parent >= 0:
                assert (cut.predicted[:, node] <= cut.predicted[:, parent]).all()


def test_confidence_needs_documents_that_training_never_saw(trained, kept, learnable, one_path, tmp_path):
    without, with_share = checkpoint_of(trained), checkpoint_of(kept)
    with pytest.raises(
        ConfigError, match=r"kept none: train with trainer.calibration_share=0.5, or give calibrate"
    ):
        evaluation(without, "confidence=0.9")
    with pytest.raises(ConfigError, match=r"needs at least 19 calibration documents; .* has 10"):
        evaluation(with_share, "confidence=0.95")
    predictor = open_predictor(model(without))
    with pytest.raises(ConfigError, match="write consistency=raise or cap"):
        decision_for(model(without, consistency="none"), predictor, confidence=0.9)
    same = tmp_path / "same"
    shutil.copytree(learnable, same)
    shutil.copy(same / "val.jsonl", same / "test.jsonl")
    (same / "manifest.json").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"its test.jsonl is the val.jsonl of the training"):
        decision_for(model(without), predictor, confidence=0.9, calibrate=str(same))
    decision = decision_for(model(without), predictor, confidence=0.9, calibrate=str(one_path))
    texts = [document.text for document in open_prepared(one_path).documents("test")]
    assert decision.least == least_score(
        predictor, decision_for(model(without), predictor), 0.9, str(one_path)
    )
    assert decision.decide(predictor.scores(texts)).predicted.any()


def test_stored_critical_scores_hold_for_their_precision(kept):
    checkpoint = open_checkpoint(checkpoint_of(kept))
    decision = decision_for(model(checkpoint.folder, tune="node"), open_predictor(model(checkpoint.folder)))
    stored = [stored_critical(checkpoint, decision, "single", each) for each in ("fp32", "bf16", "int8")]
    assert [each is None for each in stored] == [False, True, True]
    predictor = SimpleNamespace(checkpoints=(checkpoint,), view="single", precision="bf16", as_trained=True)
    with pytest.raises(ConfigError, match=r"stored for these thresholds and this precision; start with conf"):
        critical_of(predictor, decision, None, may_score=False)


def test_too_few_documents_are_refused_before_they_are_scored(trained, one_path, monkeypatch):
    monkeypatch.setattr("hblm.inference.confidence._critical", None)
    without = model(checkpoint_of(trained))
    with pytest.raises(ConfigError, match=r"needs at least 99 calibration documents; calibrate=.* has \d"):
        decision_for(without, open_predictor(without), confidence=0.99, calibrate=str(one_path))


def test_the_scored_documents_do_not_calibrate(copied, learnable):
    with pytest.raises(ConfigError, match=r"its test.jsonl is the split that is scored"):
        evaluation(copied, "confidence=0.9", f"calibrate={learnable}")


def test_a_confidence_has_the_precision_of_its_evaluation(copied, one_path):
    edit(copied / "hblm.json", precision="fp16")
    found = evaluation(copied, "confidence=0.9", f"calibrate={one_path}", "device=cpu")
    assert found["confidence"]["documents"] == 23


def test_a_view_that_another_process_chose_meanwhile_is_kept(kept, copied):
    checkpoint = open_checkpoint(copied)
    single = read_decisions(open_checkpoint(checkpoint_of(kept)))["single"]

    def choose():
        write_decisions(copied, checkpoint.meta["training"], {"bu": single})
        return single

    assert stored_or_chosen(checkpoint, "td", choose) == single
    assert [*read_decisions(checkpoint)] == ["bu", "td"]


def test_the_share_is_part_of_the_run_and_must_leave_documents(learnable, kept):
    assert open_checkpoint(checkpoint_of(kept)).config.trainer.calibration_share == 0.5
    with pytest.raises(ConfigError, match="keeps 0 of the 20 documents of val"):
        run(learnable, "trainer.calibration_share=0.01")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (("tune=node", "threshold=0.4"), "threshold=0.4 contradicts tune=node"),
        (("calibrated=true", "tri_fuse_td=1"), "leave out tri_fuse_td"),
        (("calibrate=x",), "calibrate=x acts with confidence="),
        (("checkpoint=[a,b]", "tune=node"), "tune=node acts on one checkpoint, and checkpoint= names 2"),
    ],
)
def test_keys_that_contradict_each_other(keys, reason):
    with pytest.raises(ConfigError, match=reason):
        compose("evaluate", EvaluateConfig, "checkpoint=a", *keys)


@pytest.mark.slow  # matplotlib
def test_figures_are_drawn_beside_the_result(kept):
    made = evaluation(checkpoint_of(kept), "figures=true")["made"]
    assert made.with_suffix(".reliability.svg").read_text().count("<svg") == 1
    assert made.with_suffix(".reliability.png").stat().st_size > 1000


@pytest.mark.slow
def test_done_before_names_the_evaluation(learnable, caplog):
    short = (*LEARNING, "trainer.epochs=1")
    run(learnable, *short)
    with caplog.at_level("INFO", logger="hblm"):
        training.run(compose("train", TrainConfig, *TINY, f"dataset.path={learnable}", *short, "tune=level"))
    assert caplog.text.count("no scores for tune=level: python -m hblm.evaluate checkpoint=") == 1


@pytest.mark.slow
def test_every_view_of_a_joint_model_has_decisions_of_its_own(learnable):
    result = run(learnable, "method=dual", *LEARNING, "trainer.epochs=3", "tune=global")
    checkpoint = checkpoint_of(result)
    assert list(json.loads(result.read_text())["tuned"]["test"]) == ["fused"]
    found = evaluation(checkpoint, "tune=global", "joint_eval_view=bu")
    assert list(found["tuned"]["test"]) == ["bu"]
    assert list(read_decisions(open_checkpoint(checkpoint))) == ["fused", "bu"]
