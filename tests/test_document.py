"""A line of a split: what comes back from it, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hblm.document import Document, check_text, parse_document
from hblm.errors import DataError

texts = st.text(st.characters(codec="utf-8"))


@given(texts.filter(bool), texts, st.lists(texts))
def test_a_document_comes_back_from_its_line(identity: str, text: str, labels: list[str]) -> None:
    document = Document(identity, text, tuple(labels))
    line = document.to_json()
    assert "\n" not in line
    assert parse_document(line, "here:1") == document
    assert parse_document(json.dumps(json.loads(line)), "here:1") == document  # escapes instead of UTF-8


BROKEN = {
    "not JSON": ("{'id': 1}", "not valid JSON: .* \\(column 2\\)"),
    "nothing": ("", "not valid JSON"),
    "a list": ("[]", "found a list"),
    "null": ("null", "found null"),
    "no keys": ("{}", "no id and no text and no labels; its keys are \\[\\]"),
    "no text": ('{"id": "a", "labels": [], "tokens": []}', "no text; its keys are .*'tokens'"),
    "id a number": ('{"id": 7, "text": "", "labels": []}', "id must be .* found a number"),
    "id empty": ('{"id": "", "text": "", "labels": []}', "id must be .* found an empty string"),
    "id true": ('{"id": true, "text": "", "labels": []}', "id must be .* found true/false"),
    "text null": ('{"id": "a", "text": null, "labels": []}', "document 'a': text must be .* found null"),
    "text a list": ('{"id": "a", "text": ["b"], "labels": []}', "document 'a': text must be .* found a list"),
    "labels a string": ('{"id": "a", "text": "", "labels": "b"}', "document 'a': labels .* found a string"),
    "labels with a number": ('{"id": "a", "text": "", "labels": ["b", 3]}', "found a list with a number"),
    "labels with null": ('{"id": "a", "text": "", "labels": [null]}', "found a list with null"),
    "lone surrogate": ('{"id": "a", "text": "x\\ud800", "labels": []}', "document 'a': text .* character 1"),
    "surrogate in the id": ('{"id": "\\udfff", "text": "", "labels": []}', "id .* surrogate"),
    "too deep": ("[" * 200_000, "nested too deeply"),
    "a huge number": ('{"id": ' + "1" * 6000 + "}", "not a document"),
    "a key twice": (
        '{"id": "a", "text": "", "labels": ["b"], "labels": []}',
        "the key 'labels' is there twice",
    ),
    "two documents": ('{"id": "a"} {"id": "b"}', "Extra data \\(column 13\\)"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_line_is_named(fault: str) -> None:
    line, expected = BROKEN[fault]
    with pytest.raises(DataError, match=f"^data/x/train.jsonl:17[:,] ?.*{expected}"):
        parse_document(line, "data/x/train.jsonl:17")


def test_an_escaped_pair_of_surrogates_is_one_character() -> None:
    line = '{"id": "a", "text": "\\ud83d\\ude00", "labels": []}'
    assert parse_document(line, "here:1").text == "😀"


def test_a_message_stays_short_whatever_the_line_holds() -> None:
    line = json.dumps({"id": "a" * 100_000, "text": 1, "labels": []})
    with pytest.raises(DataError) as caught:
        parse_document(line, "here:1")
    assert len(str(caught.value)) < 400


def test_text_that_utf8_cannot_hold_is_refused_before_it_is_written() -> None:
    check_text("a", "é😀\0", "here:1")
    with pytest.raises(DataError, match="here:1, document 'a': text holds a lone surrogate at character 2"):
        check_text("a", "ab\udcff", "here:1")
