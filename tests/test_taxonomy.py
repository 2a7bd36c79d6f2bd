"""The label forest: its order, its levels, and every way of not being one."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hblm.data.convert.label_trees import read_tree
from hblm.data.converters import load_script
from hblm.data.raw.archives import Raw
from hblm.errors import DataError
from hblm.taxonomy import Node, Taxonomy, names_are_words, parse_taxonomy, read_taxonomy

SHARED = Path(os.environ.get("HBLM_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


@st.composite
def forests(draw: st.DrawFn) -> list[Node]:
    """Draw nodes whose parent is any earlier node or none, shuffled: every forest, uneven levels and all."""
    parents = [draw(st.integers(-1, n - 1)) for n in range(draw(st.integers(1, 25)))]
    texts = st.none() | st.sampled_from(["a text", " with\na line end ", "“quotes” \\ \u2028"])
    nodes = [
        Node(f"n{n}", f"Node {n % 4}", None if up < 0 else f"n{up}", draw(texts))
        for n, up in enumerate(parents)
    ]
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
    again = parse_taxonomy(taxonomy.to_json(), "taxonomy.json")
    assert again == taxonomy
    assert [node.text for node in again.nodes] == [node.text for node in taxonomy.nodes]
    assert again.to_json() == taxonomy.to_json()
    assert ["text" in row for row in rows] == [node.text is not None for node in taxonomy.nodes]


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
    "several parents": (
        [node("a"), node("b"), node("c", ["a", "b"])],
        ["node 3", "'c'", "2 parents ('a', 'b')", "one parent", "a node id of its own"],
    ),
    "no parent in a list": ([node("a"), node("b", [])], ["node 2", "'b'", "found []"]),
    "parents that are no ids": ([node("a"), node("b", ["a", 3])], ["node 2", "found ['a', 3]"]),
    "a list of null": ([node("a"), node("b", [None])], ["node 2", "'b'", "found [None]"]),
    "text a number": ([node("a") | {"text": 3}], ["node 1", "'a'", "text must be a string or null", "3"]),
    "text with a lone surrogate": ([node("a") | {"text": "\ud800"}], [":2", "'a'", "text", "surrogate"]),
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
    "a key twice": (
        b'{"nodes": [{"id": "a", "name": "a", "parent": null, "id": "b"}]}',
        "'id' is there twice",
    ),
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
    for path, why in ((tmp_path / "none.json", "cannot be read"), (tmp_path, "a folder")):
        with pytest.raises(DataError, match=why):
            read_taxonomy(path)


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.json"
    path.write_text(Taxonomy([Node("a", "A", None)]).to_json(), encoding="utf-8-sig")
    assert len(read_taxonomy(path)) == 1


# --- texts


def test_a_file_without_texts_is_as_it_was() -> None:
    """Fingerprints of prepared sets are of these bytes."""
    nodes = [Node("a", "Ä", None), Node("b", "B", "a")]
    assert Taxonomy(nodes).to_json() == (
        '{"nodes": [\n{"id": "a", "name": "Ä", "parent": null},\n'
        '{"id": "b", "name": "B", "parent": "a"}\n]}\n'
    )


@pytest.mark.parametrize("empty", ["", " \n\t", None])
def test_an_empty_text_is_none(empty: str | None) -> None:
    taxonomy = parse_taxonomy(json.dumps({"nodes": [node("a") | {"text": empty}]}), "t.json")
    assert taxonomy.nodes[0].text is None
    assert '"text"' not in taxonomy.to_json()


def test_a_list_of_one_parent_is_that_parent() -> None:
    taxonomy = parse_taxonomy(json.dumps({"nodes": [node("b", ["a"]), node("a")]}), "t.json")
    assert [(found.id, found.parent) for found in taxonomy.nodes] == [("a", None), ("b", "a")]


def test_texts_take_no_part_in_comparisons() -> None:
    assert Taxonomy([Node("a", "A", None, "one")]) == Taxonomy([Node("a", "A", None, "another")])
    assert Taxonomy([Node("a", "A", None)]) != Taxonomy([Node("a", "B", None)])


def test_a_node_says_its_text_or_else_its_name_or_else_its_id() -> None:
    assert Node("c1", "CS", None, "Computer_Science").words == "Computer_Science"
    assert Node("c1", "pet_supplies_", None).words == "pet supplies "
    assert Node("pet_food", " ", None).words == "pet food"


# --- words and codes

WORDS = {
    "two words": ["Computer vision", "Machine learning"],
    "short words": ["Art", "Law", "Tea"],
    "capitals": ["PERFORMANCE", "MARKETS", "CRIME, LAW ENFORCEMENT"],
    "an acronym or two": ["CS", "ECE", "Psychology", "Biochemistry"],
    "underscores": ["pet_supplies", "baby_products", "beauty"],
    "digits beside words": ["3D printing", "Windows 10", "80s music", "Area 51"],
    "paths": ["Top/News", "Top/News/World", "Top/News/World/Africa", "Top/Opinion"],
    "dotted words": ["talk.politics.guns", "rec.sport.hockey", "sci.med", "comp.graphics"],
    "synsets": ["dog.n.01", "hunting_dog.n.01", "cat.n.01"],
    "German": ["Öl", "Bücher", "Krimi & Thriller", "Äthiopien", "ÄRZTE"],
    "Chinese": ["书", "计算机视觉", "3D打印", "艺术"],
    "Japanese": ["本", "スポーツ", "コンピュータ・グラフィックス"],
    "Korean": ["책", "컴퓨터 비전"],
    "Arabic": ["فن", "علوم الحاسوب", "رياضة"],
    "Hindi": ["हिन्दी", "कला", "खेल"],
    "Thai": ["กีฬา", "ศิลปะ"],
    "Russian": ["Мир", "Наука и техника"],
    "Greek": ["Τέχνη", "Υγεία"],
    "decomposed accents": ["Cafe\u0301", "The\u0301a\u0302tre"],
}
CODES = {
    "Reuters": ["C15", "C151", "M11", "GCAT", "E121", "GPOL"],
    "arXiv": ["cs", "cs.it", "cs.lg", "math", "math.co", "math.pr", "math.nt", "stat", "stat.ml", "cs.ai"],
    "numbers": ["0", "12.3", "004", "１２"],
    "patents": ["G06F", "G06F 17/30", "H01L", "A61K"],
    "MeSH": ["D12.776", "E05", "A11.436.275"],
    "single letters": ["A", "B", "é", "Ω", "ب"],
    "numbered": ["class 1", "class 2", "class 3", "Class_4"],
    "numbered in Chinese": ["第1类", "第2类", "第3类"],
    "paths of codes": ["Top/C1", "Top/C1/C11", "Top/C1/C12"],
    "signs": ["-", "?!", "…"],
    "acronyms": ["CS", "ECE", "MAE"],
}


@pytest.mark.parametrize("kind", WORDS)
def test_names_in_words_are_known(kind: str) -> None:
    assert names_are_words(Taxonomy(Node(name, name, None) for name in WORDS[kind]))


@pytest.mark.parametrize("kind", CODES)
def test_codes_are_known(kind: str) -> None:
    assert not names_are_words(Taxonomy(Node(name, name, None) for name in CODES[kind]))


def test_half_of_the_nodes_decide_and_texts_count() -> None:
    codes = [Node(f"C{n}", f"C{n}", None) for n in range(4)]
    texts = [Node(f"T{n}", f"T{n}", None, text) for n, text in enumerate(["shares", "bonds", "oil", "grain"])]
    assert names_are_words(Taxonomy([*codes, *texts]))
    assert not names_are_words(Taxonomy([*codes, *texts[:3]]))


def test_a_name_on_its_own_for_many_nodes_says_nothing_of_them() -> None:
    repeated = [Node(f"{n}", "General", None) for n in range(3)]
    assert names_are_words(Taxonomy([*repeated[:2], Node("a", "Arts", None)]))
    assert not names_are_words(Taxonomy(repeated))


REAL: dict[str, tuple[str, Callable[[Path], Taxonomy], bool]] = {
    "WOS": ("taxonomies/wos.taxonomy", lambda path: tree_of(path), True),
    "BGC": ("taxonomies/bgc.taxonomy", lambda path: tree_of(path), True),
    "BGC in German": ("bgc_german/hierarchy.txt", lambda path: tree_of(path), True),
    "Amazon": ("amazon531/amazon.taxonomy", lambda path: tree_of(path), True),
    "NYT, paths": ("taxonomies/nyt.taxonomy", lambda path: tree_of(path), True),
    "NYT, last parts": ("taxonomies/nyt.taxonomy", lambda path: by_script("nyt", "read_nodes", path), True),
    "RCV1, codes": ("taxonomies/rcv1.taxonomy", lambda path: tree_of(path), False),
    "RCV1, descriptions": (
        "taxonomies/rcv1.topics.hier.orig",
        lambda path: by_script("rcv1v2", "read_hierarchy", path),
        True,
    ),
    "AAPD, categories": ("aapd_hjcl/aapd.taxonomy", lambda path: tree_of(path), False),
}


def tree_of(path: Path) -> Taxonomy:
    """Read a tree whose names are its ids."""
    with Raw(path) as raw:
        return read_tree(raw.files[0])


def by_script(dataset: str, function: str, path: Path) -> Taxonomy:
    """Read a tree as a converter does."""
    with Raw(path) as raw:
        return getattr(load_script(dataset), function)(raw.files[0])


@pytest.mark.parametrize("name", REAL)
def test_real_sets(name: str) -> None:
    file, read, expected = REAL[name]
    if not (SHARED / file).is_file():
        pytest.skip(f"no {SHARED / file}")
    assert names_are_words(read(SHARED / file)) is expected


def test_categories_by_their_names_are_words() -> None:
    assert names_are_words(load_script("aapd").tree())
