"""The local launcher (on=local): a worker process on this machine starts a process for each cell."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from hblm.config.sweep import SweepConfig
from hblm.errors import HblmError
from hblm.files import HOST
from hblm.sweep.attempts import CellStatus
from hblm.sweep.cells import FrozenCell
from hblm.sweep.devices import Device, choose_devices, require_enough
from hblm.sweep.launchers.base import Launcher
from hblm.sweep.launchers.local_files import WorkerFiles
from hblm.sweep.launchers.local_process import end_process
from hblm.sweep.launchers.local_worker import APART, LEAVING
from hblm.sweep.state import SweepState

_START_WITHIN = 60.0  # seconds
_STOP_WITHIN = 30.0  # seconds that cancel waits for the cells to end


class LocalLauncher(Launcher):
    """Runs cells on devices of this machine, as many at a time as the devices take."""

    name = "local"
    options: ClassVar[Mapping[str, Sequence[str]]] = {
        **Launcher.options,
        "devices": ("devices", "per_device"),
    }
    ends_on_interrupt = True

    def __init__(self, state: SweepState) -> None:
        """Launch the cells of one sweep."""
        super().__init__(state)
        self.files = WorkerFiles(state.folder)
        self.own_log = self.files.log

    def where(self, config: SweepConfig) -> dict[str, Any]:
        """Return limits and devices, as sweep.json stores them.

        Raises:
            ConfigError: a device that CUDA_VISIBLE_DEVICES hides, or cpu beside others.
        """
        devices = choose_devices(config.devices, config.per_device)
        return {**super().where(config), "devices": [[device.name, device.cells] for device in devices]}

    def is_valid(self, where: Mapping[str, Any]) -> bool:
        """Return whether there is a device."""
        return bool(where["devices"])

    def require_devices(self, cells: Sequence[FrozenCell], where: Mapping[str, Any]) -> None:
        """Refuse a cell with more processes than there are GPUs.

        Raises:
            ConfigError: it would wait for ever.
        """
        most = max((cell.processes for cell in cells), default=1)
        require_enough([Device(*each) for each in where["devices"]], most)

    def n_at_once(self, where: Mapping[str, Any]) -> int:
        """Return how many cells the devices take."""
        return sum(int(cells) for _, cells in where["devices"])

    def start(self, where: Mapping[str, Any]) -> str:
        """Start the worker process if a cell is pending or running and there is none.

        Raises:
            HblmError: the worker process did not start.
        """
        if not any(each.state in ("pending", "running") for each in self.state.statuses()):
            return ""
        self.files.clear_stop_request()
        if start_worker(self.files):
            return "started the worker process"
        return "the sweep's running worker process starts the pending cells"

    def covers(self, status: CellStatus) -> bool:
        """Return whether the worker process is alive: it starts all pending cells."""
        return self.files.worker() is not None

    def process_line(self) -> str:
        """Return pid and host of the worker process, if there is one now."""
        worker = self.files.worker()
        if worker is None:
            return ""
        return f"worker process {worker.get('pid', '?')} on {worker.get('host', '?')} starts the cells"

    def cancel(self, statuses: Sequence[CellStatus], *, everything: bool) -> list[str]:
        """Stop the cells by the worker process, or directly if there is none; all cells: and the worker."""
        if self.files.worker() is not None:
            self.files.request_stop(None if everything else [each.cell.key for each in statuses])
            self._wait_until_stopped(None if everything else statuses)
        lines = []
        for each in (self.state.status(each.cell) for each in statuses):
            if each.state != "running" or not self.is_own(each) or each.attempt is None:
                continue
            fields = each.attempt.fields
            if fields.get("host") == HOST:
                end_process(int(fields["pid"]), float(fields["born"]))
            else:
                lines.append(f"cell {each.cell.number} runs on {fields.get('host')}: cancel it there")
        self.files.clear_stop_request()
        return lines

    def interrupt(self) -> None:
        """Stop the worker process and all its cells."""
        self.files.request_stop(None, "interrupted")
        self._wait_until_stopped(None)

    def _wait_until_stopped(self, statuses: Sequence[CellStatus] | None) -> None:
        """Wait until the worker process, or its attempts at some cells, have ended."""
        until = time.monotonic() + _STOP_WITHIN
        while time.monotonic() < until and self.files.worker() is not None:
            if statuses is not None and self.files.stop_request() is None:
                now = [self.state.status(each.cell) for each in statuses]
                if not any(each.state == "running" and not each.elsewhere for each in now):
                    return
            time.sleep(0.1)


def start_worker(files: WorkerFiles) -> bool:
    """Start the worker process apart from this one; return False if there is one already.

    Raises:
        HblmError: it did not start.
    """
    before = files.last_worker()
    if files.worker() is not None:
        time.sleep(LEAVING)
        if files.worker() is not None:
            return False
    until = time.monotonic() + _START_WITHIN
    with files.log.open("ab") as stream:
        subprocess.run(
            [sys.executable, "-u", "-m", "hblm.sweep.launchers.local_worker", str(files.folder), APART],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    while files.last_worker() == before:
        if time.monotonic() > until:
            raise HblmError(f"the worker process did not start; its output is in {files.log}")
        time.sleep(0.05)
    return True
