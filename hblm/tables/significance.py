"""The statistics behind tables: intervals, tests over seeds, over documents and over datasets.

Scores are F1 in 0..1; a run is a seed. scipy is loaded where it is used.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator, Sequence
from math import comb, isnan, nan, sqrt
from typing import Any, NamedTuple

import numpy as np

# Friedman's chi-square and Nemenyi's difference are approximations: with fewer, they say little
MIN_DATASETS = 5
MIN_METHODS = 3
MOST_EXACT = 14  # runs up to which a permutation test counts all 2^n flips of signs
N_FLIPS = 20_000  # drawn for more runs
RESAMPLES = 2000  # of a test over documents
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
    are equal when i - 1 of them are not, whatever holds for the pairs without a test.

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
    found: list[int] = []
    largest = 0
    for pairs in range(1, comb(rows, 2) + 1):
        largest = pairs if sets[rows] >> pairs & 1 else largest
        found.append(largest)
    return tuple(reversed(found))


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
    resamples: int = RESAMPLES,
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
