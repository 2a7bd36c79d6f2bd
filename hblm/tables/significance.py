"""The statistics behind tables: intervals, tests over seeds, over documents and over datasets.

Scores are F1 in 0..1; a run is a seed. scipy is loaded where it is used.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from math import isnan, nan, sqrt
from typing import Any, NamedTuple

import numpy as np

# Friedman's chi-square and Nemenyi's difference are approximations: with fewer, they say little
MIN_DATASETS = 5
MIN_METHODS = 3
_EXACT = 14  # pairs up to which all 2^n sign patterns are gone through
_RESAMPLES = 20_000
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

        found = stats.bootstrap(
            (given,), np.mean, n_resamples=9999, confidence_level=confidence, method="percentile", rng=0
        )
        return float(found.confidence_interval.low), float(found.confidence_interval.high)
    half = float(given.std(ddof=1)) * _t_factor(len(given), confidence)
    return mean - half, mean + half


def paired_permutation(differences: np.ndarray) -> np.ndarray:
    """Return the two-sided p of each row's mean: how many flips of signs give one as far from zero.

    All 2^n patterns are gone through for n <= 14, else 20,000 are drawn with a fixed seed (Fisher 1935; done
    by scipy's permutation_test).

    Args:
        differences: (pairs of cells, seeds), of scores with the same seed.
    """
    from scipy import stats

    rows, n = differences.shape
    if n == 1:
        return np.ones(rows)
    # rounded, so that 0.3 - 0.1 and 0.2 are equally far from zero
    rounded = np.round(differences, 12)
    block = max(1, _BLOCK // (n << min(n, _EXACT)))
    found = [
        stats.permutation_test(
            (part.T,),
            _rounded_mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf if n <= _EXACT else _RESAMPLES,
            axis=0,
            rng=0,
        ).pvalue
        for part in np.array_split(rounded, range(block, rows, block))
    ]
    return np.concatenate([np.atleast_1d(p) for p in found])


def _rounded_mean(values: np.ndarray, axis: int) -> np.ndarray:
    mean: np.ndarray = np.asarray(np.mean(values, axis=axis))
    return np.asarray(np.round(mean, 12) + 0.0)  # one zero, not two


def smallest_p(n: int) -> float:
    """Return the smallest two-sided p that a paired permutation test over n runs can give."""
    return 2.0 ** (1 - n) if n > 1 else 1.0


def runs_needed(alpha: float, comparisons: int = 1) -> int:
    """Return with how many runs that p, times the comparisons (Holm's first step), reaches alpha."""
    return next(n for n in itertools.count(2) if smallest_p(n) * comparisons <= alpha)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return Holm's adjusted p-values (1979), in the given order; nan is no comparison and stays nan."""
    given = np.asarray(p_values, float)
    adjusted = np.full(len(given), nan)
    order = [at for at in np.argsort(given, kind="stable") if not isnan(given[at])]
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * given[at]))
        adjusted[at] = highest
    return adjusted


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


class Counts(NamedTuple):
    """One model's hits, false alarms and misses: sparse 0/1 arrays (documents, nodes)."""

    true: Any
    false: Any
    missed: Any


def counts(
    documents: np.ndarray,
    nodes: np.ndarray,
    predicted: np.ndarray,
    target: np.ndarray,
    n_documents: int,
    n_nodes: int,
) -> Counts:
    """Count predictions given as pairs of positions of document and node."""
    from scipy import sparse

    def where(chosen: np.ndarray) -> Any:
        ones = np.ones(int(chosen.sum()))
        return sparse.csr_array((ones, (documents[chosen], nodes[chosen])), shape=(n_documents, n_nodes))

    return Counts(where(predicted & target), where(predicted & ~target), where(~predicted & target))


class OverDocuments(NamedTuple):
    """A difference a - b tested over documents; the interval is the bootstrap's 2.5 and 97.5 percentiles."""

    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_randomisation: float
    documents: int
    resamples: int


def over_documents(
    a: Sequence[Counts],
    b: Sequence[Counts],
    score: str,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> OverDocuments:
    """Test whether a and b differ on other documents of the same kind.

    What is tested is the difference of the mean scores of a's and b's models. Paired bootstrap (Efron and
    Tibshirani 1993; Berg-Kirkpatrick et al. 2012): documents are drawn with replacement, for all models the
    same, p = (1 + #{|d* - d| >= |d|}) / (resamples + 1). Approximate randomisation (Noreen 1989; Yeh 2000): a
    document's outputs are exchanged between a and b with probability 1/2, for all seeds at once,
    p = (1 + #{|d*| >= |d|}) / (resamples + 1).

    Args:
        a, b: counts of each model, paired by seed.
        score: micro_f1, macro_f1 or samples_f1.
        resamples: of each test.
        seed: of the draws.
        confidence: of the interval.

    Raises:
        ValueError: a and b are not equally many models of the same documents.
    """
    shapes = {one.true.shape for one in (*a, *b)}
    if len(a) != len(b) or len(shapes) != 1:
        raise ValueError("a and b must be equally many models of the same documents and nodes")
    (n_documents, _) = shapes.pop()
    blocks = [_per_document(one, score) for one in (*a, *b)]
    of_a, of_b = blocks[: len(a)], blocks[len(a) :]
    whole = np.ones((1, n_documents))

    def difference(weights_a: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
        """Return mean score of a minus b; `other` weighs the documents taken from the other model."""
        total = np.zeros(len(weights_a))
        for one, two in zip(of_a, of_b, strict=True):
            if other is None:
                first, second = _weigh(one, weights_a), _weigh(two, weights_a)
            else:
                first = [x + y for x, y in zip(_weigh(one, weights_a), _weigh(two, other), strict=True)]
                second = [x + y for x, y in zip(_weigh(two, weights_a), _weigh(one, other), strict=True)]
            total += _score(first, score, n_documents) - _score(second, score, n_documents)
        return total / len(of_a)

    observed = float(difference(whole)[0])
    draws = np.random.default_rng(seed)
    drawn: list[np.ndarray] = []
    exchanged: list[np.ndarray] = []
    for size in _sizes(resamples, n_documents):
        weights = np.stack(
            [
                np.bincount(draws.integers(0, n_documents, n_documents), minlength=n_documents)
                for _ in range(size)
            ]
        ).astype(float)
        drawn.append(difference(weights))
        keep = draws.integers(0, 2, (size, n_documents)).astype(float)
        exchanged.append(difference(keep, 1 - keep))
    bootstrap, randomised = np.concatenate(drawn), np.concatenate(exchanged)
    tail = (1 - confidence) / 2
    low, high = np.quantile(bootstrap, [tail, 1 - tail])
    return OverDocuments(
        observed,
        float(low),
        float(high),
        _share(np.abs(bootstrap - observed), observed),
        _share(np.abs(randomised), observed),
        n_documents,
        resamples,
    )


def _share(distances: np.ndarray, observed: float) -> float:
    beyond = int((distances >= abs(observed) - 1e-12).sum())
    return (1 + beyond) / (len(distances) + 1)


def _sizes(resamples: int, n_documents: int) -> Iterator[int]:
    """Yield how many resamples are done at once, so that memory stays bounded."""
    block = max(1, min(resamples, _BLOCK // n_documents))
    for start in range(0, resamples, block):
        yield min(block, resamples - start)


def _per_document(one: Counts, score: str) -> list[Any]:
    """Return what is summed over documents: sparse (documents, nodes) for macro-F1, else (documents, k)."""
    if score == "macro_f1":
        return [part.T.tocsr() for part in one]
    sums = [np.asarray(part.sum(axis=1)).reshape(-1) for part in one]
    if score == "samples_f1":
        return [_f1(*sums)[None]]
    if score != "micro_f1":
        raise ValueError(f"{score} cannot be tested over documents")
    return [part[None] for part in sums]


def _weigh(parts: Sequence[Any], weights: np.ndarray) -> list[np.ndarray]:
    """Return the weighted sums, (resamples, nodes or 1) each."""
    return [np.asarray(part @ weights.T).T for part in parts]


def _score(sums: Sequence[np.ndarray], score: str, n_documents: int) -> np.ndarray:
    if score == "samples_f1":
        return np.asarray(sums[0][:, 0] / n_documents)
    return np.asarray(_f1(*sums).mean(axis=1))  # micro: of one column


def _f1(true: np.ndarray, false: np.ndarray, missed: np.ndarray) -> np.ndarray:
    whole = 2 * true + false + missed
    return np.asarray(np.divide(2 * true, whole, out=np.zeros_like(whole, dtype=float), where=whole > 0))


class Ranks(NamedTuple):
    """Methods ranked over datasets.

    `mean_ranks` (methods,), 1 the best, ties in the middle; Friedman's `statistic` and `p`; Nemenyi's
    `critical_difference` of mean ranks and p of each pair, `pairs` (methods, methods); `blocks` datasets.
    """

    mean_ranks: np.ndarray
    statistic: float
    p: float
    critical_difference: float
    pairs: np.ndarray
    blocks: int


def over_datasets(scores: np.ndarray, alpha: float = 0.05) -> Ranks:
    """Rank methods over datasets (Friedman 1937; Nemenyi 1963; as in Demšar 2006).

    Args:
        scores: (datasets, methods), higher is better.
        alpha: of the critical difference q_alpha sqrt(k (k + 1) / 6N).
    """
    from scipy import stats

    n, k = scores.shape
    rounded = np.round(scores, 12)
    ranks = stats.rankdata(-rounded, axis=1)
    if (np.ptp(rounded, axis=1) == 0).all():
        statistic, p = nan, 1.0
    else:
        statistic, p = (float(value) for value in stats.friedmanchisquare(*rounded.T))
    mean = ranks.mean(axis=0)
    unit = sqrt(k * (k + 1) / (6 * n))
    critical = float(stats.studentized_range.ppf(1 - alpha, k, np.inf)) / sqrt(2) * unit
    pairs = np.ones((k, k))
    for a, b in itertools.combinations(range(k), 2):
        q = abs(mean[a] - mean[b]) / unit * sqrt(2)
        pairs[a, b] = pairs[b, a] = float(stats.studentized_range.sf(q, k, np.inf)) if q else 1.0
    return Ranks(mean, statistic, p, critical, pairs, n)
