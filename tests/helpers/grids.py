"""A grid of tiny runs in a folder of the user's own, and the sweep program in this process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import made_results

from hblm.sweep.__main__ import main
from hblm.sweep.attempts import CellStatus
from hblm.sweep.cells import FrozenCell
from hblm.sweep.launchers.local_files import WorkerFiles
from hblm.sweep.launchers.registry import Sweep, open_sweep
from hblm.sweep.plan import Plan, make_plan
from hblm.sweep.submission import freeze

HEAD = """# @package _global_
# a grid of tiny runs
defaults:
  - override /dataset: custom
  - override /encoder: tiny
  - override /trainer: smoke
dataset: {{path: {data}}}
encoder: {{max_length: 32}}
trainer: {{epochs: 1}}
device: cpu
hydra:
  sweeper:
    params:
"""


_PLANS: dict[Any, Plan] = {}


def write_grid(data: Path | str, axes: dict[str, str], node: str = "", name: str = "tiny") -> None:
    """Write mine/sweep/NAME.yaml; `node` is the text under sweep:, with its indentation."""
    lines = [f"      {key}: {value}\n" for key, value in axes.items()]
    file = Path("mine/sweep") / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(HEAD.format(data=data) + "".join(lines) + (f"sweep:\n{node}\n" if node else ""))


def planned(data: Path | str, axes: dict[str, str], node: str = "", overrides: Sequence[str] = ()) -> Plan:
    """Write a grid and return its plan, which is composed once for all tests of a process."""
    write_grid(data, axes, node)
    key = str(data), *axes.items(), node, *overrides
    if key not in _PLANS:
        _PLANS[key] = make_plan("tiny", overrides, "mine", prepare=False)
    return _PLANS[key]


def submitted(
    data: Path | str, axes: dict[str, str], node: str = "", overrides: Sequence[str] = ()
) -> tuple[Sweep, list[FrozenCell]]:
    """Write the files of a submission, and start nothing."""
    sweep = state()
    cells = freeze(planned(data, axes, node, overrides))
    for cell in cells:
        sweep.write_cell(cell)
    sweep.write_submission(
        {
            "cells": [cell.key for cell in cells],
            "table": {},
            "expect": [],
            "file": "tiny.yaml",
            "where": {"on": "local", "time": None, "memory": None, "devices": [["cpu", 1]], "cluster": None},
        }
    )
    return sweep, cells


def finish(cell: FrozenCell, name: str | None = None) -> Path:
    """Write a result as a run of this cell would."""
    record = {**made_results.result(seed=1), "run_id": cell.id}
    return made_results.write(Path("outputs"), name or cell.names[0], record)


def sweep(*argv: str, name: str = "tiny") -> int:
    """Run the program; return its exit code."""
    try:
        main([argv[0], f"sweep={name}", "--config-dir", "mine", *argv[1:]])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def start(*argv: str, name: str = "tiny", **environment: str) -> subprocess.Popen[str]:
    """Start the program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "hblm.sweep", argv[0], f"sweep={name}", "--config-dir", "mine", *argv[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
        # Ctrl-C is ignored by what was started in the background of a shell
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def state(name: str = "tiny") -> Sweep:
    return open_sweep("outputs", name)


def worker(name: str = "tiny") -> dict | None:
    """Return pid, host and start of the sweep's worker process; None if there is none."""
    return WorkerFiles(state(name).folder).worker()


def by_label(name: str = "tiny") -> dict[str, CellStatus]:
    return {each.cell.label: each for each in state(name).statuses()}


def states(name: str = "tiny") -> list[str]:
    return [each.state for each in state(name).statuses()]


def attempts(name: str = "tiny") -> list[dict]:
    files = sorted((state(name).folder / "attempts").glob("*.json"))
    return [json.loads(file.read_text()) for file in files]


def until(condition, seconds: float = 150.0) -> None:
    """Wait for a condition that must become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.1)
