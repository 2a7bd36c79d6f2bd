"""A grid of tiny runs in a folder of the user's own, and the sweep program in this process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from hblm.sweep.__main__ import main
from hblm.sweep.attempts import CellStatus
from hblm.sweep.launchers.local_files import WorkerFiles
from hblm.sweep.launchers.registry import Sweep, open_sweep

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


def write_grid(data: Path | str, axes: dict[str, str], node: str = "", name: str = "tiny") -> None:
    """Write mine/sweep/NAME.yaml; `node` is what stands under sweep:, with its indentation."""
    lines = [f"      {key}: {value}\n" for key, value in axes.items()]
    file = Path("mine/sweep") / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(HEAD.format(data=data) + "".join(lines) + (f"sweep:\n{node}\n" if node else ""))


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


def until(condition, seconds: float = 90.0) -> None:
    """Wait for a condition that must become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.1)
