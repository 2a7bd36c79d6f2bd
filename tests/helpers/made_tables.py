"""A small table made by hand, with whatever names one likes."""

from __future__ import annotations

from math import nan

from hblm.tables.table import Cell, Column, Comparison, Note, Reference, Row, Run, Table

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
