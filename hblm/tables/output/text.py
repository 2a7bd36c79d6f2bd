"""Texts that several formats share: names on one line, notes, and figures from elsewhere."""

from __future__ import annotations

import re
from math import isnan, nan

from hblm.tables.table import NOT_STATED, Column, Reference, Table

EMPTY = "–"
REFERENCES = "Reference figures, published or expected by the sweep"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]+")


def plain_text(text: str) -> str:
    """Return a text on one line, with control characters and marks of writing direction replaced."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def foot(table: Table) -> list[str]:
    """Return notes and tests in sentences, as every format but HTML and CSV has them."""
    notes = [f"({note.mark}) {note.text}" if note.mark else note.text for note in table.notes]
    return [*notes, *table.over_datasets]


def reference_notes(table: Table) -> list[str]:
    """Return the notes on reference figures."""
    return list(dict.fromkeys(f"{one.label}: {one.note}." for one in table.references if one.note))


def reference_sources(table: Table) -> list[str]:
    """Return a sentence with the source of each reference figure, and the number of its runs."""
    sources = []
    for one in table.references:
        runs = "" if one.runs == NOT_STATED else f", {one.runs} run{'' if one.runs == '1' else 's'}"
        sources.append(f"{one.label}: {one.source}{runs}")
    return [f"Sources of the reference figures. {'; '.join(dict.fromkeys(sources))}."] if sources else []


def reference_figure(table: Table, reference: Reference, column: Column) -> str:
    """Return a reference's figure in a column, a dash where it has none."""
    mean, std = reference.figures.get(column, (nan, nan))
    return EMPTY if isnan(mean) else table.figure(column, mean, std)
