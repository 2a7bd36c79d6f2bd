"""The training loop, on accelerate for device and precision.

`fit` repeats: one epoch of optimizer steps, one scoring of the validation split, one update of
`TrainingState`. Optimizer, rates and that state are all that changes from epoch to epoch, besides the model
and the random generators.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    """The outcome of training, besides the model, which has the weights of the best epoch.

    Attributes:
        best_epoch: counted from 1.
        history: an entry an epoch, as in the result file.
        documents: documents of all optimizer steps.
        seconds: duration of all optimizer steps, without validation.
    """

    best_epoch: int
    history: list[dict[str, Any]]
    documents: int
    seconds: float


@dataclass
class Watch:
    """Callbacks of `fit`: after each optimizer step (documents, mean loss or None), after each epoch."""

    step: Callable[[int, float | None], None]
    epoch: Callable[[dict[str, Any]], None]


@dataclass
class TrainingState:
    """The progress of training after some epochs.

    Attributes:
        history: an entry an epoch.
        best: the best epoch's score and minus its validation loss.
        best_epoch: counted from 1; 0 before the first epoch.
        best_weights: the best epoch's weights on the CPU, without those of a frozen encoder.
        waited: epochs since the best one, once the score has left 0.
        documents, seconds: as in `Fitted`.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best: tuple[float, float] = (-1.0, -math.inf)
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    waited: int = 0
    documents: int = 0
    seconds: float = 0.0

    @property
    def epoch(self) -> int:
        """Epochs that are complete."""
        return len(self.history)

    def is_over(self, schedule: Schedule) -> bool:
        """Return whether all epochs, or the patience, are used up."""
        return self.epoch >= schedule.epochs or self.waited >= schedule.patience

    def add(self, entry: dict[str, Any], score: float, model: Classifier) -> None:
        """Add an epoch's history entry; keep the model's weights if it is the best so far."""
        self.history.append(entry)
        result = (score, -entry["val_loss"])
        if result > self.best:
            self.best, self.best_epoch, self.waited = result, self.epoch, 0
            self.best_weights = {
                key: value.detach().to("cpu", copy=True)
                for key, value in model.state_dict().items()
                if model.trainable or not key.startswith("encoder.")
            }
        elif self.best[0] > 0:
            self.waited += 1


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
    """Train until all epochs or the patience are used up; leave the best epoch's weights in the model.

    Args:
        model: on the accelerator's device.
        train, val: tokenised documents, or a frozen encoder's embeddings of them (see embeddings.py).
        schedule, scoring: see there.
        monitor: view and score, such as ("single", "macro_f1"), that decide which epoch is best; of equal
            scores the lower validation loss wins, and patience counts only once the score has left 0.
        accelerator: device and precision.
        watch: callbacks.

    Raises:
        TrainingError: a loss is not finite.
    """
    n_steps = math.ceil(len(train) / schedule.batch_size)
    optimizer = adamw(
        model,
        model.encoder,
        learning_rate=schedule.learning_rate,
        head_learning_rate=schedule.head_learning_rate,
        weight_decay=schedule.weight_decay,
    )
    rates = linear_schedule(optimizer, steps=n_steps * schedule.epochs, warmup_ratio=schedule.warmup_ratio)
    objective, optimizer = accelerator.prepare(_SummedObjective(model, scoring.objective), optimizer)
    stepper = _Stepper(objective, optimizer, rates, schedule.max_grad_norm, accelerator)
    state = TrainingState()
    while not state.is_over(schedule):
        epoch = state.epoch + 1
        began = time.perf_counter()
        train_loss, skipped = _train_epoch(stepper, train, epoch, n_steps, schedule, scoring, watch)
        seconds = time.perf_counter() - began
        state.documents += len(train)
        state.seconds += seconds
        views, val_loss = score(model, val, scoring, accelerator)
        _require_finite(val_loss, "validation", epoch, n_steps)
        view, name = monitor
        entry = {
            "epoch": epoch,
            "train_loss": train_loss,
            "val_loss": val_loss,
            **_scores_in_history(views, view),
            "skipped_steps": skipped,
            "modulation": {name: of["modulation"] for name, of in views.items() if "modulation" in of},
            "documents_per_second": len(train) / seconds,
        }
        watch.epoch(entry)
        state.add(entry, float(views[view]["overall"][name]), model)
    model.load_state_dict(state.best_weights, strict=model.trainable)  # a frozen encoder keeps its weights
    return Fitted(state.best_epoch, state.history, state.documents, state.seconds)


def overall_f1(scores: Scores) -> dict[str, float]:
    """Return a view's micro- and macro-F1 over all nodes."""
    return {name: scores["overall"][name] for name in ("micro_f1", "macro_f1")}


def _scores_in_history(views: Mapping[str, Scores], monitored: str) -> dict[str, Any]:
    """Return the scores of an epoch's history entry: of the monitored view, and of all views."""
    return {
        "val_micro_f1": views[monitored]["overall"]["micro_f1"],
        "val_macro_f1": views[monitored]["overall"]["macro_f1"],
        "views": {view: overall_f1(scores) for view, scores in views.items()},
    }


def _train_epoch(
    stepper: _Stepper,
    train: Split,
    epoch: int,
    n_steps: int,
    schedule: Schedule,
    scoring: Scoring,
    watch: Watch,
) -> tuple[float, int]:
    """Take an epoch's optimizer steps; return the mean loss per document and how many steps fp16 skipped.

    Raises:
        TrainingError: the mean loss is not finite.
    """
    accelerator = stepper.accelerator
    stepper.objective.train()
    total = torch.zeros((), device=accelerator.device)  # of this rank, over the epoch
    mean = math.nan
    documents = skipped = 0
    for number, (size, micro_batches) in enumerate(_steps(train, schedule, scoring, epoch, accelerator), 1):
        skipped += not stepper.step(size, micro_batches, total)
        documents += size
        synchronise = number % collectives.STEPS == 0 or number == n_steps
        collectives.check_stop(accelerator, synchronise=synchronise)
        if synchronise:
            mean = collectives.reduce_sum(accelerator, total).item() / documents
            watch.step(size, _require_finite(mean, "training", epoch, number))
        else:
            watch.step(size, None)
    return mean, skipped


class _SummedObjective(nn.Module):
    """The objective as one module of the model and the loss, which accelerate wraps for all-reduce."""

    def __init__(self, model: Classifier, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, inputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        """Return the objective, summed over the batch's documents."""
        loss: Tensor = self.objective(self.model(**inputs).views, targets)
        return loss


class _MicroBatch(NamedTuple):
    """This rank's part of a micro-batch.

    Attributes:
        batch: the documents.
        weight: of their loss; 0 for a dummy, which lets a rank without documents join the all-reduce.
        is_last: whether it is the step's last one, after which gradients are reduced.
    """

    batch: Batch
    weight: float
    is_last: bool


@dataclass(frozen=True)
class _Stepper:
    """Takes optimizer steps.

    Attributes:
        objective, optimizer: as accelerate prepared them.
        rates: the learning rates' schedule.
        max_grad_norm: gradients are scaled down to this norm.
    """

    objective: nn.Module
    optimizer: torch.optim.Optimizer
    rates: torch.optim.lr_scheduler.LambdaLR
    max_grad_norm: float
    accelerator: Accelerator

    def step(self, size: int, micro_batches: Iterator[_MicroBatch], total: Tensor) -> bool:
        """Take one step over `size` documents of all ranks; add this rank's loss to `total`.

        Returns:
            False where fp16 skipped the step because a gradient overflowed.
        """
        accelerator = self.accelerator
        for micro in micro_batches:
            batch = micro.batch.to(accelerator.device)
            with contextlib.nullcontext() if micro.is_last else accelerator.no_sync(self.objective):
                loss = self.objective(batch.inputs, batch.targets) * micro.weight
                # all-reduce takes the mean over ranks, and the sum is needed
                accelerator.backward(loss * accelerator.num_processes / size)
            total += loss.detach()
        accelerator.clip_grad_norm_(trainable(self.objective), self.max_grad_norm)
        taken = take_step(accelerator, self.optimizer)
        if taken:
            self.rates.step()
        self.optimizer.zero_grad()
        return taken


def _steps(
    split: Split, schedule: Schedule, scoring: Scoring, epoch: int, accelerator: Accelerator
) -> Iterator[tuple[int, Iterator[_MicroBatch]]]:
    """Yield each optimizer step's number of documents, of all ranks, and this rank's micro-batches."""
    steps = training_steps(split.lengths, batch_size=schedule.batch_size, seed=schedule.seed, epoch=epoch)
    shares = [
        [
            collectives.documents_of(accelerator, part)
            for part in np.array_split(step, min(schedule.gradient_accumulation, len(step)))
        ]
        for step in steps
    ]
    stream = iter(loader(split, [documents for step in shares for documents, _ in step], scoring))
    for step, parts in zip(steps, shares, strict=True):
        yield len(step), _micro_batches(stream, [weight for _, weight in parts])


def _micro_batches(stream: Iterator[Batch], weights: Sequence[float]) -> Iterator[_MicroBatch]:
    for number, weight in enumerate(weights, 1):
        yield _MicroBatch(next(stream), weight, is_last=number == len(weights))


def _require_finite(loss: float, which: str, epoch: int, step: int) -> float:
    """Return the loss.

    Raises:
        TrainingError: it is not finite.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"the {which} loss is {loss} at epoch {epoch}, step {step}: lower trainer.learning_rate or "
            "trainer.head_learning_rate, or set trainer.precision=fp32"
        )
    return loss
