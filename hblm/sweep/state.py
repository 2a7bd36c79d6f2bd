"""State of a sweep: plain files under outputs/sweeps/NAME/, each of them whole or absent. No torch.

    sweep.json              the sweep as last submitted: its cells in order, table, code, where it runs
    cells/ID.json           a cell's configuration, frozen when it was submitted
    attempts/ID.N.json      the N-th attempt at it: process, host, device, times, how it ended
    attempts/ID.N.lock      held by that process while it lives, so that no clocks of hosts are compared
    logs/ID.N.log           output of that attempt
    teams/ID.N.R/           where the machines of an attempt meet (R: requeues), and output of their processes
    submit.lock             held while sweep.json is rewritten

Launchers have files of their own: pool.* and cancel.json of local_files.py, slurm/ of slurm.py.

ID is 16 digits of the run id. These files do not store that a cell is done: it is done if its result exists.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from hblm.config.sweep import FAILURES
from hblm.errors import ConfigError
from hblm.files import remove_stale
from hblm.json_files import read_object, write_json
from hblm.locks import is_held, lock_of
from hblm.sweep import stored
from hblm.sweep.attempt_files import AttemptFiles
from hblm.sweep.attempts import STOPPED, Attempt, CellStatus, Sighting
from hblm.sweep.cells import REQUIRED_FIELDS, FrozenCell
from hblm.version import __version__

SCHEMA_VERSION = 1


class SweepState(AttemptFiles):
    """The files of one sweep, and the statuses of its cells."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which need not exist yet."""
        super().__init__(folder)
        self._done: dict[str, CellStatus] = {}

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.folder.name

    @property
    def _advice(self) -> str:
        return f"delete {self.folder} and submit the sweep again (results stay)"

    # The submission

    def exists(self) -> bool:
        """Return whether anything was submitted."""
        return (self.folder / "sweep.json").exists()

    def submission(self, required: Iterable[str] = stored.SUBMISSION) -> dict[str, Any]:
        """Return the contents of sweep.json, with all `required` keys.

        Raises:
            ConfigError: nothing was submitted, or the file is damaged.
        """
        file = self.folder / "sweep.json"
        try:
            values = self._read(file)
        except FileNotFoundError:
            known = sorted(path.parent.name for path in self.folder.parent.glob("*/sweep.json"))
            others = f"; there are {', '.join(known)}" if known else ""
            raise ConfigError(
                f"sweep={self.name}: nothing was submitted under {self.folder.parent}{others}; "
                f"write python -m hblm.sweep submit sweep={self.name}"
            ) from None
        if invalid := stored.invalid_keys(values, stored.SUBMISSION, required=required):
            raise self.damage(file, invalid)
        return values

    def write_submission(self, values: Mapping[str, Any]) -> None:
        """Write sweep.json."""
        write_json(self.folder / "sweep.json", {"schema_version": SCHEMA_VERSION, **values})

    def submitted_at(self) -> float:
        """Return when the sweep was last submitted: the modification time of sweep.json."""
        return (self.folder / "sweep.json").stat().st_mtime

    def editing(self) -> FileLock:
        """Return the lock to hold from reading the submission until it is rewritten."""
        return lock_of(self.folder / "submit.lock")

    def remove_leftovers(self) -> None:
        """Delete temporary files of killed processes."""
        named = (self.folder / name for name in ("cells", "attempts", "slurm"))
        for folder in (self.folder, *named, *(self.folder / "teams").glob("*")):
            remove_stale(folder)

    def _read(self, file: Path) -> dict[str, Any]:
        """Return the object in a JSON file.

        Raises:
            FileNotFoundError: the file does not exist.
            ConfigError: it holds no JSON object.
        """
        try:
            return read_object(file)
        except ValueError as error:
            raise ConfigError(f"{file} is damaged ({error}); {self._advice}") from None

    def damage(self, file: Path, keys: Sequence[str]) -> ConfigError:
        """Return the error that names a file's invalid keys."""
        return ConfigError(f"{file} is damaged: invalid or missing {', '.join(keys)}; {self._advice}")

    # Cells

    def write_cell(self, cell: FrozenCell) -> None:
        """Write a cell's file.

        Raises:
            ConfigError: its result would be outside of this sweep's output folder.
        """
        cell.output_dir.mkdir(parents=True, exist_ok=True)
        self._require_own(cell)
        values = vars(cell) | {"output_dir": str(cell.output_dir), "folder": str(cell.folder)}
        write_json(self._file_of(cell.key), {"schema_version": SCHEMA_VERSION, **values})

    def cell(self, key: str) -> FrozenCell:
        """Return a submitted cell.

        Raises:
            ConfigError: its file is damaged or missing, or its result would be outside of this sweep's
                output folder.
        """
        file = self._file_of(key)
        try:
            values = self._read(file)
        except FileNotFoundError:
            raise ConfigError(f"{file} does not exist; {self._advice}") from None
        values.pop("schema_version", None)
        if invalid := stored.invalid_keys_of_cell(values, key, REQUIRED_FIELDS):
            raise self.damage(file, invalid)
        cell = FrozenCell.from_fields(values)
        self._require_own(cell)
        return cell

    def cells(self) -> list[FrozenCell]:
        """Return the cells, in their order."""
        return [self.cell(key) for key in self.submission(("cells",))["cells"]]

    def _file_of(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.json"

    def _require_own(self, cell: FrozenCell) -> None:
        """Refuse a cell whose result would be outside of this sweep's output folder.

        Raises:
            ConfigError: both folders.
        """
        own = self.folder.parent.parent
        with contextlib.suppress(OSError):
            if cell.output_dir == own or cell.output_dir.samefile(own):  # by another path of the same folder
                return
        raise ConfigError(
            f"sweep={self.name}: the sweep's folder is in {own}, and a cell's output_dir is "
            f"{cell.output_dir}; write output_dir={cell.output_dir}, or if the folder was moved: "
            f"{self._advice}"
        )

    def require_current(self) -> None:
        """Refuse a sweep with cells that are not done and whose run ids stand for other formulas.

        Raises:
            ConfigError: how many they are, which version submitted them, and what to do.
        """
        old = [cell for cell in self.cells() if cell.other_version]
        pending = [cell for cell in old if self.status(cell).state not in ("done", "running")]
        if pending:
            cells = f"{len(pending)} pending cell{'s' * (len(pending) > 1)}"
            raise ConfigError(
                f"sweep={self.name}: {cells} submitted by {pending[0].other_version}, whose "
                f"formulas {__version__} does not compute; {self._advice}"
            )

    # Statuses

    def status(self, cell: FrozenCell) -> CellStatus:
        """Return a cell's status: results decide first, then attempts, then processes."""
        known = self._done.get(cell.key)
        if known is not None and known.cell == cell and known.result is not None and known.result.exists():
            return known
        attempt, result = self.last_attempt(cell), cell.result()
        if result is not None:
            status = CellStatus(cell, "done", attempt, result)
            if attempt is None or attempt.state == "ended":  # otherwise its process has yet to write its end
                self._done[cell.key] = status
            return status
        if attempt is not None and attempt.is_open:
            sighting = self.look(cell, attempt)
            if sighting.state != "ended":
                return _open_status(cell, attempt, sighting)
            result = cell.result()  # it may have been written after the first look
            if result is not None:
                return CellStatus(cell, "done", attempt, result)
            end = {"state": "ended", "cause": sighting.cause, "why": sighting.why}
            attempt = Attempt(attempt.number, {**attempt.fields, **end})
        elif cell.is_running_somewhere():
            return CellStatus(cell, "running", attempt)
        return CellStatus(cell, _state_after(attempt), attempt)

    def statuses(self) -> list[CellStatus]:
        """Return the statuses of all cells, in their order."""
        return [self.status(cell) for cell in self.cells()]

    def look(self, cell: FrozenCell, attempt: Attempt) -> Sighting:
        """Return the state of an attempt that is open according to its file.

        Attempts of other launchers than the local one count as open: only their launchers know.
        """
        return Sighting(attempt.state) if "on" in attempt.fields else self.look_at_process(cell, attempt)

    def look_at_process(self, cell: FrozenCell, attempt: Attempt) -> Sighting:
        """Return whether an attempt's process holds its lock or is alive on this host."""
        if is_held(self.lock_file(cell, attempt.number)) or attempt.is_alive(cell):
            return Sighting(attempt.state)
        return Sighting("ended", "lost", STOPPED["lost"])


def _open_status(cell: FrozenCell, attempt: Attempt, sighting: Sighting) -> CellStatus:
    """Return the status of a cell whose attempt is queued or running."""
    fields = {**attempt.fields, **({"why": sighting.why} if sighting.why else {})}
    # a cluster puts a job back into its queue when its node fails: the job's process cannot write that
    is_running = attempt.state == "running" and sighting.state == "running"
    return CellStatus(cell, "running" if is_running else "pending", Attempt(attempt.number, fields))


def _state_after(attempt: Attempt | None) -> str:
    """Return the state of a cell that no process does, after its last attempt."""
    if attempt is not None and attempt.state == "ended":
        if attempt.cause in FAILURES:
            return "failed"
        if attempt.cause == "cancelled":
            return "cancelled"
    return "pending"


def sweep_folder(output_dir: str | Path, name: str) -> Path:
    """Return the folder of a sweep's files."""
    return Path(output_dir).resolve() / "sweeps" / name


def tail(file: Path, lines: int) -> list[str]:
    """Return a text file's last lines; of a progress bar that was redrawn the last drawing."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 200 * lines - 4096))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.rpartition("\r")[2].rstrip() for line in text.splitlines()[-lines:]]
