"""A table as LaTeX, with booktabs."""

from __future__ import annotations

from hblm.tables.output.text import (
    REFERENCES,
    foot,
    plain_text,
    reference_figure,
    reference_notes,
    reference_sources,
)
from hblm.tables.table import NOT_STATED, PLUS_MINUS, Cell, Column, Table

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


def latex(table: Table) -> str:
    """Return a table environment for booktabs; a comment in its first line names the packages it needs."""
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
            rf"\multicolumn{{{n_columns}}}{{l}}{{\itshape {_tex(REFERENCES)}}} \\",
        ]
        for one in table.references:
            label = one.label if one.encoder == NOT_STATED else f"{one.label} ({one.encoder})"
            figures = [_tex(reference_figure(table, one, column)) for column in table.columns]
            lead = rf"\multicolumn{{{max(1, len(table.row_names))}}}{{l}}{{\itshape {_tex(label)}}}"
            lines.append(f"{' & '.join([lead, *figures])} \\\\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    below = [*foot(table), *reference_sources(table), *reference_notes(table)]
    if below:
        lines += [r"\par\smallskip\footnotesize"]
        lines += [rf"{_tex(text)}\par" for text in below]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _tex(text: str) -> str:
    """Escape LaTeX; characters that no common font has stay as they are."""
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
