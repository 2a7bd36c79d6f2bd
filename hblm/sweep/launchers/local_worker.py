"""The local launcher's worker process: `python -m hblm.sweep.launchers.local_worker FOLDER`. No torch.

It starts a new process for each cell, as many at a time as the devices take, and writes how killed cells
ended. Cells outlive it: the next worker process sees them running, by their attempts, and waits for them.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import Timeout

from hblm.files import HOST
from hblm.sweep.attempts import STOPPED, CellStatus
from hblm.sweep.cells import FrozenCell
from hblm.sweep.devices import Device, n_free, n_wanted
from hblm.sweep.job import BUSY
from hblm.sweep.launchers.local_files import WorkerFiles
from hblm.sweep.launchers.local_process import CellProcess
from hblm.sweep.state import SweepState

_EVERY = 0.2  # seconds between looks at the cells
_TRY_AGAIN_AFTER = 3.0  # seconds, for a cell whose run or device was taken
_MEMORY_EVERY = 1.0  # seconds
APART = "--apart"  # detach from the process that starts the worker process
LEAVING = 3 * _EVERY  # a worker process that is about to exit does not look for new cells any more


class Worker:
    """Starts cells, watches their processes, and writes how they ended.

    Attributes:
        pending: cells to start, by key.
        ended: statuses of cells that are done, failed or cancelled, by key.
        later: when to try cells again whose run another process does, by key.
        stopping: cause, once the worker process is to stop.
    """

    def __init__(self, state: SweepState) -> None:
        """Read what is to be done, and where."""
        self.state = state
        self.files = WorkerFiles(state.folder)
        self.processes: list[CellProcess] = []
        self.pending: dict[str, FrozenCell] = {}
        self.ended: dict[str, CellStatus] = {}
        self.later: dict[str, float] = {}
        self.stopping: str | None = None
        self.read_at = 0.0
        self._read()

    def _read(self) -> None:
        """Read the submission if it was rewritten."""
        modified = self.state.submitted_at()
        if modified == self.read_at:
            return
        self.read_at = modified
        where = self.state.submission()["where"]
        self.devices = [Device(*each) for each in where["devices"]]
        self.seconds = None if where["time"] is None else 60.0 * where["time"]
        self.memory = None if where["memory"] is None else where["memory"] * 1024**3
        self.pending, self.ended = {}, {}
        own = {each.cell.key for each in self.processes}
        for status in self.state.statuses():
            if status.state not in ("pending", "running"):
                self.ended[status.cell.key] = status
            elif where["on"] == "local" and status.cell.key not in own:
                self.pending[status.cell.key] = status.cell

    def run(self) -> None:
        """Go on until every cell that can be run has ended, or this process is asked to stop."""
        next_look = 0.0
        while True:
            for process in list(self.processes):
                self._check(process)
            self._obey_stop_request()
            if self.stopping is None:
                self._read()
                self._enforce_limits()
                if time.monotonic() >= next_look:
                    started = self._start_next()
                    next_look = time.monotonic() + (0 if started else 5 * _EVERY)
            if not self.processes and (self.stopping is not None or not self._can_go_on()):
                return
            time.sleep(_EVERY)

    def stop(self, cause: str) -> None:
        """End every cell and then this process."""
        self.stopping = cause
        for process in self.processes:
            process.end(cause, STOPPED[cause])

    # Starting cells

    def _can_go_on(self) -> bool:
        """Return whether a pending cell can still be run: none that it needs has failed."""
        return any(
            all(self._state_of(run_id) in (None, "done") for run_id in cell.needs)
            for cell in self.pending.values()
        )

    def _state_of(self, run_id: str) -> str | None:
        """Return the state in which a cell ended; None if it has not."""
        status = self.ended.get(run_id[:16])
        return None if status is None else status.state

    def _ready(self) -> Iterator[FrozenCell]:
        """Yield the pending cells whose needs are done and whose time to try again has come."""
        now = time.monotonic()
        for cell in list(self.pending.values()):
            is_due = self.later.get(cell.key, 0.0) <= now
            if is_due and all(self._state_of(run_id) == "done" for run_id in cell.needs):
                yield cell

    def _start_next(self) -> bool:
        """Start the next cell if a device is free; return whether one was started."""
        if not self.pending or self._n_held(self.processes) >= sum(each.cells for each in self.devices):
            return False
        free: int | None = None
        for cell in self._ready():
            status = self.state.status(cell)
            if status.state == "running":
                self.later[cell.key] = time.monotonic() + _TRY_AGAIN_AFTER
                continue
            if status.state != "pending":  # another sweep did it meanwhile
                self._settle(status)
                continue
            if free is None:
                yet_to_lease = [each for each in self.processes if each.leased_at is None]
                free = n_free(self.devices) - self._n_held(yet_to_lease)
            if free < n_wanted(self.devices, cell.processes):  # cells behind it do not overtake it
                return False
            self._start(status)
            return True
        return False

    def _start(self, status: CellStatus) -> None:
        cell, last = status.cell, self.state.last_attempt(status.cell)
        if last is not None and last.state == "running":  # lost: write that before the next attempt starts
            self.state.end_attempt(cell, last.number, "lost", STOPPED["lost"])
        number = self.state.next_number(cell)
        del self.pending[cell.key]
        self.processes.append(CellProcess(self.state, cell, number, self.devices))

    def _n_held(self, processes: list[CellProcess]) -> int:
        """Return how many devices these processes hold or will lease."""
        return sum(n_wanted(self.devices, each.cell.processes) for each in processes)

    # Watching cells

    def _check(self, process: CellProcess) -> None:
        """Note when a process got its device, and how it ended."""
        code, cell = process.poll(), process.cell
        if code is None:
            if process.leased_at is None and self._state_in_file(process) == "running":
                process.leased_at = time.monotonic()
            return
        self.processes.remove(process)
        if code == BUSY and process.stopped is None:
            self.state.log_of(cell, process.number).unlink(missing_ok=True)
            self._try_again_later(cell)
            return
        if process.stopped is not None or self._state_in_file(process) != "ended":
            self.state.end_attempt(cell, process.number, *process.cause_of_end(code), host=HOST, exit=code)
        status = self.state.status(cell)
        if status.state == "running":  # another process does the run, or a child of this one has yet to end
            self._try_again_later(cell)
        else:
            self._settle(status)

    def _state_in_file(self, process: CellProcess) -> str:
        return self.state.attempt(process.cell, process.number).state

    def _try_again_later(self, cell: FrozenCell) -> None:
        self.later[cell.key] = time.monotonic() + _TRY_AGAIN_AFTER
        self.pending[cell.key] = cell

    def _settle(self, status: CellStatus) -> None:
        """Note that a cell has ended."""
        self.pending.pop(status.cell.key, None)
        self.ended[status.cell.key] = status
        reason = "" if status.state == "done" else f" ({status.reason})"
        print(f"{status.cell.number}: {status.state}{reason}  {status.cell.label}", flush=True)

    def _enforce_limits(self) -> None:
        """End cells beyond their time or memory."""
        for process in self.processes:
            if process.stopped is not None:
                continue
            if self.seconds is not None and process.seconds() > self.seconds:
                process.end("time", f"longer than time={self.seconds / 60:g} minutes")
            if self.memory is not None and time.monotonic() % _MEMORY_EVERY < _EVERY:
                used = process.resident_bytes()
                if used > self.memory:
                    limit = f"beyond memory={self.memory / 1024**3:g} GB"
                    process.end("memory", f"{used / 1024**3:.1f} GB, {limit}")

    def _obey_stop_request(self) -> None:
        request = self.files.stop_request()
        if request is None or self.stopping is not None:
            return
        if request["ids"] is None:
            self.stop(request["cause"])
            return
        for process in self.processes:
            if process.cell.key in request["ids"]:
                process.end(request["cause"], STOPPED[request["cause"]])
        for key in self.pending.keys() & {*request["ids"]}:
            self.state.cancel_pending(self.pending[key])
            self._settle(self.state.status(self.pending[key]))
        self.files.clear_stop_request()


def main(folder: str, apart: str = "") -> int:
    """Run a sweep's cells; return 0 if all are done, 1 if some are not."""
    if apart == APART:
        if os.fork():
            os._exit(0)
        os.setsid()
    state = SweepState(Path(folder))
    files = WorkerFiles(state.folder)
    lock = files.lock()
    try:
        lock.acquire(timeout=2)  # a process that only looks whether it is held holds it for a moment
    except Timeout:
        print("another worker process starts this sweep's cells already", flush=True)
        return 0
    state.remove_leftovers()
    worker = Worker(state)

    def stop(number: int, frame: object) -> None:
        worker.stop("interrupted")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    files.write_worker(pid=os.getpid(), host=HOST, started=time.time())
    with lock:
        worker.run()
    return 0 if all(each.state == "done" for each in state.statuses()) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
