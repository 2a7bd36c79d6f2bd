"""Figures of a table: its cells and results as the panels that are drawn."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from hblm.json_files import read_object
from hblm.tables.metric import Metric
from hblm.tables.output.drawing import Drawing
from hblm.tables.output.figures import Group, Panel, Series, lines, points
from hblm.tables.output.rank_diagram import critical_difference
from hblm.tables.rankings import Ranking
from hblm.tables.result_columns import RUNS
from hblm.tables.table import Column, Row, Table

Figures = Iterator[tuple[str, str, Drawing]]  # name of the file, caption, drawing


def draw(
    names: Sequence[str],
    table: Table,
    shown: pd.DataFrame,
    frame: pd.DataFrame,
    metrics: Sequence[Metric],
    rankings: Sequence[Ranking],
) -> Figures:
    """Yield figures, as far as the results have what they show.

    Args:
        names: of FIGURES.
        table: whose rows are the figures' series.
        shown: the measurements that it shows.
        frame: all results, among them the training runs of evaluations.
        metrics: of the table's columns.
        rankings: of the rows over datasets.
    """
    scores = [(at, metric) for at, metric in enumerate(metrics) if metric.split is not None]
    for _, metric in scores if "seeds" in names else ():
        yield _seeds(table, metric)
    for at, metric in scores if "levels" in names else ():
        yield from _levels(table, shown[shown["metric"] == at], metric)
    for at, metric in scores if "frequency" in names else ():
        yield from _frequency(table, shown[shown["metric"] == at], metric)
    if "curves" in names:
        yield from _curves(table, frame, [metric for _, metric in scores])
    for ranking in rankings if "critical_difference" in names else ():
        yield _critical_difference(ranking)


def _seeds(table: Table, metric: Metric) -> tuple[str, str, Drawing]:
    panels = []
    for column in _columns(table, metric):
        groups = [
            Group(row.text, [run.value for run in cell.runs], cell.low, cell.high)
            for row in table.rows
            if (cell := table.cells.get((row, column)))
        ]
        panels.append((_title(column), groups))
    drawing = points(panels, x_label=f"{metric.name} (%)")
    return f"seeds.{_slug(metric.text)}", f"{metric.name}: every seed, the mean and its interval", drawing


def _levels(table: Table, shown: pd.DataFrame, metric: Metric) -> Figures:
    panels = _by_part(table, shown, metric, r"level_(\d+)")
    if panels:
        drawing = lines(panels, x_label="level", y_label=f"{metric.name} (%)")
        yield f"levels.{_slug(metric.text)}", f"{metric.name} by level", drawing


def _frequency(table: Table, shown: pd.DataFrame, metric: Metric) -> Figures:
    panels = _by_part(table, shown, metric, r"frequency_(.+)")
    if panels:
        drawing = lines(panels, x_label="training documents of a node", y_label=f"{metric.name} (%)")
        caption = f"{metric.name} by how many training documents a node has"
        yield f"frequency.{_slug(metric.text)}", caption, drawing


def _by_part(table: Table, shown: pd.DataFrame, metric: Metric, pattern: str) -> list[Panel]:
    """Return a panel for each column with a metric by parts of the nodes; none without such scores.

    Args:
        table: whose rows are the series.
        shown: the measurements of the metric.
        metric: the metric of all nodes.
        pattern: of the part in the name of a score, such as level_0.
    """
    part_of = {
        str(name): match[1]
        for name in shown.columns
        if (match := re.fullmatch(rf"{pattern}\.{re.escape(metric.score)}", str(name)))
    }
    if not part_of:
        return []
    ordered = sorted(part_of, key=lambda name: [int(part) for part in re.findall(r"\d+", part_of[name])])
    by_file = shown.drop_duplicates("file").set_index("file")[ordered]
    panels = []
    for column in _columns(table, metric):
        series = {
            row: by_file.loc[[run.file for run in cell.runs]]
            for row in table.rows
            if (cell := table.cells.get((row, column)))
        }
        present = [name for name in ordered if any(scores[name].notna().any() for scores in series.values())]
        panels.append(
            Panel(
                _title(column),
                [part_of[name] for name in present],
                [
                    Series(row.text, [scores[name].dropna().tolist() for name in present])
                    for row, scores in series.items()
                ],
            )
        )
    return panels


def _curves(table: Table, frame: pd.DataFrame, metrics: Sequence[Metric]) -> Figures:
    """Yield validation scores by epoch, of the training runs of the cells; one figure a score."""
    trained = frame[frame["kind"].isin(RUNS)].drop_duplicates("run_id")
    file_of: dict[str, str] = dict(zip(trained["run_id"], trained["file"], strict=True))

    @functools.cache
    def history_of(run_id: str) -> list[dict[str, float]]:
        return read_object(Path(file_of[run_id])).get("history") or [] if run_id in file_of else []

    first_of: dict[str, Metric] = {}  # of several metrics of one score the first
    for metric in metrics:
        first_of.setdefault(f"val_{metric.score}", metric)
    for score, metric in first_of.items():
        panels = [_epochs(table, column, score, history_of) for column in _columns(table, metric)]
        if any(panel.series for panel in panels):
            name = metric.name.replace("test", "validation", 1)
            drawing = lines(panels, x_label="epoch", y_label=f"{name} (%)")
            yield f"curves.{_slug(score)}", f"{name} by epoch of training", drawing


def _epochs(
    table: Table, column: Column, score: str, history_of: Callable[[str], list[dict[str, float]]]
) -> Panel:
    """Return a panel with a score by epoch; a row without a training run has no series."""
    by_epoch_of: dict[Row, dict[int, list[float]]] = {}
    for row in table.rows:
        by_epoch: dict[int, list[float]] = {}
        cell = table.cells.get((row, column))
        for run in cell.runs if cell else ():
            for epoch in history_of(run.run_id):
                if score in epoch:
                    by_epoch.setdefault(int(epoch["epoch"]), []).append(epoch[score])
        if by_epoch:
            by_epoch_of[row] = by_epoch
    epochs = sorted({epoch for by_epoch in by_epoch_of.values() for epoch in by_epoch})
    series = [
        Series(row.text, [by_epoch.get(epoch, []) for epoch in epochs])
        for row, by_epoch in by_epoch_of.items()
    ]
    return Panel(_title(column), epochs, series)


def _critical_difference(ranking: Ranking) -> tuple[str, str, Drawing]:
    drawing = critical_difference(
        [row.text for row in ranking.rows],
        ranking.ranks.mean_ranks.tolist(),
        ranking.ranks.critical_difference,
        title=f"{ranking.name}, mean rank over {len(ranking.datasets)} datasets",
    )
    caption = f"{ranking.name}: critical difference of mean ranks (Nemenyi)"
    return f"critical_difference.{_slug(ranking.metric)}", caption, drawing


def _columns(table: Table, metric: Metric) -> list[Column]:
    return [column for column in table.columns if column.metric == metric.text]


def _title(column: Column) -> str:
    return " ".join(column.labels) or column.name


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)
