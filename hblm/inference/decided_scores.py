"""Evaluation of what the validation split chose: tuned thresholds, temperatures, and paths cut back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from hblm.config.stored_model import StoredModel
from hblm.console import StartTask, log
from hblm.data.dataset import open_prepared
from hblm.engine.calibration import CalibrationCounter, Reliability
from hblm.engine.decisions import DecisionCounter, TunedCounter, arrays_of, errors_of, tuned_entry
from hblm.engine.device import resolved_precision
from hblm.engine.risk import RiskCounter
from hblm.engine.session import Session
from hblm.errors import CheckpointError, ConfigError
from hblm.inference.confidence import least_of, least_score, origin_of, require_share, stored_critical
from hblm.inference.decision import Decision
from hblm.inference.inputs import EvaluationInputs
from hblm.inference.predictor import open_predictor
from hblm.inference.stored_decisions import stored_or_chosen, with_decisions
from hblm.runs.checkpoint import DECISIONS
from hblm.runs.decisions import Decisions


class DecidedScores:
    """Receive each batch of the scored split; sets and scores follow one view's decisions."""

    def __init__(self, inputs: EvaluationInputs, loaded: Session, start: StartTask) -> None:
        """Read the decisions, or choose on the validation split.

        Raises:
            CheckpointError: decisions.json is damaged, or is not there and the data are not the training's.
            ConfigError: `confidence` has no calibration documents, or too few; or the data have other nodes.
        """
        config, checkpoint = inputs.config, inputs.main
        if inputs.prepared.taxonomy != checkpoint.taxonomy:
            raise ConfigError(
                f"{' '.join(config.by_decisions)} needs data with the nodes of {checkpoint.folder}, in its "
                f"order; {inputs.prepared.folder} has {len(inputs.prepared.taxonomy)} nodes of "
                f"{len(checkpoint.taxonomy)}, or another order"
            )
        if config.confidence is not None and config.calibrate is None:
            require_share(checkpoint)  # before a pass over the validation split
        _require_other_documents(inputs)
        joint = checkpoint.config.joint_variant
        self.config, self.taxonomy = config, checkpoint.taxonomy
        self.view = joint.monitored if inputs.view in ("all", "single") else inputs.view
        self.chosen = _decisions(inputs, loaded, self.view, start)
        if config.split == "val":
            log.warning("thresholds and temperatures were chosen on this split: its scores are optimistic")
        self._tuned = None
        if config.tune != "none":
            thresholds = self.chosen.thresholds(config.tune, self.taxonomy)
            self._tuned = TunedCounter(loaded.scoring, self.view, thresholds)
        self._calibration = CalibrationCounter(self.taxonomy)
        plain = Decision(self.taxonomy, inputs.threshold)
        self._whole = with_decisions(plain, self.chosen, config.tune, calibrated=config.calibrated)
        self._cut = None
        if config.confidence is not None:
            precision = resolved_precision(loaded.accelerator)
            self._cut = replace(self._whole, least=_least(inputs, self._whole, self.view, precision))
        self._risk = RiskCounter(self.taxonomy)

    def __call__(self, positions: np.ndarray, scores: Mapping[str, Tensor], targets: Tensor) -> None:
        """Count a batch, as a sink of `score`."""
        raw, gold = arrays_of(scores[self.view], targets)
        self._calibration.update(raw, gold)
        if self._tuned is not None:
            self._tuned(positions, scores, targets)
        if self._cut is not None:
            whole, cut = (each.decide(raw).predicted for each in (self._whole, self._cut))
            self._risk.update(whole, cut, gold)

    def entries(self) -> dict[str, Any]:
        """Return the result's entries: tuned, calibration, confidence."""
        entries: dict[str, Any] = {}
        if self._tuned is not None:
            scores = self._tuned.compute([self._tuned.counter.counted()])
            entry = tuned_entry(self.chosen, self.config.tune, self.view)
            entries["tuned"] = {**entry, self.config.split: {self.view: scores}}
        entries["calibration"] = {
            "view": self.view,
            "temperatures": list(self.chosen.temperatures),
            "errors": errors_of(self._calibration, self.chosen.temperatures),
        }
        if self._cut is not None:
            entries["confidence"] = {
                "view": self.view,
                "confidence": self.config.confidence,
                "least_score": self._cut.least,
                **self._risk.compute(),
            }
        return entries

    def reliability(self) -> dict[str, Sequence[Reliability]]:
        """Return each level's reliability before and after its temperature."""
        after = self._calibration.reliability(tuple(self.chosen.temperatures))
        return {"before": self._calibration.reliability(), "after": after}


def _decisions(inputs: EvaluationInputs, loaded: Session, view: str, start: StartTask) -> Decisions:
    """Return the checkpoint's decisions for a view; without an entry, choose on val, and keep it."""
    checkpoint = inputs.main

    def choose() -> Decisions:
        if inputs.is_other_data:
            raise CheckpointError(
                f"{checkpoint.folder} has no {DECISIONS} with view {view}, which is made with the dataset of "
                f"its training: first hblm evaluate checkpoint={checkpoint.folder} tune=node"
            )
        split = loaded.inputs(["val"], start)["val"]
        counter = DecisionCounter(checkpoint.taxonomy, view, len(split))
        loaded.score(split, start("choosing on val", len(split)), counter)
        return counter.decisions(checkpoint.config.trainer.monitor)

    return stored_or_chosen(checkpoint, view, choose)


def _require_other_documents(inputs: EvaluationInputs) -> None:
    """Refuse calibration documents that are those of the scored split: the measured risk would be too low.

    Raises:
        ConfigError: with the folder.
        DataError: the folder that calibrate= names is not a prepared one.
    """
    config = inputs.config
    if config.calibrate is None:
        return
    scored, own = inputs.prepared.files[f"{config.split}.jsonl"], open_prepared(Path(config.calibrate)).files
    if own["test.jsonl"] == scored:
        raise ConfigError(
            f"calibrate={config.calibrate}: its test.jsonl is the split that is scored; give other documents"
        )


def _least(inputs: EvaluationInputs, decision: Decision, view: str, precision: str) -> float:
    """Return the least score of a returned node."""
    config, checkpoint = inputs.config, inputs.main
    assert config.confidence is not None
    if config.calibrate is None:
        critical = stored_critical(checkpoint, decision, view, precision)
        if critical is not None:
            return least_of(critical, config.confidence, origin_of(checkpoint))
    predictor = open_predictor(
        StoredModel(
            checkpoint=config.checkpoint,
            device=config.device,
            precision=precision,
            joint_eval_view=None if view == "single" else view,
        )
    )
    return least_score(predictor, decision, config.confidence, config.calibrate)
