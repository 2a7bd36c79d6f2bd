"""Start the workers of a run, one process a rank, and wait for them. No torch.

torchrun and `accelerate launch` start the ranks from outside. With `trainer.processes` the program starts
them itself: this parent process holds the run's lock and does not train. It passes stop signals on to its
workers, raises the error of the one that failed first, and its workers end when it is killed.

On several machines there is a parent on each. They share a folder: the first machine writes its address
there, every worker that fails its report, and the first parent a file when the run is over.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hblm import signals
from hblm.engine.exit_reports import TASK, Reports, raise_first, read_reports, report_exit
from hblm.files import scratch_folder
from hblm.json_files import write_json
from hblm.process import QUIET, n_cores

_OVER = "over"  # the file that the first machine writes at the end
_POLL = 0.2  # seconds between looks at workers and files
_GATHER = 1.0  # seconds after the first report in which others may write theirs
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_TIMEOUT = 60.0  # seconds for an orderly stop, and for the first machine to react to another's failure
_PORTS = range(20_000, 32_768)  # below the ports that systems give to outgoing connections


@dataclass(frozen=True)
class Machines:
    """The machines of a run: how many, and a new folder that all of them see."""

    count: int
    folder: Path


@dataclass
class _Worker:
    rank: int
    process: subprocess.Popen[bytes]
    log: Path | None  # its output; None for rank 0, which writes to the output of this process


def launch(run: Mapping[str, Any], processes: int, machines: Machines | None = None) -> None:
    """Do a run with several processes on each machine, and return when it is done.

    Args:
        run: the arguments of training.join: config (as plain values), expected and chosen.
        processes: on each machine.
        machines: of which this one is the first; None for this machine alone.

    Raises:
        HblmError: as one of the workers raised it.
        ProcessError: a worker failed otherwise, or was killed.
        signals.Stopped: all workers have stopped at a signal.
    """
    with contextlib.ExitStack() as stack:
        if machines is None:
            # in the output folder, where the next run removes what a killed one has left
            beside = Path(run["config"]["output_dir"]) / "results" / "processes"
            machines = Machines(1, stack.enter_context(scratch_folder(beside)))
        machines.folder.mkdir(parents=True, exist_ok=True)
        task = {
            **run,
            "processes": processes,
            "machines": machines.count,
            "address": "127.0.0.1" if machines.count == 1 else socket.getfqdn(),
            "port": _free_port(),
            "listen": signals.is_listening(),
            "started": time.time(),
        }
        write_json(machines.folder / TASK, task)
        workers = stack.enter_context(_workers(machines.folder, task, 0))
        _wait(machines.folder, workers, raise_first)


def finish(machines: Machines) -> None:
    """Let the other machines know that the run is over, whether it succeeded or not."""
    machines.folder.mkdir(parents=True, exist_ok=True)
    (machines.folder / _OVER).touch()


def follow(machines: Machines, number: int) -> int:
    """Run the workers of a machine that is not the first; return the exit code.

    They start when the first machine has written its address. `number` is this machine's, from 1 on.
    """
    over = machines.folder / _OVER
    while not (machines.folder / TASK).exists():
        if over.exists() or signals.received():
            return 0
        time.sleep(_POLL)
    task = json.loads((machines.folder / TASK).read_text(encoding="utf-8"))

    def wait_for_first(reports: Reports) -> None:
        until = time.monotonic() + _TIMEOUT
        while not over.exists() and time.monotonic() < until:
            time.sleep(_POLL)

    with _workers(machines.folder, task, number) as workers:
        _wait(machines.folder, workers, wait_for_first)
        failed = any(worker.process.poll() for worker in workers)
    return int(failed and not over.exists())  # with the file there, the first machine returns the error


@contextlib.contextmanager
def _workers(folder: Path, task: Mapping[str, Any], machine: int) -> Iterator[list[_Worker]]:
    """Start this machine's workers; end those that still run when the block is left."""
    workers: list[_Worker] = []
    try:
        for local_rank in range(int(task["processes"])):
            workers.append(_start(folder, task, machine, local_rank))
        yield workers
    finally:
        _end(workers)


def _start(folder: Path, task: Mapping[str, Any], machine: int, local_rank: int) -> _Worker:
    """Start a worker with the environment variables that torchrun would set."""
    count = int(task["processes"])
    rank = machine * count + local_rank
    threads = str(max(1, int(os.environ.get("OMP_NUM_THREADS", n_cores())) // count))
    environment = {
        **os.environ,
        "RANK": str(rank),
        "WORLD_SIZE": str(count * int(task["machines"])),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": str(task["address"]),
        "MASTER_PORT": str(task["port"]),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }
    environment.setdefault(*QUIET)
    log = folder / f"{rank}.log" if rank else None
    with contextlib.ExitStack() as stack:
        output = None if log is None else stack.enter_context(log.open("wb"))
        stack.enter_context(_block_signals())
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "hblm.engine.worker", str(folder)],
            stdin=subprocess.PIPE,  # closed when this process ends, at which the worker ends itself
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            env=environment,
        )
    return _Worker(rank, process, log)


def _wait(folder: Path, workers: Sequence[_Worker], failed: Callable[[Reports], None]) -> None:
    """Wait until all workers have succeeded, or call `failed` with the reports of those that have not."""
    passed_on = False
    first_report: float | None = None
    while True:
        if signals.received() and not passed_on:
            passed_on = True
            for worker in workers:
                worker.process.send_signal(signals.SIGNALS[0])
        running = False
        for worker in workers:
            code = worker.process.poll()
            running |= code is None
            if code:
                report_exit(folder, worker.rank, code, worker.log)
        reports = read_reports(folder)
        if not reports and (not running or (folder / _OVER).exists()):
            return
        if reports:
            first_report = first_report or time.monotonic()
            since = time.monotonic() - first_report
            stopping = running and reports[0]["cause"] == "stopped" and since < _TIMEOUT
            if since > _GATHER and not stopping:
                failed(reports)
                return
        time.sleep(_POLL)


def _end(workers: Sequence[_Worker]) -> None:
    """End the workers that still run, by SIGTERM and after a grace period by SIGKILL."""
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.terminate()
    until = time.monotonic() + _GRACE
    for worker in workers:
        try:
            worker.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        assert worker.process.stdin is not None
        worker.process.stdin.close()


@contextlib.contextmanager
def _block_signals() -> Iterator[None]:
    """Block stop signals in the block, and in processes started in it until they call `unblock_signals`.

    Ctrl-C stays blocked in those processes: the terminal sends it to all of them, and the parent ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *signals.SIGNALS})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_signals() -> None:
    """Receive the stop signals that were blocked when this process started; its handlers are installed."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)


def _free_port() -> int:
    """Return a port on which no process listens."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("", port))
            return port
