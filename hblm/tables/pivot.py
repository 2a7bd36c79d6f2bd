"""Results to cells: means over seeds, by any keys of rows and columns.

Nothing but seeds is averaged over. Where runs of a cell differ in another key, that key becomes a row key;
versions of a dataset are separate datasets. Empty cells, missing seeds and several commits become notes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from hblm.tables.caption import describe_numbers
from hblm.tables.footnotes import MADE_WITH, Notes, datasets_apart, mark_cells
from hblm.tables.grouping import Keys, split_keys
from hblm.tables.labels import labels_of, natural, shortened, sort_key
from hblm.tables.metric import Metric, column_of, metric_of
from hblm.tables.query import TableQuery, measurements
from hblm.tables.significance import mean_interval, t_factors
from hblm.tables.table import Cell, Column, Row, Run, Table


def tabulate(frame: pd.DataFrame, query: TableQuery) -> tuple[Table, pd.DataFrame]:
    """Return the table of a query, and the measurements that it shows.

    Args:
        frame: of `collect`.
        query: what is shown.

    Raises:
        ConfigError: a key, metric or value that the results do not have.
        DataError: no result is left.
    """
    options = frame.attrs["keys"]
    frame = frame.copy(deep=False)
    frame.attrs = {}  # pandas copies them, file by file, whenever a column is taken
    notes = Notes()
    shown, versions = datasets_apart(measurements(frame, query), notes)
    keys = split_keys(shown, query.rows, query.columns, options)
    if keys.added:
        notes.add(
            f"Runs differ in more than their seed, so rows were split by {', '.join(keys.added)}: "
            "means are over seeds only."
        )
    metrics = [metric_of(text) for text in query.metrics]
    rows, columns, cells = _cells(shown, keys, metrics)
    _summarise(list(cells.values()), query)
    table = Table(
        title=query.title,
        row_names=tuple(keys.rows),
        column_names=tuple(keys.columns),
        rows=rows,
        columns=columns,
        cells=cells,
        caption=describe_numbers(query, metrics, shown, cells.values()),
    )
    mark_cells(table, versions, _made_with(shown), notes)
    table.notes = notes.all
    return table, shown


def _cells(
    shown: pd.DataFrame, keys: Keys, metrics: Sequence[Metric]
) -> tuple[list[Row], list[Column], dict[tuple[Row, Column], Cell]]:
    """Return rows and columns in order, and the cells with their runs."""
    labels = shortened({name: labels_of(shown[name]) for name in (*keys.rows, *keys.columns)})
    row_labels = _tuples([labels[name] for name in keys.rows], len(shown))
    column_labels = _tuples([labels[name] for name in keys.columns], len(shown))
    heads = list(zip(column_labels, shown["metric"].tolist(), strict=True))  # labels, position of the metric
    columns = {head: column_of(head[0], metrics[head[1]]) for head in dict.fromkeys(heads)}
    runs_of: dict[tuple[Row, Column], list[Run]] = defaultdict(list)
    data_of: dict[tuple[Row, Column], tuple[str, str]] = {}
    of_data = zip(shown["dataset"], shown["trained_on"].fillna(""), strict=True)
    for row, head, run, data in zip(row_labels, heads, _runs(shown), of_data, strict=True):
        place = Row(row), columns[head]
        runs_of[place].append(run)
        data_of[place] = data
    cells = {}
    for place, runs in runs_of.items():
        dataset, trained_on = data_of[place]
        in_order = sorted(runs, key=lambda run: (natural(run.seed), run.run_id))
        cells[place] = Cell(in_order, dataset, trained_on=trained_on)
    rows = sorted({row for row, _ in cells}, key=lambda row: sort_key(keys.rows, row.labels))
    ordered = sorted(columns, key=lambda head: (sort_key(keys.columns, head[0]), head[1]))
    return rows, [columns[head] for head in ordered], cells


def _tuples(labels: Iterable[pd.Series[str]], length: int) -> list[tuple[str, ...]]:
    """Return the labels of each row; empty tuples where there are no keys."""
    return list(zip(*labels, strict=True)) or [()] * length


def _runs(shown: pd.DataFrame) -> list[Run]:
    columns = []
    for name in ("seed", "value", "run_id", "file", "git_commit", "git_dirty", "hblm", "data"):
        values = shown[name].astype(object)
        columns.append(values.where(values.notna(), None).tolist())
    columns[0] = labels_of(shown["seed"]).tolist()
    return [Run(*values) for values in zip(*columns, strict=True)]


def _summarise(cells: Sequence[Cell], query: TableQuery) -> None:
    """Set each cell's mean, standard deviation and interval."""
    counts = np.array([len(cell.runs) for cell in cells])
    values = np.concatenate([[run.value for run in cell.runs] for cell in cells])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    means = np.add.reduceat(values, starts) / counts
    squares = np.add.reduceat((values - np.repeat(means, counts)) ** 2, starts)
    with np.errstate(divide="ignore", invalid="ignore"):
        stds = np.where(counts > 1, np.sqrt(squares / (counts - 1)), np.nan)
        half = stds * t_factors(counts, query.confidence)
    for cell, mean, std, width in zip(cells, means, stds, half, strict=True):
        cell.mean, cell.std = float(mean), float(std)
        cell.low, cell.high = float(mean - width), float(mean + width)
        if query.interval == "bootstrap":
            scores = [run.value for run in cell.runs]
            cell.low, cell.high = mean_interval(scores, query.confidence, "bootstrap")


def _made_with(shown: pd.DataFrame) -> Mapping[str, Mapping[str, str]]:
    """Return name -> file -> label, for each name of MADE_WITH in which results differ."""
    made_with = {}
    for name in MADE_WITH:
        if shown[name].nunique() > 1:
            recorded = shown[shown[name].notna()]
            made_with[name] = dict(zip(recorded["file"], labels_of(recorded[name]), strict=True))
    return made_with
