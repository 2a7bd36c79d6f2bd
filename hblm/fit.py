"""The training loop, and the pass over a split that scores it: a page each, on accelerate for the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from hblm.corpus.batches import Batch, PooledSplit, TokenisedSplit, evaluation_batches, training_steps
from hblm.errors import TrainingError
from hblm.loss import BceLoss
from hblm.metrics import ScoreCounter
from hblm.nn.classifier import Classifier
from hblm.optim import adamw, linear_schedule, trainable
from hblm.taxonomy import Taxonomy

Split = TokenisedSplit | PooledSplit
Collate = Callable[[Split, np.ndarray], Batch]
Scores = dict[str, Any]


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


@dataclass(frozen=True)
class Scoring:
    """How a split is scored: the same at validation, at the end of training, and in a later evaluation."""

    taxonomy: Taxonomy
    loss: BceLoss
    threshold: float
    batch_size: int
    num_workers: int
    collate: Collate


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
        model: on any device; moved to the accelerator's.
        train, val: tokenised documents, or what a frozen encoder made of them (see `pool`).
        schedule, scoring: see there.
        monitor: view and score, such as ("single", "macro_f1"), that decide which epoch is best; ties go to
            the lower validation loss, and patience counts only once the score has left 0.
        accelerator, watch: device and precision; who is told.

    Raises:
        TrainingError: the loss is no longer a number.
    """
    steps_per_epoch = math.ceil(len(train) / schedule.batch_size)
    model.to(accelerator.device)  # before AdamW looks where the parameters are
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
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    scoring.loss.to(accelerator.device)
    best: tuple[float, float] = (-1.0, -math.inf)  # score, minus validation loss
    state: dict[str, Tensor] = {}
    history: list[dict[str, Any]] = []
    best_epoch = waited = documents = 0
    seconds: list[float] = []
    for epoch in range(1, schedule.epochs + 1):
        wrapped.train()
        total = torch.zeros((), device=accelerator.device)
        clock = time.perf_counter()
        for number, (size, micro_batches) in enumerate(_steps(train, schedule, scoring, epoch), 1):
            for batch in micro_batches:
                batch = batch.to(accelerator.device)
                output = wrapped(**batch.inputs)
                loss = scoring.loss(output.views["single"], batch.targets)
                accelerator.backward(loss / size)
                total += loss.detach()
            accelerator.clip_grad_norm_(trainable(model), schedule.max_grad_norm)
            optimizer.step()
            if not accelerator.optimizer_step_was_skipped:  # fp16 skips a step whose gradients overflowed
                rates.step()
            optimizer.zero_grad()
            documents += size
            if number % 10 == 0 or number == steps_per_epoch:  # reading the loss waits for the device
                mean = total.item() / (documents - (epoch - 1) * len(train))
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
                "train_loss": total.item() / len(train),
                "val_loss": val_loss,
                "val_micro_f1": scores[view]["overall"]["micro_f1"],
                "val_macro_f1": scores[view]["overall"]["macro_f1"],
                "modulation": {branch: found["modulation"] for branch, found in scores.items()},
                "documents_per_second": len(train) / seconds[-1],
            }
        )
        watch.epoch(history[-1])
        if result > best:
            best, best_epoch, waited = result, epoch, 0
            state = {key: value.detach().to("cpu", copy=True) for key, value in model.state_dict().items()}
        elif best[0] > 0:
            waited += 1
            if waited >= schedule.patience:
                break
    model.load_state_dict(state)
    return Fitted(best_epoch, history, documents, sum(seconds))


@torch.inference_mode()
def score(
    model: Classifier,
    split: Split,
    scoring: Scoring,
    accelerator: Accelerator,
    advance: Callable[[int], None] = lambda documents: None,
) -> tuple[dict[str, Scores], float]:
    """Return the scores of every view over a split, and the loss per document.

    Memory does not grow with the number of documents. Each view's scores come with `modulation`, the mean
    |a γ| per level, and `nodes`, a row for each node.
    """
    model.eval()
    counters: dict[str, ScoreCounter] = {}
    modulation: dict[str, Tensor] = {}
    total = torch.zeros((), dtype=torch.float64)
    counted = "cpu" if accelerator.device.type == "mps" else accelerator.device  # mps has no float64
    batches = evaluation_batches(split.lengths, batch_size=scoring.batch_size)
    for batch in _loader(split, batches, scoring):
        batch = batch.to(accelerator.device)
        with accelerator.autocast():
            output = model(**batch.inputs)
        for view, logits in output.views.items():
            counter = counters.setdefault(view, ScoreCounter(scoring.taxonomy, scoring.threshold, counted))
            counter.update(scoring.loss.to_scores(logits).to(counted), batch.targets.to(counted))
        for branch, value in output.modulation.items():
            modulation[branch] = modulation.get(branch, torch.zeros(())) + value.float().cpu() * len(batch)
        total += scoring.loss(output.views["single"], batch.targets).cpu()
        advance(len(batch))
    found = {}
    for view, counter in counters.items():
        per_level = (modulation[view] / len(split)).tolist() if view in modulation else None
        found[view] = {**counter.compute(), "modulation": per_level, "nodes": counter.node_table()}
    return found, total.item() / len(split)


@torch.inference_mode()
def pool(
    model: Classifier,
    split: TokenisedSplit,
    scoring: Scoring,
    accelerator: Accelerator,
    advance: Callable[[int], None] = lambda documents: None,
) -> PooledSplit:
    """Run a frozen encoder over a split once, instead of once an epoch; a float32 vector a document is kept.

    Batches are those of `score`, so that scores from here are the scores from the tokens, to the bit.
    """
    model.to(accelerator.device).eval()
    found: Tensor | None = None
    batches = evaluation_batches(split.lengths, batch_size=scoring.batch_size)
    for indices, batch in zip(batches, _loader(split, batches, scoring), strict=True):
        with accelerator.autocast():
            pooled = model.pool(**batch.to(accelerator.device).inputs).cpu()
        if found is None:
            found = torch.empty(len(split), pooled.shape[1])
        found[torch.from_numpy(indices)] = pooled
        advance(len(batch))
    assert found is not None
    return PooledSplit(split, found)


def _steps(
    split: Split, schedule: Schedule, scoring: Scoring, epoch: int
) -> Iterator[tuple[int, Iterator[Batch]]]:
    """Yield each optimizer step's number of documents and its micro-batches."""
    steps = training_steps(split.lengths, batch_size=schedule.batch_size, seed=schedule.seed, epoch=epoch)
    parts = [np.array_split(step, min(schedule.gradient_accumulation, len(step))) for step in steps]
    stream = iter(_loader(split, [part for step in parts for part in step], scoring))
    for step, micro in zip(steps, parts, strict=True):
        yield len(step), (next(stream) for _ in micro)


def _loader(split: Split, batches: Sequence[np.ndarray], scoring: Scoring) -> DataLoader[Any]:
    """Return a loader that collates each array of positions as it is."""
    return DataLoader(
        _Batches(split, batches, scoring.collate),
        batch_size=None,
        collate_fn=_same,
        num_workers=scoring.num_workers,
    )


class _Batches(torch.utils.data.Dataset[Batch]):
    def __init__(self, split: Split, batches: Sequence[np.ndarray], collate: Collate) -> None:
        self.split, self.batches, self.collate = split, batches, collate

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, position: int) -> Batch:
        return self.collate(self.split, self.batches[position])


def _same(batch: Any) -> Any:
    return batch


def _finite(loss: float, which: str, epoch: int, step: int) -> float:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the {which} loss is {loss} at epoch {epoch}, step {step}: lower trainer.learning_rate or "
            "trainer.head_learning_rate, or set trainer.precision=fp32"
        )
    return loss
