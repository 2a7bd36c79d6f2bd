"""A cell's process as the local worker process sees it: start, memory, signals, exit. No torch."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from hblm.process import cause_of_exit
from hblm.sweep.attempts import is_process
from hblm.sweep.cells import FrozenCell
from hblm.sweep.devices import Device
from hblm.sweep.state import SweepState

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
_LOOK_EVERY = 0.2  # seconds


class CellProcess:
    """The process of one attempt at a cell.

    Attributes:
        started, leased_at: by time.monotonic, which no change of the clock moves; None: has no device yet.
        stopped: cause and reason, if the worker process ended it.
    """

    def __init__(self, state: SweepState, cell: FrozenCell, number: int, devices: Sequence[Device]) -> None:
        """Start the process; it leases one of the devices itself."""
        self.cell, self.number = cell, number
        self.started = time.monotonic()
        self.leased_at: float | None = None
        self.stopped: tuple[str, str] | None = None
        self._kill_at = float("inf")
        self._oom_kills = _oom_kills()
        log = state.log_of(cell, number)
        log.parent.mkdir(parents=True, exist_ok=True)
        allowed = json.dumps([[device.name, device.cells] for device in devices])
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-u", "-m", "hblm.sweep.launchers.local_job"),
                    *(str(state.folder), cell.key, str(number), allowed),
                ],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a signal for the worker process is not one for its cells
            )

    def poll(self) -> int | None:
        """Return the exit code; None while it runs. Kill it if it ignored SIGTERM for too long."""
        code = self.process.poll()
        if code is None and time.monotonic() > self._kill_at:
            self._signal(signal.SIGKILL)
        return code

    def end(self, cause: str, why: str) -> None:
        """End it with SIGTERM, for the first reason given."""
        if self.stopped is None:
            self.stopped = (cause, why)
            self._kill_at = time.monotonic() + GRACE
            self._signal(signal.SIGTERM)

    def cause_of_end(self, code: int) -> tuple[str, str]:
        """Return cause and reason of its end, if it wrote none itself."""
        if self.stopped is not None:
            return self.stopped
        if code < 0 and _oom_kills() > self._oom_kills:
            return "memory", f"{signal.Signals(-code).name}: the host's memory ran out"
        return cause_of_exit(code)

    def seconds(self) -> float:
        """Return how long it has had its device."""
        return 0.0 if self.leased_at is None else time.monotonic() - self.leased_at

    def resident_bytes(self) -> int:
        """Return the resident memory of the process and its children."""
        total = 0
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.process.pid)
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += each.memory_info().rss
        return total

    def _signal(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, number)


def end_process(pid: int, born: float) -> None:
    """End a cell's process and its process group: SIGTERM, then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not is_process(pid, born):
            return
        with contextlib.suppress(OSError):
            os.killpg(pid, number)
        until = time.monotonic() + GRACE
        while is_process(pid, born) and time.monotonic() < until:
            time.sleep(_LOOK_EVERY)


def _oom_kills() -> int:
    """Return how many processes of this control group the kernel killed because memory ran out."""
    for file in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(file).read_text(encoding="ascii").splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0
