"""The processes of one run: which of them this is, and starting and watching them. No torch.

torchrun and `accelerate launch` start them from outside and tell each its rank in the environment. With
`trainer.processes` they are started here, told the same, by a process that trains nothing: it holds the run's
lock, says what failed first, passes on the signals that ask a run to stop, and takes its processes with it
when it dies. On several machines each has such a process; they meet in a folder that all of them see.
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
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hblm import errors, signals
from hblm.errors import HblmError, ProcessError
from hblm.files import scratch_folder
from hblm.json_files import write_json
from hblm.process import QUIET, died, explain, n_cores, place

_EVERY = 0.2  # seconds between looks at the processes


_GATHER = 1.0  # seconds in which those that fail because another did say so


_GRACE = 5.0  # seconds between SIGTERM and SIGKILL


_ANSWER_WITHIN = 60.0  # seconds for the first machine to hear of a failure on another


_LINES = 30


_PORTS = range(20_000, 32_768)  # below those that systems give to outgoing connections


Reports = Sequence[Mapping[str, Any]]  # what processes said of their ends


TASK, OVER = "task.json", "over"


@dataclass(frozen=True)
class Nodes:
    """The machines of a run: how many, and the folder where they meet, which must be new."""

    count: int
    folder: Path


@dataclass
class _Member:
    rank: int
    process: subprocess.Popen[bytes]
    log: Path | None  # where its output goes; None: where this process's own does


def launch(run: Mapping[str, Any], processes: int, nodes: Nodes | None = None) -> None:
    """Do a run with several processes on each machine, and return when it is done.

    Args:
        run: its config, as plain values, the id expected, and what was chosen for it: what train.join takes.
        processes: on each machine.
        nodes: the machines, this one being the first; None: this one alone.

    Raises:
        HblmError: as one of the processes raised it.
        ProcessError: a process failed otherwise, or was killed.
        stopping.Stopped: all have stopped, as a signal asked.
    """
    with contextlib.ExitStack() as stack:
        if nodes is None:
            # not in the system's temporary folder, where nothing would look for what a kill leaves
            beside = Path(run["config"]["output_dir"]) / "results" / "processes"
            nodes = Nodes(1, stack.enter_context(scratch_folder(beside)))
        nodes.folder.mkdir(parents=True, exist_ok=True)
        task = {
            **run,
            "processes": processes,
            "nodes": nodes.count,
            "address": "127.0.0.1" if nodes.count == 1 else socket.getfqdn(),
            "port": _free_port(),
            "listen": signals.is_listening(),
            "asked": time.time(),
        }
        write_json(nodes.folder / TASK, task)
        _watch(nodes.folder, stack.enter_context(_members(nodes.folder, task, 0)), _raise)


def end(nodes: Nodes) -> None:
    """Tell the other machines that the run is over, whether it came to anything or not."""
    nodes.folder.mkdir(parents=True, exist_ok=True)
    (nodes.folder / OVER).touch()


def take_part(nodes: Nodes, node: int) -> int:
    """Be another machine of a run: start its processes once the first one says so; return the exit code."""
    while not (nodes.folder / TASK).exists():
        if (nodes.folder / OVER).exists() or signals.received():
            return 0
        time.sleep(_EVERY)
    task = json.loads((nodes.folder / TASK).read_text(encoding="utf-8"))

    def wait(reports: Reports) -> None:
        until = time.monotonic() + _ANSWER_WITHIN
        while not (nodes.folder / OVER).exists() and time.monotonic() < until:
            time.sleep(_EVERY)

    with _members(nodes.folder, task, node) as members:
        _watch(nodes.folder, members, wait)
        failed = any(member.process.poll() for member in members)
    return int(failed and not (nodes.folder / OVER).exists())  # else the first machine knows of it


@contextlib.contextmanager
def _members(folder: Path, task: Mapping[str, Any], node: int) -> Iterator[list[_Member]]:
    """Start this machine's processes; none of them outlives the block."""
    count = int(task["processes"])
    threads = str(max(1, int(os.environ.get("OMP_NUM_THREADS", n_cores())) // count))
    members: list[_Member] = []
    try:
        for local in range(count):
            rank = node * count + local
            environment = {
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": str(count * int(task["nodes"])),
                "LOCAL_RANK": str(local),
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
                stack.enter_context(_deaf())
                process = subprocess.Popen(
                    [sys.executable, "-u", "-m", "hblm.engine.worker", str(folder)],
                    stdin=subprocess.PIPE,  # which ends when this process does
                    stdout=output,
                    stderr=None if output is None else subprocess.STDOUT,
                    env=environment,
                )
            members.append(_Member(rank, process, log))
        yield members
    finally:
        _end(members)


def _watch(folder: Path, members: Sequence[_Member], failed: Callable[[Reports], None]) -> None:
    """Wait until all have ended well; else call `failed` with what each one reported, the cause first."""
    passed_on = False
    first_seen: float | None = None
    while True:
        if signals.received() and not passed_on:
            passed_on = True
            for member in members:
                member.process.send_signal(signals.SIGNALS[0])
        running = False
        for member in members:
            code = member.process.poll()
            running |= code is None
            if code:
                _report_death(folder, member, code)
        reports = _reports(folder)
        if not reports and (not running or (folder / OVER).exists()):
            return
        if reports:
            first_seen = first_seen or time.monotonic()
            since = time.monotonic() - first_seen
            orderly = running and reports[0]["cause"] == "stopped" and since < _ANSWER_WITHIN
            if since > _GATHER and not orderly:
                failed(reports)
                return
        time.sleep(_EVERY)


def _raise(reports: Reports) -> None:
    """Raise what a process reported."""
    told = reports[0]
    if told["cause"] == "stopped":
        raise signals.Stopped(told["why"])
    print(told["output"], end="", file=sys.stderr, flush=True)
    kind = getattr(errors, told["error"], None)
    if isinstance(kind, type) and issubclass(kind, HblmError):
        raise kind(told["why"])
    raise ProcessError(f"process {told['rank']} of {told['size']}: {told['why']}", told["cause"])


def _reports(folder: Path) -> Reports:
    """Return what processes said of their ends: a kill explains what others then raised, else the first."""
    files = sorted(folder.glob("*.report.json"), key=lambda file: file.stat().st_mtime_ns)
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]  # in the order of one clock
    return sorted(found, key=lambda told: told["cause"] not in ("killed", "exit"))


def report(folder: Path, error: BaseException) -> int:
    """Write how this process ended, for the one that watches it; return the exit code."""
    if isinstance(error, signals.Stopped):
        cause, why, code = "stopped", str(error), 1
    else:
        cause, why, code = explain(error)
    shown = cause in ("raised", "memory")
    output = "".join(traceback.format_exception(error)) if shown else ""
    _write_report(folder, place().rank, cause=cause, why=why, error=type(error).__name__, output=output)
    return code


def _report_death(folder: Path, member: _Member, code: int) -> None:
    """Write how a process ended that could not, or did not, say so itself."""
    if (folder / f"{member.rank}.report.json").exists():
        return
    output = ""
    if member.log is not None:
        printed = member.log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        output = "".join(printed[-_LINES:])
    cause, why = died(code)
    _write_report(folder, member.rank, cause=cause, why=why, error="", output=output)


def _write_report(folder: Path, rank: int, **told: Any) -> None:
    size = json.loads((folder / TASK).read_text(encoding="utf-8"))
    size = int(size["processes"]) * int(size["nodes"])
    with contextlib.suppress(FileNotFoundError):  # the folder is gone: nobody waits any more
        write_json(folder / f"{rank}.report.json", {"rank": rank, "size": size, **told})


def _end(members: Sequence[_Member]) -> None:
    """End processes, first by asking."""
    for member in members:
        if member.process.poll() is None:
            member.process.terminate()
    until = time.monotonic() + _GRACE
    for member in members:
        try:
            member.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            member.process.kill()
            member.process.wait()
        assert member.process.stdin is not None
        member.process.stdin.close()


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Hold signals back from here and from what is started here: Ctrl-C for good, others until `hear`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *signals.SIGNALS})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hear() -> None:
    """Let the signals in that were held back when this process was started: its handlers are there."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)


def _free_port() -> int:
    """Return a port where nobody listens."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("", port))
            return port
