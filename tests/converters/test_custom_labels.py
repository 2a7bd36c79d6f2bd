"""Labels as people write them: the same content in every form gives the same documents, or a question."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from customs import Record, delimited, documents, jsonl, parquet, prepared, sizes, write

from hblm.errors import HblmError


def fault(files: Mapping[str, bytes], **options: Any) -> str:
    """Return what preparing says, which is one line."""
    with pytest.raises(HblmError) as caught:
        prepared(write(files), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- multi-hot lists and one-hot columns

NAMES = ["toxic", "obscene", "threat", "fine"]
MARKS = [marks for marks in itertools.product((0, 1), repeat=4) if any(marks)]


def labels_of(marks: Sequence[int]) -> frozenset[str]:
    return frozenset(name for name, mark in zip(NAMES, marks, strict=True) if mark)


def one_column(form: Callable[[Sequence[int]], Any]) -> list[Record]:
    return [{"text": f"t {at}", "labels": form(marks)} for at, marks in enumerate(MARKS)]


def columns(one: Any = 1, none: Any = 0) -> list[Record]:
    return [
        {"text": f"t {at}"} | {name: (none, one)[mark] for name, mark in zip(NAMES, marks, strict=True)}
        for at, marks in enumerate(MARKS)
    ]


def spaced(marks: Sequence[int]) -> str:
    return f"[{' '.join(map(str, marks))}]"


IN_A_LIST: dict[str, Mapping[str, bytes]] = {
    "JSON": {"x.jsonl": jsonl(one_column(list))},
    "JSON, fractions": {"x.jsonl": jsonl(one_column(lambda marks: [float(mark) for mark in marks]))},
    "JSON, booleans": {"x.jsonl": jsonl(one_column(lambda marks: [bool(mark) for mark in marks]))},
    "Parquet": {"x.parquet": parquet(one_column(list))},
    "a list as text": {"x.csv": delimited(one_column(lambda marks: str(list(marks))))},
    "booleans as text": {"x.csv": delimited(one_column(lambda marks: str(list(map(bool, marks)))))},
    "numpy": {"x.csv": delimited(one_column(spaced))},
    "numpy, fractions": {"x.csv": delimited(one_column(lambda marks: spaced([f"{m}." for m in marks])))},  # type: ignore[misc]
    "numpy, booleans": {"x.csv": delimited(one_column(lambda marks: spaced([bool(m) for m in marks])))},
    "blanks": {"x.csv": delimited(one_column(lambda marks: " ".join(map(str, marks))))},
    "commas": {"x.csv": delimited(one_column(lambda marks: ",".join(map(str, marks))))},
}
IN_COLUMNS: dict[str, Mapping[str, bytes]] = {
    "0 and 1": {"x.csv": delimited(columns())},
    "numbers": {"x.jsonl": jsonl(columns())},
    "fractions": {"x.csv": delimited(columns("1.0", "0.0"))},
    "booleans": {"x.parquet": parquet(columns(True, False))},
    "words": {"x.csv": delimited(columns("True", "False"))},
    "capitals": {"x.csv": delimited(columns("TRUE", "FALSE"))},
}
FORMS = IN_A_LIST | {f"columns, {form}": files for form, files in IN_COLUMNS.items()}


def options_of(form: str) -> dict[str, Any]:
    return {"labels": NAMES if form.startswith("columns") else "labels"}


@pytest.mark.parametrize(("form", "split"), [*((form, False) for form in FORMS), ("JSON", True)])
def test_marks_without_names_are_refused(form: str, split: bool) -> None:
    files = {"train": FORMS[form], "test": FORMS[form]}
    (name,) = FORMS[form]
    content = {f"{word}.{name[2:]}": files[word][name] for word in files} if split else FORMS[form]
    message = fault(content, separator="none", **options_of(form))
    for way in ("label_names=FILE", "=columns"):
        assert way in message


NAMED_BY: dict[str, Any] = {"a list": NAMES, "lines": "names.txt", "JSON": "names.json", "columns": "columns"}


@pytest.mark.parametrize(
    ("form", "by"),
    [
        *((form, "a list") for form in IN_A_LIST),
        *((form, "columns") for form in FORMS if form not in IN_A_LIST),
        *(("commas", by) for by in ("lines", "JSON")),
        ("columns, words", "lines"),
    ],
)
def test_marks_are_read_by_their_names(form: str, by: str) -> None:
    expected = {f"t {at}": labels_of(marks) for at, marks in enumerate(MARKS)}
    write({"names.txt": "\n".join(NAMES).encode() + b"\n", "names.json": json.dumps(NAMES).encode()}, ".")
    raw = write(FORMS[form])
    found = prepared(raw, separator="none", label_names=NAMED_BY[by], **options_of(form))
    texts = {
        text: frozenset(name for path in paths for name in path)
        for _, text, paths in documents(found).values()
    }
    assert texts == expected


def test_names_of_marks_may_be_paths_and_lie_beside_the_data() -> None:
    paths = ["rude/toxic", "rude/obscene, vile", "threat", "fine"]
    raw = write({"x.csv": delimited(one_column(list)), "names.json": json.dumps(paths).encode()})
    found = prepared(raw, label_names="names.json")
    assert {node.name: node.parent for node in found.taxonomy.nodes} == {
        "rude": None,
        "toxic": "rude",
        "obscene, vile": "rude",
        "threat": None,
        "fine": None,
    }


def test_a_position_that_no_document_has_is_a_node() -> None:
    records = [{"text": f"t{at}", "labels": [at % 2, 1, 0]} for at in range(9)]
    found = prepared(write({"x.jsonl": jsonl(records)}), label_names=["a", "b", "c"], separator="none")
    assert [node.id for node in found.taxonomy.nodes] == ["a", "b", "c"]


@pytest.mark.parametrize("nothing", ["[0, 0, 0]", "[-1, -1, -1]", ""])
def test_marks_of_nothing_are_documents_without_labels(nothing: str) -> None:
    records = [{"text": f"t{at}", "labels": f"[1, {at % 2}, {at % 3 % 2}]"} for at in range(9)]
    raw = write({"x.csv": delimited([*records, {"text": "last", "labels": nothing}])})
    names = {"label_names": ["a", "b", "c"], "separator": "none"}
    assert sum(sizes(prepared(raw, "dropped", unlabelled="drop", **names))) == 9
    assert sum(sizes(prepared(raw, "kept", unlabelled="keep", **names))) == 10
    with pytest.raises(HblmError, match=r"x\.csv:11: no label"):
        prepared(raw, "refused", **names)


PLAIN: dict[str, list[Any]] = {
    "one column of two classes": [0, 1] * 5,
    "lists of one": [[0], [1]] * 5,
    "lists of two lengths": [[0], [1], [0, 1]] * 4,
    "other numbers as well": [[0, 1], [1, 0], [1, 7]] * 4,
}


@pytest.mark.parametrize("kind", PLAIN)
def test_other_numbers_are_classes(kind: str) -> None:
    records = [{"text": f"t{at}", "labels": labels} for at, labels in enumerate(PLAIN[kind])]
    found = prepared(write({"x.jsonl": jsonl(records)}), separator="none")
    assert {"0", "1"} <= {node.id for node in found.taxonomy.nodes}


def test_marks_are_labels_on_request() -> None:
    found = prepared(write({"x.csv": delimited(one_column(list))}), separator="none", label_names="none")
    assert [node.id for node in found.taxonomy.nodes] == ["0", "1"]


WRONG: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "too few names": (
        [1, 0, 1],
        {"label_names": ["a", "b"]},
        ["x.jsonl:1: labels holds 3 values", "2 names"],
    ),
    "another number": ([1, 0, 2], {"label_names": ["a", "b", "c"]}, ["x.jsonl:1", "'2' at 'c'", "0 or 1"]),
    "a hole": ([1, None, 1], {"label_names": ["a", "b", "c"]}, ["x.jsonl:1", "'' at 'b'"]),
    "a name twice": ([1, 0], {"label_names": ["a", "a"]}, ["label_names:2: 'a' is there twice"]),
    "an empty name": ([1, 0], {"label_names": ["a", " "]}, ["label_names:2: a name is empty"]),
    "no such file": ([1, 0], {"label_names": "nmes.txt"}, ["label_names=nmes.txt is no file"]),
    "one column": ([1, 0], {"label_names": "columns"}, ["'labels' alone", "dataset.prepare.labels=[A,B,C]"]),
    "cut by numpy": ("[0 0 ... 1 0]", {}, ["x.jsonl:1", "cut", "tolist()"]),
}


@pytest.mark.parametrize("kind", WRONG)
def test_marks_and_names_that_do_not_fit_are_refused(kind: str) -> None:
    labels, options, parts = WRONG[kind]
    message = fault({"x.jsonl": jsonl([{"text": "t", "labels": labels}])}, separator="none", **options)
    for part in parts:
        assert part in message


# --- lists

LISTS = [["Beauty", "Hair", "Styling"], ["Beauty", "Nails"], ["Sports", "Ball"], ["Beauty"]]


def listing(lists: Sequence[Any], **more: Any) -> Mapping[str, bytes]:
    return {
        "x.jsonl": jsonl(
            [{"text": f"t{at} {n}", "labels": one} for n in range(3) for at, one in enumerate(lists)]
        )
    }


@pytest.mark.parametrize("options", [{}, {"separator": "none"}])
def test_lists_that_may_be_paths_are_asked_for(options: dict[str, Any]) -> None:
    message = fault(listing(LISTS), **options)
    assert "is ['Beauty', 'Hair', 'Styling'] one path" in message
    assert "dataset.prepare.list=path or dataset.prepare.list=labels" in message


def test_a_list_is_a_path_or_labels_as_is_said() -> None:
    raw = write(listing(LISTS))
    path = prepared(raw, "path", list="path").taxonomy
    assert {node.id: node.parent for node in path.nodes} == {
        "Beauty": None,
        "Sports": None,
        "Beauty/Hair": "Beauty",
        "Beauty/Nails": "Beauty",
        "Sports/Ball": "Sports",
        "Beauty/Hair/Styling": "Beauty/Hair",
    }
    labels = prepared(raw, "labels", list="labels", separator="none").taxonomy
    assert {node.id: node.parent for node in labels.nodes} == dict.fromkeys(
        ["Ball", "Beauty", "Hair", "Nails", "Sports", "Styling"]
    )


@pytest.mark.parametrize(
    "lists",
    [
        [["drama", "action"], ["action", "news"], ["news"]],  # a name is first here and further on there
        [["a/b", "c/d"], ["c/d", "a/e"], ["a/b"]],
        [["a"], ["b"], ["c"]],
        [{"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 0.0}, {"a": 0.0, "c": 1.0}],
    ],
)
def test_lists_that_are_no_paths_are_not_asked_for(lists: list[Any]) -> None:
    options = {} if "a/b" in str(lists) else {"separator": "none"}
    prepared(write(listing(lists)), **options)


def test_a_tree_decides_between_a_path_and_labels() -> None:
    tree = {"t.taxonomy": b"Root\tScience\tArts\nScience\tPhysics\nArts\tMusic\n"}
    raw = write(listing([["Science", "Physics"], ["Arts", "Science"], ["Music"]]) | tree)
    found = {text.split()[0]: paths for _, text, paths in documents(prepared(raw)).values()}
    assert found == {
        "t0": {("Science",), ("Science", "Physics")},
        "t1": {("Arts",), ("Science",)},
        "t2": {("Arts",), ("Arts", "Music")},
    }
    with pytest.raises(
        HblmError, match=r"x\.jsonl:2: in the label 'Arts/Science', 'Science' is no child of 'Arts'"
    ):
        prepared(raw, "whole", list="path")


def test_lists_of_levels_that_do_not_match_are_found_in_a_tree() -> None:
    records = [
        {
            "text": f"t{at}",
            "level1": ["Science", "Arts"],
            "level2": ["Music", "Physics", "Film"][: at % 3 + 1],
        }
        for at in range(9)
    ]
    tree = {"t.taxonomy": b"Root\tScience\tArts\nScience\tPhysics\nArts\tMusic\tFilm\n"}
    found = prepared(write({"x.jsonl": jsonl(records)} | tree))
    assert [len(nodes) for nodes in found.taxonomy.levels] == [2, 3]
    (names,) = {frozenset(paths) for _, text, paths in documents(found).values() if text == "t1"}
    assert names == {("Science",), ("Arts",), ("Arts", "Music"), ("Science", "Physics")}


# --- hints

CSV = delimited([{"text": f"t{at}", "label": f"a/b{at % 2}"} for at in range(9)])
UNLABELLED = b"text\nt\nu\n"


@pytest.mark.parametrize("named", [{}, {"labels": "label"}])
def test_a_test_file_without_labels_offers_the_training_file(named: dict[str, str]) -> None:
    raw = write({"train.csv": CSV, "test.csv": UNLABELLED})
    with pytest.raises(HblmError) as alone:
        prepared(raw / "test.csv", **named)
    assert f"{raw / 'train.csv'} lies beside it" in str(alone.value)
    assert f"write raw={raw / 'train.csv'}" in str(alone.value)
    with pytest.raises(HblmError) as both:
        prepared(raw, **named)
    assert f"{raw / 'test.csv'} has no labels: give {raw / 'train.csv'} alone as raw=" in str(both.value)


@pytest.mark.parametrize(
    "line", ["3,Wall St. falls", "Wall St. falls again and again. And again!,pos", "good,pos"]
)
def test_a_file_without_a_header_is_met_with_the_option(line: str) -> None:
    message = fault({"x.csv": f"{line}\n".encode() * 3})
    assert "dataset.prepare.header=none" in message
    assert "again and again" not in message
