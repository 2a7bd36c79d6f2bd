"""What the processes of a run do together, each with a part of the documents; alone, all of it is trivial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from hblm import signals
from hblm.data.tokens import Array

T = TypeVar("T")


STEPS = 10  # between looks at the loss and at what all processes must agree on, which wait for the device


def batches_of(accelerator: Accelerator, batches: Sequence[Array]) -> Sequence[Array]:
    """Return this process's part of some batches: whole ones, so that none is padded otherwise than alone."""
    return batches[accelerator.process_index :: accelerator.num_processes]


def documents_of(accelerator: Accelerator, documents: Array) -> tuple[Array, float]:
    """Return this process's part of a batch, and what it counts.

    A process for which no document is left takes one that counts 0, because gradients meet in every step.
    """
    mine = documents[accelerator.process_index :: accelerator.num_processes]
    return (mine, 1.0) if len(mine) else (documents[:1], 0.0)


def total(accelerator: Accelerator, part: Tensor) -> Tensor:
    """Return the sum of what each process has."""
    summed: Tensor = accelerator.reduce(part, reduction="sum")
    return summed


def parts(accelerator: Accelerator, part: T) -> list[T]:
    """Return what each process has, in order of rank: small picklable objects."""
    found: list[T] = gather_object([part]) if accelerator.num_processes > 1 else [part]
    return found


def of_the_first(said: T) -> T:
    """Return what the first process says."""
    heard: T = broadcast_object_list([said])[0]
    return heard


def check_stop(accelerator: Accelerator, *, meet: bool) -> None:
    """Raise Stopped on all processes if a signal has come to one.

    Args:
        meet: of several processes, look now: all must, and wait for each other.
    """
    if accelerator.num_processes == 1:
        signals.check()
    elif meet:
        heard = torch.tensor(float(signals.asked() is not None), device=accelerator.device)
        if total(accelerator, heard).item():
            raise signals.Stopped(signals.asked() or "a signal to another process")


def vary_dropout(accelerator: Accelerator, seed: int) -> None:
    """Let every process but the first draw dropout masks of its own."""
    if accelerator.process_index:
        own = np.random.SeedSequence((seed, accelerator.process_index)).generate_state(1)[0]
        torch.manual_seed(int(own))
