"""Documents between raw files and splits: unique ids, their places, texts on disk and not in memory."""

from __future__ import annotations

import gc
import tracemalloc
import warnings
from pathlib import Path

import pytest

from hblm.data.convert import document_buffer as module
from hblm.data.convert.document_buffer import DocumentBuffer, text_digest
from hblm.document import SPLITS, Document
from hblm.errors import DataError


@pytest.fixture
def buffer(tmp_path: Path) -> DocumentBuffer:
    """Return an empty buffer."""
    return DocumentBuffer(tmp_path)


def add(
    buffer: DocumentBuffer,
    identity: str,
    text: str = "a text",
    split: str = "",
    labels: tuple[str, ...] = (),
) -> None:
    """Add a document at the next line of a file."""
    buffer.add(identity, text, labels, split, "x.csv:", len(buffer) + 1)


def test_documents_come_back_by_split_in_the_order_in_which_they_were_added(
    buffer: DocumentBuffer,
) -> None:
    texts = ["b", "", "a\nb\r\u2028c", 'é "q" \\ 😀', "\0\ufeff", "b"]
    splits = ["test", "train", "val", "train", "test", "train"]
    for number, text in enumerate(texts):
        add(buffer, f"id {number}", text)
    labels = [(f"node {number}",) for number in range(len(texts))]
    found = {split: list(documents) for split, documents in buffer.documents(labels, splits).items()}
    assert list(found) == list(SPLITS)
    for split, documents in found.items():
        assert documents == [
            Document(f"id {at}", texts[at], labels[at]) for at in range(len(texts)) if splits[at] == split
        ]


def test_a_split_without_documents_is_empty(buffer: DocumentBuffer) -> None:
    add(buffer, "1")
    found = buffer.documents([("a",)], ["train"])
    assert [len(list(found[split])) for split in SPLITS] == [1, 0, 0]


def test_what_was_added_is_remembered(buffer: DocumentBuffer) -> None:
    for number, (text, labels, split) in enumerate(
        [("x", ("a", "b"), "train"), ("y", ("a",), ""), ("x", ("a", "b"), "test")]
    ):
        add(buffer, str(number), text, split, tuple(labels))
    assert len(buffer) == 3
    assert buffer.labels == [("a", "b"), ("a",), ("a", "b")]
    assert buffer.splits == ["train", "", "test"]
    assert buffer.digests[0] == buffer.digests[2] != buffer.digests[1]
    assert [buffer.has(identity) for identity in ("0", "2", "3", "")] == [True, True, False, False]


def test_equal_labels_are_kept_once(buffer: DocumentBuffer) -> None:
    for number in range(3):
        add(buffer, str(number), labels=tuple(f"label {sign}" for sign in "ab"))
    assert buffer.labels[0] is buffer.labels[1] is buffer.labels[2]


def test_places_are_those_of_the_raw_files(buffer: DocumentBuffer) -> None:
    places = [("train.csv:", 2), ("a.parquet: row ", 0), ("train.csv:", (1 << 40) - 1), ("z.zip:a/b:", 7)]
    for number, (file, line) in enumerate(places):
        buffer.add(str(number), "", (), "", file, line)
    assert [buffer.place(at) for at in range(4)] == [
        "train.csv:2",
        "a.parquet: row 0",
        "train.csv:1099511627775",
        "z.zip:a/b:7",
    ]


@pytest.mark.parametrize("other", ["train", "test"])
def test_an_id_that_is_there_twice_is_named_with_both_places(other: str, buffer: DocumentBuffer) -> None:
    buffer.add("a 7", "x", (), "train", "train.csv:", 12)
    buffer.add("b", "x", (), "train", "train.csv:", 13)
    with pytest.raises(DataError) as caught:
        buffer.add("a 7", "another", (), other, f"{other}.csv:", 30)
    assert str(caught.value).startswith(f"{other}.csv:30: the id 'a 7' is also that of train.csv:12; ")
    assert len(buffer) == 2


def test_a_long_id_makes_no_long_message(buffer: DocumentBuffer) -> None:
    add(buffer, "x" * 10_000)
    with pytest.raises(DataError) as caught:
        add(buffer, "x" * 10_000)
    assert len(str(caught.value)) < 300


def test_ids_that_only_look_alike_are_two(buffer: DocumentBuffer) -> None:
    for identity in ("1", "01", "1 ", "A", "a", "é", "e\u0301"):
        add(buffer, identity)
    assert len(buffer) == 7


@pytest.mark.parametrize(
    ("identity", "text", "expected"),
    [
        ("a", "ab\ud800c", "document 'a': text holds a lone surrogate at character 2"),
        ("a\udcff", "text", "id holds a lone surrogate at character 1"),
    ],
)
def test_a_lone_surrogate_is_refused_with_its_place(
    identity: str, text: str, expected: str, buffer: DocumentBuffer
) -> None:
    with pytest.raises(DataError) as caught:
        buffer.add(identity, text, (), "", "x.jsonl:", 9)
    assert str(caught.value).startswith("x.jsonl:9, document ")
    assert expected in str(caught.value)


def test_texts_stay_on_disk(tmp_path: Path) -> None:
    text = "word " * 4000
    tracemalloc.start()
    try:
        buffer = DocumentBuffer(tmp_path)
        for number in range(1000):  # 20 MB
            add(buffer, str(number), f"{text}{number}", labels=("a", "b"))
        found = buffer.documents(buffer.labels, ["train", "test"] * 500)
        assert sum(len(document.text) for split in SPLITS for document in found[split]) > 20_000_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 20_000_000
    assert peak < 2_000_000


def test_a_buffer_that_is_given_up_leaves_nothing_open(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        buffer = DocumentBuffer(tmp_path)
        add(buffer, "1")
        with pytest.raises(DataError):
            add(buffer, "1")
        del buffer
        gc.collect(1)
    assert [str(warning.message) for warning in caught] == []


def test_digests_tell_texts_apart() -> None:
    texts = ["", " ", "a", "A", "é", "e\u0301", "a\n", "a\ud800", *map(str, range(1000))]
    digests = {text_digest(text) for text in texts}
    assert len(digests) == len(texts)
    assert all(0 <= digest < 1 << 64 for digest in digests)
    assert text_digest("a") == 0x40F89E395B66422F


# --- which document, and in another order


def test_a_document_is_found_by_its_id(buffer: DocumentBuffer) -> None:
    for identity in ("b", "a", "", "10", "1"):
        add(buffer, identity)
    assert [buffer.at(identity) for identity in ("b", "a", "", "10", "1")] == [0, 1, 2, 3, 4]
    assert buffer.ids == ["b", "a", "", "10", "1"]
    with pytest.raises(KeyError):
        buffer.at("c")


def test_a_refused_document_changes_nothing(buffer: DocumentBuffer) -> None:
    add(buffer, "a", "one")
    for identity, text in (("a", "two"), ("b", "\ud800")):
        with pytest.raises(DataError):
            add(buffer, identity, text)
    add(buffer, "c", "three")
    assert [buffer.at(identity) for identity in ("a", "c")] == [0, 1]
    assert list(buffer.documents([(), ()], ["test"] * 2)["test"]) == [
        Document("a", "one", ()),
        Document("c", "three", ()),
    ]


TEXTS = ["", "é\u2028", "a\nb", "😀" * 1000, "x", "\0", "日本", "last"]


@pytest.mark.parametrize(
    "order",
    [[7, 6, 5, 4, 3, 2, 1, 0], [3, 0, 7, 1, 5, 2, 4, 6], list(range(8)), [5, 6, 2, 3], [4], []],
    ids=str,
)
def test_documents_come_back_in_the_order_that_is_asked_for(order: list[int], buffer: DocumentBuffer) -> None:
    for number, text in enumerate(TEXTS):
        add(buffer, f"id {number}", text)
    labels = [(f"node {number}",) for number in range(8)]
    splits = ["train", "test", "train", "val", "", "train", "test", "val"]
    found = {split: list(documents) for split, documents in buffer.documents(labels, splits, order).items()}
    assert found == {
        split: [Document(f"id {at}", TEXTS[at], labels[at]) for at in order if splits[at] == split]
        for split in SPLITS
    }


def test_an_order_may_be_that_of_ids(buffer: DocumentBuffer) -> None:
    for number in (30, 4, 100):
        add(buffer, str(number), f"text {number}")
    order = [buffer.at(str(number)) for number in sorted([30, 4, 100])]
    found = buffer.documents([()] * 3, ["test"] * 3, order)["test"]
    assert [document.text for document in found] == ["text 4", "text 30", "text 100"]


def test_no_order_is_the_order_of_addition(buffer: DocumentBuffer) -> None:
    for number in range(5):
        add(buffer, str(number))
    one, other = (
        [document.id for document in buffer.documents([()] * 5, ["val"] * 5, order)["val"]]
        for order in (None, range(5))
    )
    assert one == other == list("01234")


def test_splits_may_be_read_by_turns(buffer: DocumentBuffer) -> None:
    for number in range(6):
        add(buffer, str(number), f"text {number}")
    found = buffer.documents([()] * 6, ["train", "test"] * 3, [5, 4, 3, 2, 1, 0])
    pairs = list(zip(found["train"], found["test"], strict=True))
    assert [(one.text, other.text) for one, other in pairs] == [
        ("text 4", "text 5"),
        ("text 2", "text 3"),
        ("text 0", "text 1"),
    ]


def test_texts_above_what_is_written_at_once_come_back_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 100)
    buffer = DocumentBuffer(tmp_path)
    for number in range(50):
        add(buffer, str(number), f"é{number}" * number)
    order = [(number * 7) % 50 for number in range(50)]
    found = buffer.documents([()] * 50, ["test"] * 50, order)["test"]
    assert [document.text for document in found] == [f"é{number}" * number for number in order]


def test_a_buffer_begins_empty_where_another_one_was(tmp_path: Path) -> None:
    add_to = DocumentBuffer(tmp_path)
    add(add_to, "old", "x" * 100)
    list(add_to.documents([()], ["test"])["test"])
    buffer = DocumentBuffer(tmp_path)
    add(buffer, "new", "y")
    assert list(buffer.documents([()], ["test"])["test"]) == [Document("new", "y", ())]


def test_what_helps_against_repeated_ids_may_be_told(tmp_path: Path) -> None:
    buffer = DocumentBuffer(tmp_path, "; keep one of them")
    add(buffer, "a")
    with pytest.raises(DataError, match=r"across splits as well; keep one of them$"):
        add(buffer, "a")


def test_documents_that_repeat_without_end_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REPEATING", 200)

    def add(texts: int) -> None:
        buffer = DocumentBuffer(tmp_path)
        for at in range(1000):
            buffer.add(str(at), f"text {at % texts}", (), "", "x:", at)

    add(100)
    with pytest.raises(DataError, match="x:199: 200 documents so far, and only 1 different texts"):
        add(1)
