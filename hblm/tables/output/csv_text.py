"""A table and its tests as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from math import isnan

from hblm.files import cell_text
from hblm.tables.table import Cell, Comparison, Table

_NUMBERS = ("n", "mean", "std", "low", "high")
_TEXTS = ("standing", "seeds", "run_ids", "notes", "source")


def table_csv(table: Table) -> str:
    """Return one line a cell: labels, metric, n, mean, std, interval, seeds, run ids, notes.

    Shares are in 0..1. A cell without a result has n = 0. Reference figures have `ours` false and a source.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    keys = map(cell_text, (*table.row_names, *table.column_names))
    writer.writerow([*keys, "metric", "ours", *_NUMBERS, *_TEXTS])
    notes = {note.mark: note.text for note in table.notes}
    for row in table.rows:
        for column in table.columns:
            cell = table.cells.get((row, column)) or Cell([], "")
            numbers = (len(cell.runs), *map(_number, (cell.mean, cell.std, cell.low, cell.high)))
            run_ids = " ".join(run.run_id for run in cell.runs)
            texts = (
                *(cell.standing, " ".join(cell.seeds), run_ids),
                *(" ".join(notes[mark] for mark in cell.marks), ""),
            )
            values = (*row.labels, *column.labels, column.metric, "true", *numbers, *texts)
            writer.writerow(map(cell_text, values))
    for one in table.references:
        labels = [one.label, *[""] * (len(table.row_names) - 1)] if table.row_names else []
        source = f"{one.source}; encoder: {one.encoder}" + (f"; {one.note}" if one.note else "")
        for column, (mean, std) in one.figures.items():
            numbers = (one.runs, _number(mean), _number(std), "", "")
            values = (*labels, *column.labels, column.metric, "false", *numbers, *[""] * 4, source)
            writer.writerow(map(cell_text, values))
    return stream.getvalue()


def comparisons_csv(comparisons: Sequence[Comparison]) -> str:
    """Return one line a test; differences in the metric's own unit, shares in 0..1."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = [name for name in Comparison._fields if name != "column"]
    writer.writerow(["metric", "column", *names])
    for one in comparisons:
        values = [_number(value) if isinstance(value, float) else value for value in one[1:]]
        writer.writerow(map(cell_text, [one.column.metric, " ".join(one.column.labels), *values]))
    return stream.getvalue()


def _number(number: float) -> str:
    return "" if isnan(number) else repr(float(number))
