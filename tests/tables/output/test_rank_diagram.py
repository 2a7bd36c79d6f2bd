"""Groups of methods that the critical difference does not separate."""

from __future__ import annotations

import pytest

from hblm.tables.output.rank_diagram import cliques


@pytest.mark.parametrize(
    ("ranks", "difference", "wanted"),
    [
        ([1, 2, 3, 4], 1.5, [(0, 1), (1, 2), (2, 3)]),
        ([1, 1.2, 1.4, 4], 1.0, [(0, 2)]),
        ([3, 1, 2], 5, [(0, 2)]),
        ([1, 3, 5], 1, []),
        ([1, 2], 1, []),
    ],
)
def test_cliques_by_hand(ranks: list[float], difference: float, wanted: list[tuple[int, int]]) -> None:
    assert cliques(ranks, difference) == wanted
