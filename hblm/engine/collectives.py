"""Collectives: what the ranks of a run share, gather and reduce; no-ops with one process."""

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
STEPS = 10  # between synchronisations (mean loss, stop signals), because each waits for the device


def batches_of(accelerator: Accelerator, batches: Sequence[Array]) -> Sequence[Array]:
    """Return this rank's share of some batches: whole batches, so that padding is as with one process."""
    return batches[accelerator.process_index :: accelerator.num_processes]


def documents_of(accelerator: Accelerator, documents: Array) -> tuple[Array, float]:
    """Return this rank's share of a batch, and the weight of its loss.

    A rank without a share gets one document with weight 0, because every rank must join each all-reduce.
    """
    share = documents[accelerator.process_index :: accelerator.num_processes]
    return (share, 1.0) if len(share) else (documents[:1], 0.0)


def reduce_sum(accelerator: Accelerator, part: Tensor) -> Tensor:
    """Return the sum of all ranks' tensors, on every rank."""
    summed: Tensor = accelerator.reduce(part, reduction="sum")
    return summed


def gather(accelerator: Accelerator, part: T) -> list[T]:
    """Return all ranks' parts in order of rank, on every rank: small picklable objects."""
    parts: list[T] = gather_object([part]) if accelerator.num_processes > 1 else [part]
    return parts


def broadcast(value: T) -> T:
    """Return the value of rank 0, on every rank."""
    received: T = broadcast_object_list([value])[0]
    return received


def check_stop(accelerator: Accelerator, *, synchronise: bool) -> None:
    """Raise Stopped on all ranks if one of them has received a signal.

    Args:
        accelerator: the run's.
        synchronise: whether several ranks compare now, in which all of them must take part.
    """
    if accelerator.num_processes == 1:
        signals.check()
    elif synchronise:
        received = torch.tensor(float(signals.received() is not None), device=accelerator.device)
        if reduce_sum(accelerator, received).item():
            raise signals.Stopped(signals.received() or "a signal to another process")


def vary_dropout(accelerator: Accelerator, seed: int) -> None:
    """Seed every rank but the first anew, so that ranks draw different dropout masks."""
    if accelerator.process_index:
        own = np.random.SeedSequence((seed, accelerator.process_index)).generate_state(1)[0]
        torch.manual_seed(int(own))
