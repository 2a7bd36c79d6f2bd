"""Cases of several options in which every pair of values occurs, far fewer than all combinations."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any


def pairs(*given: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return cases, a value of each option, so that every two values of two options meet in one of them."""
    options = [[*values] for values in given]

    def met(case: dict[int, int]) -> set[tuple[tuple[int, int], ...]]:
        return set(itertools.combinations(sorted(case.items()), 2))

    missing = {
        pair
        for one, other in itertools.combinations(range(len(options)), 2)
        for pair in itertools.product(
            *([(at, value) for value in range(len(options[at]))] for at in (one, other))
        )
    }
    cases = []
    while missing:
        case = dict(min(missing))
        for at in range(len(options)):
            if at not in case:
                values = range(len(options[at]))
                case[at] = max(values, key=lambda value: len(missing & met({**case, at: value})))
        missing -= met(case)
        cases.append(tuple(option[case[at]] for at, option in enumerate(options)))
    return cases
