"""Tests of all pairs of rows of a column, the correction for many tests, and the marks of rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from math import nan
from typing import NamedTuple

import numpy as np

from hblm.tables.caption import describe_tests
from hblm.tables.p_values import name_of_test, smallest_p_of
from hblm.tables.pairs import NO_SEED, Block, blocks_of
from hblm.tables.significance import Effect, effect, paired_permutation, shaffer
from hblm.tables.table import Cell, Column, Comparison, Table


class PairTest(NamedTuple):
    """A test of two cells.

    Attributes:
        p: of the test; nan without a test.
        n: pairs of runs, or documents; 0 without a test.
        why: the reason where there is no test, else "".
    """

    p: float
    n: int
    why: str = ""


CellTest = Callable[[Cell, Cell, Column], PairTest]


def compare_rows(table: Table, alpha: float = 0.05, document_test: CellTest | None = None) -> None:
    """Test all pairs of rows of each column and dataset, and mark rows by the adjusted p-values.

    P-values are adjusted over all pairs of a column and dataset (`shaffer`), so the chance that any of its
    rows is called better than an equal one is at most alpha. A row is significantly better than another where
    the adjusted p is at most alpha and the difference over the shared seeds has that sign.

    - "best": the row that is significantly better than every other.
    - "tied", where no row is best: a row than which none is significantly better, and whose test against the
      row with the best mean can decide: the smallest p that this test can give, times the number of tests
      (the first step of the adjustment), is at most alpha. The row with the best mean needs one such test.

    The table's comparisons are all pairs, also those that share no seed (p is nan). In a column of more than
    100 pairs they are those that share a seed or, where none of these can decide, those with the best mean,
    with p times the number of pairs that share a seed (Bonferroni): no mark depends on the others.

    Args:
        table: gets its comparisons, standings, and sentences of its caption. The first sentence is that no
            difference in the whole table can be significant, if so.
        alpha: the family-wise error rate of each column and dataset.
        document_test: tests two cells over documents; None for tests over seeds.
    """
    over_documents = document_test is not None
    blocks = list(blocks_of(table, alpha, over_documents=over_documents))
    tests_of = _over_seeds(blocks) if document_test is None else _over_documents(blocks, document_test)
    able, unable = [], []
    for block, tests in zip(blocks, tests_of, strict=True):
        if not block.is_cut:
            block.n_tests = sum(not test.why for test in tests)
            block.most = max(test.n for test in tests)
        comparisons = _comparisons(block, tests, over_documents)
        table.comparisons += comparisons
        can_decide = [
            one.p_adjusted <= alpha or (one.n > 0 and one.smallest_p * block.n_tests <= alpha)
            for one in comparisons
        ]
        if any(can_decide):
            able.append(block)
            _mark(block, comparisons, can_decide, alpha)
        elif not over_documents or not all(one.why for one in comparisons):
            unable.append(block)
    describe_tests(table, able, unable, alpha, over_documents=over_documents)
    reasons = dict.fromkeys(test.why for tests in tests_of for test in tests if test.why)
    if over_documents and reasons:
        table.caption.append(f"Pairs of rows without a test over documents: {'; '.join(reasons)}.")


def _over_seeds(blocks: Sequence[Block]) -> list[list[PairTest]]:
    """Test each block's pairs over their shared seeds; pairs with as many seeds are tested at once."""
    tests = [[PairTest(nan, 0, NO_SEED)] * len(block.pairs) for block in blocks]
    by_n: dict[int, list[tuple[int, int]]] = defaultdict(list)
    differences: dict[int, list[np.ndarray]] = defaultdict(list)
    for at, block in enumerate(blocks):
        for number, pair in enumerate(block.pairs):
            of_a, of_b = block.shared_values(*pair)
            by_n[len(of_a)].append((at, number))
            differences[len(of_a)].append(np.subtract(of_a, of_b))
    for n, places in by_n.items():
        if n:
            p_values = paired_permutation(np.array(differences[n]))
            for (at, number), p in zip(places, p_values, strict=True):
                tests[at][number] = PairTest(float(p), n)
    return tests


def _over_documents(blocks: Sequence[Block], test: CellTest) -> list[list[PairTest]]:
    return [[test(block.cells[a], block.cells[b], block.column) for a, b in block.pairs] for block in blocks]


def _comparisons(block: Block, tests: Sequence[PairTest], over_documents: bool) -> list[Comparison]:
    """Return a block's tests with adjusted p-values and effect sizes."""
    p_values = [test.p for test in tests]
    if block.is_cut:
        adjusted = np.minimum(1, block.n_tests * np.array(p_values))
    else:
        adjusted = shaffer(p_values, len(block.rows))
    comparisons = []
    for (a, b), test, p_adjusted in zip(block.pairs, tests, adjusted, strict=True):
        values = block.shared_values(a, b)
        size = effect(*values) if values[0] else Effect(nan, nan, nan, nan, nan)
        comparisons.append(
            Comparison(
                column=block.column,
                dataset=block.dataset,
                a=block.rows[a].text,
                b=block.rows[b].text,
                test=name_of_test(test.n, over_documents=over_documents),
                n=test.n,
                difference=size.difference,
                low=size.low,
                high=size.high,
                p=test.p,
                p_adjusted=float(p_adjusted),
                smallest_p=smallest_p_of(test.n, over_documents=over_documents),
                d_z=size.d_z,
                superiority=size.superiority,
                why=test.why,
            )
        )
    return comparisons


def _mark(block: Block, comparisons: Sequence[Comparison], can_decide: Sequence[bool], alpha: float) -> None:
    """Set the standings of a block's cells."""
    wins: Counter[int] = Counter()
    worse: set[int] = set()
    decidable: set[int] = set()
    for (a, b), one, can in zip(block.pairs, comparisons, can_decide, strict=True):
        if one.p_adjusted <= alpha:
            a_is_better = (one.difference > 0) == block.column.higher_is_better
            wins[a if a_is_better else b] += 1
            worse.add(b if a_is_better else a)
        if can and a == 0:
            decidable |= {a, b}
    best = [at for at, n in wins.items() if n == len(block.rows) - 1]
    for at in best:
        block.cells[at].standing = "best"
    for at in () if best else decidable - worse:
        block.cells[at].standing = "tied"
