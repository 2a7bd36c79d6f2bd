"""Time to plan and freeze 1,002 cells, and to read their status: python tests/bench/bench_sweep.py [SEEDS]

Two methods x SEEDS seeds (501) of a made-up dataset, in this process, without starting a cell. For
comparison, the time in which Hydra composes one cell, the cost of a cell if nothing were shared.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "helpers"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # whose conftest it is
import conftest
from grids import write_grid

from hblm.config.compose import Composer
from hblm.config.train import TrainConfig
from hblm.sweep.launchers.registry import open_sweep
from hblm.sweep.plan import make_plan
from hblm.sweep.submission import freeze


def main(seeds: int) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        data = conftest._write_fruit(Path("data/fruit"), one_path=False)
        write_grid(data, {"method": "flat,dual", "seed": f"range(1,{seeds + 1})"})
        started = time.perf_counter()
        plan = make_plan("tiny", [], "mine", prepare=False)
        planned = time.perf_counter()
        cells = freeze(plan)
        state = open_sweep("outputs", "tiny")
        for cell in cells:
            state.write_cell(cell)
        state.write_submission({"cells": [cell.key for cell in cells]})
        frozen = time.perf_counter()
        state.statuses()
        looked = time.perf_counter()
        composer = Composer("train", TrainConfig)
        for seed in range(5):
            composer._hydra(("dataset=wos", f"seed={seed}"))
        one = (time.perf_counter() - looked) / 5
    print(f"{len(cells):,} cells: planned in {planned - started:.1f} s, frozen in {frozen - planned:.1f} s")
    print(f"how all stand: {looked - frozen:.2f} s; composed one by one: {len(cells) * one:.0f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 501)
