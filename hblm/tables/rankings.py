"""Rows ranked over datasets: Friedman's and Nemenyi's tests, and sentences on them."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from math import nan, sqrt
from typing import NamedTuple

import numpy as np

from hblm.tables.table import Column, Row, Table, plural

# Friedman's chi-square and Nemenyi's difference are approximations, and poor ones with fewer
MIN_DATASETS = 5
MIN_METHODS = 3


class Ranks(NamedTuple):
    """Methods ranked over datasets.

    Attributes:
        mean_ranks: (methods,), 1 is the best; tied methods share the mean of their ranks.
        statistic, p: of Friedman's test.
        critical_difference: Nemenyi's, of mean ranks.
        pairs: (methods, methods), Nemenyi's p of each pair.
        blocks: the number of datasets.
    """

    mean_ranks: np.ndarray
    statistic: float
    p: float
    critical_difference: float
    pairs: np.ndarray
    blocks: int


class Ranking(NamedTuple):
    """The rows of a table ranked over its datasets, for one metric."""

    metric: str
    name: str
    rows: list[Row]
    datasets: list[str]
    ranks: Ranks


def rank_over_datasets(table: Table, alpha: float = 0.05) -> list[Ranking]:
    """Rank the rows over the datasets of each metric where enough are complete; add sentences to the table.

    A row counts where it has a result on every dataset; scores on other data than that of training do not
    count, because they are of the same models. A block is a column's dataset, its mean over seeds the score.
    A metric with several columns for one dataset is not ranked.
    """
    own = {place for place, cell in table.cells.items() if not cell.trained_on}
    scored = {column for _, column in own}
    rankings = []
    for metric in dict.fromkeys(column.metric for column in table.columns):
        columns = [column for column in table.columns if column in scored and column.metric == metric]
        columns_of = _columns_by_dataset(table, columns)
        if len(columns_of) < 2 or len(table.rows) < 2:
            continue
        column_of = {dataset: columns[0] for dataset, columns in columns_of.items()}
        rows = [row for row in table.rows if all((row, column) in own for column in column_of.values())]
        why = _why_unranked(columns_of, len(rows))
        if why:
            table.over_datasets.append(f"{columns[0].name}: {why}")
            continue
        sign = 1 if columns[0].higher_is_better else -1
        scores = [[sign * table.cells[row, column].mean for row in rows] for column in column_of.values()]
        ranks = friedman_nemenyi(np.array(scores), alpha)
        rankings.append(Ranking(metric, columns[0].name, rows, list(column_of), ranks))
        table.over_datasets += _sentences(rankings[-1], alpha)
    return rankings


def _columns_by_dataset(table: Table, columns: Sequence[Column]) -> dict[str, list[Column]]:
    """Return dataset -> columns, of the columns that have one dataset only."""
    dataset_of = table.datasets()
    columns_of: dict[str, list[Column]] = defaultdict(list)
    for column in columns:
        if column in dataset_of:
            columns_of[dataset_of[column]].append(column)
    return columns_of


def _why_unranked(columns_of: dict[str, list[Column]], n_rows: int) -> str:
    """Return why there is no test over datasets, "" where there is one."""
    several = [
        f"{dataset} has {' and '.join(' '.join(column.labels) for column in columns)}"
        for dataset, columns in columns_of.items()
        if len(columns) > 1
    ]
    if several:
        return f"no test over datasets, because a dataset has several columns ({'; '.join(several)})."
    if len(columns_of) < MIN_DATASETS or n_rows < MIN_METHODS:
        return (
            f"{plural(n_rows, 'row')} with results on all of {plural(len(columns_of), 'dataset')}; "
            f"Friedman's test over datasets needs {MIN_METHODS} rows and {MIN_DATASETS} datasets."
        )
    return ""


def _sentences(ranking: Ranking, alpha: float) -> list[str]:
    """Return the mean ranks and Friedman's test in one sentence, the pairs by Nemenyi's test in another."""
    ranks = ranking.ranks
    order = sorted(range(len(ranking.rows)), key=lambda at: ranks.mean_ranks[at])
    listed = ", ".join(f"{ranking.rows[at].text} {ranks.mean_ranks[at]:.2f}" for at in order)
    first = (
        f"{ranking.name} over {plural(ranks.blocks, 'dataset')}: mean ranks (1 is best) {listed}. "
        f"Friedman: chi² = {ranks.statistic:.2f}, p = {ranks.p:.3g}. Nemenyi's critical difference at "
        f"{alpha:g}: {ranks.critical_difference:.2f}."
    )
    if ranks.p > alpha:
        return [
            first,
            f"{ranking.name}: Friedman's test is not significant, so no pair is compared.",
        ]
    different = [
        f"{ranking.rows[a].text} and {ranking.rows[b].text} (p = {ranks.pairs[a, b]:.3g})"
        for a, b in itertools.combinations(order, 2)
        if ranks.pairs[a, b] <= alpha
    ]
    return [
        first,
        f"{ranking.name}: significantly different by Nemenyi's test: {'; '.join(different) or 'no pair'}.",
    ]


def friedman_nemenyi(scores: np.ndarray, alpha: float = 0.05) -> Ranks:
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
