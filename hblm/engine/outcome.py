"""Fit and test a session's model; write its checkpoint and its result."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from hblm.config import identity, overrides
from hblm.config.schema import leaves
from hblm.config.train import TrainConfig
from hblm.console import Advance, TrainingBar, progress
from hblm.encoders.encoder import save_encoder
from hblm.engine import build, collectives, device
from hblm.engine.decisions import DecisionCounter, after_training
from hblm.engine.loop import Fitted, Watch, fit, overall_f1
from hblm.engine.notes import Note, Trained, notes
from hblm.engine.scoring import Scores, Sink, no_sink
from hblm.engine.session import TrainingSession
from hblm.engine.thresholds import ThresholdCounter
from hblm.nn.losses import node_priors
from hblm.runs import paths, result
from hblm.runs.checkpoint import save_checkpoint
from hblm.runs.decisions import Decisions, write_decisions


@dataclass(frozen=True)
class Outcome:
    """Results of fitting and testing.

    Attributes:
        fitted: the training's history.
        val, test: scores of every view in the best epoch.
        thresholds: the monitored view's validation scores at each threshold (see thresholds.py).
        decisions: for the checkpoint; None where the configuration needs none.
        tuned: the result's entry of the scores at tuned thresholds; None without `tune`.
        eval_seconds: duration of the two scorings after training.
    """

    fitted: Fitted
    val: dict[str, Scores]
    test: dict[str, Scores]
    thresholds: list[dict[str, Any]]
    decisions: Decisions | None
    tuned: dict[str, Any] | None
    eval_seconds: float


def fit_and_test(config: TrainConfig, session: TrainingSession, run: paths.Run) -> Outcome:
    """Train the model, then score its best epoch on the validation and test splits."""
    accelerator = session.accelerator
    _start_trackers(accelerator, config, run)
    schedule = build.schedule(config)
    with TrainingBar(len(session.trained_on), schedule.epochs) as bar:

        def report_epoch(entry: dict[str, Any]) -> None:
            bar.epoch(entry)
            numbers = {name: entry[name] for name in ("train_loss", "val_loss", "documents_per_second")}
            accelerator.log({**numbers, **_by_view("val", entry["views"])}, step=entry["epoch"])

        fitted = fit(
            session.model,
            session.trained_on,
            session.val,
            schedule=schedule,
            scoring=session.scoring,
            monitor=(config.joint_variant.monitored, config.trainer.monitor),
            accelerator=accelerator,
            watch=Watch(step=bar.step, epoch=report_epoch),
        )
    began = time.perf_counter()
    view, decisions, tuned = config.joint_variant.monitored, None, None
    decides = config.tune != "none" or session.calibration is not None
    counter = DecisionCounter(session.prepared.taxonomy, view, len(session.val)) if decides else None
    with progress() as start:
        advance = start("validating", len(session.val))
        val, thresholds = validate(session, view, advance, counter or no_sink)
        test = session.score(session.test, start("testing", len(session.test)))
        if counter is not None:
            decisions, tuned = after_training(config, session, counter, start)
    accelerator.log(_by_view("test", {view: overall_f1(scores) for view, scores in test.items()}))
    accelerator.end_training()
    return Outcome(fitted, val, test, thresholds, decisions, tuned, time.perf_counter() - began)


def validate(
    session: TrainingSession, view: str, advance: Advance, sink: Sink = no_sink
) -> tuple[dict[str, Scores], list[dict[str, Any]]]:
    """Return every view's scores on the validation split, and one view's at each threshold of a grid.

    `sink` receives each batch of this rank.
    """
    own, counter = (ThresholdCounter(session.prepared.taxonomy) for _ in range(2))

    def count(positions: Any, scores: Mapping[str, Tensor], targets: Tensor) -> None:
        own.update(scores[view], targets)
        sink(positions, scores, targets)

    scores = session.score(session.val, advance, count)
    for counted in collectives.gather(session.accelerator, own.counted()):
        counter.add(counted)
    return scores, counter.table()


def write_checkpoint(
    config: TrainConfig, run: paths.Run, session: TrainingSession, decisions: Decisions | None, folder: Path
) -> None:
    """Write the checkpoint, with all that an evaluation needs, to `folder`."""
    counts = build.TrainingCounts.of(session.tokens["train"], session.prepared.taxonomy)
    save_checkpoint(
        folder,
        model=session.model,
        save_encoder=lambda folder: save_encoder(folder, session.model.encoder, session.tokenizer),
        config=config,
        taxonomy=session.prepared.taxonomy,
        meta={
            "run_id": run.id,
            "name": run.name,
            "tag": session.source.tag,
            "dataset": result.dataset_reference(session.prepared),
            "encoder": session.encoder,
            "training": session.mark,
            "node_priors": node_priors(counts.positives, counts.documents).tolist(),
            "training_counts": counts.to_json(),
            "thresholds": {"training": config.threshold},
            "precision": device.resolved_precision(session.accelerator),
            "eval_batch_size": session.scoring.batch_size,
        },
    )
    if decisions is not None:
        write_decisions(folder, session.mark, {config.joint_variant.monitored: decisions})


def write_result(
    config: TrainConfig,
    run: paths.Run,
    session: TrainingSession,
    outcome: Outcome,
    path: Path,
    started: float,
) -> dict[str, Any]:
    """Write the result file and its CSVs to `path`; return the result's content.

    Args:
        config, run, session, outcome: the run.
        path: the .json file.
        started: when the run began, by time.perf_counter.
    """
    documents = {"train": len(session.train), "val": len(session.val), "test": len(session.test)}
    if session.calibration is not None:
        documents["calibration"] = len(session.calibration)
    parameters = list(session.model.parameters())
    content = {
        "run_id": run.id,
        "status": "done",
        "kind": "joint" if config.joint_variant.is_joint else "single",
        "choices": config.choices(),
        "config": dataclasses.asdict(config),
        "auto": dict(session.chosen),
        "dataset": result.dataset_entry(session.prepared, documents),
        "seed": config.seed,
        "best_epoch": outcome.fitted.best_epoch,
        "history": outcome.fitted.history,
        "val": result.without_nodes(outcome.val),
        "test": result.without_nodes(outcome.test),
        **({} if outcome.tuned is None else {"tuned": outcome.tuned}),
        "parameters": {
            "total": sum(each.numel() for each in parameters),
            "trainable": sum(each.numel() for each in parameters if each.requires_grad),
        },
        "seconds": {
            "total": time.perf_counter() - started,
            "train": outcome.fitted.seconds,
            "eval": outcome.eval_seconds,
        },
        "throughput": {"train_documents_per_second": outcome.fitted.documents / outcome.fitted.seconds},
        "encoder": session.encoder,
        "training": session.mark,
        "init_from": session.init_from,
        "environment": device.environment_entry(session.accelerator, session.scoring),
        "notes": _notes(config, run, outcome),
    }
    result.write_result(path, content, outcome.test)
    return content


def _notes(config: TrainConfig, run: paths.Run, outcome: Outcome) -> list[Note]:
    """Return the notes on the run (see notes.py)."""
    checkpoint = overrides.argument("checkpoint", str(run.checkpoint))
    return notes(
        Trained(
            config=config,
            history=outcome.fitted.history,
            best_epoch=outcome.fitted.best_epoch,
            val=outcome.val[config.joint_variant.monitored],
            thresholds=outcome.thresholds,
            evaluate=f"python -m hblm.evaluate {checkpoint}" if config.trainer.keep_checkpoint else None,
        )
    )


def _start_trackers(accelerator: Accelerator, config: TrainConfig, run: paths.Run) -> None:
    if config.trackers:
        flat = {leaf.name: identity.value_of(config, leaf) for leaf in leaves(TrainConfig)}
        shown = {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in flat.items()}
        accelerator.init_trackers(
            "hblm",
            config=shown,
            init_kwargs={"wandb": {"name": run.name}, "mlflow": {"run_name": run.name}},
        )


def _by_view(split: str, views: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return scores by view under the names that trackers group them by: val/fused/micro_f1."""
    return {
        f"{split}/{view}/{name}": value for view, scores in views.items() for name, value in scores.items()
    }
