"""Threads that run a batch each on one core, in place of one batch on all cores.

Small products do not fill several cores, and cores that share a product wait for each other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class SingleThreads:
    """As many threads as torch has, each of which computes on one core. They start at the first call."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results in the order of the items."""
        return self._started().map(function, items)

    def _started(self) -> ThreadPoolExecutor:
        if self._pool is None or self._process != os.getpid():  # a forked process has no threads
            count = torch.get_num_threads()
            self._pool = ThreadPoolExecutor(count, initializer=_use_one_core)
            self._process = os.getpid()
            all_started = threading.Barrier(count)
            for _ in self._pool.map(lambda _: all_started.wait(), range(count)):
                pass
            torch.set_num_threads(count)  # other new threads have the number of the last call
        return self._pool


def _use_one_core() -> None:
    """Let this thread compute on one core."""
    torch.get_num_threads()  # the first call in a thread takes over the number of the process
    torch.set_num_threads(1)
