"""The user's own data: the contract, every format and tree form, drawn splits, one message for each fault."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from converter_contract import ConverterContract, Fault, TinySet
from customs import (
    Documents,
    Files,
    Record,
    composed,
    config,
    delimited,
    documents,
    jsonl,
    parquet,
    prepared,
    prepared_by,
    sizes,
    tabbed,
    write,
    zipped,
)
from programs import run

import datasets
from hblm.data import preparation
from hblm.data.dataset import Prepared
from hblm.data.writer import FILES
from hblm.document import SPLITS, Document
from hblm.errors import ConfigError, DataError

ROOT = Path(__file__).parents[2]


# --- the contract


def rows_of(split: str, count: int, words: int = 1) -> bytes:
    rows = [
        {"id": f"{split}{at}", "text": "word " * words + str(at), "label": f"a/b{at % 2}"}
        for at in range(count)
    ]
    return delimited(rows)


SPLIT_FILES = {f"{split}.csv": rows_of(split, 2) for split in SPLITS}


class TestContract(ConverterContract):
    tiny = TinySet(
        name="custom",
        files=SPLIT_FILES,
        documents={
            split: [Document(f"{split}{at}", f"word {at}", ("a", f"a/b{at}")) for at in range(2)]
            for split in SPLITS
        },
        needed="train.csv",
        texts=list(SPLIT_FILES),
        options={
            "text": ["text"],
            "labels": ["label"],
            "levels": None,
            "id": "id",
            "split": "none",
            "list": "labels",
            "separator": "/",
            "label_separator": "none",
            "label_names": "none",
            "taxonomy": "none",
            "delimiter": ",",
            "header": "first",
            "quote": "'",
            "encoding": "utf-8",
            "shares": [0.5, 0.25, 0.25],
            "seed": 7,
            "unlabelled": "drop",
            "clean": "lower",
            "merge_labels": True,
            "null_labels": "empty",
            "empty_texts": "drop",
            "repeated_headers": "keep",
        },
        wrong={
            "a name": (
                {"seperator": "/"},
                ("dataset.prepare.seperator is not an option of custom; did you mean separator?",),
            ),
            "types": (
                {"seed": "x", "unlabelled": "dorp", "shares": ["a"]},
                ("seed=x is not a whole number", "did you mean drop?", "dataset.prepare.shares="),
            ),
            "shares": ({"shares": [0.8, 0.3, 0.1]}, ("shares=[0.8, 0.3, 0.1]",)),
            "an encoding": ({"encoding": "hex"}, ("encoding=hex is no",)),
            "a quote": ({"quote": "ab"}, ("dataset.prepare.quote=",)),
        },
        faults={
            "too many cells": Fault(
                "train.csv:4", ("4 cells", "the header has 3"), {"train.csv": rows_of("t", 2) + b"d,a,b,c\n"}
            ),
            "Latin-1": Fault(
                "test.csv:4",
                ("not UTF-8 at byte 7", "dataset.prepare.encoding=cp1252"),
                {"test.csv": rows_of("test", 2) + b"d9,caf\xe9,a/b0\n"},
            ),
            "an id of another split": Fault(
                "val.csv:2",
                ("the id 'train1' is also that of", "@train.csv:3"),
                {"val.csv": b"id,text,label\ntrain1,u,a/b0\n"},
            ),
            "a quote never closed": Fault(
                "test.csv:4",
                ("a quote is opened in this row and never closed", "dataset.prepare.quote=none"),
                {"test.csv": rows_of("test", 2) + b'd9,"t9,a/b0\nd10,t,a/b1\n'},
            ),
            "a number for a text": Fault(
                "test.jsonl:1",
                ("text must be a text, found 5",),
                {"test.csv": None, "test.jsonl": b'{"id": "x", "text": 5, "label": "a/b0"}\n'},
            ),
            "true for a label": Fault(
                "test.jsonl:1",
                ("label must hold labels",),
                {"test.csv": None, "test.jsonl": b'{"id": "x", "text": "t", "label": [true]}\n'},
            ),
            "half a character": Fault(
                "test.jsonl:1",
                ("'x'", "lone surrogate"),
                {"test.csv": None, "test.jsonl": b'{"id": "x", "text": "\\ud800", "label": "a/b0"}\n'},
            ),
            "a line without an end": Fault(
                "test.csv:4",
                ("a line of more than 50,000 characters",),
                {"test.csv": rows_of("test", 2) + b"d9," + b"word " * 20_000},
                longest=50_000,
            ),
        },
        many=lambda number: {**SPLIT_FILES, "train.csv": rows_of("train", number, 4_000)},
    )


# --- formats

INVENTED = [
    ("d1", "train", "light bends – é", "Science/Physics/Optics"),
    ("d2", "train", "planets fall", "Science/Physics"),
    ("d3", "train", 'a "song", quiet; or | loud', "Arts/Music"),
    ("d4", "train", "film\nof rain", "Arts/General"),
    ("d5", "train", "rocks", "Science/General"),
    ("d6", "train", "nothing new", "News"),
    ("d7", "val", "waves", "Science/Physics"),
    ("d8", "test", "opera", "Arts/Music"),
]


def prefixes(path: str, sign: str = "/") -> list[str]:
    return list(itertools.accumulate(path.split(sign), lambda above, name: f"{above}{sign}{name}"))


EXPECTED: Documents = {
    identity: (split, text, frozenset(tuple(node.split("/")) for node in prefixes(path)))
    for identity, split, text, path in INVENTED
}
ID_OF = {
    "Science": "n0",
    "Arts": "n1",
    "News": "n2",
    "Science/Physics": "n3",
    "Science/General": "n4",
    "Arts/Music": "n5",
    "Arts/General": "n6",
    "Science/Physics/Optics": "n7",
}
NODES = [
    {"id": node, "name": path.rpartition("/")[2], "parent": ID_OF.get(path.rpartition("/")[0])}
    for path, node in ID_OF.items()
]
TREE = {"taxonomy.json": json.dumps({"nodes": NODES}).encode()}


def rows(**labels: Callable[[str], Any]) -> list[Record]:
    """Return the invented documents as records; each label column is made of the path."""
    return [
        {"id": identity, "split": split, "text": text} | {name: make(path) for name, make in labels.items()}
        for identity, split, text, path in INVENTED
    ]


def of_split(records: Sequence[Record], split: str) -> list[Record]:
    return [
        {key: record[key] for key in record if key != "split"}
        for record in records
        if record["split"] == split
    ]


def by_file(records: Sequence[Record], pack: Callable[[Sequence[Record]], bytes], pattern: str) -> Files:
    """Return a file for each split; `%s` in their names is the split's word."""
    words = {"train": "train", "val": "dev", "test": "test"}
    return {pattern % word: pack(of_split(records, split)) for split, word in words.items()}


def level(at: int) -> Callable[[str], str | None]:
    return lambda path: dict(enumerate(path.split("/"))).get(at)


def listed(at: int) -> Callable[[str], list[str]]:
    return lambda path: path.split("/")[at : at + 1]


def joined(sign: str) -> Callable[[str], str]:
    return lambda path: path.replace("/", sign)


LEVELS = rows(l1=level(0), l2=level(1), l3=level(2))
PATHS = rows(label=joined("/"))
LISTS_OF_LEVELS = rows(**{f"labels_level{at}": listed(at - 1) for at in (1, 2, 3)})


def columns_of(records: Sequence[Record]) -> dict[str, list[Any]]:
    return {name: [record[name] for record in records] for name in records[0]}


def sheet(records: Sequence[Record]) -> bytes:
    """Return an Excel workbook."""
    book = openpyxl.Workbook()
    for row in [list(records[0]), *map(list, map(dict.values, records))]:
        book.active.append(row)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def several(records: Sequence[Record], sign: str) -> bytes:
    """Return delimited text, its delimiter of several characters."""
    return delimited(records, "\x01").replace(b"\x01", sign.encode())


CLASSIFIER = [
    {key: record[key] for key in record if key != "text"}
    | {"doc_token": record["text"].split(" "), "doc_keyword": [], "doc_topic": []}
    for record in rows(doc_label=lambda path: [path.replace("/", "--")])
]
SHARDS = {
    "data/train-00000-of-00002.parquet": parquet(of_split(LEVELS, "train")[:4]),
    "data/train-00001-of-00002.parquet": parquet(of_split(LEVELS, "train")[4:]),
    "data/validation-00000-of-00001.parquet": parquet(of_split(LEVELS, "val")),
    "data/test-00000-of-00001.parquet": parquet(of_split(LEVELS, "test")),
}


def files(content: Files) -> Callable[[], Path]:
    return lambda: write(content)


def one_csv(**labels: Callable[[str], Any]) -> Callable[[], Path]:
    return files({"x.csv": delimited(rows(**labels))})


def saved(*, one: bool) -> Path:
    """Save the documents as Hugging Face's library does: a Dataset of lists, or a DatasetDict."""
    classes = datasets.ClassLabel(names=sorted({path for *_, path in INVENTED}))
    strings = {name: datasets.Value("string") for name in ("id", "text")}
    datasets.disable_progress_bars()
    if one:
        features = strings | {"split": strings["id"], "label": datasets.Sequence(classes)}
        records = rows(label=lambda path: [classes.str2int(path)])
        whole = datasets.Dataset.from_list(records, features=datasets.Features(features))
    else:
        records = rows(label=classes.str2int)
        features = datasets.Features(strings | {"label": classes})
        names = {"train": "train", "val": "validation", "test": "test"}
        whole = datasets.DatasetDict(
            {
                name: datasets.Dataset.from_list(of_split(records, split), features=features)
                for split, name in names.items()
            }
        )
    whole.save_to_disk("raw")
    return Path("raw")


FORMATS: dict[str, tuple[Callable[[], Path], dict[str, Any]]] = {
    "JSONL, a list": (files({"x.jsonl": jsonl(rows(labels=lambda path: [path]))}), {}),
    "JSONL, every node of the path": (files({"x.jsonl": jsonl(rows(labels=prefixes))}), {}),
    "JSONL, a path": (files({"x.jsonl": jsonl(rows(category=joined(" > ")))}), {}),
    "NeuralClassifier": (files(by_file(CLASSIFIER, jsonl, "news_%s.json")), {}),
    "CSV, levels": (files({"x.csv": delimited(LEVELS)}), {}),
    "CSV, levels by name": (
        one_csv(top=level(0), mid=level(1), low=level(2)),
        {"levels": ["top", "mid", "low"]},
    ),
    "CSV, dots and semicolons": (files({"x.csv": delimited(rows(path=joined(".")), ";")}), {}),
    "CSV, another separator": (one_csv(path=joined(" - ")), {"separator": " - "}),
    "CSV, Python's lists": (one_csv(tags=lambda path: str(prefixes(path))), {}),
    "CSV, JSON's lists": (one_csv(tags=lambda path: json.dumps(prefixes(path))), {}),
    "CSV, several paths": (
        one_csv(tags=lambda path: "; ".join(prefixes(path))),
        {"label_separator": ";"},
    ),
    "CSV, several columns": (one_csv(a=joined("/"), b=level(0)), {"labels": ["a", "b"]}),
    "CSV, under Root": (one_csv(path="Root/{}".format), {}),
    "CSV in a gz": (files({"x.csv.gz": gzip.compress(delimited(rows(label=joined("::"))))}), {}),
    "CSV in a zip": (
        files({"x.zip": zipped(by_file(rows(label=joined("|")), delimited, "in/%s.csv"))}),
        {},
    ),
    "TSV, three files": (files(by_file(PATHS, tabbed, "%s.tsv")), {}),
    "Parquet, shards of levels": (files(SHARDS), {}),
    "Parquet, lists": (files({"x.parquet": parquet(rows(labels=prefixes))}), {}),
    "Parquet, lists of lists": (
        files({"x.parquet": parquet(rows(labels=lambda path: [path.split("/")]))}),
        {},
    ),
    "JSONL, a list is a path": (
        files({"x.jsonl": jsonl(rows(labels=lambda path: path.split("/")))}),
        {"list": "path"},
    ),
    "CSV, a list is a path": (
        one_csv(labels=lambda path: str(path.split("/"))),
        {"list": "path"},
    ),
    "lists that lead down a tree": (
        files({"x.jsonl": jsonl(rows(labels=lambda path: path.split("/"))), **TREE}),
        {},
    ),
    "JSONL, lists of levels": (files({"x.jsonl": jsonl(LISTS_OF_LEVELS)}), {}),
    "CSV, lists of levels": (files({"x.csv": delimited(LISTS_OF_LEVELS)}), {}),
    "spaCy": (
        files({"x.jsonl": jsonl(rows(cats=lambda path: {each: float(each == path) for each in ID_OF}))}),
        {},
    ),
    "objects with a name": (
        files({"x.jsonl": jsonl(rows(tags=lambda path: [{"no": 3, "name": path}]))}),
        {},
    ),
    "a JSON array": (files({"x.json": json.dumps(PATHS).encode()}), {}),
    "a pretty JSON array": (files({"x.json": json.dumps(PATHS, indent=2).encode()}), {}),
    "JSON, columns": (files({"x.json": json.dumps(columns_of(PATHS)).encode()}), {}),
    "a sheet": (files({"x.xlsx": sheet(PATHS)}), {}),
    "sheets of levels": (files(by_file(LEVELS, sheet, "%s.xlsx")), {}),
    "CSV without a header": (
        files({"x.csv": delimited(PATHS).partition(b"\n")[2]}),
        {"header": "none", "id": 1, "split": 2, "text": 3, "labels": 4},
    ),
    "a delimiter of several": (
        files({"x.csv": several(PATHS, "::")}),
        {"delimiter": "::"},
    ),
    "another delimiter of several": (
        files({"x.txt": several(PATHS, " ||| ")}),
        {"delimiter": " ||| "},
    ),
    "a Dataset": (lambda: saved(one=True), {}),
    "a DatasetDict": (lambda: saved(one=False), {}),
    "ids of a tree": (files({"x.csv": delimited(rows(label=ID_OF.__getitem__)), **TREE}), {}),
    "paths in a tree": (files({"x.csv": delimited(PATHS), **TREE}), {}),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_documents(kind: str) -> None:
    make, options = FORMATS[kind]
    found = prepared(make(), **options)
    assert documents(found) == EXPECTED
    assert [len(nodes) for nodes in found.taxonomy.levels] == [3, 4, 1]
    assert len({node.name for node in found.taxonomy.nodes}) == 7


def test_several_labels_are_several_paths() -> None:
    records = [
        {"text": "a", "label": ["x/y", "z"], "id": 1, "split": "train"},
        {"text": "b", "label": ["z/y"], "id": 2, "split": "val"},
        {"text": "c", "label": ["x/y", "x/w", "z/y"], "id": 3, "split": "test"},
    ]
    found = documents(prepared(write({"x.jsonl": jsonl(records)})))
    assert {identity: labels for identity, (_, _, labels) in found.items()} == {
        "1": {("x",), ("x", "y"), ("z",)},
        "2": {("z",), ("z", "y")},
        "3": {("x",), ("x", "y"), ("x", "w"), ("z",), ("z", "y")},
    }


# --- trees in files

LISTED = [
    {"token": "light bends", "label": ["Science", "Physics", "Optics"]},
    {"token": "rocks", "label": ["Physics", "Science"]},
    {"token": "opera and light", "label": ["Music", "Optics"]},
    {"token": "nothing new", "label": ["News"]},
]
EDGES = {
    "Optics": "Physics",
    "Physics": "Science",
    "Arts": None,
    "Music": "Arts",
    "News": None,
    "Science": None,
}
TREE_FORMS: dict[str, tuple[str, str]] = {
    "HiAGM": ("news.taxonomy", "Root\tScience\tArts\tNews\nScience\tPhysics\nPhysics\tOptics\nArts\tMusic\n"),
    "HiAGM in another order": (
        "news.taxnomy",
        "Physics\tOptics\nArts\tMusic\nRoot\tNews\tArts\tScience\nScience\tPhysics\n",
    ),
    "HiAGM without Root": ("hierarchy.txt", "Science\tPhysics\nPhysics\tOptics\nArts\tMusic\nNews\n"),
    "pairs": (
        "taxonomy.tsv",
        "parent\tchild\n" + "".join(f"{parent or 'Root'}\t{child}\n" for child, parent in EDGES.items()),
    ),
    "pairs as CSV": ("tree.csv", "parent,child\n,News\nArts,Music\nScience,Physics\nPhysics,Optics\n"),
    "ours": (
        "taxonomy.json",
        json.dumps(
            {"nodes": [{"id": name, "name": name, "parent": parent} for name, parent in EDGES.items()]}
        ),
    ),
}


@pytest.mark.parametrize("kind", TREE_FORMS)
def test_every_form_of_a_tree_gives_the_same(kind: str) -> None:
    name, content = TREE_FORMS[kind]
    parts = {
        f"{split}.json": jsonl([{**record, "id": f"{split}{at}"} for at, record in enumerate(LISTED)])
        for split in SPLITS
    }
    named = name if name == "tree.csv" else None
    found = prepared(write({**parts, name: content.encode()}), taxonomy=named)
    assert {node.id: node.parent for node in found.taxonomy.nodes} == EDGES
    assert all(node.id == node.name for node in found.taxonomy.nodes)
    assert {document.id: set(document.labels) for document in found.documents("val")} == {
        "val0": {"Science", "Physics", "Optics"},
        "val1": {"Science", "Physics"},
        "val2": {"Arts", "Music", "Science", "Physics", "Optics"},
        "val3": {"News"},
    }


@pytest.mark.parametrize("folder", ["elsewhere", "raw"])
def test_a_tree_may_be_named_by_its_path(folder: str) -> None:
    records = [{**record, "token": f"{record['token']} {at}"} for at in range(3) for record in LISTED]
    raw = write({"news.jsonl": jsonl(records), "README.md": b"# News"})
    name, content = TREE_FORMS["pairs as CSV"]
    tree = write({name: content.encode()}, folder)
    found = prepared(raw, taxonomy=str(tree))
    assert len(found.taxonomy) == 6
    assert found.manifest is not None
    read = [Path(source["name"]).name for source in found.manifest["sources"]]
    assert sorted(read) == ["news.jsonl", "tree.csv"]
    assert (
        preparation.prepare(config(raw, taxonomy=str(tree)).dataset, raw, config(raw).encoder) is None
    )  # again


@pytest.mark.parametrize("name", ["hierarchy.txt", "taxonomy.json"])
def test_taxonomy_none_leaves_the_tree_beside_the_data_alone(name: str) -> None:
    raw = write({"x.csv": delimited(PATHS), name: b"a\tb\n"})
    assert documents(prepared(raw, taxonomy="none")) == EXPECTED


def test_texts_of_a_given_tree_are_kept() -> None:
    texts = {"n1": "Music, painting and more.", "n7": "Light\nand lenses"}
    nodes = [row | ({"text": texts[row["id"]]} if row["id"] in texts else {}) for row in NODES]
    tree = {"taxonomy.json": json.dumps({"nodes": nodes}).encode()}
    found = prepared(write({"x.csv": delimited(PATHS)} | tree))
    assert documents(found) == EXPECTED
    assert {node.id: node.text for node in found.taxonomy.nodes if node.text} == texts


def test_names_are_no_paths_on_request() -> None:
    raw = write({"x.csv": delimited([{"text": f"t{at}", "label": f"a/b{at % 2}"} for at in range(9)])})
    found = prepared(raw, separator="none")
    assert [(node.id, node.parent) for node in found.taxonomy.nodes] == [("a/b0", None), ("a/b1", None)]


def test_levels_hold_any_sign() -> None:
    records = [{"text": f"t{at}", "l1": "TV/Radio", "l2": f"a.b;{at % 2}, \\"} for at in range(9)]
    found = prepared(write({"x.csv": delimited(records)}))
    (top, *children) = found.taxonomy.nodes
    assert (top.name, top.parent) == ("TV/Radio", None)
    assert {child.name for child in children} == {"a.b;0, \\", "a.b;1, \\"}
    assert {child.parent for child in children} == {top.id}


# --- newsgroups: an inferred tree of uneven depth, drawn splits

GROUPS = """
    alt.atheism comp.graphics comp.os.ms-windows.misc comp.sys.ibm.pc.hardware comp.sys.mac.hardware
    comp.windows.x misc.forsale rec.autos rec.motorcycles rec.sport.baseball rec.sport.hockey sci.crypt
    sci.electronics sci.med sci.space soc.religion.christian talk.politics.guns talk.politics.mideast
    talk.politics.misc talk.religion.misc
""".split()  # noqa: SIM905 (a list would be twenty lines)
RARE = "comp.os.ms-windows.misc"
OFTEN = [group for group in GROUPS if group != RARE]


def newsgroups() -> list[Record]:
    """Return 200 documents: one of the rarest group, 19 texts that are there again, some in another group."""
    posts = [
        {"document": f"post {at}, thing {at * 7 % 31}", "group": OFTEN[at % len(OFTEN)]} for at in range(180)
    ]
    again = [posts[10 * at] if at % 2 else {**posts[10 * at], "group": OFTEN[at]} for at in range(18)]
    return [{"document": "one of its kind", "group": RARE}, *posts, *again, posts[0]]


NEWS = {"20 news.csv": delimited(newsgroups())}


@pytest.fixture(scope="module")
def news(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Return the prepared newsgroups; tests only read them."""
    folder = tmp_path_factory.mktemp("newsgroups")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        cfg = config(write(NEWS))
        return prepared_by(replace(cfg, dataset=replace(cfg.dataset, path=str(folder / "20 news"))))


def test_a_dotted_column_is_a_tree_of_uneven_depth(news: Prepared) -> None:
    assert [len(nodes) for nodes in news.taxonomy.levels] == [7, 16, 11, 3, 1]
    tops = [node.id for node in news.taxonomy.nodes if node.parent is None]
    assert tops == ["alt", "comp", "misc", "rec", "sci", "soc", "talk"]
    deepest = news.taxonomy.nodes[-1]
    assert (deepest.id, deepest.name) == ("comp.sys.ibm.pc.hardware", "hardware")
    assert {node.id: node.parent for node in news.taxonomy.nodes if node.name == "misc"} == {
        "misc": None,
        "comp.os.ms-windows.misc": "comp.os.ms-windows",
        "talk.politics.misc": "talk.politics",
        "talk.religion.misc": "talk.religion",
    }


def test_drawn_splits_share_no_text_and_train_every_node(news: Prepared) -> None:
    texts = [{document.text for document in news.documents(split)} for split in SPLITS]
    assert sum(map(len, texts)) == len(set().union(*texts)) == 181
    trained = {label for document in news.documents("train") for label in document.labels}
    assert trained == set(news.taxonomy.index)
    assert sum(sizes(news)) == 200
    assert all(abs(size - wanted) <= 3 for size, wanted in zip(sizes(news), (160, 20, 20), strict=True))


def test_every_document_is_there_with_its_whole_path(news: Prepared) -> None:
    found = [document for split in SPLITS for document in news.documents(split)]
    assert Counter((document.text, document.labels[-1]) for document in found) == Counter(
        (record["document"], record["group"]) for record in newsgroups()
    )
    assert all(list(document.labels) == prefixes(document.labels[-1], ".") for document in found)
    assert len({document.id for document in found}) == 200


def test_the_report_says_what_the_data_is(news: Prepared) -> None:
    report = (news.folder / "report.md").read_text(encoding="utf-8")
    for part in (
        "# 20 news\n",
        "200 documents, 38 nodes on 5 levels (7 / 16 / 11 / 3 / 1).",
        news.fingerprint,
        "| options: separator | . |",
        "20 news.csv",
        "the splits were drawn by seed 13",
        "| val, text also in train | 0 |",
        "| test, text also in train | 0 |",
        "| test, text also in val | 0 |",
        "tokens: those of tiny",
    ):
        assert part in report
    within = [int(number) for number in re.findall(r"\| within \w+ \| (\d+) \|", report)]
    assert sum(within) == 19


def test_the_manifest_tells_what_was_detected_and_read(news: Prepared) -> None:
    assert news.manifest is not None
    detected = {
        "text": ["document"],
        "labels": ["group"],
        "levels": None,
        "id": "none",
        "split": "none",
        "separator": ".",
        "label_separator": "none",
        "taxonomy": "none",
    }
    assert news.manifest["converter"] == "custom"
    assert {name: news.manifest["options"][name] for name in detected} == detected
    (source,) = news.manifest["sources"]
    assert (source["name"], source["bytes"]) == ("20 news.csv", len(NEWS["20 news.csv"]))


def quoted(value: object) -> str:
    """Return a value as Hydra's command line takes it."""
    if isinstance(value, list):
        return f"[{','.join(map(quoted, value))}]"
    return "null" if value is None else f"'{value}'" if isinstance(value, str) else str(value)


SEVERAL = [
    {**record, "label": f"{record['label']}; News > {record['split']}"}
    for record in rows(label=joined(" > "))
] + [{**record, "id": f"e{at}"} for at, record in enumerate(rows(label=joined(" > ")))]
AGAIN: dict[str, Files] = {
    "newsgroups": NEWS,
    "levels": {"x.csv": delimited(LEVELS)},
    "several paths": {"x.csv": delimited(SEVERAL)},
    "a tree": {"x.csv": delimited(rows(label=ID_OF.__getitem__)), **TREE},
    "a tree by its name": {
        "x.jsonl": jsonl(
            [{**record, "token": f"{record['token']} {at}"} for at in range(3) for record in LISTED]
        ),
        "b.taxonomy": TREE_FORMS["HiAGM"][1].encode(),
    },
    "shards": SHARDS,
}


@pytest.mark.parametrize("kind", AGAIN)
@pytest.mark.slow
def test_the_options_of_the_manifest_give_the_same_bytes(kind: str) -> None:
    raw = write(AGAIN[kind], "in")
    first = prepared(raw)
    assert first.manifest is not None
    options = first.manifest["options"]
    assert set(options) == set(config(raw).dataset.prepare)
    given = [f"dataset.prepare.{name}={quoted(value)}" for name, value in options.items()]
    again = prepared_by(composed(f"raw='{raw}'", "dataset.name=again", *given))
    for file in FILES:
        assert (again.folder / file).read_bytes() == (first.folder / file).read_bytes()
    assert again.manifest is not None
    assert again.manifest["options"] == options


def test_the_seed_decides_the_splits() -> None:
    raw = write(NEWS)
    drawn = {
        name: prepared(raw, name, seed=seed).fingerprint for name, seed in (("a", 1), ("b", 2), ("c", 1))
    }
    assert drawn["a"] == drawn["c"] != drawn["b"]


def test_shares_are_kept() -> None:
    found = sizes(prepared(write(NEWS), shares=[0.5, 0.2, 0.3]))
    assert all(abs(size - wanted) <= 3 for size, wanted in zip(found, (100, 40, 60), strict=True))


@pytest.mark.parametrize(("word", "given", "drawn"), [("test", "test", "val"), ("valid", "val", "test")])
def test_a_missing_split_is_drawn_from_train(word: str, given: str, drawn: str) -> None:
    train, rest = newsgroups()[:180], newsgroups()[180:]
    found = prepared(write({"train.csv": delimited(train), f"{word}.csv": delimited(rest)}))
    assert [document.text for document in found.documents(given)] == [record["document"] for record in rest]
    size = dict(zip(SPLITS, sizes(found), strict=True))
    assert size["train"] + size[drawn] == 180
    assert 15 <= size[drawn] <= 25
    texts = {split: {document.text for document in found.documents(split)} for split in ("train", drawn)}
    assert not texts["train"] & texts[drawn]
    assert f"{drawn}: drawn from train by seed 13" in (found.folder / "report.md").read_text(encoding="utf-8")


# --- ids, texts, labels, splits


@pytest.mark.parametrize("pattern", ["train-%s.csv", "data/train-0000%s-of-00002.csv"])
def test_documents_without_ids_are_numbered_across_the_files_of_a_split(pattern: str) -> None:
    parts = {
        pattern % part: delimited([{"text": f"{part} {at}", "label": f"a/b{at % 2}"} for at in range(9)])
        for part in (0, 1)
    }
    raw = write({**parts, "test.csv": delimited([{"text": "t", "label": "a/b1"}])})
    assert len(documents(prepared(raw))) == 19


def test_ids_are_those_of_the_data_unless_they_are_not_wanted() -> None:
    raw = write(
        {"x.parquet": parquet([{"id": 9 - at, "text": f"t{at}", "label": f"a/b{at % 3}"} for at in range(9)])}
    )
    texts = {identity: text for identity, (_, text, _) in documents(prepared(raw)).items()}
    assert texts == {str(9 - at): f"t{at}" for at in range(9)}
    numbered = documents(prepared(raw, "numbered", id="none"))
    assert set(numbered) == {f"document-{at}" for at in range(1, 10)}


def test_texts_of_several_columns_are_joined_and_cleaned() -> None:
    records = [{"title": f"The TITLE {at}", "body": "It's Here", "label": f"a/b{at % 3}"} for at in range(9)]
    found = documents(prepared(write({"x.csv": delimited(records)}), text=["title", "body"], clean="lower"))
    assert {text for _, text, _ in found.values()} == {f"the title {at}\nit's here" for at in range(9)}


def test_documents_without_labels_are_dropped_or_kept_on_request() -> None:
    records = [{"text": f"t{at}", "label": "" if at in (3, 7) else f"a/b{at % 3}"} for at in range(30)]
    raw = write({"x.csv": delimited(records)})
    dropped = prepared(raw, "dropped", unlabelled="drop")
    assert {text for _, text, _ in documents(dropped).values()} == {
        f"t{at}" for at in range(30) if at not in (3, 7)
    }
    assert dropped.manifest is not None
    assert dropped.manifest["repaired"]["documents_without_labels"] == 2
    kept = documents(prepared(raw, "kept", unlabelled="keep"))
    empty = {text: split for split, text, labels in kept.values() if not labels}
    assert len(kept) == 30
    assert set(empty) == {"t3", "t7"}
    assert "train" not in empty.values()


@pytest.mark.parametrize("names", [("train", "validation", "test"), ("train", "test"), ("train",)])
def test_a_split_that_is_none_of_three_is_refused_or_told_of(names: Sequence[str]) -> None:
    parts = {
        name: datasets.Dataset.from_list([{"text": f"{name} {at}", "label": f"a/b{at}"} for at in range(5)])
        for name in (*names, "unsupervised")
    }
    datasets.disable_progress_bars()
    datasets.DatasetDict(parts).save_to_disk("raw")
    try:
        manifest = prepared("raw").manifest
    except DataError as error:
        told = str(error)
    else:
        assert manifest is not None
        told = json.dumps([manifest["warnings"], manifest["repaired"]])
    assert "unsupervised" in told


# --- as written on the command line

WRITTEN = {
    ".": ".",
    "--": "--",
    "|": "|",
    "/": "/",
    "'>'": ">",
    "' > '": ">",
    "','": ",",
    "null": "/",
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.slow
def test_a_separator_is_taken_as_it_is_written(written: str) -> None:
    sign = WRITTEN[written]
    write({"x.csv": delimited(rows(label=joined(f" {sign} ")))})
    given = [f"dataset.prepare.separator={written}"]
    if sign == ",":
        given.append("dataset.prepare.label_separator=none")
    assert documents(prepared_by(composed("raw=raw/x.csv", *given))) == EXPECTED


def test_none_is_no_separator() -> None:
    write({"x.csv": delimited(PATHS)})
    found = prepared_by(composed("raw=raw/x.csv", "dataset.prepare.separator=none"))
    assert [len(nodes) for nodes in found.taxonomy.levels] == [6]


@pytest.mark.parametrize("option", ["separator", "label_separator", "delimiter"])
def test_a_sign_that_the_shell_has_swallowed_is_missed(option: str) -> None:
    write({"x.csv": delimited(PATHS)})
    cfg = composed("raw=raw/x.csv", f"dataset.prepare.{option}=")
    with pytest.raises(ConfigError, match=rf"dataset\.prepare\.{option}="):
        preparation.run(cfg)
    assert left() == set()


# --- names and second runs


@pytest.mark.parametrize(
    ("raw", "folder"),
    [
        ("a/news.csv", "data/news"),
        ("news.CSV.gz", "data/news"),
        ("news.v2.jsonl", "data/news.v2"),
        ("news.tar.xz", "data/news"),
        ("a/folder/", "data/folder"),
        ("a/folder/.", "data/folder"),
        ("news.2024", "data/news.2024"),
        ("20 news.parquet", "data/20 news"),
    ],
)
def test_the_folder_is_called_as_the_raw_data(raw: str, folder: str) -> None:
    assert config(raw).dataset.path == folder


def test_the_folder_may_be_named() -> None:
    assert composed("raw=a/news.csv").dataset.path == "data/news"
    assert composed("raw=a/news.csv", "data_dir=/d").dataset.path == "/d/news"
    assert composed("raw=a/news.csv", "dataset.name=mine").dataset.path == "data/mine"
    assert composed("raw=a/news.csv", "dataset.path=x/y").dataset.path == "x/y"


def test_a_second_run_says_that_it_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    raw = write({"x.csv": delimited(PATHS)})
    found = prepared(raw)
    assert "is there already" not in capsys.readouterr().out
    before = (found.folder / "manifest.json").stat().st_mtime_ns
    prepared(raw)
    assert "data/x is there already; force=true prepares it again" in capsys.readouterr().out
    raw.write_bytes(delimited(rows(label=joined("|"))))
    with pytest.raises(DataError, match=r"data/x is there already, made of another x\.csv than"):
        prepared(raw)
    assert (found.folder / "manifest.json").stat().st_mtime_ns == before
    assert "Science|Physics" in prepared(raw, force=True).taxonomy.index


def test_what_was_made_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    prepared(write({"x.csv": delimited(PATHS)}))
    out = capsys.readouterr().out
    assert "8 documents, 8 nodes on 3 levels (3 / 4 / 1)" in out
    assert "data/x/report.md" in out
    command = "python -m hblm.train experiment=recommended encoder=minilm dataset=custom dataset.path=data/x"
    assert command in out


# --- faults

GOOD = [{"id": f"d{at}", "text": f"t{at}", "label": f"a/b{at % 2}"} for at in range(6)]
CSV, JSONL = delimited(GOOD), jsonl(GOOD)
PLAIN = {"news.csv": CSV}
LISTS = {"x.jsonl": jsonl([{"text": "t", "label": ["a"]}, {"text": "u", "label": ["a", "bb"]}])}
EMPTY = CSV + b"d9,t9, \n"

NO_ROWS = parquet(pyarrow.table({"text": [], "label": []}).to_pylist())

# files, options, what the message must say
FAULTS: dict[str, tuple[Files, dict[str, Any], list[str]]] = {
    "a header alone": ({"x.csv": b"text,label\n"}, {}, ["x.csv"]),
    "Parquet without rows": ({"x.parquet": NO_ROWS}, {}, ["x.parquet"]),
    "no training documents": (
        {"x.csv": delimited([{**record, "split": "test"} for record in GOOD])},
        {},
        ["no document for training: the splits named are test"],
    ),
    "a label outside the tree": (
        LISTS | {"t.taxonomy": b"Root\ta\na\tbbb\n"},
        {},
        ["x.jsonl:2: label 'bb' is not a node of the taxonomy", "did you mean bbb?"],
    ),
    "a path outside the tree": (
        {"x.csv": b"text,label\nt,a/b\nu,b/a\nv,a/b/a\n", "t.taxonomy": b"Root\ta\na\tb\n"},
        {"separator": "/"},
        ["x.csv:3: in the label 'b/a', 'b' is no top node"],
    ),
    "a name of two nodes": (
        {"x.csv": b"text,label\nt,General\n", **TREE},
        {},
        ["x.csv:2: several nodes have the name 'General'"],
    ),
    "a cycle": (LISTS | {"t.taxonomy": b"Root\ta\nb\tc\nc\tb\n"}, {}, ["t.taxonomy:", "is its own ancestor"]),
    "two parents": (
        LISTS | {"t.taxonomy": b"Root\ta\tb\na\tc\nb\tc\n"},
        {},
        ["t.taxonomy:3: node 'c' has two parents, 'a' and 'b'"],
    ),
    "two trees": (
        LISTS | {"t.taxonomy": b"a\tb\n", "hierarchy.txt": b"a\tb\n"},
        {},
        ["dataset.prepare.taxonomy=hierarchy.txt or t.taxonomy"],
    ),
    "no such tree": (PLAIN, {"taxonomy": "tre.txt"}, ["taxonomy=tre.txt is no file"]),
    "labels that are not paths": (
        {"x.csv": b"text,label\nt,a\nu,b\n"},
        {},
        ["('a', 'b' ...) are not paths", "dataset.prepare.taxonomy=FILE", "separator=SIGN"],
    ),
    "one path for all": ({"x.csv": b"text,label\nt,a/b\nu,a/b\n"}, {}, ["dataset.prepare.separator=SIGN"]),
    "signs that are ambiguous": (
        {"x.csv": b'text,label\nt,"A, B > C"\nu,"A, D > C"\n'},
        {},
        ["are not paths", "dataset.prepare.separator="],
    ),
    "an empty name in a path": (
        {"x.csv": CSV + b"d9,t,a//b\n"},
        {"separator": "/"},
        ["x.csv:8: a path with an empty name in", "'a//b'"],
    ),
    "a hole in the levels": (
        {"x.csv": b"text,l1,l2\nt,a,b\nu,,b\n"},
        {},
        ["x.csv:3: l1 is empty and a level below it is not"],
    ),
    "an id twice": ({"x.csv": CSV + b"d2,t9,a/b0\n"}, {}, ["x.csv:8: the id 'd2'", "x.csv:4"]),
    "an id in two splits": (
        {"train.csv": CSV, "test.csv": b"id,text,label\nd2,u,a/b0\n"},
        {},
        ["the id 'd2' is also that of", "train.csv:4", "test.csv:2"],
    ),
    "an empty id": ({"x.csv": CSV + b" ,t9,a/b0\n"}, {}, ["x.csv:8: id is empty", "dataset.prepare.id=none"]),
    "a cell of separators": (
        {"x.csv": b"text,label\nt,a/b;a/c\nu,a/b\nv,a/c\nw,a/b;e/d\nx,e/d\nz, ;\n"},
        {"label_separator": ";"},
        ["x.csv:7: no label in"],
    ),
    "equals in numbered columns": (
        {"x.csv": b"text,label1,label2\nt,a,b\nu,b,a\nv,a,\n"},
        {},
        ["are label1, label2 the levels of a tree?"],
    ),
    "half a character in a label": (
        {"x.jsonl": JSONL + b'{"id": "d9", "text": "t", "label": "a/\\ud800"}\n'},
        {},
        ["lone surrogate"],
    ),
    "an empty label": (
        {"x.csv": EMPTY},
        {},
        ["x.csv:8: no label (label is empty)", "dataset.prepare.unlabelled=drop", "=keep"],
    ),
    "an empty label in training": (
        {
            "train.csv": EMPTY,
            "test.csv": b"id,text,label\ny,u,a/b0\n",
            "val.csv": b"id,text,label\nz,u,a/b0\n",
        },
        {"unlabelled": "keep"},
        ["train.csv:8: a training document without labels", "dataset.prepare.unlabelled=drop"],
    ),
    "no labels at all": (
        {"x.csv": b"text,label\nt,\nu,\n"},
        {"unlabelled": "drop"},
        ["x.csv"],
    ),
    "an unknown split": (
        {"x.csv": b"text,label,split\nt,a/b,train\nu,a/c,tset\n"},
        {},
        ["x.csv:3: split='tset' names no split"],
    ),
    "folds in a column called split": (
        {
            "x.csv": b"text,label,split\n"
            + b"".join(b"t%d,a/b%d,%d\n" % (at, at % 2, at % 5) for at in range(20))
        },
        {},
        ["split", "dataset.prepare.split=none"],
    ),
    "a split column that says none": (
        {"x.csv": b"text,label,fold\nt,a/b,1\nu,a/c,2\n"},
        {"split": "fold"},
        ["x.csv:2: fold='1' names no split"],
    ),
    "an empty split": (
        {"x.csv": b"text,label,split\nt,a/b,train\nu,a/c,\n"},
        {},
        ["x.csv:3: split='' names no split"],
    ),
    "a column that is none": (
        PLAIN,
        {"text": "txet"},
        ["txet is no column; did you mean text?"],
    ),
    "two ways for labels": (
        PLAIN,
        {"labels": "label", "levels": ["id", "text"]},
        ["both name the labels"],
    ),
    "a separator in no label": (PLAIN, {"separator": "--"}, ["separator=-- is in none"]),
    "a delimiter that is not there": (
        PLAIN,
        {"delimiter": "::"},
        ["dataset.prepare.delimiter='::' is not in the first line of"],
    ),
    "too few documents": (
        {"x.csv": b"text,label\nt,a/b\nu,a/c\n"},
        {},
        ["2 documents cannot make train and val and test"],
    ),
}


def left() -> set[str]:
    return {path.name for path in Path().glob("data/*") if path.suffix != ".lock"}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_one_message_and_leaves_nothing(kind: str) -> None:
    content, options, expected = FAULTS[kind]
    cfg = config(write(content), **options)
    with pytest.raises((ConfigError, DataError)) as caught:
        preparation.run(cfg)
    for part in expected:
        assert part in str(caught.value)
    assert len(str(caught.value)) < 700
    assert left() == set()


SOUND: dict[str, tuple[Files, dict[str, Any]]] = {
    "UTF-16 without a mark": (
        {"x.csv": CSV.decode().encode("utf-16-le")},
        {"encoding": "utf-16-le"},
    ),
    "blank lines": ({"x.csv": CSV.replace(b"\n", b"\n\n")}, {}),
    "quotes that are text": (PLAIN, {"quote": "none"}),
    "a delimiter": ({"x.csv": CSV.replace(b",", b"|")}, {"delimiter": "|"}),
    "a rare delimiter": ({"x.csv": CSV.replace(b",", b"#")}, {"delimiter": "#"}),
    "a tab": ({"x.txt": CSV.replace(b",", b"\t")}, {"delimiter": "\t"}),
    "more keys in one": ({"x.jsonl": jsonl([{**GOOD[0], "more": 1}, *GOOD[1:]])}, {}),
    "keys in another order": ({"x.jsonl": jsonl([dict(reversed(GOOD[0].items())), *GOOD[1:]])}, {}),
}


@pytest.mark.parametrize("kind", SOUND)
def test_the_unusual_but_sound_is_read(kind: str) -> None:
    content, options = SOUND[kind]
    found = documents(prepared(write(content), **options))
    assert {identity: (text, labels) for identity, (_, text, labels) in found.items()} == {
        record["id"]: (record["text"], {("a",), ("a", record["label"][2:])}) for record in GOOD
    }


def test_a_text_in_another_encoding_is_read_in_it() -> None:
    raw = write({"x.csv": CSV + "d9,café – €,a/b0\n".encode("cp1252")})
    assert documents(prepared(raw, encoding="cp1252"))["d9"][1] == "café – €"


def test_a_long_text_is_no_fault() -> None:
    before = csv.field_size_limit(131_072)
    text = "word " * 60_000
    found = documents(prepared(write({"x.csv": CSV + f"d9,{text},a/b0\n".encode()})))
    csv.field_size_limit(before)
    assert found["d9"][1] == text


# --- training


@pytest.mark.slow
def test_prepared_data_can_be_trained_on(news: Prepared) -> None:
    shutil.copytree(news.folder, "mine")
    result = json.loads(run(Path("mine"), "trainer.epochs=1").read_text())
    assert len(result["history"]) == 1
    assert result["test"]


# --- what is odd, and read all the same


def odd_rows(*labels: str, texts: Sequence[str] = ()) -> list[Record]:
    """Return enough rows for three splits, ten with each label; the first ones have these texts."""
    rows = [{"text": f"text {at} of {label}", "label": label} for label in labels for at in range(10)]
    return [{**row, "text": text} for row, text in zip(rows, texts, strict=False)] + rows[len(texts) :]


def odd(
    rows: Sequence[Record], lines: bytes = b"", **options: Any
) -> tuple[Prepared, list[str], dict[str, int]]:
    """Prepare rows and further lines of CSV; return what was made, its warnings and what was repaired."""
    shutil.rmtree("data", ignore_errors=True)
    raw = write({"x.csv": delimited(rows) + lines})
    found = prepared(raw, "odd", **{"separator": "/", "label_separator": "none", **options})
    assert found.manifest is not None
    report = (found.folder / "report.md").read_text().replace("\\", "")
    assert all(" ".join(note.replace("\\", "").split()) in report for note in found.manifest["warnings"])
    return found, found.manifest["warnings"], found.manifest["repaired"]


@pytest.mark.parametrize(
    "other", ["news/Sport", "News/sport", "news/Sport\u00a0!", "news/sport.", "news/s\u200bport"]
)
def test_near_equal_labels_are_reported_and_merged_on_request(other: str) -> None:
    rows = odd_rows("news/sport", "news/art") + odd_rows(other)[:4]
    found, notes, _ = odd(rows)
    nodes = len(found.taxonomy)
    assert nodes > 3
    assert any("names in several spellings" in note and "merge_labels=true" in note for note in notes)
    found, notes, repaired = odd(rows, merge_labels=True)
    assert sorted(found.taxonomy.index) == ["news", "news/art", "news/sport"]
    assert repaired["labels_merged"] == 1
    assert not any("spellings" in note for note in notes)


@pytest.mark.parametrize("word", ["NaN", "None", "null", "N/A", "<NA>"])
def test_words_for_no_value_are_reported_and_emptied_on_request(word: str) -> None:
    rows = odd_rows("a", "b", word)
    found, notes, _ = odd(rows, separator="none")
    assert len(found.taxonomy) == 3
    assert any(f"{word!r} 10 times" in note and "null_labels=keep" in note for note in notes)
    found, notes, repaired = odd(rows, separator="none", null_labels="empty", unlabelled="drop")
    assert sorted(found.taxonomy.index) == ["a", "b"]
    assert repaired["documents_without_labels"] == 10
    assert any("null_labels=empty" in note for note in notes)


def test_texts_without_a_sign_are_reported_and_dropped_on_request() -> None:
    rows = odd_rows("a", "b", texts=["", "  ", "\u200b"])
    for action, left in (("keep", 20), ("drop", 17)):
        found, notes, repaired = odd(rows, separator="none", empty_texts=action)
        assert sum(found.count(split) for split in SPLITS) == left
        assert any(note.startswith("3 documents have no text (raw/x.csv:2, ") for note in notes)
        assert repaired.get("documents_without_text", 0) == 20 - left


def test_header_lines_inside_a_file_are_dropped_and_reported() -> None:
    rows = odd_rows("a", "b")
    for action, nodes in (("drop", 2), ("keep", 3)):
        more = b"text,label\nx,a\ntext,label\ny,b\n"
        found, notes, repaired = odd(rows, more, separator="none", repeated_headers=action)
        assert len(found.taxonomy) == nodes
        assert any(
            note.startswith("2 lines repeat the header (raw/x.csv:22, raw/x.csv:24)") for note in notes
        )
        assert repaired.get("repeated_header_lines", 0) == (2 if action == "drop" else 0)


def test_equal_texts_with_different_labels_are_reported() -> None:
    _, notes, _ = odd(
        [*odd_rows("a", "b"), {"text": "t", "label": "a"}, {"text": "t", "label": "b"}], separator="none"
    )
    assert "1 texts occur more than once, with different labels" in notes


def test_of_plain_files_nothing_odd_is_reported() -> None:
    _, notes, _ = odd(odd_rows("a/b", "a/c", "d/b"))
    assert notes == ["the splits were drawn by seed 13"]
