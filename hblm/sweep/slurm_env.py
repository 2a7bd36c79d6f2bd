"""SLURM as one of its jobs sees it: job id, nodes, requeueing; and how its commands are called."""

from __future__ import annotations

import os
import subprocess

from hblm.engine.launch import Machines
from hblm.sweep.state import Ledger

_TIMEOUT = 60.0


_COUNT, _NODE = ("SLURM_NNODES", "1"), ("SLURM_NODEID", "0")

# how SLURM says that a job ended -> cause and what is said of it
ENDS = {
    "CANCELLED": ("cancelled", "by scancel"),
    "TIMEOUT": ("time", "longer than the job's time limit"),
    "DEADLINE": ("time", "beyond the job's deadline"),
    "OUT_OF_MEMORY": ("memory", "SLURM: out of memory"),
    "NODE_FAIL": ("lost", "its node failed"),
    "BOOT_FAIL": ("lost", "its node did not start"),
    "PREEMPTED": ("lost", "preempted, and not requeued by SLURM"),
    "FAILED": ("killed", "its process ended and wrote nothing; SLURM says FAILED"),
    "COMPLETED": ("lost", "its job ended and wrote nothing"),
}


def nodes(ledger: Ledger, attempt: str) -> tuple[Machines | None, int]:
    """Return the machines of this process's job (None: this one alone), and which of them this is."""
    count, node = (int(os.environ.get(name, default)) for name, default in (_COUNT, _NODE))
    if count == 1:
        return None, 0
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    return Machines(count, ledger.folder / "teams" / f"{attempt}.{restarts}"), node


def own_job() -> str:
    """Return the id of the job that this process runs in."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def requeue_own() -> bool:
    """Put this process's job back into the queue; return whether it will run again."""
    job = own_job()
    state = (_ask("squeue", "-h", "-j", job, "-o", "%T") or "").strip()
    if state in ENDS:
        return False
    if state in ("PENDING", "REQUEUED", "COMPLETING"):  # SLURM is at it, or it is being cancelled
        return True
    return _ask("scontrol", "requeue", job) is not None


def _ask(*command: str) -> str | None:
    """Return what a command prints; None where it cannot be run, fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
