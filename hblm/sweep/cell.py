"""A cell in a process of its own: `python -m hblm.sweep.cell LEDGER KEY ATTEMPT DEVICES`.

It reads the frozen configuration and composes nothing. The device is leased, and the environment told, before
anything loads torch; the lease and the run's lock end with the process, however it ends.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import psutil

from hblm import runs
from hblm.artifacts import HOST, code
from hblm.errors import CheckpointError, HblmError
from hblm.sweep.devices import Device, lease
from hblm.sweep.ledger import Frozen, Ledger, checkpoints_of

BUSY = 75  # exit code: device or run are taken, try later (EX_TEMPFAIL)


def main(folder: str, key: str, attempt: str, devices: str) -> int:
    """Run one cell and write how its attempt ended; return the exit code."""
    ledger, number = Ledger(Path(folder)), int(attempt)
    cell = ledger.cell(key)
    os.chdir(cell.folder)
    held = lease([Device(*each) for each in json.loads(devices)], f"{ledger.name} {cell.label}")
    if held is None:
        return BUSY
    os.environ.update(held.device.environment)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    ledger.write_attempt(
        cell,
        number,
        state="running",
        host=HOST,
        pid=os.getpid(),
        born=psutil.Process().create_time(),
        device=held.device.name,
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        threads=os.environ.get("OMP_NUM_THREADS"),
        started=time.time(),
        commit=(now := code())["git_commit"],
        dirty=now["git_dirty"],
    )
    try:
        run(ledger, cell)
    except runs.Busy:
        ledger.drop_attempt(cell, number)
        return BUSY
    except BaseException as error:
        cause, why, exit_code = _told(error)
        if cause in ("raised", "memory"):
            traceback.print_exc()
        else:
            print(why, file=sys.stderr)
        sys.stderr.flush()
        _end(ledger, cell, number, cause, why, exit_code)
        return exit_code
    _end(ledger, cell, number, "done", "", 0)
    return 0


def run(ledger: Ledger, cell: Frozen) -> None:
    """Do the cell's work: train, or average its members.

    Raises:
        Busy: another process does it.
    """
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stdout,
        format="[%(asctime)s][%(name)s][%(levelname)s] - %(message)s",
    )
    from hblm import evaluate, train
    from hblm.config import EvaluateConfig, TrainConfig
    from hblm.schema import typed

    print(f"{ledger.name} {cell.number}: {cell.label}", flush=True)
    if cell.kind == "train":
        train.run(typed(cell.config, TrainConfig), expected=cell.id, wait=False)
        return
    lock = cell.lock()
    if cell.is_running_somewhere():
        raise runs.Busy
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


def _told(error: BaseException) -> tuple[str, str, int]:
    """Return the cause, one line on it, and the exit code."""
    name = type(error).__name__
    why = f"{name}: {error}".strip().splitlines()[0] if str(error) else name
    if isinstance(error, HblmError):
        return "error", str(error), 2
    if isinstance(error, SystemExit):
        exit_code = error.code if isinstance(error.code, int) else (0 if error.code is None else 1)
        return "exit", f"the process ended itself with exit code {exit_code}", exit_code
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":
        return "memory", why, 1
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", why, 130
    return "raised", why, 1


def _end(ledger: Ledger, cell: Frozen, number: int, cause: str, why: str, exit_code: int) -> None:
    told: dict[str, Any] = {"cause": cause, "why": why, "exit": exit_code}
    ledger.write_attempt(cell, number, state="ended", ended=time.time(), **told)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
