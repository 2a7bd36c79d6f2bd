"""Which rows are significantly better than others, in every column of a table and over its datasets."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, nan
from typing import NamedTuple

import numpy as np

from hblm.tables.significance import (
    MIN_DATASETS,
    MIN_METHODS,
    MOST_EXACT,
    N_FLIPS,
    RESAMPLES,
    Effect,
    Ranks,
    effect,
    over_datasets,
    paired_permutation,
    runs_needed,
    shaffer,
    smallest_p,
)
from hblm.tables.table import Cell, Column, Comparison, Row, Run, Table, plural

EXACT = "exact paired permutation test over seeds"


DRAWN = f"paired permutation test over seeds with {N_FLIPS:,} drawn permutations"


DOCUMENTS = "approximate randomisation over documents"


NO_SEED = "no seed is shared"


_ALL_PAIRS = 100  # pairs of a column that are all compared, even where none can be significant


_LISTED = 6  # columns that a sentence names


_WITHIN = 1 + 1e-9  # of a p-value and the smallest one, computed in two ways


class DocumentP(NamedTuple):
    """A test over documents with RESAMPLES resamples.

    Attributes:
        p: of the test; nan without a test.
        documents: how many there are; 0 without a test.
        why: there is no test; "" where there is one.
    """

    p: float
    documents: int
    why: str = ""


class Ranking(NamedTuple):
    """The rows of a table ranked over its datasets, for one metric."""

    metric: str
    name: str
    rows: list[Row]
    datasets: list[str]
    ranks: Ranks


OverDocuments = Callable[[Cell, Cell, Column], DocumentP]


@dataclass
class _Block:
    """The rows of one column on one dataset, the best mean first, and the tests between them.

    Attributes:
        column, dataset: of the block.
        rows, cells: in the same order.
        runs: of each cell, by the seeds that it has once.
        pairs: positions of the rows that are compared, the better mean first.
        is_cut: whether none of more pairs can decide, and only those with the best mean are compared.
        n_tests: tests that p-values are adjusted over.
        most: the most seeds (or documents) that a pair shares.
    """

    column: Column
    dataset: str
    rows: Sequence[Row]
    cells: Sequence[Cell]
    runs: Sequence[Mapping[str, Run]]
    pairs: Sequence[tuple[int, int]]
    is_cut: bool = False
    n_tests: int = 0
    most: int = 0


def judge(table: Table, alpha: float = 0.05, over_documents: OverDocuments | None = None) -> None:
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
        table: gets its comparisons, standings, and sentences of its caption. The first sentence says where no
            difference in the whole table can be significant.
        alpha: the family-wise error rate of each column and dataset.
        over_documents: tests two cells over documents; None for tests over seeds.
    """
    blocks = list(_blocks(table, alpha, over_documents is not None))
    at_once = [(block, a, b) for block in blocks for a, b in block.pairs]
    shared = [_values(block.runs[a], block.runs[b]) for block, a, b in at_once]
    if over_documents is None:
        n_shared = [len(of_a) for of_a, _ in shared]
        results = [(p, n, "" if n else NO_SEED) for p, n in zip(_permuted(shared), n_shared, strict=True)]
    else:
        results = [over_documents(block.cells[a], block.cells[b], block.column) for block, a, b in at_once]
    able, unable = [], []
    start = 0
    for block in blocks:
        place = slice(start, start + len(block.pairs))
        start = place.stop
        if not block.is_cut:
            block.n_tests = sum(not why for _, _, why in results[place])
            block.most = max(n for _, n, _ in results[place])
        comparisons = _compared(block, shared[place], results[place], over_documents is not None)
        table.comparisons += comparisons
        can_decide = [
            one.p_adjusted <= alpha or (one.n > 0 and one.smallest_p * block.n_tests <= alpha)
            for one in comparisons
        ]
        if any(can_decide):
            able.append(block)
            _mark(block, comparisons, can_decide, alpha)
        elif over_documents is None or not all(one.why for one in comparisons):
            unable.append(block)
    _describe(table, able, unable, alpha, over_documents is not None)
    reasons = dict.fromkeys(why for _, _, why in results if why)
    if over_documents is not None and reasons:
        table.caption.append(f"Pairs of rows without a test over documents: {'; '.join(reasons)}.")


def _blocks(table: Table, alpha: float, is_over_documents: bool) -> Iterable[_Block]:
    """Yield the columns' datasets with two rows or more."""
    members: dict[tuple[Column, str], list[tuple[Row, Cell]]] = defaultdict(list)
    for row in table.rows:
        for column in table.columns:
            cell = table.cells.get((row, column))
            if cell is not None:
                members[column, cell.dataset].append((row, cell))
    for (column, dataset), unsorted in members.items():
        if len(unsorted) < 2:
            continue
        sign = -1 if column.higher_is_better else 1
        rows, cells = zip(*sorted(unsorted, key=lambda member: sign * member[1].mean), strict=True)
        runs = [_once(cell) for cell in cells]
        pairs: Iterable[tuple[int, int]] = itertools.combinations(range(len(rows)), 2)
        if comb(len(rows), 2) > _ALL_PAIRS:
            n_tests, most = _sharing(runs)
            if not n_tests or _smallest(most, is_over_documents) * n_tests > alpha:
                pairs = [(0, other) for other in range(1, len(rows))]
                yield _Block(column, dataset, rows, cells, runs, pairs, True, n_tests, most)
                continue
            pairs = [(a, b) for a, b in pairs if not runs[a].keys().isdisjoint(runs[b])]
        yield _Block(column, dataset, rows, cells, runs, list(pairs))


def _sharing(runs: Sequence[Mapping[str, Run]]) -> tuple[int, int]:
    """Return how many pairs of cells share a seed, and the most seeds that a pair shares."""
    seeds = {seed: at for at, seed in enumerate(set().union(*runs))}
    has = np.zeros((len(seeds), len(runs)), bool)
    of_run = [[seeds[seed] for seed in one] for one in runs]
    for at, places in enumerate(of_run):
        has[places, at] = True
    n_pairs, most = 0, 0
    for at, places in enumerate(of_run[:-1]):
        n_shared = has[places, at + 1 :].sum(axis=0)
        n_pairs += int(np.count_nonzero(n_shared))
        most = max(most, int(n_shared.max()))
    return n_pairs, most


def _smallest(n: int, is_over_documents: bool) -> float:
    return 1 / (RESAMPLES + 1) if is_over_documents else smallest_p(n)


def _test(n: int, is_over_documents: bool) -> str:
    return DOCUMENTS if is_over_documents else name_of_test(n)


def _compared(
    block: _Block,
    shared: Sequence[tuple[list[float], list[float]]],
    results: Sequence[tuple[float, int, str]],
    is_over_documents: bool,
) -> list[Comparison]:
    p_values = [p for p, _, _ in results]
    if block.is_cut:
        adjusted = np.minimum(1, block.n_tests * np.array(p_values))
    else:
        adjusted = shaffer(p_values, len(block.rows))
    comparisons = []
    for (a, b), values, (p, n, why), p_adjusted in zip(block.pairs, shared, results, adjusted, strict=True):
        size = effect(*values) if values[0] else Effect(nan, nan, nan, nan, nan)
        comparisons.append(
            Comparison(
                column=block.column,
                dataset=block.dataset,
                a=block.rows[a].text,
                b=block.rows[b].text,
                test=_test(n, is_over_documents),
                n=n,
                difference=size.difference,
                low=size.low,
                high=size.high,
                p=p,
                p_adjusted=float(p_adjusted),
                smallest_p=_smallest(n, is_over_documents),
                d_z=size.d_z,
                superiority=size.superiority,
                why=why,
            )
        )
    return comparisons


def _mark(block: _Block, comparisons: Sequence[Comparison], can_decide: Sequence[bool], alpha: float) -> None:
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


def _describe(
    table: Table, able: Sequence[_Block], unable: Sequence[_Block], alpha: float, is_over_documents: bool
) -> None:
    """Say in the caption what marks mean, and where no difference can be significant: first if nowhere."""
    if able:
        places = {(block.column, block.dataset) for block in able}
        tests = [one for one in table.comparisons if (one.column, one.dataset) in places]
        names = " or ".join(dict.fromkeys(one.test for one in tests if one.n))
        is_complete = all(block.n_tests == comb(len(block.rows), 2) for block in able)
        holm = "" if is_complete else "; Holm where a pair has no test"
        table.caption.append(
            f"Bold: significantly better than every other row of its column on the same dataset ({names}, "
            f"p ≤ {alpha:g}, adjusted over all pairs of the column (Shaffer{holm})). Underlined, where no "
            "row is bold: no row is significantly better, and a test against the row with the best mean "
            "could decide."
        )
    n_datasets = Counter(block.column for block in (*able, *unable))
    groups: dict[str, list[str]] = defaultdict(list)
    for block in unable:
        where = f" on {block.dataset}" if n_datasets[block.column] > 1 else ""
        groups[_limit(block, alpha, is_over_documents)].append(block.column.text + where)
    if unable and not able:
        table.caption.insert(0, _none_significant("this table", groups, alpha))
        return
    for limit, listed in groups.items():
        more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
        table.caption.append(_none_significant(", ".join(listed[:_LISTED]) + more, [limit], alpha))


def _none_significant(where: str, limits: Iterable[str], alpha: float) -> str:
    return f"No difference in {where} can be significant (p ≤ {alpha:g}): {'; '.join(limits)}."


def _limit(block: _Block, alpha: float, is_over_documents: bool) -> str:
    """Say which p a block can reach at best, and how many seeds it needs."""
    rows = f"{plural(len(block.rows), 'row')} ({plural(comb(len(block.rows), 2), 'pair')})"
    needed = None if is_over_documents else runs_needed(alpha, comb(len(block.rows), 2))
    need = f"{rows} need {needed} shared seeds" if needed else f"{rows} are too many to compare"
    if not block.n_tests:
        return f"no two rows share a seed, and {need}"
    least = _smallest(block.most, is_over_documents)
    source = source_of_p(_test(block.most, is_over_documents), block.most)
    adjusted = f" (adjusted {min(1.0, least * block.n_tests):.3g})" if block.n_tests > 1 else ""
    return f"with {source} p is at least {least:.3g}{adjusted}, and {need}"


def _once(cell: Cell) -> dict[str, Run]:
    """Return a cell's runs by the seeds that it has once."""
    times = Counter(cell.seeds)
    return {run.seed: run for run in cell.runs if times[run.seed] == 1}


def shared_runs(a: Cell, b: Cell) -> list[tuple[Run, Run]]:
    """Return both cells' runs of the seeds that each has once."""
    of_b = _once(b)
    return [(run, of_b[seed]) for seed, run in _once(a).items() if seed in of_b]


def _values(a: Mapping[str, Run], b: Mapping[str, Run]) -> tuple[list[float], list[float]]:
    seeds = [seed for seed in a if seed in b]
    return [a[seed].value for seed in seeds], [b[seed].value for seed in seeds]


def _permuted(shared: Sequence[tuple[list[float], list[float]]]) -> list[float]:
    """Return the p of each pair, those with as many seeds together; nan where none is shared."""
    found = [nan] * len(shared)
    by_n: dict[int, list[int]] = defaultdict(list)
    for at, (a, _) in enumerate(shared):
        by_n[len(a)].append(at)
    for n, positions in by_n.items():
        if n:
            of_a, of_b = (np.array([shared[at][side] for at in positions]) for side in (0, 1))
            for at, p in zip(positions, paired_permutation(of_a - of_b), strict=True):
                found[at] = float(p)
    return found


def name_of_test(n: int) -> str:
    """Return the name of the paired permutation test over n seeds."""
    return EXACT if n <= MOST_EXACT else DRAWN


def p_in_words(p: float, least: float = 0, source: str = "", why: str = "") -> str:
    """Return "p = 0.0625, the smallest that 5 seeds can give", the p alone, or "no test: no seed is shared".

    Args:
        p: of a test.
        least: the smallest that the test can give.
        source: what gives it, as `source_of_p` returns it.
        why: there is no test.
    """
    if why:
        return f"no test: {why}"
    text = "p < 0.001" if p < 0.001 else f"p = {p:.3g}"
    return f"{text}, the smallest that {source} can give" if least and p <= least * _WITHIN else text


def source_of_p(test: str, n: int) -> str:
    """Return what bounds the p of a test from below: its seeds, or the permutations or resamples drawn."""
    drawn = {DRAWN: f"{N_FLIPS:,} permutations", DOCUMENTS: f"{RESAMPLES:,} resamples"}
    return drawn.get(test) or plural(n, "seed")


def rank_over_datasets(table: Table, alpha: float = 0.05) -> list[Ranking]:
    """Rank the rows over the datasets of each metric, where enough are complete; tell it in the table.

    A row counts where it has a result on every dataset; a block is a column's dataset, its mean over seeds
    the score. A metric with several columns for one dataset is not ranked.
    """
    rankings = []
    for metric in dict.fromkeys(column.metric for column in table.columns):
        columns = [column for column in table.columns if column.metric == metric]
        columns_of: dict[str, list[Column]] = defaultdict(list)
        for column in columns:
            datasets = {cell.dataset for (_, at), cell in table.cells.items() if at == column}
            if len(datasets) == 1:
                columns_of[datasets.pop()].append(column)
        n_sets, name = len(columns_of), columns[0].name
        if n_sets < 2 or len(table.rows) < 2:
            continue
        several = [
            f"{dataset} has {' and '.join(' '.join(column.labels) for column in found)}"
            for dataset, found in columns_of.items()
            if len(found) > 1
        ]
        if several:
            table.over_datasets.append(
                f"{name}: no test over datasets, because a dataset has several columns "
                f"({'; '.join(several)})."
            )
            continue
        by_dataset = {dataset: column for dataset, (column,) in columns_of.items()}
        rows = [
            row for row in table.rows if all((row, column) in table.cells for column in by_dataset.values())
        ]
        n_rows = len(rows)
        if n_sets < MIN_DATASETS or n_rows < MIN_METHODS:
            table.over_datasets.append(
                f"{name}: {plural(n_rows, 'row')} with results on all of {plural(n_sets, 'dataset')}; "
                f"Friedman's test over datasets needs {MIN_METHODS} rows and {MIN_DATASETS} datasets."
            )
            continue
        sign = 1 if columns[0].higher_is_better else -1
        scores = [[sign * table.cells[row, column].mean for row in rows] for column in by_dataset.values()]
        ranks = over_datasets(np.array(scores), alpha)
        rankings.append(Ranking(metric, name, rows, list(by_dataset), ranks))
        table.over_datasets += _told(rankings[-1], alpha)
    return rankings


def _told(ranking: Ranking, alpha: float) -> list[str]:
    ranks = ranking.ranks
    order = sorted(range(len(ranking.rows)), key=lambda at: ranks.mean_ranks[at])
    listed = ", ".join(f"{ranking.rows[at].text} {ranks.mean_ranks[at]:.2f}" for at in order)
    told = [
        f"{ranking.name} over {plural(ranks.blocks, 'dataset')}: mean ranks (1 is best) {listed}. "
        f"Friedman: chi² = {ranks.statistic:.2f}, p = {ranks.p:.3g}. Nemenyi's critical difference at "
        f"{alpha:g}: {ranks.critical_difference:.2f}."
    ]
    if ranks.p > alpha:
        told.append(f"{ranking.name}: Friedman's test tells no row from another, so no pair is compared.")
        return told
    apart = [
        f"{ranking.rows[a].text} and {ranking.rows[b].text} (p = {ranks.pairs[a, b]:.3g})"
        for at, a in enumerate(order)
        for b in order[at + 1 :]
        if ranks.pairs[a, b] <= alpha
    ]
    told.append(f"{ranking.name}: apart by Nemenyi's test: {'; '.join(apart) if apart else 'no pair'}.")
    return told
