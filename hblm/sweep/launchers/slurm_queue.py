"""SLURM's commands, and the state of a sweep's jobs according to squeue and sacct. No torch."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from hblm.json_files import read_object
from hblm.sweep.attempts import Attempt, Sighting
from hblm.sweep.cells import FrozenCell

FRESH = 2.0  # seconds for which an answer of squeue is used again
_TIMEOUT = 60.0  # seconds for a command's answer
_MAX_ARRAY_SIZE = 1001  # SLURM's own default
_IDS_PER_COMMAND = 500

# states in which a job has ended -> cause and reason of the attempt's end
ENDS = {
    "CANCELLED": ("cancelled", "by scancel"),
    "TIMEOUT": ("time", "longer than the job's time limit"),
    "DEADLINE": ("time", "beyond the job's deadline"),
    "OUT_OF_MEMORY": ("memory", "SLURM: out of memory"),
    "NODE_FAIL": ("lost", "its node failed"),
    "BOOT_FAIL": ("lost", "its node did not start"),
    "PREEMPTED": ("lost", "preempted, and not requeued by SLURM"),
    "FAILED": ("killed", "its process ended without an exit record; SLURM's state is FAILED"),
    "COMPLETED": ("lost", "its job ended without an exit record"),
}


def call(*command: str) -> str | None:
    """Return the output of a command; None if it cannot be run, fails or does not answer in time."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def max_array_size() -> int:
    """Return how many tasks a job array may have on this cluster."""
    config = call("scontrol", "show", "config") or ""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    return max(1, int(match[1]) if match else _MAX_ARRAY_SIZE)


def cancel_jobs(jobs: Sequence[str]) -> None:
    """Cancel jobs, running or pending."""
    for start in range(0, len(jobs), _IDS_PER_COMMAND):
        call("scancel", *jobs[start : start + _IDS_PER_COMMAND])


class Queue:
    """The jobs of one sweep, in SLURM's queue and in its accounting."""

    def __init__(self, folder: Path) -> None:
        """Use the launcher's folder, with one JSON file for each job array; call no command yet."""
        self.folder = folder
        self._asked_at = -FRESH
        self._states: dict[str, tuple[str, str]] | None = {}
        self._jobs: dict[tuple[str, int], str] = {}
        self._files_read: set[str] = set()
        self._sacct_states: dict[str, str] = {}

    def job_of(self, key: str, number: int) -> str | None:
        """Return the job of an attempt, such as 12_3; None if it was never submitted."""
        for file in sorted(self.folder.glob("*.json")):
            if file.name in self._files_read:
                continue
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                array = read_object(file)
                for task, (cell, attempt) in enumerate(array["cells"]):
                    job = array["array"] if array["alone"] else f"{array['array']}_{task}"
                    self._jobs[cell, attempt] = job
                self._files_read.add(file.name)
        return self._jobs.get((key, number))

    def look(self, cell: FrozenCell, attempt: Attempt) -> Sighting:
        """Return the state of an attempt's job, or how it ended.

        A job counts as open while SLURM does not answer: the answer will come later.
        """
        job = self.job_of(cell.key, attempt.number)
        if job is None:
            return Sighting("ended", "lost", "it was never submitted")
        states = self._squeue()
        if states is None:
            return Sighting(attempt.state, None, f"job {job}: SLURM does not answer")
        state, reason = states.get(job, ("", ""))
        if state and state not in ENDS:
            why = f"job {job}: {state} {reason}".replace(" None", "").rstrip()
            # SLURM puts a job back into its queue when its node fails; the job's process cannot write that
            return Sighting("queued" if state == "PENDING" else "running", None, why)
        cause, why = ENDS.get(state or self._sacct(job), ("lost", "job unknown to squeue and sacct"))
        return Sighting("ended", cause, why)

    def last_array(self) -> str | None:
        """Return the newest of this sweep's arrays that is still in the queue."""
        states = self._squeue() or {}
        live = {job.partition("_")[0] for job, (state, _) in states.items() if state not in ENDS}
        arrays = [file.stem for file in self.folder.glob("*.json") if file.stem in live]
        return max(arrays, key=int) if arrays else None

    def _squeue(self) -> dict[str, tuple[str, str]] | None:
        """Return state and reason of this user's jobs, lately ended ones too; None without an answer."""
        if time.monotonic() - self._asked_at > FRESH:
            output = call("squeue", "-h", "-r", "-t", "all", "-u", str(os.getuid()), "-o", "%i|%T|%r")
            self._asked_at = time.monotonic()
            self._states = None
            if output is not None:
                rows = [line.split("|", 2) for line in output.splitlines() if line.count("|") >= 2]
                self._states = {job.strip(): (state, reason) for job, state, reason in rows}
        return self._states

    def _sacct(self, job: str) -> str:
        """Return a job's state by the accounting, "" if the job is unknown there."""
        if job not in self._sacct_states:
            output = call("sacct", "-X", "-n", "-P", "-j", job, "-o", "State") or ""
            words = output.split("\n")[0].split()  # CANCELLED by 0
            self._sacct_states[job] = words[0] if words else ""
        return self._sacct_states[job]
