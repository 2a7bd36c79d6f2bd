"""The BGC converter: the contract, blurbs that are no XML, genres at their levels, the published files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conversions import SHARED, Files, content, documents, first_file, ids, manifest
from converter_contract import ConverterContract, Fault, TinySet
from raws import file_of

from hblm.data.convert.label_trees import read_tree
from hblm.data.converters import load_script
from hblm.data.dataset import Prepared
from hblm.data.raw.blurbs import BookRecord, read_books
from hblm.document import SPLITS, Document
from hblm.taxonomy import Taxonomy

SET = "bgc"
needs_german = pytest.mark.skipif(not (SHARED / "bgc_german").is_dir(), reason="no German books")
needs_trees = pytest.mark.skipif(not (SHARED / "taxonomies").is_dir(), reason="no published trees")
Convert = Callable[..., Prepared]


HIERARCHY = (
    "Mystery & Suspense\tSuspense & Thriller\nHumor\n"
    "Children’s Books\tChildren’s Middle Grade Books\n"
    "Fiction\tMystery & Suspense\nFiction\tRomance\nFiction\t1950 – Present Fiction\n"
)


def book(isbn: str, topics: str = "<d0>Fiction</d0>", body: str = "A blurb.", title: str = "A Title") -> str:
    """Return a book as the set's description shows one."""
    return (
        f'<book date="2018-08-18" xml:lang="en">\n<title>{title}</title>\n<body>{body}</body>\n'
        f"<copyright>(c) Example</copyright>\n<metadata>\n<topics>{topics}</topics>\n"
        f"<author>A. Nobody</author><published>Jan 01, 2000</published><page_num>100 Pages</page_num>\n"
        f"<isbn>{isbn}</isbn><url>https://example.org/x</url>\n</metadata>\n</book>\n"
    )


LINES = book("1").count("\n")
THRILLER = "<d0>Fiction</d0><d1>Mystery & Suspense</d1><d1>Romance</d1><d2>Suspense & Thriller</d2>"
TRAIN, DEV, TEST = (f"BlurbGenreCollection_EN_{word}.txt" for word in ("train", "dev", "test"))


def encoded(**files: str) -> dict[str, bytes]:
    return {name: text.encode() for name, text in files.items()}


ENGLISH = encoded(
    **{
        "hierarchy.txt": HIERARCHY,
        TRAIN: book("11", THRILLER) + book("12", title="B &amp; C", body="D & E"),
        DEV: book("21", "<d0>Children’s Books</d0>", "Äpfel – “quoted”"),
        TEST: book("31", "<d0>Fiction</d0><d1>1950 – Present Fiction</d1>"),
    }
)
DOCUMENTS = {
    "train": [
        Document("11", "A blurb.", ("Fiction", "Mystery & Suspense", "Romance", "Suspense & Thriller")),
        Document("12", "D & E", ("Fiction",)),
    ],
    "val": [Document("21", "Äpfel – “quoted”", ("Children’s Books",))],
    "test": [Document("31", "A blurb.", ("Fiction", "1950 – Present Fiction"))],
}


def blurb(isbn: str, topics: str = "<d0>Fiction</d0>", body: str = "A blurb.\nOf two lines.") -> str:
    return (
        f'<book date="2018-08-18" xml:lang="en">\n<title>T</title>\n<body>{body}</body>\n'
        f"<topics>{topics}</topics>\n<isbn>{isbn}</isbn>\n</book>\n"
    )


def train(**changes: Any) -> Files:
    """Return the English files, with one book for training."""
    return ENGLISH | {TRAIN: book("11", **changes).encode()}


# --- the contract

BOOKS: Files = {
    "hierarchy.txt": (
        "Fiction\tMystery & Suspense\nFiction\tRomance\nHumor\nWomen’s\tWomen’s Fiction\n".encode()
    ),
    TRAIN: (blurb("11") + blurb("12", "<d0>Fiction</d0><d1>Mystery & Suspense</d1>")).encode(),
    DEV: blurb("21", "<d0>Women’s</d0>").encode(),
    TEST: blurb("31", "").encode(),
    "gold.txt": b"31\tRomance\tFiction\n",
}
FIRST = blurb("11")
SECOND = f"{TRAIN}:{1 + FIRST.count(chr(10))}"  # where the second book begins


def of_books(
    place: str, *words: str, longest: int | None = None, changes: Mapping[str, str | bytes | None]
) -> Fault:
    data = {name: text.encode() if isinstance(text, str) else text for name, text in changes.items()}
    return Fault(place, words, data, base="books", longest=longest)


def of_hierarchy(line: str, *words: str) -> Fault:
    return of_books(
        "hierarchy.txt:5", *words, changes={"hierarchy.txt": BOOKS["hierarchy.txt"] + line.encode()}
    )


FAULTS: Mapping[str, Fault] = {
    "no hierarchy": of_books("", "no hierarchy*.txt", f"it holds {DEV}", changes={"hierarchy.txt": None}),
    "two hierarchies": of_books("", "hierarchy*.txt is there 2 times", changes={"hierarchy_2.txt": "a\tb\n"}),
    "no books for validation": of_books("", DEV[-7:], f"found {TEST}, {TRAIN}", changes={DEV: None}),
    "no books": of_books("", "found none", "gold.txt", changes=dict.fromkeys((TRAIN, DEV, TEST))),
    "books of no split": of_books("", "expected", changes={"BlurbGenreCollection_EN.txt": blurb("99")}),
    "an empty file of books": of_books(DEV, "no book", changes={DEV: ""}),
    "an empty file of training books": of_books(TRAIN, "no book", changes={TRAIN: ""}),
    "a book that is not closed": of_books(
        SECOND, "never closed", changes={TRAIN: FIRST + blurb("12").replace("</book>", "") + blurb("13")}
    ),
    "a last book that is not closed": of_books(
        SECOND, "ends inside a book", changes={TRAIN: FIRST + blurb("12").replace("</book>", "")}
    ),
    "half a book": of_books(SECOND, "ends inside a book", changes={TRAIN: FIRST + blurb("12")[:60]}),
    "text between books": of_books(
        SECOND, "expected <book", "'junk", changes={TRAIN: FIRST + "junk\n" + blurb("12")}
    ),
    "text after books": of_books(SECOND, "other text", "'junk'", changes={TRAIN: FIRST + "junk\n"}),
    "another kind of file": of_books(f"{DEV}:1", "'<html>", changes={DEV: "<html>404</html>\n"}),
    "a book without text": of_books(
        SECOND, "no <body>", changes={TRAIN: FIRST + blurb("12").replace("body>", "text>")}
    ),
    "a book without ISBN": of_books(
        SECOND, "no <isbn>", changes={TRAIN: FIRST + blurb("12").replace("isbn>", "id>")}
    ),
    "an empty ISBN": of_books(SECOND, "no <isbn>", changes={TRAIN: FIRST + blurb(" ")}),
    "an ISBN twice": of_books(SECOND, "'11'", f"@{TRAIN}:1", "unique", changes={TRAIN: FIRST + blurb("11")}),
    "an ISBN in two splits": of_books(
        f"{DEV}:1", "'11'", f"@{TRAIN}:1", "unique", changes={DEV: blurb("11")}
    ),
    "a book without topics": of_books(
        SECOND, "no topics", "@gold.txt", "ISBN 12", changes={TRAIN: FIRST + blurb("12", "")}
    ),
    "a book without topics or gold.txt": of_books(f"{TEST}:1", "no topics", changes={"gold.txt": None}),
    "an unknown topic": of_books(
        SECOND, "'Humour'", "did you mean Humor?", changes={TRAIN: FIRST + blurb("12", "<d0>Humour</d0>")}
    ),
    "an unknown topic in gold.txt": of_books(
        "gold.txt:2", "'Humour'", "did you mean Humor?", changes={"gold.txt": "\ufeff99\tHumor\n31\tHumour\n"}
    ),
    "a line of gold.txt without labels": of_books(
        "gold.txt:1", "tab and labels", changes={"gold.txt": "31\n"}
    ),
    "an ISBN twice in gold.txt": of_books(
        "gold.txt:3", "'31'", "line 2", changes={"gold.txt": "subtask_b\n31\tHumor\n31\tHumor\n"}
    ),
    "books in cp1252": of_books(
        f"{DEV}:3",
        "not UTF-8 at byte 10",
        changes={DEV: blurb("21", body="caf\xe9").encode("cp1252")},
    ),
    "books in cp1252, an old Mac's lines": of_books(
        f"{DEV}:3", "byte 10", changes={DEV: blurb("21", body="caf\xe9").replace("\n", "\r").encode("cp1252")}
    ),
    "a book without an end": of_books(
        SECOND, "no </book> in 500", longest=500, changes={TRAIN: FIRST + blurb("12", body="x" * 70_000)[:-9]}
    ),
    "a long line in the hierarchy": of_books(
        "hierarchy.txt:2",
        "more than 500",
        longest=500,
        changes={"hierarchy.txt": f"Fiction\tRomance\n{'x' * 501}"},
    ),
    "a cycle": of_hierarchy(
        "Romance\tFiction\n", "'Fiction' is its own ancestor", "Fiction -> Romance -> Fiction"
    ),
    "a node above itself": of_hierarchy("Humor\tHumor\n", "'Humor' is its own parent"),
    "two parents": of_hierarchy("Humor\tRomance\n", "'Romance' has two parents", "'Fiction' and 'Humor'"),
    "a hierarchy of one column": of_books(
        "hierarchy.txt", "parent", "tab", changes={"hierarchy.txt": "Fiction\n"}
    ),
    "an empty hierarchy": of_books("hierarchy.txt", "parent", changes={"hierarchy.txt": ""}),
    "an encoding that wants a mark": Fault(
        "hierarchy.txt", ("16",), {}, {"encoding": "utf-16"}, base="books"
    ),
}


def many(number: int) -> Files:
    books = "".join(book(str(at), body="word " * 4_000) for at in range(100, 100 + number))
    return {**ENGLISH, TRAIN: books.encode()}


class TestContract(ConverterContract):
    tiny = TinySet(
        name=SET,
        files=ENGLISH,
        documents=DOCUMENTS,
        needed="hierarchy.txt",
        texts=list(ENGLISH),
        options={
            "text": "title",
            "unused_nodes": "keep",
            "repeated_ids": "number",
            "shares": [0.5, 0.25, 0.25],
            "seed": 7,
            "clean": "lower",
            "encoding": "utf-8",
        },
        wrong={
            "an unknown name": ({"unused": "keep"}, ("prepare.unused", "did you mean unused_nodes?")),
            "two faults": (
                {"texts": "body", "seed": "x"},
                ("did you mean text?", "dataset.prepare.seed=x is not a whole number"),
            ),
            "an unknown word": ({"unused_nodes": "dorp"}, ("unused_nodes=dorp", "did you mean drop?")),
            "another type": ({"seed": 1.5}, ("seed=1.5 is not a whole number",)),
            "two shares": ({"shares": [0.9, 0.1]}, ("shares=[0.9, 0.1]", "three numbers")),
            "shares above 1": ({"shares": [0.9, 0.1, 0.1]}, ("shares=[0.9, 0.1, 0.1]", "add up to 1")),
            "a share of 0": ({"shares": [0.9, 0.1, 0]}, ("shares=[0.9, 0.1, 0.0]", "above 0")),
            "shares that are no numbers": ({"shares": [float("nan")] * 3}, ("shares=", "three numbers")),
            "no encoding": ({"encoding": "utf-9"}, ("dataset.prepare.encoding=", "no encoding")),
        },
        faults=FAULTS,
        bases={"books": BOOKS},
        published={"documents": {"train": 58715, "val": 14785, "test": 18394}, "levels": [7, 46, 77, 16]},
        many=many,
    )


# --- the reader of books


def books(content: str | bytes) -> list[BookRecord]:
    data = content if isinstance(content, bytes) else content.encode()
    return list(read_books(file_of(data)))


def test_a_book_is_read_whole() -> None:
    assert books(book("0000000000000", THRILLER, "Invented\n blurb.", "On <Titles>")) == [
        BookRecord(
            line=1,
            title="On <Titles>",
            body="Invented\n blurb.",
            isbn="0000000000000",
            topics=((0, "Fiction"), (1, "Mystery & Suspense"), (1, "Romance"), (2, "Suspense & Thriller")),
        )
    ]


PLACES = {
    "one after the other": (book("1") + book("2"), [1, 1 + LINES]),
    "blank lines between": (f"\n\n{book('1')}\n \t\n{book('2')}\n\n", [3, 5 + LINES]),
    "several on one line": (
        book("1").replace("\n", "") + book("2").replace("\n", " ") + book("3"),
        [1, 1, 1],
    ),
    "an XML declaration": (f'<?xml version="1.0" encoding="UTF-8"?>\n{book("1")}', [2]),
    "a root and a comment": (f"<books>\n<!-- two\n<book> -->\n{book('1')}</books>\n", [4]),
    "a byte-order mark": ("\ufeff" + book("1") + book("2"), [1, 1 + LINES]),
    "a byte-order mark in UTF-16": (("\ufeff" + book("1") + book("2")).encode("utf-16-le"), [1, 1 + LINES]),
    "Windows line ends": ((book("1") + book("2")).replace("\n", "\r\n"), [1, 1 + LINES]),
    "an old Mac's line ends": ((book("1") + book("2")).replace("\n", "\r"), [1, 1 + LINES]),
    "no last line end": ((book("1") + book("2")).rstrip(), [1, 1 + LINES]),
    "an attribute less": (book("1").replace(' date="2018-08-18" xml:lang="en"', ""), [1]),
    "nothing": ("", []),
    "blanks": (" \n\n", []),
}


@pytest.mark.parametrize("layout", PLACES)
def test_books_are_found_with_their_lines(layout: str) -> None:
    given, lines = PLACES[layout]
    found = books(given)
    assert [(each.isbn, each.line) for each in found] == [
        (str(number), line) for number, line in enumerate(lines, 1)
    ]
    assert {(each.title, each.body, each.topics) for each in found} <= {
        ("A Title", "A blurb.", ((0, "Fiction"),))
    }


def test_a_book_may_lie_across_pieces_at_any_place() -> None:
    second = book("2", THRILLER, "Ä & b &amp; c")
    for cut in range(len(second) + 2):
        first = book("1", body="x" * ((1 << 16) - cut - len(book("1", body=""))))
        assert len(first) == (1 << 16) - cut
        found = books(first + second + book("3"))
        assert [each.isbn for each in found] == ["1", "2", "3"]
        assert [each.line for each in found] == [1, 1 + LINES, 1 + 2 * LINES]
        assert found[1][1:] == books(second)[0][1:]


def test_a_book_may_be_longer_than_several_pieces() -> None:
    body = "word \n" * 50_000
    assert [(each.isbn, each.line, len(each.body)) for each in books(book("1", body=body) + book("2"))] == [
        ("1", 1, len(body.strip())),
        ("2", LINES + 50_001, 8),
    ]


def test_windows_line_ends_may_lie_across_pieces() -> None:
    for cut in (1, 2):
        first = book("1", body="x" * ((1 << 16) - cut - len(book("1", body="").replace("\n", "\r\n"))))
        whole = (first + book("2")).replace("\n", "\r\n")
        assert whole[(1 << 16) - cut - 2 : (1 << 16) - cut] == "\r\n"
        assert [each.line for each in books(whole)] == [1, 1 + LINES]


ENTITIES = {
    "a raw &": ("Sense & Sensibility", "Sense & Sensibility"),
    "an escaped &": ("Sense &amp; Sensibility", "Sense & Sensibility"),
    "both": ("A & B &amp; C", "A & B & C"),
    "escaped twice": ("A &amp;amp; B", "A &amp; B"),
    "numbers": ("&#38; &#x26; &#8217;", "& & ’"),
    "marks": ("&lt;i&gt; &quot;x&quot;", '<i> "x"'),
    "no semicolon": ("rock &copies of &region &amp", "rock &copies of &region &amp"),
    "a raw & before a word and a semicolon": ("soul &reggae; jazz", "soul &reggae; jazz"),
    "a raw & without blanks": ("AT&T; R&B;", "AT&T; R&B;"),
    "tags": ("an <i>italic</i> word", "an <i>italic</i> word"),
    "dashes and apostrophes": ("Women’s – “what” it’s…", "Women’s – “what” it’s…"),
    "blanks around": ("\n  x  \n", "x"),
    "empty": ("", ""),
}


@pytest.mark.parametrize("kind", ENTITIES)
def test_entities_are_resolved_and_nothing_else(kind: str) -> None:
    raw, expected = ENTITIES[kind]
    assert books(book("1", body=raw, title=raw))[0][1:3] == (expected, expected)


def test_a_body_may_speak_of_tags() -> None:
    body = "how <isbn>12</isbn>, <d1>Romance</d1> and <title>x</title> are written"
    assert books(book("1", body=body)) == [BookRecord(1, "A Title", body, "1", ((0, "Fiction"),))]


TOPICS = {
    "English": "<d0>Fiction</d0><d1>Mystery &amp; Suspense</d1><d1>Romance</d1>",
    "German": '<category>\n<topic d="0">Fiction</topic>\n<topic d="1" label="True">Mystery & Suspense'
    '</topic>\n</category><category><topic d="1">Romance</topic></category>',
    "spaced": "<d0> Fiction\n</d0>\n<d1>Mystery & Suspense </d1> <d1>\nRomance</d1>",
}


@pytest.mark.parametrize("form", TOPICS)
def test_topics_are_read_in_both_forms(form: str) -> None:
    expected = ((0, "Fiction"), (1, "Mystery & Suspense"), (1, "Romance"))
    assert books(book("1", TOPICS[form]))[0].topics == expected


def test_topics_are_in_composed_form() -> None:
    assert books(book("1", "<d0>Erza\u0308hlungen</d0>"))[0].topics == ((0, "Erzählungen"),)


# --- documents


UNUSED = ["Children’s Middle Grade Books", "Humor"]


def test_nodes_that_no_book_has_are_dropped_and_named(convert: Convert) -> None:
    found = convert(ENGLISH)
    assert [node.id for node in found.taxonomy.nodes] == [
        *("Children’s Books", "Fiction"),
        *("1950 – Present Fiction", "Mystery & Suspense", "Romance", "Suspense & Thriller"),
    ]
    assert manifest(found)["repaired"]["nodes_without_documents_dropped"] == 2
    assert manifest(found)["warnings"] == [
        "nodes of the hierarchy without books, dropped: Humor, Children’s Middle Grade Books"
    ]


def test_nodes_that_no_book_has_may_be_kept(convert: Convert) -> None:
    found = convert(ENGLISH, unused_nodes="keep")
    assert {node.id for node in found.taxonomy.nodes} > set(UNUSED)
    assert [len(level) for level in found.taxonomy.levels] == [3, 4, 1]
    assert manifest(found)["repaired"]["nodes_without_documents_dropped"] == 0
    assert manifest(found)["warnings"] == []
    assert documents(found) == documents(convert(ENGLISH, "dropped"))


def test_a_node_above_a_topic_is_kept(convert: Convert) -> None:
    found = convert(train(topics="<d2>Suspense & Thriller</d2>"))
    assert documents(found)["train"][0].labels == ("Fiction", "Mystery & Suspense", "Suspense & Thriller")
    assert manifest(found)["repaired"]["documents_closed"] == 1


TEXTS = {
    "body": "D & E",
    "title": "B & C",
    "title_body": "B & C\nD & E",
    "hjcl": "Title: B & C. Text: D & E",
}


@pytest.mark.parametrize("text", TEXTS)
def test_the_text_is_made_of_the_parts_asked_for(text: str, convert: Convert) -> None:
    found = convert(ENGLISH, text=text)
    assert documents(found)["train"][1].text == TEXTS[text]
    assert manifest(found)["options"]["text"] == text


def test_every_text_is_tried() -> None:
    assert TEXTS.keys() == load_script(SET).TEXTS.keys()


@pytest.mark.parametrize(
    ("topics", "count"),
    [
        ("<d0>Fiction</d0><d1>Romance</d1>", 0),
        ("<d1>Fiction</d1><d1>Romance</d1>", 1),
        ("<d1>Fiction</d1><d0>Romance</d0>", 2),
        ("<d0>Fiction</d0><d7>Romance</d7>", 1),
    ],
)
def test_topics_on_another_level_are_counted(topics: str, count: int, convert: Convert) -> None:
    found = convert(train(topics=topics))
    assert manifest(found)["repaired"]["topics_on_another_level_than_said"] == count
    assert documents(found)["train"][0].labels == ("Fiction", "Romance")


def test_a_repeated_isbn_may_get_a_number(convert: Convert) -> None:
    changes = encoded(**{TRAIN: book("7") + book("7-2") + book("7", body="other"), DEV: book("7")})
    found = convert(ENGLISH | changes, repeated_ids="number")
    assert ids(found) == {"train": ["7", "7-2", "7-3"], "val": ["7-4"], "test": ["31"]}
    assert manifest(found)["repaired"]["repeated_ids_numbered"] == 2


# --- labels of their own, splits of our own

LEAVES = [
    "Suspense & Thriller",
    "Romance",
    "1950 – Present Fiction",
    "Children’s Middle Grade Books",
    "Humor",
]
GOLD = {f"{at:013}": LEAVES[at % len(LEAVES)] for at in range(40)}
APART: Files = encoded(
    **{
        "hierarchy.txt": HIERARCHY,
        "blurbs_dev_participants.txt": "\n".join(book(isbn, "", f"Blurb {isbn}") for isbn in GOLD),
        "gold.txt": "subtask_a\n"
        + "".join(f"{isbn}\tHumor\n" for isbn in GOLD)
        + "subtask_b\n"
        + "".join(f"{isbn}\t{leaf}\tHumor\t{leaf}\n" for isbn, leaf in GOLD.items()),
    }
)


def test_one_file_of_books_is_split_and_labelled_by_isbn(convert: Convert) -> None:
    found = convert(APART)
    labels = {document.id: document.labels for split in SPLITS for document in found.documents(split)}
    assert labels.keys() == GOLD.keys()
    assert all({GOLD[isbn], "Humor"} <= set(labels[isbn]) for isbn in GOLD)
    assert set(labels["0000000000000"]) == {"Fiction", "Humor", "Mystery & Suspense", "Suspense & Thriller"}
    assert {split: len(list(found.documents(split))) for split in SPLITS} == {
        "train": 32,
        "val": 4,
        "test": 4,
    }
    trained = {label for document in found.documents("train") for label in document.labels}
    assert trained == {node.id for node in found.taxonomy.nodes}
    assert "the splits were drawn by seed 13" in manifest(found)["warnings"]
    assert [source["name"] for source in manifest(found)["sources"]] == sorted(APART)


def test_the_drawn_splits_follow_seed_and_shares(convert: Convert) -> None:
    one = convert(APART, "one")
    assert content(one) == content(convert(APART, "again", seed=13))
    assert content(one) != content(convert(APART, "other", seed=14))
    halves = convert(APART, shares=[0.5, 0.25, 0.25])
    assert [len(list(halves.documents(split))) for split in SPLITS] == [20, 10, 10]


def test_only_what_follows_subtask_b_counts(convert: Convert) -> None:
    a, b = APART["gold.txt"].split(b"subtask_b\n")
    other_order = APART | {"gold.txt": b"subtask_b\n" + b + a}
    assert documents(convert(other_order, "turned")) == documents(convert(APART))
    assert documents(convert(APART | {"gold.txt": b}, "alone")) == documents(convert(APART, "once more"))


def test_topics_in_a_book_are_stronger_than_the_file(convert: Convert) -> None:
    found = convert(ENGLISH | {"gold.txt": b"11\tHumor\n21\tHumor\n99\tHumor\n"})
    assert documents(found) == documents(convert(ENGLISH, "without"))


# --- real data


def tree_of(file: Path) -> Taxonomy:
    tree: Taxonomy = first_file(file, read_tree)
    return tree


def gold_of(text: str) -> dict[str, set[str]]:
    rows = (line.split("\t") for line in text.split("subtask_b\n")[1].splitlines())
    return {isbn: set(labels) for isbn, *labels in rows}


@needs_german
def test_the_german_books_are_all_read_with_all_their_labels(convert: Convert) -> None:
    raw = SHARED / "bgc_german"
    found = convert(raw, unused_nodes="keep")
    made = [document for split in SPLITS for document in found.documents(split)]
    gold = gold_of((raw / "gold.txt").read_text(encoding="utf-8"))
    assert len(made) == len(gold) == 2079
    assert {document.id: set(document.labels) for document in made} == gold  # closed already
    assert len(found.taxonomy) == 343
    assert [len(level) for level in found.taxonomy.levels] == [8, 93, 242]
    assert manifest(found)["repaired"]["documents_closed"] == 0
    assert manifest(found)["repaired"]["nodes_without_documents_dropped"] == 0


@needs_german
def test_the_german_blurbs_are_those_of_the_file(convert: Convert) -> None:
    raw = (SHARED / "bgc_german" / "blurbs_dev_participants.txt").read_text(encoding="utf-8")
    bodies = [body.strip() for body in re.findall("<body>(.*?)</body>", raw, re.DOTALL)]
    found = convert(SHARED / "bgc_german")
    texts = Counter(document.text for split in SPLITS for document in found.documents(split))
    assert texts == Counter(body.replace("&amp;", "&") for body in bodies)
    assert not any(re.search(r"&(amp|lt|gt|quot|#\d+);", text) for text in texts)
    assert sum("&" in text for text in texts) == sum("&" in body for body in set(bodies)) > 10


SIX = {
    "Children’s Activity & Novelty Books",
    "Children’s Board Books",
    "Children’s Boxed Sets",
    "Children’s Chapter Books",
    "Childrens Media Tie-In Books",
    "Children’s Picture Books",
}


@needs_trees
def test_the_real_hierarchy_less_six_nodes_is_the_published_tree() -> None:
    whole, final = (tree_of(SHARED / "taxonomies" / f"bgc.{end}") for end in ("hierarchy.txt", "taxonomy"))
    assert [len(level) for level in whole.levels] == [7, 52, 77, 16]
    assert [len(level) for level in final.levels] == [7, 46, 77, 16]
    parents = {node.id: node.parent for node in whole.nodes}
    assert len(parents) == 152
    assert {parents.pop(node) for node in SIX} == {"Children’s Books"}
    assert parents == {node.id: node.parent for node in final.nodes}


@needs_trees
def test_books_of_the_real_hierarchy_make_the_published_tree(convert: Convert) -> None:
    final = tree_of(SHARED / "taxonomies" / "bgc.taxonomy")
    level = {final.nodes[at].id: number for number, places in enumerate(final.levels) for at in places}
    every = "".join(
        book(f"{at:013}", f"<d{level[node.id]}>{node.id.replace('&', '&amp;')}</d{level[node.id]}>")
        for at, node in enumerate(final.nodes)
    )
    hierarchy = (SHARED / "taxonomies" / "bgc.hierarchy.txt").read_text(encoding="utf-8")
    found = convert(encoded(**{"hierarchy.txt": hierarchy, TRAIN: every, DEV: book("1"), TEST: book("2")}))
    assert found.taxonomy == Taxonomy(sorted(final.nodes, key=lambda node: node.id))
    assert manifest(found)["repaired"]["nodes_without_documents_dropped"] == 6
    assert manifest(found)["repaired"]["topics_on_another_level_than_said"] == 0
    assert all(name in manifest(found)["warnings"][0] for name in SIX)
    assert [len(level) for level in found.taxonomy.levels] == TestContract.tiny.published["levels"]
