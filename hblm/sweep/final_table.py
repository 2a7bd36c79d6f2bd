"""The table that a sweep ends with: results of the cells that are done, and a list of the others."""

from __future__ import annotations

from collections.abc import Sequence

from hblm.config.aggregate import AggregateConfig
from hblm.sweep.attempts import CellStatus
from hblm.sweep.state import SweepState


def print_final_table(state: SweepState, statuses: Sequence[CellStatus], output_dir: str) -> None:
    """Make and print the table of the cells that are done, with the missing cells below it."""
    files = [str(each.result) for each in statuses if each.result is not None]
    if not files:
        print("no table: no cell is done")
        return
    from hblm.tables.report import Sweep, report  # pandas and scipy take a second to load

    missing = []
    for each in statuses:
        if each.result is None:
            cause = f": {each.cause}" if each.state == "failed" else ""
            missing.append(f"cell {each.cell.number} ({each.cell.label}), {each.state}{cause}")
    submission = state.submission()
    table = {name: value for name, value in submission["table"].items() if value}
    report(
        AggregateConfig(results=files, name=state.name, output_dir=output_dir),
        Sweep(submission["file"], state.name, table, submission["expect"] or None),
        missing,
    )
