"""Rows ranked over datasets: by hand, by Demšar's example, and where there is no test."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from made_tables import grid, rising, table_from, table_of
from scipy import stats

from hblm.tables.rankings import friedman_nemenyi, rank_over_datasets


def test_nemenyi_by_demsar() -> None:
    """Demšar 2006, 3.2.2: four classifiers on 14 sets; q = 2.569, critical difference 1.25."""
    scores = np.random.default_rng(0).random((14, 4))
    ranks = friedman_nemenyi(scores)
    assert ranks.critical_difference == pytest.approx(1.25, abs=0.005)
    assert ranks.critical_difference == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert ranks.statistic == pytest.approx(stats.friedmanchisquare(*scores.T).statistic)
    assert ranks.blocks == 14


def test_ranks_by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.7], [0.5, 0.5, 0.1], [0.2, 0.3, 0.1]])
    ranks = friedman_nemenyi(scores)
    assert ranks.mean_ranks == pytest.approx([(1 + 1.5 + 2) / 3, (2 + 1.5 + 1) / 3, 3])
    assert ranks.pairs[0, 1] == pytest.approx(1.0)
    assert ranks.pairs[0, 2] == ranks.pairs[2, 0] < 0.3
    alike = friedman_nemenyi(np.ones((5, 3)))
    assert (alike.p, alike.mean_ranks.tolist()) == (1.0, [2, 2, 2])


def test_several_columns_for_a_dataset_are_not_ranked_over_datasets() -> None:
    scores = {"a": rising(2), "b": rising(2, 0.1), "c": rising(2, 0.2)}
    ranked = table_of(dict.fromkeys("vwxyz", scores))
    assert len(rank_over_datasets(ranked)) == 1
    several = table_of(dict.fromkeys(("v mlp", "v linear", "w mlp", "x mlp", "y mlp", "z mlp"), scores))
    assert rank_over_datasets(several) == []
    assert several.over_datasets == [
        "F1: no test over datasets, because a dataset has several columns (v has v mlp and v linear)."
    ]


def test_rows_are_ranked_over_datasets_where_there_are_enough(tmp_path: Path) -> None:
    sets = ("wos", "rcv1v2", "nyt", "aapd", "bgc")
    table = grid(tmp_path, {"flat": 0.0, "top_down": 0.1, "dual": 0.2}, 2, sets)
    (ranking,) = rank_over_datasets(table)
    assert ranking.ranks.mean_ranks.tolist() == [3, 2, 1]
    # 12 N / k(k+1) (sum of squared mean ranks - k(k+1)^2/4) = 5 (14 - 12)
    assert ranking.ranks.statistic == pytest.approx(10)
    assert "mean ranks (1 is best) dual 1.00, top_down 2.00, flat 3.00" in table.over_datasets[0]
    assert "dual and flat" in table.over_datasets[1]
    few = table_from(tmp_path, where={"dataset": ["wos", "nyt"]})
    assert rank_over_datasets(few) == []
    assert "needs 3 rows and 5 datasets" in few.over_datasets[0]
