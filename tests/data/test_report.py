"""What is told of a prepared dataset: every number worked out by hand, and names that would be markup."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from hblm.data.dataset import Prepared, open_prepared
from hblm.data.report import Description
from hblm.data.statistics import SAMPLE, collect_statistics
from hblm.data.token_counter import TokenCounter
from hblm.data.writer import Conversion, write_dataset
from hblm.document import Document
from hblm.taxonomy import Node, Taxonomy

BYTES = TokenCounter("bytes", 5, lambda texts: [len(text) for text in texts])
TREE = {"a": None, "b": None, "a1": "a", "a2": "a", "b1": "b", "a1x": "a1", "un": "b"}
DOCUMENTS = {
    "train": [("one two", ["a1x", "a1", "a"]), ("one two", ["a2", "a"]), ("three", ["a", "b1", "b"])],
    "val": [("one two", ["b"]), ("", ["b1", "b"])],
    "test": [("three", []), ("three", ["a2", "a"]), ("four", ["a1x", "a2", "b1"])],
}


def prepared(
    folder: Path, documents: dict[str, list[tuple[str, list[str]]]] = DOCUMENTS, **given
) -> Prepared:
    names = {**dict.fromkeys(TREE, "n"), "a": "A", "b": "B"}
    splits = {
        split: [Document(f"{split}{at}", text, tuple(labels)) for at, (text, labels) in enumerate(found)]
        for split, found in documents.items()
    }
    tree = Taxonomy(Node(node, names[node], parent) for node, parent in TREE.items())
    write_dataset(folder / "set", Conversion(tree, splits, {"x": 1}, **given), converter="tests")
    return open_prepared(folder / "set")


def rows(description: Description, title: str) -> list[list[str]]:
    """Return a section's rows as report.md has them."""
    section = description.markdown().partition(f"## {title}\n")[2].partition("\n## ")[0]
    found = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in found[2:]]


def numbers(texts: Sequence[str]) -> list[int]:
    return [int(text) if text.isdigit() else 0 for text in texts]


def described(data: Prepared, tokens: TokenCounter = BYTES) -> Description:
    return Description(collect_statistics(data, tokens.count), tokens)


def test_the_numbers_are_those_of_the_documents(tmp_path: Path) -> None:
    found = described(prepared(tmp_path))
    assert "8 documents, 7 nodes on 3 levels (2 / 4 / 1)." in found.markdown()
    assert rows(found, "Documents") == [
        ["train", "3", "2.67", "3", "33.3 %", "33.3 %"],  # the third stops at a, an inner node, and at b1
        ["val", "2", "1.50", "2", "0.0 %", "50.0 %"],
        ["test", "3", "2.67", "6", "33.3 %", "0.0 %"],
    ]
    assert rows(found, "Levels") == [
        ["0", "2", "0", "0", "4", "2", "3"],
        ["1", "4", "1", "1", "3", "1", "4"],
        ["2", "1", "0", "0", "1", "0", "1"],
    ]
    assert rows(found, "Training documents of a node") == [
        ["0", "1", "1", "1", "3", "3"],
        ["1", "0", "1", "1", "1", "1"],
        ["2", "1", "1", "1", "1", "1"],
    ]
    assert rows(found, "Path shapes") == [
        ["level 0, above a leaf", "1", "1", "0"],
        ["level 1, at a leaf", "2", "1", "3"],
        ["level 2, at a leaf", "1", "0", "1"],
        ["documents with 0 paths", "0", "0", "1"],
        ["documents with 1 path", "2", "2", "1"],
        ["documents with 2 paths", "1", "0", "0"],
        ["documents with 3 paths", "0", "0", "1"],
    ]
    assert rows(found, "Documents with equal texts") == [
        ["within train", "1"],
        ["within val", "0"],
        ["within test", "1"],
        ["val, text also in train", "1"],
        ["test, text also in train", "2"],
        ["test, text also in val", "0"],
    ]
    assert rows(found, "Text lengths") == [
        ["train", "words", "2", "2", "2", "2"],
        ["val", "words", "0", "2", "2", "2"],
        ["test", "words", "1", "1", "1", "1"],
        ["train", "tokens", "7", "7", "7", "7", "66.7 %"],
        ["val", "tokens", "0", "7", "7", "7", "50.0 %"],
        ["test", "tokens", "5", "5", "5", "5", "0.0 %"],
    ]


def test_what_a_person_should_look_at_is_noted(tmp_path: Path) -> None:
    text = described(
        prepared(tmp_path, counts={"dropped": 4}, warnings=["look here"], licence="MIT")
    ).markdown()
    for note in (
        "test: 1 documents without labels",
        "val: 1 documents without text",
        "label sets that were not closed: 1;",
        "nodes without documents: 1 (un)",
        "names that repeat: 4 nodes",
        "nodes with a single child: 1",
        "make scores better than they are on new texts",
        "look here",
        "licence: MIT",
        "| options: x | 1 |",
        "| repaired or dropped: dropped | 4 |",
    ):
        assert note in text, note


def test_a_folder_made_by_hand_says_so(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    (data.folder / "manifest.json").unlink()
    assert "made by hand" in described(open_prepared(data.folder)).markdown()


def test_without_a_tokenizer_words_are_told_and_why(tmp_path: Path) -> None:
    found = described(prepared(tmp_path), TokenCounter("some/model", 5, None, "it is elsewhere"))
    assert len(rows(found, "Text lengths")) == 3
    assert "tokens of some/model are not counted: it is elsewhere" in found.markdown()


@pytest.mark.slow
def test_tokens_of_many_documents_are_those_of_a_sample(tmp_path: Path) -> None:
    many = [(f"{at:05}", ["a"]) for at in range(SAMPLE + 500)]
    data = prepared(tmp_path, {**DOCUMENTS, "train": many})
    found = collect_statistics(data, numbers)
    drawn = found.splits["train"].tokens
    assert len(drawn) == len(set(drawn)) == SAMPLE
    assert max(drawn) > SAMPLE  # not the first ones
    assert collect_statistics(data, numbers).splits["train"].tokens == drawn
    assert f"train: tokens of {SAMPLE:,} documents drawn at random" in described(data).markdown()


@pytest.mark.parametrize("name", ["[red]x[/red]", "a|b", "<b>x</b>", "*x* _y_ `z`", "[x](http://y)", "a\nb"])
def test_names_are_neither_markdown_nor_markup(name: str, tmp_path: Path) -> None:
    tree = Taxonomy([Node(name, name, None)])
    splits = {split: [Document("x", "text", (name,))] for split in ("train", "val", "test")}
    write_dataset(tmp_path / "set", Conversion(tree, splits, {}), converter="tests")
    found = described(open_prepared(tmp_path / "set"))
    nodes = found.markdown().partition("## Nodes\n")[2]
    row = next(line for line in nodes.splitlines() if line.endswith("| 1 | 1 | 1 |"))
    for sign in "|<>*_`[]":
        assert row.strip("| ").removesuffix(" | 1 | 1 | 1").count(sign) == row.count(f"\\{sign}")
    console = Console(width=200, record=True)
    found.show(console)
    assert name.split("\n")[0] in console.export_text()
