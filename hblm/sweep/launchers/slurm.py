"""The SLURM launcher (on=slurm): cells as job arrays, submitted by submitit. No torch.

An array has at most MaxArraySize tasks. Each array waits for the one before (`afterany`), so that
`array_parallelism` bounds all of them together. Ensembles have an array of their own after their members.
The folder slurm/ of a sweep has submitit's files, and ARRAY.json: an array's cells in the order of its tasks.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hblm.config.sweep import Cluster, SweepConfig
from hblm.errors import ConfigError
from hblm.json_files import write_json
from hblm.sweep.attempts import STOPPED, Attempt, CellStatus, Sighting
from hblm.sweep.cells import FrozenCell
from hblm.sweep.launchers.base import Launcher
from hblm.sweep.launchers.slurm_job import CellJob
from hblm.sweep.launchers.slurm_queue import Queue, call, cancel_jobs, max_array_size
from hblm.sweep.state import SweepState

_DAY = 24 * 60  # minutes
_STOP_WITHIN = 30.0  # seconds that cancel waits for the cells to end


class SlurmLauncher(Launcher):
    """Runs cells as jobs of a SLURM cluster."""

    name = "slurm"
    options: ClassVar[Mapping[str, Sequence[str]]] = {**Launcher.options, "cluster": ("cluster",)}
    several_nodes = True

    def __init__(self, state: SweepState) -> None:
        """Launch the cells of one sweep."""
        super().__init__(state)
        self.folder = state.folder / "slurm"
        self.queue = Queue(self.folder)

    def where(self, config: SweepConfig) -> dict[str, Any]:
        """Return limits, nodes and the cluster's options, as sweep.json stores them."""
        return {**super().where(config), "cluster": vars(config.cluster)}

    def is_valid(self, where: Mapping[str, Any]) -> bool:
        """Return whether there are options of a cluster."""
        return where["cluster"] is not None

    def require_devices(self, cells: Sequence[FrozenCell], where: Mapping[str, Any]) -> None:
        """Refuse a cell with more processes than GPUs of a node.

        Raises:
            ConfigError: its processes would find no GPU.
        """
        most = max((cell.processes for cell in cells), default=1)
        gpus = where["cluster"]["gpus_per_node"]
        if gpus and gpus < most:
            raise ConfigError(
                f"trainer.processes={most} need a GPU each, and cluster.gpus_per_node={gpus} are fewer"
            )

    def n_at_once(self, where: Mapping[str, Any]) -> int:
        """Return how many jobs SLURM may run at a time."""
        return Cluster(**where["cluster"]).array_parallelism

    def refresh(self) -> None:
        """Forget the last answer of squeue."""
        self.queue = Queue(self.folder)

    def look(self, cell: FrozenCell, attempt: Attempt) -> Sighting:
        """Return the state of an attempt's job."""
        return self.queue.look(cell, attempt)

    def log_of(self, cell: FrozenCell, attempt: Attempt) -> Path:
        """Return the attempt's log; until it exists, the output of its job."""
        log = super().log_of(cell, attempt)
        job = None if log.exists() else self.queue.job_of(cell.key, attempt.number)
        outputs = sorted((self.folder / job).glob("*_log.out")) if job else []
        return outputs[0] if outputs else log

    def start(self, where: Mapping[str, Any]) -> str:
        """Submit the pending cells that are not in the queue.

        Raises:
            ConfigError: there is no SLURM here, or it refuses the jobs; earlier arrays stay submitted.
        """
        with self.state.editing():  # so that of several processes only one submits a cell
            self.state.remove_leftovers()
            self.refresh()
            statuses = self.state.statuses()
            cells = [each.cell for each in statuses if each.state == "pending" and not each.is_launched]
            if not cells:
                return ""
            arrays = self._submit(cells, where)
            return f"{len(cells):,} jobs submitted, SLURM arrays {', '.join(arrays)}"

    def _submit(self, cells: Sequence[FrozenCell], where: Mapping[str, Any]) -> list[str]:
        """Submit cells as job arrays; return the arrays' ids."""
        if shutil.which("sbatch") is None:
            raise ConfigError(
                "on=slurm needs SLURM's commands, and sbatch is not in PATH; on=local runs cells here"
            )
        # files of a submission that was killed; no submission is running now
        for file in self.folder.glob("*"):
            is_script = file.name.startswith(".submission_file_") and not file.is_symlink()
            if file.suffix == ".pkl" or is_script:
                file.unlink()
        size = max_array_size()
        groups = [[cell for cell in cells if not cell.needs], [cell for cell in cells if cell.needs]]
        chunks = [group[start : start + size] for group in groups for start in range(0, len(group), size)]
        before, arrays = self.queue.last_array(), []
        for chunk in chunks:
            before = self._submit_array(chunk, where, before)
            arrays.append(before)
        return arrays

    def _submit_array(self, cells: Sequence[FrozenCell], where: Mapping[str, Any], before: str | None) -> str:
        """Submit one job array that waits for the array before; return its id."""
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        executor = submitit.SlurmExecutor(folder=self.folder / "%j", max_num_timeout=0)
        nodes = int(where.get("nodes", 1)) if cells[0].kind == "train" else 1  # an ensemble is one process
        executor.update_parameters(**_parameters(self.state.name, where, nodes, before))
        attempts = [(cell, self._queue_attempt(cell)) for cell in cells]
        jobs = [CellJob(str(self.state.folder), cell.key, number) for cell, number in attempts]
        try:
            with executor.batch():
                handles = [executor.submit(job) for job in jobs]
            array = str(handles[0].job_id).partition("_")[0]
        except (FailedJobError, FailedSubmissionError, OSError, ValueError) as error:
            for cell, number in attempts:
                self.state.drop_attempt(cell, number)
            reason = " ".join(str(error).split())
            raise ConfigError(f"SLURM refuses the jobs: {reason}") from None
        record = {
            "array": array,
            "alone": len(cells) == 1,
            "submitted": time.time(),
            "cells": [[cell.key, number] for cell, number in attempts],
        }
        write_json(self.folder / f"{array}.json", record)
        is_held = "hold" in where["cluster"].get("additional", {})  # by the user, who releases it
        if not is_held and call("scontrol", "release", array) is None:
            raise ConfigError(f"array {array} is submitted and held; `scontrol release {array}` starts it")
        return array

    def _queue_attempt(self, cell: FrozenCell) -> int:
        number = self.state.next_number(cell)
        self.state.write_attempt(cell, number, state="queued", on=self.name, asked=time.time())
        return number

    def cancel(self, statuses: Sequence[CellStatus], *, everything: bool) -> list[str]:
        """Cancel the jobs of these cells, and wait until their processes have ended."""
        jobs, cells = [], []
        for each in (self.state.status(each.cell) for each in statuses):
            if self.is_own(each) and each.attempt is not None:
                number = each.attempt.number
                # before scancel, so that the job's process does not requeue it
                self.state.end_attempt(each.cell, number, "cancelled", STOPPED["cancelled"])
                jobs.append(self.queue.job_of(each.cell.key, number))
                cells.append(each.cell)
        cancel_jobs([job for job in jobs if job is not None])
        until = time.monotonic() + _STOP_WITHIN
        while time.monotonic() < until and any(cell.is_running_somewhere() for cell in cells):
            time.sleep(0.2)
        return []


def _parameters(name: str, where: Mapping[str, Any], nodes: int, before: str | None) -> dict[str, Any]:
    """Return the parameters of submitit's executor."""
    cluster, minutes, memory = Cluster(**where["cluster"]), where["time"], where["memory"]
    more = dict(cluster.additional)
    more.setdefault("requeue", True)
    # Held until the files that its jobs read are written: submitit makes a folder for each job after sbatch,
    # which takes seconds for a thousand of them, and a job that starts before that fails without any output.
    more.setdefault("hold", True)
    if before is not None:
        more["dependency"] = f"afterany:{before}"
    parameters: dict[str, Any] = {
        "job_name": f"hblm-{re.sub(r'[^A-Za-z0-9_.-]', '-', name)}",
        "nodes": nodes,
        "ntasks_per_node": 1,  # which starts the node's processes itself
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
    return {key: value for key, value in parameters.items() if value is not None}
