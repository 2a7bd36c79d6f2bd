"""The published cleanings on strings that were cleaned by hand, step by step as their scripts do."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hblm.data.raw.cleaning import CLEANINGS, STOP_WORDS, Cleaning

# cleaning -> pairs of a text and the text that it becomes
BY_HAND: dict[str, list[tuple[str, str]]] = {
    "none": [(' "It\'s"  BIG \n', ' "It\'s"  BIG \n')],
    "lower": [(' "It\'s"  BIG, Übel \n', ' "it\'s"  big, übel \n')],
    "hpt": [
        ("", ""),
        ('  "It\'s BIG"  ', "it 's big"),
        ('" padded "', "padded"),
        ('""twice""', "twice"),
        ('He said "No"!', 'he said "no"!'),
        ("we've can't they're he'd she'll", "we 've ca n't they 're he 'd she 'll"),
        ("couldn't've", "could n't 've"),
        ("it 's", "it 's"),
        ("IT'S", "it's"),
        ("a \n\t b\nc  d", "a b\nc d"),
        ("Ünïcode (12%), e.g.", "ünïcode (12%), e.g."),
        ("'s", "'s"),
    ],
    "hiagm": [
        ("", ""),
        ("The quick (brown) fox's 2 dens, isn't it?", "quick brown fox 's dens n't"),
        ("naïve café-bar x86 e.g. 42", "na caf bar x86 42"),
        ("You're a `quoted' word", "'re `quoted' word"),
        ("Should've, DON'T; I'd", "'ve 'd"),
        ("State-of-the-Art", "state art"),
        ("In 2007, B2B sales rose 5.5%", "2007 b2b sales rose"),
        ("one\ntwo\t\tthree", "one two three"),
        ('"Neural" "nets"', "neural nets"),
        ("a I x ! ?", ""),
        ("wait!what?(this)that.then", "wait"),
    ],
    "hiagm_nyt": [
        ("In 2007, B2B sales rose 5.5%", "b b sales rose"),
        ("A U.S. senator, J. Doe: yes/no,maybe?so", "us senator j doe yes nomaybeso"),
        ("The 3rd fox's dens, isn't it?", "rd fox 's dens n't"),
        ("x86 mp3player", "x mp player"),
    ],
}


@pytest.mark.parametrize(
    ("cleaning", "text", "expected"),
    [(cleaning, *pair) for cleaning, pairs in BY_HAND.items() for pair in pairs],
)
def test_a_text_is_cleaned_as_by_hand(cleaning: str, text: str, expected: str) -> None:
    assert CLEANINGS[cleaning](text) == expected


def test_every_cleaning_is_tried_here() -> None:
    assert list(BY_HAND) == list(CLEANINGS)


def test_the_stop_words_are_those_of_nltk() -> None:
    assert len(STOP_WORDS) == 179
    assert all(word == word.strip().lower() and word.replace("'", "").isalpha() for word in STOP_WORDS)
    assert {"i", "you're", "that'll", "needn't", "ma", "y", "wouldn", "nor", "s", "should've"} <= STOP_WORDS
    assert not STOP_WORDS & {"", "'s", "n't", "would", "could", "one", "also", "us"}


# st.characters reads the table of Unicode, which takes seconds in each process
ANY = (st.integers(0, 0xD7FF) | st.integers(0xE000, 0x10FFFF)).map(chr)


@settings(max_examples=40, deadline=None)
@given(st.text(st.sampled_from("aBéx .,!?()'`\"-9\n\t\u2028") | ANY))
def test_what_the_word_cleanings_leave_is_words(text: str) -> None:
    for cleaning, kept, shortest in (("hiagm", "0123456789", 2), ("hiagm_nyt", "", 1)):
        cleaned = CLEANINGS[cleaning](text)
        assert cleaned == " ".join(cleaned.split())
        assert set(cleaned) <= set("abcdefghijklmnopqrstuvwxyz'` " + kept)
        for word in cleaned.split():
            assert len(word) >= shortest
            assert word not in STOP_WORDS
    assert CLEANINGS["hpt"](text) == CLEANINGS["hpt"](text).lower().strip()
    assert "  " not in CLEANINGS["hpt"](text)


def test_every_cleaning_is_an_option_and_every_option_a_cleaning() -> None:
    assert set(CLEANINGS) == set(get_args(Cleaning))
