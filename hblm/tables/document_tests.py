"""Tests over documents: paired bootstrap and approximate randomisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 2000  # of each test
_BLOCK = 1 << 22  # numbers that are held at once
Pair = tuple[list[Any], list[Any]]  # what is summed over documents, of a model of a and of one of b


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


class DocumentDifference(NamedTuple):
    """A difference a - b tested over documents; the interval is the bootstrap's 2.5 and 97.5 percentiles."""

    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_randomisation: float
    documents: int
    resamples: int


def document_difference(
    a: Sequence[Counts],
    b: Sequence[Counts],
    score: str,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> DocumentDifference:
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
    pairs = [
        (_per_document(one, score), _per_document(other, score)) for one, other in zip(a, b, strict=True)
    ]
    observed = float(_difference(pairs, score, np.ones((1, n_documents)))[0])
    bootstrap, randomised = _resampled(pairs, score, n_documents, resamples, seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(bootstrap, [tail, 1 - tail])
    return DocumentDifference(
        observed,
        float(low),
        float(high),
        _p_value(np.abs(bootstrap - observed), observed),
        _p_value(np.abs(randomised), observed),
        n_documents,
        resamples,
    )


def _resampled(
    pairs: Sequence[Pair], score: str, n_documents: int, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the differences of the bootstrap's and the randomisation's resamples, (resamples,) each."""
    draws = np.random.default_rng(seed)
    bootstrap: list[np.ndarray] = []
    randomised: list[np.ndarray] = []
    for size in _sizes(resamples, n_documents):
        weights = [
            np.bincount(draws.integers(0, n_documents, n_documents), minlength=n_documents)
            for _ in range(size)
        ]
        bootstrap.append(_difference(pairs, score, np.stack(weights).astype(float)))
        kept = draws.integers(0, 2, (size, n_documents)).astype(float)
        randomised.append(_difference(pairs, score, kept, 1 - kept))
    return np.concatenate(bootstrap), np.concatenate(randomised)


def _difference(
    pairs: Sequence[Pair], score: str, weights: np.ndarray, exchanged: np.ndarray | None = None
) -> np.ndarray:
    """Return the mean over pairs of the score of a minus that of b, (resamples,).

    Args:
        pairs: what is summed over documents, of a and of b.
        score: the score.
        weights: (resamples, documents), of a model's own documents.
        exchanged: (resamples, documents), weights of those taken from the other model; None for none.
    """
    n_documents = weights.shape[1]
    total = np.zeros(len(weights))
    for a, b in pairs:
        of_a, of_b = _weigh(a, weights), _weigh(b, weights)
        if exchanged is not None:
            from_b, from_a = _weigh(b, exchanged), _weigh(a, exchanged)
            of_a = [own + other for own, other in zip(of_a, from_b, strict=True)]
            of_b = [own + other for own, other in zip(of_b, from_a, strict=True)]
        total += _score(of_a, score, n_documents) - _score(of_b, score, n_documents)
    return total / len(pairs)


def _p_value(distances: np.ndarray, observed: float) -> float:
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
