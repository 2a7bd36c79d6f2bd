"""Temperatures and calibration errors: against direct computations on all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from hblm.engine.calibration import ECE_BINS, CalibrationCounter, log_odds, tempered
from hblm.taxonomy import Node, Taxonomy

TAXONOMY = Taxonomy(Node(name, name, parent) for name, parent in [("a", None), ("b", None), ("a1", "a")])


def documents(count: int, sharpness=(2.0, 0.5), seed: int = 0):
    """Draw labels, and scores of which the first level's are too sharp, the second's too blunt."""
    draw = np.random.default_rng(seed)
    odds = draw.normal(-1, 1.5, (count, 3))
    gold = draw.random(odds.shape) < 1 / (1 + np.exp(-odds))
    scores = 1 / (1 + np.exp(-odds * [sharpness[0], sharpness[0], sharpness[1]]))
    return scores.astype(np.float32), gold


def counter_of(scores, gold):
    counter = CalibrationCounter(TAXONOMY)
    counter.update(scores, gold)
    return counter


def log_loss(scores, gold):
    return -np.where(gold, np.log(scores), np.log1p(-scores)).mean()


def test_a_temperature_undoes_what_made_a_levels_scores_too_sharp_or_blunt():
    of_levels = counter_of(*documents(20_000)).temperatures()
    assert of_levels == pytest.approx((2.0, 0.5), rel=0.05)


def test_a_temperature_minimises_the_log_loss():
    scores, gold = documents(300)
    for level, own in zip(TAXONOMY.levels, counter_of(scores, gold).temperatures(), strict=True):
        part = slice(level.start, level.stop)
        odds = log_odds(scores[:, part])

        def loss(temperature, odds=odds, gold=gold[:, part]):
            return log_loss(1 / (1 + np.exp(-odds / temperature)), gold)

        assert own == pytest.approx(minimize_scalar(loss, bounds=(0.2, 5), method="bounded").x, rel=0.01)


def test_a_level_without_labels_or_without_other_pairs_keeps_its_scores():
    scores, gold = documents(50)
    gold[:, :2], gold[:, 2] = False, True
    assert counter_of(scores, gold).temperatures() == (1.0, 1.0)


def test_a_separated_level_gets_the_bound_and_no_overflow():
    scores = np.array([[1.0, 0.0, 0.9]] * 4, np.float32)
    gold = scores > 0.5
    gold[0, 2] = False
    counter = counter_of(scores, gold)
    assert counter.temperatures()[0] == pytest.approx(0.2, abs=0.01)
    changed = tempered(scores, (0.2, 0.2), TAXONOMY)
    assert changed.dtype == np.float32
    assert changed[:, :2].tolist() == scores[:, :2].tolist()


def direct_error(scores, gold):
    """Return the ECE with bins of equally many pairs, sorted one by one, for each side of 0.5."""
    total = 0.0
    for side in (scores >= 0.5, scores < 0.5):
        order = np.argsort(scores[side], kind="stable")
        for part in np.array_split(order, ECE_BINS):
            if len(part):
                total += abs(scores[side][part].sum() - gold[side][part].sum())
    return total / len(scores)


def test_the_calibration_error_is_that_of_bins_of_equally_many_pairs():
    scores, gold = documents(30_000)
    for level, own in zip(TAXONOMY.levels, counter_of(scores, gold).reliability(), strict=True):
        part = slice(level.start, level.stop)
        expected = direct_error(scores[:, part].ravel(), gold[:, part].ravel())
        assert own.error.all == pytest.approx(expected, abs=0.002)
        assert sum(each.pairs for each in own.bins) == scores[:, part].size
        assert expected > 0.02


def test_the_sides_have_errors_of_their_own():
    """All negative predictions are right, half of the positive ones are not."""
    scores = np.array([[0.9, 0.001, 0.9], [0.9, 0.001, 0.001]], np.float32)
    gold = np.array([[True, False, True], [False, False, False]])
    level = counter_of(scores, gold).reliability()[0]
    assert level.error.positive == pytest.approx(0.4, abs=0.01)
    assert level.error.negative == pytest.approx(0.001, abs=0.001)
    assert level.error.all == pytest.approx(0.2, abs=0.01)


def test_temperatures_reduce_the_error_on_other_documents():
    counter, other = counter_of(*documents(2000)), counter_of(*documents(2000, seed=1))
    before, after = other.reliability(), other.reliability(counter.temperatures())
    for level in range(2):
        assert after[level].error.all < 0.5 * before[level].error.all


def test_batches_add_up():
    scores, gold = documents(100)
    total, first = counter_of(scores[:0], gold[:0]), counter_of(scores[:30], gold[:30])
    total.add(first.counted())
    total.update(scores[30:], gold[30:])
    assert total.temperatures() == counter_of(scores, gold).temperatures()
