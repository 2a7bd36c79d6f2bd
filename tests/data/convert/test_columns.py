"""Which column is what, what a cell says, and which signs separate names and labels."""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import pytest

from hblm.data.convert.cells import PATH, cells_of, text_of
from hblm.data.convert.columns import Columns, as_options, choose_columns
from hblm.data.convert.separators import Separators, choose_separators
from hblm.data.raw.tables import Record, Table
from hblm.errors import ConfigError, DataError, HblmError


def table(*columns: str, of: str = "", **first: str) -> Table:
    def records(_: Collection[str]) -> Iterator[tuple[int, Record]]:
        yield 2, {name: first.get(name, "x") for name in columns}

    return Table("news.csv:", of, columns, records)


def choose(*tables: Table, **given: Any) -> Columns:
    names = ("text", "labels", "levels", "identity", "split")
    return choose_columns(tables, **(dict.fromkeys(names) | given))


# --- columns

DIALECTS: dict[str, tuple[str, Columns]] = {
    "HiAGM": ("token label", Columns(("token",), ("label",), (), None, None)),
    "HiAGM's BGC": ("token label topic", Columns(("token",), ("label",), (), None, None)),
    "NeuralClassifier": (
        "doc_label doc_token doc_keyword doc_topic",
        Columns(("doc_token",), ("doc_label",), (), None, None),
    ),
    "Hugging Face": ("text label", Columns(("text",), ("label",), (), None, None)),
    "scikit-learn's newsgroups": ("document group", Columns(("document",), ("group",), (), None, None)),
    "an index of pandas": (" text category", Columns(("text",), ("category",), (), None, None)),
    "many others": (
        "url date author title body section topics",
        Columns(("body",), ("topics",), (), None, None),
    ),
    "capitals": ("Abstract Label", Columns(("Abstract",), ("Label",), (), None, None)),
    "ids": ("doc_id text labels", Columns(("text",), ("labels",), (), "doc_id", None)),
    "DBpedia": ("text l1 l2 l3", Columns(("text",), (), ("l1", "l2", "l3"), None, None)),
    "Amazon": (
        "productId Title Text Cat1 Cat2 Cat3",
        Columns(("Text",), (), ("Cat1", "Cat2", "Cat3"), None, None),
    ),
    "levels from 0": ("text level_0 level_1", Columns(("text",), (), ("level_0", "level_1"), None, None)),
    "lists of levels": (
        "text labels_level1 labels_level2",
        Columns(("text",), (), ("labels_level1", "labels_level2"), None, None),
    ),
    "spaCy": ("text cats", Columns(("text",), ("cats",), (), None, None)),
    "levels in disorder": ("l2 text l1", Columns(("text",), (), ("l1", "l2"), None, None)),
    "eleven levels": (
        "text L1 L10 L11 L2 L3 L4 L5 L6 L7 L8 L9",
        Columns(("text",), (), tuple(f"L{at}" for at in range(1, 12)), None, None),
    ),
    "levels and another number": ("text d0 d1 d2 v1", Columns(("text",), (), ("d0", "d1", "d2"), None, None)),
}


@pytest.mark.parametrize("kind", DIALECTS)
def test_known_names_are_found(kind: str) -> None:
    names, expected = DIALECTS[kind]
    assert choose(table(*names.split(" "))) == expected


ASKED = {
    "no text": ("headline teaser label", {}, "text", "no column's name says so"),
    "two texts": ("text abstract label", {}, "text", "'text' and 'abstract' could each be it"),
    "no labels": ("text x z", {}, "labels", "no column's name says so"),
    "two labels": ("text category topic", {}, "labels", "'category' and 'topic' could each be it"),
    "a label and levels": ("text label l1 l2", {}, "labels", "'label' and 'l1' and 'l2' could each be it"),
    "two families of levels": ("text l1 l2 cat1 cat2", {}, "labels", ""),
    "levels with a gap": ("text l1 l3", {}, "labels", ""),
    "levels without a first": ("text l2 l3", {}, "labels", ""),
    "one level": ("text l1 z", {}, "labels", ""),
    "names of levels": ("Abstract Domain area", {}, "labels", "dataset.prepare.levels=[A,B]"),
    "text named, labels not": ("a b c", {"text": "a"}, "labels", ""),
}


# Kaggle's, scikit-learn's and Hugging Face's own names: columns -> text, labels
UNDERSTOOD = {
    "data target": ("data", "target"),
    "data target target_name": ("data", "target_name"),
    "text label label_text": ("text", "label_text"),
    "id raw_text news_group": ("raw_text", "news_group"),
    "index,post,newsgroups": ("post", "newsgroups"),
    "content group_name": ("content", "group_name"),
    "email topic_path": ("email", "topic_path"),
    "x y": ("x", "y"),
    "headline section": ("headline", "section"),
    "messages groups": ("messages", "groups"),
    "full_text target target_names": ("full_text", "target_names"),
    "text_content dotted_path": ("text_content", "dotted_path"),
    "document hierarchy": ("document", "hierarchy"),
    "what path": ("what", "path"),
}


@pytest.mark.parametrize("names", UNDERSTOOD)
def test_names_that_a_person_understands_are_understood(names: str) -> None:
    columns = names.replace(",", " ").split()
    values = {name: 3 for name in columns if name in ("label", "target") and len(columns) > 2}
    found = choose(table(*columns, **values))
    assert (found.text, found.labels) == tuple((name,) for name in UNDERSTOOD[names])


@pytest.mark.parametrize("kind", ASKED)
def test_an_ambiguous_column_is_asked_for(kind: str) -> None:
    columns, given, option, why = ASKED[kind]
    with pytest.raises(ConfigError) as caught:
        choose(table(*columns.split()), **given)
    message = str(caught.value)
    assert f"dataset.prepare.{option}=" in message
    assert why in message
    assert "news.csv" in message
    assert all(repr(name) in message for name in columns.split())


def test_a_message_stays_short_where_a_text_stands_for_the_header() -> None:
    with pytest.raises(ConfigError) as caught:
        choose(table("word " * 50_000, "sports"))
    assert len(str(caught.value)) < 2_000


def test_named_columns_are_taken() -> None:
    wide = table("a", "b", "c", "d", "text", "label", "id", "split", split="train")
    assert choose(wide, text="a", labels="b") == Columns(("a",), ("b",), (), "id", "split")
    assert choose(wide, text=["b", "a"], levels=["d", "c"]) == Columns(
        ("b", "a"), (), ("d", "c"), "id", "split"
    )
    assert choose(wide, labels=["label", "b"], identity="c", split="d") == Columns(
        ("text",), ("label", "b"), (), "c", "d"
    )
    assert choose(wide, identity="none", split="none") == Columns(("text",), ("label",), (), None, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": "txt"}, "dataset.prepare.text=txt is no column; did you mean text?"),
        ({"text": "Text"}, "did you mean text?"),
        ({"text": ["text", "titel"]}, "dataset.prepare.text=titel is no column; did you mean title?"),
        ({"labels": "lable"}, "dataset.prepare.labels=lable is no column; did you mean label?"),
        ({"levels": ["label", "sub"]}, "dataset.prepare.levels=sub is no column ("),
        ({"identity": "none_such"}, "dataset.prepare.id=none_such is no column"),
        ({"split": "fold"}, "dataset.prepare.split=fold is no column"),
        ({"labels": "label", "levels": ["label"]}, "both name the labels"),
    ],
)
def test_a_name_that_is_no_column_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        choose(table("text", "label", "title"), **given)
    assert message in str(caught.value)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_column_is_known_in_both_spellings(form: Any) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    there = [unicodedata.normalize(form, name) for name in ("téxte", "catégorie", "numéro")]
    given = [unicodedata.normalize(other, name) for name in there]
    found = choose(table(*there), text=given[0], labels=[given[1]], identity=given[2])
    assert found == Columns((there[0],), (there[1],), (), there[2], None)


def test_a_column_must_be_in_every_file() -> None:
    both = table("text", "label", of="train"), table("text", "topic", "label", of="test")
    assert choose(*both) == Columns(("text",), ("label",), (), None, None)
    with pytest.raises(ConfigError, match=r"dataset\.prepare\.labels=topic is no column"):
        choose(*both, labels="topic")


@pytest.mark.parametrize(
    ("name", "value", "of", "found"),
    [
        ("split", "train", "", "split"),
        ("Split", "Validation", "", "Split"),
        ("data_type", "test", "", "data_type"),
        ("subset", "biology", "", None),
        ("fold", "train", "", None),
        ("split", "train", "train", None),
    ],
)
def test_a_split_column_is_one_that_says_a_split(name: str, value: str, of: str, found: str) -> None:
    assert choose(table("text", "label", name, of=of, **{name: value})).split == found


def test_the_options_of_a_choice_choose_it_again() -> None:
    wide = table("id", "text", "label", "l1", "l2", "split", split="train")
    chosen = choose(wide, labels="label", identity="none")
    options = as_options(chosen, Separators("/", ";"))
    again = {name: options[name] for name in ("text", "labels", "levels", "split")}
    assert choose(wide, identity=options["id"], **again) == chosen
    assert detect({"a/b;c/d"}, options["separator"], options["label_separator"]) == Separators("/", ";")


# --- cells

CELLS: dict[str, tuple[Any, list[str]]] = {
    "a name": (" Sports ", ["Sports"]),
    "a decomposed accent": ("Cafe\u0301", ["Café"]),
    "nothing": ("", []),
    "blanks": (" \t", []),
    "null": (None, []),
    "NaN": (math.nan, []),
    "a list": (["a", " b", ""], ["a", "b"]),
    "an empty list": ([], []),
    "a list with nulls": (["a", None, math.nan], ["a"]),
    "JSON's list": ('["a", "b, c"]', ["a", "b, c"]),
    "JSON's empty list": ("[]", []),
    "JSON's list of numbers": ("[3, 5]", ["3", "5"]),
    "Python's list": ("['a', \"b's\", 'c']", ["a", "b's", "c"]),
    "a name in brackets": ("[misc]", ["[misc]"]),
    "an open bracket": ("[a", ["[a"]),
    "a number": (7, ["7"]),
    "a number beside holes": (7.0, ["7"]),
    "zero": (0, ["0"]),
    "numbers": ([1, 2.0], ["1", "2"]),
    "the word nan in a name": ("nan bread", ["nan bread"]),
}
ONE = Columns(("text",), ("label",), (), None, None)


@pytest.mark.parametrize("kind", CELLS)
def test_a_label_cell_is_read(kind: str) -> None:
    value, expected = CELLS[kind]
    assert cells_of({"label": value}, ONE, "x.csv:2") == tuple(expected)


NO_LABELS: dict[str, Any] = {
    "true": True,
    "a list with false": ["a", False],
    "JSON's true": "[true]",
    "a fraction": 0.5,
    "infinity": math.inf,
    "bytes": b"a",
    "lists beside labels": ["a", ["b"]],
    "lists in lists of lists": [[["a"]]],
}


@pytest.mark.parametrize("kind", NO_LABELS)
def test_what_is_no_label_is_refused_with_its_place(kind: str) -> None:
    with pytest.raises(DataError, match=r"^x\.csv:2: label must hold labels \(texts\), found "):
        cells_of({"label": NO_LABELS[kind]}, ONE, "x.csv:2")


@pytest.mark.parametrize("cell", ["['a/b' 'a/c']", "['a/b'\n 'a/c']", "['a/b', 'a/c' 'd']"])
def test_an_array_as_numpy_prints_it_is_not_glued_together(cell: str) -> None:
    try:
        found = cells_of({"label": cell}, ONE, "x.csv:2")
    except DataError:
        return
    assert found == tuple(re.findall("'(.*?)'", cell))


def test_several_label_columns_each_give_some() -> None:
    columns = ONE._replace(labels=("a", "b", "c"))
    assert cells_of({"a": "x", "b": None, "c": ["y", "z"]}, columns, "") == ("x", "y", "z")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b", "c"], ["a", "b", "c"]),
        (["a", "", None], ["a"]),
        (["a", math.nan, ""], ["a"]),
        ([1, 2.0, None], ["1", "2"]),
        ([None, "", None], []),
        (["a", "a", "[x]"], ["a", "a", "[x]"]),
    ],
)
def test_levels_end_at_the_first_empty_one(names: list[Any], expected: list[str]) -> None:
    columns = ONE._replace(labels=(), levels=("l1", "l2", "l3"))
    assert cells_of(dict(zip(columns.levels, names, strict=True)), columns, "") == paths(expected)


def paths(*found: Sequence[str]) -> tuple[str, ...]:
    """Return paths as cells."""
    return tuple("".join(name + PATH for name in path) for path in found if path)


# a label cell -> the cells in it, and those if a list is one path
FORMS: dict[str, tuple[Any, tuple[str, ...], tuple[str, ...]]] = {
    "a list": (["a", "b"], ("a", "b"), paths("ab")),
    "a list as text": ("['a', 'b']", ("a", "b"), paths("ab")),
    "a list of one": (["a/b"], ("a/b",), paths(["a/b"])),
    "an empty list": ([], (), ()),
    "a list with an empty end": (["a", None], ("a",), paths("a")),
    "a list of lists": ([["a", "b"], ["c"]], paths("ab", "c"), paths("ab", "c")),
    "a list of lists as text": ('[["a", "b"]]', paths("ab"), paths("ab")),
    "a text": ("a/b", ("a/b",), ("a/b",)),
    "objects with a name": ([{"name": "a", "id": 3}, {"name": "b", "id": 4}], ("a", "b"), paths("ab")),
}


@pytest.mark.parametrize("kind", FORMS)
def test_a_list_is_labels_or_a_path(kind: str) -> None:
    value, labels, whole = FORMS[kind]
    assert cells_of({"label": value}, ONE, "") == labels
    assert cells_of({"label": value}, ONE, "", whole=True) == whole


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1.0, "b": 0.0, "c": 0.5, "d": None},
        {"a": True, "b": False, "c": 1},
        "{'a': 1.0, 'b': 0, 'c': 1}",
        '{"a": true, "b": false, "c": 0.75}',
    ],
)
def test_of_an_object_of_numbers_the_keys_with_a_half_are_labels(value: Any) -> None:
    assert cells_of({"label": value}, ONE, "") == ("a", "c")


@pytest.mark.parametrize("value", [[{"name": "a", "slug": "b"}], [{"id": 1}, {"id": 2}], [{}]])
def test_an_object_that_does_not_say_its_name_is_refused(value: Any) -> None:
    with pytest.raises(
        DataError, match=r"^x\.jsonl:4: label holds an object with .*; which of it is the label\?"
    ):
        cells_of({"label": value}, ONE, "x.jsonl:4")


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([["a", "b"], ["a1", "b1"]], ["a a1", "b b1"]),
        ([["a", "b"], ["a1", None]], ["a a1", "b"]),
        ([["a"], ["a1", "a2"]], ["a a1", "a a2"]),
        (["a", ["a1", "a2"]], ["a a1", "a a2"]),
        ([["a", "a"], ["a1", "a1"]], ["a a1"]),
        ([["a", "b"], []], ["a", "b"]),
        ([[], []], []),
        (["['a', 'b']", '["a1", "b1"]'], ["a a1", "b b1"]),
    ],
)
def test_lists_of_levels_are_paths_side_by_side(levels: list[Any], expected: list[str]) -> None:
    columns = ONE._replace(labels=(), levels=("l1", "l2"))
    found = cells_of(dict(zip(columns.levels, levels, strict=True)), columns, "")
    assert found == paths(*map(str.split, expected))


@pytest.mark.parametrize("levels", [[["a", "b"], ["a1"]], [["a", "b"], ["a1", "a2", "b1"]]])
def test_lists_of_levels_that_do_not_match_need_a_tree(levels: list[Any]) -> None:
    columns = ONE._replace(labels=(), levels=("l1", "l2"))
    record = dict(zip(columns.levels, levels, strict=True))
    with pytest.raises(
        DataError, match=r"^x:1: which name is below which\? there are 2 in l1, .*taxonomy=FILE"
    ):
        cells_of(record, columns, "x:1")
    assert cells_of(record, columns, "", tree=True) == paths(*([name] for names in levels for name in names))


@pytest.mark.parametrize(
    ("names", "empty"), [(["", "b", ""], "l1"), (["a", None, "c"], "l2"), (["", "", "c"], "l1")]
)
def test_a_hole_in_the_levels_is_refused(names: list[Any], empty: str) -> None:
    columns = ONE._replace(labels=(), levels=("l1", "l2", "l3"))
    with pytest.raises(DataError, match=rf"^x\.csv:9: {empty} is empty and a level below it is not"):
        cells_of(dict(zip(columns.levels, names, strict=True)), columns, "x.csv:9")


def test_a_key_that_a_record_lacks_is_named() -> None:
    with pytest.raises(DataError, match=r"^x\.jsonl:4: no 'label'; the record has 'text', 'labels'"):
        cells_of({"text": "", "labels": []}, ONE, "x.jsonl:4")


def test_a_text_is_a_column_several_or_tokens() -> None:
    record = {"title": "A", "body": "b c", "tokens": ["d", "e"], "empty": ""}
    assert text_of(record, ["body"], "") == "b c"
    assert text_of(record, ["title", "body", "empty"], "") == "A\nb c\n"
    assert text_of(record, ["tokens"], "") == "d e"
    for nothing in (None, math.nan):
        assert text_of({"body": nothing}, ["body"], "") == ""


@pytest.mark.parametrize("value", [5, True, ["a", 1], {"a": "b"}, b"a"])
def test_what_is_no_text_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(DataError, match=r"^x\.parquet: row 3: text must be a text, found "):
        text_of({"text": value}, ["text"], "x.parquet: row 3")


# --- signs


def detect(cells: Iterable[str], path: str | None = None, labels: str | None = None) -> Separators:
    return choose_separators(set(cells), path=path, labels=labels, is_node=lambda label: False)


NEWSGROUPS = """
    alt.atheism comp.graphics comp.os.ms-windows.misc comp.sys.ibm.pc.hardware comp.sys.mac.hardware
    comp.windows.x misc.forsale rec.autos rec.motorcycles rec.sport.baseball rec.sport.hockey sci.crypt
    sci.electronics sci.med sci.space soc.religion.christian talk.politics.guns talk.politics.mideast
    talk.politics.misc talk.religion.misc
""".split()  # noqa: SIM905 (a list would be twenty lines)
NYT = [
    "Top/News",
    "Top/News/U.S.",
    "Top/News/U.S./Rockies",
    "Top/News/World/Countries and Territories",
    "Top/Features/Travel/Guides/Destinations/North America/United States",
    "Top/Features/Travel/U.S.",
    "Top/Opinion/Op-Ed",
    "Top/Classifieds/Job Market/Job Categories/Banking, Finance and Insurance",
    "Top/News/Washington/Campaign 2004/Candidates",
]
AMAZON = [
    "Arts, Crafts & Sewing > Beading",
    "Arts, Crafts & Sewing > Crafts, Home & Garden",
    "Arts, Crafts & Sewing > Painting, Drawing & Art Supplies",
    "Toys & Games > Puzzles",
    "Toys & Games > Dolls, Toys & Accessories",
]
ARXIV = ["cs.lg stat.ml", "cs.lg", "cs.cl cs.lg", "stat.ml", "math.co", "math.co cs.dm", "cs.dm"]
MOVIES = [
    "Adventure|Animation|Children|Comedy|Fantasy",
    "Adventure|Children|Fantasy",
    "Comedy|Romance",
    "Comedy|Drama|Romance",
    "Comedy",
    "Action|Crime|Thriller",
    "Drama",
]

READ: dict[str, tuple[Sequence[str], Separators]] = {
    "newsgroups": (NEWSGROUPS, Separators(".", None)),
    "arXiv, one each": (["cs.lg", "cs.cl", "stat.ml", "math.co", "quant-ph"], Separators(".", None)),
    "arXiv, one or two": (ARXIV, Separators(".", " ")),
    "NYT": (NYT, Separators("/", None)),
    "NYT, several": ([*NYT, *(f"{a};{b}" for a, b in itertools.pairwise(NYT))], Separators("/", ";")),
    "several, the sign with a blank": (
        ["a > b; a > c", "a > b", "d > e; a > c", "d > e"],
        Separators(">", ";"),
    ),
    "several and single": (["a>b;a>c", "a>b", "d>e;a>c", "d>e;d>f", "d>f", "d>e"], Separators(">", ";")),
    "a line each": (["a/b\na/c", "a/b", "d/e\na/c", "d/e"], Separators("/", "\n")),
    "bars as paths": (["A|B|C", "A|B|D", "A|E", "F|G"], Separators("|", None)),
    "WOS of NeuralClassifier": (
        ["CS--Computer vision", "CS--PID/control", "Medical--Parkinson's Disease", "Medical--HIV/AIDS"],
        Separators("--", None),
    ),
    "three deep": (["CS--AI", "CS--AI--Computer vision", "MAE--Hydraulics"], Separators("--", None)),
    "slashes in a few names": (["Arts > TV/Radio", "Arts > Film", "News > Sport"], Separators(">", None)),
    "BGC": (
        [
            "Fiction > Fantasy > Epic",
            "Fiction > Fantasy",
            "Nonfiction",
            "Nonfiction > Biography & Memoir",
            "Children’s Books > Step Into Reading",
        ],
        Separators(">", None),
    ),
    "arrows": (["a -> b", "a -> c", "d -> e"], Separators("->", None)),
    "real arrows": (["a → b", "a → c", "d → e"], Separators("→", None)),
    "guillemets": (["Home » Tools", "Home » Pets", "Work » Tools"], Separators("»", None)),
    "namespaces": (["std::vec", "std::map", "boost::any"], Separators("::", None)),
    "folders of Windows": (["a\\b", "a\\c", "d\\e"], Separators("\\", None)),
    "ICD": (["A00.1", "A00.9", "B01.2", "B01.0", "C50"], Separators(".", None)),
    "one top": (["sci.med", "sci.space", "sci.crypt"], Separators(".", None)),
    "the sign at the ends": (["/a/b", "/a/c", "/d/e/"], Separators("/", None)),
    "double arrows": (["A => B", "A => C", "D => E"], Separators("=>", None)),
    "half are paths": (["a", "b", "a/x", "b/y"], Separators("/", None)),
    "flat, several": (
        ["Bars;Food", "Bars;Clubs", "Bars", "Food", "Clubs", "Food;Clubs"],
        Separators(None, ";"),
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_signs_are_found(kind: str) -> None:
    cells, expected = READ[kind]
    assert detect(cells) == expected


FLAT = {
    "plain": ["Sports", "Arts", "World News"],
    "WOS": ["Computer vision", "HIV/AIDS", "Parkinson's Disease", "PID controller", "Problem-based learning"],
    "Amazon": ["Crafts, Home & Garden", "Beauty, Health & Care", "Toys & Games", "Pet Supplies"],
    "dots in a few": ["U.S. News", "U.K. News", "World", "Sports", "Arts", "St. Louis", "Travel"],
    "colons in a few": ["Star Wars: A New Hope", "Alien", "Aliens", "Dune", "Blade Runner: 2049"],
    "dates": ["2020-01-02", "2020-01-03", "2021-05-06"],
    "hyphens": ["finance - tax", "finance - bank", "law - civil"],
    "mail addresses": ["ann@b.com", "carl@b.com", "dora@e.org"],
    "titles": ["Mr. Smith", "Mrs. Smith", "Dr. Who"],
    "RCV1": ["CCAT", "C15", "C152", "GCAT", "GPOL"],
    "one name": ["sports"],
    "one path": ["a/b"],
    "one group": ["comp.graphics"],
    "one name with a comma": ["Crafts, Home & Garden"],
    "no label": [],
    "as many tops as labels": ["a/b", "c/d"],
    "a path among names": ["a", "b", "c", "d", "a/x"],
    "class numbers": ["1.0", "2.0", "3.0"],
    "languages": ["Node.js", "Vue.js", "Three.js", "C"],
}


@pytest.mark.parametrize("kind", FLAT)
def test_names_that_hold_signs_are_no_paths(kind: str) -> None:
    assert detect(FLAT[kind]) == Separators(None, None)


MUST_ASK: dict[str, Sequence[str]] = {
    "one cell with a semicolon": ["a;b"],
    "semicolons that may be of a name": ["a;b", "c;d", "e"],
    "recurring commas": ["Crafts, Home", "Tools, Home", "Toys"],
    "commas of paths": ["Sports, Football", "Sports, Tennis", "Arts, Music"],
    "films of MovieLens, many": [*MOVIES, *("|".join(pair) for pair in itertools.combinations("abcdef", 2))],
    "bars as both": ["a|b", "a|c", "b|c", "b", "c", "a", "a|b|c"],
    "two signs": ["Arts > TV/Radio", "Arts > TV/Film", "News > UK/Ireland"],
    "URLs without a scheme": [f"dbpedia.org/ontology/{name}" for name in ("A", "B", "C")],
}


@pytest.mark.parametrize("kind", MUST_ASK)
def test_ambiguous_signs_are_asked_for(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"write '?dataset\.prepare\.(label_)?separator="):
        detect(MUST_ASK[kind])


UNREADABLE = None
MISREAD: dict[str, tuple[Sequence[str], Separators | None]] = {
    "Amazon's commas": (AMAZON, Separators(">", None)),
    "arXiv, two each": (["cs.lg stat.ml", "cs.cl cs.lg", "math.co cs.dm"], Separators(".", " ")),
    "two paths each, every one another": (["a/b c/d", "a/e c/f", "g/h i/j"], Separators("/", " ")),
    "two paths a cell, never one": (["a>b;a>c", "d>e;d>f"], Separators(">", ";")),
    "initials": (["J. Smith", "J. Doe", "A. Lee"], UNREADABLE),
    "abbreviations": (["U.S. News", "U.K. News", "U.S. Sports", "U.K. Arts"], UNREADABLE),
    "ratings": (["0.5", "1.0", "1.5", "2.0", "2.5", "3.0", "3.5"], UNREADABLE),
    "dates with dots": (["02.01.2020", "02.02.2020", "03.01.2020"], UNREADABLE),
    "times": (["10:30", "10:45", "11:00"], UNREADABLE),
    "titles with a colon": (["Star Wars: A New Hope", "Star Wars: Return", "Alien", "Aliens: 2"], UNREADABLE),
    "a prefix": (["Category:Physics", "Category:Chemistry", "Category:Biology"], UNREADABLE),
    "URLs": ([f"http://dbpedia.org/ontology/{name}" for name in ("Company", "Artist", "Film")], UNREADABLE),
    "URLs of one host": (["http://localhost/a", "http://localhost/b", "http://localhost/c"], UNREADABLE),
    "films of MovieLens, few": (MOVIES, Separators(None, "|")),
    "genres in any order": (["Action/Comedy", "Comedy/Drama", "Action/Drama", "Drama/Comedy"], UNREADABLE),
    "names that recur in paths": (
        [f"{top}/{a} {b}" for top in ("Men", "Women") for a in ("Red", "Blue") for b in ("Hats", "Socks")]
        + [f"Men/{a} {b}" for a in ("Red", "Blue", "Tan") for b in ("Hats", "Socks", "Shoes", "Coats")],
        Separators("/", None),
    ),
    "commas in both parts": (
        [
            f"{one}, {two} > {leaf}"
            for one in ("Home", "Office")
            for two in ("Garden", "Kitchen")
            for leaf in ("Lamps", "Tools")
        ],
        Separators(">", None),
    ),
    "HTML": (
        ["Arts &amp; Crafts > Beads", "Arts &amp; Crafts > Yarn", "Toys > Dolls"],
        Separators(">", None),
    ),
    "tags in angles": (["<python><pandas>", "<python><numpy>", "<c><stl>", "<python>"], UNREADABLE),
}


@pytest.mark.parametrize("kind", MISREAD)
def test_what_is_easily_misread_is_read_right_or_asked_for(kind: str) -> None:
    cells, right = MISREAD[kind]
    try:
        found = detect(cells)
    except ConfigError:
        return
    assert found in (right, Separators(None, None))


def test_signs_do_not_depend_on_the_order_of_cells() -> None:
    for cells in (NEWSGROUPS, NYT, ARXIV):
        orders = (cells, cells[::-1], sorted(cells), [*cells, *cells])
        found = {
            choose_separators(order, path=None, labels=None, is_node=lambda label: False) for order in orders
        }
        assert len(found) == 1


def test_given_signs_are_taken() -> None:
    cells = {"a.b;c.d", "a.b", "U.S./x"}
    for path, labels in itertools.product((".", "/", "none"), (";", "none")):
        found = detect(cells, path, labels)
        assert found == Separators(None if path == "none" else path, None if labels == "none" else labels)


def test_a_given_sign_settles_the_other() -> None:
    both = {"a|b", "a|c", "b|c", "b", "c", "a", "a|b|c"}
    assert detect(both, path="|") == Separators("|", None)
    assert detect(both, labels="|") == Separators(None, "|")
    assert detect(AMAZON, labels="none") == Separators(">", None)
    slashes = {"Arts > TV/Radio", "Arts > TV/Film", "News > UK/Ireland"}
    assert detect(slashes, path=">") == Separators(">", None)


@pytest.mark.parametrize("given", [{"path": "--"}, {"labels": "|"}, {"path": ""}, {"labels": ""}])
def test_a_given_sign_that_separates_nothing_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(HblmError, match=r"dataset\.prepare\.(label_)?separator="):
        detect({"a/b", "a/c"}, **given)


def test_names_of_a_given_tree_hold_what_signs_they_like() -> None:
    nodes = {"HIV/AIDS", "Lymphoma/Leukemia", "cs.lg", "stat.ml", "Crafts, Home", "Tools, Home", "Home"}
    assert choose_separators(nodes, path=None, labels=None, is_node=nodes.__contains__) == Separators(
        None, None
    )
    cells = {*nodes, "cs.lg;HIV/AIDS", "HIV/AIDS;stat.ml", "stat.ml;cs.lg", "Home;cs.lg", "Home;stat.ml"}
    assert choose_separators(cells, path=None, labels=None, is_node=nodes.__contains__) == Separators(
        None, ";"
    )


@pytest.mark.parametrize(
    ("signs", "cell", "paths"),
    [
        (Separators("/", None), "a / b/c ", [("a", "b", "c")]),
        (Separators(">", ";"), "a>b; a>c ;", [("a", "b"), ("a", "c")]),
        (Separators(None, ","), "a, b,,c", [("a",), ("b",), ("c",)]),
        (Separators(None, None), " a/b; c ", [("a/b; c",)]),
        (Separators(".", " "), "cs.lg  stat.ml", [("cs", "lg"), ("stat", "ml")]),
        (Separators("/", None), "a//b/", [("a", "", "b")]),
        (Separators("--", None), "Cafe\u0301--b-c", [("Café", "b-c")]),
    ],
)
def test_a_cell_is_split(signs: Separators, cell: str, paths: list[tuple[str, ...]]) -> None:
    assert signs.paths(cell) == paths
