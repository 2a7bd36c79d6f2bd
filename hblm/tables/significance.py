"""Statistics over seeds: intervals, paired permutation tests, Shaffer's correction, effect sizes.

A value is one run's score, a run is one seed. scipy is imported inside functions: it takes a second to load.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from math import comb, isnan, nan, sqrt
from typing import NamedTuple

import numpy as np

MOST_EXACT = 14  # runs up to which a permutation test counts all 2^n flips of signs
N_FLIPS = 20_000  # drawn for more runs
_BLOCK = 1 << 22  # numbers that are held at once


def t_factors(n: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """Return half the width of a mean's interval in standard deviations, t_{n-1} / sqrt(n); nan for n < 2."""
    sizes, at = np.unique(np.asarray(n), return_inverse=True)
    return np.array([_t_factor(int(size), confidence) for size in sizes])[at]


@functools.cache
def _t_factor(n: int, confidence: float) -> float:
    from scipy import special

    return float(special.stdtrit(n - 1, (1 + confidence) / 2)) / sqrt(n) if n > 1 else nan


def mean_interval(values: Sequence[float], confidence: float = 0.95, how: str = "t") -> tuple[float, float]:
    """Return the interval of a mean: Student's t, or the bootstrap's percentiles; nan for one value."""
    given = np.asarray(values, float)
    if len(given) < 2:
        return nan, nan
    mean = float(given.mean())
    if np.ptp(given) == 0:
        return mean, mean
    if how == "bootstrap":
        from scipy import stats

        interval = stats.bootstrap(
            (given,), np.mean, n_resamples=9999, confidence_level=confidence, method="percentile", rng=0
        ).confidence_interval
        return float(interval.low), float(interval.high)
    half = float(given.std(ddof=1)) * _t_factor(len(given), confidence)
    return mean - half, mean + half


def paired_permutation(differences: np.ndarray) -> np.ndarray:
    """Return the two-sided p of each row's mean: the share of flips of signs that give one as far from zero.

    For n <= 14 the test is exact: all 2^n flips are counted (Fisher 1935). For more, 20,000 flips are drawn
    with a fixed seed, and p = (1 + #{|d*| >= |d|}) / 20,001 (Phipson and Smyth 2010). The hypothesis is that
    the two scores of a seed are exchangeable, so each difference is as likely as its negative.

    Args:
        differences: (pairs of cells, seeds), of scores with the same seed.
    """
    rows, n = differences.shape
    # rounded, so that differences of rounding errors alone are zero
    rounded = np.round(differences, 12)
    flips = _flips(n)
    # and within a tolerance, so that sums in another order are as far from zero
    observed = np.abs(rounded.sum(axis=1)) - 1e-9 * np.abs(rounded).sum(axis=1)
    block = max(1, _BLOCK // len(flips))
    n_far = [
        (np.abs(flips @ rounded[at : at + block].T) >= observed[at : at + block]).sum(axis=0)
        for at in range(0, rows, block)
    ]
    added = 0 if n <= MOST_EXACT else 1
    return np.asarray((np.concatenate(n_far) + added) / (len(flips) + added))


@functools.lru_cache(maxsize=4)
def _flips(n: int) -> np.ndarray:
    """Return signs, (flips, n): all that start with +1 (their negatives are as far from zero), or drawn."""
    if n <= MOST_EXACT:
        return np.array([(1.0, *signs) for signs in itertools.product((1.0, -1.0), repeat=n - 1)])
    return np.random.default_rng(0).choice((1.0, -1.0), (N_FLIPS, n))


def smallest_p(n: int) -> float:
    """Return the smallest p that `paired_permutation` can give over n runs."""
    if n > MOST_EXACT:
        return 1 / (N_FLIPS + 1)
    return 2.0 ** (1 - n) if n > 1 else 1.0


def runs_needed(alpha: float, comparisons: int = 1) -> int | None:
    """Return with how many runs that p, times the comparisons, reaches alpha; None where it never does."""
    sizes = range(2, MOST_EXACT + 2)
    return next((n for n in sizes if smallest_p(n) * comparisons <= alpha), None)


def shaffer(p_values: Sequence[float], rows: int) -> np.ndarray:
    """Return p-values adjusted over all pairs of rows by Shaffer's static step-down procedure (1986).

    The i-th smallest p is multiplied by the largest number of pairs that can be equal when i - 1 pairs are
    not, and is at least the adjusted p before it. This controls the family-wise error rate over all pairs,
    whichever row has the best mean (García and Herrera 2008, JMLR 9).

    With m < k (k - 1) / 2 tests the i-th factor is m - i + 1 (Holm 1979): at most so many of the tested pairs
    are equal when i - 1 of them are not, whether or not the pairs without a test are equal.

    Args:
        p_values: of pairs of rows, in any order; nan is a pair without a test, and stays nan.
        rows: the number k of rows.
    """
    given = np.asarray(p_values, float)
    tested = np.flatnonzero(~np.isnan(given))
    complete = len(tested) == comb(rows, 2)
    factors = np.array(most_equal_pairs(rows) if complete else range(len(tested), 0, -1), float)
    order = tested[np.argsort(given[tested], kind="stable")]
    adjusted = np.full(len(given), nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * given[order]))
    return adjusted


@functools.cache
def most_equal_pairs(rows: int) -> tuple[int, ...]:
    """Return how many pairs of k rows can be equal when 0, 1, 2, ... of the k (k - 1) / 2 pairs are not.

    Equality is transitive, so rows fall into groups of equal rows, and the number of equal pairs is in
    S(k) = union over j of {j (j - 1) / 2 + x: x in S(k - j)}, S(0) = {0} (Shaffer 1986).
    """
    sets = [1]  # bit x of sets[k]: x is in S(k)
    for k in range(1, rows + 1):
        sets.append(functools.reduce(operator.or_, (sets[k - j] << comb(j, 2) for j in range(1, k + 1))))
    largest_of: list[int] = []
    largest = 0
    for pairs in range(1, comb(rows, 2) + 1):
        largest = pairs if sets[rows] >> pairs & 1 else largest
        largest_of.append(largest)
    return tuple(reversed(largest_of))


class Effect(NamedTuple):
    """The size of a paired difference a - b.

    `low` and `high` are the t interval of its mean, `d_z` is mean over standard deviation of the differences
    (Cohen 1988), `superiority` the chance that a run of a scores higher than one of b, ties half (Vargha and
    Delaney 2000).
    """

    difference: float
    low: float
    high: float
    d_z: float
    superiority: float


def effect(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Effect:
    """Return how large the difference of two equally long, paired samples is."""
    of_a, of_b = np.asarray(a, float), np.asarray(b, float)
    differences = of_a - of_b
    mean = float(differences.mean())
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else nan
    half = spread * _t_factor(len(differences), confidence)
    ahead = np.sign(of_a[:, None] - of_b[None, :])
    # a spread of rounding errors alone is none
    d_z = nan if isnan(spread) or spread <= 1e-12 * max(1.0, abs(mean)) else mean / spread
    return Effect(mean, mean - half, mean + half, d_z, float((ahead.mean() + 1) / 2))
