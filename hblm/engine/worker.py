"""One worker of a run: `python -m hblm.engine.worker FOLDER`, started by launch.py."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from hblm import console, process, signals
from hblm.config.schema import typed
from hblm.config.train import TrainConfig
from hblm.engine import training
from hblm.engine.exit_reports import TASK, report_error
from hblm.engine.launch import unblock_signals


def main(folder: str) -> int:
    """Do this rank's part of the run described in the folder; return the exit code."""
    process.die_with_parent()
    task = json.loads((Path(folder) / TASK).read_text(encoding="utf-8"))
    if task["listen"]:
        signals.listen()
    else:
        signal.signal(signal.SIGTERM, _exit)  # an exception, so that a progress bar restores the terminal
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # SLURM sends it to every process of a job
    unblock_signals()
    console.outlive_readers()
    console.print_log()
    try:
        started = time.perf_counter() - (time.time() - task["started"])
        training.join(typed(task["config"], TrainConfig), task["expected"], started, task["chosen"])
    except BaseException as error:
        return report_error(Path(folder), error)
    return 0


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
