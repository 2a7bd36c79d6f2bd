"""An attempt at a cell, and the status of a cell. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from hblm.files import HOST
from hblm.sweep.cells import FrozenCell

REQUESTED = "waiting"  # state of an attempt that was requested and not started, as files spell it

# causes of an attempt's end beside `done` and FAILURES
STOPPED = {
    "lost": "its process ended without an exit record",
    "interrupted": "the sweep's worker process was stopped",
    "cancelled": "by cancel",
}


@dataclass(frozen=True)
class Attempt:
    """One attempt at a cell.

    `fields` are those of its file: state (waiting, queued, running, ended), and once known cause, why, exit,
    host, pid, born, device, started, ended, commit, dirty; `on`, the launcher, if it is not the local one.
    """

    number: int
    fields: Mapping[str, Any]

    @property
    def state(self) -> str:
        """waiting (requested); queued by its launcher; running; or ended."""
        return str(self.fields.get("state"))

    @property
    def is_open(self) -> bool:
        """Whether it is in a launcher's queue, or running, according to its file."""
        return self.state in ("queued", "running")

    @property
    def launcher(self) -> str:
        """The name of its launcher."""
        return self.fields.get("on") or "local"

    @property
    def cause(self) -> str | None:
        """How it ended: `done`, or a key of FAILURES or STOPPED."""
        return self.fields.get("cause")

    def is_alive(self, cell: FrozenCell) -> bool:
        """Return whether its process exists, as far as this host can tell without the attempt's lock."""
        if self.fields.get("host") != HOST:  # processes of another machine are not visible, its locks are
            return cell.is_running_somewhere()
        return is_process(int(self.fields.get("pid", 0)), float(self.fields.get("born", 0)))


class Sighting(NamedTuple):
    """State of an attempt as its launcher sees it: queued, running or ended; cause of an end; one line."""

    state: str
    cause: str | None = None
    why: str = ""


@dataclass(frozen=True)
class CellStatus:
    """State of a cell (one of SWEEP_STATES), its last attempt, its result."""

    cell: FrozenCell
    state: str
    attempt: Attempt | None = None
    result: Path | None = None

    @property
    def cause(self) -> str | None:
        """Cause of the last attempt's end; None without one."""
        return self.attempt.cause if self.attempt else None

    @property
    def reason(self) -> str:
        """One line: the cause of a failure, or the place in a queue; "" if there is none."""
        if self.elsewhere:
            return "in another sweep, or by a run of hblm.train"
        if self.attempt is None or self.cause == "done":
            return ""
        why = str(self.attempt.fields.get("why", ""))
        if self.cause is None:
            return why if self.state in ("pending", "running") else ""
        return f"{self.cause}: {why}".partition("\n")[0]

    @property
    def elsewhere(self) -> bool:
        """Whether it is running, but not as an attempt of this sweep."""
        return self.state == "running" and (self.attempt is None or self.attempt.state != "running")

    @property
    def is_launched(self) -> bool:
        """Whether a launcher has an open attempt at it."""
        is_open = self.attempt is not None and self.attempt.is_open
        return is_open and self.state in ("pending", "running")


def is_process(pid: int, born: float) -> bool:
    """Return whether the process that had this pid at this time is alive."""
    try:
        process = psutil.Process(pid)
        same = abs(float(process.create_time()) - born) < 2  # seconds: pids are used again
        return same and bool(process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, ValueError):
        return False
