"""Markdown: its content, and names that are escaped."""

from __future__ import annotations

import re

import pytest
from made_tables import HOSTILE, made

from hblm.tables.output.markdown import markdown


def test_markdown_by_hand() -> None:
    lines = markdown(made()).splitlines()
    assert lines[:2] == ["**Results of flat**", ""]
    at = lines.index("| method | wos test macro-F1 | flat test macro-F1 |")
    assert lines[at + 1 : at + 4] == [
        "| --- | ---: | ---: |",
        "| flat | <u>71.00 ± 1.41</u> (n=2)<sup>a</sup> | 71.00 ± 1.41 (n=2) |",
        "| dual | **81.00 ± 1.41** (n=2) | – |",
    ]
    assert "Reference figures, published or expected by the sweep:" in lines
    assert "| *HPT* | *BERT-base* | *1* | *Table 1 of flat* | 81.93 | – |" in lines
    assert "(a) Seeds of flat are missing." in lines
    assert "HPT: theirs." in lines


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_markdown_or_html(name: str) -> None:
    text = markdown(made((name, "dual")))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert bars == {4, 7}, "a name makes cells"
    bare = re.sub(r"\\.", "", text)
    assert re.findall(r"</?[^u/s][^>]*>", bare) == []
    assert set(re.findall(r"<[^>]*>", bare)) == {"<u>", "</u>", "<sup>", "</sup>"}
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", text)
