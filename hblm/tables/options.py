"""Options of a result: its method, groups and configuration keys, and which of them act."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hblm.config.identity import DECIDING, acting

ENSEMBLE = "ensemble"  # the kind, and the method, of two models
_OTHER_COLUMNS = ("dataset", "trackers")  # parts of a configuration whose values are in other columns
_RENAMED = {"threshold": "training_threshold"}  # the column `threshold` is the one of the scores


def option_columns(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return seed, method, groups and configuration keys.

    Those in which an ensemble's members differ are joined by +.
    """
    is_ensemble = result["kind"] == ENSEMBLE
    options = [
        {
            "seed": member["seed"],
            "method": ENSEMBLE if is_ensemble else None,
            **member["choices"],
            **_flat(member["config"]),
        }
        for member in members_of(result)
    ]
    if is_ensemble:
        return {name: joined([one.get(name) for one in options]) for name in options[0]}
    (columns,) = options
    return columns | {"method": acting(columns)[0]}


def without_inert(frame: pd.DataFrame) -> pd.DataFrame:
    """Return results with None for the options that change nothing in a run; ensembles stay as they are."""
    deciding = [name for name in DECIDING if name in frame.columns]
    kind_of = np.zeros(len(frame), np.int64)  # rows with the same deciding options have the same number
    for name in deciding:
        kind_of = finer_groups(kind_of, pd.factorize(frame[name])[0])
    is_ensemble = (frame["method"] == ENSEMBLE).to_numpy()
    kinds: dict[str, list[int]] = defaultdict(list)  # column -> the kinds in which it is inert
    for kind, first in zip(*np.unique(kind_of, return_index=True), strict=True):
        if not is_ensemble[first]:
            for column in acting({name: frame[name].iloc[first] for name in deciding})[1]:
                kinds[column].append(kind)
    frame = frame.copy(deep=False)
    for column, inert in kinds.items():
        if column in frame.columns:
            is_inert = np.isin(kind_of, inert) & ~is_ensemble
            frame[column] = frame[column].astype(object).mask(is_inert, None)
    return frame


def finer_groups(groups: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return numbers of groups whose members have the same group and the same code, (rows,)."""
    return np.unique(groups.astype(np.int64) * (codes.max() + 2) + codes, return_inverse=True)[1]


def members_of(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the parts of a result that are about one model each: an ensemble's two, else all of it."""
    return list(result["members"].values()) if result["kind"] == ENSEMBLE else [result]


def joined(values: Sequence[Any]) -> Any:
    """Return the value where all are the same, else their texts joined by +."""
    same = all(value == values[0] for value in values)
    return values[0] if same else "+".join(map(str, values))


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a configuration and its groups, such as `film.film_scale`, with their values."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if name in _OTHER_COLUMNS:
            continue
        if isinstance(value, dict):
            flat.update(zip(_dotted(name, tuple(value)), value.values(), strict=True))
        else:
            flat[_RENAMED.get(name, name)] = value
    return flat


@functools.cache
def _dotted(group: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{group}.{name}" for name in names)
