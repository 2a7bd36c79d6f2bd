"""Tiny prepared datasets: one written by the writer, one made by hand and broken at will."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hblm.data.writer import Conversion
from hblm.document import Document
from hblm.taxonomy import Node, Taxonomy

NODES = [
    Node("sci", "Science", None),
    Node("sci/phys", "Physics & Space, etc.", "sci"),
    Node("arts", "Arts – Music/Film", None),
    Node("arts/film", "General", "arts"),
    Node("sci/phys/optics", "General", "sci/phys"),
    Node("arts/music", "Children’s Music", "arts"),
]


@pytest.fixture
def taxonomy() -> Taxonomy:
    """Return a forest of two trees, three levels, six nodes; two of them bear the same name."""
    return Taxonomy(NODES)


@pytest.fixture
def conversion(taxonomy: Taxonomy) -> Callable[..., Conversion]:
    """Return a maker of conversions: eight sound documents, single splits or fields replaced at will."""

    def make(splits: dict[str, Any] | None = None, **fields: Any) -> Conversion:
        documents = {
            "train": [
                Document("1", "light bends – \u2028 here", ("sci/phys/optics",)),
                Document("2", "a film\nabout physics", ("arts/film", "sci/phys", "arts")),
                Document("3", " \t", ("sci",)),
                Document("4", 'a "song" \\ 😀', ("arts/music", "arts")),
            ],
            "val": [Document("1", "no labels", ()), Document("b", "x", ("arts", "arts"))],
            "test": [Document("a", "", ("sci",)), Document("b", "y", ("sci/phys", "sci"))],
        }
        return Conversion(taxonomy, documents | (splits or {}), **{"options": {"limit": None}, **fields})

    return make


@pytest.fixture
def folder_by_hand(tmp_path: Path, taxonomy: Taxonomy) -> Callable[..., Path]:
    """Return a maker of folders without a manifest; files are replaced (bytes) or left out (None)."""

    def make(files: dict[str, bytes | None] | None = None) -> Path:
        folder = tmp_path / "byhand"
        folder.mkdir()
        content: dict[str, bytes | None] = {"taxonomy.json": taxonomy.to_json().encode()}
        for name, labels in (("train", ("arts", "arts/film")), ("val", ()), ("test", ("sci/phys", "sci"))):
            content[f"{name}.jsonl"] = Document("1", "some text", labels).to_json().encode() + b"\n"
        for name, data in (content | (files or {})).items():
            if data is not None:
                (folder / name).write_bytes(data)
        return folder

    return make
