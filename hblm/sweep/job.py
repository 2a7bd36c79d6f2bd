"""One attempt at a cell, in the process that does it, whoever started that process.

It reads the frozen configuration and composes nothing. torch is loaded when the work starts.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from hblm import process, signals
from hblm.engine import launch
from hblm.errors import CheckpointError, ConfigError
from hblm.files import HOST, unfit_as_name
from hblm.runs import paths
from hblm.runs.environment import code
from hblm.sweep.cells import FrozenCell
from hblm.sweep.state import SweepState

BUSY = 75  # exit code: another process has the device or does the run, try later (EX_TEMPFAIL)


def open_cell(folder: str, key: str) -> tuple[SweepState, FrozenCell]:
    """Return a sweep's state and one of its cells, and go to the cell's working folder."""
    state = SweepState(Path(folder))
    cell = state.cell(key)
    os.chdir(cell.folder)
    return state, cell


def make_attempt(
    state: SweepState,
    cell: FrozenCell,
    number: int,
    place: Mapping[str, Any],
    nodes: launch.Machines | None = None,
) -> int:
    """Do a cell's work, and write when the attempt started and how it ended; return the exit code.

    Args:
        state: the sweep.
        cell: what to do.
        number: of the attempt.
        place: fields of the attempt's file that the launcher knows, such as device.
        nodes: the machines, of which this is the first; None: this machine alone.

    Raises:
        Busy: another process does the run.
        Stopped: a signal asked the run to stop, in a process that listens to signals.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _write_start(state, cell, number, place)
    try:
        if cell.other_version:
            raise ConfigError(
                f"this cell was submitted by {cell.other_version}; delete {state.folder} and submit again"
            )
        run_cell(state, cell, nodes)
    except (paths.Busy, signals.Stopped):
        raise
    except BaseException as error:
        return _write_failure(state, cell, number, error)
    finally:
        if nodes is not None:
            launch.finish(nodes)
    state.end_attempt(cell, number, "done", "", exit=0)
    return 0


def _write_start(state: SweepState, cell: FrozenCell, number: int, place: Mapping[str, Any]) -> None:
    commit = code()
    state.write_attempt(
        cell,
        number,
        state="running",
        host=HOST,
        pid=os.getpid(),
        born=psutil.Process().create_time(),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        threads=os.environ.get("OMP_NUM_THREADS"),
        started=time.time(),
        commit=commit["git_commit"],
        dirty=commit["git_dirty"],
        **place,
    )


def _write_failure(state: SweepState, cell: FrozenCell, number: int, error: BaseException) -> int:
    """Write and print why an attempt failed; return the exit code."""
    cause, why, exit_code = process.explain(error)
    if cause in ("raised", "memory"):
        traceback.print_exception(error)
    else:
        print(why, file=sys.stderr)
    sys.stderr.flush()
    state.end_attempt(cell, number, cause, why, exit=exit_code)
    return exit_code


def run_cell(state: SweepState, cell: FrozenCell, nodes: launch.Machines | None) -> None:
    """Train, on several machines if they are given; or evaluate an ensemble of members.

    Raises:
        Busy: another process does the run.
    """
    from hblm.console import print_log

    print_log()
    print(f"{state.name} {cell.number}: {cell.label}", flush=True)
    if cell.kind == "train":
        _train(cell, nodes)
        return
    lock = cell.lock()
    if cell.is_running_somewhere():
        raise paths.Busy
    with lock:
        _evaluate(cell, _member_checkpoints(state, cell))


def _train(cell: FrozenCell, nodes: launch.Machines | None) -> None:
    from hblm.config.schema import typed
    from hblm.config.train import TrainConfig
    from hblm.engine import training

    config = typed(cell.config, TrainConfig)
    if unfit_as_name(config.dataset.converter or "none"):  # it would name a file of code to run
        config = replace(config, dataset=replace(config.dataset, converter=None))
    training.run(config, expected=cell.id, wait=False, machines=nodes, chosen=cell.chosen)


def _evaluate(cell: FrozenCell, checkpoints: list[Path]) -> None:
    from hblm.config.evaluate import EvaluateConfig
    from hblm.inference import evaluate

    evaluate.run(
        EvaluateConfig(
            checkpoint=[str(folder) for folder in checkpoints],
            ensemble_weight=str(cell.config["ensemble_weight"]),
            output_dir=str(cell.output_dir),
            device=str(cell.config["device"]),
        )
    )


def _member_checkpoints(state: SweepState, cell: FrozenCell) -> list[Path]:
    """Return the checkpoint folders of an ensemble's members.

    Raises:
        CheckpointError: one does not exist any more.
    """
    members = [state.cell(run_id[:16]) for run_id in cell.needs]
    folders = [paths.find(member.output_dir, member.id, member.names).checkpoint for member in members]
    for folder in folders:
        if not folder.exists():
            raise CheckpointError(
                f"{folder} does not exist any more, and an ensemble needs it; "
                "train that run again with force=true"
            )
    return folders
