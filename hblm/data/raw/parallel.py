"""Work on all cores, results in the order of the work."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Any, TypeVar

from hblm.errors import DataError

Item = TypeVar("Item")


Result = TypeVar("Result")


_FEW = 4  # items that are done sooner than processes start, which takes a second


_MOST = 8  # processes; the one that takes their results has no time for more


_shared: Any = None  # in a process of the pool: what all items have in common


def in_order(
    function: Callable[[Any, Item], Result], shared: Any, items: Iterable[Item], window: int | None = None
) -> Iterator[Result]:
    """Yield function(shared, item) for each item, in their order.

    Args:
        function: of a module, so that other processes find it.
        shared: what all calls have in common; sent to each process once.
        items: taken as there is room, `window` ahead of the results.
        window: how many items may be under way, so that memory stays bounded; None: two for each process.

    Raises:
        DataError: a process was killed, or none can be started; otherwise what `function` raises.
    """
    waiting = iter(items)
    head = list(islice(waiting, _FEW))
    waiting = chain(head, waiting)
    workers = min(_cores(), _MOST)
    if len(head) < _FEW or workers < 2:
        for item in waiting:
            yield function(shared, item)
        return
    room = window or 2 * workers
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(shared,)
    )
    pending: deque[Future[Result]] = deque()
    try:
        with _undisturbed():  # the processes start here
            pending.append(pool.submit(_call, function, next(waiting)))
        while True:
            pending.extend(
                pool.submit(_call, function, item) for item in islice(waiting, room - len(pending))
            )
            if not pending:
                return
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise DataError(
            "a process that helped to read was killed or could not start: too little memory? a script "
            "without `if __name__ == '__main__':`?"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Start processes that leave Ctrl-C to this one.

    Raises:
        DataError: they cannot be started.
    """
    ours = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if ours else None
    try:
        yield
    except OSError as error:
        raise DataError(f"processes that help to read cannot be started: {error.strerror}") from None
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin(shared: Any) -> None:
    global _shared
    _shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that gives the work
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that gives the work is killed; it would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(function: Callable[[Any, Item], Result], item: Item) -> Result:
    return function(_shared, item)
