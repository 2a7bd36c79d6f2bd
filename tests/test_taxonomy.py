"""The label forest: its order, its levels, and every way of not being one."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hblm.errors import DataError
from hblm.taxonomy import Node, Taxonomy, read_taxonomy


@st.composite
def forests(draw: st.DrawFn) -> list[Node]:
    """Draw nodes whose parent is any earlier node or none, shuffled: every forest, uneven levels and all."""
    parents = [draw(st.integers(-1, n - 1)) for n in range(draw(st.integers(1, 25)))]
    nodes = [Node(f"n{n}", f"Node {n % 4}", None if up < 0 else f"n{up}") for n, up in enumerate(parents)]
    return list(draw(st.permutations(nodes)))


@given(forests())
def test_level_is_the_number_of_ancestors_and_each_level_is_one_slice(nodes: list[Node]) -> None:
    taxonomy = Taxonomy(nodes)
    assert sorted(node.id for node in taxonomy.nodes) == sorted(node.id for node in nodes)
    assert [at for level in taxonomy.levels for at in level] == list(range(len(nodes)))
    for level, places in enumerate(taxonomy.levels):
        assert len(places) > 0
        for at in places:
            assert len(taxonomy.ancestors(taxonomy.nodes[at].id)) == level


@given(forests())
def test_parents_point_one_level_up(nodes: list[Node]) -> None:
    taxonomy = Taxonomy(nodes)
    for level, places in enumerate(taxonomy.levels):
        for at in places:
            parent = taxonomy.nodes[at].parent
            assert (parent is None) == (level == 0) == (taxonomy.parents[at] == -1)
            if parent is not None:
                assert taxonomy.nodes[taxonomy.parents[at]].id == parent
                within = taxonomy.level_parents(level)[at - places.start]
                assert taxonomy.levels[level - 1][within] == taxonomy.parents[at]


@given(forests(), st.randoms(use_true_random=False))
def test_order_in_the_file_changes_no_level_and_no_closure(nodes: list[Node], source: random.Random) -> None:
    taxonomy = Taxonomy(nodes)
    source.shuffle(nodes)
    other = Taxonomy(nodes)
    for places, others in zip(taxonomy.levels, other.levels, strict=True):
        assert places == others
        assert {taxonomy.nodes[at] for at in places} == {other.nodes[at] for at in others}
    for node in nodes:
        assert taxonomy.close([node.id]) == other.close([node.id])


@given(forests(), st.data())
def test_closing_adds_all_ancestors_and_nothing_else(nodes: list[Node], data: st.DataObject) -> None:
    taxonomy = Taxonomy(nodes)
    labels = data.draw(st.lists(st.sampled_from([node.id for node in nodes]), max_size=6))
    closed = taxonomy.close(labels)
    assert closed == set(labels).union(*(taxonomy.ancestors(label) for label in labels))
    assert taxonomy.close(closed) == closed


@given(forests())
def test_what_is_written_is_read_again(nodes: list[Node]) -> None:
    taxonomy = Taxonomy(nodes)
    rows = json.loads(taxonomy.to_json())["nodes"]
    again = Taxonomy(Node(**row) for row in rows)
    assert again == taxonomy
    assert again.to_json() == taxonomy.to_json()


def test_a_level_keeps_the_order_of_the_file() -> None:
    nodes = [Node("x1", "", "x"), Node("y", "", None), Node("y1", "", "y"), Node("x", "", None)]
    assert [node.id for node in Taxonomy(nodes).nodes] == ["y", "x", "x1", "y1"]


def test_names_may_repeat_and_hold_anything(tmp_path: Path) -> None:
    names = ["Arts/Music, Film & ’60s – now.", "General", "General", " "]
    nodes = [Node("a", names[0], None), *(Node(f"a/{n}", name, "a") for n, name in enumerate(names[1:]))]
    path = tmp_path / "taxonomy.json"
    path.write_text(Taxonomy(nodes).to_json(), encoding="utf-8")
    assert [node.name for node in read_taxonomy(path).nodes] == names


def test_depth_has_no_limit() -> None:
    n = 5000
    taxonomy = Taxonomy(Node(str(at), "", str(at - 1) if at else None) for at in reversed(range(n)))
    assert len(taxonomy.levels) == n
    assert len(taxonomy.close([str(n - 1)])) == n


def test_an_unknown_label_gets_the_nearest_id_among_very_many() -> None:
    taxonomy = Taxonomy(Node(f"topic {n}", "", None) for n in range(20_000))
    assert taxonomy.suggest("topik 12345") == "; did you mean topic 12345?"
    assert taxonomy.suggest("?") == ""
    assert taxonomy.suggest("topic 7" * 100_000) == ""


def node(identity: object, parent: object = None) -> dict[str, object]:
    """Return a row of taxonomy.json."""
    return {"id": identity, "name": "a name", "parent": parent}


# fault -> rows of the file, one a line from line 2 on, and what the message must say
BROKEN_ROWS = {
    "no node": ([], ["taxonomy.json", "no nodes"]),
    "duplicate": ([node("a"), node("b"), node("a")], [":4", "'a'", "twice"]),
    "two parents": (
        [node("a"), node("b"), node("c", "a"), node("c", "b")],
        [":5", "'c'", "two parents, 'a' and 'b'"],
    ),
    "orphan": ([node("arts"), node("film", "art")], [":3", "'film'", "'art'", "did you mean arts?"]),
    "cycle": ([node("r"), node("a", "b"), node("b", "a")], [":3", "a -> b -> a"]),
    "own parent": ([node("r"), node("a", "a")], [":3", "'a'", "its own ancestor"]),
    "not an object": ([node("a"), 7], ["node 2", "found 7"]),
    "keys missing": ([{"id": "a"}], ["node 1", "no name and no parent"]),
    "id a number": ([node(5)], ["node 1", "must be strings"]),
    "id empty": ([node("")], ["node 1", "not empty"]),
    "name null": ([{"id": "a", "name": None, "parent": None}], ["node 1", "must be strings"]),
    "parent a number": ([node("a"), node("b", 0)], ["node 2", "'b'", "found 0"]),
    "lone surrogate": ([node("a\ud800")], [":2", "surrogate"]),
}


@pytest.mark.parametrize("fault", BROKEN_ROWS)
def test_broken_nodes_are_named(fault: str, tmp_path: Path) -> None:
    rows, expected = BROKEN_ROWS[fault]
    path = tmp_path / "taxonomy.json"
    path.write_text('{"nodes": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]}\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_taxonomy(path)
    for part in [str(path), *expected]:
        assert part in str(caught.value)


BROKEN_BYTES = {
    "empty file": (b"", ":1: not valid JSON"),
    "cut short": (b'{"nodes": [\n{"id": "a"', ":2: not valid JSON"),
    "a list": (b"[]", "expected"),
    "nodes an object": (b'{"nodes": {}}', "expected"),
    "latin-1": (b'{"nodes":\n\n "\xe9"}', ":3: not UTF-8"),
    "too deep": (b'{"nodes": ' + b"[" * 200_000, "nested too deeply"),
    "a huge number": (b'{"nodes": ' + b"9" * 6000 + b"}", "not a taxonomy"),
}


@pytest.mark.parametrize("fault", BROKEN_BYTES)
def test_a_file_that_holds_no_taxonomy_is_refused(fault: str, tmp_path: Path) -> None:
    content, expected = BROKEN_BYTES[fault]
    path = tmp_path / "taxonomy.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=expected) as caught:
        read_taxonomy(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_taxonomy(path)


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.json"
    path.write_text(Taxonomy([Node("a", "A", None)]).to_json(), encoding="utf-8-sig")
    assert len(read_taxonomy(path)) == 1
