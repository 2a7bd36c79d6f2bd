"""A table and its tests as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from math import isnan

from hblm.files import cell_text
from hblm.tables.table import Cell, Comparison, Table


def table_csv(table: Table) -> str:
    """Return one line a cell: labels, metric, n, mean, std, interval, seeds, run ids, notes; holes as n = 0.

    Shares are in 0..1. Figures that are not ours have `ours` false and their source.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    keys = [*table.row_names, *table.column_names]
    names = [
        "metric",
        "ours",
        "n",
        "mean",
        "std",
        "low",
        "high",
        "standing",
        "seeds",
        "run_ids",
        "notes",
        "source",
    ]
    writer.writerow([*map(cell_text, keys), *names])
    notes = {note.mark: note.text for note in table.notes}
    for row in table.rows:
        for column in table.columns:
            cell = table.cells.get((row, column)) or Cell([], "")
            numbers = [_csv(number) for number in (cell.mean, cell.std, cell.low, cell.high)]
            told = " ".join(notes[mark] for mark in cell.marks)
            ids = " ".join(run.run_id for run in cell.runs)
            found = [
                *(*row.labels, *column.labels, column.metric, "true", len(cell.runs), *numbers),
                *(cell.standing, " ".join(cell.seeds), ids, told, ""),
            ]
            writer.writerow(map(cell_text, found))
    for one in table.references:
        for column, (mean, std) in one.figures.items():
            labels = [one.label, *[""] * (len(table.row_names) - 1)] if table.row_names else []
            source = f"{one.source}; encoder: {one.encoder}" + (f"; {one.note}" if one.note else "")
            found = [
                *(*labels, *column.labels, column.metric, "false", one.runs, _csv(mean), _csv(std)),
                *([""] * 6),
                source,
            ]
            writer.writerow(map(cell_text, found))
    return stream.getvalue()


def comparisons_csv(comparisons: Sequence[Comparison]) -> str:
    """Return one line a test; differences in the metric's own unit, shares in 0..1."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = [name for name in Comparison._fields if name != "column"]
    writer.writerow(["metric", "column", *names])
    for one in comparisons:
        values = [_csv(v) if isinstance(v, float) else v for v in one[1:]]
        writer.writerow(map(cell_text, [one.column.metric, " ".join(one.column.labels), *values]))
    return stream.getvalue()


def _csv(number: float) -> str:
    return "" if isnan(number) else repr(float(number))
