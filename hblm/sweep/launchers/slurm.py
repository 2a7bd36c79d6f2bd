"""Cells as SLURM job arrays, through submitit; and what SLURM says of them, which counts last. No torch.

An array is cut to MaxArraySize. Each waits for the one before (`afterany`), so that `array_parallelism`
bounds all of them together; ensembles come in an array of their own after all that they need.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hblm.config.sweep import Cluster
from hblm.errors import ConfigError
from hblm.json_files import read_object, write_json
from hblm.sweep.slurm_env import ENDS, _ask
from hblm.sweep.state import Frozen, JobState, Ledger

_FRESH = 2.0  # seconds for which an answer of squeue is believed


_MAX_ARRAY_SIZE = 1001  # SLURM's own default


_AT_ONCE = 500  # ids in one command line


_DAY = 24 * 60


@dataclass(frozen=True)
class CellJob:
    """What a job runs: submitit pickles it, so it holds nothing but where the ledger lies."""

    folder: str
    key: str
    number: int

    def __call__(self) -> None:
        """Run the cell in this process, its output into the ledger's log."""
        cell = importlib.import_module("hblm.sweep.job")  # which imports this module
        raise SystemExit(cell.main(self.folder, self.key, str(self.number), cell.SLURM))


def submit_cells(
    ledger: Ledger,
    cells: Sequence[Frozen],
    cluster: Cluster,
    minutes: float | None,
    memory: float | None,
    nodes: int,
) -> list[str]:
    """Submit cells as job arrays, under the lock of the ledger (`editing`); return the arrays' ids.

    Raises:
        ConfigError: there is no SLURM here, or it refuses the jobs; what was submitted before stays.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "on=slurm needs SLURM's commands, and sbatch is not in PATH; on=local runs cells here"
        )
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    for left in (ledger.folder / "slurm").glob("*"):  # by a submission that was killed: none is under way now
        if left.suffix == ".pkl" or (left.name.startswith(".submission_file_") and not left.is_symlink()):
            left.unlink()
    size = max_array_size()
    groups = [[cell for cell in cells if not cell.needs], [cell for cell in cells if cell.needs]]
    chunks = [group[at : at + size] for group in groups for at in range(0, len(group), size)]
    submitted: list[str] = []
    queue = Queue(ledger)
    before = queue.last_array()
    for chunk in chunks:
        executor = submitit.SlurmExecutor(folder=ledger.folder / "slurm" / "%j", max_num_timeout=0)
        several = nodes if chunk[0].kind == "train" else 1  # an ensemble is one process
        executor.update_parameters(**_parameters(ledger.name, cluster, minutes, memory, several, before))
        numbers = [_queue_attempt(ledger, cell) for cell in chunk]
        pairs = [*zip(chunk, numbers, strict=True)]
        jobs = [CellJob(str(ledger.folder), cell.key, number) for cell, number in pairs]
        try:
            with executor.batch():
                handles = [executor.submit(job) for job in jobs]
            array = str(handles[0].job_id).partition("_")[0]
        except (FailedJobError, FailedSubmissionError, OSError, ValueError) as error:
            for cell, number in pairs:
                ledger.drop_attempt(cell, number)
            reason = " ".join(str(error).split())
            raise ConfigError(f"SLURM refuses the jobs: {reason}") from None
        told = {
            "array": array,
            "alone": len(chunk) == 1,
            "submitted": time.time(),
            "cells": [[cell.key, number] for cell, number in pairs],
        }
        write_json(ledger.folder / "slurm" / f"{array}.json", told)
        submitted.append(array)
        if "hold" not in cluster.additional and _ask("scontrol", "release", array) is None:
            raise ConfigError(f"array {array} is submitted and held; `scontrol release {array}` starts it")
        before = array
    return submitted


def _queue_attempt(ledger: Ledger, cell: Frozen) -> int:
    attempts = ledger.attempts(cell)
    last = attempts[-1] if attempts else None
    number = 1 if last is None else last.number + (0 if last.state == "waiting" else 1)
    ledger.write_attempt(cell, number, state="queued", on="slurm", asked=time.time())
    return number


def _parameters(
    name: str,
    cluster: Cluster,
    minutes: float | None,
    memory: float | None,
    nodes: int,
    before: str | None,
) -> dict[str, Any]:
    """Return what submitit is told."""
    more = dict(cluster.additional)
    more.setdefault("requeue", True)
    # Held until what its jobs read is written: submitit makes a folder for each job after sbatch, which takes
    # seconds for a thousand of them, and a job that starts before that fails without a word.
    more.setdefault("hold", True)
    if before is not None:
        more["dependency"] = f"afterany:{before}"
    told: dict[str, Any] = {
        "job_name": f"hblm-{re.sub(r'[^A-Za-z0-9_.-]', '-', name)}",
        "nodes": nodes,
        "ntasks_per_node": 1,  # it starts the node's processes itself
        "srun_args": ["--kill-on-bad-exit=1"] if nodes > 1 else None,
        "time": max(1, round(_DAY if minutes is None else minutes)),
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "gres": cluster.gres,
        "gpus_per_node": cluster.gpus_per_node,
        "cpus_per_task": cluster.cpus_per_task,
        "mem": None if memory is None else f"{round(memory * 1024)}MB",
        "array_parallelism": cluster.array_parallelism,
        "signal_delay_s": cluster.signal_delay,
        "setup": cluster.setup or None,
        "stderr_to_stdout": True,
        "additional_parameters": more,
    }
    return {key: value for key, value in told.items() if value is not None}


def max_array_size() -> int:
    """Return how many tasks an array may have here."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config") or "", re.MULTILINE)
    return max(1, int(found[1]) if found else _MAX_ARRAY_SIZE)


class Queue:
    """What SLURM knows of a sweep's jobs."""

    def __init__(self, ledger: Ledger) -> None:
        """Ask nothing yet."""
        self.folder = ledger.folder / "slurm"
        self._at = -_FRESH
        self._states: dict[str, tuple[str, str]] | None = {}
        self._jobs: dict[tuple[str, int], str] = {}
        self._read: set[str] = set()
        self._ended: dict[str, str] = {}

    def job_of(self, key: str, number: int) -> str | None:
        """Return the job of an attempt, such as 12_3."""
        for file in sorted(self.folder.glob("*.json")):
            if file.name in self._read:
                continue
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                told = read_object(file)
                for task, (cell, attempt) in enumerate(told["cells"]):
                    job = told["array"] if told["alone"] else f"{told['array']}_{task}"
                    self._jobs[cell, attempt] = job
                self._read.add(file.name)
        return self._jobs.get((key, number))

    def look(self, key: str, number: int) -> JobState:
        """Return whether an attempt's job is there, and else how it ended.

        Where SLURM does not answer, a job counts as there: nothing is lost by waiting.
        """
        job = self.job_of(key, number)
        if job is None:
            return JobState(None, False, "lost", "it was never submitted")
        states = self._squeue()
        if states is None:
            return JobState(job, True, "", "SLURM does not answer")
        state, reason = states.get(job, ("", ""))
        if state and state not in ENDS:
            return JobState(job, True, state, reason)
        state = state or self._sacct(job)
        cause, why = ENDS.get(state, ("lost", "its job left the queue without a word"))
        return JobState(job, False, cause, why)

    def last_array(self) -> str | None:
        """Return the newest of this sweep's arrays that is still in the queue."""
        live = {
            job.partition("_")[0] for job, (state, _) in (self._squeue() or {}).items() if state not in ENDS
        }
        found = [file.stem for file in self.folder.glob("*.json") if file.stem in live]
        return max(found, key=int) if found else None

    def _squeue(self) -> dict[str, tuple[str, str]] | None:
        """Return state and reason of this user's jobs, lately ended ones too; None without an answer."""
        if time.monotonic() - self._at > _FRESH:
            told = _ask("squeue", "-h", "-r", "-t", "all", "-u", str(os.getuid()), "-o", "%i|%T|%r")
            self._at = time.monotonic()
            self._states = None
            if told is not None:
                rows = [line.split("|", 2) for line in told.splitlines() if line.count("|") >= 2]
                self._states = {job.strip(): (state, reason) for job, state, reason in rows}
        return self._states

    def _sacct(self, job: str) -> str:
        """Return a job's state by the accounting, "" where it does not know."""
        if job not in self._ended:
            told = _ask("sacct", "-X", "-n", "-P", "-j", job, "-o", "State") or ""
            lines = told.split("\n")
            self._ended[job] = lines[0].split()[0] if lines[0].split() else ""
        return self._ended[job]


def cancel_jobs(jobs: Sequence[str]) -> None:
    """Cancel jobs, running or pending."""
    for at in range(0, len(jobs), _AT_ONCE):
        _ask("scancel", *jobs[at : at + _AT_ONCE])
