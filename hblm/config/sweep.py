"""The configuration of `python -m hblm.sweep`, of sweep files and of clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hblm.config.schema import group, key
from hblm.files import unfit_as_name


@dataclass
class SweepTable:
    """The table that a sweep ends with; null is aggregate's default."""

    rows: list[str] | None = key(None, "keys that make rows")
    columns: list[str] | None = key(None, "keys that make columns")
    metric: list[str] | None = key(None, "the scores", one=True)


@dataclass
class SweepNode:
    """The node `sweep:` of a sweep file: everything but its axes; no part of any run."""

    exclude: list[Any] = key([], "cells left out: mappings of axis -> value or list of values")
    zip: list[Any] = key([], "lists of axes that advance together")
    ensemble_weight: list[str] | None = key(
        None,
        "pairs of top_down and bottom_up cells are averaged as well, by each weight",
        one=True,
    )
    expect: list[Any] = key([], "published figures to show beside ours, with their source")
    table: SweepTable = group(SweepTable, "the table at the end")


VERBS = ("plan", "submit", "status", "watch", "logs", "cancel", "retry")
COMPOSING_VERBS = ("plan", "submit")  # they take the keys of the runs as well

SWEEP_STATES = ("done", "running", "pending", "failed", "cancelled", "new")  # new: planned, not submitted

FAILURES = {
    "error": "a user error: a setting, data, a checkpoint",
    "raised": "an exception, its traceback in the log",
    "exit": "the process ended itself with another code than 0",
    "killed": "a signal",
    "memory": "out of memory, the device's or the host's, or beyond memory=",
    "time": "longer than time=",
}


@dataclass
class Cluster:
    """The resources of each cell on a SLURM cluster; time and memory are the sweep's own keys."""

    partition: str | None = key(None, "SLURM's partition; null: the cluster's default, here and below")
    account: str | None = key(None, "the account that is billed")
    qos: str | None = key(None, "quality of service")
    constraint: str | None = key(None, "features that a node must have")
    gres: str | None = key(None, "generic resources, such as gpu:a100:1")
    gpus_per_node: int | None = key(None, "GPUs of a cell; null without gres: none", low=0)
    cpus_per_task: int | None = key(None, "processors of a cell", low=1)
    array_parallelism: int = key(256, "cells at a time, over all arrays of the sweep", low=1)
    signal_delay: int = key(120, "seconds before the time limit at which a cell is signalled to stop", low=0)
    max_requeues: int = key(
        3, "how often a cell goes back into the queue after a time limit or preemption", low=0
    )
    setup: list[str] = key([], "shell lines before a cell, such as module load cuda", one=True)
    additional: dict[str, Any] = key({}, "any other option of sbatch: cluster.additional.nice=100")


@dataclass
class SweepConfig:
    """One call of `python -m hblm.sweep`; every other key of its command line is a key of the runs."""

    sweep: str = key("???", "the grid: a file of multirun/sweep/, or of sweep/ in --config-dir")
    name: str | None = key(None, "of the sweep's folder in sweeps/; null: the grid's")
    output_dir: str = key("outputs", "folder of results and of sweeps/")
    on: str = key("local", "where cells run: local, or slurm")
    devices: list[str] = key(["auto"], "auto: all GPUs, else the CPU; cpu; or GPUs such as [0,1]", one=True)
    per_device: int | None = key(
        None, "cells at a time on a device; null: one a GPU, one for every four processors", low=1
    )
    time: float | None = key(
        None, "minutes that a cell may take; null: any, on SLURM a day", low=0, open_low=True
    )
    memory: float | None = key(
        None,
        "GB of the host's memory that a cell may use; null: any, on SLURM the cluster's default",
        low=0,
        open_low=True,
    )
    nodes: int = key(1, "machines of a cell, trainer.processes on each; for on=slurm", low=1)
    cluster: Cluster = group(Cluster, "the resources of a cell on SLURM")
    wait: bool = key(False, "submit, retry: stay until the end, as watch does; Ctrl-C stops the cells")
    cause: list[str] = key([], "retry: cells that failed so; []: all", choices=tuple(FAILURES), one=True)
    cell: list[str] = key([], "logs, cancel, retry: cells, by number or id; []: all", one=True)
    lines: int = key(20, "logs: how many lines of each cell", low=1)

    def conflicts(self) -> list[str]:
        """Return a message for each combination of valid values that is invalid."""
        messages = []
        if self.name is not None and unfit_as_name(self.name):
            messages.append(f"name={self.name!r} cannot name a folder; write a plain name")
        return messages
