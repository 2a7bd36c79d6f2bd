"""Output of `plan`: how many cells there are, what they are, and how long they will take. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hblm.engine import auto
from hblm.sweep import progress
from hblm.sweep.attempts import CellStatus
from hblm.sweep.plan import Plan
from hblm.sweep.run_times import expected_seconds, seconds_of


def print_plan(plan: Plan, statuses: Sequence[CellStatus]) -> None:
    """Print counts, unprepared datasets, the cells with their states, and the values chosen for them."""
    n_merged = sum(len(cell.also) for cell in plan.cells)
    counts = f"{plan.sweep.name}: {plan.n_cells:,} cells"
    counts += f", {plan.n_excluded:,} excluded" if plan.n_excluded else ""
    counts += f", {n_merged:,} the same run as another" if n_merged else ""
    counts += f"; {len(plan.cells):,} runs"
    counts += f" and {len(plan.ensembles):,} ensembles" if plan.ensembles else ""
    print(counts)
    for name, reason in plan.unprepared.items():
        print(f"{name}: {reason}")
    if statuses:
        print(progress.counts(statuses))
        progress.print_table(statuses)
    for line in dict.fromkeys(line for cell in plan.cells for line in auto.lines(cell.chosen)):
        print(f"chosen: {line}")


def print_hours(plan: Plan, statuses: Mapping[str, CellStatus], output_dir: Path, n_at_once: int) -> None:
    """Print how long the runs that are not done will take.

    Args:
        plan: the cells.
        statuses: by run id; of no cell if a dataset is not prepared.
        output_dir: its results are the runs to compare with.
        n_at_once: how many cells run at a time.
    """
    known = seconds_of(output_dir / "results")
    open_cells = [
        cell
        for cell in plan.cells
        if cell.run is None or cell.run.id not in statuses or statuses[cell.run.id].state != "done"
    ]
    times = [seconds for cell in open_cells if (seconds := expected_seconds(cell, known)) is not None]
    if not open_cells:
        return
    if not times:
        print("no estimate of the time: there is no result of a similar run")
        return
    total = progress.duration(sum(times))
    wall = f", {progress.duration(sum(times) / n_at_once)} with {n_at_once} at once" if n_at_once > 1 else ""
    of = f" for {len(times):,} of {len(open_cells):,} open runs, estimated from similar runs"
    print(f"about {total} of computing{wall}{of}")
