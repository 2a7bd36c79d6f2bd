"""Labels in every form: read as paths, and given back in the same form."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from hblm.api.label_nodes import nodes_of
from hblm.api.targets import Reader, taxonomy_of
from hblm.errors import ConfigError, DataError
from hblm.taxonomy import Node, Taxonomy

A, B, C = ("top", "left"), ("top", "right"), ("other",)
TREE = Taxonomy([Node("t", "top", None), Node("o", "other", None), Node("l", "left", "t")])
MATRIX = np.array([[1, 0, 1], [0, 1, 0]])

# form -> options, y, classes
FORMS = {
    "tuples": ({}, [A, C, B], [("other",), ("top",), A, B]),
    "lists of names": ({}, [list(A), list(C)], [("other",), ("top",), A]),
    "several": ({}, [[C, A], [B]], [("other",), ("top",), A, B]),
    "several lists": ({}, [[[*C], [*A]], [[*B]]], [("other",), ("top",), A, B]),
    "texts": ({"separator": "/"}, ["top/left", "other"], ["other", "top", "top/left"]),
    "several texts": ({"separator": "/"}, [["other", "top/left"], ["top"]], ["other", "top", "top/left"]),
    "labels": ({}, ["b", "a", "b"], ["a", "b"]),
    "numbers": ({}, np.array([10, 9, 10]), [9, 10]),
    "several labels": ({"lists": "labels"}, [["a", "b"], ["b"]], ["a", "b"]),
    "levels": ({}, np.array([["top", "left"], ["other", ""]]), [("other",), ("top",), A]),
    "frame of levels": ({}, pd.DataFrame({"x": ["top", "other"], "y": ["left", None]}), [*C, "top", A]),
    "series": ({}, pd.Series(["a", "b"]), ["a", "b"]),
    "matrix": ({}, MATRIX, [0, 1, 2]),
    "floats": ({}, MATRIX.astype(float), [0, 1, 2]),
    "sparse": ({}, scipy.sparse.csr_matrix(MATRIX), [0, 1, 2]),
    "frame": ({}, pd.DataFrame(MATRIX, columns=["z", "y", "x"]), ["z", "y", "x"]),
    "frame of bool and int": ({}, pd.DataFrame({"z": [True, False], "y": [0, 1]}), ["z", "y"]),
    "frame of nullable numbers": (
        {},
        pd.DataFrame(MATRIX, columns=["z", "y", "x"]).astype("Int64"),
        [*"zyx"],
    ),
    "frame of a tree": ({"tree": TREE}, pd.DataFrame(MATRIX, columns=["l", "o", "t"]), ["t", "o", "l"]),
    "objects": ({}, MATRIX.astype(object), [0, 1, 2]),
    "an empty level": ({}, np.array([["top", ""], ["other", ""]]), [("other",), ("top",)]),
    "labels of two types": ({}, [1, "a", 1], [1, "a"]),
    "paths of a tree": ({"tree": TREE}, [("t", "l"), ("o",)], [("t",), ("o",), ("t", "l")]),
    "matrix of a tree": ({"tree": TREE}, MATRIX, ["t", "o", "l"]),
    "ids of a tree": ({"tree": TREE}, [["t", "l"], ["o"]], ["t", "o", "l"]),
    "an id of a tree": ({"tree": TREE}, ["l", "o"], ["t", "o", "l"]),
}
GIVEN_BACK = {  # where it is not exactly what was given: an array
    "floats": MATRIX,
    "sparse": MATRIX,
    "series": np.array(["a", "b"]),
    "frame of levels": np.array([["top", "left"], ["other", ""]]),
}


@pytest.mark.parametrize("form", FORMS)
def test_predictions_that_are_right_are_what_was_given(form):
    options, y, classes = FORMS[form]
    reader = Reader(**options)
    read = reader.read(y)
    nodes = nodes_of([read], reader)
    if form != "frame of levels":
        assert nodes.classes().tolist() == classes
    index = nodes.index
    right = [{index[path] for path in paths} for paths in read.closed()]
    scores = np.array([[float(at in chosen) for at in range(len(index))] for chosen in right])
    given_back = nodes.as_given(nodes.chosen(scores, scores > 0.5, 0.5))
    expected = GIVEN_BACK.get(form, y)
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(given_back, y, check_dtype=False)
        return
    if isinstance(given_back, np.ndarray):
        given_back = given_back.tolist()
    expected = expected.tolist() if isinstance(expected, np.ndarray) else expected
    assert given_back == expected


def test_nodes_are_a_tree_with_the_names_of_the_paths():
    reader = Reader()
    taxonomy = nodes_of([reader.read([("a > b", "c"), ("a", "b", "c"), ("a", "b > c")])], reader).taxonomy
    names = {node.name for node in taxonomy.nodes}
    assert names == {"a > b", "a", "b", "c", "b > c"}
    assert len(taxonomy) == 6
    assert len(taxonomy.levels) == 3


def test_one_path_goes_to_the_best_child_and_ends_where_training_paths_end():
    reader = Reader()
    nodes = nodes_of([reader.read([("a",), ("a", "x"), ("b", "y"), ("b", "z")])], reader)
    index = nodes.index

    def chosen(**scores: float):
        row = np.zeros(len(index))
        for name, score in scores.items():
            row[next(at for path, at in index.items() if path[-1] == name)] = score
        return nodes.as_given(nodes.chosen(row[None], row[None] > 0.5, 0.5))[0]

    assert chosen(a=0.2, b=0.1, x=0.4) == ("a",)  # a training path ends there
    assert chosen(a=0.2, b=0.1, x=0.5) == ("a", "x")
    assert chosen(a=0.2, b=0.3, y=0.1, x=0.9, z=0.01) == ("b", "y")  # none ends at b


def test_another_matrix_has_the_columns_of_training_by_name_or_position():
    frame = pd.DataFrame(MATRIX, columns=["z", "y", "x"])
    columns = Reader().read(frame).columns
    reader = Reader(columns=columns)
    expected = reader.read(frame)
    assert reader.read(MATRIX).documents == expected.documents
    assert reader.read(frame[["x", "z", "y"]]).closed() == expected.closed()
    assert reader.read(pd.DataFrame(MATRIX)).documents == expected.documents
    of_array = Reader(columns=Reader().read(MATRIX).columns).read(frame)
    assert of_array.documents == [[(0,), (2,)], [(1,)]]


def test_levels_are_as_many_as_the_deepest_labels_of_training_or_validation():
    reader = Reader()
    reads = [reader.read(np.array([["a", ""]])), reader.read(np.array([["a", "b", "c"]]))]
    nodes = nodes_of(reads, reader)
    assert nodes.as_given([{0, 1, 2}]).tolist() == [["a", "b", "c"]]


LETTERS = st.sampled_from("abc")
PATHS = st.lists(st.lists(LETTERS, min_size=1, max_size=3).map(tuple), min_size=1, max_size=3)


@given(st.lists(PATHS, min_size=1, max_size=5))
def test_any_paths_are_read_and_given_back_without_their_beginnings(documents):
    reader = Reader()
    read = reader.read(documents)
    nodes = nodes_of([read], reader)
    chosen = [{nodes.index[path] for path in closed} for closed in read.closed()]
    for given_back, paths in zip(nodes.as_given(chosen), documents, strict=True):
        deepest = {p for p in paths if not any(q[: len(p)] == p and q != p for q in paths)}
        assert set(given_back) == deepest
        assert len(given_back) == len(deepest)


FAULTS = [
    ({}, [["b", "a"], ["a"]], ConfigError, r"'a' is name 2 of y\[0\] and name 1 of y\[1\]; write lists="),
    ({}, ["a", None], DataError, r"y\[1\]: a name of a path is missing or empty"),
    ({}, [("a", "")], DataError, r"y\[0\]: a name of a path is missing or empty"),
    ({}, [["a"], []], DataError, r"y\[1\] has no path"),
    ({}, [[("a",), ()]], DataError, r"y\[0\] has an empty path"),
    ({}, [{"a": 1}], DataError, r"y\[0\]: a name of a path is {'a': 1}, a dict"),
    ({"separator": "/"}, ["a/b", "a//b"], DataError, r"y\[1\]: a name of a path is missing or empty"),
    ({}, np.array([[0, 2]]), DataError, "other values than 0 and 1"),
    ({}, np.zeros((1, 2, 2)), DataError, "y has 3 dimensions"),
    ({}, np.array([["a", ""], ["", "b"]]), DataError, r"y\[1\] = .*a name is missing above another"),
    ({"tree": TREE}, np.zeros((2, 5)), DataError, "y has 5 columns, and the taxonomy 3 nodes"),
    ({"tree": TREE}, ["t", "ll"], DataError, r"y\[1\]: 'll' is not a node of the taxonomy; did you mean l"),
    ({"tree": TREE}, [("t", "zz")], DataError, r"y\[0\]: 'zz' is not a node of the taxonomy"),
    (
        {"tree": TREE},
        [("o", "l")],
        DataError,
        r"\('o', 'l'\) is not a path of the taxonomy; that is \('t', 'l'\)",
    ),
    ({"tree": TREE}, np.array([["t", "zz"]]), DataError, r"y\[0\]: 'zz' is not a node of the taxonomy"),
    ({"tree": TREE}, [{"a": 1}], DataError, r"y\[0\]: a name of a path is {'a': 1}, a dict"),
    (
        {"columns": (("a",),)},
        np.zeros((2, 4)),
        DataError,
        "y has 4 columns, and that of training 1; expected",
    ),
    ({}, pd.DataFrame([[1, 0]], columns=["a", "a"]), DataError, "y has the column 'a' twice"),
    ({"columns": (("a",),)}, pd.DataFrame({"b": [1]}), DataError, "columns that training did not have: b"),
    ({}, pd.DataFrame({"a": [1, None]}, dtype="Int64"), DataError, "other values than 0 and 1"),
]


@pytest.mark.parametrize(("options", "y", "error", "message"), FAULTS, ids=range(len(FAULTS)))
def test_faults(options, y, error, message):
    with pytest.raises(error, match=message):
        Reader(**options).read(y)


def test_a_taxonomy_is_an_object_a_file_or_a_folder(learnable):
    assert taxonomy_of(None) is None
    assert taxonomy_of(TREE) is TREE
    assert taxonomy_of(learnable) == taxonomy_of(str(learnable / "taxonomy.json"))
    with pytest.raises(ConfigError, match="taxonomy=7 is a int"):
        taxonomy_of(7)
