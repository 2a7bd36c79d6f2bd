"""Figures that are not ours: published ones, shipped with their sources, and those a sweep file expects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from hblm.errors import ConfigError, nearest
from hblm.tables.metric import metric_of
from hblm.tables.table import NOT_SAID, Column, Reference, Table

PUBLISHED = Path(__file__).with_name("published.csv")
_COMPARABLE = re.compile(r"test\.(?:(?:fused|single)\.)?(?:overall\.)?(micro_f1|macro_f1)")
_EXPECT_KEYS = ("metric", "mean", "std", "runs", "source", "encoder")


def published(table: Table, nodes: Mapping[str, int]) -> list[Reference]:
    """Return the published rows on the table's datasets, as far as these have the published label sets.

    Args:
        table: whose columns are to be filled: test micro- and macro-F1 of one dataset each.
        nodes: how many nodes each dataset of the table has.
    """
    rows = pd.read_csv(PUBLISHED)
    rows["runs"] = rows["runs"].astype("Int64")
    dataset_of = _datasets(table)
    found = []
    for told in rows.to_dict("records"):
        figures = {}
        for column, dataset in dataset_of.items():
            score = _COMPARABLE.fullmatch(column.metric)
            # a version of a set may have a name of its own; what counts is its label set
            same = dataset.partition(" (data ")[0] == told["dataset"] and nodes.get(dataset) == told["nodes"]
            if score and same:
                std = told[f"{score[1]}_std"]
                figures[column] = (told[score[1]] / 100, nan if pd.isna(std) else std / 100)
        if figures:
            found.append(
                Reference(
                    label=f"{told['model']}",
                    source=told["source"],
                    encoder=_text(told["encoder"]),
                    runs=_text(told["runs"]),
                    figures=figures,
                    note="" if pd.isna(told["note"]) else told["note"],
                )
            )
    return _together(found)


def _datasets(table: Table) -> dict[Column, str]:
    """Return the dataset of each column that has one only."""
    found: dict[Column, set[str]] = {}
    for (_, column), cell in table.cells.items():
        found.setdefault(column, set()).add(cell.dataset)
    return {column: next(iter(names)) for column, names in found.items() if len(names) == 1}


def _together(references: Sequence[Reference]) -> list[Reference]:
    """Return one row for what one source says of one model on several datasets."""
    found: dict[tuple[str, ...], Reference] = {}
    for one in references:
        same = (one.label, one.source, one.encoder, one.runs, one.note)
        before = found.get(same)
        found[same] = one if before is None else one._replace(figures={**before.figures, **one.figures})
    return list(found.values())


def _text(value: Any) -> str:
    return NOT_SAID if pd.isna(value) else str(value)


def expected(table: Table, entries: Any, where: str) -> list[Reference]:
    """Return what a sweep file expects, as rows beside the measured ones.

    An entry is `{metric: test.fused.macro_f1, mean: 79.07, source: ..., dataset: wos, method: flat}`: a
    metric, a mean as the table shows it (shares in percent), if known std, runs and encoder, and values of
    the table's keys.

    Args:
        table: whose rows and columns the entries speak of.
        entries: of the file's `sweep.expect`.
        where: the file, for messages.

    Raises:
        ConfigError: an entry that is not of this form, or names a key that the table does not have.
    """
    if not isinstance(entries, list):
        raise ConfigError(f"{where}: sweep.expect is not a list of entries")
    keys = (*table.row_names, *table.column_names)
    found = []
    for number, entry in enumerate(entries, start=1):
        place = f"{where}: sweep.expect, entry {number}"
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{place} is not a group of keys")
        for name in ("metric", "mean", "source"):
            if name not in entry:
                raise ConfigError(f"{place} has no {name}")
        for name in ("mean", "std"):
            if not isinstance(entry.get(name, 0.0), (int, float)) and entry[name] is not None:
                raise ConfigError(f"{place}: {name}={entry[name]} is not a number")
        told = {str(name): str(value) for name, value in entry.items() if name not in _EXPECT_KEYS}
        for name in told:
            if name not in keys:
                raise ConfigError(f"{place}: the table has no key {name}{nearest(name, keys)}")
        found += _expected(table, entry, told)
    return _together(found)


def _expected(table: Table, entry: Mapping[str, Any], told: Mapping[str, str]) -> list[Reference]:
    """Return one entry as a row, or nothing where the table does not show its column."""
    figures = {}
    for column in table.columns:
        at = dict(zip(table.column_names, column.labels, strict=True))
        of_column = {name: value for name, value in told.items() if name in at}
        if metric_of(column.metric)[1:] == metric_of(str(entry["metric"]))[1:] and all(
            at[name] == value for name, value in of_column.items()
        ):
            std = entry.get("std")
            figures[column] = (entry["mean"] / column.scale, nan if std is None else std / column.scale)
    row = [told[name] for name in table.row_names if name in told]
    label = f"expected of {', '.join(row)}" if row else "expected"
    if not figures:
        return []
    runs, encoder = entry.get("runs"), entry.get("encoder")
    return [
        Reference(
            label,
            str(entry["source"]),
            NOT_SAID if encoder is None else str(encoder),
            NOT_SAID if runs is None else str(runs),
            figures,
        )
    ]
