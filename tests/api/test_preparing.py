"""Datasets from tables in memory are those from files of the same records."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from customs import documents, jsonl, prepared, write

import datasets
from hblm import api
from hblm.data.dataset import open_prepared
from hblm.errors import ConfigError, DataError

ENDS = [("Science", "Physics"), ("Science", "Life sciences"), ("Arts", "Music")]
RECORDS = [
    {"text": f"text {at}", "labels": [list(ENDS[at % 3])] + [["Arts"]] * (at % 4 == 0)} for at in range(24)
]


def as_frame(records):
    return pd.DataFrame(records)


def as_tuples(records):
    return [{**record, "labels": [tuple(path) for path in record["labels"]]} for record in records]


def as_arrays(records):
    frame = pd.DataFrame(records)
    frame["labels"] = [np.array(["/".join(path) for path in paths]) for paths in frame["labels"]]
    return frame


FORMS = {
    "frame": as_frame,
    "records": list,
    "tuples": as_tuples,
    "generator": iter,
    "dataset": datasets.Dataset.from_list,
    "arrays": as_arrays,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_table_in_memory_gives_the_documents_of_a_file(form):
    expected = documents(prepared(write({"raw.jsonl": jsonl(RECORDS)})))
    options = {"separator": "/"} if form == "arrays" else {}
    made = api.prepare(FORMS[form](RECORDS), name="made", encoder="tiny", **options)
    assert documents(open_prepared(made.path)) == expected
    assert (made.name, made.is_new, sum(made.documents.values())) == ("made", True, 24)
    assert {node.name for node in made.taxonomy.nodes} == {
        "Science",
        "Physics",
        "Life sciences",
        "Arts",
        "Music",
    }
    assert "made" in made.report
    (source,) = json.loads((made.path / "manifest.json").read_text())["sources"]
    assert source["name"].endswith(" of 24 rows.jsonl")
    assert len(source["sha256"]) == 64


def test_splits_classes_and_columns_of_a_dataset_dict():
    features = datasets.Features(
        {"body": datasets.Value("string"), "topic": datasets.ClassLabel(names=["Physics", "Music"])}
    )

    def part(count):
        rows = {"body": [f"text {at}" for at in range(count)], "topic": [at % 2 for at in range(count)]}
        return datasets.Dataset.from_dict(rows, features=features)

    splits = datasets.DatasetDict(train=part(8), validation=part(4), test=part(3))
    made = api.prepare(splits, path="here", text="body", labels="topic", separator="none", encoder="tiny")
    assert made.documents == {"train": 8, "val": 4, "test": 3}
    assert {node.name for node in made.taxonomy.nodes} == {"Physics", "Music"}
    with pytest.raises(DataError, match="'unsupervised' is none of train, val and test"):
        api.prepare({"train": part(3), "unsupervised": part(3)}, name="other", encoder="tiny")


def test_missing_values_of_pandas_and_levels_of_a_frame():
    frame = pd.DataFrame(
        {
            "text": [f"text {at}" for at in range(12)],
            "top": ["A", "B"] * 6,
            "sub": [["A1", None][at % 4 == 0] if at % 2 == 0 else pd.NA for at in range(12)],
        }
    )
    made = api.prepare(frame, name="levels", levels=["top", "sub"], encoder="tiny")
    assert [node.name for node in made.taxonomy.nodes] == ["A", "B", "A1"]


def test_a_folder_is_there_already_and_belongs_to_its_table():
    made = api.prepare(as_frame(RECORDS), name="made", encoder="tiny")
    again = api.prepare(as_frame(RECORDS), name="made", encoder="tiny")
    assert (again.is_new, again.path, again.documents) == (False, made.path, made.documents)
    with pytest.raises(DataError, match="made of another DataFrame of 24 rows"):
        api.prepare(as_frame(RECORDS[:20]), name="made", encoder="tiny")
    assert api.prepare(as_frame(RECORDS[:20]), name="made", encoder="tiny", force=True).is_new


def test_files_and_options_as_on_the_command_line():
    raw = write({"raw.jsonl": jsonl(RECORDS)})
    expected = documents(prepared(raw, name="one", shares=[0.5, 0.25, 0.25]))
    made = api.prepare(raw, "encoder=tiny", name="two", shares=[0.5, 0.25, 0.25])
    assert documents(open_prepared(made.path)) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ConfigError, "a table in memory needs name=NAME"),
        ({"name": "x", "colour": "red"}, ConfigError, "dataset.prepare.colour is not an option"),
        ({"name": "x", "labels": "lables"}, ConfigError, r"no column; did you mean labels\? \(DataFrame of"),
        ({"name": "x", "encoder": "huge", "force": "maybe"}, ConfigError, "(?s)encoder=huge.*force=maybe"),
        ({"name": "a/b"}, ConfigError, "cannot name a file"),
    ],
)
def test_faults_of_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        api.prepare(as_frame(RECORDS), **{"encoder": "tiny", **arguments})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([{"text": "a", "labels": "A"}, {"text": 3.5, "labels": "B"}], "list of 2 rows: row 2: text must be"),
        ([{"text": "a", "labels": "A"}, 7], "row 2 is 7; expected a DataFrame"),
        ([{"text": b"a", "labels": "A"}], "text must be a text, found {'bytes': 1}"),
        ([], "list has no rows"),
        ({}, "an empty mapping"),
        (7, "7 is a int; expected a DataFrame"),
        ({"train": [{"text": "a", "labels": "A"}], "training": []}, "two of these are one split"),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "two have the same name"),
    ],
)
def test_faults_of_tables_name_the_row(table, message):
    with pytest.raises(DataError, match=message) as raised:
        api.prepare(table, name="x", encoder="tiny", id="none")
    assert "/tmp" not in str(raised.value)
