"""A cell as a SLURM job: its output, its node, its place in the job, and going back into the queue."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hblm import signals
from hblm.engine import launch
from hblm.runs import paths
from hblm.sweep.cells import FrozenCell
from hblm.sweep.job import BUSY, make_attempt, open_cell
from hblm.sweep.launchers.slurm_queue import ENDS, call
from hblm.sweep.state import SweepState


@dataclass(frozen=True)
class CellJob:
    """The function of a job. submitit pickles it, so it holds only what finds the cell's file."""

    folder: str
    key: str
    number: int

    def __call__(self) -> None:
        """Run the cell in this process, with its output in the sweep's logs."""
        raise SystemExit(main(self.folder, self.key, self.number))


def main(folder: str, key: str, number: int) -> int:
    """Run one cell, or this node's part of it; return the exit code."""
    state, cell = open_cell(folder, key)
    nodes, node = _nodes(state, f"{cell.key}.{number}")
    if state.attempt(cell, number).state == "ended":  # cancelled while it was pending
        return 0
    log = state.log_of(cell, number)
    _redirect_output(log if node == 0 else log.with_suffix(f".node{node}.log"))
    place = _place()
    signals.listen()
    if nodes is not None:
        place["nodes"] = nodes.count
        if node:
            return launch.follow(nodes, node)
    # The attempt's lock is not held: the queue says whether a job is alive, and a file server may keep the
    # lock of a dead host for long.
    try:
        return make_attempt(state, cell, number, place, nodes)
    except paths.Busy:  # that process writes the result, and nothing would start this job again
        state.end_attempt(cell, number, "lost", "another process did this run", exit=BUSY)
        return BUSY
    except signals.Stopped as signal:
        return _requeue_or_end(state, cell, number, str(signal))


def _nodes(state: SweepState, attempt: str) -> tuple[launch.Machines | None, int]:
    """Return the machines of this process's job (None: only this one), and the number of this one."""
    count, node = int(os.environ.get("SLURM_NNODES", "1")), int(os.environ.get("SLURM_NODEID", "0"))
    if count == 1:
        return None, 0
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    return launch.Machines(count, state.folder / "teams" / f"{attempt}.{restarts}"), node


def _redirect_output(log: Path) -> None:
    """Append the output of this process to a log; a requeued job continues its log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)


def _place() -> dict[str, Any]:
    """Return device, job and restarts; set the environment for torch."""
    # without this a job that requests no GPU would see all GPUs of a node that does not hide them
    devices = os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    if "SLURM_CPUS_PER_TASK" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", os.environ["SLURM_CPUS_PER_TASK"])
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    return {"device": devices or "cpu", "job": own_job(), "restarts": restarts}


def own_job() -> str:
    """Return the id of the job that this process runs in, such as 12_3."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def _requeue_or_end(state: SweepState, cell: FrozenCell, number: int, signal: str) -> int:
    """Requeue a job that a signal stopped, at most max_requeues times; return the exit code."""
    fields = state.attempt(cell, number).fields
    if fields.get("cause") == "cancelled":
        return 0
    requeues = int(fields.get("requeues", 0))
    most = int(state.submission()["where"]["cluster"]["max_requeues"])
    if requeues < most:
        line = f"stopped by {signal}, requeue {requeues + 1} of {most}; starts over"
        print(line, flush=True)
        state.write_attempt(cell, number, state="queued", requeues=requeues + 1, requeued=line)
        if _requeue_own():
            return 0
    cause = "killed" if signal == "SIGTERM" else "time"
    why = f"stopped by {signal}, after {requeues} requeues"
    print(why, flush=True)
    state.end_attempt(cell, number, cause, why, exit=1)
    return 1


def _requeue_own() -> bool:
    """Put this process's job back into the queue; return whether it will run again."""
    job = own_job()
    state = (call("squeue", "-h", "-j", job, "-o", "%T") or "").strip()
    if state in ENDS:
        return False
    if state in ("PENDING", "REQUEUED", "COMPLETING"):  # SLURM is requeueing it, or it is being cancelled
        return True
    return call("scontrol", "requeue", job) is not None
