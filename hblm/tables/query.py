"""Query of a table: keys of rows and columns, metrics and filters, and the measurements they select."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hblm.config.train import FUSE_KEYS
from hblm.errors import ConfigError, DataError, nearest
from hblm.tables.labels import labels_of
from hblm.tables.metric import Metric, metric_of
from hblm.tables.options import without_inert
from hblm.tables.result_columns import RUNS
from hblm.tables.result_scores import TUNED, RowFilter, all_rows
from hblm.tables.table import plural

_LISTED = 12  # values that a message names
WEIGHTS = ("ensemble_weight", *(f"joint_variant.{name}" for name in FUSE_KEYS))  # of the fused view


@dataclass(frozen=True)
class TableQuery:
    """What a table shows.

    Attributes:
        rows, columns: keys, groups or other columns of the results.
        metrics: such as test.fused.macro_f1 or seconds.train.
        where: column -> the values to keep, as texts.
        confidence, interval: of the interval of the mean; `interval` is t or bootstrap.
        title: of the table.
    """

    rows: Sequence[str] = ("method",)
    columns: Sequence[str] = ("dataset",)
    metrics: Sequence[str] = ("test.fused.micro_f1", "test.fused.macro_f1")
    where: Mapping[str, Sequence[str]] | None = None
    confidence: float = 0.95
    interval: str = "t"
    title: str = "Results"


def needed_rows(metrics: Sequence[str]) -> RowFilter:
    """Return a filter that keeps the rows which the metrics need: most of the time goes into reading."""
    parsed = [metric_of(text) for text in metrics]
    splits = {metric.split for metric in parsed}
    if None in splits:  # a number of the run itself, which any of its rows has
        return all_rows
    views = {view for metric in parsed for view in metric.views}
    ways = {metric.consistency for metric in parsed}
    return lambda split, view, consistency: split in splits and view in views and consistency in ways


def measurements(frame: pd.DataFrame, query: TableQuery) -> pd.DataFrame:
    """Return a row for each run and metric, with `metric` (its position in the query) and `value`.

    A single model's one view counts as fused. Of a run and the evaluations that measure the same (its data,
    threshold and weights) one counts: an evaluation before the run, with predictions before without, then
    the latest. Options that change nothing in a run are None.

    Raises:
        ConfigError: a key, metric or value that the results do not have.
        DataError: no result is left.
    """
    metrics = [metric_of(text) for text in query.metrics]
    _require_known(frame, query, metrics)
    used = _where(without_inert(_with_used_settings(frame)), query.where or {})
    selected = pd.concat(
        [_of_metric(used, at, metric) for at, metric in enumerate(metrics)], ignore_index=True
    )
    if selected.empty:
        where = " and the values of where=" if query.where else ""
        n_results = plural(frame["file"].nunique(), "result")
        raise DataError(f"none of {n_results} has {', '.join(query.metrics)}{where}")
    return _latest(selected)


def _require_known(frame: pd.DataFrame, query: TableQuery, metrics: Sequence[Metric]) -> None:
    numbers = [str(name) for name in frame.columns if pd.api.types.is_numeric_dtype(frame[name])]
    faults = [
        f"metric={metric.text}: the results have no {metric.score}{nearest(metric.score, numbers)}"
        for metric in metrics
        if metric.score not in numbers
    ]
    for key, names in (("rows", query.rows), ("columns", query.columns), ("where", query.where or {})):
        for name in names:
            if name not in frame.columns:
                close = nearest(name, [str(column) for column in frame.columns])
                faults.append(f"{key}=[{name}]: the results have no such key{close}")
    twice = [name for name in query.rows if name in query.columns]
    faults += [f"{name} makes both rows and columns; drop one of the two" for name in twice]
    if faults:
        raise ConfigError("\n".join(faults))


def _with_used_settings(frame: pd.DataFrame) -> pd.DataFrame:
    """Return results with the fuse weights that evaluations used in place of their runs' own."""
    frame = frame.copy(deep=False)
    for name in FUSE_KEYS:
        column, setting = f"joint_variant.{name}", f"settings.{name}"
        if setting in frame.columns and column in frame.columns:
            frame[column] = frame[setting].where(frame[setting].notna(), frame[column])
    if "ensemble_weight" not in frame.columns:
        frame["ensemble_weight"] = None
    view = "joint_variant.joint_eval_view"
    if view in frame.columns:  # all is a way to show, and monitors fused
        frame[view] = frame[view].replace("all", "fused")
    return frame


def _where(frame: pd.DataFrame, where: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Return the rows whose labels are among the values.

    Raises:
        ConfigError: a value that no result has.
    """
    for name, values in where.items():
        labels = labels_of(frame[name])
        for value in values:
            if value not in set(labels):
                known = sorted(set(labels))
                close = nearest(value, known)
                raise ConfigError(
                    f"where=[{name}:{value}]: no result has that value{close}; "
                    f"there are {', '.join(known[:_LISTED])}"
                )
        frame = frame.loc[labels.isin(list(values))]
    return frame


def _of_metric(frame: pd.DataFrame, position: int, metric: Metric) -> pd.DataFrame:
    """Return the rows that have a metric, with its position and value."""
    part: pd.DataFrame
    if metric.split is None:
        part = frame[frame["kind"].isin(RUNS)].drop_duplicates("file")
    else:
        part = frame[
            (frame["split"] == metric.split)
            & frame["view"].isin(metric.views)
            & (frame["consistency"] == metric.consistency)
        ]
    part = part[part[metric.score].notna()].copy(deep=False)
    part["metric"], part["value"] = position, part[metric.score].astype(float)
    if metric.consistency != TUNED:
        part["tune"] = None  # it changes no other score
    if metric.view != "fused":  # no weight changes its scores
        part[[name for name in WEIGHTS if name in frame.columns]] = None
    return part


def _latest(selected: pd.DataFrame) -> pd.DataFrame:
    """Return one row of those that measure the same."""
    weights = [name for name in WEIGHTS if name in selected.columns]
    is_evaluation, name = ~selected["kind"].isin(RUNS), selected["file"].map(lambda file: Path(file).name)
    ordered = selected.assign(_is_evaluation=is_evaluation, _name=name).sort_values(
        ["_is_evaluation", "predictions", "finished", "_name", "file"], kind="stable"
    )
    latest = ordered.drop_duplicates(["metric", "run_id", "data", "threshold", "tune", *weights], keep="last")
    latest = latest.drop(columns=["_is_evaluation", "_name"])
    result: pd.DataFrame = latest.sort_values(["metric", "file"], kind="stable").reset_index(drop=True)
    return result
