"""Files of the attempts at a sweep's cells: record, lock and log of each. No torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from hblm.console import log
from hblm.json_files import read_object, write_json
from hblm.locks import lock_of
from hblm.sweep import stored
from hblm.sweep.attempts import REQUESTED, STOPPED, Attempt
from hblm.sweep.cells import FrozenCell


class AttemptFiles:
    """The folders attempts/ and logs/ of one sweep."""

    def __init__(self, folder: Path) -> None:
        """Use a sweep's folder, which need not exist yet."""
        self.folder = folder
        self._damaged: set[Path] = set()  # files that were skipped with a warning

    def attempts(self, cell: FrozenCell) -> list[Attempt]:
        """Return the attempts at a cell, the first one first."""
        attempts = []
        for file in (self.folder / "attempts").glob(f"{cell.key}.*.json"):
            number = file.name.split(".")[1]
            if number.isascii() and number.isdecimal() and len(number) < 10:
                fields = self._attempt_fields(file)
                attempts += [] if fields is None else [Attempt(int(number), fields)]
        return sorted(attempts, key=lambda attempt: attempt.number)

    def attempt(self, cell: FrozenCell, number: int) -> Attempt:
        """Return an attempt at a cell; without fields if its file is missing or damaged."""
        file = self.folder / "attempts" / f"{cell.key}.{number}.json"
        return Attempt(number, self._attempt_fields(file) or {})

    def last_attempt(self, cell: FrozenCell) -> Attempt | None:
        """Return the last attempt at a cell."""
        attempts = self.attempts(cell)
        return attempts[-1] if attempts else None

    def next_number(self, cell: FrozenCell) -> int:
        """Return the number of the next attempt to start: that of a requested one, else a new one."""
        last = self.last_attempt(cell)
        return 1 if last is None else last.number + (last.state != REQUESTED)

    def _attempt_fields(self, file: Path) -> dict[str, Any] | None:
        """Return the contents of an attempt's file; None if it is missing, or damaged, with one warning."""
        try:
            fields = read_object(file)
            invalid = stored.invalid_keys(fields, stored.ATTEMPT, required=())
            fault = f"invalid {', '.join(invalid)}" if invalid else ""
        except FileNotFoundError:
            return None
        except ValueError as error:
            fields, fault = {}, str(error)
        if fault and file not in self._damaged:
            log.warning("skipped %s: damaged (%s)", file, fault)
            self._damaged.add(file)
        return None if fault else fields

    def write_attempt(self, cell: FrozenCell, number: int, **fields: Any) -> None:
        """Write an attempt's file; existing fields stay where no new value is given."""
        file = self.folder / "attempts" / f"{cell.key}.{number}.json"
        before = self.attempt(cell, number).fields
        write_json(file, {"id": cell.id, "label": cell.label, **before, **fields})

    def end_attempt(self, cell: FrozenCell, number: int, cause: str, why: str, **fields: Any) -> None:
        """Write how an attempt ended."""
        self.write_attempt(cell, number, **fields, state="ended", cause=cause, why=why, ended=time.time())

    def request_attempt(self, cell: FrozenCell) -> None:
        """Request another attempt at a cell; do nothing if one is requested already."""
        last = self.last_attempt(cell)
        if last is None or last.state != REQUESTED:
            self.write_attempt(cell, self.next_number(cell), state=REQUESTED, asked=time.time())

    def cancel_pending(self, cell: FrozenCell) -> None:
        """Write that a cell without a process is cancelled."""
        self.end_attempt(cell, self.next_number(cell), "cancelled", STOPPED["cancelled"])

    def drop_attempt(self, cell: FrozenCell, number: int) -> None:
        """Delete an attempt that did nothing because another process does the run."""
        for suffix in ("json", "lock"):
            (self.folder / "attempts" / f"{cell.key}.{number}.{suffix}").unlink(missing_ok=True)
        self.log_of(cell, number).unlink(missing_ok=True)

    def attempt_lock(self, cell: FrozenCell, number: int) -> FileLock:
        """Return the lock that the process of an attempt holds while it lives."""
        return lock_of(self.lock_file(cell, number))

    def lock_file(self, cell: FrozenCell, number: int) -> Path:
        """Return the path of the lock that the process of an attempt holds."""
        return self.folder / "attempts" / f"{cell.key}.{number}.lock"

    def log_of(self, cell: FrozenCell, number: int) -> Path:
        """Return the path of an attempt's output."""
        return self.folder / "logs" / f"{cell.key}.{number}.log"
