"""Results to cells: any key makes rows and columns, and nothing is averaged over but seeds.

Where runs of one cell differ in more than their seed, that key becomes one more row key by itself; where one
name stands for several versions of a dataset, each version is a dataset of its own. What a reader must know
of the rest (holes, missing seeds, several commits) becomes a note.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hblm.config.identity import DECIDING, acting
from hblm.config.schema import leaves, plain
from hblm.config.train import FUSE_KEYS, SINGLE_VIEW, TrainConfig
from hblm.errors import ConfigError, DataError, nearest
from hblm.tables.collect import ENCODER, ENSEMBLE, RUNS
from hblm.tables.footnotes import MADE_WITH, Notes, datasets_apart, mark_cells, natural
from hblm.tables.metric import SCORES, Metric, column_of, metric_of
from hblm.tables.significance import mean_interval, t_factors
from hblm.tables.table import NOTHING, Cell, Row, Run, Table, plural

_LISTED = 12  # values that a message names

# besides options and configuration keys; `threshold` first, so that one that differs from run to run both in
# training and in scoring makes one row key
_ALWAYS_APART = ("threshold", "training_threshold", "ensemble_weight", *ENCODER)
_WEIGHTS = ("ensemble_weight", *(f"joint_variant.{name}" for name in FUSE_KEYS))  # of the fused view
_COMMIT_DIGITS = 10
_ORDER = {
    "method": ("flat", "independent", "top_down", "bottom_up", "dual", "tri_head_diffcat", ENSEMBLE),
    "dataset": ("wos", "rcv1v2", "nyt", "aapd", "bgc"),
    "direction": ("top_down", "bottom_up"),
    "film": ("sigmoid", "multi_hot", "logit", "none"),
    "head": ("mlp", "wide_mlp", "residual_mlp", "linear"),
    "joint_variant": ("none", "dual", "tri_head_diffcat"),
    "loss": ("bce", "focal", "conditional_softmax", "conditional", "auto"),
    "pooling": ("cls", "mean", "last", "max"),
}


@dataclass(frozen=True)
class Ask:
    """What is to be shown.

    Attributes:
        rows, columns: keys, groups or other columns of the results.
        metrics: such as test.fused.macro_f1 or seconds.train.
        where: column -> the values that count, as texts.
        confidence, interval: of the interval of the mean; `interval` is t or bootstrap.
        title: the table's.
    """

    rows: Sequence[str] = ("method",)
    columns: Sequence[str] = ("dataset",)
    metrics: Sequence[str] = ("test.fused.micro_f1", "test.fused.macro_f1")
    where: Mapping[str, Sequence[str]] | None = None
    confidence: float = 0.95
    interval: str = "t"
    title: str = "Results"


def tabulate(frame: pd.DataFrame, ask: Ask) -> tuple[Table, pd.DataFrame]:
    """Return the table that is asked for, and the rows of the frame that it shows.

    Args:
        frame: of `collect`.
        ask: what is to be shown.

    Raises:
        ConfigError: a key or metric that the results do not have.
        DataError: no result is left to be shown.
    """
    metrics = [metric_of(text) for text in ask.metrics]
    _require_known(frame, ask, metrics)
    shown = _selected(_only(_measured(frame), ask.where or {}), metrics)
    if shown.empty:
        asked = ", ".join(ask.metrics)
        raise DataError(
            f"none of {plural(frame['file'].nunique(), 'result')} has {asked} of what is asked for"
        )
    notes = Notes()
    shown, versions = datasets_apart(shown, notes)
    rows, columns, split_by = _split(shown, list(ask.rows), list(ask.columns), frame.attrs["keys"])
    if split_by:
        notes.add(
            f"Runs differ in more than their seed, so rows were split by {', '.join(split_by)}: "
            "nothing is averaged over but seeds."
        )
    table = _table(shown, ask, metrics, (rows, columns), versions, notes)
    shown.attrs["keys"] = frame.attrs["keys"]
    return table, shown


def _require_known(frame: pd.DataFrame, ask: Ask, metrics: Sequence[Metric]) -> None:
    numbers = [str(name) for name in frame.columns if pd.api.types.is_numeric_dtype(frame[name])]
    faults = [
        f"metric={metric.text}: the results have no {metric.score}{nearest(metric.score, numbers)}"
        for metric in metrics
        if metric.score not in numbers
    ]
    for key, names in (("rows", ask.rows), ("columns", ask.columns), ("where", ask.where or {})):
        for name in names:
            if name not in frame.columns:
                close = nearest(name, [str(column) for column in frame.columns])
                faults.append(f"{key}=[{name}]: the results have no such key{close}")
    twice = [name for name in ask.rows if name in ask.columns]
    faults += [f"{name} makes both rows and columns; drop one of the two" for name in twice]
    if faults:
        raise ConfigError("\n".join(faults))


def _measured(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the results without the keys that do nothing in a run, and with evaluations' settings."""
    frame = frame.copy(deep=False)
    for name in FUSE_KEYS:
        column, setting = f"joint_variant.{name}", f"settings.{name}"
        if setting in frame.columns and column in frame.columns:
            frame[column] = frame[setting].where(frame[setting].notna(), frame[column])
    if "ensemble_weight" not in frame.columns:
        frame["ensemble_weight"] = None
    together = frame["method"] == ENSEMBLE
    deciding = [name for name in DECIDING if name in frame.columns]
    alike = np.zeros(len(frame), np.int64)
    for name in deciding:
        alike = _finer(alike, pd.factorize(frame[name])[0])
    kinds, first = np.unique(alike, return_index=True)
    blank: dict[str, list[int]] = defaultdict(list)
    for kind, at in zip(kinds, first, strict=True):
        if not together.iloc[at]:
            for column in acting({name: frame[name].iloc[at] for name in deciding})[1]:
                blank[column].append(kind)
    for column, inert in blank.items():
        if column in frame.columns:
            without = np.isin(alike, inert) & ~together.to_numpy()
            frame[column] = frame[column].astype(object).mask(without, None)
    view = "joint_variant.joint_eval_view"
    if view in frame.columns:  # all is a way to show, and watches fused
        frame[view] = frame[view].replace("all", "fused")
    return frame


def _only(frame: pd.DataFrame, where: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Return the rows whose labels are among those asked for.

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


def _selected(frame: pd.DataFrame, metrics: Sequence[Metric]) -> pd.DataFrame:
    """Return a row for each measurement of each metric, with `metric` (its position) and `value`.

    A single model's one view counts as fused. Of a run and the evaluations that measure the same (its data,
    threshold and weights) one counts: an evaluation before the run, with predictions before without, then
    the latest. None is of an earlier model than the run's: those are not in the frame.
    """
    weights = [name for name in _WEIGHTS if name in frame.columns]
    found = []
    for at, metric in enumerate(metrics):
        if metric.split is None:
            part = frame[frame["kind"].isin(RUNS)].drop_duplicates("file")
        else:
            part = frame[
                (frame["split"] == metric.split)
                & frame["view"].isin(metric.views)
                & (frame["closed"] == metric.closed)
            ]
        part = part[part[metric.score].notna()].copy(deep=False)
        part["metric"], part["value"] = at, part[metric.score].astype(float)
        if metric.view != "fused":
            part[weights] = None
        found.append(part)
    shown = pd.concat(found, ignore_index=True)
    shown["_evaluated"] = ~shown["kind"].isin(RUNS)
    shown["_name"] = shown["file"].map(lambda file: Path(file).name)
    shown = shown.sort_values(["_evaluated", "predictions", "finished", "_name", "file"], kind="stable")
    shown = shown.drop_duplicates(["metric", "run_id", "data", "threshold", *weights], keep="last")
    ordered: pd.DataFrame = shown.sort_values(["metric", "file"], kind="stable").reset_index(drop=True)
    return ordered


def _split(
    shown: pd.DataFrame, rows: list[str], columns: list[str], keys: Sequence[str]
) -> tuple[list[str], list[str], list[str]]:
    """Return row and column keys such that runs of a cell differ in their seed alone, and what was added."""
    candidates = keys_apart(shown, keys)
    codes = {}
    for name in dict.fromkeys([*rows, *columns, *candidates]):
        codes[name] = pd.factorize(labels_of(shown[name]))[0]
    group = shown["metric"].to_numpy().astype(np.int64)
    for name in (*rows, *columns):
        group = _finer(group, codes[name])
    added = []
    for name in candidates:
        # results that do not record their encoder are not known to differ
        known = shown[name].notna().to_numpy() if name in ENCODER else slice(None)
        if name in rows or name in columns or not _varies(codes[name][known], group[known]):
            continue
        (columns if name == "dataset" else rows).append(name)
        added.append(name)
        group = _finer(group, codes[name])
    return rows, columns, [name for name in added if name != "dataset"]


def keys_apart(shown: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Return the columns that may make a cell two, the most telling first."""
    told = {leaf.name: leaf for leaf in leaves(TrainConfig)}
    elsewhere = {"seed", "dataset", "encoder.model_name", *_ALWAYS_APART}
    apart = [
        name
        for name in keys
        if name not in elsewhere
        and (name not in told or (told[name].rules["identity"] and not told[name].rules["option_of"]))
    ]
    # formulas before the keys whose defaults changed with them
    found = ["dataset", "method", "formulas", *apart, *_ALWAYS_APART]
    return [name for name in dict.fromkeys(found) if name in shown.columns]


def _finer(group: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return np.unique(group.astype(np.int64) * (codes.max() + 2) + codes, return_inverse=True)[1]


def _varies(codes: np.ndarray, group: np.ndarray) -> bool:
    _, first, at = np.unique(group, return_index=True, return_inverse=True)
    return bool((codes != codes[first][at]).any())


def labels_of(values: pd.Series[Any]) -> pd.Series[str]:
    """Return values as they are shown."""
    codes, unique = pd.factorize(values, use_na_sentinel=False)
    told = np.array([_label(value) for value in unique], dtype=object)
    found: pd.Series[str] = pd.Series(told[codes], index=values.index, dtype=object)
    return found


def _label(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return NOTHING
    if isinstance(value, (float, np.floating)):
        return f"{value:g}"
    return plain(value.item() if isinstance(value, np.generic) else value)


def _table(
    shown: pd.DataFrame,
    ask: Ask,
    metrics: Sequence[Metric],
    keys: tuple[list[str], list[str]],
    versions: Mapping[str, str],
    notes: Notes,
) -> Table:
    row_keys, column_keys = keys
    labels = {name: labels_of(shown[name]) for name in (*row_keys, *column_keys)}
    labels |= _short(labels)
    row_of = list(zip(*(labels[name] for name in row_keys), strict=True)) or [()] * len(shown)
    at_metric = shown["metric"].to_numpy()
    column_labels = list(zip(*(labels[name] for name in column_keys), strict=True)) or [()] * len(shown)
    columns = {
        (tuple(told), at): column_of(tuple(told), metrics[at])
        for told, at in zip(column_labels, at_metric, strict=True)
    }
    runs: dict[tuple[tuple[str, ...], tuple[tuple[str, ...], int]], list[Run]] = defaultdict(list)
    dataset: dict[Any, str] = {}
    told = _runs(shown)
    for row, column, at, run, name in zip(
        row_of, column_labels, at_metric, told, shown["dataset"], strict=True
    ):
        place = (tuple(row), (tuple(column), int(at)))
        runs[place].append(run)
        dataset[place] = name
    cells = {
        (Row(row), columns[column]): Cell(
            sorted(found, key=lambda run: (natural(run.seed), run.run_id)), dataset[row, column]
        )
        for (row, column), found in runs.items()
    }
    _summarise(list(cells.values()), ask)
    ordered_rows = sorted({row for row, _ in cells}, key=lambda row: _order(row_keys, row.labels))
    ordered = sorted(columns, key=lambda column: (_order(column_keys, column[0]), column[1]))
    table = Table(
        title=ask.title,
        row_names=tuple(row_keys),
        column_names=tuple(column_keys),
        rows=ordered_rows,
        columns=[columns[column] for column in ordered],
        cells=cells,
        caption=_caption(ask, metrics, shown, cells),
    )
    mark_cells(table, versions, _made_with(shown), notes)
    table.notes = list(notes.found.values())
    return table


def _runs(shown: pd.DataFrame) -> list[Run]:
    names = ("seed", "value", "run_id", "file", "git_commit", "git_dirty", "hblm", "data")
    columns = []
    for name in names:
        values = shown[name].astype(object)
        columns.append(values.where(values.notna(), None).tolist())
    columns[0] = labels_of(shown["seed"]).tolist()
    return [Run(*found) for found in zip(*columns, strict=True)]


def _made_with(shown: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return, for each name in which results differ, the label of each file that records it."""
    found = {}
    for name in MADE_WITH:
        if shown[name].nunique() > 1:
            told = shown[shown[name].notna()]
            found[name] = dict(zip(told["file"], labels_of(told[name]), strict=True))
    return found


def _short(labels: Mapping[str, pd.Series[str]]) -> dict[str, pd.Series[str]]:
    """Return encoders by the last part of their names, and commits' first digits, where these differ too."""
    ways: dict[str, Callable[[str], str]] = {
        "encoder": lambda text: text.rstrip("/").rpartition("/")[2] or text,
        "encoder_commit": lambda text: text[:_COMMIT_DIGITS],
    }
    short = {}
    for name, way in ways.items():
        if name in labels:
            full = labels[name].unique()
            told = {text: way(text) for text in full}
            if len(set(told.values())) == len(full):
                short[name] = labels[name].map(told)
    return short


def _summarise(cells: Sequence[Cell], ask: Ask) -> None:
    """Give each cell its mean, standard deviation and interval."""
    counts = np.array([len(cell.runs) for cell in cells])
    values = np.concatenate([[run.value for run in cell.runs] for cell in cells])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    means = np.add.reduceat(values, starts) / counts
    squares = np.add.reduceat((values - np.repeat(means, counts)) ** 2, starts)
    with np.errstate(divide="ignore", invalid="ignore"):
        stds = np.where(counts > 1, np.sqrt(squares / (counts - 1)), np.nan)
        half = stds * t_factors(counts, ask.confidence)
    for cell, mean, std, width in zip(cells, means, stds, half, strict=True):
        cell.mean, cell.std = float(mean), float(std)
        cell.low, cell.high = float(mean - width), float(mean + width)
        if ask.interval == "bootstrap":
            scores = [run.value for run in cell.runs]
            cell.low, cell.high = mean_interval(scores, ask.confidence, "bootstrap")


def _order(keys: Sequence[str], labels: Sequence[str]) -> tuple[Any, ...]:
    return tuple(
        (_positions(key).get(label.partition(" (data ")[0], 99), natural(label))
        for key, label in zip(keys, labels, strict=True)
    )


@functools.cache
def _positions(key: str) -> dict[str, int]:
    """Return label -> position where an order is known; a label without one comes last."""
    return {label: at for at, label in enumerate(_ORDER.get(key, ()))}


def _caption(
    ask: Ask, metrics: Sequence[Metric], shown: pd.DataFrame, cells: Mapping[Any, Cell]
) -> list[str]:
    counts = {len(cell.runs) for cell in cells.values()}
    seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    how = "Student's t" if ask.interval == "t" else "bootstrap, percentiles"
    percent = any(column_of((), metric).percent for metric in metrics)
    sentences = [
        f"Mean ± standard deviation over seeds{', in percent' if percent else ''}; n = {seeds}. "
        f"Intervals of the mean: {100 * ask.confidence:g} % ({how})."
    ]
    defined = {metric.score: metric for metric in metrics if metric.definition}
    for metric in {metric.definition: metric for metric in defined.values()}.values():
        name = SCORES[re.sub(r"^level_\d+\.", "", metric.score)][0]
        sentences.append(f"{name}: {metric.definition}.")
    if any(metric.closed for metric in metrics):
        sentences.append("Closed: predictions are closed under ancestors before they are scored.")
    views = set(shown["view"]) if "view" in shown.columns else set()
    if any(metric.view == "fused" and metric.split for metric in metrics) and {"fused", SINGLE_VIEW} <= views:
        sentences.append("Joint models and ensembles: the fused view; single models have one view.")
    return sentences
