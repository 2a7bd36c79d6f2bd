"""Label trees out of files and paths, every way of not being one, and labels found in them."""

from __future__ import annotations

import codecs
import io
import itertools
import json
import random
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hblm.data.convert.label_trees import NodeFinder, ids_of, infer_tree, read_tree, without_root
from hblm.data.raw.archives import Raw, RawFile
from hblm.data.raw.cleaning import plain_name
from hblm.errors import DataError
from hblm.taxonomy import Node, Taxonomy


def file_of(data: bytes | str, name: str = "tree.txt") -> RawFile:
    """Return a file that lies in memory."""
    content = data.encode() if isinstance(data, str) else data
    return RawFile(name, name, Path(name), lambda: io.BytesIO(content))


def forest(**parents: str | None) -> Taxonomy:
    """Return a forest whose names are its ids, sorted."""
    return Taxonomy(Node(name, name, parent) for name, parent in sorted(parents.items()))


# --- files

EXPECTED = forest(A=None, B=None, a1="A", a2="A", b1="B", x="a1")
ONE_TOP = forest(A=None, a1="A", a2="A")

# form -> name of the file, content, and the tree that it is
FORMS: dict[str, tuple[str, str, Taxonomy]] = {
    "children on one line": ("t.txt", "A\ta1\ta2\nB\tb1\na1\tx\n", EXPECTED),
    "a child a line": ("t.txt", "A\ta1\nA\ta2\nB\tb1\na1\tx\n", EXPECTED),
    "children before parents": ("t.txt", "a1\tx\nB\tb1\nA\ta2\nA\ta1\n", EXPECTED),
    "under Root": ("t.taxonomy", "Root\tA\tB\nA\ta1\ta2\nB\tb1\na1\tx\n", EXPECTED),
    "Root last": ("t.taxonomy", "A\ta1\ta2\nB\tb1\na1\tx\nROOT\tA\tB\n", EXPECTED),
    "Root on several lines": ("t.txt", "Root\tB\nA\ta1\ta2\nB\tb1\na1\tx\nRoot\tA\n", EXPECTED),
    "tops without children": ("t.txt", "A\nB\nC\nA\ta1\n", forest(A=None, B=None, C=None, a1="A")),
    "Root is a child": ("t.txt", "A\tRoot\nRoot\tb\n", forest(A=None, Root="A", b="Root")),
    "a header": ("t.tsv", "Parent\tChild\nA\ta1\nA\ta2\n", ONE_TOP),
    "a header with more words": ("t.tsv", "parent_name\tchild_name\nA\ta1\nA\ta2\n", ONE_TOP),
    "a header, upward": ("t.tsv", "child\tparent\na1\tA\na2\tA\n", ONE_TOP),
    "a header below blank lines": ("t.tsv", "\n\nparent\tchildren\nA\ta1\nA\ta2\n", ONE_TOP),
    "nodes named as a header, further down": (
        "t.tsv",
        "A\ta1\nparent\tchild\n",
        forest(A=None, a1="A", parent=None, child="parent"),
    ),
    "CSV": ("t.csv", "A,a1\nA,a2\nB,b1\na1,x\n", EXPECTED),
    "CSV with a header": ("T.CSV", 'parent,child\n"A","a1"\nA,a2\nB,b1\na1,x\n', EXPECTED),
    "CSV with empty parents": ("t.csv", "parent,child\n,A\n,B\nA,a1\nA,a2\nB,b1\na1,x\n", EXPECTED),
    "CSV with quoted commas": ("t.csv", '"A, or","a ""1"""\n', forest(**{"A, or": None, 'a "1"': "A, or"})),
    "quotes are text between tabs": ("t.txt", 'A"\t"a\n', forest(**{'A"': None, '"a': 'A"'})),
    "commas are text between tabs": ("t.txt", "A, B\ta, b\n", forest(**{"A, B": None, "a, b": "A, B"})),
    "blanks around names": ("t.txt", " A \t a1\t\ta2 \n\nA\t\n", ONE_TOP),
    "Windows line ends": ("t.txt", "A\ta1\r\nA\ta2\r\n\r\n", ONE_TOP),
    "old Mac's line ends": ("t.txt", "A\ta1\rA\ta2\r", ONE_TOP),
    "a line twice": ("t.txt", "A\ta1\ta2\nA\ta1\nA\n", ONE_TOP),
    "two spellings of one letter": (
        "t.txt",
        "Caf\u00e9\ta\nCafe\u0301\tb\n",
        forest(Café=None, a="Café", b="Café"),
    ),
    "our own": ("t.json", EXPECTED.to_json(), EXPECTED),
    "our own with Windows line ends": ("t.JSON", EXPECTED.to_json().replace("\n", "\r\n"), EXPECTED),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_tree_is_read_in_every_form(form: str, mark: bytes) -> None:
    name, text, expected = FORMS[form]
    assert read_tree(file_of(mark + text.encode(), name)) == expected


def test_our_own_file_keeps_names_and_order() -> None:
    taxonomy = Taxonomy([Node("2", "Zoo", None), Node("1", "Zoo", None), Node("0", "Art", "1")])
    assert read_tree(file_of(taxonomy.to_json(), "taxonomy.json")) == taxonomy


def test_a_tree_in_another_encoding_is_read_if_it_is_said() -> None:
    assert read_tree(file_of("é\tè\n".encode("cp1252")), "cp1252") == forest(é=None, è="é")
    with pytest.raises(DataError, match=r"^tree.txt:2: not UTF-8 at byte 1 of the line"):
        read_tree(file_of("A\tB\né\tè\n".encode("cp1252")))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=25),
    st.sampled_from(["", "Root"]),
    st.sampled_from(["\t", ","]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_the_order_of_lines_is_of_no_account(
    draws: list[int], root: str, sign: str, one_child: bool, source: random.Random
) -> None:
    names = [f"n{number}" for number in range(len(draws))]
    parents = {
        name: None if up % (at + 1) == at else names[up % (at + 1)]
        for at, (name, up) in enumerate(zip(names, draws, strict=True))
    }
    children: dict[str, list[str]] = {}
    for name, parent in parents.items():
        if parent or root:
            children.setdefault(parent or root, []).append(name)
    lines = [[parent, *below] for parent, below in children.items()]
    if one_child:
        lines = [[parent, child] for parent, *below in lines for child in below]
    if not root:
        lines += [[name] for name, parent in parents.items() if parent is None]
    if any(len(line) > 1 for line in lines):
        source.shuffle(lines)
        text = "".join(sign.join(line) + "\n" for line in lines)
        found = read_tree(file_of(text, "t.csv" if sign == "," else "t.txt"))
        assert found == forest(**parents)


# fault -> name of the file, content, and what the message must say after the file's name
BROKEN: dict[str, tuple[str, str, list[str]]] = {
    "cycle": ("t.txt", "C\tA\nA\tB\nB\tA\n", [":3: ", "'A'", "two parents, 'C' and 'B'"]),
    "cycle of its own": ("t.txt", "C\tD\nA\tB\nB\tA\n", [":3: ", "'A' is its own ancestor: A -> B -> A"]),
    "cycle with Root": ("t.txt", "Root\tA\nA\tRoot\n", [":", "its own ancestor", "Root -> A"]),
    "two parents": ("t.txt", "A\tx\n\nB\ty\tx\n", [":3: ", "'x' has two parents, 'A' and 'B'"]),
    "two parents, CSV": ("t.csv", 'parent,child\n"A\n",x\nB,x\n', [":4: ", "'x' has two parents"]),
    "a top and a child": ("t.txt", "Root\tA\tB\nA\tB\n", [":2: ", "'B' has two parents"]),
    "own parent": ("t.txt", "A\tB\nB\tx\tB\n", [":2: ", "'B' is its own parent"]),
    "own parent, CSV": ("t.csv", "A,B\nB,B\n", [":2: ", "'B' is its own parent"]),
    "orphan beside Root": (
        "t.txt",
        "Root\tScience\nSciense\tphysics\n",
        [":2: ", "'Sciense' has no parent, and is not under Root", "mean Science?"],
    ),
    "an orphan with two lines": ("t.txt", "Root\tA\nB\tb\nB\tc\n", [":2: ", "'B' has no parent"]),
    "a single name beside Root": ("t.txt", "Root\tA\nB\n", [":2: ", "'B' has no parent"]),
    "an orphan before Root": ("t.txt", "B\tb\nroot\tA\n", [":1: ", "'B'", "not under root"]),
    "no tab": ("t.txt", "A B\nA C\n", [": no line names a parent and its children", "a tab between"]),
    "no comma": ("t.csv", "A\tB\n", [": no line names a parent and its children", "a comma between"]),
    "only a header": ("t.csv", "parent,child\n", [": no line names a parent"]),
    "empty": ("t.txt", "", [": no line names a parent"]),
    "a quote that is never closed": ("t.csv", 'A,B\n"C,D\n', [":2: ", "never closed"]),
    "not JSON": ("t.json", '{"nodes":\n oops', [":2: ", "not valid JSON"]),
    "other JSON": ("t.json", '{"A": ["B"]}', [": expected", '"nodes"']),
    "a cycle in JSON": (
        "t.json",
        json.dumps({"nodes": [{"id": x, "name": x, "parent": x} for x in "a"]}, indent=1),
        [":4: ", "'a' is its own ancestor"],
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_no_tree_is_named_with_its_line(fault: str) -> None:
    name, text, expected = BROKEN[fault]
    with pytest.raises(DataError) as caught:
        read_tree(file_of(text, name))
    assert str(caught.value).startswith(f"{name}{expected[0]}")
    for part in expected[1:]:
        assert part in str(caught.value)


# --- paths


def test_plain_names_have_one_form() -> None:
    assert plain_name(" \tCafe\u0301 bar\n") == "Café bar"


def test_one_name_under_two_parents_is_two_nodes() -> None:
    tree = infer_tree([("Arts", "General"), ("Sport", "General"), ("Sport",), ("Arts", "Film", "New")], "/")
    assert tree.nodes == (
        Node("Arts", "Arts", None),
        Node("Sport", "Sport", None),
        Node("Arts/Film", "Film", "Arts"),
        Node("Arts/General", "General", "Arts"),
        Node("Sport/General", "General", "Sport"),
        Node("Arts/Film/New", "New", "Arts/Film"),
    )


def test_a_name_below_itself_is_a_node_of_its_own() -> None:
    assert [node.id for node in infer_tree([("A", "A", "A")], ">").nodes] == ["A", "A>A", "A>A>A"]


def test_a_separator_in_a_name_is_escaped() -> None:
    assert ids_of(("TV/Radio", "A\\B", "x"), "/") == [
        "TV\\/Radio",
        "TV\\/Radio/A\\\\B",
        "TV\\/Radio/A\\\\B/x",
    ]
    assert ids_of(("A -- B", "C"), "--") == ["A \\-\\- B", "A \\-\\- B--C"]
    assert ids_of(("A", "B"), " > ") == ["A", "A > B"]


PATHS = st.lists(st.text(st.sampled_from("a\\/->:|. "), min_size=1, max_size=4), min_size=1, max_size=4)


@pytest.mark.parametrize("separator", ["/", "--", "->", "→", ">", "::", "|", ".", ":", " > "])
def test_distinct_paths_have_distinct_ids(separator: str) -> None:
    signs = sorted({*separator, "\\", "a"})
    names = ["".join(name) for length in (1, 2, 3) for name in itertools.product(signs, repeat=length)]
    few = [name for name in names if len(name) < 3]
    paths = [path for depth in (1, 2) for path in itertools.product(names, repeat=depth)]
    paths += itertools.product(few, repeat=3)
    known: dict[str, tuple[str, ...]] = {}
    for path in paths:
        assert known.setdefault(ids_of(path, separator)[-1], path) == path


@settings(max_examples=40, deadline=None)
@given(st.lists(PATHS.map(tuple), min_size=2, max_size=6, unique=True), st.sampled_from("/>|.:"))
def test_distinct_paths_of_any_depth_have_distinct_ids(paths: list[tuple[str, ...]], separator: str) -> None:
    assert len({ids_of(path, separator)[-1] for path in paths}) == len(paths)


@settings(max_examples=40, deadline=None)
@given(st.lists(PATHS.map(tuple), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_every_path_is_a_way_down_the_tree_whatever_their_order(
    paths: list[tuple[str, ...]], source: random.Random
) -> None:
    tree = infer_tree(paths, "/")
    names = {node.id: node.name for node in tree.nodes}
    for path in paths:
        end = ids_of(path, "/")[-1]
        assert tuple(names[node] for node in [*reversed(tree.ancestors(end)), end]) == path
    assert len(tree) == len({path[:depth] for path in paths for depth in range(1, len(path) + 1)})
    shuffled = list(paths)
    source.shuffle(shuffled)
    assert infer_tree(shuffled, "/") == tree


def test_a_root_above_all_paths_is_left_out() -> None:
    assert without_root([("Root", "A"), ("ROOT", "B", "b")]) == [("A",), ("B", "b")]
    for kept in ([("Root", "A"), ("B",)], [("Root",), ("Root", "A")], [("A", "Root")], []):
        assert without_root(kept) == kept


# --- labels

TREE = Taxonomy(
    [
        Node("1", "Arts", None),
        Node("2", "Science", None),
        Node("11", "General", "1"),
        Node("12", "Film", "1"),
        Node("21", "General", "2"),
        Node("22", "Physics", "2"),
        Node("221", "Optics", "22"),
        Node("222", "12", "22"),
    ]
)

# what is given -> label, and the nodes that it means
FOUND: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "an id": (("221",), ("221",)),
    "a name": (("Optics",), ("221",)),
    "an id that is another's name": (("12",), ("12",)),
    "a path of names": (("Science", "Physics", "Optics"), ("2", "22", "221")),
    "a path of ids": (("2", "22", "221"), ("2", "22", "221")),
    "a path of both": (("Science", "22", "Optics"), ("2", "22", "221")),
    "a repeated name in a path": (("Science", "General"), ("2", "21")),
    "a path to the middle": (("Science", "Physics"), ("2", "22")),
    "a name that is another's id": (("Science", "Physics", "12"), ("2", "22", "222")),
    "a path from Root": (("Root", "Arts", "Film"), ("1", "12")),
    "a short path from root": (("root", "Arts"), ("1",)),
}


@pytest.mark.parametrize("given_as", FOUND)
def test_a_label_is_found(given_as: str) -> None:
    label, expected = FOUND[given_as]
    assert NodeFinder(TREE).find(label, "x.csv:3") == expected


# fault -> label, and what the message must say
LOST: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "unknown": (("2211",), ["label '2211' is not a node of the taxonomy; did you mean 221?"]),
    "unknown, nothing near": (("%",), ["label '%' is not a node of the taxonomy"]),
    "a repeated name": (("General",), ["several nodes have the name 'General'", "ids, or whole paths"]),
    "unknown in a path": (("Science", "Fysix"), ["label 'Fysix' is not a node"]),
    "elsewhere": (("Arts", "Physics"), ["in the label 'Arts/Physics', 'Physics' is no child of '1'"]),
    "a step left out": (("Science", "Optics"), ["'Science/Optics', 'Optics' is no child of '2'"]),
    "upside down": (("Physics", "Science"), ["'Physics/Science', 'Physics' is no top node"]),
    "a repeated name elsewhere": (("Science", "Physics", "General"), ["'General' is no child of '22'"]),
    "other case": (("science", "Physics"), ["label 'science' is not a node"]),
    "only Root": (("Root",), ["label 'Root' is not a node"]),
    "too deep": (("Arts", "Film", "Arts"), ["'Arts' is no child of '12'"]),
}


@pytest.mark.parametrize("fault", LOST)
def test_a_label_that_means_no_node_is_refused_with_its_place(fault: str) -> None:
    label, expected = LOST[fault]
    with pytest.raises(DataError) as caught:
        NodeFinder(TREE).find(label, "x.csv:3")
    assert str(caught.value).startswith("x.csv:3: ")
    for part in expected:
        assert part in str(caught.value)


def test_a_misspelt_name_is_suggested_also_where_ids_are_numbers() -> None:
    with pytest.raises(DataError, match=r"did you mean Physics\?"):
        NodeFinder(TREE).find(("Physik",), "x.csv:3")


def test_siblings_of_one_name_are_not_told_apart_by_their_path() -> None:
    finder = NodeFinder(Taxonomy([Node("1", "A", None), Node("2", "B", "1"), Node("3", "B", "1")]))
    assert finder.find(("A", "2"), "x.csv:3") == ("1", "2")
    with pytest.raises(DataError, match=r"^x.csv:3: several nodes have the name 'B'"):
        finder.find(("A", "B"), "x.csv:3")


def test_a_top_node_called_root_is_found() -> None:
    finder = NodeFinder(Taxonomy([Node("r", "Root", None), Node("a", "A", "r")]))
    assert finder.find(("Root", "A"), "") == ("r", "a")
    assert finder.find(("Root",), "") == ("r",)


def test_only_ids_and_names_of_one_node_are_whole_labels() -> None:
    finder = NodeFinder(TREE)
    assert [finder.has(label) for label in ("221", "Optics", "General", "optics", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(TREE) - 1), st.booleans(), st.booleans())
def test_whole_paths_find_every_node(at: int, by_name: bool, from_root: bool) -> None:
    node = TREE.nodes[at]
    ids = [*reversed(TREE.ancestors(node.id)), node.id]
    path = [TREE.nodes[TREE.index[step]].name if by_name else step for step in ids]
    if len(path) > 1 or from_root:
        assert NodeFinder(TREE).find(("Root", *path) if from_root else tuple(path), "") == tuple(ids)


def test_a_first_line_of_nodes_called_much_like_a_header_is_none(tmp_path: Path) -> None:
    for line in ("Parenting\tChildren", "Childrens Media\tParents", "Parent\tChildcare"):
        parent, child = line.split("\t")
        path = tmp_path / "t.tsv"
        path.write_text(f"{line}\n{parent}\tother\n")
        with Raw(path) as raw:
            found = read_tree(raw.files[0])
        assert {(node.id, node.parent) for node in found.nodes} == {
            (parent, None),
            (child, parent),
            ("other", parent),
        }


def test_a_taxonomy_in_decomposed_letters_is_that_in_composed_ones() -> None:
    composed = Taxonomy([Node("Küche", "Küche", None), Node("Café", "Café au lait à", "Küche")])
    escaped = json.dumps(json.loads(unicodedata.normalize("NFD", composed.to_json())))
    for text in (unicodedata.normalize("NFD", composed.to_json()), escaped):
        assert text != composed.to_json()
        assert read_tree(file_of(text.encode(), "taxonomy.json")) == composed


def test_an_id_that_is_there_in_both_spellings_is_refused_with_its_line() -> None:
    nodes = [{"id": spelt, "name": "n", "parent": None} for spelt in ("Bar", "Caf\u00e9", "Cafe\u0301")]
    text = '{"nodes": [\n' + ",\n".join(map(json.dumps, nodes)) + "\n]}"
    with pytest.raises(DataError, match=r"t\.json:4: node 'Café' is there twice"):
        read_tree(file_of(text.encode(), "t.json"))
