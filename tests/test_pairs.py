"""Cases by pairs: every two values of two options meet, in fewer cases than all combinations."""

from __future__ import annotations

import itertools

from pairs import pairs


def test_every_two_values_meet():
    options = (range(5), "abcd", (True, False), {"x": 1, "y": 2, "z": 3})
    cases = pairs(*options)
    for one, other in itertools.combinations(range(4), 2):
        met = {(case[one], case[other]) for case in cases}
        assert met == {*itertools.product(options[one], options[other])}
    assert len(cases) == len({*cases}) < 30  # all combinations are 120
