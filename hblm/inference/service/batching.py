"""Texts of concurrent requests, joined into batches that one worker thread computes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hblm.console import log

Scores = npt.NDArray[np.float32]
Model = Callable[[Sequence[str]], Scores]  # texts -> (texts, nodes)
Answer = Callable[[Scores], Iterable[Any]]  # rows of scores -> what the request gets for each of them
_FORGETTING = 0.2  # share of the newest batch in the mean of seconds a text


class QueueFullError(Exception):
    """The texts of a request have no room in the queue."""


@dataclass(eq=False)
class _Request:
    """The texts of one request, which are taken in order, and the answers so far."""

    texts: Sequence[str]
    answer: Answer
    future: Future[list[Any]] = field(default_factory=Future)
    taken: int = 0
    answers: list[Any] = field(default_factory=list)


class Batcher:
    """A queue of requests and the loop that computes them in batches.

    A batch takes one text of each request in turn, so that a request of one text does not wait for all texts
    of a large request. Where the last batch had several requests, the next one waits a little for as many:
    clients that were answered together send their next texts at nearly the same time. A single client never
    waits.
    """

    def __init__(self, *, batch: int, queue: int, wait: float, observe: Callable[[int], object]) -> None:
        """Make an empty queue.

        Args:
            batch: the most texts of a batch.
            queue: the most texts that wait; those of the batch that is being computed are not among them.
            wait: the most seconds that a batch waits for further requests.
            observe: gets the number of texts of each batch.
        """
        self._batch, self._queue, self._wait, self._observe = batch, queue, wait, observe
        self._requests: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._together = 1  # requests of the last batch
        self._pace = 0.0  # seconds a text, a moving mean

    @property
    def waiting(self) -> int:
        """The number of texts that wait."""
        with self._changed:
            return sum(len(request.texts) - request.taken for request in self._requests)

    @property
    def seconds_left(self) -> float:
        """About how long the texts that wait will take."""
        return self.waiting * self._pace

    def submit(self, texts: Sequence[str], answer: Answer) -> Future[list[Any]]:
        """Queue the texts of a request; to cancel the future frees their places.

        Args:
            texts: at least one.
            answer: is called by the worker thread with the scores of each part of the texts, in order.

        Returns:
            The future of the answers, in the order of the texts.

        Raises:
            QueueFullError: there is no room for all of them.
        """
        request = _Request(texts, answer)
        with self._changed:
            if self.waiting + len(texts) > self._queue:
                raise QueueFullError
            self._requests.append(request)
            self._changed.notify()
        request.future.add_done_callback(lambda _: self._remove(request))
        return request.future

    def close(self) -> None:
        """Let `work` end when no request waits."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def work(self, model: Model) -> None:
        """Compute batches until the batcher is closed and no request waits."""
        while (parts := self._take()) is not None:
            if not parts:  # cancelled while the batch waited for others
                continue
            texts = sum(len(part) for _, part in parts)
            self._observe(texts)
            started = time.monotonic()
            _compute(parts, model)
            self._pace += _FORGETTING * ((time.monotonic() - started) / texts - self._pace)

    def _take(self) -> list[tuple[_Request, Sequence[str]]] | None:
        """Wait for a batch and return its texts by request; None at the end."""
        with self._changed:
            while not self._requests:
                if self._closed:
                    return None
                self._changed.wait()
            end = time.monotonic() + self._wait
            while self._may_grow() and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            first: dict[_Request, int] = {}  # request -> its first text in this batch
            for _ in range(min(self._batch, self.waiting)):
                request = self._requests.popleft()
                first.setdefault(request, request.taken)
                request.taken += 1
                if request.taken < len(request.texts):
                    self._requests.append(request)
            self._together = len(first)
            return [(request, request.texts[start : request.taken]) for request, start in first.items()]

    def _may_grow(self) -> bool:
        """Return whether fewer requests wait than the last batch had, and the batch has room for more."""
        return not self._closed and len(self._requests) < self._together and self.waiting < self._batch

    def _remove(self, request: _Request) -> None:
        """Remove a request that failed or was cancelled; one that was answered waits no more."""
        with self._changed:
            if request in self._requests:
                self._requests.remove(request)


def _compute(parts: Sequence[tuple[_Request, Sequence[str]]], model: Model) -> None:
    """Compute a batch. If it fails, each request is computed alone, so that only the faulty one fails."""
    try:
        rows = model([text for _, texts in parts for text in texts])
    except Exception as error:
        if len(parts) == 1:
            _fail(parts[0][0], error)
            return
        for part in parts:
            _compute([part], model)
        return
    start = 0
    for request, texts in parts:
        try:
            request.answers += request.answer(rows[start : start + len(texts)])
        except Exception as error:
            _fail(request, error)
        if len(request.answers) == len(request.texts):
            _settle(request.future.set_result, request.answers)
        start += len(texts)


def _fail(request: _Request, error: Exception) -> None:
    log.error("a request of %d texts failed", len(request.texts), exc_info=error)
    _settle(request.future.set_exception, error)


def _settle(settle: Callable[[Any], None], value: Any) -> None:
    """Set a future's result or exception; a request that was cancelled gets none."""
    try:
        settle(value)
    except InvalidStateError:
        log.debug("a request was cancelled before its answer")
