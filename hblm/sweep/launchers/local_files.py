"""Files of the local launcher's worker process: its lock, its record, its log, requests to stop. No torch.

pool.lock       held by the worker process while it lives
pool.json       its pid, host and start
pool.log        its output
cancel.json     asks it to stop, or to stop some cells
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from hblm.json_files import read_object, write_json
from hblm.locks import is_held, lock_of
from hblm.sweep.attempts import STOPPED
from hblm.sweep.stored import is_number, is_texts


class WorkerFiles:
    """The files of one sweep's worker process."""

    def __init__(self, folder: Path) -> None:
        """Use a sweep's folder."""
        self.folder = folder
        self.log = folder / "pool.log"

    def lock(self) -> FileLock:
        """Return the lock of the worker process."""
        return lock_of(self.folder / "pool.lock")

    def worker(self) -> dict[str, Any] | None:
        """Return pid, host and start of the worker process; None if there is none."""
        return (self.last_worker() or {}) if is_held(self.folder / "pool.lock") else None

    def last_worker(self) -> dict[str, Any] | None:
        """Return pid, host and start of the last worker process, alive or not."""
        with contextlib.suppress(OSError, ValueError):
            fields = read_object(self.folder / "pool.json")
            return fields if is_number(fields.get("started")) else None
        return None

    def write_worker(self, **fields: Any) -> None:
        """Write pid, host and start of the worker process."""
        write_json(self.folder / "pool.json", fields)

    def request_stop(self, keys: Sequence[str] | None, cause: str = "cancelled") -> None:
        """Ask the worker process to stop some cells; None: all, and itself."""
        ids = None if keys is None else [*keys]
        write_json(self.folder / "cancel.json", {"ids": ids, "cause": cause, "time": time.time()})

    def stop_request(self) -> dict[str, Any] | None:
        """Return the request to stop: `ids` of cells, or None for all, and `cause`."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            request = read_object(self.folder / "cancel.json")
            is_valid = request.get("cause") in STOPPED and is_texts(request.get("ids") or [])
            return request if is_valid else None
        return None

    def clear_stop_request(self) -> None:
        """Delete the request to stop."""
        (self.folder / "cancel.json").unlink(missing_ok=True)
