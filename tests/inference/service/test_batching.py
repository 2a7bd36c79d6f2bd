"""Requests are joined into batches, in order, in turn, and within the queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from hblm.inference.service.batching import Batcher, QueueFullError, Scores


class Model:
    """A model whose score of a text is its number. It computes a batch when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.turn = threading.Semaphore(0)
        self.started = threading.Semaphore(0)

    def __call__(self, texts: Sequence[str]) -> Scores:
        self.batches.append([*texts])
        self.started.release()
        assert self.turn.acquire(timeout=10)
        if "bad" in texts:
            raise ValueError("a bad text")
        return numbers(texts)


def numbers(texts: Sequence[str]) -> Scores:
    return np.array([[float(text)] for text in texts], dtype=np.float32)


def first_scores(rows: Scores) -> list[float]:
    return [float(row[0]) for row in rows]


class Running:
    """A batcher with its thread."""

    def __init__(self, model: Callable[[Sequence[str]], Scores], **options: Any) -> None:
        self.sizes: list[int] = []
        options = {"batch": 4, "queue": 100, "wait": 0, **options}
        self.batcher = Batcher(**options, observe=self.sizes.append)
        self.thread = threading.Thread(target=self.batcher.work, args=[model], daemon=True)

    def submit(self, *texts: str) -> Future[list[Any]]:
        return self.batcher.submit(texts, first_scores)

    def end(self) -> None:
        self.batcher.close()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def running(model: Model) -> Iterator[Running]:
    """Give a batcher whose model computes "0", so that what is submitted waits."""
    running = Running(model)
    running.thread.start()
    running.submit("0")
    assert model.started.acquire(timeout=10)
    yield running
    model.turn.release(100)
    running.end()


def test_texts_of_several_requests_are_one_batch_and_answers_are_in_order(model, running):
    futures = [running.submit("1"), running.submit("2", "3")]
    model.turn.release(2)
    assert [future.result(10) for future in futures] == [[1], [2, 3]]
    assert model.batches == [["0"], ["1", "2", "3"]]
    assert running.sizes == [1, 3]


def test_a_single_text_does_not_wait_for_a_large_request(model, running):
    large = running.submit(*map(str, range(1, 11)))
    small = running.submit("99")
    model.turn.release(2)
    assert small.result(10) == [99]
    assert model.started.acquire(timeout=10)
    assert model.started.acquire(timeout=10)
    assert not large.done()
    assert running.batcher.waiting == 3  # of 11, 4 were computed with the small one, 4 are being computed
    model.turn.release(2)
    assert large.result(10) == [*range(1, 11)]
    assert [len(batch) for batch in model.batches] == [1, 4, 4, 3]


def test_a_request_beyond_the_queue_is_refused_whole_and_later_ones_have_room_again(model):
    running = Running(model, queue=3)
    running.submit("1", "2")
    with pytest.raises(QueueFullError):
        running.submit("3", "4")
    third = running.submit("3")
    running.thread.start()
    model.turn.release(2)
    assert third.result(10) == [3]
    fourth = running.submit("4", "5", "6")
    assert fourth.result(10) == [4, 5, 6]
    running.end()


def test_a_cancelled_request_frees_its_places(model, running):
    gone = running.submit("1", "2", "3")
    kept = running.submit("4")
    assert running.batcher.waiting == 4
    gone.cancel()
    assert running.batcher.waiting == 1
    model.turn.release(2)
    assert kept.result(10) == [4]
    assert model.batches[1] == ["4"]


def test_a_request_that_is_cancelled_while_it_is_computed_disturbs_no_other(model, running):
    gone, kept = running.submit("1", "2", "3", "4", "5"), running.submit("6")
    model.turn.release()
    assert model.started.acquire(timeout=10)
    assert model.batches[1] == ["1", "2", "3", "6"]
    gone.cancel()
    model.turn.release(5)
    assert kept.result(10) == [6]
    with pytest.raises(CancelledError):
        gone.result(10)
    assert running.submit("7").result(10) == [7]


def test_only_the_request_with_a_bad_text_fails(model, running):
    good, bad, more = running.submit("1"), running.submit("bad", "2"), running.submit("3")
    model.turn.release(6)
    assert (good.result(10), more.result(10)) == ([1], [3])
    with pytest.raises(ValueError, match="a bad text"):
        bad.result(10)
    assert running.submit("4").result(10) == [4]


def test_an_answer_that_fails_fails_alone(model, running):
    def fail(rows: Scores) -> list[Any]:
        raise RuntimeError("no decision")

    bad, good = running.batcher.submit(["1", "2"], fail), running.submit("3")
    model.turn.release(2)
    assert good.result(10) == [3]
    with pytest.raises(RuntimeError, match="no decision"):
        bad.result(10)


def test_closed_it_ends_when_all_are_answered(model):
    running = Running(model)
    futures = [running.submit(str(number)) for number in range(9)]
    running.batcher.close()
    model.turn.release(9)
    running.thread.start()
    running.thread.join(10)
    assert [future.result(0) for future in futures] == [[number] for number in range(9)]


def test_a_batch_waits_for_as_many_requests_as_the_last_one_had(model):
    running = Running(model, wait=5)
    first = [running.submit("1"), running.submit("2")]
    running.thread.start()
    model.turn.release(2)
    assert [future.result(10) for future in first] == [[1], [2]]
    third = running.submit("3")
    time.sleep(0.05)
    assert len(model.batches) == 1
    fourth = running.submit("4")
    assert [third.result(10), fourth.result(10)] == [[3], [4]]
    assert model.batches == [["1", "2"], ["3", "4"]]
    model.turn.release(10)
    running.end()


def test_a_single_client_does_not_wait():
    running = Running(numbers, wait=60)
    running.thread.start()
    for _ in range(20):
        assert running.submit("1").result(10) == [1]
    running.end()


def test_many_threads_get_their_own_answers():
    running = Running(numbers, batch=7, queue=1000, wait=0.001)
    running.thread.start()

    def ask(number: int) -> bool:
        texts = [str(number * 100 + at) for at in range(number % 12 + 1)]
        return running.submit(*texts).result(10) == [float(text) for text in texts]

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(ask, range(300)))
    assert running.batcher.waiting == 0
    assert max(running.sizes) <= 7
    running.end()
