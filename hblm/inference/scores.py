"""Scores of one stored model, or of an ensemble of two, on one split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hblm.console import StartTask, log, progress
from hblm.data.tokens import TokenisedSplit
from hblm.engine import device, session
from hblm.engine.calibration import Reliability
from hblm.engine.ensemble import keep_logits, score_fused, search_weight
from hblm.engine.predictions import DEFAULT_FLOOR, PredictionWriter
from hblm.engine.scoring import Scores, Scoring, each_of, no_sink
from hblm.files import scratch_folder
from hblm.inference.decided_scores import DecidedScores
from hblm.inference.inputs import EvaluationInputs


@dataclass(frozen=True)
class EvaluationScores:
    """Results of an evaluation.

    Attributes:
        views: scores by view.
        documents: how many were scored.
        environment: the result's entry of code, versions, device and precision.
        settings: weights that views or models were averaged with.
        predictions: the result's entry of the files with predictions; None where none were written.
        decided: the result's entries of scores at tuned thresholds, of calibration and of confidence.
        reliability: of each level, `before` and `after` the temperatures; empty where it is not measured.
    """

    views: Mapping[str, Scores]
    documents: int
    environment: Mapping[str, Any]
    settings: Mapping[str, Any]
    predictions: Mapping[str, Any] | None = None
    decided: Mapping[str, Any] = field(default_factory=dict)
    reliability: Mapping[str, Sequence[Reliability]] = field(default_factory=dict)


def load(inputs: EvaluationInputs, branch: str, start: StartTask) -> session.Session:
    """Load the model and the documents of one checkpoint, which is `model`, `td` or `bu`."""
    return session.from_checkpoint(
        inputs.checkpoints[branch],
        inputs.trained[branch],
        inputs.prepared,
        start,
        device_name=inputs.config.device,
        threshold=inputs.threshold,
        num_workers=inputs.config.num_workers,
        cache_dir=inputs.cache_dir,
        other_splits=inputs.config.splits if inputs.is_other_data else None,
    )


def score_one(inputs: EvaluationInputs, folder: Path) -> EvaluationScores:
    """Score a single or joint model; predictions go into `folder`."""
    name = inputs.config.split
    with progress() as start:
        loaded = load(inputs, "model", start)
        split = loaded.inputs([name], start)[name]
        writer = prediction_writer(inputs, loaded.tokens[name], folder)
        decided = DecidedScores(inputs, loaded, start) if inputs.config.by_decisions else None
        sink = each_of([part for part in (writer, decided) if part is not None])
        views = loaded.score(split, start(f"scoring {name}", len(split)), sink)
    return EvaluationScores(
        views=views,
        documents=len(split),
        environment=device.environment_entry(loaded.accelerator, loaded.scoring),
        settings=inputs.fuse_weights,
        predictions=writer.close() if writer else None,
        decided=decided.entries() if decided else {},
        reliability=decided.reliability() if decided else {},
    )


def score_pair(inputs: EvaluationInputs, folder: Path) -> EvaluationScores:
    """Score an ensemble: each model in turn writes its logits to disk, then they are averaged."""
    name, weight, names = inputs.config.split, inputs.config.weight, inputs.config.splits
    with progress() as start, scratch_folder(inputs.cache_dir / "ensemble") as scratch:
        splits, scoring, environment = _write_logits(inputs, "td", names, scratch, start)
        _write_logits(inputs, "bu", names, scratch, start)
        scoring.objective.to("cpu")  # where the logits are read to
        logits = {each: (scratch / f"td.{each}", scratch / f"bu.{each}") for each in names}
        search = None
        if weight is None:
            monitor = inputs.main.config.trainer.monitor
            weight, search = search_weight(*logits["val"], splits["val"], scoring, monitor)
            log.info("ensemble_weight=auto chose %g, the best %s on the validation split", weight, monitor)
            if name == "val":
                log.warning("the weight was chosen on this split: its scores are optimistic")
        split = splits[name]
        writer = prediction_writer(inputs, split, folder)
        advance = start(f"averaging {name}", len(split))
        views = score_fused(*logits[name], weight, split, scoring, advance, writer or no_sink)
    return EvaluationScores(
        views=views,
        documents=len(split),
        environment=environment,
        settings={"ensemble_weight": weight, "ensemble_weight_search": search},
        predictions=writer.close() if writer else None,
    )


def _write_logits(
    inputs: EvaluationInputs, branch: str, names: Sequence[str], scratch: Path, start: StartTask
) -> tuple[Mapping[str, TokenisedSplit], Scoring, Mapping[str, Any]]:
    """Write one model's logits of some splits to scratch/BRANCH.SPLIT.

    The model is freed when this returns, so that one model at a time is in memory.

    Returns:
        All splits as tokens, the scoring, and the result's entry of code, versions, device and precision.
    """
    loaded = load(inputs, branch, start)
    for name, split in loaded.inputs(names, start).items():
        advance = start(f"{branch}: scoring {name}", len(split))
        path = scratch / f"{branch}.{name}"
        keep_logits(path, loaded.model, split, loaded.scoring, loaded.accelerator, advance)
    return loaded.tokens, loaded.scoring, device.environment_entry(loaded.accelerator, loaded.scoring)


def prediction_writer(
    inputs: EvaluationInputs, split: TokenisedSplit, folder: Path
) -> PredictionWriter | None:
    """Return a writer of the shown views' scores to `folder`; None without `predictions=true`."""
    if not inputs.config.predictions:
        return None
    floor = inputs.config.predictions_floor
    return PredictionWriter(
        folder,
        documents=split.document_ids(),
        nodes=[node.id for node in inputs.prepared.taxonomy.nodes],
        view=None if inputs.view == "all" else inputs.view,
        threshold=inputs.threshold,
        floor=DEFAULT_FLOOR if floor is None else floor,
    )
