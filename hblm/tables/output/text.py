"""A table as Markdown, CSV, LaTeX and on the terminal; `html.py` makes the HTML page."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from math import isnan, nan

from rich.table import Table as RichTable
from rich.text import Text

from hblm.files import cell_text
from hblm.tables.table import NOT_SAID, PLUS_MINUS, Cell, Column, Comparison, Table

HOLE = "–"


_ON_SCREEN = 60  # rows; the files have all


NOT_OURS = "not ours"


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]+")


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "Σ": r"$\Sigma$",
    "χ": r"$\chi$",
    "²": r"$^2$",
    "α": r"$\alpha$",
    "γ": r"$\gamma$",
    "–": r"--",
    "\N{REPLACEMENT CHARACTER}": "?",
}


def markdown(table: Table) -> str:
    """Return the table as Markdown: pipes, bold and underlined cells, notes, tests below."""
    heads = [*table.row_names, *(column.text for column in table.columns)]
    lines = [f"**{_md(table.title)}**", "", *(_md(sentence) for sentence in table.caption), ""]
    lines += [_pipes(_md(head) for head in heads)]
    lines += [_pipes([*["---"] * len(table.row_names), *["---:"] * len(table.columns)])]
    for row in table.rows:
        cells = [_md_cell(table, table.cells.get((row, column)), column) for column in table.columns]
        lines.append(_pipes([*map(_md, row.labels), *cells]))
    if table.references:
        lines += ["", f"Published or expected figures, {NOT_OURS}:", ""]
        heads = ["model", "encoder", "runs", "source", *(column.text for column in table.columns)]
        lines += [_pipes(map(_md, heads)), _pipes([*["---"] * 4, *["---:"] * len(table.columns)])]
        for one in table.references:
            figures = [_reference(table, one.figures, column) for column in table.columns]
            labels = (one.label, one.encoder, one.runs, one.source)
            lines.append(_pipes([*(f"*{_md(text)}*" for text in labels), *figures]))
        noted = reference_notes(table)
        lines += ["", *map(_md, noted)] if noted else []
    lines += [f"\n{_md(text)}" for text in foot(table)]
    if table.explanation:
        lines += ["", *(f"{_md(line)}  " for line in table.explanation)]
    return "\n".join(lines) + "\n"


def foot(table: Table) -> list[str]:
    """Return notes and tests in sentences, as every format but HTML and CSV has them."""
    notes = [f"({note.mark}) {note.text}" if note.mark else note.text for note in table.notes]
    return [*notes, *table.over_datasets]


def _sources(table: Table) -> list[str]:
    """Return a sentence on where the figures that are not ours stand, and of how many runs."""
    told = []
    for one in table.references:
        runs = "" if one.runs == NOT_SAID else f", {one.runs} run{'' if one.runs == '1' else 's'}"
        told.append(f"{one.label}: {one.source}{runs}")
    return [f"{NOT_OURS.capitalize()}. {'; '.join(dict.fromkeys(told))}."] if told else []


def reference_notes(table: Table) -> list[str]:
    """Return what must be known of figures that are not ours."""
    return list(dict.fromkeys(f"{one.label}: {one.note}." for one in table.references if one.note))


def latex(table: Table) -> str:
    """Return a table environment for booktabs; the preamble that it needs stands in its first comment."""
    n_columns = len(table.row_names) + len(table.columns)
    lines = [
        r"% \usepackage{booktabs} \usepackage[T1]{fontenc} \usepackage{textcomp}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{' '.join(_tex(text) for text in (table.title + '.', *table.caption))}}}",
        rf"\begin{{tabular}}{{{'l' * len(table.row_names)}{'r' * len(table.columns)}}}",
        r"\toprule",
    ]
    heads = [*map(_tex, table.row_names), *(_tex(column.text) for column in table.columns)]
    lines += [f"{' & '.join(heads)} \\\\", r"\midrule"]
    for row in table.rows:
        cells = [_tex_cell(table, table.cells.get((row, column)), column) for column in table.columns]
        lines.append(f"{' & '.join([*map(_tex, row.labels), *cells])} \\\\")
    if table.references:
        lines += [
            r"\midrule",
            rf"\multicolumn{{{n_columns}}}{{l}}{{\itshape Published or expected, {NOT_OURS}}} \\",
        ]
        for one in table.references:
            label = one.label if one.encoder == NOT_SAID else f"{one.label} ({one.encoder})"
            figures = [_tex(_reference(table, one.figures, column)) for column in table.columns]
            lead = rf"\multicolumn{{{max(1, len(table.row_names))}}}{{l}}{{\itshape {_tex(label)}}}"
            lines.append(f"{' & '.join([lead, *figures])} \\\\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    below = [*foot(table), *_sources(table), *reference_notes(table)]
    if below:
        lines += [r"\par\smallskip\footnotesize"]
        lines += [rf"{_tex(text)}\par" for text in below]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


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
            text = Text(HOLE if cell is None else table.figure(column, cell.mean, cell.std), style=style)
            if cell is not None and cell.marks:
                text.append(f" ({','.join(cell.marks)})", style="not bold not underline")
            cells.append(text)
        drawn.add_row(*(Text(plain_text(label)) for label in row.labels), *cells)
    if len(table.rows) > _ON_SCREEN:
        drawn.add_row(Text(f"... {len(table.rows) - _ON_SCREEN:,} more rows"))
    if table.references:
        drawn.add_section()
        for one in table.references:
            label = f"{one.label} ({one.encoder}), {NOT_OURS}"
            figures = [_reference(table, one.figures, column) for column in table.columns]
            blank = [""] * (len(table.row_names) - 1)
            drawn.add_row(*(Text(plain_text(text), style="dim italic") for text in (label, *blank, *figures)))
    return drawn


def plain_text(text: str) -> str:
    """Return a name on one line, with what steers terminals and direction of writing replaced."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _reference(table: Table, figures: object, column: Column) -> str:
    assert isinstance(figures, dict)
    mean, std = figures.get(column, (nan, nan))
    return HOLE if isnan(mean) else table.figure(column, mean, std)


def _csv(number: float) -> str:
    return "" if isnan(number) else repr(float(number))


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _md(text: str) -> str:
    """Keep a name from being read as Markdown or HTML."""
    text = plain_text(text)
    for sign in "\\`*_[]<>|~&$":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _md_cell(table: Table, cell: Cell | None, column: Column) -> str:
    if cell is None:
        return HOLE
    text = table.figure(column, cell.mean, cell.std)
    text = {"best": f"**{text}**", "tied": f"<u>{text}</u>"}.get(cell.standing, text)
    marks = f"<sup>{','.join(cell.marks)}</sup>" if cell.marks else ""
    return f"{text} (n={len(cell.runs)}){marks}"


def _tex(text: str) -> str:
    """Keep a name from being read as LaTeX; what no common font has stays as it is."""
    escaped = "".join(
        _LATEX.get(sign, sign) for sign in " ".join(plain_text(text).replace("--", "-\0-").split())
    )
    return escaped.replace("-\0-", "-{}-")


def _tex_cell(table: Table, cell: Cell | None, column: Column) -> str:
    if cell is None:
        return "--"
    text = table.figure(column, cell.mean, cell.std).replace(f" {PLUS_MINUS} ", r" $\pm$ ")
    text = {"best": rf"\textbf{{{text}}}", "tied": rf"\underline{{{text}}}"}.get(cell.standing, text)
    return text + (rf"\textsuperscript{{{','.join(cell.marks)}}}" if cell.marks else "")
