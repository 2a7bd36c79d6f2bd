"""Decisions from validation scores, and the scores of predictions that follow them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hblm.config.train import TrainConfig
from hblm.console import StartTask
from hblm.engine import collectives
from hblm.engine.calibration import CalibrationCounter, Reliability
from hblm.engine.device import resolved_precision
from hblm.engine.metrics import ScoreCounter
from hblm.engine.risk import critical_scores
from hblm.engine.scoring import Scores, Scoring
from hblm.engine.session import TrainingSession
from hblm.engine.tuning import TuningCounter, raised
from hblm.runs.decisions import Conformal, Decisions
from hblm.taxonomy import Taxonomy

Floats = npt.NDArray[np.float32]
Sets = npt.NDArray[np.bool_]


class DecisionCounter:
    """Receive one view's scores of the validation split, a batch at a time, and choose by them.

    Memory is O(nodes), whatever the number of documents.
    """

    def __init__(self, taxonomy: Taxonomy, view: str, documents: int) -> None:
        """Start at none of so many documents."""
        self.taxonomy, self.view, self.documents = taxonomy, view, documents
        self.tuning, self.calibration = TuningCounter(taxonomy, documents), CalibrationCounter(taxonomy)

    def __call__(self, positions: np.ndarray, scores: Mapping[str, Tensor], targets: Tensor) -> None:
        """Count a batch, as a sink of `score`."""
        self.update(positions, *arrays_of(scores[self.view], targets))

    def update(self, positions: np.ndarray, raw: Floats, gold: Sets) -> None:
        """Count a batch: positions in the split, raw scores and labels, both (documents, nodes)."""
        self.tuning.update(positions, raised(raw, self.taxonomy), gold)
        self.calibration.update(raw, gold)

    def counted(self) -> tuple[Any, Any]:
        """Return the counts, which another counter can add."""
        return self.tuning.counted(), self.calibration.counted()

    def add(self, counted: tuple[Any, Any]) -> None:
        """Add the counts of another counter, of other documents."""
        self.tuning.add(counted[0])
        self.calibration.add(counted[1])

    def decisions(self, monitor: str) -> Decisions:
        """Return the decisions; thresholds maximise `monitor`, micro_f1 or macro_f1."""
        tuned, temperatures = self.tuning.tuned(monitor), self.calibration.temperatures()
        return Decisions(
            documents=self.documents,
            monitor=monitor,
            everywhere=tuned.everywhere,
            level=tuned.level,
            node=tuned.node,
            prior=_finite(tuned.prior),
            tried=[{**each._asdict(), "prior": _finite(each.prior)} for each in tuned.tried],
            temperatures=temperatures,
            errors=errors_of(self.calibration, temperatures),
        )


class TunedCounter:
    """Score one view's predictions at a threshold for each node, closed under ancestors."""

    def __init__(self, scoring: Scoring, view: str, thresholds: Sequence[float]) -> None:
        """Start at zero documents; `thresholds` are in taxonomy order."""
        self.taxonomy, self.view = scoring.taxonomy, view
        self.thresholds = np.array(thresholds, np.float32)
        self.counter = ScoreCounter(scoring.taxonomy, 0.5, "cpu", scoring.train_support, ranking=False)

    def __call__(self, positions: np.ndarray, scores: Mapping[str, Tensor], targets: Tensor) -> None:
        """Count a batch, as a sink of `score`."""
        raw, gold = arrays_of(scores[self.view], targets)
        self.counter.update(torch.from_numpy(raw >= self.thresholds).float(), torch.from_numpy(gold))

    def compute(self, parts: Sequence[Mapping[str, Any]]) -> Scores:
        """Return overall, per_level, hierarchical and by_frequency of the counts of all ranks."""
        taxonomy, support = self.taxonomy, self.counter.train_support
        merged = ScoreCounter(taxonomy, 0.5, "cpu", support, ranking=False)
        for counted in parts:
            merged.add(counted)
        closed: Scores = merged.compute()["repath"]
        return closed


class CriticalCounter:
    """Collect the critical scores of calibration documents: of one view at a threshold for each node."""

    def __init__(self, taxonomy: Taxonomy, view: str, thresholds: Sequence[float]) -> None:
        """Start at zero documents; `thresholds` are in taxonomy order."""
        self.taxonomy, self.view = taxonomy, view
        self.thresholds = np.array(thresholds, np.float32)
        self.critical: list[float] = []

    def __call__(self, positions: np.ndarray, scores: Mapping[str, Tensor], targets: Tensor) -> None:
        """Take a batch, as a sink of `score`."""
        raw, gold = arrays_of(scores[self.view], targets)
        predicted = raised(raw >= self.thresholds, self.taxonomy)
        self.critical += critical_scores(raised(raw, self.taxonomy), predicted, gold).tolist()


def conformal(critical: Sequence[float], settings: Mapping[str, Any]) -> Conformal:
    """Return the entry of decisions.json for critical scores, which hold for `settings`."""
    finite = sorted((each for each in critical if each > -inf), reverse=True)
    return Conformal(len(critical), finite, settings)


def arrays_of(scores: Tensor, targets: Tensor) -> tuple[Floats, Sets]:
    """Return a batch's scores and labels as arrays on the CPU."""
    return scores.float().cpu().numpy(), targets.cpu().numpy() > 0


def errors_of(
    counter: CalibrationCounter, temperatures: Sequence[float]
) -> dict[str, list[dict[str, float]]]:
    """Return each level's calibration errors before and after its temperature."""

    def entries(of_levels: Sequence[Reliability]) -> list[dict[str, float]]:
        return [each.error._asdict() for each in of_levels]

    after = counter.reliability(tuple(temperatures))
    return {"before": entries(counter.reliability()), "after": entries(after)}


def after_training(
    config: TrainConfig, session: TrainingSession, counter: DecisionCounter, start: StartTask
) -> tuple[Decisions, dict[str, Any] | None]:
    """Return the decisions, and with `tune` the result's entry of the scores that follow them.

    Args:
        config: the run's.
        session: with the trained model.
        counter: has this rank's part of the validation split.
        start: starts a task of a progress bar.
    """
    accelerator, taxonomy, view = session.accelerator, session.prepared.taxonomy, counter.view
    merged = DecisionCounter(taxonomy, view, counter.documents)
    for counted in collectives.gather(accelerator, counter.counted()):
        merged.add(counted)
    decisions, tune = merged.decisions(config.trainer.monitor), config.tune
    thresholds = [config.threshold] * len(taxonomy)
    entry = None
    if tune != "none":
        thresholds = decisions.thresholds(tune, taxonomy)
        entry = tuned_entry(decisions, tune, view)
        for name, split in (("val", session.val), ("test", session.test)):
            tuned = TunedCounter(session.scoring, view, thresholds)
            session.score(split, start(f"{name} at tuned thresholds", len(split)), tuned)
            entry[name] = {view: tuned.compute(collectives.gather(accelerator, tuned.counter.counted()))}
    if session.calibration is not None:
        critical = CriticalCounter(taxonomy, view, thresholds)
        session.score(session.calibration, start("calibrating", len(session.calibration)), critical)
        every = [each for part in collectives.gather(accelerator, critical.critical) for each in part]
        settings = {
            "threshold": config.threshold,
            "tune": tune,
            "consistency": "raise",
            "calibrated": False,
            "precision": resolved_precision(accelerator),
        }
        decisions = dataclasses.replace(decisions, conformal=conformal(every, settings))
    return decisions, entry


def tuned_entry(decisions: Decisions, tune: str, view: str) -> dict[str, Any]:
    """Return the result's entry of tuned thresholds, without scores."""
    lowest, median, highest = np.percentile(decisions.node, (0, 50, 100)).tolist()
    return {
        "tune": tune,
        "view": view,
        "monitor": decisions.monitor,
        "thresholds": {
            "global": decisions.everywhere,
            "level": list(decisions.level),
            "node": {"lowest": lowest, "median": median, "highest": highest},
        },
        "prior": decisions.prior,
    }


def _finite(prior: float) -> float | None:
    return None if prior == inf else prior
