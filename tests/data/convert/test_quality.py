"""Names in several spellings, words for no value, texts without a sign: noticed, and mended if asked for."""

from __future__ import annotations

import pytest

from hblm.data.convert.quality import is_blank, merged, n_contradicting, normalized_name, spelling_variants
from hblm.taxonomy import Node, Taxonomy

SPELLINGS = {
    "case": "machine LEARNING",
    "blanks": "Machine   learning",
    "a blank that does not break": "Machine\u00a0learning",
    "a blank at the end": "Machine learning ",
    "a sign of no width": "Machine\u200b learning\ufeff",
    "a soft hyphen": "Ma\u00adchine learning",
    "compatible signs": "\uff2dachine learning",
    "a full stop": "Machine learning.",
}
PLAIN = "Machine learning"


@pytest.mark.parametrize("kind", SPELLINGS)
def test_spellings_of_one_name_have_one_sense(kind: str) -> None:
    assert SPELLINGS[kind] != PLAIN
    assert normalized_name(SPELLINGS[kind]) == normalized_name(PLAIN)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("C", "C++"),
        ("C", "C#"),
        ("1.5", "15"),
        ("1.0", "10"),
        ("Café", "Cafe"),
        ("...", "!!!"),
        ("a b", "ab"),
        ("", "a"),
    ],
)
def test_other_names_have_another_sense(one: str, other: str) -> None:
    assert normalized_name(one) != normalized_name(other)


def test_decimals_of_a_whole_number_and_forms_of_unicode_are_spellings() -> None:
    assert normalized_name("76.0") == normalized_name("76") == normalized_name(" 76.00")
    assert normalized_name("Cafe\u0301") == normalized_name("Caf\u00e9")


@pytest.mark.parametrize("kind", SPELLINGS)
def test_the_most_frequent_spelling_is_kept_below_each_parent(kind: str) -> None:
    odd = SPELLINGS[kind]
    paths = {("a", PLAIN): 3, ("A", odd): 2, ("b", odd): 1, ("a", "x"): 1}
    found = merged(paths)
    assert found == {
        ("a", PLAIN): ("a", PLAIN),
        ("A", odd): ("a", PLAIN),
        ("b", odd): ("b", odd),
        ("a", "x"): ("a", "x"),
    }
    assert merged(dict.fromkeys(found.values(), 1)) == {path: path for path in found.values()}


def test_spellings_are_of_one_parent() -> None:
    nodes = [
        Node("a", "a", None),
        Node("b", "b", None),
        Node("1", "X", "a"),
        Node("2", "x", "a"),
        Node("3", "x", "b"),
    ]
    assert spelling_variants(Taxonomy(nodes), {"1": 1, "2": 5}) == [[("x", 5), ("X", 1)]]


@pytest.mark.parametrize(
    ("text", "blank"), [("", True), (" \t\n", True), ("\u200b\ufeff", True), ("a", False), (".", False)]
)
def test_a_text_without_a_sign_is_blank(text: str, blank: bool) -> None:
    assert is_blank(text) == blank


def test_texts_with_different_labels_are_counted_once() -> None:
    assert n_contradicting([1, 2, 1, 1, 3, 3], ["a", "a", "b", "c", "d", "d"]) == 1
