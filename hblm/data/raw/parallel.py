"""Parallel map over worker processes, with results in input order and bounded memory."""

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
from hblm.process import n_cores

Item = TypeVar("Item")
Result = TypeVar("Result")
_FEW = 4  # fewer items are done sooner in this process; starting workers takes a second
_MOST = 8  # workers; the parent process cannot consume the results of more
_shared: Any = None  # in a worker: the argument that all calls share


def in_order(
    function: Callable[[Any, Item], Result], shared: Any, items: Iterable[Item], window: int | None = None
) -> Iterator[Result]:
    """Yield function(shared, item) for each item, in their order.

    Args:
        function: a module-level function, so that workers can import it.
        shared: the first argument of all calls; sent to each worker once.
        items: consumed lazily, at most `window` items ahead of the results.
        window: the number of pending items, which bounds the memory; None: two per worker.

    Raises:
        DataError: a worker was killed, or workers cannot be started.
        Exception: whatever `function` raises, in the turn of its item.
    """
    waiting = iter(items)
    head = list(islice(waiting, _FEW))
    waiting = chain(head, waiting)
    workers = min(n_cores(), _MOST)
    if len(head) < _FEW or workers < 2:
        for item in waiting:
            yield function(shared, item)
        return
    room = window or 2 * workers
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(shared,)
    )
    pending: deque[Future[Result]] = deque()
    try:
        with _ignoring_ctrl_c():  # the workers start here and inherit this
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
            "a worker process was killed or could not start: too little memory? a script "
            "without `if __name__ == '__main__':`?"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _ignoring_ctrl_c() -> Iterator[None]:
    """Ignore Ctrl-C while workers start, so that only the parent process handles it.

    Raises:
        DataError: the workers cannot be started.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if is_main else None
    try:
        yield
    except OSError as error:
        raise DataError(f"worker processes cannot be started: {error.strerror}") from None
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _start_worker(shared: Any) -> None:
    global _shared
    _shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when its parent process is killed; it would wait forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(function: Callable[[Any, Item], Result], item: Item) -> Result:
    return function(_shared, item)
