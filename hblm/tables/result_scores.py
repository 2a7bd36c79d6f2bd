"""Scores of a result: a row for each split, view and way of scoring."""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable, Iterator, Mapping
from math import nan
from typing import Any, NamedTuple

import numpy as np

SPLITS = ("val", "test")
LARGEST = 2**53  # of the numbers in a result: a float holds every whole number up to here
_NO_SCORES = ("level", "train_documents")  # they name the part of the nodes that the scores are about
RAW = "none"  # the consistency of predictions as they are
CONSISTENT = {"repath": "raise", "cap": "cap"}  # the key of a view's other scores -> their consistency
TUNED = "tuned"  # the consistency of predictions at thresholds of their own, closed under ancestors
RowFilter = Callable[[str, str, str], bool]  # of split, view and consistency: whether the row is read


class ScoreRow(NamedTuple):
    """The scores of one split, one view and one consistency of predictions: none, raise, cap or tuned.

    `names` and `scores` have the same order. Rows with the same names share one tuple, and an array takes
    8 bytes a score: ten thousand results fit into memory.
    """

    split: str
    view: str
    consistency: str
    names: tuple[str, ...]
    scores: array[float]


def all_rows(split: str, view: str, consistency: str) -> bool:
    """Return True: the filter that keeps every row."""
    return True


def score_rows(result: Mapping[str, Any], keep: RowFilter) -> Iterator[ScoreRow]:
    """Yield the rows of a result that the filter keeps.

    Raises:
        KeyError: the result has no scores, or scores without a part that every result has.
        ValueError: a score is too large.
    """
    views = [(split, *item) for split in SPLITS for item in (result.get(split) or {}).items()]
    if not views:
        raise KeyError("no scores, neither val nor test")
    for split, view, scores in views:
        counts = {"documents": scores.get("documents"), "threshold": scores.get("threshold")}
        if keep(split, view, RAW):
            yield ScoreRow(split, view, RAW, *_scores(scores, counts))
        for key, consistency in CONSISTENT.items():  # early results have no cap
            if scores.get(key) and keep(split, view, consistency):
                yield ScoreRow(split, view, consistency, *_scores(scores[key], counts))
        tuned = ((result.get("tuned") or {}).get(split) or {}).get(view)
        if tuned and keep(split, view, TUNED):
            yield ScoreRow(split, view, TUNED, *_scores(tuned, {**counts, "threshold": None}))


def _scores(view: Mapping[str, Any], counts: Mapping[str, Any]) -> tuple[tuple[str, ...], array[float]]:
    """Return the names of a view's scores, and the scores; nan for a score that is null."""
    parts: list[tuple[str, Mapping[str, Any]]] = [("", counts), ("", view["overall"])]
    parts += [(f"{name}.", view.get(name) or {}) for name in ("hierarchical", "ranking")]
    parts += [(f"level_{level['level']}.", level) for level in view["per_level"]]
    parts += [(f"frequency_{part['train_documents']}.", part) for part in view.get("by_frequency") or []]
    values = array("d")
    for _, part in parts:
        values.extend(
            nan if value is None else value for name, value in part.items() if name not in _NO_SCORES
        )
    if (np.abs(np.frombuffer(values)) > LARGEST).any():
        raise ValueError(f"not in the format of a result: a score above {LARGEST:,}")
    return _names(tuple((prefix, tuple(part)) for prefix, part in parts)), values


@functools.cache
def _names(parts: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[str, ...]:
    return tuple(f"{prefix}{name}" for prefix, part in parts for name in part if name not in _NO_SCORES)
