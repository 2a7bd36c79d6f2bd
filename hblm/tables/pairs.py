"""Which rows of a column are compared, and the runs that two of them share."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from hblm.tables.p_values import smallest_p_of
from hblm.tables.table import Cell, Column, Row, Run, Table

NO_SEED = "no seed is shared"
_ALL_PAIRS = 100  # pairs of a column that are all compared, even where none can be significant


@dataclass
class Block:
    """The rows of one column on one dataset, the best mean first, and the pairs that are compared.

    Attributes:
        column, dataset: of the block.
        rows, cells: in the same order.
        runs: of each cell, by the seeds that it has once.
        pairs: positions of the rows that are compared, the better mean first.
        is_cut: whether there are too many pairs for any to decide: the best mean alone is compared.
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

    @property
    def n_pairs(self) -> int:
        """How many pairs of rows there are, compared or not."""
        return comb(len(self.rows), 2)

    def shared_values(self, a: int, b: int) -> tuple[list[float], list[float]]:
        """Return two rows' values on the seeds that they share."""
        seeds = [seed for seed in self.runs[a] if seed in self.runs[b]]
        return [self.runs[a][seed].value for seed in seeds], [self.runs[b][seed].value for seed in seeds]


def blocks_of(table: Table, alpha: float, *, over_documents: bool) -> Iterator[Block]:
    """Yield the columns' datasets with two rows or more, with the pairs that are compared."""
    members: dict[tuple[Column, str], list[tuple[Row, Cell]]] = defaultdict(list)
    for row in table.rows:
        for column in table.columns:
            cell = table.cells.get((row, column))
            if cell is not None:
                members[column, cell.dataset].append((row, cell))
    for (column, dataset), unsorted in members.items():
        if len(unsorted) > 1:
            sign = -1 if column.higher_is_better else 1
            rows, cells = zip(*sorted(unsorted, key=lambda member: sign * member[1].mean), strict=True)
            yield _block(column, dataset, rows, cells, alpha, over_documents)


def _block(
    column: Column,
    dataset: str,
    rows: Sequence[Row],
    cells: Sequence[Cell],
    alpha: float,
    over_documents: bool,
) -> Block:
    """Return a block with all pairs; of many only some.

    They are those that share a seed or, where none of these can decide, those with the best mean.
    """
    runs = [_once(cell) for cell in cells]
    pairs: Iterator[tuple[int, int]] = itertools.combinations(range(len(rows)), 2)
    if comb(len(rows), 2) > _ALL_PAIRS:
        n_tests, most = _sharing(runs)
        if not n_tests or smallest_p_of(most, over_documents=over_documents) * n_tests > alpha:
            best = [(0, other) for other in range(1, len(rows))]
            return Block(column, dataset, rows, cells, runs, best, is_cut=True, n_tests=n_tests, most=most)
        pairs = ((a, b) for a, b in pairs if not runs[a].keys().isdisjoint(runs[b]))
    return Block(column, dataset, rows, cells, runs, list(pairs))


def _sharing(runs: Sequence[Mapping[str, Run]]) -> tuple[int, int]:
    """Return how many pairs of cells share a seed, and the most seeds that a pair shares."""
    seeds = {seed: at for at, seed in enumerate(set().union(*runs))}
    has = np.zeros((len(seeds), len(runs)), bool)
    of_cell = [[seeds[seed] for seed in one] for one in runs]
    for at, places in enumerate(of_cell):
        has[places, at] = True
    n_pairs, most = 0, 0
    for at, places in enumerate(of_cell[:-1]):
        n_shared = has[places, at + 1 :].sum(axis=0)
        n_pairs += int(np.count_nonzero(n_shared))
        most = max(most, int(n_shared.max()))
    return n_pairs, most


def _once(cell: Cell) -> dict[str, Run]:
    """Return a cell's runs by the seeds that it has once."""
    times = Counter(cell.seeds)
    return {run.seed: run for run in cell.runs if times[run.seed] == 1}


def shared_runs(a: Cell, b: Cell) -> list[tuple[Run, Run]]:
    """Return both cells' runs of the seeds that each has once."""
    of_b = _once(b)
    return [(run, of_b[seed]) for seed, run in _once(a).items() if seed in of_b]
