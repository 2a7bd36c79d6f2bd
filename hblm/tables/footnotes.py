"""What a reader must know of a table: notes on data, seeds, commits and holes, and the cells they mark."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hblm.tables.table import NOTHING, Column, Note, Row, Run, Table, plural

# what results were made with besides their settings; a note says where runs or rows differ in it
MADE_WITH = ("formulas", "precision", "processes", "device_kind")


_LISTED = 12  # holes, commits and rows that a note names


class Notes:
    """Notes in the order in which they are made, each text once, with marks a, b, c, ..."""

    def __init__(self) -> None:
        self.found: dict[str, Note] = {}
        self.n_marked = 0

    def add(self, text: str, *, marked: bool = False) -> str:
        """Return the mark of a note, "" of one that speaks of the whole table."""
        if text not in self.found:
            self.found[text] = Note(_letters(self.n_marked) if marked else "", text)
            self.n_marked += marked
        return self.found[text].mark


def _letters(number: int) -> str:
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return letters


def datasets_apart(shown: pd.DataFrame, notes: Notes) -> tuple[pd.DataFrame, dict[str, str]]:
    """Give each version of a dataset a name of its own, and a note; return the mark by dataset."""
    marks: dict[str, str] = {}
    shown = shown.copy(deep=False)
    names = shown["dataset"].astype(str)
    versions = shown.assign(dataset=names).groupby("dataset", sort=True)["data"].nunique()
    for name in versions[versions > 1].index:
        of_name = names == name
        labels = name + " (data " + shown["data"].astype(str).str[:8] + ")"
        trees = shown[of_name].drop_duplicates("data").groupby("taxonomy", sort=False)
        if len(trees) > 1:
            told = sorted(f"{len(part)} with nodes {part['levels'].iloc[0]}" for _, part in trees)
            text = f"several label sets ({'; '.join(told)})"
        else:
            text = "one label set, other documents or splits"
        mark = notes.add(
            f"{name}: {versions[name]} versions of the prepared files, {text}. They are shown apart; their "
            "numbers are not comparable.",
            marked=True,
        )
        names = names.mask(of_name, labels)
        marks |= dict.fromkeys(labels[of_name].unique(), mark)
    shown["dataset"] = names
    return shown, marks


def natural(text: str) -> tuple[Any, ...]:
    """Order numbers by value, texts with numbers in them by both, what has no value last."""
    try:
        return (0, float(text), ())
    except ValueError:
        parts = re.split(r"(\d+)", text)
        return (1 + (text == NOTHING), 0.0, tuple((part.isdigit(), part.zfill(12)) for part in parts))


def mark_cells(
    table: Table, versions: Mapping[str, str], made_with: Mapping[str, Mapping[str, str]], notes: Notes
) -> None:
    """Mark what must not be overlooked: versions of data, missing or double seeds, commits, holes.

    Args:
        table: whose cells get marks.
        versions: the mark of each dataset that has several versions.
        made_with: name -> result file -> label; only names in which results differ.
        notes: gets the texts.
    """
    everywhere: dict[tuple[Column, str], set[str]] = defaultdict(set)
    for (_, column), cell in table.cells.items():
        everywhere[column, cell.dataset] |= set(cell.seeds)
    codes: set[str] = set()
    dirty = [any(run.dirty for run in cell.runs) for cell in table.cells.values()]
    for row in table.rows:
        for column in table.columns:
            found = table.cells.get((row, column))
            if found is None:
                continue
            marks = [versions.get(found.dataset, "")]
            missing = sorted(everywhere[column, found.dataset] - set(found.seeds), key=natural)
            if missing:
                marks.append(
                    notes.add(
                        f"Unequal seeds: {_seeds(missing)} of other rows of the column "
                        f"{'is' if len(missing) == 1 else 'are'} missing here.",
                        marked=True,
                    )
                )
            double = sorted({seed for seed in found.seeds if found.seeds.count(seed) > 1}, key=natural)
            if double:
                marks.append(
                    notes.add(
                        f"Several runs of {_seeds(double)}, alike in all keys that are recorded, under "
                        "different run ids: all are in the mean.",
                        marked=True,
                    )
                )
            by_code = _seeds_by([(_code(run), run.seed) for run in found.runs])
            codes |= set(by_code)
            if len(by_code) > 1:
                text = f"Runs of {len(by_code)} commits: {_seed_lists(by_code)}."
                marks.append(notes.add(text, marked=True))
            for name, label_of in made_with.items():
                by_label = _seeds_by(
                    [(label_of[run.file], run.seed) for run in found.runs if run.file in label_of]
                )
                if len(by_label) > 1:
                    text = f"Runs of this cell differ in {name}: {_seed_lists(by_label)}."
                    marks.append(notes.add(text, marked=True))
            if any(run.dirty for run in found.runs) and not all(dirty):
                marks.append(notes.add("Made with uncommitted changes to the code.", marked=True))
            found.marks = [mark for mark in dict.fromkeys(marks) if mark]
    if dirty and all(dirty):
        notes.add("All runs were made with uncommitted changes to the code.")
    if len(codes) > 1:
        listed = ", ".join(sorted(codes)[:_LISTED])
        notes.add(f"The table's runs come from {len(codes)} commits: {listed}.")
    for name, label_of in made_with.items():
        if name not in table.row_names:
            _note_rows_that_differ(table, name, label_of, notes)
    _name_holes(table, notes)


def _note_rows_that_differ(table: Table, name: str, label_of: Mapping[str, str], notes: Notes) -> None:
    """Add a note where rows of one column differ in `name`; columns of other metrics count as one."""
    found: dict[tuple[Row, tuple[str, ...]], set[str]] = defaultdict(set)
    for (row, column), cell in table.cells.items():
        found[row, column.labels] |= {label_of[run.file] for run in cell.runs if run.file in label_of}
    where: dict[str, list[str]] = defaultdict(list)  # text -> columns
    columns = list(dict.fromkeys(column.labels for column in table.columns))
    for labels in columns:
        rows_of: dict[str, list[str]] = defaultdict(list)
        for row in table.rows:
            if found.get((row, labels)):
                rows_of[" and ".join(sorted(found[row, labels], key=natural))].append(row.text)
        if len(rows_of) > 1:
            texts = [f"{label} ({_listed(rows)})" for label, rows in sorted(rows_of.items())]
            where[", ".join(texts)].append(" ".join(labels))
    for text, named in where.items():
        of = "" if len(named) == len(columns) else f" ({'; '.join(named)})"
        notes.add(f"Rows differ in {name}{of}: {text}.")


def _listed(rows: Sequence[str]) -> str:
    more = [f"{len(rows) - _LISTED} more"] if len(rows) > _LISTED else []
    return "; ".join([*rows[:_LISTED], *more])


def _name_holes(table: Table, notes: Notes) -> None:
    holes: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for row in table.rows:
        for column in table.columns:
            if (row, column) not in table.cells:
                holes[row.labels].append(column.text)
    if holes:
        told = [f"{', '.join(labels)}: {'; '.join(missing)}" for labels, missing in holes.items()]
        more = f" And {len(told) - _LISTED} more rows." if len(told) > _LISTED else ""
        n_holes = sum(map(len, holes.values()))
        notes.add(f"{plural(n_holes, 'hole')} (no result). {'. '.join(told[:_LISTED])}.{more}")


def _seeds_by(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the seeds of each label, of pairs (label, seed)."""
    seeds: dict[str, list[str]] = defaultdict(list)
    for label, seed in pairs:
        seeds[label].append(seed)
    return seeds


def _seed_lists(by_label: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{label}: {_seeds(seeds)}" for label, seeds in sorted(by_label.items()))


def _seeds(seeds: Sequence[str]) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(seeds)}"


def _code(run: Run) -> str:
    return run.commit[:10] if run.commit else f"hblm {run.version or 'of unknown version'}"
