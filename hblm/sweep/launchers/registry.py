"""The launchers by name (on=), and a sweep together with its launchers. No torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hblm.sweep.attempts import Attempt, CellStatus, Sighting
from hblm.sweep.cells import FrozenCell
from hblm.sweep.launchers.base import Launcher
from hblm.sweep.state import SweepState, sweep_folder


def _local(state: SweepState) -> Launcher:
    from hblm.sweep.launchers.local import LocalLauncher

    return LocalLauncher(state)


def _slurm(state: SweepState) -> Launcher:
    from hblm.sweep.launchers.slurm import SlurmLauncher

    return SlurmLauncher(state)


# name -> maker; a launcher's module is imported when it is first used
LAUNCHERS: dict[str, Callable[[SweepState], Launcher]] = {"local": _local, "slurm": _slurm}


class Sweep(SweepState):
    """A sweep's state, with launchers that know the state of open attempts."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which need not exist yet."""
        super().__init__(folder)
        self._launchers: dict[str, Launcher] = {}

    def launcher(self, name: str) -> Launcher:
        """Return a launcher of LAUNCHERS for this sweep."""
        if name not in self._launchers:
            self._launchers[name] = LAUNCHERS[name](self)
        return self._launchers[name]

    def current(self) -> tuple[Launcher, Mapping[str, Any]]:
        """Return the launcher of the last submission, and where it runs cells.

        Raises:
            ConfigError: sweep.json is damaged.
        """
        where: Mapping[str, Any] = self.submission()["where"]
        if where["on"] in LAUNCHERS:
            launcher = self.launcher(where["on"])
            if launcher.is_valid(where):
                return launcher, where
        raise self.damage(self.folder / "sweep.json", ["where"])

    def launchers(self, statuses: Sequence[CellStatus]) -> list[Launcher]:
        """Return the launcher of the last submission, and those with open attempts from earlier ones."""
        names = {each.attempt.launcher for each in statuses if each.is_launched and each.attempt is not None}
        first = self.current()[0]
        return [first, *(self.launcher(name) for name in sorted(names & LAUNCHERS.keys() - {first.name}))]

    def is_active(self, statuses: Sequence[CellStatus]) -> bool:
        """Return whether any launcher starts or runs cells now."""
        launchers = self.launchers(statuses)
        return any(launcher.covers(each) for each in statuses for launcher in launchers)

    def look(self, cell: FrozenCell, attempt: Attempt) -> Sighting:
        """Return the state of an open attempt, from its launcher."""
        if attempt.launcher in LAUNCHERS:
            return self.launcher(attempt.launcher).look(cell, attempt)
        return self.look_at_process(cell, attempt)

    def log(self, status: CellStatus) -> Path | None:
        """Return the file with the output of a cell's last attempt."""
        if status.attempt is None:
            return None
        if status.attempt.launcher in LAUNCHERS:
            return self.launcher(status.attempt.launcher).log_of(status.cell, status.attempt)
        return self.log_of(status.cell, status.attempt.number)

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the lock of the submission; delete leftovers of killed processes and cached answers first."""
        with self.editing():
            self.remove_leftovers()
            for launcher in self._launchers.values():
                launcher.refresh()
            yield


def open_sweep(output_dir: str | Path, name: str) -> Sweep:
    """Return a sweep, which need not have been submitted yet."""
    return Sweep(sweep_folder(output_dir, name))
