"""The writer of prepared datasets: what it repairs, refuses and never destroys; and the splits it draws."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hblm.data.convert.splits import assign_splits
from hblm.data.dataset import open_prepared
from hblm.data.statistics import collect_statistics
from hblm.data.writer import FILES, Conversion, write_dataset
from hblm.document import SPLITS, Document
from hblm.errors import DataError
from hblm.files import sha256_file
from hblm.taxonomy import Taxonomy

Make = Callable[..., Conversion]


def content(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_is_read_again_closed_and_in_taxonomy_order(tmp_path: Path, conversion: Make) -> None:
    write_dataset(tmp_path / "data" / "wos", conversion(), converter="wos")
    prepared = open_prepared(tmp_path / "data" / "wos")
    assert prepared.taxonomy == conversion().taxonomy
    index = prepared.taxonomy.index
    for split in SPLITS:
        given = conversion().splits[split]
        for before, after in zip(given, prepared.documents(split), strict=True):
            assert (after.id, after.text) == (before.id, before.text)
            closed = prepared.taxonomy.close(before.labels)
            assert list(after.labels) == sorted(closed, key=index.__getitem__)


def test_the_manifest_says_what_was_done(tmp_path: Path, conversion: Make) -> None:
    source = {"name": "Data.txt", "size": 7, "sha256": "00"}
    made = conversion(
        options={"seed": 1, "drop": ["x"]},
        version=3,
        sources=[source],
        counts={"dropped_duplicates": 2},
        warnings=["two names"],
        licence="MIT",
    )
    manifest = write_dataset(tmp_path / "wos", made, converter="webofscience")
    assert manifest == json.loads((tmp_path / "wos" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["name"] == "wos"
    assert (manifest["converter"], manifest["version"]) == ("webofscience", 3)
    assert manifest["options"] == {"seed": 1, "drop": ["x"]}
    assert manifest["sources"] == [source]
    assert manifest["taxonomy"] == {"nodes": 6, "levels": [2, 3, 1]}
    assert manifest["repaired"] == {
        "documents_closed": 2,
        "documents_with_repeated_labels": 1,
        "dropped_duplicates": 2,
    }
    assert (manifest["warnings"], manifest["licence"]) == (["two names"], "MIT")
    assert manifest["files"] == {name: sha256_file(tmp_path / "wos" / name) for name in FILES}
    assert manifest["counts"]["train"] == {
        "documents": 4,
        "labels": 10,
        "unlabelled": 0,
        "blank_texts": 1,
        "levels": [
            {"documents": 4, "labels": 5, "nodes": 2},
            {"documents": 3, "labels": 4, "nodes": 3},
            {"documents": 1, "labels": 1, "nodes": 1},
        ],
    }
    assert manifest["counts"]["val"]["unlabelled"] == 1
    assert manifest["counts"]["test"]["levels"][2] == {"documents": 0, "labels": 0, "nodes": 0}


def test_equal_input_gives_equal_bytes(tmp_path: Path, conversion: Make) -> None:
    for place, options in (("a", {"x": 1, "y": 2}), ("b", {"y": 2, "x": 1})):
        write_dataset(tmp_path / place / "wos", conversion(options=options), converter="wos")
    assert content(tmp_path / "a" / "wos") == content(tmp_path / "b" / "wos")


def test_counts_may_grow_while_generators_run(tmp_path: Path, conversion: Make) -> None:
    made = conversion()

    def documents() -> Iterator[Document]:
        yield from conversion().splits["test"]
        made.counts["dropped"] = 5

    made.splits = {**made.splits, "test": documents()}
    ticks: list[None] = []
    manifest = write_dataset(tmp_path / "x", made, converter="x", on_document=lambda: ticks.append(None))
    assert manifest["repaired"]["dropped"] == 5
    assert len(ticks) == 8


def test_documents_that_were_dropped_are_told_by_split(tmp_path: Path, conversion: Make) -> None:
    manifest = write_dataset(tmp_path / "x", conversion(dropped={"train": 2, "test": 1}), converter="x")
    assert manifest["dropped"] == {"train": 2, "test": 1}
    assert manifest["counts"]["train"]["documents"] == 4  # those that were written
    assert manifest == json.loads((tmp_path / "x" / "manifest.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("dropped", [{}, {"train": 0, "val": 0}])
def test_where_none_was_dropped_the_manifest_is_as_it_was(
    dropped: dict[str, int], tmp_path: Path, conversion: Make
) -> None:
    write_dataset(tmp_path / "a" / "x", conversion(dropped=dropped), converter="x")
    write_dataset(tmp_path / "b" / "x", conversion(), converter="x")
    assert content(tmp_path / "a" / "x") == content(tmp_path / "b" / "x")
    assert b"dropped" not in content(tmp_path / "a" / "x")["manifest.json"]


def test_documents_that_were_dropped_are_expected_as_well(tmp_path: Path, conversion: Make) -> None:
    listed = {"documents": {"train": 6, "val": 2, "test": 3}}
    dropped = {"train": 2, "test": 1}
    made = conversion(dropped=dropped)
    assert write_dataset(tmp_path / "x", made, converter="x", expect=listed)["expected"]["met"] is True
    with pytest.raises(DataError) as caught:
        write_dataset(tmp_path / "y", conversion(), converter="y", expect=listed)
    assert "documents in train           6           4  differs by -2" in str(caught.value)
    written = {"documents": {"train": 4}}
    with pytest.raises(DataError) as caught:
        write_dataset(tmp_path / "y", conversion(dropped=dropped), converter="y", expect=written)
    assert "documents in train           4           6  differs by +2" in str(caught.value)
    assert not (tmp_path / "y").exists()
    allowed = {"converter": "y", "expect": written, "allow_mismatch": True}
    manifest = write_dataset(tmp_path / "y", conversion(dropped=dropped), **allowed)
    assert (manifest["expected"]["met"], manifest["dropped"]) == (False, dropped)


def test_dropped_documents_may_be_counted_while_generators_run(tmp_path: Path, conversion: Make) -> None:
    dropped: dict[str, int] = {}
    made = conversion(dropped=dropped)

    def documents() -> Iterator[Document]:
        yield from conversion().splits["test"]
        dropped["test"] = 5

    made.splits = {**made.splits, "test": documents()}
    expect = {"documents": {"test": 7}}
    assert write_dataset(tmp_path / "x", made, converter="x", expect=expect)["dropped"] == {"test": 5}


def test_documents_are_streamed(tmp_path: Path, conversion: Make) -> None:
    text = "word" * 5000

    def documents() -> Iterator[Document]:
        return (Document(str(n), text + str(n), ("arts/film",)) for n in range(1000))  # 20 MB

    made = conversion({"train": documents()})
    tracemalloc.start()
    try:
        write_dataset(tmp_path / "x", made, converter="x")
        prepared = open_prepared(tmp_path / "x")
        collect_statistics(prepared)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "x" / "train.jsonl").stat().st_size > 20_000_000
    assert peak < 4_000_000


def bad(identity: Any = "x", text: Any = "a text", labels: Any = ("sci",)) -> Document:
    """Return a document that a careless converter might yield."""
    return Document(identity, text, labels)


# fault -> split, its documents, and what the message must say
BROKEN: dict[str, tuple[str, list[Document], list[str]]] = {
    "unknown label": ("train", [bad("a"), bad(labels=("sci/fys",))], [":2", "'x'", "'sci/fys'", "sci/phys?"]),
    "unknown label in test": ("test", [bad(labels=("Sport",))], [":1", "'x'", "'Sport'"]),
    "label a number": ("val", [bad(labels=(3,))], [":1", "'x'", "label 3"]),
    "no training label": ("train", [bad("a"), bad(labels=())], [":2", "'x'", "no labels"]),
    "duplicate id": ("val", [bad(), bad("y"), bad()], [":3", "'x'", "same id"]),
    "empty split": ("test", [], ["the split is empty"]),
    "empty training split": ("train", [], ["the split is empty"]),
    "empty id": ("train", [bad(""), bad()], [":1", "id must be", "'a text'"]),
    "id a number": ("train", [bad(5)], [":1", "id must be", "5"]),
    "text missing": ("train", [bad(text=float("nan"))], [":1", "'x'", "text nan"]),
    "lone surrogate": ("train", [bad(text="ab\udcff")], [":1", "'x'", "surrogate at character 2"]),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_document_is_named_and_nothing_is_left(fault: str, tmp_path: Path, conversion: Make) -> None:
    split, documents, expected = BROKEN[fault]
    with pytest.raises(DataError) as caught:
        write_dataset(tmp_path / "wos", conversion({split: documents}), converter="wos")
    assert str(caught.value).startswith(f"{tmp_path / 'wos' / split}.jsonl:")
    for part in expected:
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("splits", [{}, {"train": [], "val": []}, {"train": [], "dev": [], "test": []}])
def test_splits_of_other_names_are_refused(
    splits: dict[str, Any], tmp_path: Path, taxonomy: Taxonomy
) -> None:
    with pytest.raises(DataError, match="wos: the splits must be"):
        write_dataset(tmp_path / "wos", Conversion(taxonomy, splits, {}), converter="wos")


@pytest.mark.parametrize("value", [float("nan"), Path("raw"), {1, 2}])
def test_options_that_json_cannot_hold_are_refused_before_documents_are_read(
    value: object, tmp_path: Path, conversion: Make
) -> None:
    def documents() -> Iterator[Document]:
        raise AssertionError("a document was asked for")
        yield

    with pytest.raises(DataError, match="wos: options and sources must be plain JSON"):
        write_dataset(
            tmp_path / "wos", conversion({"train": documents()}, options={"a": value}), converter="wos"
        )


def test_a_failed_conversion_keeps_the_dataset_that_was_there(tmp_path: Path, conversion: Make) -> None:
    target = tmp_path / "wos"
    write_dataset(target, conversion(), converter="wos")
    before = content(target)

    def documents(error: Exception) -> Iterator[Document]:
        yield bad()
        raise error

    with pytest.raises(KeyError):
        write_dataset(target, conversion({"test": documents(KeyError())}), converter="wos")
    full = OSError(28, "No space left on device")
    with pytest.raises(DataError, match=r"wos: No space left on device; nothing was written"):
        write_dataset(target, conversion({"test": documents(full)}), converter="wos")
    assert content(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["wos"]


def test_an_older_dataset_is_replaced_also_behind_a_link(tmp_path: Path, conversion: Make) -> None:
    real, link = tmp_path / "scratch" / "x17", tmp_path / "data" / "wos"
    link.parent.mkdir()
    link.symlink_to(real, target_is_directory=True)
    for text in ("old", "new"):
        made = conversion({"test": [bad(text=text)]})
        assert write_dataset(link, made, converter="wos")["name"] == "wos"
        assert link.is_symlink()
        assert [document.text for document in open_prepared(link).documents("test")] == [text]
    assert [path.name for path in real.parent.iterdir()] == ["x17"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["notes.txt"], "holds notes.txt, not a prepared dataset's"),
        ([*FILES, "manifest.json", "raw.zip"], "holds raw.zip"),
        ([*FILES], "has no manifest.json, so it was made or edited by hand"),
    ],
)
def test_files_of_the_user_are_never_replaced(
    files: list[str], expected: str, tmp_path: Path, conversion: Make
) -> None:
    for name in files:
        (tmp_path / name).write_text("mine")
    with pytest.raises(DataError, match=expected):
        write_dataset(tmp_path, conversion(), converter="wos")
    assert content(tmp_path) == dict.fromkeys(files, b"mine")


def test_a_file_in_the_way_is_refused(tmp_path: Path, conversion: Make) -> None:
    (tmp_path / "wos").write_text("mine")
    with pytest.raises(DataError, match="a file lies where the dataset's folder should be"):
        write_dataset(tmp_path / "wos", conversion(), converter="wos")
    with pytest.raises(DataError, match=r"Not a directory|File exists"):
        write_dataset(tmp_path / "wos" / "sub", conversion(), converter="wos")
    assert (tmp_path / "wos").read_text() == "mine"


# --- splits


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=4), max_size=60),
    st.integers(0, 3),
    st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.9, 0.0, 0.1)]),
)
def test_every_label_and_no_unlabelled_document_is_trained_on(
    labels: list[list[str]], seed: int, shares: tuple[float, float, float]
) -> None:
    found = assign_splits(labels, seed=seed, shares=shares)
    assert len(found) == len(labels)
    assert found == assign_splits([tuple(document) for document in labels], seed=seed, shares=shares)
    train = [document for document, split in zip(labels, found, strict=True) if split == "train"]
    assert all(train)
    assert {label for document in train for label in document} == {x for document in labels for x in document}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200), st.integers(0, 5))
def test_shares_are_exact_where_nothing_forces_them(n: int, seed: int) -> None:
    found = assign_splits([["a"]] * n, seed=seed)
    held_out = max(round(n / 10), 1) if n >= 3 else 0
    assert found.count("val") == found.count("test") == held_out
    assert found.count("train") == n - 2 * held_out


def test_rare_labels_go_to_training_first_and_shares_stay_exact() -> None:
    source = random.Random(5)
    labels = [["common", f"topic {source.randrange(40)}"] for _ in range(950)]
    labels += [["common", f"alone {n}"] for n in range(50)]
    for seed in range(3):
        found = assign_splits(labels, seed=seed)
        assert set(found[950:]) == {"train"}
        assert [found.count(split) for split in SPLITS] == [800, 100, 100]


def test_documents_without_labels_are_spread_over_val_and_test() -> None:
    found = assign_splits([["a"], ["a"], ["a"], ["a"], []] * 200, seed=1)
    assert [found.count(split) for split in SPLITS] == [800, 100, 100]
    assert 70 < found[4::5].count("val") < 130


def test_coverage_comes_before_shares() -> None:
    found = assign_splits([[str(n)] for n in range(20)], seed=1)
    assert found == ["train"] * 20


def test_the_draw_is_the_same_on_every_machine() -> None:
    labels = [[str(n % 3)] for n in range(30)]
    found = assign_splits(labels, seed=7)
    assert [n for n, split in enumerate(found) if split == "val"] == [1, 4, 29]
    assert [n for n, split in enumerate(found) if split == "test"] == [9, 13, 18]
    assert found != assign_splits(labels, seed=8)


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.2), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1), (80, 10, 10)])
def test_shares_that_do_not_add_up_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(DataError, match="expected three that add up to 1"):
        assign_splits([["a"]], seed=1, shares=shares)
