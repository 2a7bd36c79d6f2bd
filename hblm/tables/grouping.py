"""Keys that make rows and columns, such that runs of one cell differ in their seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from hblm.config.schema import leaves
from hblm.config.train import TrainConfig
from hblm.tables.labels import labels_of
from hblm.tables.options import finer_groups
from hblm.tables.result_columns import ENCODER

# besides options and configuration keys; `threshold` comes before `training_threshold`, so that one that
# differs from run to run both in training and in scoring makes one row key
_ALSO_SEPARATING = ("trained_on", "tune", "threshold", "training_threshold", "ensemble_weight", *ENCODER)


class Keys(NamedTuple):
    """The keys of a table's rows and columns, and those of the rows that were added to the query's."""

    rows: list[str]
    columns: list[str]
    added: list[str]


def split_keys(
    measurements: pd.DataFrame, rows: Sequence[str], columns: Sequence[str], options: Sequence[str]
) -> Keys:
    """Return the query's keys and, for the rows, every key in which runs of one cell would differ.

    Args:
        measurements: the runs.
        rows, columns: of the query.
        options: the columns of the results that are options or configuration keys.
    """
    rows, columns = list(rows), list(columns)
    candidates = separating_keys(measurements, options)
    codes = {
        name: pd.factorize(labels_of(measurements[name]))[0]
        for name in dict.fromkeys([*rows, *columns, *candidates])
    }
    cell_of = measurements["metric"].to_numpy().astype(np.int64)
    for name in (*rows, *columns):
        cell_of = finer_groups(cell_of, codes[name])
    added = []
    for name in candidates:
        # results that do not record their encoder are not known to differ
        known = measurements[name].notna().to_numpy() if name in ENCODER else slice(None)
        if name in rows or name in columns or not _varies_within(codes[name][known], cell_of[known]):
            continue
        if name == "dataset":
            columns.append(name)
        else:
            rows.append(name)
            added.append(name)
        cell_of = finer_groups(cell_of, codes[name])
    return Keys(rows, columns, added)


def separating_keys(measurements: pd.DataFrame, options: Sequence[str]) -> list[str]:
    """Return the columns in which runs of one cell may not differ, the first to be added first."""
    leaf_of = {leaf.name: leaf for leaf in leaves(TrainConfig)}
    elsewhere = {"seed", "dataset", "encoder.model_name", *_ALSO_SEPARATING}
    separating = [
        name
        for name in options
        if name not in elsewhere
        and (
            name not in leaf_of or (leaf_of[name].rules["identity"] and not leaf_of[name].rules["option_of"])
        )
    ]
    # formulas before the keys whose defaults changed with them
    names = dict.fromkeys(["dataset", "method", "formulas", *separating, *_ALSO_SEPARATING])
    return [name for name in names if name in measurements.columns]


def _varies_within(codes: np.ndarray, groups: np.ndarray) -> bool:
    """Return whether a group has several codes."""
    _, first, at = np.unique(groups, return_index=True, return_inverse=True)
    return bool((codes != codes[first][at]).any())
