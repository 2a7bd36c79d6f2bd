"""A table as Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from hblm.tables.output.text import EMPTY, REFERENCES, foot, plain_text, reference_figure, reference_notes
from hblm.tables.table import Cell, Column, Table


def markdown(table: Table) -> str:
    """Return the table as Markdown, with references, notes and tests below."""
    heads = [*table.row_names, *(column.text for column in table.columns)]
    lines = [f"**{_md(table.title)}**", "", *(_md(sentence) for sentence in table.caption), ""]
    lines += [_pipes(_md(head) for head in heads)]
    lines += [_pipes([*["---"] * len(table.row_names), *["---:"] * len(table.columns)])]
    for row in table.rows:
        cells = [_md_cell(table, table.cells.get((row, column)), column) for column in table.columns]
        lines.append(_pipes([*map(_md, row.labels), *cells]))
    if table.references:
        lines += ["", f"{REFERENCES}:", ""]
        heads = ["model", "encoder", "runs", "source", *(column.text for column in table.columns)]
        lines += [_pipes(map(_md, heads)), _pipes([*["---"] * 4, *["---:"] * len(table.columns)])]
        for one in table.references:
            figures = [reference_figure(table, one, column) for column in table.columns]
            labels = (one.label, one.encoder, one.runs, one.source)
            lines.append(_pipes([*(f"*{_md(text)}*" for text in labels), *figures]))
        notes = reference_notes(table)
        lines += ["", *map(_md, notes)] if notes else []
    lines += [f"\n{_md(text)}" for text in foot(table)]
    if table.explanation:
        lines += ["", *(f"{_md(line)}  " for line in table.explanation)]
    return "\n".join(lines) + "\n"


def _md(text: str) -> str:
    """Escape Markdown and HTML."""
    text = plain_text(text)
    for character in "\\`*_[]<>|~&$":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def _md_cell(table: Table, cell: Cell | None, column: Column) -> str:
    if cell is None:
        return EMPTY
    text = table.figure(column, cell.mean, cell.std)
    text = {"best": f"**{text}**", "tied": f"<u>{text}</u>"}.get(cell.standing, text)
    marks = f"<sup>{','.join(cell.marks)}</sup>" if cell.marks else ""
    return f"{text} (n={len(cell.runs)}){marks}"


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
