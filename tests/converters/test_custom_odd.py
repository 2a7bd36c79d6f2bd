"""Labels of the user's own data where two readings meet: ids and paths, words for no value, absent labels."""

from __future__ import annotations

import json
from typing import Any

import pytest
from customs import Record, delimited, documents, jsonl, prepared, write

from hblm.errors import DataError

TEXTS = [f"document {number} about something" for number in range(40)]


def tree(*nodes: tuple[str, str | None, str]) -> bytes:
    listed = [{"id": node, "parent": parent, "name": name} for node, parent, name in nodes]
    return json.dumps({"nodes": listed}).encode()


TWO = tree(("A", None, "A"), ("B", None, "B"), ("A/B", "A", "B"), ("B/C", "B", "C"))


def labelled(labels: Any, last: Any) -> list[Record]:
    """Return documents with the same labels, but for the last one."""
    return [{"text": text, "labels": last if text == TEXTS[-1] else labels} for text in TEXTS]


def found_in(records: list[Record], **options: Any) -> set[tuple[str, ...]]:
    """Return all paths that documents have."""
    raw = write({"d.jsonl": jsonl(records)})
    read = documents(prepared(raw, "made", id="none", split="none", **options)).values()
    return {path for _, _, paths in read for path in paths}


def test_a_document_without_labels_is_kept_beside_a_tree():
    write({"tree.json": TWO}, "beside")
    options = {"taxonomy": "beside/tree.json", "unlabelled": "keep"}
    assert found_in(labelled(["A"], []), **options) == {("A",)}


def test_ids_of_nodes_win_over_names_of_a_path():
    write({"tree.json": TWO}, "beside")
    found = found_in(labelled(["A", "B"], ["A", "B"]), taxonomy="beside/tree.json")
    assert found == {("A",), ("B",)}


def test_a_path_in_columns_of_levels_that_the_tree_has_not_is_refused():
    write({"tree.json": TWO}, "beside")
    rows = [{"text": text, "level1": "A", "level2": "C" if text == TEXTS[3] else "B"} for text in TEXTS]
    raw = write({"d.csv": delimited(rows)})
    with pytest.raises(DataError, match="'C' is no child of 'A'"):
        prepared(raw, "made", levels=["level1", "level2"], taxonomy="beside/tree.json", id="none")


@pytest.mark.parametrize("word", ["NaN", "N/A", "null"])
def test_words_for_no_value_end_a_path(word):
    rows = [{"text": text, "level1": "A", "level2": word if text == TEXTS[3] else "B"} for text in TEXTS]
    raw = write({"d.csv": delimited(rows)})
    read = prepared(raw, "made", levels=["level1", "level2"], id="none", null_labels="empty")
    assert {path for _, _, paths in documents(read).values() for path in paths} == {("A",), ("A", "B")}
    assert read.manifest is not None
    assert any(word in warning for warning in read.manifest["warnings"])
    rows[5]["level1"] = word
    raw = write({"e.csv": delimited(rows)}, "other")
    with pytest.raises(DataError, match="a path has no holes"):
        prepared(raw, "other", levels=["level1", "level2"], id="none", null_labels="empty")


def test_labels_that_no_document_has_are_merged_with_the_rest():
    records = labelled([0, 1, 0], [1, 1, 0])
    options = {"label_names": ["a", "b", "c"], "separator": "none", "merge_labels": True}
    assert found_in(records, **options) == {("a",), ("b",)}


def test_a_row_of_numbers_is_a_document_where_there_is_no_header():
    rows = "".join(f"{text},A\n" for text in TEXTS) + "1,2\n"
    raw = write({"d.csv": rows.encode()})
    options = {"header": "none", "text": "1", "labels": "2", "separator": "none", "id": "none"}
    assert len(documents(prepared(raw, "made", **options))) == len(TEXTS) + 1


def test_a_blank_first_line_does_not_hide_the_delimiter():
    rows = "\ntext;label\n" + "".join(f"{text};A\n" for text in TEXTS)
    raw = write({"d.csv": rows.encode()})
    assert len(documents(prepared(raw, "made", separator="none", id="none"))) == len(TEXTS)
