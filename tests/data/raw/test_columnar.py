"""Columnar files: class names in every form of the metadata, and columns that are not read."""

from __future__ import annotations

import decimal
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from raws import file_of

import datasets
from hblm.data.raw.columnar import named, open_parquet, open_saved
from hblm.errors import DataError

NAMES = ["World", "Sport", "Business"]
CLASS = {"names": NAMES, "_type": "ClassLabel"}
TEXT = {"dtype": "string", "_type": "Value"}


def parquet(table: pyarrow.Table, features: Any = None) -> bytes:
    """Return a Parquet file with the features that datasets would have written into its schema."""
    sink = io.BytesIO()
    metadata = json.dumps({"info": {"features": features}}) if features else "{}"
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": metadata}), sink)
    return sink.getvalue()


def labels(data: bytes) -> list[Any]:
    _, records = open_parquet(file_of(data, "x.parquet"))
    return [record["label"] for _, record in records(["label"])]


# how a class, lists of classes and objects of classes are described -> values, and what they mean
FEATURES: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "a class": (CLASS, [0, 2, -1, None], ["World", "Business", None, None]),
    "a list, datasets 2": ([CLASS], [[0, 2], [], [-1]], [["World", "Business"], [], [None]]),
    "a Sequence": (
        {"feature": CLASS, "length": -1, "_type": "Sequence"},
        [[1], None, [0, 1]],
        [["Sport"], None, ["World", "Sport"]],
    ),
    "a List, datasets 4": ({"feature": CLASS, "length": -1, "_type": "List"}, [[1]], [["Sport"]]),
    "a LargeList": ({"feature": CLASS, "_type": "LargeList"}, [[1, 2]], [["Sport", "Business"]]),
    "a list of lists": ([[CLASS]], [[[1], [0, 2]]], [[["Sport"], ["World", "Business"]]]),
    "a list of objects, datasets 2": (
        [{"a": CLASS, "b": TEXT}],
        [[{"a": 1, "b": "x"}]],
        [[{"a": "Sport", "b": "x"}]],
    ),
    "an object of lists": (
        {"feature": {"a": CLASS}, "_type": "Sequence"},
        [{"a": [2, 0]}],
        [{"a": ["Business", "World"]}],
    ),
    "an object": ({"a": CLASS}, [{"a": 1}], [{"a": "Sport"}]),
    "a class without names": ({"names": None, "_type": "ClassLabel"}, [1], [1]),
    "no class": ({"dtype": "int64", "_type": "Value"}, [1, -1], [1, -1]),
    "something of a later version": ({"_type": "Later", "feature": 3}, [1, 7], [1, 7]),
}


@pytest.mark.parametrize("kind", FEATURES)
def test_class_numbers_become_names(kind: str) -> None:
    feature, values, expected = FEATURES[kind]
    assert [named(feature, value, "x") for value in values] == expected


@pytest.mark.parametrize("kind", ["a class", "a Sequence"])
def test_class_numbers_of_a_file_become_names(kind: str) -> None:
    feature, values, expected = FEATURES[kind]
    table = pyarrow.table({"text": ["t"] * len(values), "label": values})
    assert labels(parquet(table, {"text": TEXT, "label": feature})) == expected


@pytest.mark.parametrize(("value", "in_a_list"), [(3, False), (-2, False), (99, True)])
def test_a_class_without_a_name_is_refused(value: int, in_a_list: bool) -> None:
    table = pyarrow.table({"label": [[0], [value]] if in_a_list else [0, value]})
    with pytest.raises(
        DataError, match=rf"x\.parquet: row 2: label is class {value}, and .* 0 to 2 \(World, "
    ):
        labels(parquet(table, {"label": [CLASS] if in_a_list else CLASS}))


class Unknown(pyarrow.ExtensionType):
    """A type that only this test knows."""

    def __init__(self) -> None:
        super().__init__(pyarrow.list_(pyarrow.int32()), "tests.unknown")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> Unknown:
        return cls()


OTHERS: dict[str, Callable[[], Any]] = {
    "objects": lambda: pyarrow.array([[{"a": "x"}], []]),
    "a map": lambda: pyarrow.array([[("a", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    "decimals": lambda: pyarrow.array([decimal.Decimal("1.5"), None]),
    "bytes that are no text": lambda: pyarrow.array([b"\xff", b""]),
    "text that is none": lambda: pyarrow.array([b"\xff", b""]).cast(pyarrow.binary()).view(pyarrow.string()),
    "a dictionary": lambda: pyarrow.array(["a", "b"]).dictionary_encode(),
    "years that Python has not": lambda: pyarrow.array([2**50, 0], pyarrow.timestamp("s")),
    "an extension": lambda: pyarrow.ExtensionArray.from_storage(
        Unknown(), pyarrow.array([[1], [2]], pyarrow.list_(pyarrow.int32()))
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_column_that_is_not_read_does_no_harm(kind: str) -> None:
    table = pyarrow.table({"text": ["t", "u"], "other": OTHERS[kind](), "label": [0, 1]})
    data = parquet(table, {"text": TEXT, "other": [{"a": TEXT}, 7], "label": CLASS})
    columns, records = open_parquet(file_of(data, "x.parquet"))
    assert list(columns) == ["text", "other", "label"]
    assert list(records(["label", "text"])) == [
        (1, {"text": "t", "label": "World"}),
        (2, {"text": "u", "label": "Sport"}),
    ]


def test_a_saved_column_that_is_not_read_does_no_harm(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "image": datasets.Image(),
            "entities": [{"a": datasets.Value("string")}],
            "label": datasets.ClassLabel(names=NAMES),
        }
    )
    datasets.disable_progress_bars()
    rows = [{"text": "t", "image": {"bytes": b"none", "path": None}, "entities": [{"a": "x"}], "label": 1}]
    made = datasets.Dataset.from_list(rows, features=features)
    made.with_format("numpy").save_to_disk(tmp_path / "saved")  # the format comes back with the folder
    ((name, columns, records),) = open_saved(tmp_path / "saved")
    assert (name, list(columns)) == ("", ["text", "image", "entities", "label"])
    assert list(records(["text", "label"])) == [(1, {"text": "t", "label": "Sport"})]
