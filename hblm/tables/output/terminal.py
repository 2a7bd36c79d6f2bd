"""A table on the terminal."""

from __future__ import annotations

from rich.table import Table as RichTable
from rich.text import Text

from hblm.console import VisibleConsole
from hblm.tables.output.text import EMPTY, foot, plain_text, reference_figure, reference_notes
from hblm.tables.table import Table

_ON_SCREEN = 60  # rows; the files have all


def print_table(table: Table) -> None:
    """Print a table with its caption, notes and explanation."""
    console = VisibleConsole()
    console.print(terminal(table))
    for sentence in (*table.caption, *foot(table), *reference_notes(table), *table.explanation):
        console.print(plain_text(sentence))


def terminal(table: Table) -> RichTable:
    """Return the table for a terminal."""
    drawn = RichTable(title=Text(plain_text(table.title)))
    for name in table.row_names:
        drawn.add_column(Text(plain_text(name)))
    for column in table.columns:
        drawn.add_column(Text(plain_text(column.text)), justify="right")
    for row in table.rows[:_ON_SCREEN]:
        cells = []
        for column in table.columns:
            cell = table.cells.get((row, column))
            style = {"best": "bold", "tied": "underline"}.get(cell.standing, "") if cell else ""
            text = Text(EMPTY if cell is None else table.figure(column, cell.mean, cell.std), style=style)
            if cell is not None and cell.marks:
                text.append(f" ({','.join(cell.marks)})", style="not bold not underline")
            cells.append(text)
        drawn.add_row(*(Text(plain_text(label)) for label in row.labels), *cells)
    if len(table.rows) > _ON_SCREEN:
        drawn.add_row(Text(f"... {len(table.rows) - _ON_SCREEN:,} more rows"))
    if table.references:
        drawn.add_section()
        for one in table.references:
            label = f"{one.label} ({one.encoder}), reference"
            figures = [reference_figure(table, one, column) for column in table.columns]
            blank = [""] * (len(table.row_names) - 1)
            drawn.add_row(*(Text(plain_text(text), style="dim italic") for text in (label, *blank, *figures)))
    return drawn
