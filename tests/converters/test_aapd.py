"""The AAPD converter: the contract, three forms of the same documents, the tree, the published files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conversions import SHARED, documents, first_file, manifest
from converter_contract import ConverterContract, Download, Fault, TinySet
from raws import packed

from hblm.data.convert.label_trees import read_tree
from hblm.data.converters import load_script
from hblm.data.dataset import Prepared
from hblm.document import SPLITS, Document
from hblm.errors import DataError
from hblm.taxonomy import Taxonomy

SET = "aapd"
PUBLISHED = SHARED / "aapd_hjcl"
needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no {PUBLISHED}")

Raws = Mapping[str, Sequence[tuple[str, str]]]  # split -> text and labels, as SGM writes them
Convert = Callable[..., Prepared]

INVENTED: Raws = {
    "train": [
        ("we count invented trees , slowly", "cs.DS math.CO"),
        ("a made-up bound \\( n ^ 2 \\)", "cs.ds"),
        ("\u2028 quanta – of “nothing” ,  twice", "quant-ph"),
    ],
    "val": [("nothing is learnt from noise", "stat.ml cs.lg")],
    "test": [("old words", "cmp-lg cs.CL"), ("neurons that never were", "q-bio.NC")],
}


DOCUMENTS = {
    "train": [
        Document("train-1", "we count invented trees , slowly", ("cs", "math", "cs.ds", "math.co")),
        Document("train-2", "a made-up bound \\( n ^ 2 \\)", ("cs", "cs.ds")),
        Document("train-3", "\u2028 quanta – of “nothing” ,  twice", ("quant-ph",)),
    ],
    "val": [Document("val-1", "nothing is learnt from noise", ("cs", "stat", "cs.lg", "stat.ml"))],
    "test": [
        Document("test-1", "old words", ("cmp-lg", "cs", "cs.cl")),
        Document("test-2", "neurons that never were", ("q-bio", "q-bio.nc")),
    ],
}


def script() -> Any:
    return load_script(SET)


def lines(rows: Sequence[str]) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


def aligned(raws: Raws) -> dict[str, bytes]:
    texts = {f"text_{split}": lines([text for text, _ in rows]) for split, rows in raws.items()}
    return texts | {f"label_{split}": lines([labels for _, labels in rows]) for split, rows in raws.items()}


def hedwig(raws: Raws) -> dict[str, bytes]:
    categories = list(script().CATEGORIES)

    def row(text: str, labels: str) -> str:
        return "".join(str(int(name in labels.lower().split())) for name in categories) + f"\t{text}"

    names = {"train": "train.tsv", "val": "dev.tsv", "test": "test.tsv"}
    return {names[split]: lines([row(*document) for document in raws[split]]) for split in SPLITS}


def jsonl(raws: Raws, record: Callable[[str, list[str]], Mapping[str, Any]]) -> dict[str, bytes]:
    return {
        f"{split}.jsonl": lines([json.dumps(record(text, labels.split())) for text, labels in rows])
        for split, rows in raws.items()
    }


FORMS: Mapping[str, Callable[[Raws], dict[str, bytes]]] = {
    "text_label": aligned,
    "text_label .txt": lambda raws: {f"{name}.txt": text for name, text in aligned(raws).items()},
    "hedwig": hedwig,
    "jsonl, one string": lambda raws: jsonl(raws, lambda text, labels: {"token": text, "label": labels}),
    "jsonl, tokens": lambda raws: jsonl(
        raws, lambda text, labels: {"token": text.split(" "), "label": labels, "topic": [], "keyword": []}
    ),
    "jsonl, other keys": lambda raws: jsonl(raws, lambda text, labels: {"labels": labels, "text": text}),
    "jsonl, closed": lambda raws: jsonl(
        raws,
        lambda text, labels: {
            "label": [*labels, *(label.partition(".")[0] for label in labels)],
            "token": text,
        },
    ),
}


# --- the contract

ALIGNED: Mapping[str, bytes] = {
    "text_train": "one – text\nanother text\na third\n".encode(),
    "label_train": b"cs.lg\nmath.co CS.ds\nquant-ph\n",
    "text_val": b"four\n",
    "label_val": b"stat.ml\n",
    "text_test": b"five\nsix\n",
    "label_test": b"cs.ai\ncs.cl\n",
}
DIGITS: Mapping[str, bytes] = {
    name: f"{'1' + '0' * 53}\tone – {name}\n{'0' * 53 + '1'}\ttwo\n".encode()
    for name in ("train.tsv", "dev.tsv", "test.tsv")
}
JSONL: Mapping[str, bytes] = {
    f"{split}.jsonl": f'{{"token": "one – {split}", "label": ["cs.lg"]}}\n'.encode() * 2
    for split in ("train", "val", "test")
}
GOOD_RECORD = JSONL["train.jsonl"]


def of_lines(place: str, *words: str, longest: int | None = None, **changes: bytes | None) -> Fault:
    return Fault(place, words, changes, base="aligned", longest=longest)


def of_digits(place: str, *words: str, line: str | None) -> Fault:
    data = None if line is None else DIGITS["dev.tsv"] + line.encode() + b"\n"
    return Fault(place, words, {"dev.tsv": data}, base="digits")


def of_records(place: str, *words: str, **changes: bytes | None) -> Fault:
    return Fault(place, words, {f"{name}.jsonl": data for name, data in changes.items()}, base="jsonl")


FAULTS: Mapping[str, Fault] = {
    # texts and labels, line by line
    "no texts": of_lines("", "no text_val", "it holds label_test", text_val=None),
    "no labels": of_lines("", "no label_train", "it holds label_test", label_train=None),
    "no training files": of_lines(
        "", "no text_train", "it holds label_test", text_train=None, label_train=None
    ),
    "fewer labels": of_lines("label_test", "1 lines", "@text_test has 2", label_test=b"cs.ai\n"),
    "fewer texts": of_lines("label_train", "3 lines", "@text_train has 2", text_train=b"a\nb\n"),
    "a line without labels": of_lines("label_train:2", "no label", label_train=b"cs.lg\n\ncs.ai\n"),
    "an unknown label": of_lines(
        "label_train:2", "'cs.xai'", "did you mean cs.ai?", label_train=b"cs.lg\nmath.co cs.xai\ncs.ai\n"
    ),
    "cp1252": of_lines(
        "text_train:2", "not UTF-8 at byte 4", "encoding=cp1252", text_train=b"a\ncaf\xe9\nb\n"
    ),
    "cp1252 in labels": of_lines("label_val:1", "not UTF-8 at byte 1", label_val=b"\xe9\n"),
    "cp1252, an old Mac's lines": of_lines("text_train:3", "byte 2", text_train=b"a\rb\rc\xe9\r"),
    "UTF-16 without a mark": of_lines("text_val", "NUL", "utf-16-le", text_val="four".encode("utf-16-le")),
    "a long line": of_lines(
        "text_test:2", "more than 30", longest=30, text_test=b"five\n" + b"x" * 31 + b"\n"
    ),
    "empty files": of_lines("text_val", "empty", text_val=b"", label_val=b""),
    # digits
    "53 digits": of_digits("dev.tsv:3", "54 digits", line="1" * 53 + "\ttext"),
    "55 digits": of_digits("dev.tsv:3", "54 digits", line="1" * 55 + "\ttext"),
    "another digit": of_digits("dev.tsv:3", "54 digits", line="1" * 53 + "2\ttext"),
    "one column": of_digits("dev.tsv:3", "found 1 column", line="1" * 54),
    "three columns": of_digits("dev.tsv:3", "found 3 columns", line="1" * 54 + "\ta\tb"),
    "a blank line": of_digits("dev.tsv:3", "54 digits", line="\n" + "1" * 54 + "\ttext"),
    "no digit is 1": of_digits("dev.tsv:3", "no label", line="0" * 54 + "\ttext"),
    "no dev.tsv": of_digits("", "dev.tsv", "it holds test.tsv, train.tsv", line=None),
    # JSONL
    "no val.jsonl": of_records("", "no ", "val", "test.jsonl, train.jsonl", val=None),
    "no train.jsonl": of_records("", "no file for train", "test.jsonl, val.jsonl", train=None),
    "an empty val.jsonl": of_records("val.jsonl", "no records", val=b""),
    "not JSON": of_records("train.jsonl:3", "not valid JSON", train=GOOD_RECORD + b'{"token": "x", "la'),
    "an array": of_records("train.jsonl: item 1", "no label", train=b'[\n{"token": "x", "label": []}]'),
    "a list a line": of_records("train.jsonl:3", "expected an object", train=GOOD_RECORD + b'["x", "cs.ai"]'),
    "a record without its key": of_records("val.jsonl:3", "no 'label'", val=GOOD_RECORD + b'{"token": "x"}'),
    "a record without labels": of_records(
        "val.jsonl:3", "no label", val=GOOD_RECORD + b'{"token": "x", "label": []}'
    ),
    "a record with an unknown label": of_records(
        "val.jsonl:3",
        "'cs.xai'",
        "did you mean cs.ai?",
        val=GOOD_RECORD + b'{"token": "", "label": ["cs.xai"]}',
    ),
    "a label that is no text": of_records(
        "val.jsonl:3", "label must hold labels", val=GOOD_RECORD + b'{"token": "", "label": [1.5]}'
    ),
    "a text that is none": of_records(
        "val.jsonl:3", "token must be a text", val=GOOD_RECORD + b'{"token": 1, "label": ["cs.ai"]}'
    ),
    "a lone surrogate": of_records(
        "val.jsonl:3", "lone surrogate", val=GOOD_RECORD + rb'{"token": "\ud800", "label": ["cs.ai"]}'
    ),
    "two training files": of_records(
        "", "train.jsonl", "train_small.jsonl", "one of them", train_small=GOOD_RECORD
    ),
    "keys that say nothing": of_records(
        "train.jsonl:1", "its keys are x, y", train=b'{"x": "a", "y": ["cs.ai"]}\n'
    ),
    "two keys for the text": of_records(
        "train.jsonl:1", "its keys are", train=b'{"text": "a", "token": "b", "labels": ["cs.ai"]}\n'
    ),
    "an encoding that wants a mark": Fault("text_train", ("16",), {}, {"encoding": "utf-16"}),
}


def of_form(form: str) -> Callable[[Path], Download]:
    return lambda place: (packed(place / "raw", FORMS[form](INVENTED)), {})


def many(number: int) -> dict[str, bytes]:
    train = [(f"{at} " + "word " * 4_000, "cs.ai") for at in range(number)]
    return aligned({**INVENTED, "train": train})


class TestContract(ConverterContract):
    tiny = TinySet(
        name=SET,
        files=aligned(INVENTED),
        documents=DOCUMENTS,
        needed="text_train",
        texts=list(aligned(INVENTED)),
        forms={form: of_form(form) for form in FORMS},
        options={"clean": "hiagm", "encoding": "utf-8"},
        made_options=("form",),
        wrong={
            "an unknown name": ({"cleann": "none"}, ("dataset.prepare.cleann", "did you mean clean?")),
            "an unknown word": ({"clean": "lowr"}, ("clean=lowr", "none, lower", "did you mean lower?")),
            "another type": ({"encoding": 8}, ("encoding=8 is not a text or null",)),
            **{
                f"the encoding {name!r}": (
                    {"encoding": name},
                    ("dataset.prepare.encoding=", "no encoding"),
                )
                for name in ("utf-9", "hex", "rot13", "a\0b")
            },
        },
        faults=FAULTS,
        bases={"aligned": ALIGNED, "digits": DIGITS, "jsonl": JSONL},
        published={"documents": {"train": 53840, "val": 1000, "test": 1000}, "levels": [9, 52]},
        many=many,
    )


def test_no_message_advises_an_option_that_the_set_has_not(convert: Convert) -> None:
    for name in ("keys that say nothing", "two keys for the text"):
        with pytest.raises(DataError) as caught:
            convert({**JSONL, **FAULTS[name].changes}, name)  # type: ignore[dict-item]
        assert "dataset.prepare." not in str(caught.value)


# --- forms


@pytest.mark.parametrize("form", FORMS)
def test_the_form_is_recorded(form: str, convert: Convert) -> None:
    found = convert(FORMS[form](INVENTED))
    assert manifest(found)["options"]["form"] == form.partition(",")[0].partition(" ")[0]


def test_a_split_may_come_in_numbered_parts(convert: Convert) -> None:
    files = FORMS["jsonl, one string"](INVENTED)
    first, *rest = files.pop("train.jsonl").splitlines(keepends=True)
    parts = {"train-00000-of-2.jsonl": first, "train-00001-of-2.jsonl": b"".join(rest)}
    found = documents(convert(files | parts))["train"]
    assert [document.text for document in found] == [text for text, _ in INVENTED["train"]]


@pytest.mark.parametrize("word", ["valid", "dev"])
def test_validation_may_be_called_otherwise(word: str, convert: Convert) -> None:
    files = aligned(INVENTED)
    files |= {f"{part}_{word}": files.pop(f"{part}_val") for part in ("text", "label")}
    assert documents(convert(files))["val"][0].text == INVENTED["val"][0][0]


def test_an_encoding_is_used_but_for_files_with_a_mark(convert: Convert) -> None:
    files = aligned(INVENTED) | {"text_val": "caf\xe9 – noise\n".encode("cp1252")}
    files["text_train"] = "\n".join(text for text, _ in INVENTED["train"]).encode("utf-8-sig")
    found = documents(convert(files, encoding="cp1252"))
    assert found["val"][0].text == "café – noise"
    assert found["train"][2].text == INVENTED["train"][2][0]


# --- tree


def test_the_tree_has_61_nodes_on_two_levels() -> None:
    tree = script().tree()
    assert [len(level) for level in tree.levels] == [9, 52]
    parents = {node.id: node.parent for node in tree.nodes}
    assert [node for node, parent in parents.items() if parent is None] == [
        *("cmp-lg", "cond-mat", "cs", "math", "nlin", "physics", "q-bio", "quant-ph", "stat")
    ]
    assert all(parent is None or node.startswith(f"{parent}.") for node, parent in parents.items())
    sizes = {top: list(parents.values()).count(top) for top in parents}
    assert {top: size for top, size in sizes.items() if size} == {
        "cs": 33,
        "math": 8,
        "stat": 4,
        "physics": 2,
        "cond-mat": 2,
        "q-bio": 2,
        "nlin": 1,
    }


def test_nodes_have_readable_names_which_may_repeat() -> None:
    names = {node.id: node.name for node in script().tree().nodes}
    assert names["cs.it"] == names["math.it"] == "Information Theory"
    assert all(name[0].isupper() for name in names.values())


def test_every_digit_of_hedwig_is_one_of_the_54_categories(convert: Convert) -> None:
    rows = lines(["0" * at + "1" + "0" * (53 - at) + f"\ttext {at}" for at in range(54)])
    found = convert(dict.fromkeys(("train.tsv", "dev.tsv", "test.tsv"), rows))
    given = [document.labels[-1] for document in found.documents("test")]
    assert given[:8] == ["cs.it", "math.it", "cs.lg", "cs.ai", "stat.ml", "cs.ds", "cs.si", "cs.dm"]
    assert given[-3:] == ["nlin.ao", "q-bio.qm", "math.nt"]
    archives = {top for top, below in pairwise(node.id for node in found.taxonomy.nodes) if "." not in top}
    assert set(given) == {node.id for node in found.taxonomy.nodes} - archives | {"quant-ph", "cmp-lg"}
    assert len(set(given)) == 54


def test_added_parents_are_counted(convert: Convert) -> None:
    assert manifest(convert(aligned(INVENTED)))["repaired"]["documents_closed"] == 5  # all but quant-ph
    closed = convert(FORMS["jsonl, closed"](INVENTED), "closed")
    assert manifest(closed)["repaired"]["documents_closed"] == 0


# --- the published files


def published(split: str) -> list[dict[str, Any]]:
    with (PUBLISHED / f"{split}.jsonl").open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def require_published(prepared: Prepared, split: str) -> None:
    """Compare a prepared split, document for document, with the published one."""
    expected, found = published(split), list(prepared.documents(split))
    assert len(found) == len(expected) == 1000
    assert [document.text for document in found] == [record["token"] for record in expected]
    assert [set(document.labels) for document in found] == [set(record["label"]) for record in expected]


def published_tree() -> Taxonomy:
    tree: Taxonomy = first_file(PUBLISHED / "aapd.taxonomy", read_tree)
    return tree


@needs_published
@pytest.mark.parametrize("form", ["text_label", "hedwig"])
def test_the_published_sets_come_out_of_their_raw_form(form: str, convert: Convert) -> None:
    virtual = {"cs", "math", "stat", "physics", "cond-mat", "q-bio", "nlin"}
    raws = {"train": INVENTED["train"]}
    for split in ("val", "test"):
        raws[split] = [
            (record["token"], " ".join(label for label in record["label"] if label not in virtual))
            for record in published(split)
        ]
    found = convert(FORMS[form](raws))
    for split in ("val", "test"):
        require_published(found, split)
    counts = manifest(found)["counts"]
    assert [round(counts[split]["labels"] / 1000, 2) for split in ("val", "test")] == [4.10, 4.12]


@needs_published
def test_the_published_files_are_read_as_they_are(tmp_path: Path, convert: Convert) -> None:
    raw = tmp_path / "hjcl"
    raw.mkdir()
    for path in PUBLISHED.iterdir():
        shutil.copyfile(path, raw / path.name)
    records = [record | {"token": f"anew {at}"} for at, record in enumerate(published("val"))]
    (raw / "train.jsonl").write_bytes(lines(list(map(json.dumps, records))))
    found = convert(raw)
    for split in ("val", "test"):
        require_published(found, split)
    assert manifest(found)["repaired"]["documents_closed"] == 0
    assert [source["name"] for source in manifest(found)["sources"]] == [
        *("test.jsonl", "train.jsonl", "val.jsonl")
    ]


@needs_published
def test_the_tree_is_the_published_one() -> None:
    trees = [script().tree(), published_tree()]
    one, other = ({node.id: node.parent for node in tree.nodes} for tree in trees)
    assert one == other


@needs_published
def test_every_published_category_is_in_the_tree_under_its_published_name() -> None:
    names = {node.id: node.name for node in script().tree().nodes}
    assert names == json.loads((PUBLISHED / "label_mapping.json").read_text())
    used = {label for split in ("val", "test") for record in published(split) for label in record["label"]}
    assert used == names.keys()


@needs_published
def test_the_order_of_hedwigs_digits_is_that_of_the_published_list() -> None:
    order = json.loads((PUBLISHED / "label_mapping.json").read_text())
    found = [label for label in script().CATEGORIES if "." in label]
    assert found == [label for label in order if "." in label]
