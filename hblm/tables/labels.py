"""Values of keys as they are shown, and the order of rows and columns."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hblm.config.schema import plain
from hblm.tables.options import ENSEMBLE
from hblm.tables.table import NOTHING

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

_LAST = 99  # the position of a value whose place in the order is not known


def labels_of(values: pd.Series[Any]) -> pd.Series[str]:
    """Return values as texts, a dash for a missing one."""
    codes, unique = pd.factorize(values, use_na_sentinel=False)
    texts = np.array([_label(value) for value in unique], dtype=object)
    labels: pd.Series[str] = pd.Series(texts[codes], index=values.index, dtype=object)
    return labels


def _label(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return NOTHING
    if isinstance(value, (float, np.floating)):
        return f"{value:g}"
    return plain(value.item() if isinstance(value, np.generic) else value)


def shortened(labels: Mapping[str, pd.Series[str]]) -> dict[str, pd.Series[str]]:
    """Return the labels, encoders by the last part of their names and commits by their first digits.

    They stay whole where the short ones would not differ.
    """
    ways: dict[str, Callable[[str], str]] = {
        "encoder": lambda text: text.rstrip("/").rpartition("/")[2] or text,
        "encoder_commit": lambda text: text[:_COMMIT_DIGITS],
    }
    short = dict(labels)
    for name, shorten in ways.items():
        if name in labels:
            short_of = {text: shorten(text) for text in labels[name].unique()}
            if len(set(short_of.values())) == len(short_of):
                short[name] = labels[name].map(short_of)
    return short


def sort_key(keys: Sequence[str], labels: Sequence[str]) -> tuple[Any, ...]:
    """Return a sort key of a row's or column's labels: the known order of each key, then `natural`."""
    return tuple(
        (_positions(key).get(label.partition(" (data ")[0], _LAST), natural(label))
        for key, label in zip(keys, labels, strict=True)
    )


@functools.cache
def _positions(key: str) -> dict[str, int]:
    """Return label -> position where an order is known; a label without one comes last."""
    return {label: at for at, label in enumerate(_ORDER.get(key, ()))}


def natural(text: str) -> tuple[Any, ...]:
    """Return a sort key: numbers by value, then texts by the words and numbers in them, the dash last."""
    try:
        return (0, float(text), ())
    except ValueError:
        parts = re.split(r"(\d+)", text)
        return (1 + (text == NOTHING), 0.0, tuple((part.isdigit(), part.zfill(12)) for part in parts))
