"""How long training will take: a few documents are timed before it starts, where it may take long."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from hblm.corpus.batches import Batch, TokenisedSplit
from hblm.fit import Schedule
from hblm.nn.classifier import Classifier
from hblm.notes import LONG
from hblm.optim import trainable
from hblm.score import Scoring

# Floating point operations a parameter and token: a product and a sum forward, twice that backward.
# Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1.
FORWARD, BACKWARD = 2, 4
# Operations a second that a slow device of each kind reaches at least: what is short at them is not timed.
SLOW = {"cpu": 2e10, "mps": 5e11, "cuda": 5e12}
_ENOUGH = 1.0  # seconds that a pass takes at least for its time to be taken as it is


def expected_seconds(
    model: Classifier,
    train: TokenisedSplit,
    val: TokenisedSplit,
    *,
    schedule: Schedule,
    scoring: Scoring,
    accelerator: Accelerator,
) -> float | None:
    """Return how many seconds training takes about, if no epoch is saved; None where it cannot be long.

    That is an epoch's passes over both splits, times the epochs, and for a frozen encoder one pass of the
    encoder alone. Only where `LONG` may be exceeded are documents timed, and no state, gradient or random
    number is another afterwards. Several processes are not timed: None.
    """
    tokens = train.lengths.sum(), val.lengths.sum()
    operations = FORWARD * sum(tokens)
    if model.trainable:
        operations = schedule.epochs * (operations + BACKWARD * tokens[0])
    parameters = sum(parameter.numel() for parameter in model.encoder.parameters())
    bound = float(operations) * parameters / SLOW[accelerator.device.type]
    if accelerator.num_processes > 1 or bound < LONG:
        return None
    micro_batch = -(-schedule.batch_size // schedule.gradient_accumulation)
    largest = micro_batch if model.trainable else scoring.batch_size
    with _untouched(model, accelerator.device):
        seconds, seen = _timed(model, train, largest, scoring, accelerator)
    timed = FORWARD + BACKWARD if model.trainable else FORWARD  # operations a token of the documents timed
    return float(operations) / timed * seconds / seen


def _timed(
    model: Classifier, split: TokenisedSplit, largest: int, scoring: Scoring, accelerator: Accelerator
) -> tuple[float, int]:
    """Return the seconds of one pass over some documents of median length, and their tokens.

    The documents are doubled up to a real micro-batch, or until a pass takes long enough.
    """
    by_length = np.argsort(split.lengths, kind="stable")
    size, largest = 1, min(largest, len(split))
    warm = False  # the first pass also pays for loading kernels
    while True:
        start = (len(split) - size) // 2
        batch = scoring.collate(split, by_length[start : start + size]).to(accelerator.device)
        began = time.perf_counter()
        _work(model, batch, scoring, accelerator)
        seconds = time.perf_counter() - began
        if warm and (size == largest or seconds > _ENOUGH):
            return seconds, batch.inputs["input_ids"].numel()
        size, warm = min(2 * size, largest) if warm else size, True


def _work(model: Classifier, batch: Batch, scoring: Scoring, accelerator: Accelerator) -> None:
    """Do what training does with a micro-batch, up to its gradients, or the part of a frozen encoder."""
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


@contextlib.contextmanager
def _untouched(model: Classifier, device: torch.device) -> Iterator[None]:
    """Give random generators and the model's mode back as they were."""
    training = model.training
    generators: list[Any] = [torch] if device.type == "cpu" else [torch, getattr(torch, device.type)]
    states = [generator.get_rng_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_rng_state(state)
        model.train(training)
