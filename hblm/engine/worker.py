"""One of the several processes of a run: `python -m hblm.engine.worker FOLDER`, started by processes.py."""

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
from hblm.engine import launch, training


def main(folder: str) -> int:
    """Do this process's part of the run that the folder tells; return the exit code."""
    process.die_with_parent()
    task = json.loads((Path(folder) / launch.TASK).read_text(encoding="utf-8"))
    if task["listen"]:
        signals.listen()
    else:
        signal.signal(signal.SIGTERM, _leave)  # so that a bar leaves the terminal as it found it
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a cluster's, for the process that was submitted
    launch.hear()
    console.outlive_readers()
    console.print_log()
    try:
        started = time.perf_counter() - (time.time() - task["asked"])
        training.join(typed(task["config"], TrainConfig), task["expected"], started, task["chosen"])
    except BaseException as error:
        return launch.report(Path(folder), error)
    return 0


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
