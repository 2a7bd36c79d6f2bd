"""A converter's options: defaults, types, and all faults in one message."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import pytest

from hblm.config.converter_options import read_options
from hblm.errors import ConfigError


class Options(NamedTuple):
    """Options of every kind."""

    text: str = "body"
    limit: int | None = None
    share: float = 0.5
    keep: bool = False
    mode: Literal["refuse", "drop"] = "refuse"
    other: Literal["one", "two"] | None = None
    columns: str | list[str] | None = None
    shares: list[float] = [0.8, 0.1, 0.1]  # noqa: RUF012 (never changed)


def test_what_is_not_given_has_its_default() -> None:
    assert read_options(Options, {}, "mine") == Options()
    assert read_options(Options, {"keep": True, "limit": 7}, "mine") == Options(keep=True, limit=7)


# what is given -> option, value, and the value that is read
FITTING: dict[str, tuple[str, Any, Any]] = {
    "text": ("text", "a b", "a b"),
    "a number": ("limit", 3, 3),
    "null": ("limit", None, None),
    "a float": ("share", 0.25, 0.25),
    "a whole float": ("share", 1, 1.0),
    "true": ("keep", True, True),
    "a word": ("mode", "drop", "drop"),
    "a word or null: null": ("other", None, None),
    "a word or null: a word": ("other", "two", "two"),
    "a text or a list: a text": ("columns", "x", "x"),
    "a text or a list: a list": ("columns", ["x", "y"], ["x", "y"]),
    "an empty list": ("columns", [], []),
    "a list of numbers": ("shares", [1, 0.5], [1.0, 0.5]),
}


@pytest.mark.parametrize("kind", FITTING)
def test_what_fits_is_read_in_its_type(kind: str) -> None:
    name, value, expected = FITTING[kind]
    found = getattr(read_options(Options, {name: value}, "mine"), name)
    assert found == expected
    assert type(found) is type(expected)
    if isinstance(expected, list):
        assert [type(item) for item in found] == [type(item) for item in expected]


# fault -> option, value, and what the message must say
FAULTS: dict[str, tuple[str, Any, list[str]]] = {
    "a number for a text": ("text", 3, ["dataset.prepare.text=3 is not a text"]),
    "null for a text": ("text", None, ["dataset.prepare.text=null is not a text"]),
    "a text for a number": ("limit", "3", ["dataset.prepare.limit=3 is not a whole number or null"]),
    "a fraction for a number": ("limit", 3.5, ["dataset.prepare.limit=3.5 is not a whole number"]),
    "true for a number": ("limit", True, ["dataset.prepare.limit=true is not a whole number or null"]),
    "true for a float": ("share", True, ["dataset.prepare.share=true is not a number"]),
    "a text for a float": ("share", "1", ["dataset.prepare.share=1 is not a number"]),
    "a number for true": ("keep", 1, ["dataset.prepare.keep=1 is not true or false"]),
    "a text for true": ("keep", "yes", ["dataset.prepare.keep=yes is not true or false"]),
    "another word": ("mode", "dorp", ["mode=dorp is not one of refuse, drop; did you mean drop?"]),
    "a word in capitals": ("mode", "DROP", ["mode=DROP is not one of refuse, drop; did you mean drop?"]),
    "a word, nothing near": ("mode", "x", ["dataset.prepare.mode=x is not one of refuse, drop"]),
    "a number for a word": ("mode", 3, ["dataset.prepare.mode=3 is not one of refuse, drop"]),
    "null for a word": ("mode", None, ["dataset.prepare.mode=null is not one of refuse, drop"]),
    "true for a word": ("mode", True, ["dataset.prepare.mode=true is not one of refuse, drop"]),
    "a list for a word": ("mode", ["drop"], ["dataset.prepare.mode=", "is not one of refuse, drop"]),
    "another word or null": ("other", "three", ["other=three is not one of one, two or null"]),
    "a list of numbers for texts": (
        "columns",
        [1],
        ["columns=[1] is not a text or a list such as [a,b] or null"],
    ),
    "a list of both": ("columns", ["a", 1], ["is not a text or a list such as [a,b] or null"]),
    "a text for a list": ("shares", "0.8,0.1", ["shares=0.8,0.1 is not a list of numbers"]),
    "texts for numbers": ("shares", ["a"], ["is not a list of numbers"]),
    "an object": ("text", {"a": 1}, ["is not a text"]),
    "an unknown name": (
        "colums",
        "x",
        ["colums is not an option of mine; did you mean columns?; it has text, "],
    ),
    "an unknown name, nothing near": (
        "zzz",
        "x",
        ["zzz is not an option of mine; it has text, limit, share, "],
    ),
    "a number for a name": ("3", "x", ["dataset.prepare.3 is not an option of mine"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_refused(fault: str) -> None:
    name, value, expected = FAULTS[fault]
    with pytest.raises(ConfigError) as caught:
        read_options(Options, {name: value}, "mine")
    assert str(caught.value).startswith(f"dataset.prepare.{name}")
    assert "\n" not in str(caught.value)
    for part in expected:
        assert part in str(caught.value)


def test_all_faults_come_in_one_message() -> None:
    with pytest.raises(ConfigError) as caught:
        read_options(Options, {"limit": "x", "keep": True, "mods": 1, "share": None}, "mine")
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()] == [
        "dataset.prepare.limit=x",
        "dataset.prepare.mods",
        "dataset.prepare.share=null",
    ]


def test_an_empty_text_is_refused_with_what_a_shell_does() -> None:
    with pytest.raises(ConfigError, match=r"dataset\.prepare\.text= is empty; a shell interprets"):
        read_options(Options, {"text": ""}, "x")
