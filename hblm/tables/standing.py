"""Which row is best, and whether a test says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from math import isnan, nan
from typing import NamedTuple

import numpy as np

from hblm.tables.significance import (
    MIN_DATASETS,
    MIN_METHODS,
    Effect,
    Ranks,
    effect,
    holm,
    over_datasets,
    paired_permutation,
    runs_needed,
    smallest_p,
)
from hblm.tables.table import Cell, Column, Comparison, Row, Run, Table, plural

PERMUTATION = "exact paired permutation test over seeds"
DOCUMENTS = "approximate randomisation over documents"
_WITHIN = 1 + 1e-9  # of a p-value and the smallest one, computed in two ways


class DocumentP(NamedTuple):
    """A test over documents: p, and the number of documents."""

    p: float
    documents: int


class Ranking(NamedTuple):
    """The rows of a table ranked over its datasets, for one metric."""

    metric: str
    name: str
    rows: list[Row]
    datasets: list[str]
    ranks: Ranks


OverDocuments = Callable[[Cell, Cell, Column], "DocumentP | None"]


def judge(table: Table, alpha: float = 0.05, over_documents: OverDocuments | None = None) -> None:
    """Compare the best row of each column with every other, and mark what the tests tell.

    Rows are compared within a column and a dataset. The best is marked where it is better than all others
    after Holm's correction over the column's comparisons; else it and those that the test does not tell
    from it. Where so few seeds are shared that no p can be small enough, nothing is marked, and the caption
    says so.

    Args:
        table: gets its comparisons, standings, and a sentence of caption.
        alpha: the level.
        over_documents: judges by documents instead of seeds; None where two cells have no predictions.
    """
    blocks: dict[tuple[Column, str], list[tuple[Row, Cell]]] = defaultdict(list)
    for row in table.rows:
        for column in table.columns:
            cell = table.cells.get((row, column))
            if cell is not None:
                blocks[column, cell.dataset].append((row, cell))
    pairs = [
        (column, dataset, best, other)
        for (column, dataset), members in blocks.items()
        for best in [_best(column, members)]
        for other in members
        if other is not best
    ]
    shared = [_shared(best[1], other[1]) for _, _, best, other in pairs]
    if over_documents is None:
        tested = [(p, len(a)) for p, (a, _) in zip(_permuted(shared), shared, strict=True)]
    else:
        found = [over_documents(best[1], other[1], column) for column, _, best, other in pairs]
        tested = [(one.p, one.documents) if one else (nan, 0) for one in found]
    by_block: dict[tuple[Column, str], list[int]] = defaultdict(list)
    for at, (column, dataset, _, _) in enumerate(pairs):
        by_block[column, dataset].append(at)
    unable: list[tuple[int, int]] = []  # shared seeds and comparisons of the blocks that cannot decide
    for (column, dataset), members_at in by_block.items():
        adjusted = holm([tested[at][0] for at in members_at])
        able = []
        for at, p_holm in zip(members_at, adjusted, strict=True):
            best, other = pairs[at][2:]
            n = tested[at][1]
            least = smallest_p(n) if over_documents is None else 0.0
            able.append(least * len(members_at) <= alpha and n > 0)
            table.comparisons.append(
                _comparison(column, dataset, best[0], other[0], shared[at], tested[at], float(p_holm), least)
                if over_documents is None
                else _comparison(
                    column,
                    dataset,
                    best[0],
                    other[0],
                    shared[at],
                    tested[at],
                    float(p_holm),
                    least,
                    DOCUMENTS,
                )
            )
        best = pairs[members_at[0]][2]
        worse = [bool(p <= alpha) for p in adjusted]
        if all(worse):
            best[1].standing = "best"
        elif any(able):
            for at, told, is_able in zip(members_at, worse, able, strict=True):
                if is_able and not told:
                    pairs[at][3][1].standing = "tied"
                    best[1].standing = "tied"
        if over_documents is None and not all(able):
            unable.append((min(tested[at][1] for at in members_at), len(members_at)))
    if pairs:
        name = PERMUTATION if over_documents is None else DOCUMENTS
        table.caption += _sentences(name, alpha, unable, any_able=len(unable) < len(by_block))
        if over_documents is not None and any(n == 0 for _, n in tested):
            table.caption.append(
                "Where no predictions are kept of both (predictions=true), nothing is marked."
            )


def _sentences(test: str, alpha: float, unable: Sequence[tuple[int, int]], any_able: bool) -> list[str]:
    found = []
    if any_able:
        found.append(
            f"Bold: better than every other row of its column on the same dataset ({test}, Holm-corrected, "
            f"p ≤ {alpha:g}). Underlined: the best, and what the test does not tell from it."
        )
    if unable:
        n, comparisons = min(unable)
        least = smallest_p(n)
        corrected = f", {min(1.0, least * comparisons):.3g} after Holm over {comparisons} comparisons"
        found.append(
            f"{'Elsewhere nothing' if any_able else 'Nothing'} is bold or underlined, because no test over "
            f"so few seeds can decide: the smallest p that {plural(n, 'shared seed')} can give is {least:.3g}"
            f"{corrected if comparisons > 1 else ''} ({test}); {runs_needed(alpha, comparisons)} seeds could "
            f"reach {alpha:g}."
        )
    return found


def _best(column: Column, members: Sequence[tuple[Row, Cell]]) -> tuple[Row, Cell]:
    sign = 1 if column.higher_is_better else -1
    return max(members, key=lambda member: sign * member[1].mean)


def shared_runs(a: Cell, b: Cell) -> list[tuple[Run, Run]]:
    """Return both cells' runs of the seeds that each has once."""
    of_a, of_b = ({run.seed: run for run in cell.runs if cell.seeds.count(run.seed) == 1} for cell in (a, b))
    return [(run, of_b[seed]) for seed, run in of_a.items() if seed in of_b]


def _shared(a: Cell, b: Cell) -> tuple[list[float], list[float]]:
    pairs = shared_runs(a, b)
    return [run.value for run, _ in pairs], [run.value for _, run in pairs]


def _permuted(shared: Sequence[tuple[list[float], list[float]]]) -> list[float]:
    """Return the p of each pair, those with as many seeds together; nan where none is shared."""
    found = [nan] * len(shared)
    by_n: dict[int, list[int]] = defaultdict(list)
    for at, (a, _) in enumerate(shared):
        by_n[len(a)].append(at)
    for n, positions in by_n.items():
        if n:
            differences = np.array([np.subtract(*shared[at]) for at in positions])
            for at, p in zip(positions, paired_permutation(differences), strict=True):
                found[at] = float(p)
    return found


def _comparison(
    column: Column,
    dataset: str,
    best: Row,
    other: Row,
    shared: tuple[list[float], list[float]],
    tested: tuple[float, int],
    p_holm: float,
    least: float,
    test: str = PERMUTATION,
) -> Comparison:
    size = effect(*shared) if shared[0] else Effect(nan, nan, nan, nan, nan)
    p, n = tested
    return Comparison(
        column=column,
        dataset=dataset,
        a=best.text,
        b=other.text,
        test=test,
        n=n,
        difference=size.difference,
        low=size.low,
        high=size.high,
        p=p,
        p_holm=p_holm,
        smallest_p=least,
        d_z=size.d_z,
        superiority=size.superiority,
    )


def p_in_words(p: float, least: float, n: int, unit: str = "seed") -> str:
    """Return "p = 0.0625, the smallest that 5 seeds can give", or the p alone."""
    if isnan(p):
        return f"no test: no {unit} is shared"
    text = "p < 0.001" if p < 0.001 else f"p = {p:.3g}"
    return f"{text}, the smallest that {plural(n, unit)} can give" if least and p <= least * _WITHIN else text


def rank_over_datasets(table: Table, alpha: float = 0.05) -> list[Ranking]:
    """Rank the rows over the datasets of each metric, where enough are complete; tell it in the table.

    A row counts where it has a result on every dataset; a block is a column's dataset, its mean over seeds
    the score.
    """
    rankings = []
    for metric in dict.fromkeys(column.metric for column in table.columns):
        columns = [column for column in table.columns if column.metric == metric]
        by_dataset: dict[str, Column] = {}
        for column in columns:
            datasets = {cell.dataset for (_, at), cell in table.cells.items() if at == column}
            if len(datasets) == 1:
                by_dataset.setdefault(datasets.pop(), column)
        rows = [
            row for row in table.rows if all((row, column) in table.cells for column in by_dataset.values())
        ]
        n_sets, n_rows = len(by_dataset), len(rows)
        name = columns[0].name
        if n_sets < 2 or len(table.rows) < 2:
            continue
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
