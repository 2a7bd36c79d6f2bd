"""Splits drawn where the raw data has none: equal texts stay together; those of papers are drawn again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from hblm.data.convert.document_buffer import DocumentBuffer
from hblm.data.convert.splits import assign_splits, fill_splits, held_out, require_shares
from hblm.document import SPLITS
from hblm.errors import ConfigError, DataError

SHARES = [(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.9, 0.0, 0.1), (0.9, 0.1, 0.0)]
LABELS = st.lists(st.sampled_from("abcdefgh"), max_size=3)


def sizes(splits: Sequence[str]) -> list[int]:
    """Return the number of documents in train, val and test."""
    return [splits.count(split) for split in SPLITS]


# --- equal texts


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(LABELS, st.integers(0, 12)), max_size=40), st.integers(0, 3), st.sampled_from(SHARES)
)
def test_equal_texts_stand_in_one_split(
    documents: list[tuple[list[str], int]], seed: int, shares: tuple[float, float, float]
) -> None:
    labels, texts = [pair[0] for pair in documents], [pair[1] for pair in documents]
    found = assign_splits(labels, seed=seed, shares=shares, texts=texts)
    assert len(set(zip(texts, found, strict=True))) == len(set(texts))
    assert all(labels[at] for at, split in enumerate(found) if split == "train")
    for split, share in zip(SPLITS, shares, strict=True):
        assert share or split not in found or len(set(texts)) < 3
    assert found == assign_splits(
        [tuple(each) for each in labels], seed=seed, shares=shares, texts=tuple(texts)
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3), st.integers(0, 12)),
        max_size=40,
    ),
    st.integers(0, 3),
)
def test_every_label_is_trained_on_where_no_document_is_without(
    documents: list[tuple[list[str], int]], seed: int
) -> None:
    labels, texts = [pair[0] for pair in documents], [pair[1] for pair in documents]
    found = assign_splits(labels, seed=seed, texts=texts)
    trained = {label for at, split in enumerate(found) if split == "train" for label in labels[at]}
    assert trained == {label for document in labels for label in document}


@pytest.mark.parametrize("shares", SHARES[2:])
@pytest.mark.parametrize("labels", [[[]], [[], ["a"]], [["a"], ["a"]]])
def test_a_split_without_a_share_gets_none_of_few_documents(
    labels: list[list[str]], shares: tuple[float, float, float]
) -> None:
    found = assign_splits(labels, seed=1, shares=shares)
    assert not any(split in found for split, share in zip(SPLITS, shares, strict=True) if not share)


@settings(max_examples=40, deadline=None)
@given(st.lists(LABELS, max_size=40), st.integers(0, 3), st.sampled_from(SHARES))
def test_texts_that_all_differ_change_nothing(
    labels: list[list[str]], seed: int, shares: tuple[float, float, float]
) -> None:
    texts = [hash(("text", at)) for at in range(len(labels))]
    found = assign_splits(labels, seed=seed, shares=shares)
    assert assign_splits(labels, seed=seed, shares=shares, texts=texts) == found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=40), st.integers(0, 3))
def test_only_which_texts_are_equal_counts_not_their_hashes(texts: list[int], seed: int) -> None:
    labels = [["a"]] * len(texts)
    found = assign_splits(labels, seed=seed, texts=texts)
    assert assign_splits(labels, seed=seed, texts=[1 << 63 | 99 - text for text in texts]) == found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=3, max_size=60), st.integers(0, 5), st.sampled_from(SHARES[:2]))
def test_sizes_are_off_by_less_than_a_text_has_documents(
    repeats: list[int], seed: int, shares: tuple[float, float, float]
) -> None:
    texts = [number for number, times in enumerate(repeats) for _ in range(times)]
    found = assign_splits([["a"]] * len(texts), seed=seed, shares=shares, texts=texts)
    wanted = [max(round(len(texts) * share), 1) for share in shares[1:]]
    wanted.insert(0, len(texts) - sum(wanted))
    for size, goal in zip(sizes(found), wanted, strict=True):
        assert abs(size - goal) <= 2 * max(repeats)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=3, max_size=30), st.integers(0, 5))
def test_every_split_gets_a_text_where_no_rule_forbids_it(repeats: list[int], seed: int) -> None:
    texts = [number for number, times in enumerate(repeats) for _ in range(times)]
    found = assign_splits([["a"]] * len(texts), seed=seed, texts=texts)
    assert min(sizes(found)) > 0


def test_many_pairs_of_equal_texts_leave_the_shares_as_they_are() -> None:
    source = random.Random(2)
    texts = [number // 2 for number in range(2000)]
    source.shuffle(texts)
    labels = [[f"topic {text % 30}"] for text in texts]
    for seed in range(3):
        for size, goal in zip(
            sizes(assign_splits(labels, seed=seed, texts=texts)), (1600, 200, 200), strict=True
        ):
            assert abs(size - goal) <= 2


def test_a_text_that_is_once_without_labels_is_never_trained_on() -> None:
    labels = [["a"], [], ["a"], ["a"], ["a"]] * 20
    texts = [0, 0, *range(1, 99)]
    for seed in range(5):
        found = assign_splits(labels, seed=seed, texts=texts)
        assert found[0] == found[1] != "train"


def test_the_draw_with_equal_texts_is_the_same_on_every_machine() -> None:
    found = assign_splits([[str(n % 3)] for n in range(30)], seed=7, texts=[n // 2 for n in range(30)])
    assert [n for n, split in enumerate(found) if split == "val"] == [4, 5, 8, 9]
    assert [n for n, split in enumerate(found) if split == "test"] == [16, 17]


# --- named splits


@pytest.fixture
def buffered(tmp_path: Path) -> Callable[..., DocumentBuffer]:
    """Return a maker of buffers of documents whose splits, and texts, are given."""

    def make(splits: Sequence[str], texts: Sequence[str] = ()) -> DocumentBuffer:
        buffer = DocumentBuffer(tmp_path)
        for at, split in enumerate(splits):
            text = texts[at] if texts else f"text {at}"
            buffer.add(str(at), text, (f"label {at % 3}",), split, "x.csv:", at + 1)
        return buffer

    return make


def filled(
    buffer: DocumentBuffer, shares: Sequence[float] = (0.5, 0.25, 0.25), seed: int = 5
) -> tuple[list[str], list[str]]:
    """Fill the splits of a buffer."""
    return fill_splits(buffer, buffer.labels, shares=shares, seed=seed)


def test_named_splits_stay_as_they_are(buffered: Callable[..., DocumentBuffer]) -> None:
    splits = ["test", "train", "val", "train"] * 5
    assert filled(buffered(splits)) == (splits, [])


# named -> splits of 100 documents, how many are in train, val and test in the end, and the note
NAMED: dict[str, tuple[list[str], list[int], str]] = {
    "none": ([""] * 100, [50, 25, 25], "the splits were drawn by seed 5"),
    "train": (["train"] * 100, [50, 25, 25], "val and test: drawn from train by seed 5"),
    "train and test": (["train"] * 90 + ["test"] * 10, [60, 30, 10], "val: drawn from train by seed 5"),
    "train and val": (["val"] * 40 + ["train"] * 60, [40, 40, 20], "test: drawn from train by seed 5"),
}


@pytest.mark.parametrize("named", NAMED)
def test_missing_splits_are_drawn_from_train(named: str, buffered: Callable[..., DocumentBuffer]) -> None:
    splits, expected, note = NAMED[named]
    buffer = buffered(splits)
    found, notes = filled(buffer)
    assert sizes(found) == expected
    assert notes == [note]
    for before, after in zip(splits, found, strict=True):
        assert before in ("", "train", after)
    assert buffer.splits == splits
    assert filled(buffer) == (found, notes)
    assert filled(buffer, seed=6)[0] != found


@pytest.mark.parametrize("named", NAMED)
def test_equal_texts_are_drawn_together(named: str, buffered: Callable[..., DocumentBuffer]) -> None:
    splits, _, _ = NAMED[named]
    texts = [f"text {at // 2}" for at in range(100)]
    found, _ = filled(buffered(splits, texts))
    assert found[::2] == found[1::2]
    assert set(found) == set(SPLITS)


def test_rare_labels_of_named_training_documents_stay_in_training(tmp_path: Path) -> None:
    buffer = DocumentBuffer(tmp_path)
    for at in range(60):
        labels = (f"rare {at}",) if at % 2 else ("often",)
        buffer.add(str(at), str(at), labels, "train", "x.csv:", at)
    found, _ = fill_splits(buffer, buffer.labels, shares=(0.6, 0.2, 0.2), seed=1)
    assert set(found[1::2]) == {"train"}
    assert sizes(found) == [36, 12, 12]


@pytest.mark.parametrize(
    ("splits", "named"),
    [(["test"] * 4, "test"), (["val"], "val"), (["val", "test"], "test, val"), (["", "test"], "test")],
)
def test_training_documents_are_never_drawn_from_others(
    splits: list[str], named: str, buffered: Callable[..., DocumentBuffer]
) -> None:
    with pytest.raises(DataError, match=f"no document for training: the splits named are {named}; "):
        filled(buffered(splits))


# --- documents held out as in papers


@pytest.mark.parametrize("seed", [0, 7, 42])
@pytest.mark.parametrize(("size", "number"), [(2, 1), (3, 1), (10, 3), (10, 9), (101, 21), (1000, 200)])
def test_those_held_out_are_those_of_scikit_learn(size: int, number: int, seed: int) -> None:
    items = [f"item {at * 7 % size}" for at in range(size)]
    expected = train_test_split(items, test_size=number, random_state=seed)
    assert list(held_out(items, number, seed)) == expected


def test_those_held_out_are_the_same_on_every_machine() -> None:
    assert held_out("abcdefghij", 3) == (list("jbghdaf"), list("cie"))  # 2 8 4 of 2 8 4 9 1 6 7 3 0 5


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(), max_size=30), st.integers(0, 30), st.integers(0, 3))
def test_every_item_is_left_or_held_out(items: list[int], number: int, seed: int) -> None:
    given_items, number = tuple(items), min(number, len(items))
    left, out = held_out(given_items, number, seed)
    assert len(out) == number
    assert sorted([*left, *out]) == sorted(items)
    assert given_items == tuple(items)
    assert held_out(given_items, number, seed) == (left, out)


def test_holding_out_none_leaves_all_and_holding_out_all_none() -> None:
    assert sorted(held_out([3, 1, 2], 0)[0]) == [1, 2, 3]
    assert held_out([3, 1, 2], 0)[1] == held_out([3, 1, 2], 3)[0] == []
    assert held_out([], 0) == ([], [])


def test_holding_out_leaves_the_generator_of_others_alone() -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].tolist()
    held_out(range(100), 20)
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before


# --- shares


@pytest.mark.parametrize("shares", [[0.8, 0.1, 0.1], [1 / 3, 1 / 3, 1 / 3], (0.98, 0.01, 0.01)])
def test_three_shares_that_add_up_pass(shares: Sequence[float]) -> None:
    require_shares(shares)


@pytest.mark.parametrize(
    "shares",
    [
        [],
        [1.0],
        [0.8, 0.2],
        [0.7, 0.1, 0.1, 0.1],
        [0.8, 0.1, 0.2],
        [80, 10, 10],
        [0.9, 0.1, 0.0],
        [0.0, 0.5, 0.5],
        [1.2, -0.1, -0.1],
        [float("nan"), 0.5, 0.5],
        [0.5, 0.5, float("nan")],
        [float("inf"), 0.5, 0.5],
    ],
)
def test_other_shares_are_refused(shares: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"dataset.prepare.shares=\[.*\]: expected three numbers above 0"):
        require_shares(shares)
