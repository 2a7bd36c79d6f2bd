"""Texts in memory: every usual container, and faults with their position."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import datasets
from hblm.errors import DataError
from hblm.inference.texts import texts_in

TEXTS = ["one", "", "zwei ü"]
FRAME = pd.DataFrame({"text": TEXTS, "other": [1, 2, 3]})
CONTAINERS = {
    "list": TEXTS,
    "tuple": tuple(TEXTS),
    "generator": iter(TEXTS),
    "series": pd.Series(TEXTS, index=[7, 8, 9]),
    "objects": pd.Series(TEXTS, dtype=object),
    "array": np.array(TEXTS),
    "array of objects": np.array(TEXTS, dtype=object),
    "frame": FRAME,
    "only column": FRAME[["text"]].rename(columns={"text": "x"}),
    "dataset": datasets.Dataset.from_pandas(FRAME),
    "column": datasets.Dataset.from_pandas(FRAME)["text"],
    "none": [],
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_the_texts_of_every_container(kind):
    texts = texts_in(CONTAINERS[kind])
    assert texts == ([] if kind == "none" else TEXTS)
    assert all(type(text) is str for text in texts)


def test_a_column_by_its_name():
    frame = FRAME.rename(columns={"text": "body"})
    assert texts_in(frame, "body") == TEXTS
    assert texts_in(datasets.Dataset.from_pandas(frame), "body") == TEXTS


FAULTS = [
    (["a", None], None, r"texts\[1\] is missing \(None\)"),
    (["a", float("nan")], None, r"texts\[1\] is missing \(nan\)"),
    (pd.Series(["a", pd.NA]), None, r"texts\[1\] is missing"),
    (FRAME, "other", r"texts\[0\] is 1, a int, not a text"),
    (["a", ["b"]], None, r"texts\[1\] is \['b'\], a list, not a text"),
    (["\ud800"], None, r"texts\[0\] holds a lone surrogate at character 0"),
    (FRAME, "txt", r"text='txt' is no column; did you mean text\?; its columns are 'text', 'other'"),
    (FRAME.rename(columns={"text": "body"}), None, "which column has the texts"),
    (TEXTS, "text", "text='text' names a column, and a list has none"),
    (np.array([TEXTS]), None, "an array of 2 dimensions"),
    ("one", None, "'one' is a str; expected a list of texts"),
    ({"text": TEXTS}, None, "is a dict; expected a list of texts"),
    ({"one"}, None, r"{'one'} is a set; expected a list of texts"),
    (7, None, "7 is a int; expected a list of texts"),
    (datasets.DatasetDict(test=datasets.Dataset.from_pandas(FRAME)), None, "a mapping of the splits test"),
]


@pytest.mark.parametrize(("given", "column", "message"), FAULTS, ids=range(len(FAULTS)))
def test_faults(given, column, message):
    with pytest.raises(DataError, match=message):
        texts_in(given, column)
