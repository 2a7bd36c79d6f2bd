"""Reference figures: published ones, with their sources, and those that a sweep file expects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from hblm.errors import ConfigError, nearest
from hblm.tables.metric import metric_of
from hblm.tables.table import NOT_STATED, Reference, Table

PUBLISHED = Path(__file__).with_name("published.csv")
_COMPARABLE = re.compile(r"test\.(?:(?:fused|single)\.)?(?:overall\.)?(micro_f1|macro_f1)")
_EXPECT_KEYS = ("metric", "mean", "std", "runs", "source", "encoder")


def published(table: Table, nodes: Mapping[str, int]) -> list[Reference]:
    """Return the published figures on the table's datasets, where these have the published label sets.

    Args:
        table: whose columns get figures if they are test micro- or macro-F1 of one dataset.
        nodes: how many nodes each dataset of the table has.
    """
    rows = pd.read_csv(PUBLISHED)
    rows["runs"] = rows["runs"].astype("Int64")
    dataset_of = table.datasets()
    references = []
    for published_row in rows.to_dict("records"):
        figures = {}
        for column, dataset in dataset_of.items():
            score = _COMPARABLE.fullmatch(column.metric)
            # a version of a dataset may have a name of its own; the label set is what must be the same
            name, n_nodes = dataset.partition(" (data ")[0], nodes.get(dataset)
            if score and (name, n_nodes) == (published_row["dataset"], published_row["nodes"]):
                mean, std = published_row[score[1]], published_row[f"{score[1]}_std"]
                figures[column] = (mean / 100, nan if pd.isna(std) else std / 100)
        if figures:
            note = published_row["note"]
            references.append(
                Reference(
                    label=str(published_row["model"]),
                    source=published_row["source"],
                    encoder=_text(published_row["encoder"]),
                    runs=_text(published_row["runs"]),
                    figures=figures,
                    note="" if pd.isna(note) else note,
                )
            )
    return _merged(references)


def _merged(references: Sequence[Reference]) -> list[Reference]:
    """Return one row for all figures of one model from one source, whatever the dataset."""
    merged: dict[tuple[str, ...], Reference] = {}
    for one in references:
        key = (one.label, one.source, one.encoder, one.runs, one.note)
        before = merged.get(key)
        merged[key] = one if before is None else one._replace(figures={**before.figures, **one.figures})
    return list(merged.values())


def _text(value: Any) -> str:
    return NOT_STATED if pd.isna(value) else str(value)


def expected(table: Table, entries: Any, where: str) -> list[Reference]:
    """Return the figures that a sweep file expects.

    An entry is `{metric: test.fused.macro_f1, mean: 79.07, source: ..., dataset: wos, method: flat}`: a
    metric, a mean as the table shows it (shares in percent), if known std, runs and encoder, and values of
    the table's keys.

    Args:
        table: whose rows and columns the entries name.
        entries: of the file's `sweep.expect`.
        where: the file, for messages.

    Raises:
        ConfigError: an entry that is not of this form, or names a key that the table does not have.
    """
    if not isinstance(entries, list):
        raise ConfigError(f"{where}: sweep.expect is not a list of entries")
    keys = (*table.row_names, *table.column_names)
    references = []
    for number, entry in enumerate(entries, start=1):
        place = f"{where}: sweep.expect, entry {number}"
        labels = _labels_of_entry(entry, keys, place)
        references += _of_entry(table, entry, labels)
    return _merged(references)


def _labels_of_entry(entry: Any, keys: Sequence[str], place: str) -> dict[str, str]:
    """Return the values of the table's keys that an entry names.

    Raises:
        ConfigError: the entry is malformed, or names another key.
    """
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{place} is not a group of keys")
    for name in ("metric", "mean", "source"):
        if name not in entry:
            raise ConfigError(f"{place} has no {name}")
    for name in ("mean", "std"):
        if not isinstance(entry.get(name, 0.0), (int, float)) and entry[name] is not None:
            raise ConfigError(f"{place}: {name}={entry[name]} is not a number")
    labels = {str(name): str(value) for name, value in entry.items() if name not in _EXPECT_KEYS}
    for name in labels:
        if name not in keys:
            raise ConfigError(f"{place}: the table has no key {name}{nearest(name, keys)}")
    return labels


def _of_entry(table: Table, entry: Mapping[str, Any], labels: Mapping[str, str]) -> list[Reference]:
    """Return an entry as a row, or nothing where the table has none of its columns."""
    metric, std = metric_of(str(entry["metric"])), entry.get("std")
    figures = {}
    for column in table.columns:
        own = dict(zip(table.column_names, column.labels, strict=True))
        is_named = all(own[name] == value for name, value in labels.items() if name in own)
        if is_named and metric_of(column.metric)[1:] == metric[1:]:  # however the metric is written
            figures[column] = (entry["mean"] / column.scale, nan if std is None else std / column.scale)
    if not figures:
        return []
    row = [labels[name] for name in table.row_names if name in labels]
    runs, encoder = entry.get("runs"), entry.get("encoder")
    return [
        Reference(
            label=f"expected of {', '.join(row)}" if row else "expected",
            source=str(entry["source"]),
            encoder=NOT_STATED if encoder is None else str(encoder),
            runs=NOT_STATED if runs is None else str(runs),
            figures=figures,
        )
    ]
