"""Notes under a table: versions of data, missing seeds, commits, missing results; and the cells they mark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from hblm.tables.labels import natural
from hblm.tables.table import Cell, Column, Note, Row, Run, Table, plural

# what results were made with besides their settings; a note names runs or rows that differ in it
MADE_WITH = ("formulas", "precision", "processes", "device_kind")
_LISTED = 12  # cells, commits and rows that a note names


class Notes:
    """Notes in the order in which they are made, each text once, with marks a, b, c, ..."""

    def __init__(self) -> None:
        self._by_text: dict[str, Note] = {}
        self._n_marked = 0

    @property
    def all(self) -> list[Note]:
        """All notes, in order."""
        return list(self._by_text.values())

    def add(self, text: str) -> None:
        """Add a note on the whole table."""
        self._by_text.setdefault(text, Note("", text))

    def mark(self, text: str) -> str:
        """Return the mark of a note on cells."""
        if text not in self._by_text:
            self._by_text[text] = Note(_letters(self._n_marked), text)
            self._n_marked += 1
        return self._by_text[text].mark


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
            counts = sorted(f"{len(part)} with nodes {part['levels'].iloc[0]}" for _, part in trees)
            text = f"several label sets ({'; '.join(counts)})"
        else:
            text = "one label set, other documents or splits"
        mark = notes.mark(
            f"{name}: {versions[name]} versions of the prepared files, {text}. Each is shown "
            "separately; their numbers are not comparable."
        )
        names = names.mask(of_name, labels)
        marks |= dict.fromkeys(labels[of_name].unique(), mark)
    shown["dataset"] = names
    return shown, marks


def mark_cells(
    table: Table, versions: Mapping[str, str], made_with: Mapping[str, Mapping[str, str]], notes: Notes
) -> None:
    """Mark cells with notes on their data, seeds and commits; add notes on the table.

    Notes are on several versions of a dataset, other data than that of training, missing or double seeds, and
    several commits.

    Args:
        table: whose cells get marks.
        versions: the mark of each dataset that has several versions.
        made_with: name -> result file -> label; only names in which results differ.
        notes: gets the texts.
    """
    seeds_of: dict[tuple[Column, str], set[str]] = defaultdict(set)
    for (_, column), cell in table.cells.items():
        seeds_of[column, cell.dataset] |= set(cell.seeds)
    all_dirty = all(any(run.dirty for run in cell.runs) for cell in table.cells.values())
    for row in table.rows:
        for column in table.columns:
            if (row, column) in table.cells:
                cell = table.cells[row, column]
                marks = [versions.get(cell.dataset, "")]
                if cell.trained_on:
                    marks.append(notes.mark(f"Trained on {cell.trained_on}, scored on other data."))
                marks += map(notes.mark, _on_seeds(cell, seeds_of[column, cell.dataset]))
                marks += map(notes.mark, _on_code(cell, made_with, all_dirty))
                cell.marks = [mark for mark in dict.fromkeys(marks) if mark]
    if all_dirty:
        notes.add("All runs were made with uncommitted changes to the code.")
    commits = {_code(run) for cell in table.cells.values() for run in cell.runs}
    if len(commits) > 1:
        listed = ", ".join(sorted(commits)[:_LISTED])
        notes.add(f"The table's runs come from {len(commits)} commits: {listed}.")
    for name, label_of in made_with.items():
        if name not in table.row_names:
            _note_differing_rows(table, name, label_of, notes)
    _note_empty_cells(table, notes)


def _on_seeds(cell: Cell, everywhere: set[str]) -> Iterator[str]:
    """Yield notes on seeds of other rows that a cell lacks, and on seeds that it has twice."""
    missing = sorted(everywhere - set(cell.seeds), key=natural)
    if missing:
        yield (
            f"Unequal seeds: {_seeds(missing)} of other rows of the column "
            f"{'is' if len(missing) == 1 else 'are'} missing here."
        )
    double = sorted({seed for seed in cell.seeds if cell.seeds.count(seed) > 1}, key=natural)
    if double:
        yield (
            f"Several runs of {_seeds(double)}, with equal recorded keys but different run ids: "
            "all are in the mean."
        )


def _on_code(cell: Cell, made_with: Mapping[str, Mapping[str, str]], all_dirty: bool) -> Iterator[str]:
    """Yield notes on commits, and on what else the runs of a cell were made with."""
    by_commit = _seeds_by([(_code(run), run.seed) for run in cell.runs])
    if len(by_commit) > 1:
        yield f"Runs of {len(by_commit)} commits: {_seed_lists(by_commit)}."
    for name, label_of in made_with.items():
        by_label = _seeds_by([(label_of[run.file], run.seed) for run in cell.runs if run.file in label_of])
        if len(by_label) > 1:
            yield f"Runs of this cell differ in {name}: {_seed_lists(by_label)}."
    if any(run.dirty for run in cell.runs) and not all_dirty:
        yield "Made with uncommitted changes to the code."


def _note_differing_rows(table: Table, name: str, label_of: Mapping[str, str], notes: Notes) -> None:
    """Add a note where rows of one column differ in `name`; columns of other metrics count as one."""
    labels_of: dict[tuple[Row, tuple[str, ...]], set[str]] = defaultdict(set)
    for (row, column), cell in table.cells.items():
        labels_of[row, column.labels] |= {label_of[run.file] for run in cell.runs if run.file in label_of}
    columns_of: dict[str, list[str]] = defaultdict(list)  # text of the difference -> columns
    heads = list(dict.fromkeys(column.labels for column in table.columns))
    for head in heads:
        rows_of: dict[str, list[str]] = defaultdict(list)
        for row in table.rows:
            if labels_of.get((row, head)):
                rows_of[" and ".join(sorted(labels_of[row, head], key=natural))].append(row.text)
        if len(rows_of) > 1:
            texts = [f"{label} ({_listed(rows)})" for label, rows in sorted(rows_of.items())]
            columns_of[", ".join(texts)].append(" ".join(head))
    for text, columns in columns_of.items():
        where = "" if len(columns) == len(heads) else f" ({'; '.join(columns)})"
        notes.add(f"Rows differ in {name}{where}: {text}.")


def _note_empty_cells(table: Table, notes: Notes) -> None:
    empty: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for row in table.rows:
        for column in table.columns:
            if (row, column) not in table.cells:
                empty[row.labels].append(column.text)
    if empty:
        texts = [f"{', '.join(labels)}: {'; '.join(missing)}" for labels, missing in empty.items()]
        more = f" And {len(texts) - _LISTED} more rows." if len(texts) > _LISTED else ""
        n_empty = sum(map(len, empty.values()))
        notes.add(f"{plural(n_empty, 'cell')} without a result. {'. '.join(texts[:_LISTED])}.{more}")


def _listed(rows: Sequence[str]) -> str:
    more = [f"{len(rows) - _LISTED} more"] if len(rows) > _LISTED else []
    return "; ".join([*rows[:_LISTED], *more])


def _seeds_by(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Return label -> seeds, from pairs (label, seed)."""
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
