"""Decisions of a configuration: its threshold, or the thresholds and temperatures of decisions.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hblm.config.stored_model import StoredModel
from hblm.config.train import SINGLE_VIEW
from hblm.console import log
from hblm.engine.calibration import tempered
from hblm.engine.decisions import DecisionCounter
from hblm.errors import CheckpointError, ConfigError
from hblm.inference.confidence import chosen_documents, labelled_scores, least_score, validation_positions
from hblm.inference.decision import Decision
from hblm.inference.predictor import Predictor
from hblm.runs.checkpoint import DECISIONS, Checkpoint, open_data
from hblm.runs.decisions import EXPORT_AGAIN, Decisions, read_decisions, write_decisions


def decision_for(
    config: StoredModel,
    predictor: Predictor,
    *,
    top_k: int | None = None,
    confidence: float | None = None,
    calibrate: str | None = None,
) -> Decision:
    """Return how scores become predicted paths, by a configuration.

    Args:
        config: threshold, tune, consistency and calibrated.
        predictor: its models.
        top_k: the most paths a document.
        confidence, calibrate: as for `least_score`.

    Raises:
        CheckpointError, ConfigError, DataError: as for `decisions_of` and `least_score`.
    """
    decision = predictor.decision(threshold=config.threshold, consistency=config.consistency, top_k=top_k)
    keys = [f"tune={config.tune}"] if config.tune != "none" else []
    keys += ["calibrated=true"] if config.calibrated else []
    if keys:
        if not predictor.as_trained:
            raise ConfigError(
                f"{' '.join(keys)}: thresholds and temperatures are chosen for one checkpoint with its own "
                "weights of views; leave it out"
            )
        chosen = decisions_of(predictor)
        decision = with_decisions(decision, chosen, config.tune, calibrated=config.calibrated)
    if confidence is not None:
        least = least_score(predictor, decision, confidence, calibrate)
        decision = replace(decision, least=least, best=False)
    return decision


def with_decisions(decision: Decision, chosen: Decisions, tune: str, *, calibrated: bool) -> Decision:
    """Return a decision with tuned thresholds (tune: none, global, level, node) or calibrated scores.

    Tuned thresholds are for raw scores. With calibrated scores they go through the temperatures too, so that
    the predicted nodes are the same.
    """
    temperatures = chosen.temperatures if calibrated else None
    if tune == "none":
        return replace(decision, temperatures=temperatures)
    thresholds = np.array(chosen.thresholds(tune, decision.taxonomy), np.float32)
    if temperatures is not None:
        thresholds = tempered(thresholds, temperatures, decision.taxonomy)
    return replace(decision, thresholds=thresholds, temperatures=temperatures, best=False)


def decisions_of(predictor: Predictor) -> Decisions:
    """Return what decisions.json has for the view; what it lacks is chosen on the validation split and kept.

    Args:
        predictor: of one checkpoint.

    Raises:
        CheckpointError: the file is damaged, or it has no entry and the dataset is not at its recorded path.
        DataError: the validation documents have a fault.
    """
    (checkpoint,) = predictor.checkpoints
    return stored_or_chosen(
        checkpoint, predictor.view, lambda: _computed(predictor, checkpoint, predictor.view)
    )


def stored_or_chosen(checkpoint: Checkpoint, view: str, choose: Callable[[], Decisions]) -> Decisions:
    """Return what decisions.json has for a view; without an entry, what `choose` returns, which is kept.

    Raises:
        CheckpointError: the file is damaged.
    """
    stored = read_decisions(checkpoint)
    if view not in stored:
        stored = {view: choose()}
        _keep(checkpoint, stored)
    return stored[view]


def _keep(checkpoint: Checkpoint, chosen: dict[str, Decisions]) -> None:
    """Add views to decisions.json, or log a warning where the folder may not be written."""
    try:
        # read again: another process may have added a view in the minutes since
        views = {**read_decisions(checkpoint), **chosen}
        write_decisions(checkpoint.folder, checkpoint.meta["training"], views)
    except OSError as error:
        file = checkpoint.folder / DECISIONS
        log.warning("%s cannot be written (%s): it is made again each time", file, error.strerror)


def _computed(predictor: Predictor, checkpoint: Checkpoint, view: str) -> Decisions:
    try:
        prepared = open_data(checkpoint, None)
    except CheckpointError as error:
        if checkpoint.is_onnx:
            with_view = "" if view == SINGLE_VIEW else f" (with joint_eval_view={view})"
            raise CheckpointError(
                f"{checkpoint.folder} has no {DECISIONS} with view {view}; {EXPORT_AGAIN}{with_view}"
            ) from None
        raise CheckpointError(
            f"{checkpoint.folder} has no {DECISIONS} with view {view}; make it with the dataset: "
            f"hblm evaluate checkpoint={checkpoint.folder} tune=node dataset.path=DIR ({error})"
        ) from None
    log.info("%s has no thresholds and temperatures yet: choosing them on val", checkpoint.folder)
    used, _ = validation_positions(checkpoint, prepared.count("val"))
    counter = DecisionCounter(checkpoint.taxonomy, view, len(used))
    first = 0
    documents = chosen_documents(prepared, "val", used)
    for raw, gold in labelled_scores(predictor, documents, len(used), "validating"):
        counter.update(np.arange(first, first + len(raw)), raw, gold)
        first += len(raw)
    return counter.decisions(checkpoint.config.trainer.monitor)
