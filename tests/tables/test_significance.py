"""Intervals and tests against numbers worked out by hand, brute force and other implementations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hblm.tables import significance
from hblm.tables.significance import (
    effect,
    mean_interval,
    most_equal_pairs,
    paired_permutation,
    runs_needed,
    shaffer,
    smallest_p,
)


def test_t_interval_by_hand() -> None:
    # mean 2, s = 1, t_2 = 4.3027: half the width is 4.3027 / sqrt(3) = 2.4841
    assert mean_interval([1, 2, 3]) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-4)
    assert mean_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)
    assert all(map(math.isnan, mean_interval([1.0])))


def test_bootstrap_interval_lies_within_the_values_and_repeats() -> None:
    values = [0.70, 0.72, 0.71, 0.74, 0.69]
    low, high = mean_interval(values, how="bootstrap")
    assert 0.69 < low < np.mean(values) < high < 0.74
    assert (low, high) == mean_interval(values, how="bootstrap")
    assert mean_interval([1, 1, 1], how="bootstrap") == (1, 1)


def brute_force(differences: list[float]) -> float:
    """Go through every pattern of signs."""
    observed = abs(math.fsum(differences))
    patterns = itertools.product([1, -1], repeat=len(differences))
    sums = [abs(math.fsum(s * d for s, d in zip(signs, differences, strict=True))) for signs in patterns]
    return sum(total >= observed - 1e-9 for total in sums) / len(sums)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=7))
def test_permutation_is_every_pattern_of_signs(thousandths: list[int]) -> None:
    differences = [value / 1000 for value in thousandths]
    (p,) = paired_permutation(np.array([differences]))
    assert p == pytest.approx(brute_force(differences))


def test_permutation_of_many_rows_at_once_is_that_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(1).normal(0.5, 1, (40, 6))
    together = paired_permutation(rows)
    assert together == pytest.approx([brute_force(row.tolist()) for row in rows])
    monkeypatch.setattr(significance, "_BLOCK", 1)  # a row at a time
    assert paired_permutation(rows).tolist() == together.tolist()


def test_permutation_takes_rounding_for_what_it_is() -> None:
    # 0.1 + 0.2 - 0.3 is not zero in floats; both rows say the same
    rows = np.array([[0.1 + 0.2 - 0.3 + 0.1, 0.1, -0.1], [0.1, 0.1, -0.1]])
    assert paired_permutation(rows).tolist() == [1.0, 1.0]
    assert paired_permutation(np.array([[0.0, 0.0], [0.2, 0.2]])).tolist() == [1.0, 0.5]
    assert paired_permutation(np.array([[0.3]])).tolist() == [1.0]
    assert paired_permutation(np.full((1, 6), 0.1 + 0.2 - 0.3)).tolist() == [1.0]


def test_permutation_of_many_seeds_is_drawn_and_repeats() -> None:
    rows = np.random.default_rng(2).normal(0.4, 1, (2, 20))
    drawn = paired_permutation(rows)
    assert drawn.tolist() == paired_permutation(rows).tolist()
    wanted = [stats.ttest_1samp(row, 0).pvalue for row in rows]
    assert drawn == pytest.approx(wanted, abs=0.03)


def test_what_few_seeds_can_say() -> None:
    assert [smallest_p(n) for n in (1, 2, 5, 6)] == [1.0, 0.5, 0.0625, 0.03125]
    assert [paired_permutation(np.ones((1, n)))[0] for n in (2, 5, 6)] == [0.5, 0.0625, 0.03125]
    assert (runs_needed(0.05), runs_needed(0.05, 3), runs_needed(0.0625)) == (6, 7, 5)


def test_the_smallest_p_of_drawn_permutations() -> None:
    """No drawn flip of 30 equal differences is as far from zero: the one counted is the observed one."""
    assert smallest_p(15) == smallest_p(30) == paired_permutation(np.ones((1, 30)))[0] == 1 / 20_001
    assert smallest_p(14) == paired_permutation(np.ones((1, 14)))[0] == 2**-13
    # 409 x 2^-13 < 0.05 < 410 x 2^-13; 1,000 / 20,001 < 0.05 < 1,001 / 20,001
    needed = [runs_needed(0.05, comparisons) for comparisons in (409, 410, 1000, 1001)]
    assert needed == [14, 15, 15, None]


def partitions(rows: list[int]) -> Iterator[list[list[int]]]:
    """Yield every way to put rows into groups."""
    if not rows:
        yield []
        return
    first, *rest = rows
    for groups in partitions(rest):
        yield [[first], *groups]
        for at, group in enumerate(groups):
            yield [*groups[:at], [first, *group], *groups[at + 1 :]]


def equal_pairs(groups: list[list[int]]) -> set[tuple[int, int]]:
    return {pair for group in groups for pair in itertools.combinations(sorted(group), 2)}


@pytest.mark.parametrize("rows", range(1, 8))
def test_the_most_equal_pairs_are_those_of_some_grouping(rows: int) -> None:
    numbers = {len(equal_pairs(groups)) for groups in partitions(list(range(rows)))}
    n_pairs = math.comb(rows, 2)
    wanted = [max(number for number in numbers if number <= n_pairs - unequal) for unequal in range(n_pairs)]
    assert list(most_equal_pairs(rows)) == wanted


def test_shaffer_by_hand() -> None:
    # three rows: 3 x 0.01, then one pair at most: 0.02, raised to 0.03; then 0.04
    assert shaffer([0.02, 0.01, 0.04], 3) == pytest.approx([0.03, 0.03, 0.04])
    # four rows: factors 6, 3, 3, 3, 2, 1
    p_values = [0.3, 0.005, 0.02, 0.008, 0.5, 0.012]
    assert shaffer(p_values, 4) == pytest.approx([0.6, 0.03, 0.06, 0.03, 0.6, 0.036])
    assert shaffer([0.04], 2) == pytest.approx([0.04])


def holm(p_values: list[float]) -> list[float]:
    """Adjust as Holm 1979 does: one factor less at each step."""
    adjusted, before = [0.0] * len(p_values), 0.0
    for step, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        before = max(before, min(1.0, (len(p_values) - step) * p_values[at]))
        adjusted[at] = before
    return adjusted


def test_shaffer_without_a_pair_is_holm_over_the_others() -> None:
    # 2 x 0.01, then 0.04; the third pair has no test, so the first two can both be equal
    adjusted = shaffer([0.04, math.nan, 0.01], 3)
    assert holm([0.04, 0.01]) == [0.04, 0.02]
    assert adjusted[[0, 2]] == pytest.approx([0.04, 0.02])
    assert math.isnan(adjusted[1])
    assert np.isnan(shaffer([math.nan] * 3, 3)).all()
    assert shaffer([0.04, 0.01], 3).tolist() == adjusted[[0, 2]].tolist(), "the third pair is not in the list"


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([3, 4]), st.data())
def test_shaffer_lies_between_the_closed_test_and_holm(rows: int, data: st.DataObject) -> None:
    """Closed testing: a pair's p is the largest Bonferroni p of all groupings that hold the pair equal."""
    pairs = list(itertools.combinations(range(rows), 2))
    p_values = data.draw(st.lists(st.floats(0, 1), min_size=len(pairs), max_size=len(pairs)))
    adjusted = shaffer(p_values, rows)
    groupings = [equal_pairs(groups) for groups in partitions(list(range(rows)))]
    bonferroni = [
        (equal, len(equal) * min(p_values[pairs.index(pair)] for pair in equal))
        for equal in groupings
        if equal
    ]
    closed = [min(1.0, max(p for equal, p in bonferroni if pair in equal)) for pair in pairs]
    assert all(adjusted >= np.array(closed) - 1e-12)
    assert all(adjusted <= np.array(holm(p_values)) + 1e-12)


def test_effect_by_hand() -> None:
    size = effect([3, 5, 4], [1, 2, 3])  # differences 2, 3, 1: mean 2, s = 1
    assert (size.difference, size.d_z) == pytest.approx((2, 2))
    assert (size.low, size.high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-4)
    # of nine pairs 3 beats 1 and 2, ties 3; 5 beats three; 4 beats three
    assert size.superiority == pytest.approx((2 + 0.5 + 3 + 3) / 9)
    same = effect([0.3, 0.4], [0.1 + 0.1, 0.3])
    assert math.isnan(same.d_z)
    assert same.difference == pytest.approx(0.1)
