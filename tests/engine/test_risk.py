"""Conformal risk control: the guarantee itself, for every set of critical scores."""

from __future__ import annotations

from fractions import Fraction
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hblm.engine.risk import RiskCounter, critical_scores, documents_needed, least_score
from hblm.taxonomy import Node, Taxonomy

TAXONOMY = Taxonomy(Node(name, name, parent) for name, parent in [("a", None), ("b", None), ("a1", "a")])

SCORES = st.sampled_from([-inf, 0.0, 0.25, 0.5, 0.5000001, 0.75, 1.0])  # with ties
CONFIDENCES = st.sampled_from([0.5, 0.7, 0.75, 0.8, 0.9])


def as_array(values):
    return np.array(values, np.float32).astype(np.float64)


@given(st.lists(SCORES, min_size=10, max_size=40), CONFIDENCES)
def test_the_mean_risk_of_a_left_out_document_is_at_most_the_level(critical, confidence):
    """Exchangeable documents: each of n + 1 is as likely to be the new one. Exact, whatever the scores."""
    wrong = 0
    for number, own in enumerate(critical):
        others = as_array(critical[:number] + critical[number + 1 :])
        wrong += as_array([own])[0] >= least_score(others, confidence)
    assert Fraction(wrong, len(critical)) <= 1 - Fraction(str(confidence))


@given(st.lists(SCORES, min_size=9, max_size=40), CONFIDENCES)
def test_no_smaller_score_would_do(critical, confidence):
    critical = as_array(critical)
    least, level = least_score(critical, confidence), 1 - Fraction(str(confidence))

    def bound(score):
        return Fraction(int((critical >= score).sum()) + 1, len(critical) + 1)

    assert bound(least) <= level
    if least > 0:
        assert bound(np.nextafter(np.float32(least), np.float32(-inf))) > level


@pytest.mark.parametrize(("confidence", "needed"), [(0.9, 9), (0.8, 4), (0.95, 19), (0.5, 1), (0.999, 999)])
def test_fewer_documents_than_needed_are_refused(confidence, needed):
    assert documents_needed(confidence) == needed
    assert least_score(np.full(needed, -inf), confidence) == 0.0
    with pytest.raises(ValueError, match=f"{needed - 1} documents; .* needs {needed}"):
        least_score(np.full(needed - 1, -inf), confidence)


def test_nothing_is_returned_where_the_highest_scores_are_wrong():
    assert least_score(np.full(20, 1.0), 0.9) > 1


def test_a_critical_score_is_the_highest_of_a_wrong_predicted_node():
    scores = np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.9, 0.8, 0.7]], np.float32)
    predicted = np.array([[True, True, True], [True, False, True], [True, False, False]])
    gold = np.array([[True, False, False], [True, False, True], [False, True, True]])
    assert critical_scores(scores, predicted, gold) == pytest.approx([0.8, -inf, 0.9])


def test_the_measured_risk():
    predicted = np.array([[True, False, True], [True, True, False], [False, False, False]])
    returned = np.array([[True, False, False], [True, True, False], [False, False, False]])
    gold = np.array([[True, False, False], [True, False, False], [True, False, False]])
    counter = RiskCounter(TAXONOMY)
    counter.update(predicted[:1], returned[:1], gold[:1])
    counter.update(predicted[1:], returned[1:], gold[1:])
    assert counter.compute() == {
        "documents": 3,
        "risk_before": pytest.approx(2 / 3),
        "risk": pytest.approx(1 / 3),
        "shortened": pytest.approx(1 / 3),
        "depth_before": pytest.approx(1.0),
        "depth": pytest.approx(2 / 3),
    }
