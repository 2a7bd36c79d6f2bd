"""A table as one HTML page: sortable, with the runs of every number, without network access."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

import jinja2

from hblm.tables.output.text import EMPTY, plain_text, reference_figure, reference_notes
from hblm.tables.p_values import p_in_words, source_of_p
from hblm.tables.table import Cell, Column, Comparison, Row, Run, Table

_TEMPLATE = Path(__file__).with_name("table.html.j2")


def page(table: Table, figures: Mapping[str, bytes]) -> str:
    """Return the page.

    Args:
        table: what is shown.
        figures: SVG by caption, embedded.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    numbers = {place: at for at, place in enumerate(_places(table))}
    text = template.render(
        table=table,
        heads=[{"labels": column.labels, "name": column.name} for column in table.columns],
        rows=[_row(table, row, numbers) for row in table.rows],
        references=[
            {"one": one, "cells": [reference_figure(table, one, column) for column in table.columns]}
            for one in table.references
        ],
        reference_notes=reference_notes(table),
        comparisons=[_comparison(one) for one in table.comparisons],
        runs=[
            _run(row, column, run, f"c{numbers[row, column]}")
            for row, column in numbers
            for run in table.cells[row, column].runs
        ],
        figures=[(caption, base64.b64encode(svg).decode("ascii")) for caption, svg in figures.items()],
    )
    # control characters, which no HTML may hold, can only come from names
    return "\n".join(map(plain_text, text.split("\n")))


def _places(table: Table) -> list[tuple[Row, Column]]:
    return [(row, column) for row in table.rows for column in table.columns if (row, column) in table.cells]


def _row(table: Table, row: Row, numbers: Mapping[tuple[Row, Column], int]) -> dict[str, Any]:
    cells: list[dict[str, Any] | None] = []
    for column in table.columns:
        cell = table.cells.get((row, column))
        if cell is None:
            cells.append(None)
            continue
        cells.append(
            {
                "id": f"c{numbers[row, column]}",
                "value": repr(cell.mean),
                "text": table.figure(column, cell.mean, cell.std),
                "n": len(cell.runs),
                "marks": cell.marks,
                "standing": cell.standing,
                "title": _hover(table, column, cell),
            }
        )
    return {"labels": row.labels, "cells": cells}


def _hover(table: Table, column: Column, cell: Cell) -> str:
    nothing = float("nan")
    lines = []
    if not isnan(cell.low):
        low, high = (table.figure(column, bound, nothing) for bound in (cell.low, cell.high))
        lines.append(f"interval of the mean {low} to {high}")
    lines += [
        f"seed {run.seed}: {table.figure(column, run.value, nothing)} run {run.run_id[:12]}"
        for run in cell.runs
    ]
    return "\n".join(lines)


def _comparison(one: Comparison) -> dict[str, Any]:
    scale = one.column.scale
    size = f"{scale * one.difference:+.2f}" if not isnan(one.difference) else EMPTY
    if not isnan(one.low):
        size += f" [{scale * one.low:.2f}, {scale * one.high:.2f}]"
    return {
        "one": one,
        "column": one.column.text,
        "size": size,
        "p": p_in_words(one.p, one.smallest_p, source_of_p(one.test, one.n), one.why),
        "p_adjusted": EMPTY if isnan(one.p_adjusted) else f"{one.p_adjusted:.3g}",
        "d_z": EMPTY if isnan(one.d_z) else f"{one.d_z:.2f}",
        "superiority": EMPTY if isnan(one.superiority) else f"{one.superiority:.2f}",
    }


def _run(row: Row, column: Column, run: Run, anchor: str) -> dict[str, Any]:
    commit = (run.commit or f"hblm {run.version or '?'}")[: 10 if run.commit else None]
    return {
        "row": row.text,
        "column": column.text,
        "run": run,
        "value": repr(run.value),
        "commit": commit + ("+" if run.dirty else ""),
        "data": run.data[:12],
        "anchor": anchor,
    }
