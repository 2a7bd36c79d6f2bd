"""Tables made by hand, of made-up scores, or of result files."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from pathlib import Path
from typing import Any

import made_results
import numpy as np

from hblm.tables.collect import collect
from hblm.tables.pivot import tabulate
from hblm.tables.query import TableQuery
from hblm.tables.table import Cell, Column, Comparison, Note, Reference, Row, Run, Table

Scores = Mapping[str, Mapping[int, float]]  # row -> seed -> score
MACRO = ("test.fused.macro_f1",)
HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=1">',
    r"\input{/etc/passwd} $x_1^2$ 100% & #1 {a} ~",
    "a|b*c*[d](javascript:alert(1))`e`",
    "line\nbreak \x1b[31mred\x00\u202e",
    "--- ---",
)


def run(seed: int, value: float, name: str = "r") -> Run:
    return Run(str(seed), value, f"{name}{seed}" * 8, f"{name}.json", "c" * 40, seed == 2, "0.1.0", "d" * 64)


def made(names: tuple[str, ...] = ("flat", "dual"), metric: str = "test macro-F1") -> Table:
    """Return a table of these rows in two columns; the last row has no result in the second."""
    columns = [Column((dataset,), "test.fused.macro_f1", metric, True, True) for dataset in ("wos", names[0])]
    rows = [Row((name,)) for name in names]
    cells = {
        (row, column): Cell(
            [run(1, 0.7 + at / 10, row.text), run(2, 0.72 + at / 10, row.text)],
            column.labels[0],
            0.71 + at / 10,
            0.0141,
            0.6,
            0.8 + at / 10,
        )
        for at, row in enumerate(rows)
        for column in columns
    }
    del cells[rows[-1], columns[1]]
    cells[rows[0], columns[0]].standing, cells[rows[0], columns[0]].marks = "tied", ["a"]
    cells[rows[-1], columns[0]].standing = "best"
    comparison = Comparison(
        columns[0], "wos", names[-1], names[0], "a test", 5, 0.1, 0.09, 0.11, 0.0625, 0.0625, 0.0625, 2.0, 1.0
    )
    return Table(
        title=f"Results of {names[0]}",
        row_names=("method",),
        column_names=("dataset",),
        rows=rows,
        columns=columns,
        cells=cells,
        caption=["Mean ± standard deviation.", "p ≤ 0.05."],
        notes=[Note("a", f"Seeds of {names[0]} are missing."), Note("", "1 hole.")],
        references=[
            Reference(
                "HPT", f"Table 1 of {names[0]}", "BERT-base", "1", {columns[0]: (0.8193, nan)}, "theirs"
            )
        ],
        comparisons=[comparison],
        explanation=[f"{names[0]} explained"],
    )


def table_of(columns: Mapping[str, Scores], higher_is_better: bool = True) -> Table:
    """Return a table; the first word of a column's name is its dataset."""
    cells = {}
    heads = {
        name: Column(tuple(name.split()), "test.macro_f1", "F1", True, higher_is_better) for name in columns
    }
    for name, scores in columns.items():
        for row, by_seed in scores.items():
            runs = [Run(str(seed), value, "", "", None, None, None, "") for seed, value in by_seed.items()]
            cells[Row((row,)), heads[name]] = Cell(runs, name.split()[0], float(np.mean([*by_seed.values()])))
    rows = list(dict.fromkeys(row for row, _ in cells))
    return Table("t", ("method",), ("dataset",), rows, list(heads.values()), cells, ["Mean."])


def seeds(*values: float, first: int = 1) -> dict[int, float]:
    return dict(enumerate(values, first))


def one_column(scores: Scores, **more: bool) -> Table:
    return table_of({"wos": scores}, **more)


WAVE = np.sin(np.arange(1, 31)) / 100


def rising(n: int, ahead: float = 0.0) -> dict[int, float]:
    """Return n scores, which differ from those of another `ahead` with the same sign in every seed."""
    return seeds(*(0.5 + WAVE[:n] * (1 + ahead) + ahead))


def table_from(folder: Path, **query: Any) -> Table:
    """Return the table of result files, of test macro-F1 if the query names no metric."""
    return tabulate(collect([folder]), TableQuery(**{"metrics": MACRO, **query}))[0]


def cell(table: Table, row: str, column: str = "wos") -> Cell | None:
    (at_row,) = [one for one in table.rows if one.text == row]
    (at_column,) = [one for one in table.columns if " ".join(one.labels) == column]
    return table.cells.get((at_row, at_column))


def notes(table: Table, one: Cell | None = None) -> list[str]:
    """Return the texts of notes, of a cell or on the whole table."""
    marks = [""] if one is None else one.marks
    return [note.text for note in table.notes if note.mark in marks]


def grid(folder: Path, ahead: dict[str, float], seeds: int, datasets: tuple[str, ...] = ("wos",)) -> Table:
    made_results.write_grid(folder, ahead, datasets, tuple(range(1, seeds + 1)))
    return table_from(folder)
