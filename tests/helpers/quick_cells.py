"""Cells whose processes do no training: some fail in a chosen way, the others write a made-up result."""

from __future__ import annotations

import json
from pathlib import Path

import made_results

# Python itself loads this in every process; in that of a cell it replaces the work, which would load torch.
# A cell of seeds 13 to 17 fails once; 18 sleeps, 19 holds memory, 20 goes on until a signal; others succeed.
QUICK = """
import json, os, signal, sys, time
from pathlib import Path

def fail(seed):
    if seed == 13:
        raise RuntimeError("no luck")
    if seed == 14:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == 15:
        time.sleep(600)
    if seed == 16:
        sys.exit(3)
    if seed == 17:
        raise MemoryError("a lot")

def go_on_until_a_signal():
    from hblm import signals
    print("epoch 1/1", flush=True)
    while True:
        signals.check()
        time.sleep(0.05)

def work(state, cell, nodes):
    seed = cell.config["seed"]
    print("the work of seed", seed, flush=True)
    if 13 <= seed <= 17 and not os.path.exists(f"failed.{seed}"):
        open(f"failed.{seed}", "w").close()
        fail(seed)
    if seed == 18:
        time.sleep(600)
    if seed == 19:
        held = b"x" * 500_000_000
        time.sleep(600)
    if seed == 20:
        go_on_until_a_signal()
    try:
        cell.lock().acquire(timeout=2)  # until the process ends
    except TimeoutError:
        raise job.paths.Busy
    time.sleep(0.5)
    if cell.result() is None:
        result = json.loads(Path(__file__).with_name("result.json").read_text())
        result.update(run_id=cell.id, config=cell.config, seed=seed)
        made_by = cell.output_dir / "results" / f"{cell.names[0]}.json"
        made_by.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{made_by}.new").write_text(json.dumps(result))
        os.replace(f"{made_by}.new", made_by)

if {"hblm.sweep.launchers.local_job", "submitit.core._submit"} & set(sys.orig_argv):
    from hblm.sweep import job
    job.run_cell = work
"""


def write_quick_cells(folder: Path) -> None:
    """Write the module that replaces the work of cells in processes with this folder in PYTHONPATH."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(QUICK)
    (folder / "result.json").write_text(json.dumps(made_results.result()))
