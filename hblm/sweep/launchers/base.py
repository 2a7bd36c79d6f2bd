"""The interface of a launcher: it starts a sweep's cells somewhere, watches them, and cancels them. No torch.

A launcher is a class here, a line in registry.py, and its options in config/sweep.py. The attempts that it
starts run `job.make_attempt` on a machine that sees the sweep's folder; its name is their field `on`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hblm.config.sweep import SweepConfig
from hblm.sweep.attempts import Attempt, CellStatus, Sighting
from hblm.sweep.cells import FrozenCell
from hblm.sweep.state import SweepState


class Launcher(ABC):
    """Starts, watches and cancels the cells of one sweep.

    Attributes:
        name: value of `on=`.
        options: key of `where` in sweep.json -> keys of the command line that set it anew in `retry`.
        ends_on_interrupt: whether Ctrl-C of `submit wait=true` stops the cells.
        several_nodes: whether a cell can have several machines.
        own_log: output of the launcher's own process; None if it has none.
    """

    name: ClassVar[str]
    options: ClassVar[Mapping[str, Sequence[str]]] = {"time": ("time",), "memory": ("memory",)}
    ends_on_interrupt: ClassVar[bool] = False
    several_nodes: ClassVar[bool] = False
    own_log: Path | None = None

    def __init__(self, state: SweepState) -> None:
        """Launch the cells of one sweep."""
        self.state = state

    def where(self, config: SweepConfig) -> dict[str, Any]:
        """Return where cells run, as sweep.json stores it.

        Raises:
            ConfigError: the options do not fit this launcher or this machine.
        """
        where: dict[str, Any] = {"on": self.name, "time": config.time, "memory": config.memory}
        return {**where, "devices": [], "cluster": None, "nodes": config.nodes}

    def changed_where(
        self, where: Mapping[str, Any], config: SweepConfig, given: Collection[str]
    ) -> dict[str, Any]:
        """Return the stored `where`, with the options that a command line gives anew."""
        names = [name for name, keys in self.options.items() if {*given} & {*keys}]
        return {**where, **({name: self.where(config)[name] for name in names})}

    def is_valid(self, where: Mapping[str, Any]) -> bool:
        """Return whether the stored `where` has what this launcher needs."""
        return True

    def require_devices(self, cells: Sequence[FrozenCell], where: Mapping[str, Any]) -> None:  # noqa: B027
        """Refuse cells that would never get the devices that they need.

        Raises:
            ConfigError: how many are needed, and how many there are.
        """

    @abstractmethod
    def n_at_once(self, where: Mapping[str, Any]) -> int:
        """Return how many cells run at a time, for estimates."""

    @abstractmethod
    def start(self, where: Mapping[str, Any]) -> str:
        """Start the pending cells without an open attempt; return a line for the user, or ""."""

    @abstractmethod
    def cancel(self, statuses: Sequence[CellStatus], *, everything: bool) -> list[str]:
        """Stop this launcher's attempts at these cells, and wait for their end; return lines for the user.

        Args:
            statuses: the cells to cancel. Those that stay pending are cancelled by the caller.
            everything: they are all cells of the sweep.
        """

    def interrupt(self) -> None:  # noqa: B027
        """Stop all cells because the user pressed Ctrl-C (`ends_on_interrupt`)."""

    def look(self, cell: FrozenCell, attempt: Attempt) -> Sighting:
        """Return the state of an attempt that is queued or running according to its file."""
        return self.state.look_at_process(cell, attempt)

    def log_of(self, cell: FrozenCell, attempt: Attempt) -> Path:
        """Return the file with an attempt's output."""
        return self.state.log_of(cell, attempt.number)

    def covers(self, status: CellStatus) -> bool:
        """Return whether this launcher starts or runs a cell now, so that nobody has to submit it again."""
        return self.is_own(status)

    def process_line(self) -> str:
        """Return a line on the launcher's own process, if there is one now."""
        return ""

    def is_own(self, status: CellStatus) -> bool:
        """Return whether a cell is in this launcher's queue, or run by it."""
        return status.is_launched and status.attempt is not None and status.attempt.launcher == self.name

    def refresh(self) -> None:  # noqa: B027
        """Forget cached answers: another process may have submitted cells meanwhile."""
