"""Temperatures and calibration errors of each level, from streamed histograms of log-odds. No torch.

A level's temperature T makes of a score p the score sigmoid(logit(p) / T), whatever the loss that the model
was trained with (Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks"). T
minimises the mean log loss over the level's (document, node) pairs. With a = 1 / T the log loss is convex in
a. T is between 1/5 and 5, because scores of few documents may separate their labels perfectly, and 1 for a
level whose pairs are all positive or all negative.

The calibration error of a level is the ECE over its (document, node) pairs, with adaptive bins that are built
separately for positive predictions (score at least 0.5) and negative ones (Henning et al. 2026): each of the
two groups is cut by score into bins of about equally many pairs; ECE = sum over bins of (pairs in the bin /
all pairs) |mean score - share of pairs that are labels|. Without the separation nearly all pairs of a large
taxonomy have a score near 0, and no bin would show the predicted ones. `positive` and `negative` are the
errors of the two groups alone.

Histograms have bins of 1/32 in log-odds. A pair counts with the score of its bin's middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hblm.taxonomy import Taxonomy

_LARGEST, _PER_UNIT = 32, 32  # log-odds beyond this are counted there; bins in one unit of log-odds
_BINS = 2 * _LARGEST * _PER_UNIT
_MIDDLES: npt.NDArray[np.float64] = (np.arange(_BINS) + 0.5) / _PER_UNIT - _LARGEST
_LOWEST, _HIGHEST = 1 / 5, 5.0  # temperatures
ECE_BINS = 15

Histograms = npt.NDArray[np.int64]  # axes: level, gold (0 or 1), bin


class CalibrationError(NamedTuple):
    """The ECE of a level: over all pairs, and over pairs predicted positive or negative alone."""

    all: float
    positive: float
    negative: float


class Bin(NamedTuple):
    """A bin of a reliability diagram: mean score, share of labels, number of pairs."""

    score: float
    share: float
    pairs: int


@dataclass(frozen=True)
class Reliability:
    """What a level's scores promise and what its labels are.

    Attributes:
        error: the ECE.
        bins: those of negative predictions, then those of positive ones, by rising score.
    """

    error: CalibrationError
    bins: tuple[Bin, ...]


class CalibrationCounter:
    """Count the log-odds of scores, for each level and for labels and others apart: memory is O(levels)."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        """Start at zero documents."""
        self._levels = taxonomy.levels
        self._counts = np.zeros((len(self._levels), 2, _BINS), np.int64)

    def update(self, scores: npt.NDArray[np.float32], gold: npt.NDArray[np.bool_]) -> None:
        """Count a batch of raw scores and labels, both (documents, nodes)."""
        bins = np.clip(((log_odds(scores) + _LARGEST) * _PER_UNIT).astype(np.int64), 0, _BINS - 1)
        for number, level in enumerate(self._levels):
            part = slice(level.start, level.stop)
            cells = gold[:, part] * _BINS + bins[:, part]
            self._counts[number] += np.bincount(cells.ravel(), minlength=2 * _BINS).reshape(2, _BINS)

    def counted(self) -> Histograms:
        """Return the counts, which another counter can add."""
        return self._counts

    def add(self, counted: Histograms) -> None:
        """Add the counts of another counter, of other documents."""
        self._counts = self._counts + counted

    def temperatures(self) -> tuple[float, ...]:
        """Return the temperature of each level."""
        return tuple(_temperature(*of_level) for of_level in self._counts)

    def reliability(self, temperatures: tuple[float, ...] | None = None) -> list[Reliability]:
        """Return the reliability of each level, of raw scores or of those at temperatures."""
        given = temperatures or (1.0,) * len(self._levels)
        return [_reliability(of_level, each) for of_level, each in zip(self._counts, given, strict=True)]


def log_odds(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return logit(score); of 0 and 1 the log-odds at the ends of the histograms."""
    wide = scores.astype(np.float64)
    with np.errstate(divide="ignore"):
        odds: npt.NDArray[np.float64] = np.log(wide) - np.log1p(-wide)
    return odds.clip(-_LARGEST, _LARGEST)


def tempered(scores: npt.NDArray[Any], temperatures: Sequence[float], taxonomy: Taxonomy) -> npt.NDArray[Any]:
    """Return sigmoid(logit(score) / T), with T that of the node's level; scores are (documents, nodes)."""
    sizes = [len(level) for level in taxonomy.levels]
    scale = np.repeat(np.asarray(temperatures, dtype=np.float64), sizes)
    wide = scores.astype(np.float64)
    with np.errstate(divide="ignore", over="ignore"):  # scores of 0 and 1 stay
        odds = np.log(wide) - np.log1p(-wide)
        return (1 / (1 + np.exp(-odds / scale))).astype(scores.dtype)


def _temperature(negatives: npt.NDArray[np.int64], positives: npt.NDArray[np.int64]) -> float:
    from scipy.optimize import minimize_scalar  # half a second to load

    if not negatives.any() or not positives.any():
        return 1.0

    def log_loss(log_temperature: float) -> float:
        odds = _MIDDLES / np.exp(log_temperature)
        return float(negatives @ np.logaddexp(0, odds) + positives @ np.logaddexp(0, -odds))

    bounds = np.log((_LOWEST, _HIGHEST))
    return float(np.exp(minimize_scalar(log_loss, bounds=bounds, method="bounded").x))


def _reliability(counts: npt.NDArray[np.int64], temperature: float) -> Reliability:
    """Return a level's reliability; `counts` has its negatives and positives by bin."""
    pairs, labels = counts.sum(0), counts[1]
    scores = 1 / (1 + np.exp(-_MIDDLES / temperature))
    middle = _BINS // 2
    sides = [
        _adaptive_bins(pairs[side], labels[side], scores[side])
        for side in (slice(0, middle), slice(middle, _BINS))
    ]
    errors = [_error(bins) for bins in (sides[0] + sides[1], sides[1], sides[0])]
    return Reliability(CalibrationError(*errors), tuple(sides[0] + sides[1]))


def _adaptive_bins(
    pairs: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]
) -> list[Bin]:
    """Cut pairs, ordered by score, into at most ECE_BINS bins of about equally many pairs."""
    total = pairs.sum()
    if not total:
        return []
    # a pair's bin is that of the middle of its histogram bin's pairs, so that equal scores stay together
    middles = np.cumsum(pairs) - pairs / 2
    bin_of = np.minimum((middles * ECE_BINS / total).astype(np.int64), ECE_BINS - 1)
    sums = [np.bincount(bin_of, each, ECE_BINS) for each in (pairs, pairs * scores, labels)]
    return [
        Bin(float(score / count), float(positive / count), int(count))
        for count, score, positive in zip(*sums, strict=True)
        if count
    ]


def _error(bins: list[Bin]) -> float:
    total = sum(each.pairs for each in bins)
    return sum(each.pairs * abs(each.score - each.share) for each in bins) / total if total else 0.0
