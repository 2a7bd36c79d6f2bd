"""The process that starts a sweep's cells on this machine: `-m hblm.sweep.launchers.local LEDGER`. No torch.

A fresh process for each cell; as many at once as the devices take. What a cell cannot write itself, because
it was killed, is written here. The cells outlive this process: the next one finds them running, by their
attempts, and waits for them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import Timeout

from hblm.errors import HblmError
from hblm.files import HOST
from hblm.json_files import write_json
from hblm.process import cause_of_exit
from hblm.sweep.devices import Device, n_free, n_wanted
from hblm.sweep.job import BUSY
from hblm.sweep.progress import why
from hblm.sweep.state import STOPPED, Frozen, Ledger, Standing, is_process

_EVERY = 0.2  # seconds between looks at the cells


_AGAIN = 3.0  # seconds until a cell is tried again whose run or device was taken


_GRACE = 10.0  # seconds between SIGTERM and SIGKILL


_MEMORY_EVERY = 1.0


_APART = "--apart"  # from the process that starts the pool, which it outlives


_START_WITHIN = 60.0


_LEAVING = 3 * _EVERY  # a pool that is about to leave does not look for new cells any more


@dataclass
class Child:
    """A cell's process, and the attempt that it is."""

    cell: Frozen
    number: int
    process: subprocess.Popen[bytes]
    started: float
    oom_kills: int
    leased_at: float | None = None  # by time.monotonic, which no change of the clock moves
    stopped: tuple[str, str] | None = None  # the cause and what is said of it, if it was ended from here
    kill_at: float = float("inf")


class Pool:
    """Starts cells, watches them, and writes how they ended."""

    def __init__(self, ledger: Ledger) -> None:
        """Read what is to be done, and where."""
        self.ledger = ledger
        self.children: list[Child] = []
        self.later: dict[str, float] = {}  # cells whose run another process does: when to look again
        self.ended: dict[str, Standing] = {}
        self.stopping: str | None = None
        self.read_at = 0.0
        self._read()

    def _read(self) -> None:
        """Read the sweep again if it was submitted again."""
        changed = self.ledger.changed()
        if changed == self.read_at:
            return
        self.read_at = changed
        told = self.ledger.sweep()
        where = told["where"]
        self.devices = [Device(*each) for each in where["devices"]]
        self.seconds = None if where["time"] is None else 60.0 * where["time"]
        self.memory = None if where["memory"] is None else where["memory"] * 1024**3
        self.waiting: dict[str, Frozen] = {}
        self.ended = {}
        mine = {child.cell.key for child in self.children}
        for standing in self.ledger.standings():
            cell = standing.cell
            if standing.state in ("waiting", "running"):
                if cell.key not in mine:
                    self.waiting[cell.key] = cell
            else:
                self.ended[cell.key] = standing
        if where["on"] != "local":  # what waits is another's to start
            self.waiting = {}

    def run(self) -> None:
        """Go on until every cell that can be run has ended, or this process is asked to stop."""
        next_look = 0.0
        while True:
            self._reap()
            self._stop_asked()
            if self.stopping is None:
                self._read()
                self._watch_limits()
                if time.monotonic() >= next_look:
                    started = self._start()
                    next_look = time.monotonic() + (0 if started else 5 * _EVERY)
            if not self.children and (self.stopping is not None or not self._hope()):
                return
            time.sleep(_EVERY)

    def stop(self, cause: str) -> None:
        """End every cell and then this process."""
        self.stopping = cause
        for child in self.children:
            self._end(child, cause, STOPPED[cause])

    def _hope(self) -> bool:
        """Return whether a cell that waits can still be run."""
        return any(not self._blocked(cell) for cell in self.waiting.values())

    def _blocked(self, cell: Frozen) -> bool:
        """Return whether a cell needs one that will not be done."""
        states = [self.ended[run_id[:16]].state for run_id in cell.needs if run_id[:16] in self.ended]
        return any(state != "done" for state in states)

    def _ready(self) -> Iterator[Frozen]:
        now = time.monotonic()
        for cell in list(self.waiting.values()):
            needs = [run_id[:16] for run_id in cell.needs]
            if any(key not in self.ended or self.ended[key].state != "done" for key in needs):
                continue
            if self.later.get(cell.key, 0.0) <= now:
                yield cell

    def _start(self) -> bool:
        """Start the next cell if a device is free; return whether one was started."""
        if sum(device.cells for device in self.devices) <= self._held() or not self.waiting:
            return False
        free: int | None = None
        for cell in self._ready():
            standing = self.ledger.standing(cell)
            if standing.state not in ("waiting", "running"):  # another sweep did it meanwhile
                self._settle(standing)
                continue
            if standing.state == "running":
                self.later[cell.key] = time.monotonic() + _AGAIN
                continue
            if free is None:  # those that have not leased theirs yet will
                free = n_free(self.devices) - self._held(only_to_come=True)
            if free < n_wanted(self.devices, cell.processes):  # nor for those behind it: its turn must come
                return False
            attempts = self.ledger.attempts(cell)
            last = attempts[-1] if attempts else None
            if last is not None and last.state == "running":  # lost: said for good before the next one
                self.ledger.write_attempt(
                    cell, last.number, state="ended", cause="lost", why=STOPPED["lost"], ended=time.time()
                )
            again = last is not None and last.state == "waiting"
            number = last.number + (0 if again else 1) if last is not None else 1
            self._spawn(cell, number)
            return True
        return False

    def _held(self, *, only_to_come: bool = False) -> int:
        """Return how many devices the children have, or those that have yet to lease them."""
        counted = [child for child in self.children if not (only_to_come and child.leased_at is not None)]
        return sum(n_wanted(self.devices, child.cell.processes) for child in counted)

    def _spawn(self, cell: Frozen, number: int) -> None:
        log = self.ledger.log_of(cell, number)
        log.parent.mkdir(parents=True, exist_ok=True)
        devices = json.dumps([[device.name, device.cells] for device in self.devices])
        command = [sys.executable, "-u", "-m", "hblm.sweep.job"]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*command, str(self.ledger.folder), cell.key, str(number), devices],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a signal for this process is not one for its cells
            )
        del self.waiting[cell.key]
        self.children.append(Child(cell, number, process, time.monotonic(), _oom_kills()))

    def _reap(self) -> None:
        """Write how the processes that are gone ended."""
        for child in list(self.children):
            code = child.process.poll()
            if code is None:
                if child.leased_at is None and self._attempt(child).get("state") == "running":
                    child.leased_at = time.monotonic()
                if time.monotonic() > child.kill_at:
                    _signal(child, signal.SIGKILL)
                continue
            self.children.remove(child)
            told = self._attempt(child)
            if code == BUSY and child.stopped is None:
                self.ledger.log_of(child.cell, child.number).unlink(missing_ok=True)
                self.later[child.cell.key] = time.monotonic() + _AGAIN
                self.waiting[child.cell.key] = child.cell
                continue
            if child.stopped is not None or told.get("state") != "ended":
                cause, said = child.stopped or _cause(code, _oom_kills() > child.oom_kills)
                ended = {"state": "ended", "cause": cause, "why": said, "exit": code, "ended": time.time()}
                self.ledger.write_attempt(child.cell, child.number, **{"host": HOST, **told, **ended})
            standing = self.ledger.standing(child.cell)
            if standing.state == "running":  # another does the run, or a worker of this one has yet to end
                self.later[child.cell.key] = time.monotonic() + _AGAIN
                self.waiting[child.cell.key] = child.cell
            else:
                self._settle(standing)

    def _attempt(self, child: Child) -> dict[str, Any]:
        attempts = [each for each in self.ledger.attempts(child.cell) if each.number == child.number]
        return {key: value for each in attempts for key, value in each.told.items() if key in _KEPT}

    def _settle(self, standing: Standing) -> None:
        """Count a cell as ended."""
        key = standing.cell.key
        self.waiting.pop(key, None)
        self.ended[key] = standing
        said = "" if standing.state == "done" else f" ({why(standing)})"
        print(f"{standing.cell.number}: {standing.state}{said}  {standing.cell.label}", flush=True)

    def _watch_limits(self) -> None:
        """End cells beyond their time or memory."""
        for child in self.children:
            if child.stopped is not None:
                continue
            since = time.monotonic() if child.leased_at is None else child.leased_at
            if self.seconds is not None and time.monotonic() - since > self.seconds:
                self._end(child, "time", f"longer than time={self.seconds / 60:g} minutes")
            if self.memory is not None and time.monotonic() % _MEMORY_EVERY < _EVERY:
                used = _resident(child.process.pid)
                if used > self.memory:
                    limit = self.memory / 1024**3
                    self._end(child, "memory", f"{used / 1024**3:.1f} GB, beyond memory={limit:g} GB")

    def _stop_asked(self) -> None:
        asked = self.ledger.stop_asked()
        if asked is None or self.stopping is not None:
            return
        if asked["ids"] is None:
            self.stop(asked["cause"])
            return
        for key in asked["ids"]:
            for child in self.children:
                if child.cell.key == key and child.stopped is None:
                    self._end(child, asked["cause"], STOPPED[asked["cause"]])
            if key in self.waiting:
                cancel_waiting(self.ledger, self.waiting[key])
                self._settle(self.ledger.standing(self.waiting[key]))
        self.ledger.clear_stop()

    def _end(self, child: Child, cause: str, said: str) -> None:
        if child.stopped is None:
            child.stopped = (cause, said)
            child.kill_at = time.monotonic() + _GRACE
            _signal(child, signal.SIGTERM)


_KEPT = ("state", "started", "device", "cause", "why", "pid")


def cancel_waiting(ledger: Ledger, cell: Frozen) -> None:
    """Write that a cell which no process does is not wanted."""
    attempts = ledger.attempts(cell)
    last = attempts[-1] if attempts else None
    number = 1 if last is None else last.number + (last.state != "waiting")
    ledger.write_attempt(
        cell, number, state="ended", cause="cancelled", why=STOPPED["cancelled"], ended=time.time()
    )


def end_process(pid: int, born: float) -> None:
    """End a cell's process and all that it started, first by asking."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not is_process(pid, born):
            return
        with contextlib.suppress(OSError):
            os.killpg(pid, number)
        until = time.monotonic() + _GRACE
        while is_process(pid, born) and time.monotonic() < until:
            time.sleep(_EVERY)


def _signal(child: Child, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(child.process.pid, number)


def _cause(code: int, out_of_memory: bool) -> tuple[str, str]:
    """Return the cause and what is said of a process that wrote nothing itself."""
    if code < 0 and out_of_memory:
        return "memory", f"{signal.Signals(-code).name}: the host's memory ran out"
    return cause_of_exit(code)


def _resident(pid: int) -> int:
    """Return the resident bytes of a process and its children."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += each.memory_info().rss
    return total


def _oom_kills() -> int:
    """Return how many processes of this control group the kernel ended for want of memory."""
    for file in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(file).read_text(encoding="ascii").splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0


def main(folder: str, apart: str = "") -> int:
    """Run a sweep's cells; 0 where all are done, 1 where some are not."""
    if apart == _APART:
        if os.fork():
            os._exit(0)
        os.setsid()
    ledger = Ledger(Path(folder))
    lock = ledger.pool_lock()
    try:
        lock.acquire(timeout=2)  # who looks whether it is held holds it for a moment
    except Timeout:
        print("another process starts this sweep's cells already", flush=True)
        return 0
    ledger.remove_leftovers()
    pool = Pool(ledger)

    def stop(number: int, frame: object) -> None:
        pool.stop("interrupted")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    write_json(ledger.folder / "pool.json", {"pid": os.getpid(), "host": HOST, "started": time.time()})
    with lock:
        pool.run()
    return 0 if all(each.state == "done" for each in ledger.standings()) else 1


def start(ledger: Ledger) -> bool:
    """Start the pool's process apart from this one, if there is none; return whether it was started.

    Raises:
        HblmError: it did not start.
    """
    before = ledger.pool_told()
    if ledger.pool() is not None:
        time.sleep(_LEAVING)
        if ledger.pool() is not None:
            return False
    until, log = time.monotonic() + _START_WITHIN, ledger.folder / "pool.log"
    with log.open("ab") as stream:
        subprocess.run(
            [sys.executable, "-u", "-m", "hblm.sweep.launchers.local", str(ledger.folder), _APART],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    while ledger.pool_told() == before:
        if time.monotonic() > until:
            raise HblmError(f"the process that starts cells did not start; {log} tells what it printed")
        time.sleep(0.05)
    return True


def arguments(devices: Sequence[Device]) -> list[list[Any]]:
    """Return devices as sweep.json holds them."""
    return [[device.name, device.cells] for device in devices]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
