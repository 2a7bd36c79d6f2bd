"""Marks of rows, tests of pairs of rows, the caption's sentences on both, and the family-wise error rate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import made_results
import numpy as np
import pytest
from made_tables import WAVE, cell, grid, one_column, rising, seeds, table_from, table_of

from hblm.tables.comparisons import PairTest, compare_rows
from hblm.tables.output.csv_text import comparisons_csv
from hblm.tables.output.html import page
from hblm.tables.p_values import DOCUMENTS, DRAWN, EXACT
from hblm.tables.significance import paired_permutation
from hblm.tables.table import Cell, Column, Comparison, Table


def standings(table: Table) -> dict[str, str]:
    """Return row -> standing, of a table with one column."""
    return {row.text: cell.standing for (row, _), cell in table.cells.items()}


def compared(table: Table, a: str, b: str) -> Comparison:
    (comparison,) = (one for one in table.comparisons if (one.a, one.b) == (a, b))
    return comparison


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_row_that_is_worse_on_every_shared_seed_is_not_bold(higher_is_better: bool) -> None:
    """Its mean is better only by seeds that the other row does not have."""
    sign = 1 if higher_is_better else -1
    worse = {seed: 0.5 - sign * 0.01 + seed / 1000 for seed in range(1, 9)} | {20: 0.5 + sign * 0.4}
    scores = {"worse": worse, "better": {seed: 0.5 + seed / 1000 for seed in range(1, 9)}}
    table = one_column(scores, higher_is_better=higher_is_better)
    compare_rows(table)
    one = compared(table, "worse", "better")
    assert (one.difference, one.p_adjusted) == (pytest.approx(-sign * 0.01), 2**-7)
    assert standings(table) == {"worse": "", "better": "best"}


def test_all_pairs_are_adjusted_and_the_better_mean_comes_first() -> None:
    table = one_column({"c": rising(8), "a": rising(8, 0.2), "b": rising(8, 0.1)})
    compare_rows(table)
    # p = 2^-7 each: 3 x 2^-7, and no less after it
    p_values = {(one.a, one.b): (one.p, one.p_adjusted) for one in table.comparisons}
    assert p_values == dict.fromkeys([("a", "b"), ("a", "c"), ("b", "c")], (2**-7, 3 * 2**-7))
    assert {one.test for one in table.comparisons} == {EXACT}
    assert standings(table) == {"c": "", "a": "best", "b": ""}


def test_rows_than_which_none_is_better_are_underlined_where_none_is_bold() -> None:
    jitter = np.array([1, -1] * 5) / 100
    scores = {
        "top": seeds(*(0.6 + jitter)),
        "level": seeds(*(0.599 - jitter)),
        "low": seeds(*(0.5 + WAVE[:10])),
        "few": seeds(0.59, 0.58),
    }
    table = one_column(scores)
    compare_rows(table)
    assert standings(table) == {"top": "tied", "level": "tied", "low": "", "few": ""}
    assert compared(table, "top", "few").p_adjusted == 1, "two seeds cannot decide"


def test_a_row_without_a_test_is_not_marked_and_no_other_row_is_bold() -> None:
    table = one_column({"a": rising(10, 0.1), "b": rising(10), "other": seeds(0.1, 0.2, first=50)})
    compare_rows(table)
    none = compared(table, "a", "other")
    assert (none.n, math.isnan(none.p), math.isnan(none.p_adjusted)) == (0, True, True)
    assert [one.why for one in table.comparisons].count("no seed is shared") == 2
    assert compared(table, "a", "b").p_adjusted == 2**-9, "one test, whatever is missing"
    assert standings(table) == {"a": "tied", "b": "", "other": ""}
    assert "(Shaffer; Holm where a pair has no test)" in table.caption[-1]
    assert page(table, {}).count("no test: no seed is shared") == 2


def test_a_column_with_too_many_pairs_to_decide_is_tested_against_the_best_mean_only() -> None:
    all_pairs, cut, able = (
        one_column({f"r{at:02}": rising(n, -at / 100) for at in range(rows)})
        for rows, n in ((14, 5), (15, 5), (15, 13))
    )
    for table in (all_pairs, cut, able):
        compare_rows(table)
    assert [len(table.comparisons) for table in (all_pairs, cut, able)] == [91, 14, 105]
    assert {one.a for one in cut.comparisons} == {"r00"}
    assert {(one.p, one.p_adjusted) for one in cut.comparisons} == {(2**-4, 1.0)}
    assert standings(able)["r00"] == "best"


def test_of_a_large_column_the_pairs_that_share_no_seed_are_left_out() -> None:
    lone = {f"l{at}": seeds(0.1, first=100 + at) for at in range(300)}
    table = one_column({"a": rising(8, 0.1), "b": rising(8), **lone})
    compare_rows(table)
    (one,) = table.comparisons
    assert (one.a, one.b, one.p_adjusted) == ("a", "b", 2**-7)
    assert standings(table)["a"] == "tied"
    assert "(Shaffer; Holm where a pair has no test)" in table.caption[-1]
    apart = one_column(lone)
    compare_rows(apart)
    assert len(apart.comparisons) == 299, "none can decide: against the best mean"
    assert "no two rows share a seed" in apart.caption[0]


def test_a_test_that_decides_at_a_later_step_counts() -> None:
    """Six seeds give 2^-5 at best: not enough for two tests, enough after the other one is significant."""
    wave = {"top": WAVE[:6] + 0.9, "second": WAVE[:16] * 1.1 + 0.8, "third": WAVE[6:16] + 0.5}
    table = one_column(
        {row: seeds(*values, first=7 if row == "third" else 1) for row, values in wave.items()}
    )
    compare_rows(table)
    p_values = {(one.a, one.b): one.p_adjusted for one in table.comparisons if one.n}
    assert p_values == {("top", "second"): 2**-5, ("second", "third"): 2 * 2**-9}
    assert standings(table) == {"top": "tied", "second": "", "third": ""}


def test_a_cut_column_is_adjusted_for_the_pairs_that_share_seeds() -> None:
    """Fifteen rows with two seeds each: p = 0.5 at best, whatever the number of pairs."""
    scores = {f"r{at:02}": rising(2, -at / 100) for at in range(15)} | {"alone": seeds(0.1, first=9)}
    table = one_column(scores)
    compare_rows(table, alpha=0.6)
    assert len(table.comparisons) == 15
    assert math.isnan(compared(table, "r00", "alone").p_adjusted)
    assert "(adjusted 1), and 16 rows (120 pairs) need 9 shared seeds" in table.caption[0]


def test_the_caption_names_the_columns_whose_seeds_are_too_few() -> None:
    five = {"a": rising(5, 0.1), "b": rising(5)}
    eight = {"a": rising(8, 0.1), "b": rising(8)}
    table = table_of({"wos": five, "nyt": eight, "aapd": five})
    compare_rows(table)
    assert table.caption[0] == "Mean."
    assert table.caption[-1] == (
        "No difference in wos F1, aapd F1 can be significant (p ≤ 0.05): with 5 seeds p is at least 0.0625, "
        "and 2 rows (1 pair) need 6 shared seeds."
    )
    none = table_of({"wos": five, "aapd": {**five, "c": rising(4)}, "nyt": {"a": rising(9)}})
    compare_rows(none)
    assert none.caption == [
        "No difference in this table can be significant (p ≤ 0.05): with 5 seeds p is at least 0.0625, and 2 "
        "rows (1 pair) need 6 shared seeds; with 5 seeds p is at least 0.0625 (adjusted 0.188), and 3 rows "
        "(3 pairs) need 7 shared seeds.",
        "Mean.",
    ]
    apart = one_column({"a": rising(5), "b": seeds(0.1, first=9)})
    compare_rows(apart)
    assert "no two rows share a seed, and 2 rows (1 pair) need 6 shared seeds." in apart.caption[0]
    alone = one_column({"a": rising(5)})
    compare_rows(alone)
    assert alone.caption == ["Mean."]


def test_many_columns_are_not_all_named() -> None:
    five = {"a": rising(5, 0.1), "b": rising(5)}
    table = table_of({f"c{at}": five for at in range(9)} | {"able": {"a": rising(6, 0.1), "b": rising(6)}})
    compare_rows(table)
    assert "c0 F1, c1 F1, c2 F1, c3 F1, c4 F1, c5 F1 and 3 more can" in table.caption[-1]


def test_drawn_permutations_are_not_called_exact() -> None:
    table = one_column({"a": rising(15, 0.1), "b": rising(15)})
    compare_rows(table)
    (one,) = table.comparisons
    assert (one.test, one.p, one.smallest_p) == (DRAWN, 1 / 20_001, 1 / 20_001)
    assert f"({DRAWN}, p ≤ 0.05" in table.caption[-1]
    assert "exact" not in " ".join(table.caption)
    assert "p &lt; 0.001, the smallest that 20,000 permutations can give" in page(table, {})
    both = one_column({"a": rising(15, 0.1), "b": rising(15), "c": rising(14, 0.2)})
    compare_rows(both)
    assert f"({EXACT} or {DRAWN}, p ≤ 0.05" in both.caption[-1]


def test_resamples_over_documents_bound_the_pairs() -> None:
    """A p is 1 / 2,001 at best: 91 pairs can decide, 105 cannot."""

    def test(a: Cell, b: Cell, column: Column) -> PairTest:
        return PairTest(1 / 2001, 40)

    decided, cut = (
        one_column({f"r{at:02}": rising(2, -at / 100) for at in range(rows)}) for rows in (14, 15)
    )
    compare_rows(decided, document_test=test)
    compare_rows(cut, document_test=test)
    assert standings(decided)["r00"] == "best"
    assert {one.test for one in decided.comparisons} == {DOCUMENTS}
    assert set(standings(cut).values()) == {""}
    assert cut.caption[0] == (
        "No difference in this table can be significant (p ≤ 0.05): with 2,000 resamples p is at least "
        "0.0005 (adjusted 0.0525), and 15 rows (105 pairs) are too many to compare."
    )
    assert "p &lt; 0.001, the smallest that 2,000 resamples can give" in page(cut, {})


@pytest.mark.parametrize("rows", [3, 15])
def test_the_reasons_for_missing_tests_over_documents_are_given(rows: int) -> None:
    """Shared seeds do not matter to them: no sentence is on the number of seeds."""

    def test(a: Cell, b: Cell, column: Column) -> PairTest:
        return PairTest(math.nan, 0, "not kept" if min(a.mean, b.mean) < 0.508 else "other data")

    table = one_column({f"r{at:02}": rising(8, 0.02 - at / 100) for at in range(rows)})
    compare_rows(table, document_test=test)
    assert set(standings(table).values()) == {""}
    assert table.caption == ["Mean.", "Pairs of rows without a test over documents: other data; not kept."]
    assert {one.why for one in table.comparisons} == {"other data", "not kept"}
    assert "no test: not kept" in page(table, {})
    assert "no seed is shared" not in page(table, {})
    assert comparisons_csv(table.comparisons).splitlines()[1].endswith(",other data")


def scores_of(
    n_tables: int, rows: int, n_seeds: int, *, skewed: bool, ahead: float = 0.0, seed: int = 0
) -> np.ndarray:
    """Return made-up scores, (tables, rows, seeds): a seed's effect on all rows, noise with s = 1, the lead.

    Args:
        n_tables, rows, n_seeds: how many.
        skewed: whether the noise is exponential, else normal.
        ahead: what row 0 is better by, in standard deviations of the noise.
        seed: of the draws.
    """
    draws = np.random.default_rng(seed)
    shape = (n_tables, rows, n_seeds)
    noise = draws.exponential(size=shape) if skewed else draws.normal(size=shape)
    of_seed = draws.normal(size=(n_tables, 1, n_seeds))
    return noise + of_seed + ahead * (np.arange(rows) == 0)[None, :, None]


def judged(scores: np.ndarray) -> np.ndarray:
    """Return the standings that `compare_rows` gives, (tables, rows): every table of scores is a column."""
    columns = [{f"r{row}": seeds(*values) for row, values in enumerate(table.tolist())} for table in scores]
    table = table_of({f"c{at}": column for at, column in enumerate(columns)})
    compare_rows(table)
    return np.array([[table.cells[row, head].standing for row in table.rows] for head in table.columns])


def any_worse_in_version_0_1(scores: np.ndarray, alpha: float = 0.05) -> np.ndarray:
    """Return where version 0.1 called a row worse, (tables,).

    It tested the row with the best mean against every other, with Holm's correction over these k - 1 tests.
    The best row is chosen on the scores that test it, which the correction does not count.
    """
    n_tables, rows, n_seeds = scores.shape
    best = scores[np.arange(n_tables), scores.mean(axis=2).argmax(axis=1)]
    p = paired_permutation((best[:, None] - scores).reshape(-1, n_seeds)).reshape(n_tables, rows)
    return np.asarray((rows - 1) * p.min(axis=1) <= alpha)


@pytest.mark.parametrize(
    ("rows", "n_seeds", "skewed"),
    [
        pytest.param(3, 8, False, marks=pytest.mark.slow),
        pytest.param(4, 9, True, marks=pytest.mark.slow),
        pytest.param(5, 10, True, marks=pytest.mark.long),
        pytest.param(6, 12, False, marks=pytest.mark.long),
    ],
)
def test_equal_rows_are_called_worse_in_five_percent_of_tables_at_most(
    rows: int, n_seeds: int, skewed: bool
) -> None:
    scores = scores_of(10_000, rows, n_seeds, skewed=skewed)
    # nothing is significant: all rows are underlined
    called_worse = (judged(scores) != "tied").any(axis=1).mean()
    before = any_worse_in_version_0_1(scores).mean()
    print(f"{rows} rows, {n_seeds} seeds: {called_worse:.4f}; version 0.1: {before:.4f}")
    assert called_worse <= 0.055 < before


def test_a_clearly_better_row_is_bold() -> None:
    standings = judged(scores_of(200, 4, 10, skewed=False, ahead=3.0))
    assert (standings[:, 0] == "best").mean() >= 0.9
    assert (standings[:, 1:] != "best").all()


def test_a_significantly_better_row_is_best(tmp_path: Path) -> None:
    table = grid(tmp_path, {"flat": 0.0, "dual": 0.03}, 6)
    compare_rows(table)
    assert cell(table, "dual").standing == "best"
    assert cell(table, "flat").standing == ""
    (one,) = table.comparisons
    assert (one.a, one.b, one.n) == ("dual", "flat", 6)
    assert (one.p, one.p_adjusted, one.smallest_p) == (0.03125, 0.03125, 0.03125)
    assert one.difference == pytest.approx(0.03, abs=0.002)
    assert "Bold: significantly better than every other row" in table.caption[-1]


def test_ties_are_underlined(tmp_path: Path) -> None:
    table = grid(tmp_path, {"flat": 0.0, "dual": 0.03, "tri_head_diffcat": 0.0301}, 8)
    compare_rows(table)
    standings = {row.text: cell(table, row.text).standing for row in table.rows}
    assert standings == {"flat": "", "dual": "tied", "tri_head_diffcat": "tied"}


def test_with_five_seeds_the_caption_states_that_nothing_can_be_significant(tmp_path: Path) -> None:
    table = grid(tmp_path, {"flat": 0.0, "top_down": 0.1, "dual": 0.3}, 5)
    compare_rows(table)
    assert {one.standing for one in table.cells.values()} == {""}
    assert table.caption[0] == (
        "No difference in this table can be significant (p ≤ 0.05): with 5 seeds p is at least 0.0625 "
        "(adjusted 0.188), and 3 rows (3 pairs) need 7 shared seeds."
    )
    assert "Bold" not in " ".join(table.caption)


def test_where_less_is_better_the_least_is_best(tmp_path: Path, add: Any) -> None:
    for seed in range(1, 7):
        made = made_results.result("flat", seed)
        made["test"]["single"]["overall"]["violation_rate"] = 0.5 + seed / 1000
        made_results.write(tmp_path, f"f{seed}", made)
        add(f"t{seed}", "top_down", seed)
    table = table_from(tmp_path, metrics=["test.violation_rate"])
    compare_rows(table)
    assert cell(table, "top_down").standing == "best"


def test_rows_of_different_datasets_are_not_compared(tmp_path: Path) -> None:
    made_results.write_grid(tmp_path, {"flat": 0.0, "dual": 0.05}, ("wos", "aapd"), (1, 2, 3, 4, 5, 6))
    table = table_from(tmp_path, rows=["dataset", "method"], columns=[])
    compare_rows(table)
    assert {(one.dataset, one.a, one.b) for one in table.comparisons} == {
        ("wos", "wos, dual", "wos, flat"),
        ("aapd", "aapd, dual", "aapd, flat"),
    }
