"""Tests over documents against scikit-learn, document by document."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from hblm.tables.document_tests import counts, document_difference

N_DOCUMENTS, N_NODES = 30, 6


def made(seed: int, right: float) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and predictions, (documents, nodes)."""
    draws = np.random.default_rng(seed)
    target = np.random.default_rng(0).random((N_DOCUMENTS, N_NODES)) < 0.4
    return target, np.where(draws.random(target.shape) < right, target, ~target)


def counted(seed: int, right: float):
    target, predicted = made(seed, right)
    documents, nodes = np.nonzero(target | predicted)
    of = (documents, nodes)
    return counts(documents, nodes, predicted[of], target[of], N_DOCUMENTS, N_NODES)


@pytest.mark.parametrize("score", ["micro_f1", "macro_f1", "samples_f1"])
def test_difference_over_documents_is_sklearns(score: str) -> None:
    result = document_difference(
        [counted(1, 0.9), counted(2, 0.8)], [counted(3, 0.7), counted(4, 0.7)], score
    )

    def of(seed: int, right: float) -> float:
        target, predicted = made(seed, right)
        return float(f1_score(target, predicted, average=score.removesuffix("_f1"), zero_division=0))

    wanted = (of(1, 0.9) + of(2, 0.8) - of(3, 0.7) - of(4, 0.7)) / 2
    assert result.difference == pytest.approx(wanted)
    assert result.low < result.difference < result.high
    assert result.documents == N_DOCUMENTS


@pytest.mark.parametrize("score", ["micro_f1", "macro_f1", "samples_f1"])
def test_resampling_is_that_of_a_loop_over_documents(score: str) -> None:
    """The same draws, document by document through scikit-learn."""
    a, b, resamples = (1, 0.9), (3, 0.75), 15
    result = document_difference([counted(*a)], [counted(*b)], score, resamples=resamples, seed=5)
    (target, of_a), (_, of_b) = made(*a), made(*b)

    def difference(rows: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
        scores = [
            f1_score(target[rows], one[rows], average=score.removesuffix("_f1"), zero_division=0)
            for one in (first, second)
        ]
        return float(scores[0] - scores[1])

    everything = np.arange(N_DOCUMENTS)
    observed = difference(everything, of_a, of_b)
    draws = np.random.default_rng(5)
    boot = [difference(draws.integers(0, N_DOCUMENTS, N_DOCUMENTS), of_a, of_b) for _ in range(resamples)]
    keep = draws.integers(0, 2, (resamples, N_DOCUMENTS)).astype(bool)[:, :, None]
    swapped = [difference(everything, np.where(k, of_a, of_b), np.where(k, of_b, of_a)) for k in keep]
    beyond = sum(abs(one - observed) >= abs(observed) - 1e-12 for one in boot)
    assert result.p_bootstrap == pytest.approx((1 + beyond) / (resamples + 1))
    beyond = sum(abs(one) >= abs(observed) - 1e-12 for one in swapped)
    assert result.p_randomisation == pytest.approx((1 + beyond) / (resamples + 1))
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(boot, [0.025, 0.975])))


def test_a_model_does_not_differ_from_itself() -> None:
    one = counted(1, 0.9)
    result = document_difference([one], [one], "macro_f1", resamples=50)
    assert (result.difference, result.p_bootstrap, result.p_randomisation) == (0, 1, 1)


def test_other_documents_cannot_be_paired() -> None:
    one = counted(1, 0.9)
    other = counts(np.array([0]), np.array([0]), np.array([True]), np.array([True]), 3, N_NODES)
    with pytest.raises(ValueError, match="same documents"):
        document_difference([one], [other], "micro_f1")
    with pytest.raises(ValueError, match="equally many"):
        document_difference([one, one], [one], "micro_f1")
