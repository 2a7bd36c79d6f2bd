"""Expected counts: which can be met, and how they are compared with what was found."""

from __future__ import annotations

from typing import Any

import pytest

from hblm.data.expected_counts import Comparison, compare, mismatch_table, require_expectable
from hblm.errors import ConfigError

COUNTS = {
    "train": {"documents": 9, "labels": 20},
    "val": {"documents": 1, "labels": 3},
    "test": {"documents": 2, "labels": 4},
}
LEVELS = [7, 134, 3]

SOUND: list[dict[str, Any]] = [
    {},
    {"documents": {"train": 9, "val": 1, "test": 2}},
    {"documents": {"test": 0}, "levels": [7, 134]},
    {"levels": (7, 134)},
    {"levels": []},
    {"documents": {}},
]


@pytest.mark.parametrize("expect", SOUND)
def test_what_can_be_met_passes(expect: dict[str, Any]) -> None:
    require_expectable(expect)


# fault -> what is expected, and what the message must say
FAULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an unknown name": ({"document": {"train": 9}}, ["expect.document is not one of", "mean documents?"]),
    "nothing near": ({"zzz": 3}, ["dataset.expect.zzz is not one of documents, levels"]),
    "a fault after a sound one": ({"levels": [7], "level": []}, ["dataset.expect.level is", "mean levels?"]),
    "an unknown split": (
        {"documents": {"dev": 1}},
        ["dataset.expect.documents=", "{train: 9, val: 1, test: 2}"],
    ),
    "a number for splits": ({"documents": 9}, ["dataset.expect.documents=9", "{train: 9, val: 1, test: 2}"]),
    "a list for splits": (
        {"documents": [9, 1, 2]},
        ["dataset.expect.documents=", "{train: 9, val: 1, test: 2}"],
    ),
    "null for splits": ({"documents": None}, ["dataset.expect.documents=", "expected numbers"]),
    "a text for a number": ({"documents": {"train": "9"}}, ["dataset.expect.documents=", "expected numbers"]),
    "a fraction": ({"documents": {"train": 9.5}}, ["dataset.expect.documents=", "expected numbers"]),
    "true for a number": ({"documents": {"train": True}}, ["dataset.expect.documents=", "expected numbers"]),
    "null for a number": ({"documents": {"train": None}}, ["dataset.expect.documents=", "expected numbers"]),
    "a number for levels": ({"levels": 2}, ["dataset.expect.levels=2", "[7,134], nodes by level"]),
    "a text for levels": ({"levels": "7,134"}, ["dataset.expect.levels=7,134", "[7,134], nodes by level"]),
    "splits for levels": ({"levels": {"train": 7}}, ["dataset.expect.levels=", "[7,134], nodes by level"]),
    "a text in levels": ({"levels": [7, "134"]}, ["dataset.expect.levels=", "[7,134], nodes by level"]),
    "null for levels": ({"levels": None}, ["dataset.expect.levels=", "[7,134], nodes by level"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_nothing_can_meet_is_refused(fault: str) -> None:
    expect, expected = FAULTS[fault]
    with pytest.raises(ConfigError) as caught:
        require_expectable(expect)
    assert str(caught.value).startswith("dataset.expect.")
    for part in expected:
        assert part in str(caught.value)


def test_only_what_is_expected_is_compared() -> None:
    expect = {"levels": [7, 130], "documents": {"train": 10, "val": 1}}
    assert compare(expect, COUNTS, LEVELS) == [
        Comparison("documents in train", 10, 9),
        Comparison("documents in val", 1, 1),
        Comparison("levels", 2, 3),
        Comparison("nodes on level 0", 7, 7),
        Comparison("nodes on level 1", 130, 134),
    ]
    assert compare({}, COUNTS, LEVELS) == compare({"documents": {}, "levels": []}, COUNTS, LEVELS) == []


def test_a_level_that_is_not_there_has_no_nodes() -> None:
    assert compare({"levels": [7, 134, 3, 5]}, COUNTS, LEVELS)[-2:] == [
        Comparison("nodes on level 2", 3, 3),
        Comparison("nodes on level 3", 5, 0),
    ]


def test_dropped_documents_count_where_they_were_listed() -> None:
    expect = {"levels": [7, 134, 3], "documents": {"train": 12, "val": 1, "test": 2}}
    found = compare(expect, COUNTS, LEVELS, {"train": 3})
    assert found[:3] == [
        Comparison("documents in train", 12, 12),
        Comparison("documents in val", 1, 1),
        Comparison("documents in test", 2, 2),
    ]
    assert found[3:] == compare({"levels": [7, 134, 3]}, COUNTS, LEVELS)
    assert mismatch_table(found) == ""
    assert compare(expect, COUNTS, LEVELS)[0] == Comparison("documents in train", 12, 9)


def test_dropped_documents_of_a_split_that_is_not_expected_change_nothing() -> None:
    expect = {"documents": {"val": 1}}
    dropped = {"train": 3, "test": 1, "val": 0}
    assert compare(expect, COUNTS, LEVELS, dropped) == compare(expect, COUNTS, LEVELS)
    assert compare({}, COUNTS, LEVELS, dropped) == []


def test_too_many_dropped_documents_are_a_difference() -> None:
    expect = {"documents": {"train": 9, "val": 1}}
    assert mismatch_table(compare(expect, COUNTS, LEVELS, {"train": 2})).splitlines()[1:] == [
        "documents in train           9          11  differs by +2",
        "documents in val             1           1",
    ]


@pytest.mark.parametrize("expect", SOUND[:2])
def test_no_difference_makes_no_table(expect: dict[str, Any]) -> None:
    assert mismatch_table(compare(expect, COUNTS, LEVELS)) == ""


def test_a_table_shows_all_that_was_compared_and_marks_differences() -> None:
    rows = [
        Comparison("documents in train", 15_000, 14_998),
        Comparison("levels", 2, 2),
        Comparison("nodes on level 0", 7, 1_007),
    ]
    assert mismatch_table(rows).splitlines() == [
        "                      expected       found",
        "documents in train      15,000      14,998  differs by -2",
        "levels                       2           2",
        "nodes on level 0             7       1,007  differs by +1,000",
    ]
