"""The training loop: a page, on accelerate for device and precision."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hblm.data.batches import Batch, Split, training_steps
from hblm.engine import collectives
from hblm.engine.optimizer import adamw, linear_schedule, take_step, trainable
from hblm.engine.scoring import Scores, Scoring, loader, score
from hblm.errors import TrainingError
from hblm.nn.classifier import Classifier
from hblm.nn.losses import Objective


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train; the keys of the configuration's trainer under their own names."""

    learning_rate: float
    head_learning_rate: float | None
    epochs: int
    batch_size: int
    gradient_accumulation: int
    weight_decay: float
    warmup_ratio: float
    max_grad_norm: float
    patience: int
    seed: int


@dataclass
class Fitted:
    """What training leaves besides the model, which holds the best epoch's state.

    Attributes:
        documents, seconds: all that went through optimizer steps, and the time it took without validation.
    """

    best_epoch: int
    history: list[dict[str, Any]]
    documents: int
    seconds: float


@dataclass
class Watch:
    """What is told while a run is under way; every part may be replaced by one that stays silent."""

    step: Callable[[int, float | None], None]
    epoch: Callable[[dict[str, Any]], None]


def fit(
    model: Classifier,
    train: Split,
    val: Split,
    *,
    schedule: Schedule,
    scoring: Scoring,
    monitor: tuple[str, str],
    accelerator: Accelerator,
    watch: Watch,
) -> Fitted:
    """Train until `epochs` or patience is used up, and leave the best epoch's state in the model.

    Args:
        model: on the accelerator's device.
        train, val: tokenised documents, or what a frozen encoder made of them (see embeddings.py).
        schedule, scoring: see there.
        monitor: view and score, such as ("single", "macro_f1"), that decide which epoch is best; ties go to
            the lower validation loss, and patience counts only once the score has left 0.
        accelerator, watch: device and precision; who is told.

    Raises:
        TrainingError: the loss is no longer a number.
    """
    steps_per_epoch = math.ceil(len(train) / schedule.batch_size)
    optimizer = adamw(
        model,
        model.encoder,
        learning_rate=schedule.learning_rate,
        head_learning_rate=schedule.head_learning_rate,
        weight_decay=schedule.weight_decay,
    )
    rates = linear_schedule(
        optimizer, steps=steps_per_epoch * schedule.epochs, warmup_ratio=schedule.warmup_ratio
    )
    training, optimizer = accelerator.prepare(_Training(model, scoring.objective), optimizer)
    best: tuple[float, float] = (-1.0, -math.inf)  # score, minus validation loss
    state: dict[str, Tensor] = {}
    history: list[dict[str, Any]] = []
    best_epoch = waited = documents = 0
    seconds: list[float] = []
    for epoch in range(1, schedule.epochs + 1):
        training.train()
        total = torch.zeros((), device=accelerator.device)
        skipped = 0
        clock = time.perf_counter()
        for number, (size, micro_batches) in enumerate(
            _steps(train, schedule, scoring, epoch, accelerator), 1
        ):
            for micro in micro_batches:
                batch = micro.batch.to(accelerator.device)
                with contextlib.nullcontext() if micro.is_last else accelerator.no_sync(training):
                    loss = training(batch.inputs, batch.targets) * micro.counts
                    # of several processes' gradients the mean is taken, and the sum is meant
                    accelerator.backward(loss * accelerator.num_processes / size)
                total += loss.detach()
            accelerator.clip_grad_norm_(trainable(model), schedule.max_grad_norm)
            if take_step(accelerator, optimizer):
                rates.step()
            else:
                skipped += 1
            optimizer.zero_grad()
            documents += size
            look = number % collectives.STEPS == 0 or number == steps_per_epoch
            collectives.check_stop(accelerator, meet=look)
            if look:
                mean = collectives.total(accelerator, total).item() / (documents - (epoch - 1) * len(train))
                watch.step(size, _finite(mean, "training", epoch, number))
            else:
                watch.step(size, None)
        seconds.append(time.perf_counter() - clock)
        scores, val_loss = score(model, val, scoring, accelerator)
        _finite(val_loss, "validation", epoch, steps_per_epoch)
        view, name = monitor
        result = (float(scores[view]["overall"][name]), -val_loss)
        history.append(
            {
                "epoch": epoch,
                "train_loss": collectives.total(accelerator, total).item() / len(train),
                "val_loss": val_loss,
                "val_micro_f1": scores[view]["overall"]["micro_f1"],
                "val_macro_f1": scores[view]["overall"]["macro_f1"],
                "views": {each: overall_f1(found) for each, found in scores.items()},
                "skipped_steps": skipped,
                "modulation": {
                    branch: found["modulation"] for branch, found in scores.items() if "modulation" in found
                },
                "documents_per_second": len(train) / seconds[-1],
            }
        )
        watch.epoch(history[-1])
        if result > best:
            best, best_epoch, waited = result, epoch, 0
            state = {
                key: value.detach().to("cpu", copy=True)
                for key, value in model.state_dict().items()
                if model.trainable or not key.startswith("encoder.")  # a frozen one stays as it is
            }
        elif best[0] > 0:
            waited += 1
            if waited >= schedule.patience:
                break
    model.load_state_dict(state, strict=model.trainable)
    return Fitted(best_epoch, history, documents, sum(seconds))


def overall_f1(scores: Scores) -> dict[str, float]:
    """Return a view's micro- and macro-F1 over all nodes."""
    return {name: scores["overall"][name] for name in ("micro_f1", "macro_f1")}


class _Training(nn.Module):
    """The objective as a function of a batch, so that gradients of several processes meet in one module."""

    def __init__(self, model: Classifier, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, inputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        """Return the objective, summed over the batch's documents."""
        loss: Tensor = self.objective(self.model(**inputs).views, targets)
        return loss


class _Micro(NamedTuple):
    """This process's part of a micro-batch; `counts` is 0 where it has none and does another's for show."""

    batch: Batch
    counts: float
    is_last: bool


def _steps(
    split: Split, schedule: Schedule, scoring: Scoring, epoch: int, accelerator: Accelerator
) -> Iterator[tuple[int, Iterator[_Micro]]]:
    """Yield each optimizer step's number of documents, of all processes, and this one's micro-batches."""
    steps = training_steps(split.lengths, batch_size=schedule.batch_size, seed=schedule.seed, epoch=epoch)
    parts = [
        [
            collectives.documents_of(accelerator, part)
            for part in np.array_split(step, min(schedule.gradient_accumulation, len(step)))
        ]
        for step in steps
    ]
    stream = iter(loader(split, [mine for step in parts for mine, _ in step], scoring))
    for step, micro in zip(steps, parts, strict=True):
        yield len(step), _micro_batches(stream, [counts for _, counts in micro])


def _micro_batches(stream: Iterator[Batch], counts: Sequence[float]) -> Iterator[_Micro]:
    for number, each in enumerate(counts, 1):
        yield _Micro(next(stream), each, is_last=number == len(counts))


def _finite(loss: float, which: str, epoch: int, step: int) -> float:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the {which} loss is {loss} at epoch {epoch}, step {step}: lower trainer.learning_rate or "
            "trainer.head_learning_rate, or set trainer.precision=fp32"
        )
    return loss
