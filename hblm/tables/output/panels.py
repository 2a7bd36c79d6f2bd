"""What each figure shows of a table: from cells and results to the panels that `figures.py` draws."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from hblm.json_files import read_object
from hblm.tables.metric import Metric
from hblm.tables.output.figures import Drawing, Group, Panel, Series, critical_difference, lines, points
from hblm.tables.rankings import Ranking
from hblm.tables.table import Column, Table

Drawn = Iterator[tuple[str, str, Drawing]]  # name of the file, caption, picture


def draw(
    names: Sequence[str],
    table: Table,
    shown: pd.DataFrame,
    frame: pd.DataFrame,
    metrics: Sequence[Metric],
    rankings: Sequence[Ranking],
) -> Drawn:
    """Yield the figures that are asked for, as far as the results hold what they show.

    Args:
        names: of FIGURES.
        table: whose rows are the figures' series.
        shown: the results it shows.
        frame: all results, where the training runs of evaluations are found.
        metrics: of the table's columns.
        rankings: of the rows over datasets.
    """
    if "seeds" in names:
        yield from _seeds(table, metrics)
    if "levels" in names:
        yield from _parts(table, shown, metrics, "levels", r"level_(\d+)", "level", "by level")
    if "frequency" in names:
        yield from _parts(
            table,
            shown,
            metrics,
            "frequency",
            r"frequency_(.+)",
            "training documents of a node",
            "by how many training documents a node has",
        )
    if "curves" in names:
        yield from _curves(table, frame, metrics)
    if "critical_difference" in names:
        for ranking in rankings:
            drawing = critical_difference(
                [row.text for row in ranking.rows],
                ranking.ranks.mean_ranks.tolist(),
                ranking.ranks.critical_difference,
                title=f"{ranking.name}, mean rank over {len(ranking.datasets)} datasets",
            )
            caption = f"{ranking.name}: critical difference of mean ranks (Nemenyi)"
            yield f"critical_difference.{_slug(ranking.metric)}", caption, drawing


def _seeds(table: Table, metrics: Sequence[Metric]) -> Drawn:
    for metric in metrics:
        panels = []
        for column in _columns(table, metric):
            groups = [
                Group(row.text, [run.value for run in cell.runs], cell.low, cell.high)
                for row in table.rows
                if (cell := table.cells.get((row, column)))
            ]
            panels.append((_title(column), groups))
        if metric.split is not None:
            yield (
                f"seeds.{_slug(metric.text)}",
                f"{metric.name}: every seed, the mean and its interval",
                points(panels, x_label=f"{metric.name} (%)"),
            )


def _parts(
    table: Table,
    shown: pd.DataFrame,
    metrics: Sequence[Metric],
    figure: str,
    pattern: str,
    x_label: str,
    caption: str,
) -> Drawn:
    """Yield a score by level or by frequency, a line a row."""
    for at, metric in enumerate(metrics):
        names = {
            str(name): match[1]
            for name in shown.columns
            if (match := re.fullmatch(rf"{pattern}\.{re.escape(metric.score)}", str(name)))
        }
        if metric.split is None or not names:
            continue
        ordered = sorted(names, key=lambda name: [int(part) for part in re.findall(r"\d+", names[name])])
        of_metric = shown[shown["metric"] == at].drop_duplicates("file").set_index("file")[ordered]
        panels = []
        for column in _columns(table, metric):
            series = []
            for row in table.rows:
                cell = table.cells.get((row, column))
                if cell is not None:
                    part = of_metric.loc[[run.file for run in cell.runs]]
                    series.append(Series(row.text, [part[name].dropna().tolist() for name in ordered]))
            has = [any(one.points[place] for one in series) for place in range(len(ordered))]
            ticks = [names[name] for name, is_there in zip(ordered, has, strict=True) if is_there]
            kept = [
                Series(one.label, [p for p, is_there in zip(one.points, has, strict=True) if is_there])
                for one in series
            ]
            panels.append(Panel(_title(column), ticks, kept))
        drawing = lines(panels, x_label=x_label, y_label=f"{metric.name} (%)")
        yield f"{figure}.{_slug(metric.text)}", f"{metric.name} {caption}", drawing


def _curves(table: Table, frame: pd.DataFrame, metrics: Sequence[Metric]) -> Drawn:
    """Yield validation scores by epoch, of the training runs behind the cells."""
    trained = frame[frame["kind"].isin(("single", "joint"))].drop_duplicates("run_id")
    file_of: Mapping[str, str] = dict(zip(trained["run_id"], trained["file"], strict=True))
    histories: dict[str, list[dict[str, float]]] = {}
    done = set()
    for metric in metrics:
        score = f"val_{metric.score}"
        if metric.split is None or score in done:
            continue
        done.add(score)
        panels = []
        for column in _columns(table, metric):
            series = []
            for row in table.rows:
                cell = table.cells.get((row, column))
                found = (
                    []
                    if cell is None
                    else [
                        _history(file_of[run.run_id], histories) for run in cell.runs if run.run_id in file_of
                    ]
                )
                by_epoch: dict[int, list[float]] = {}
                for entry in (entry for history in found for entry in history if score in entry):
                    by_epoch.setdefault(int(entry["epoch"]), []).append(entry[score])
                series.append((row.text, by_epoch))
            epochs = sorted({epoch for _, by_epoch in series for epoch in by_epoch})
            panels.append(
                Panel(
                    _title(column),
                    epochs,
                    [Series(label, [of.get(epoch, []) for epoch in epochs]) for label, of in series if of],
                )
            )
        if any(panel.series for panel in panels):
            name = metric.name.replace("test", "validation", 1)
            drawing = lines(panels, x_label="epoch", y_label=f"{name} (%)")
            yield f"curves.{_slug(score)}", f"{name} by epoch of training", drawing


def _history(file: str, known: dict[str, list[dict[str, float]]]) -> list[dict[str, float]]:
    if file not in known:
        known[file] = read_object(Path(file)).get("history") or []
    return known[file]


def _columns(table: Table, metric: Metric) -> list[Column]:
    return [column for column in table.columns if column.metric == metric.text]


def _title(column: Column) -> str:
    return " ".join(column.labels) or column.name


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)
