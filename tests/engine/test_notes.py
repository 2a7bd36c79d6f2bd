"""Notes on a run: each where it belongs, and not where it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hblm.config.train import TrainConfig
from hblm.engine.notes import Trained, long_training, notes


def scores(predicted: list[int], gold: list[int], *, f1: float, precision: float = 0.5) -> dict[str, Any]:
    """Return the monitored view's scores; a node of its own for each level."""
    overall = {"micro_f1": f1, "macro_f1": f1, "micro_precision": precision, "micro_recall": 0.2}
    return {
        "threshold": 0.5,
        "overall": {**overall, "support": sum(gold)},
        "per_level": [{"level": at, "nodes": 4, "support": count} for at, count in enumerate(gold)],
        "nodes": [{"level": at, "predicted": count} for at, count in enumerate(predicted)],
    }


def row(threshold: float, f1: float, *predicted: int) -> dict[str, Any]:
    return {"threshold": threshold, "micro_f1": f1 + 0.1, "macro_f1": f1, "predicted": list(predicted)}


def config(**trainer: Any) -> TrainConfig:
    made = TrainConfig()
    for name, value in trainer.items():
        setattr(made.trainer, name, value)
    return made


def trained(f1s: list[float], **other: Any) -> Trained:
    """Return a run whose validation macro-F1 was `f1s`; without `other` fields it has no notes."""
    losses = other.pop("losses", [1 / at for at in range(1, len(f1s) + 1)])
    fields = {
        "config": config(epochs=len(f1s)),
        "history": [
            {"views": {"single": {"macro_f1": f1, "micro_f1": 0.9}}, "train_loss": loss}
            for f1, loss in zip(f1s, losses, strict=True)
        ],
        "best_epoch": f1s.index(max(f1s)) + 1,
        "val": scores([100, 100], [100, 100], f1=max(f1s)),
        "thresholds": [row(0.25, 0.3, 9, 9), row(0.5, max(f1s), 9, 9), row(0.75, 0.1, 9, 9)],
        "evaluate": "python -m hblm.evaluate checkpoint=DIR",
    }
    return Trained(**{**fields, **other})


def one(run: Trained) -> dict[str, Any]:
    (note,) = notes(run)
    assert "\n" not in note["text"]
    assert json.loads(json.dumps(note)) == note
    return note


def test_of_an_ordinary_run_nothing_is_said():
    assert notes(trained([0.5, 0.7, 0.7, 0.7, 0.7])) == []


def test_patience_that_ended_the_training():
    note = one(trained([0.5, 0.7123, 0.7, 0.6], config=config(epochs=65, patience=2)))
    assert note.pop("text") == (
        "training stopped after epoch 4 of 65: validation macro-F1 was best in epoch 2, 71.23, and no better "
        "in the 2 epochs since (trainer.patience=2); epoch 2 is kept"
    )
    values = {"epoch": 4, "epochs": 65, "best_epoch": 2, "score": 0.7123}
    assert note == {"what": "stopped_early", **values}


@pytest.mark.parametrize(
    ("f1s", "before"),
    [
        ([0.2, 0.3], 1),
        ([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.91, 0.92], 8),  # a fifth of ten
        ([0.2, 0.7, 0.5, 0.7, 0.72], 4),
        ([0.2, 0.3, 0.4, 0.704, 0.71], None),  # half a point in the last fifth
        ([0.2, 0.3, 0.4, 0.9, 0.8], None),  # not the best
        ([0.9], None),  # nothing to compare it with
    ],
)
def test_a_score_that_was_still_rising_at_the_end(f1s, before):
    run = trained(f1s)
    if before is None:
        assert notes(run) == []
        return
    note = one(run)
    assert (note["what"], note["earlier_epochs"], note["epochs"]) == ("still_rising", before, len(f1s))
    assert (note["earlier_score"], note["score"]) == (max(f1s[:before]), f1s[-1])
    assert f"trainer.epochs={2 * len(f1s)}" in note["text"]


def test_a_training_that_stopped_early_was_not_rising():
    run = trained([0.2, 0.3, 0.4, 0.5], config=config(epochs=9), best_epoch=3)
    assert [note["what"] for note in notes(run)] == ["stopped_early"]


def test_the_view_and_the_score_that_were_monitored_are_named():
    made = config(epochs=9, monitor="micro_f1")
    made.joint_variant.joint_variant, made.joint_variant.joint_eval_view = "dual", "all"
    history = [{"views": {"fused": {"micro_f1": f1, "macro_f1": 0}}, "train_loss": 1} for f1 in (0.1, 0.2)]
    note = one(trained([0.1, 0.2], config=made, history=history))
    assert note["score"] == 0.2
    assert "validation micro-F1 of the fused view was best in epoch 2" in note["text"]


@pytest.mark.parametrize(
    ("f1s", "moved"),
    [([0.0] * 3, False), ([0.0], False), ([0.3] * 3, False), ([0.3], True), ([1.0] * 3, True)],
)
def test_a_score_that_never_moved(f1s, moved):
    run = trained(f1s, best_epoch=1)
    if moved:
        assert notes(run) == []
        return
    note = one(run)
    assert (note["what"], note["epochs"], note["score"]) == ("score_never_moved", len(f1s), f1s[0])
    assert "trainer.learning_rate=0.0003 (now 3e-05)" in note["text"]


def test_what_is_to_be_tried_depends_on_the_run():
    made = config(epochs=2, head_learning_rate=0.01)
    assert "loss did not fall" not in one(trained([0.0, 0.0], config=made))["text"]
    made.head.output_init = "default"
    note = one(trained([0.0, 0.0], config=made, losses=[0.5, 0.6]))
    assert note["text"].endswith(
        "the training loss was 0.5 in the first and 0.6 in the last; try trainer.head_learning_rate=0.1 "
        "(now 0.01) or 0.001, since the loss did not fall, or trainer.epochs=4 or head.output_init=prior"
    )


def test_a_level_that_is_never_predicted():
    val = scores([300, 0, 0], [100, 1200, 0], f1=0.7)  # level 2 has no gold label: nothing to miss
    grid = [row(0.05, 0.1, 9, 4, 9), row(0.1, 0.1, 9, 1, 9), row(0.15, 0.1, 9, 0, 9), row(0.5, 0.7, 9, 0, 0)]
    run = {"val": val | {"overall": val["overall"] | {"support": 500}}}
    note = one(trained([0.5, 0.7, 0.7, 0.7, 0.7], **run, thresholds=grid))
    assert note.pop("text") == (
        "on validation no node of level 1 (4 nodes, 1,200 gold labels) is predicted at threshold 0.5, and at "
        "threshold=0.1 some would be; more trainer.epochs or a higher trainer.head_learning_rate raises the "
        "scores"
    )
    values = {"level": 1, "nodes": 4, "gold": 1200, "threshold": 0.5, "predicted_from": 0.1}
    assert note == {"what": "level_never_predicted", **values}
    low = one(trained([0.5, 0.7, 0.7, 0.7, 0.7], **run, thresholds=[row(0.05, 0.1, 9, 0, 9)]))
    assert low["predicted_from"] is None
    assert "no score there reaches 0.05" in low["text"]


@pytest.mark.parametrize(
    ("predicted", "rows", "best"),
    [
        (99, [row(0.05, 0.3), row(0.2, 0.6), row(0.5, 0.4)], 0.2),
        (99, [row(0.05, 0.6), row(0.2, 0.6), row(0.5, 0.4)], 0.2),  # of equals the nearest
        (0, [row(0.05, 0.6), row(0.2, 0.3), row(0.5, 0.4)], 0.05),
        (100, [row(0.05, 0.3), row(0.2, 0.6), row(0.5, 0.4)], None),  # half of the gold labels
        (99, [row(0.05, 0.3), row(0.2, 0.3), row(0.5, 0.4)], None),  # no other is better
        (99, [row(0.2, 0.5), row(0.5, 0.4), row(0.7, 0.6)], None),  # a higher one is best
    ],
)
def test_precision_far_above_recall(predicted, rows, best):
    val = scores([predicted, 0], [200, 0], f1=0.4, precision=0.8)
    found = notes(trained([0.2, 0.4, 0.4, 0.4, 0.4], val=val, thresholds=rows))
    if best is None:
        assert found == []
        return
    (note,) = found
    assert note["what"] == "precision_above_recall"
    assert note["threshold"] == 0.5
    assert note["best"]["threshold"] == best
    assert note["best"]["micro_f1"] == note["best"]["macro_f1"] + 0.1
    assert (note["micro_precision"], note["micro_recall"], note["macro_f1"]) == (0.8, 0.2, 0.4)
    assert note["text"].endswith(f"python -m hblm.evaluate checkpoint=DIR threshold={best:g}")
    (kept,) = notes(trained([0.2, 0.4, 0.4, 0.4, 0.4], val=val, thresholds=rows, evaluate=None))
    assert "trainer.keep_checkpoint=true" in kept["text"]


def test_a_long_training_is_announced_and_what_would_be_shorter():
    made = TrainConfig()
    line = long_training(3.1 * 3600, made, documents=12_000, device="cpu")
    assert line == (
        "training takes at most about 3.1 hours on cpu: 12,000 documents x 65 epochs; shorter: "
        "encoder.trainable=false, which runs the encoder once, a smaller encoder, encoder.max_length=256 "
        "(now 512), dataset_fraction=0.1 (now 1), a GPU"
    )
    assert long_training(3600, made, documents=1, device="cpu") is None
    assert "14 hours on NVIDIA H100:" in long_training(14 * 3600, made, documents=1, device="NVIDIA H100")
    assert "a GPU" not in long_training(14 * 3600, made, documents=1, device="NVIDIA H100")
    assert "about 10 days" in long_training(240 * 3600, made, documents=1, device="cpu")
    made.encoder.trainable = False
    frozen = long_training(3 * 3600, made, documents=12_000, device="cpu")
    assert frozen.startswith("encoding once takes about 3 hours on cpu")
    assert "encoder.trainable" not in frozen
