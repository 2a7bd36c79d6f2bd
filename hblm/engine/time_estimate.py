"""Estimate of the duration of training, from timing a few documents where it may be long."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import torch
from accelerate import Accelerator

from hblm.data.batches import Batch, Split, evaluation_batches, training_steps
from hblm.data.tokens import Array
from hblm.engine.device import untouched
from hblm.engine.loop import Schedule
from hblm.engine.notes import LONG
from hblm.engine.optimizer import trainable
from hblm.engine.scoring import Scoring
from hblm.nn.classifier import Classifier

# Floating point operations a parameter and token: a product and a sum forward, twice that backward.
# Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1.
FORWARD, BACKWARD = 2, 4
# Operations a second of a slow device of each kind: a training that is short even there is not timed.
SLOW = {"cpu": 2e10, "mps": 5e11, "cuda": 5e12}
_ENOUGH = 1.0  # seconds: one pass of this length is timing enough


def expected_seconds(
    model: Classifier,
    splits: Sequence[Split],
    *,
    schedule: Schedule,
    scoring: Scoring,
    accelerator: Accelerator,
) -> float | None:
    """Return about how many seconds training takes without early stopping; None where it is surely short.

    Documents are timed only where `LONG` may be exceeded. Model, gradients and random generators
    are unchanged afterwards. With several processes nothing is timed: None.

    Args:
        model: on its device.
        splits: the one to train on, then those scored after each epoch; with a frozen encoder, all splits to
            embed once.
        schedule, scoring, accelerator: as for `fit`.
    """
    slow = SLOW.get(accelerator.device.type)
    if slow is None or accelerator.num_processes > 1 or not splits:
        return None
    operations = _operations(model, splits, schedule, scoring.batch_size)
    if operations * sum(parameter.numel() for parameter in model.encoder.parameters()) < LONG * slow:
        return None
    micro_batch = -(-schedule.batch_size // schedule.gradient_accumulation)
    largest = micro_batch if model.trainable else scoring.batch_size
    with untouched(model, accelerator.device):
        seconds, tokens = _timed(model, splits[0], largest, scoring, accelerator)
    return operations * seconds / (tokens * (FORWARD + BACKWARD if model.trainable else FORWARD))


def _operations(model: Classifier, splits: Sequence[Split], schedule: Schedule, batch_size: int) -> int:
    """Return the operations for each parameter of the encoder; `batch_size` is that of scoring."""
    train, *scored = splits
    forward = sum(
        _tokens(split, evaluation_batches(split.lengths, batch_size=batch_size))
        for split in (scored if model.trainable else splits)
    )
    if not model.trainable:
        return FORWARD * forward
    steps = training_steps(train.lengths, batch_size=schedule.batch_size, seed=schedule.seed, epoch=1)
    return schedule.epochs * (FORWARD * forward + (FORWARD + BACKWARD) * _tokens(train, steps))


def _tokens(split: Split, batches: Sequence[Array]) -> int:
    """Return the tokens of some batches, each padded to its longest document."""
    return sum(len(batch) * int(split.lengths[batch].max()) for batch in batches)


def _timed(
    model: Classifier, split: Split, largest: int, scoring: Scoring, accelerator: Accelerator
) -> tuple[float, int]:
    """Return the seconds of one pass over some documents of median length, and their tokens with padding.

    The documents are doubled up to a real micro-batch, or until a pass takes long enough.
    """
    by_length = np.argsort(split.lengths, kind="stable")

    def batch_of(size: int) -> Batch:
        start = (len(split) - size) // 2
        return scoring.collate(split, by_length[start : start + size]).to(accelerator.device)

    def seconds_of(batch: Batch) -> float:
        began = time.perf_counter()
        _work(model, batch, scoring, accelerator)
        return time.perf_counter() - began

    size, largest = 1, min(largest, len(split))
    batch = batch_of(size)
    seconds_of(batch)  # the first pass also loads kernels
    while (seconds := seconds_of(batch)) < _ENOUGH and size < largest:
        size = min(2 * size, largest)
        batch = batch_of(size)
    if seconds < _ENOUGH:  # the mean of several short passes, without the first of this size
        passes: list[float] = []
        while sum(passes) < _ENOUGH:
            passes.append(seconds_of(batch))
        seconds = fmean(passes)
    return seconds, batch.inputs["input_ids"].numel()


def _work(model: Classifier, batch: Batch, scoring: Scoring, accelerator: Accelerator) -> None:
    """Compute the gradients of a micro-batch, or with a frozen encoder its embeddings."""
    if model.trainable:
        model.train()
        with accelerator.autocast():
            loss = scoring.objective(model(**batch.inputs).views, batch.targets)
        torch.autograd.grad(loss, list(trainable(model)), allow_unused=True)  # leaves `.grad` alone
    else:
        model.eval()
        with torch.inference_mode(), accelerator.autocast():
            model.pool(**batch.inputs)
    getattr(torch, accelerator.device.type).synchronize()
