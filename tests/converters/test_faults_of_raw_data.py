"""Planted faults in raw data: one message with file and place each, and nothing on disk has changed."""

from __future__ import annotations

import codecs
import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from refusals import files_below, refusal_of

from hblm.config.train import Dataset
from hblm.data.converters import load_converter
from hblm.data.dataset import open_prepared
from hblm.data.raw import blurbs as books_module
from hblm.data.raw import text as texts_module
from hblm.data.writer import FILES, write_dataset
from hblm.errors import ConfigError, DataError

Files = Mapping[str, bytes]


def book(isbn: str, topics: str = "<d0>Fiction</d0>", body: str = "A blurb.\nOf two lines.") -> str:
    return (
        f'<book date="2018-08-18" xml:lang="en">\n<title>T</title>\n<body>{body}</body>\n'
        f"<topics>{topics}</topics>\n<isbn>{isbn}</isbn>\n</book>\n"
    )


ALIGNED: Files = {
    "text_train": "one – text\nanother text\na third\n".encode(),
    "label_train": b"cs.lg\nmath.co CS.ds\nquant-ph\n",
    "text_val": b"four\n",
    "label_val": b"stat.ml\n",
    "text_test": b"five\nsix\n",
    "label_test": b"cs.ai\ncs.cl\n",
}
DIGITS: Files = {
    name: f"{'1' + '0' * 53}\tone – {name}\n{'0' * 53 + '1'}\ttwo\n".encode()
    for name in ("train.tsv", "dev.tsv", "test.tsv")
}
JSONL: Files = {
    f"{split}.jsonl": f'{{"token": "one – {split}", "label": ["cs.lg"]}}\n'.encode() * 2
    for split in ("train", "val", "test")
}
TRAIN, DEV, TEST = (f"BlurbGenreCollection_EN_{word}.txt" for word in ("train", "dev", "test"))
BOOKS: Files = {
    "hierarchy.txt": (
        "Fiction\tMystery & Suspense\nFiction\tRomance\nHumor\nWomen’s\tWomen’s Fiction\n".encode()
    ),
    TRAIN: (book("11") + book("12", "<d0>Fiction</d0><d1>Mystery & Suspense</d1>")).encode(),
    DEV: book("21", "<d0>Women’s</d0>").encode(),
    TEST: book("31", "").encode(),
    "gold.txt": b"31\tRomance\tFiction\n",
}
FORMS = {"text_label": ALIGNED, "hedwig": DIGITS, "jsonl": JSONL, "books": BOOKS}


class Fault(NamedTuple):
    """Files changed (None: taken away), where the message must say the fault is, and what else it must say.

    `place` is a file and line of the download, "" the download itself; a word that begins with @ is one too.
    """

    form: str
    changes: Mapping[str, bytes | None]
    place: str
    words: tuple[str, ...]
    options: Mapping[str, Any] = {}
    longest: int | None = None


def aligned(place: str, *words: str, longest: int | None = None, **changes: bytes | None) -> Fault:
    return Fault("text_label", changes, place, words, longest=longest)


def digits(place: str, *words: str, line: str | None) -> Fault:
    changed = None if line is None else DIGITS["dev.tsv"] + line.encode() + b"\n"
    return Fault("hedwig", {"dev.tsv": changed}, place, words)


def record(place: str, *words: str, **changes: bytes | None) -> Fault:
    return Fault("jsonl", {f"{name}.jsonl": content for name, content in changes.items()}, place, words)


def blurbs(
    place: str, *words: str, longest: int | None = None, changes: Mapping[str, str | bytes | None]
) -> Fault:
    encoded = {name: text.encode() if isinstance(text, str) else text for name, text in changes.items()}
    return Fault("books", encoded, place, words, longest=longest)


def hierarchy(line: str, *words: str) -> Fault:
    return blurbs(
        "hierarchy.txt:5", *words, changes={"hierarchy.txt": BOOKS["hierarchy.txt"] + line.encode()}
    )


FIRST = book("11")
SECOND = f"{TRAIN}:{1 + FIRST.count(chr(10))}"  # where the second book begins
GOOD_RECORD = JSONL["train.jsonl"]

FAULTS: Mapping[str, Fault] = {
    # AAPD, files of texts and files of labels
    "no texts": aligned("", "no text_val", "it holds label_test", text_val=None),
    "no labels": aligned("", "no label_train", "it holds label_test", label_train=None),
    "no training files": aligned(
        "", "no text_train", "it holds label_test", text_train=None, label_train=None
    ),
    "fewer labels": aligned("label_test", "1 lines", "@text_test has 2", label_test=b"cs.ai\n"),
    "fewer texts": aligned("label_train", "3 lines", "@text_train has 2", text_train=b"a\nb\n"),
    "a line without labels": aligned("label_train:2", "no label", label_train=b"cs.lg\n\ncs.ai\n"),
    "an unknown label": aligned(
        "label_train:2", "'cs.xai'", "did you mean cs.ai?", label_train=b"cs.lg\nmath.co cs.xai\ncs.ai\n"
    ),
    "cp1252": aligned(
        "text_train:2", "not UTF-8 at byte 4", "encoding=cp1252", text_train=b"a\ncaf\xe9\nb\n"
    ),
    "cp1252 in labels": aligned("label_val:1", "not UTF-8 at byte 1", label_val=b"\xe9\n"),
    "cp1252, an old Mac's lines": aligned("text_train:3", "byte 2", text_train=b"a\rb\rc\xe9\r"),
    "UTF-16 without a mark": aligned("text_val", "NUL", "utf-16-le", text_val="four".encode("utf-16-le")),
    "a long line": aligned(
        "text_test:2", "more than 30", longest=30, text_test=b"five\n" + b"x" * 31 + b"\n"
    ),
    "empty files": aligned("text_val", "empty", text_val=b"", label_val=b""),
    # AAPD, digits
    "53 digits": digits("dev.tsv:3", "54 digits", line="1" * 53 + "\ttext"),
    "55 digits": digits("dev.tsv:3", "54 digits", line="1" * 55 + "\ttext"),
    "another digit": digits("dev.tsv:3", "54 digits", line="1" * 53 + "2\ttext"),
    "one column": digits("dev.tsv:3", "found 1 column", line="1" * 54),
    "three columns": digits("dev.tsv:3", "found 3 columns", line="1" * 54 + "\ta\tb"),
    "a blank line": digits("dev.tsv:3", "54 digits", line="\n" + "1" * 54 + "\ttext"),
    "no digit is 1": digits("dev.tsv:3", "no label", line="0" * 54 + "\ttext"),
    "no dev.tsv": digits("", "dev.tsv", "it holds test.tsv, train.tsv", line=None),
    # AAPD, JSONL
    "no val.jsonl": record("", "no ", "val", "test.jsonl, train.jsonl", val=None),
    "no train.jsonl": record("", "no file for train", "test.jsonl, val.jsonl", train=None),
    "an empty val.jsonl": record("val.jsonl", "no records", val=b""),
    "not JSON": record("train.jsonl:3", "not valid JSON", train=GOOD_RECORD + b'{"token": "x", "la'),
    "an array": record("train.jsonl: item 1", "no label", train=b'[\n{"token": "x", "label": []}]'),
    "a list a line": record("train.jsonl:3", "expected an object", train=GOOD_RECORD + b'["x", "cs.ai"]'),
    "a record without its key": record("val.jsonl:3", "no 'label'", val=GOOD_RECORD + b'{"token": "x"}'),
    "a record without labels": record(
        "val.jsonl:3", "no label", val=GOOD_RECORD + b'{"token": "x", "label": []}'
    ),
    "a record with an unknown label": record(
        "val.jsonl:3",
        "'cs.xai'",
        "did you mean cs.ai?",
        val=GOOD_RECORD + b'{"token": "", "label": ["cs.xai"]}',
    ),
    "a label that is no text": record(
        "val.jsonl:3", "label must hold labels", val=GOOD_RECORD + b'{"token": "", "label": [1.5]}'
    ),
    "a text that is none": record(
        "val.jsonl:3", "token must be a text", val=GOOD_RECORD + b'{"token": 1, "label": ["cs.ai"]}'
    ),
    "a lone surrogate": record(
        "val.jsonl:3", "lone surrogate", val=GOOD_RECORD + rb'{"token": "\ud800", "label": ["cs.ai"]}'
    ),
    "two training files": Fault(
        "jsonl", {"train_small.jsonl": GOOD_RECORD}, "", ("train.jsonl", "train_small.jsonl", "one of them")
    ),
    # BGC
    "no hierarchy": blurbs("", "no hierarchy*.txt", f"it holds {DEV}", changes={"hierarchy.txt": None}),
    "two hierarchies": blurbs("", "hierarchy*.txt is there 2 times", changes={"hierarchy_2.txt": "a\tb\n"}),
    "no books for validation": blurbs("", DEV[-7:], f"found {TEST}, {TRAIN}", changes={DEV: None}),
    "no books": blurbs("", "found none", "gold.txt", changes=dict.fromkeys((TRAIN, DEV, TEST))),
    "books of no split": blurbs("", "expected", changes={"BlurbGenreCollection_EN.txt": book("99")}),
    "an empty file of books": blurbs(DEV, "no book", changes={DEV: ""}),
    "an empty file of training books": blurbs(TRAIN, "no book", changes={TRAIN: ""}),
    "a book that is not closed": blurbs(
        SECOND, "never closed", changes={TRAIN: FIRST + book("12").replace("</book>", "") + book("13")}
    ),
    "a last book that is not closed": blurbs(
        SECOND, "ends inside a book", changes={TRAIN: FIRST + book("12").replace("</book>", "")}
    ),
    "half a book": blurbs(SECOND, "ends inside a book", changes={TRAIN: FIRST + book("12")[:60]}),
    "text between books": blurbs(
        SECOND, "expected <book", "'junk", changes={TRAIN: FIRST + "junk\n" + book("12")}
    ),
    "text after books": blurbs(SECOND, "other text", "'junk'", changes={TRAIN: FIRST + "junk\n"}),
    "another kind of file": blurbs(f"{DEV}:1", "'<html>", changes={DEV: "<html>404</html>\n"}),
    "a book without text": blurbs(
        SECOND, "no <body>", changes={TRAIN: FIRST + book("12").replace("body>", "text>")}
    ),
    "a book without ISBN": blurbs(
        SECOND, "no <isbn>", changes={TRAIN: FIRST + book("12").replace("isbn>", "id>")}
    ),
    "an empty ISBN": blurbs(SECOND, "no <isbn>", changes={TRAIN: FIRST + book(" ")}),
    "an ISBN twice": blurbs(SECOND, "'11'", f"@{TRAIN}:1", "unique", changes={TRAIN: FIRST + book("11")}),
    "an ISBN in two splits": blurbs(f"{DEV}:1", "'11'", f"@{TRAIN}:1", "unique", changes={DEV: book("11")}),
    "a book without topics": blurbs(
        SECOND, "no topics", "@gold.txt", "ISBN 12", changes={TRAIN: FIRST + book("12", "")}
    ),
    "a book without topics or gold.txt": blurbs(f"{TEST}:1", "no topics", changes={"gold.txt": None}),
    "an unknown topic": blurbs(
        SECOND, "'Humour'", "did you mean Humor?", changes={TRAIN: FIRST + book("12", "<d0>Humour</d0>")}
    ),
    "an unknown topic in gold.txt": blurbs(
        "gold.txt:2", "'Humour'", "did you mean Humor?", changes={"gold.txt": "\ufeff99\tHumor\n31\tHumour\n"}
    ),
    "a line of gold.txt without labels": blurbs("gold.txt:1", "tab and labels", changes={"gold.txt": "31\n"}),
    "an ISBN twice in gold.txt": blurbs(
        "gold.txt:3", "'31'", "line 2", changes={"gold.txt": "subtask_b\n31\tHumor\n31\tHumor\n"}
    ),
    "books in cp1252": blurbs(
        f"{DEV}:3",
        "not UTF-8 at byte 10",
        changes={DEV: book("21", body="caf\xe9").encode("cp1252")},
    ),
    "books in cp1252, an old Mac's lines": blurbs(
        f"{DEV}:3", "byte 10", changes={DEV: book("21", body="caf\xe9").replace("\n", "\r").encode("cp1252")}
    ),
    "a book without an end": blurbs(
        SECOND, "no </book> in 500", longest=500, changes={TRAIN: FIRST + book("12", body="x" * 70_000)[:-9]}
    ),
    "a long line in the hierarchy": blurbs(
        "hierarchy.txt:2",
        "more than 500",
        longest=500,
        changes={"hierarchy.txt": f"Fiction\tRomance\n{'x' * 501}"},
    ),
    "a cycle": hierarchy(
        "Romance\tFiction\n", "'Fiction' is its own ancestor", "Fiction -> Romance -> Fiction"
    ),
    "a node above itself": hierarchy("Humor\tHumor\n", "'Humor' is its own parent"),
    "two parents": hierarchy("Humor\tRomance\n", "'Romance' has two parents", "'Fiction' and 'Humor'"),
    "a hierarchy of one column": blurbs(
        "hierarchy.txt", "parent", "tab", changes={"hierarchy.txt": "Fiction\n"}
    ),
    "an empty hierarchy": blurbs("hierarchy.txt", "parent", changes={"hierarchy.txt": ""}),
    # encodings that Python has
    "an encoding that wants a mark": Fault(
        "text_label", {}, "text_train", ("16",), options={"encoding": "utf-16"}
    ),
    "an encoding of books that wants a mark": Fault(
        "books", {}, "hierarchy.txt", ("16",), options={"encoding": "utf-16"}
    ),
}


def write(folder: Path, files: Mapping[str, bytes | None]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


class Packing(NamedTuple):
    """How a download comes, and how messages call a file in it."""

    pack: Callable[[Path], Path]
    place: str = "{raw}:{at}"


def zipped(folder: Path) -> Path:
    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return target


def tarred(folder: Path) -> Path:
    target = folder.with_suffix(".tar.gz")
    with tarfile.open(target, "w:gz") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    return target


PACKINGS = {
    "folder": Packing(lambda folder: folder, "{raw}/{at}"),
    "zip": Packing(zipped),
    "tar.gz": Packing(tarred),
}


def dataset_in(tmp_path: Path, form: str, options: Mapping[str, Any], expect: Any = None) -> Dataset:
    name = "bgc" if form == "books" else "aapd"
    return Dataset(name, str(tmp_path / "data" / name), name, "a download", dict(options), expect or {})


def limit(monkeypatch: pytest.MonkeyPatch, longest: int | None) -> None:
    if longest is not None:
        monkeypatch.setattr(texts_module, "LONGEST", longest)
        monkeypatch.setattr(books_module, "LONGEST", longest)


def good_folder(dataset: Dataset, tmp_path: Path, files: Files) -> Path:
    """Prepare sound files where the dataset belongs."""
    raw, scratch = write(tmp_path / "good", files), tmp_path / "scratch"
    scratch.mkdir()
    assert dataset.converter is not None
    conversion = load_converter(dataset.converter)(raw, {}, scratch, lambda title, total: lambda steps: None)
    write_dataset(dataset.folder, conversion, converter=dataset.converter)
    (dataset.folder / "report.md").write_text("# as it was\n")
    return dataset.folder


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_message_with_its_place_and_leaves_nothing(
    name: str, packing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault, (pack, pattern) = FAULTS[name], PACKINGS[packing]
    limit(monkeypatch, fault.longest)
    raw = pack(write(tmp_path / "raws" / "raw", {**FORMS[fault.form], **fault.changes}))
    before = files_below(tmp_path / "raws")
    found = refusal_of(dataset_in(tmp_path, fault.form, fault.options), raw)
    assert found.kind is DataError

    def place(at: str) -> str:
        return pattern.format(raw=raw, at=at) if at else str(raw)

    assert found.message.startswith(place(fault.place))
    assert found.message[len(place(fault.place))] in ":,"
    for word in fault.words:
        assert (place(word[1:]) if word.startswith("@") else word) in found.message
    assert "\n" not in found.message
    assert len(found.message) < 700
    assert files_below(tmp_path / "data") == {}
    assert files_below(tmp_path / "raws") == before


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_leaves_an_older_folder_as_it_was(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = FAULTS[name]
    dataset = dataset_in(tmp_path, fault.form, fault.options)
    good_folder(dataset, tmp_path, FORMS[fault.form])
    limit(monkeypatch, fault.longest)
    before = files_below(tmp_path / "data")
    raw = write(tmp_path / "raw", {**FORMS[fault.form], **fault.changes})
    assert refusal_of(dataset, raw, force=True).kind is DataError
    assert files_below(tmp_path / "data") == before
    assert len(before) == 1 + len(FILES) + 2


@pytest.mark.parametrize("form", ["text_label", "books"])
def test_other_counts_leave_an_older_folder_as_it_was(form: str, tmp_path: Path) -> None:
    dataset = dataset_in(tmp_path, form, {"clean": "lower"}, {"documents": {"train": 1, "val": 1, "test": 1}})
    good_folder(dataset, tmp_path, FORMS[form])
    before = files_below(tmp_path / "data")
    found = refusal_of(dataset, tmp_path / "good", force=True)
    assert found.kind is DataError
    assert "documents in train" in found.message
    assert files_below(tmp_path / "data") == before


LATE: Mapping[str, Files] = {
    "text_label": {"label_test": b"cs.ai\nmath\nxx\n", "text_test": b"a\nb\nc\n"},
    "books": {TEST: b"<book "},
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("form", LATE)
def test_a_late_fault_leaves_no_file_open(form: str, packing: str, tmp_path: Path) -> None:
    raw = PACKINGS[packing].pack(write(tmp_path / "raw", {**FORMS[form], **LATE[form]}))
    found = refusal_of(dataset_in(tmp_path, form, {}), raw)
    assert found.kind is DataError
    assert found.left_open == []


# --- archives


def zip_of(names: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return stream.getvalue()


def tar_of(names: Mapping[str, bytes], mode: str = "") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{mode}") as archive:  # type: ignore[call-overload]
        for name, data in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def damaged(data: bytes, part: bytes) -> bytes:
    """Return stored data with a byte of `part` changed."""
    assert data.count(part) == 1
    return data.replace(part, part[:-1] + bytes([part[-1] ^ 1]))


def stored(names: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return stream.getvalue()


def encrypted(names: Mapping[str, bytes]) -> bytes:
    """Return a zip whose first member says it is encrypted."""
    data = bytearray(stored(names))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


UNLIKE = bytes((at * at * 7 + at // 3) % 251 for at in range(4000))  # hardly to be compressed
LARGE = {"text_train": b"\n".join(UNLIKE.hex()[at : at + 40].encode() for at in range(0, 8000, 40))}
DAMAGED = "damaged or cut short"

ARCHIVES: Mapping[str, tuple[str, bytes, str, tuple[str, ...]]] = {
    **{
        f"a zip cut at {share} %": (
            "a.zip",
            zip_of(ALIGNED)[: len(zip_of(ALIGNED)) * share // 100],
            "",
            (DAMAGED,),
        )
        for share in (0, 10, 50, 90, 99)
    },
    **{
        f"a tar.gz cut at {share} %": (
            "a.tar.gz",
            tar_of({**ALIGNED, **LARGE}, "gz")[: len(tar_of({**ALIGNED, **LARGE}, "gz")) * share // 100],
            "",
            (DAMAGED,),
        )
        for share in (0, 10, 50, 90)
    },
    "a tar cut in a member": ("a.tar", tar_of(ALIGNED)[:520], "", (DAMAGED,)),
    "a damaged member": (
        "a.zip",
        damaged(stored({f"set/{name}": data for name, data in ALIGNED.items()}), b"another text"),
        ":set/text_train",
        (DAMAGED,),
    ),
    "a web page": ("a.zip", b"<html>Log in first</html>", "", (DAMAGED, "not a zip file")),
    "an encrypted zip": ("a.zip", encrypted(ALIGNED), "", ("text_train is encrypted",)),
    "a zip that climbs": ("a.zip", zip_of({**ALIGNED, "../text_new": b"x"}), "", ("'../text_new'", "leaves")),
    "a zip that climbs later": (
        "a.zip",
        zip_of({**ALIGNED, "a/../../b": b""}),
        "",
        ("'a/../../b'", "leaves"),
    ),
    "a zip with a whole path": ("a.zip", zip_of({**ALIGNED, "/etc/x": b"x"}), "", ("'/etc/x'", "leaves")),
    "a zip with a drive": ("a.zip", zip_of({**ALIGNED, "C:\\x": b"x"}), "", ("'C:", "leaves")),
    "a zip that climbs by backslashes": ("a.zip", zip_of({"..\\x": b"x"}), "", ("'..", "leaves")),
    "a tar that climbs": ("a.tar.gz", tar_of({**ALIGNED, "../x": b"x"}, "gz"), "", ("'../x'", "leaves")),
    "a plain tar that climbs": ("a.tar", tar_of({**ALIGNED, "../x": b"x"}), "", ("'../x'", "leaves")),
    "a zip without files": ("a.zip", zip_of({"__MACOSX/x": b"", "set/.DS_Store": b""}), "", ("no files",)),
    "a file of another kind": ("a.pdf", b"%PDF-1.4", "", ("it holds a.pdf",)),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_bad_archive_is_one_message_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    file, data, at, words = ARCHIVES[name]
    raw = write(tmp_path / "raws", {file: data}) / file
    found = refusal_of(dataset_in(tmp_path, "text_label", {}), raw)
    assert found.kind is DataError
    assert found.message.startswith(f"{raw}{at}:")
    for word in words:
        assert word in found.message
    assert files_below(tmp_path / "data") == {}
    assert files_below(tmp_path / "raws") == {file: data}
    assert files_below(tmp_path).keys() == {"data", "raws", f"raws/{file}"}


@pytest.mark.parametrize("name", ["a zip that climbs", "a tar that climbs", "a tar cut in a member"])
def test_a_bad_archive_is_closed(name: str, tmp_path: Path) -> None:
    file, data, _, _ = ARCHIVES[name]
    found = refusal_of(dataset_in(tmp_path, "text_label", {}), write(tmp_path / "raws", {file: data}) / file)
    assert found.kind is DataError
    assert found.left_open == []


@pytest.mark.parametrize("share", [1, 50, 99])
def test_a_compressed_file_that_is_cut_short_is_named(share: int, tmp_path: Path) -> None:
    whole = gzip.compress(LARGE["text_train"])
    files = {**ALIGNED, "text_train": None, "text_train.gz": whole[: len(whole) * share // 100]}
    raw = write(tmp_path / "raw", files)
    found = refusal_of(dataset_in(tmp_path, "text_label", {}), raw)
    assert found.kind is DataError
    assert found.message.startswith(f"{raw}/text_train.gz: {DAMAGED}")
    assert files_below(tmp_path / "data") == {}


def test_raw_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    dataset = dataset_in(tmp_path, "text_label", {})
    (tmp_path / "empty").mkdir()
    assert refusal_of(dataset, tmp_path / "none")[:2] == (DataError, f"raw={tmp_path}/none is not there")
    assert refusal_of(dataset, tmp_path / "empty")[:2] == (DataError, f"{tmp_path}/empty: holds no files")
    kind, message, _ = refusal_of(dataset, None)
    assert kind is ConfigError
    assert "write raw=PATH, a download" in message
    assert files_below(tmp_path) == {"empty": None, "data": None}


# --- options

OPTIONS: Mapping[str, tuple[str, Mapping[str, Any], tuple[str, ...]]] = {
    "an unknown name": ("text_label", {"cleann": "none"}, ("dataset.prepare.cleann", "did you mean clean?")),
    "an unknown name, books": ("books", {"unused": "keep"}, ("prepare.unused", "did you mean unused_nodes?")),
    "two faults": (
        "books",
        {"texts": "body", "seed": "x"},
        ("did you mean text?", "dataset.prepare.seed=x is not a whole number"),
    ),
    "an unknown word": (
        "text_label",
        {"clean": "lowr"},
        ("clean=lowr", "none, lower", "did you mean lower?"),
    ),
    "an unknown word, books": (
        "books",
        {"unused_nodes": "dorp"},
        ("unused_nodes=dorp", "did you mean drop?"),
    ),
    "another type": ("books", {"seed": 1.5}, ("seed=1.5 is not a whole number",)),
    "two shares": ("books", {"shares": [0.9, 0.1]}, ("shares=[0.9, 0.1]", "three numbers")),
    "shares above 1": ("books", {"shares": [0.9, 0.1, 0.1]}, ("shares=[0.9, 0.1, 0.1]", "add up to 1")),
    "a share of 0": ("books", {"shares": [0.9, 0.1, 0]}, ("shares=[0.9, 0.1, 0.0]", "above 0")),
    "shares that are no numbers": ("books", {"shares": [float("nan")] * 3}, ("shares=", "three numbers")),
    **{
        f"the encoding {name!r}, {form}": (
            form,
            {"encoding": name},
            ("dataset.prepare.encoding=", "no encoding"),
        )
        for name in ("utf-9", "hex", "rot13", "a\0b")
        for form in ("text_label", "books")
    },
    "an encoding that is no text": ("text_label", {"encoding": 8}, ("encoding=8 is not a text or null",)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_wrong_option_is_one_message_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    form, options, words = OPTIONS[name]
    raw = write(tmp_path / "raw", FORMS[form])
    found = refusal_of(dataset_in(tmp_path, form, options), raw)
    assert found.kind is ConfigError
    for word in words:
        assert word in found.message
    assert files_below(tmp_path / "data") == {}
    assert files_below(raw) == FORMS[form]


COLUMNS = {
    "keys that say nothing": b'{"x": "a", "y": ["cs.ai"]}\n',
    "two keys for the text": b'{"text": "a", "token": "b", "labels": ["cs.ai"]}\n',
}


@pytest.mark.parametrize("name", COLUMNS)
def test_no_message_advises_an_option_that_the_set_has_not(name: str, tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", {**JSONL, "train.jsonl": COLUMNS[name]})
    found = refusal_of(dataset_in(tmp_path, "jsonl", {}), raw)
    assert found.kind in (ConfigError, DataError)
    assert str(raw / "train.jsonl") in found.message
    assert "dataset.prepare." not in found.message


# --- what is no fault

UTF_16 = codecs.BOM_UTF16_LE
SOUND: Mapping[str, Callable[[bytes], bytes]] = {
    "a mark": lambda data: codecs.BOM_UTF8 + data,
    "UTF-16 with a mark": lambda data: UTF_16 + data.decode().encode("utf-16-le"),
    "an old Mac's line ends": lambda data: data.replace(b"\n", b"\r"),
    "Windows line ends": lambda data: data.replace(b"\n", b"\r\n"),
    "a mark and Windows line ends": lambda data: codecs.BOM_UTF8 + data.replace(b"\n", b"\r\n"),
    "no last line end": lambda data: data.removesuffix(b"\n"),
    "a last blank line": lambda data: data + b"\n",
    "last blank lines": lambda data: data + b"\n \t\n\n",
    "last blank lines, Windows": lambda data: data.replace(b"\n", b"\r\n") + b"\r\n\r\n",
}


def prepared(form: str, files: Files, folder: Path) -> dict[str, list[Any]]:
    """Return nodes and documents of what the files are prepared to."""
    raw, scratch = write(folder / "raw", files), folder / "scratch"
    scratch.mkdir()
    name = "bgc" if form == "books" else "aapd"
    conversion = load_converter(name)(raw, {}, scratch, lambda title, total: lambda steps: None)
    write_dataset(folder / "made", conversion, converter=name)
    made = open_prepared(folder / "made")
    return {split: list(made.documents(split)) for split in ("train", "val", "test")} | {
        "nodes": list(made.taxonomy.nodes)
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SOUND)
def test_an_unusual_but_sound_file_is_read(name: str, form: str, tmp_path: Path) -> None:
    expected = prepared(form, FORMS[form], tmp_path / "plain")
    for file, data in FORMS[form].items():  # one alone, so that it also stands beside plain ones
        found = prepared(form, {**FORMS[form], file: SOUND[name](data)}, tmp_path / file)
        assert found == expected


def test_the_sound_files_hold_what_they_say(tmp_path: Path) -> None:
    counts = {
        form: [len(found[key]) for key in ("train", "val", "test", "nodes")]
        for form, files in FORMS.items()
        for found in [prepared(form, files, tmp_path / form)]
    }
    assert counts == {
        "text_label": [3, 1, 2, 61],
        "hedwig": [2, 2, 2, 61],
        "jsonl": [2, 2, 2, 61],
        "books": [2, 1, 1, 4],
    }
