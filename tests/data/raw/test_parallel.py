"""Work on several cores: results in the order of the work, and what becomes of faults and interruptions."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from hblm.data.raw import parallel
from hblm.data.raw.parallel import in_order
from hblm.errors import DataError

# The work is a Python expression: eval(shared, item) needs no module that other processes would have to find.
Item = dict[str, Any]


def items(count: int, taken: list[int] | None = None) -> Iterator[Item]:
    """Yield what an expression calls n, and note that it was taken."""
    for n in range(count):
        if taken is not None:
            taken.append(n)
        yield {"n": n}


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have two processes on every machine."""
    monkeypatch.setattr(parallel, "n_cores", lambda: 2)


@pytest.fixture
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to start any."""

    def refuse(*arguments: Any, **more: Any) -> Any:
        raise AssertionError("a process pool was started")

    monkeypatch.setattr(parallel, "ProcessPoolExecutor", refuse)


def square(shared: list[int], item: Item) -> int:
    """Return a number's square and note it; for work in this process."""
    shared.append(item["n"])
    return int(item["n"] ** 2)


# --- in this process


@pytest.mark.usefixtures("_no_processes")
@pytest.mark.parametrize("count", range(4))
def test_few_items_need_no_process(count: int) -> None:
    done: list[int] = []
    assert list(in_order(square, done, items(count))) == [n**2 for n in range(count)]
    assert done == list(range(count))


@pytest.mark.usefixtures("_no_processes")
def test_one_core_needs_no_process_and_works_as_results_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "n_cores", lambda: 1)
    done: list[int] = []
    taken: list[int] = []
    results = in_order(square, done, items(50, taken), window=3)
    assert [next(results) for _ in range(10)] == [n**2 for n in range(10)]
    assert done == list(range(10))
    assert taken == list(range(10))
    assert list(results) == [n**2 for n in range(10, 50)]


@pytest.mark.usefixtures("_no_processes")
def test_what_the_work_raises_comes_out_in_this_process_too() -> None:
    results = in_order(eval, "1 // (n - 1)", items(3))
    assert next(results) == -1
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.usefixtures("_no_processes")
def test_nothing_is_taken_before_a_result_is_asked_for() -> None:
    taken: list[int] = []
    in_order(square, [], items(50, taken))
    assert taken == []


# --- in several processes


def test_results_come_in_the_order_of_the_items_which_are_taken_a_window_ahead() -> None:
    """The first items take longest, so that those after them are done before."""
    work = "(__import__('time').sleep(0.2 if n < 2 else 0), n * 3, __import__('os').getpid())[1:]"
    taken: list[int] = []
    found = []
    processes = set()
    for number, (result, process) in enumerate(in_order(eval, work, items(40, taken), window=6), 1):
        found.append(result)
        processes.add(process)
        assert len(taken) <= number - 1 + 6
    assert found == [3 * n for n in range(40)]
    assert taken == list(range(40))
    assert os.getpid() not in processes
    assert len(processes) <= 2
    assert multiprocessing.active_children() == []


def test_what_the_work_raises_comes_out_in_its_turn_and_leaves_no_process() -> None:
    results = in_order(eval, "n if n < 3 else open(f'/nowhere/{n}')", items(10**9))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(FileNotFoundError, match="/nowhere/3"):
        next(results)
    assert list(results) == []
    assert multiprocessing.active_children() == []


def test_a_killed_process_is_one_message() -> None:
    work = "__import__('os').kill(__import__('os').getpid(), 9) if n == 5 else n"
    with pytest.raises(
        DataError, match="a worker process was killed or could not start: too little memory"
    ) as caught:
        list(in_order(eval, work, items(10**9)))
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []


def interrupted(count: int) -> Iterator[Item]:
    yield from items(count)
    raise KeyboardInterrupt


def test_an_interruption_leaves_no_process() -> None:
    results = in_order(eval, "n", interrupted(20), window=4)
    assert next(results) == 0
    assert multiprocessing.active_children() != []
    with pytest.raises(KeyboardInterrupt):
        list(results)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_results_that_are_not_asked_for_leave_no_process() -> None:
    results = in_order(eval, "n", items(10**9))
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_ctrl_c_leaves_no_process() -> None:
    """It goes to all processes of a terminal at once."""
    program = (
        "from hblm.data.raw import parallel as pool\n"
        "pool.n_cores = lambda: 2\n"
        "work = '__import__(\"time\").sleep(0.05) or n'\n"
        "if __name__ == '__main__':\n"
        "    for n in pool.in_order(eval, work, ({'n': n} for n in range(10**9))):\n"
        "        print(n, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(8)] == [f"{n}\n" for n in range(8)]
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)  # returns when the last process has closed these streams
    assert process.returncode == -signal.SIGINT
    assert said.rstrip().endswith("KeyboardInterrupt")


def test_what_all_items_have_in_common_reaches_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without processes as with them; nothing of it stays behind here."""
    monkeypatch.setattr(parallel, "n_cores", lambda: 1)
    shared: Mapping[str, int] = {"a": 7}
    assert list(in_order(dict.get, shared, ["a", "b", "a", "a", "b"])) == [7, None, 7, 7, None]
    assert parallel._shared is None
