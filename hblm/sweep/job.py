"""A cell in a process of its own: `python -m hblm.sweep.job LEDGER KEY ATTEMPT DEVICES`.

It reads the frozen configuration and composes nothing. The device is leased, and the environment told, before
anything loads torch; the lease and the run's lock end with the process, however it ends.
"""

from __future__ import annotations

import contextlib
import json
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
from hblm.sweep import slurm_env
from hblm.sweep.devices import Device, lease, n_wanted
from hblm.sweep.state import Frozen, Ledger, checkpoints_of

SLURM = "slurm"  # in place of devices: the cluster has given them


BUSY = 75  # exit code: device or run are taken, try later (EX_TEMPFAIL)


def main(folder: str, key: str, attempt: str, devices: str) -> int:
    """Run one cell and write how its attempt ended; return the exit code."""
    ledger, number = Ledger(Path(folder)), int(attempt)
    cell = ledger.cell(key)
    os.chdir(cell.folder)
    nodes: launch.Machines | None = None
    if devices == SLURM:
        nodes, node = slurm_env.nodes(ledger, f"{cell.key}.{number}")
        if _told_of(ledger, cell, number).get("state") == "ended":  # cancelled while it waited
            return 0
        log = ledger.log_of(cell, number)
        place = _of_slurm(log if node == 0 else log.with_suffix(f".node{node}.log"))
        signals.listen()
        if nodes is not None:
            place["nodes"] = nodes.count
            if node:
                return launch.follow(nodes, node)
    else:
        allowed = [Device(*each) for each in json.loads(devices)]
        wanted = n_wanted(allowed, cell.processes)
        held = lease(allowed, f"{ledger.name} {cell.label}", wanted)  # until this returns
        if held is None:
            return BUSY
        os.environ.update(held.environment)
        place = {"device": held.name}  # no "job": the pool starts it again where that is needed
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # of a SLURM job the queue says whether it lives; a file server may hold the lock of a dead host for long
    with contextlib.nullcontext() if "job" in place else ledger.living(cell, number):
        return _do(ledger, cell, number, nodes, place)


def _do(
    ledger: Ledger, cell: Frozen, number: int, nodes: launch.Machines | None, place: Mapping[str, Any]
) -> int:
    """Make the attempt, whose lock is held; return the exit code."""
    ledger.write_attempt(
        cell,
        number,
        state="running",
        host=HOST,
        pid=os.getpid(),
        born=psutil.Process().create_time(),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        threads=os.environ.get("OMP_NUM_THREADS"),
        started=time.time(),
        commit=(now := code())["git_commit"],
        dirty=now["git_dirty"],
        **place,
    )
    try:
        with contextlib.ExitStack() as stack:
            if cell.other_maker:
                raise ConfigError(
                    f"this cell was made by {cell.other_maker}; delete {ledger.folder} and submit again"
                )
            if nodes is not None:
                stack.callback(launch.finish, nodes)
            run(ledger, cell, nodes)
    except paths.Busy:
        if "job" in place:  # nobody here would start it again: whoever does the run writes its result
            _end(ledger, cell, number, "lost", "another process did this run", BUSY)
            return BUSY
        ledger.drop_attempt(cell, number)
        return BUSY
    except signals.Stopped as signal:
        return _stopped(ledger, cell, number, str(signal))
    except BaseException as error:
        cause, why, exit_code = process.explain(error)
        if cause in ("raised", "memory"):
            traceback.print_exc()
        else:
            print(why, file=sys.stderr)
        sys.stderr.flush()
        _end(ledger, cell, number, cause, why, exit_code)
        return exit_code
    _end(ledger, cell, number, "done", "", 0)
    return 0


def _of_slurm(log: Path) -> dict[str, Any]:
    """Send this process's output into the cell's log; return what SLURM gave it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("ab") as stream:  # a requeued job goes on in its log
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    # a job that asked for none would see every GPU of a node that does not hide them
    given = os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    if "SLURM_CPUS_PER_TASK" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", os.environ["SLURM_CPUS_PER_TASK"])
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    return {"device": given or "cpu", "job": slurm_env.own_job(), "restarts": restarts}


def _stopped(ledger: Ledger, cell: Frozen, number: int, signal: str) -> int:
    """Put a job that was told to stop back into the queue, as often as it may."""
    told = _told_of(ledger, cell, number)
    if told.get("cause") == "cancelled":
        return 0
    done, most = int(told.get("requeues", 0)), int(ledger.sweep()["where"]["cluster"]["max_requeues"])
    if done < most:
        said = f"told to stop by {signal}, requeued {done + 1} of {most} times; starts over"
        print(said, flush=True)
        ledger.write_attempt(cell, number, state="queued", requeues=done + 1, requeued=said)
        if slurm_env.requeue_own():
            return 0
    cause = "killed" if signal == "SIGTERM" else "time"
    why = f"told to stop by {signal}, and requeued {done} times before"
    print(why, flush=True)
    _end(ledger, cell, number, cause, why, 1)
    return 1


def _told_of(ledger: Ledger, cell: Frozen, number: int) -> Mapping[str, Any]:
    return next((each.told for each in ledger.attempts(cell) if each.number == number), {})


def run(ledger: Ledger, cell: Frozen, nodes: launch.Machines | None) -> None:
    """Do the cell's work: train, on several machines where they are given, or average its members.

    Raises:
        Busy: another process does it.
    """
    from hblm.config.evaluate import EvaluateConfig
    from hblm.config.schema import typed
    from hblm.config.train import TrainConfig
    from hblm.console import print_log
    from hblm.engine import training
    from hblm.inference import evaluate

    print_log()

    print(f"{ledger.name} {cell.number}: {cell.label}", flush=True)
    if cell.kind == "train":
        config = typed(cell.config, TrainConfig)
        if unfit_as_name(config.dataset.converter or "none"):  # a path to code, not data
            config = replace(config, dataset=replace(config.dataset, converter=None))
        training.run(config, expected=cell.id, wait=False, machines=nodes, chosen=cell.chosen)
        return
    lock = cell.lock()
    if cell.is_running_somewhere():
        raise paths.Busy
    with lock:
        folders = checkpoints_of(ledger, cell)
        for folder in folders:
            if not folder.exists():
                raise CheckpointError(
                    f"{folder} is gone, and an ensemble needs it; train that run again with force=true"
                )
        weight = str(cell.config["ensemble_weight"])
        evaluate.run(
            EvaluateConfig(
                checkpoint=[str(folder) for folder in folders],
                ensemble_weight=weight,
                output_dir=str(cell.output_dir),
                device=str(cell.config["device"]),
            )
        )


def _end(ledger: Ledger, cell: Frozen, number: int, cause: str, why: str, exit_code: int) -> None:
    told: dict[str, Any] = {"cause": cause, "why": why, "exit": exit_code}
    ledger.write_attempt(cell, number, state="ended", ended=time.time(), **told)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
