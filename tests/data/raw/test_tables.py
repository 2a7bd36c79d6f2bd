"""The user's files as tables: formats, splits of names, headers, and the place of every record."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

import datasets
from hblm.data.raw.archives import Raw
from hblm.data.raw.tables import Dialect, Table, arrow_tables, is_arrow_folder, open_tables, split_of_name
from hblm.errors import DataError, HblmError

ROWS = [
    {"text": "light bends", "label": "sci/phys"},
    {"text": 'a "song"; or,\ttwo | three', "label": "arts/music"},
    {"text": "line\nbreak – \u2028 é 😀", "label": "arts"},
]


def delimited(rows: Sequence[Mapping[str, str]], sign: str = ",", end: str = "\n") -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=sign, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def jsonl(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), sink)
    return sink.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


Read = Callable[..., tuple[list[Table], list[tuple[str, dict[str, Any]]]]]


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Read]:
    """Return a reader of files: their tables, and each record with its place."""
    opened: list[Raw] = []

    def run(
        files: Mapping[str, bytes], dialect: Dialect | None = None, ignored: Sequence[str] = ()
    ) -> tuple[list[Table], list[tuple[str, dict[str, Any]]]]:
        for name, content in files.items():
            (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "raw" / name).write_bytes(content)
        (only, *others) = files
        opened.append(Raw(tmp_path / "raw" if others or "/" in only else tmp_path / "raw" / only))
        tables = open_tables(opened[-1], dialect or Dialect(), ignored)
        found = [
            (f"{table.place}{number}".removeprefix(f"{tmp_path}/raw/"), dict(record))
            for table in tables
            for number, record in table.records()
        ]
        return tables, found

    yield run
    for raw in opened:
        raw.__exit__(None, None, None)


# --- formats

FORMATS: dict[str, tuple[str, bytes]] = {
    "JSONL": ("x.jsonl", jsonl(ROWS)),
    "JSONL by another name": ("x.json", jsonl(ROWS)),
    "ndjson": ("x.NDJSON", jsonl(ROWS)),
    "comma": ("x.csv", delimited(ROWS)),
    "semicolon": ("x.csv", delimited(ROWS, ";")),
    "bar": ("x.csv", delimited(ROWS, "|")),
    "tab in a CSV": ("x.csv", delimited(ROWS, "\t")),
    "Windows": ("x.csv", delimited(ROWS, ",", "\r\n")),
    "TSV": ("x.tsv", delimited(ROWS, "\t")),
    "a table by another name": ("x.txt", delimited(ROWS, "\t")),
    "no suffix": ("x", delimited(ROWS)),
    "an upper-case name": ("X.CSV", delimited(ROWS)),
    "a byte-order mark": ("x.csv", b"\xef\xbb\xbf" + delimited(ROWS)),
    "UTF-16": ("x.csv", delimited(ROWS).decode().encode("utf-16")),
    "JSONL with a byte-order mark": ("x.jsonl", b"\xef\xbb\xbf" + jsonl(ROWS)),
    "Parquet": ("x.parquet", parquet(ROWS)),
    "gz": ("x.csv.gz", gzip.compress(delimited(ROWS))),
    "bz2": ("x.jsonl.bz2", bz2.compress(jsonl(ROWS))),
    "xz": ("x.tsv.xz", lzma.compress(delimited(ROWS, "\t"))),
    "a zip of CSV": ("x.zip", zipped({"folder/news.csv": delimited(ROWS), "__MACOSX/._news.csv": b"\0"})),
    "a zip of Parquet": ("x.zip", zipped({"news.parquet": parquet(ROWS), "README.md": b"# News"})),
    "a tar of gz": ("x.tar.gz", tarred({"./news.csv.gz": gzip.compress(delimited(ROWS))})),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_records(kind: str, read: Read) -> None:
    name, content = FORMATS[kind]
    (table,), found = read({name: content})
    assert [record for _, record in found] == ROWS
    assert list(table.columns) == ["text", "label"]
    assert table.split == ""
    assert [record for _, record in table.records()] == ROWS


def test_records_have_places(read: Read) -> None:
    content = b'text,label\n"a\nb\nc",x\n\nd,y\n  \ne,z\n'.replace(b"  \n", b"\n")
    assert [place for place, _ in read({"x.csv": content})[1]] == ["x.csv:2", "x.csv:6", "x.csv:8"]


def test_records_of_other_formats_have_places(read: Read) -> None:
    lines = b'{"text": "a"}\n\n{"text": "b"}\n\n\n'
    assert [place for place, _ in read({"lines.jsonl": lines})[1]] == ["lines.jsonl:1", "lines.jsonl:3"]
    packed = zipped({"in/news.csv": b"text\na\nb\n"})
    assert read({"x.zip": packed})[1][1][0] == "x.zip:in/news.csv:3"


def test_parquet_rows_are_counted_over_row_groups(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hblm.data.raw.columnar._ROWS", 2)
    rows = [{"text": f"t{at}", "labels": ["a", "b"][: at % 3]} for at in range(7)]
    _, found = read({"x.parquet": parquet(rows)})
    assert [place for place, _ in found] == [f"x.parquet: row {at}" for at in range(1, 8)]
    assert [record for _, record in found] == rows


def test_parquet_types_become_plain_values(read: Read) -> None:
    table = pyarrow.table(
        {
            "text": pyarrow.array(["a", None]).dictionary_encode(),
            "label": pyarrow.array([3, None], pyarrow.int8()),
            "path": pyarrow.array([["x", "y"], []], pyarrow.large_list(pyarrow.string())),
        }
    )
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    _, found = read({"x.parquet": sink.getvalue()})
    assert [record for _, record in found] == [
        {"text": "a", "label": 3, "path": ["x", "y"]},
        {"text": None, "label": None, "path": []},
    ]


@pytest.mark.parametrize(
    ("dialect", "content", "expected"),
    [
        (Dialect(delimiter=";"), b"text;label,x\na,b;c\n", {"text": "a,b", "label,x": "c"}),
        (Dialect(delimiter="\t"), b"text, whole\tlabel\na\tb\n", {"text, whole": "a", "label": "b"}),
        (Dialect(quote=None), b'text\tlabel\n"a\tb"\n', {"text": '"a', "label": 'b"'}),
        (Dialect(quote="'"), b"text,label\n'a,b',c\n", {"text": "a,b", "label": "c"}),
        (Dialect(encoding="cp1252"), b"text,label\ncaf\xe9 \x80,b\n", {"text": "café €", "label": "b"}),
        (Dialect(), b'"text, whole",label;x\na,b\n', {"text, whole": "a", "label;x": "b"}),
        (Dialect(), b" text , label \na, b\n", {"text": "a", "label": "b"}),
        (Dialect(), b'text, label\n"a, b", "c"\n', {"text": "a, b", "label": "c"}),
        (Dialect(), b'text,label\n"say ""a""",b\n', {"text": 'say "a"', "label": "b"}),
    ],
)
def test_delimited_text_is_read_in_its_dialect(
    dialect: Dialect, content: bytes, expected: dict[str, str], read: Read
) -> None:
    assert [record for _, record in read({"x.csv": content}, dialect)[1]] == [expected]


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_any_line_end_will_do(end: str, read: Read) -> None:
    rows = [{"text": "a b", "label": "x"}, {"text": "c", "label": "y"}]
    assert [record for _, record in read({"x.csv": delimited(rows, ",", end)})[1]] == rows
    lines = jsonl(rows).replace(b"\n", end.encode())
    assert [record for _, record in read({"y.jsonl": lines})[1]] == rows


def test_a_cell_may_be_longer_than_the_csv_module_allows(read: Read) -> None:
    before = csv.field_size_limit(131_072)
    try:
        (found,) = read({"x.csv": delimited([{"text": "word " * 60_000, "label": "a"}])})[1]
    finally:
        csv.field_size_limit(before)
    assert len(found[1]["text"]) == 300_000


# --- splits


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("rcv1_training.jsonl", "train"),
        ("BlurbGenreCollection_EN_dev.txt", "val"),
        ("data/validation-00000-of-00001.parquet", "val"),
        ("valid.tsv", "val"),
        ("TEST2.csv", "test"),
        ("split/test/part1.jsonl", "test"),
        ("latest.csv", ""),
        ("train_test.csv", ""),
        ("trained.csv", ""),
        ("contest-values.csv", ""),
        ("news.csv", ""),
        ("", ""),
    ],
)
def test_a_name_says_its_split_by_a_word(name: str, split: str) -> None:
    assert split_of_name(name) == split


def splits(tables: Sequence[Table]) -> list[tuple[str, str]]:
    return [(table.split, table.place.rpartition("/")[2].rstrip(": row")) for table in tables]


def test_files_are_the_splits_that_their_names_say(read: Read) -> None:
    files = {f"news_{word}.csv": delimited(ROWS) for word in ("train", "dev", "test")}
    tables, found = read({**files, "README.md": b"# News", "other.csv.md5": b"0"})
    assert splits(tables) == [("train", "news_train.csv"), ("val", "news_dev.csv"), ("test", "news_test.csv")]
    assert len(found) == 9


def test_a_split_may_come_in_numbered_parts(read: Read) -> None:
    files = {f"data/train-0000{at}-of-00002.parquet": parquet(ROWS[at : at + 1]) for at in (0, 1)}
    tables, found = read({**files, "data/test-00000-of-00001.parquet": parquet(ROWS[2:])})
    assert [table.split for table in tables] == ["train", "train", "test"]
    assert [record for _, record in found] == ROWS


def test_parts_without_a_split_are_one_table(read: Read) -> None:
    files = {f"part-0000{at}-of-00002.parquet": parquet(ROWS[at : at + 1]) for at in (0, 1)}
    try:
        _, found = read(files)
    except DataError:
        return
    assert [record for _, record in found] == ROWS[:2]


def test_a_part_that_is_missing_is_not_overlooked(read: Read) -> None:
    files = {f"train-0000{at}-of-00003.parquet": parquet(ROWS[:1]) for at in (0, 2)}
    with pytest.raises(DataError, match="00001-of-00003"):
        read({**files, "test-00000-of-00001.parquet": parquet(ROWS[2:])})


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "train.jsonl", "test.csv"),
        ("train.csv", "train.csv.gz", "test.csv"),
        ("train.csv", "train_extra.csv", "test.csv"),
        ("a/train.csv", "b/train.csv", "test.csv"),
        ("train.csv", "dev.csv", "val.csv"),
    ],
)
def test_several_files_of_one_split_are_refused(names: Sequence[str], read: Read) -> None:
    pack = {"gz": gzip.compress(delimited(ROWS)), "jsonl": jsonl(ROWS)}
    with pytest.raises(DataError, match=r"several files look like the (train|val) split: ") as caught:
        read({name: pack.get(name.rpartition(".")[2], delimited(ROWS)) for name in names})
    message = str(caught.value)
    assert "give a folder with one of them" in message
    assert sum(name.removesuffix(".gz") in message for name in names) >= 2


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a.csv", "b.csv"), "several data files; it holds a.csv, b.csv"),
        (("test.csv", "val.csv"), "no file for training; found test.csv, val.csv"),
        (
            ("README.md", "a.docx"),
            "no data file (.jsonl, .json, .csv, .tsv, .parquet, .xlsx, .ods); it holds",
        ),
    ],
)
def test_a_folder_that_does_not_say_what_is_data_is_refused(
    names: Sequence[str], expected: str, read: Read
) -> None:
    with pytest.raises(DataError) as caught:
        read({name: delimited(ROWS) for name in names})
    assert expected in str(caught.value)


def test_the_taxonomy_is_no_data(read: Read) -> None:
    files = {"news.csv": delimited(ROWS), "tree.csv": b"parent,child\na,b\n"}
    assert splits(read(files, ignored=["tree.csv"])[0]) == [("", "news.csv")]


def test_one_file_is_all_documents_whatever_its_name(read: Read) -> None:
    assert splits(read({"train.csv": delimited(ROWS)})[0]) == [("", "train.csv")]


# --- faults

FAULTS: dict[str, tuple[str, bytes, str]] = {
    "an array of texts": ("x.json", b'["a",\n"b"]\n', ": item 1: expected an object with text and labels"),
    "an array after a mark": ("x.json", b"\xef\xbb\xbf[1]\n", ": item 1: expected an object"),
    "an array that is cut": ("x.json", b'[{"text": "a"},\n {"text": "b"}', ":2: not valid JSON"),
    "an empty array": ("x.json", b"[]", ": holds no records"),
    "arrays without an end": ("x.json", b"[" * 200_000, ": not a table"),
    "a pretty JSON object": (
        "x.json",
        b'{\n "text": "a"\n}\n',
        ": one JSON value; expected an object a line",
    ),
    "columns of two lengths": (
        "x.json",
        b'{"text": ["a b", "c"],\n "label": ["a"]}',
        ": one JSON value; expected",
    ),
    "an array in pretty JSONL": ("x.jsonl", b'{\n "text": "a"\n}\n', ":1: not valid JSON"),
    "not JSON": ("x.jsonl", b'{"text": "a"}\n{text: 1}\n', ":2: not valid JSON"),
    "no object": ("x.jsonl", b'{"text": "a"}\n\n"b"\n', ":3: expected an object with text and labels"),
    "an empty JSONL": ("x.jsonl", b"", ": holds no records"),
    "blank lines": ("x.jsonl", b"\n \n", ": holds no records"),
    "an empty CSV": ("x.csv", b"", ": holds no header line"),
    "a CSV of blank lines": ("x.csv", b"\n\n", ": holds no header line"),
    "a column twice": ("x.csv", b"text,label,label\na,b,c\n", ":1: column 'label' is there 2 times"),
    "a column twice but for blanks": ("x.csv", b"text,text \na,b\n", ":1: column 'text' is there 2 times"),
    "too many cells": (
        "x.csv",
        b"text,label\na,b\nc, d,e\n",
        ":3: 3 cells, and the header has 2 (text, label); cells are separated by comma",
    ),
    "too few cells": ("x.tsv", b"text\tlabel\nab\n", ":2: 1 cells, and the header has 2 (text, label)"),
    "too many cells after a line break": ("x.csv", b'text,label\n"a\nb",c\nd,e,f\n', ":4: 3 cells"),
    "too many cells in Mac lines": ("x.csv", b"text,label\ra,b\rc,d,e\r", ":3: 3 cells"),
    "a quote out of place": ("x.csv", b'text,label\n"a"b,c\n', ":2: "),
    "a quote never closed": ("x.csv", b'text,label\na,b\n"c,d\ne,f\n', ":3: a quote is opened in this row"),
    "damaged Parquet": ("x.parquet", b"PAR1" + b"\0" * 100, ": cannot be read, damaged"),
    "cut Parquet": ("x.parquet", parquet(ROWS)[:-10], ": cannot be read, damaged"),
    "Parquet that is none": ("x.parquet", b"text,label\n", ": cannot be read, damaged"),
    "an empty Parquet file": ("x.parquet", b"", ": cannot be read, damaged"),
    "damaged pages of Parquet": (
        "x.parquet",
        b"PAR1" + b"\xff" * 60 + parquet(ROWS)[64:],
        ": cannot be read, damaged",
    ),
    "cut gz": ("x.csv.gz", gzip.compress(delimited(ROWS * 50))[:-20], ": damaged or cut short"),
    "no gz": ("x.csv.gz", delimited(ROWS), ": damaged or cut short"),
    "no zip": ("x.zip", b"PK nothing", ": damaged or cut short"),
    "Latin-1": ("x.csv", b"text,label\na,b\ncaf\xe9,c\n", ":3: not UTF-8 at byte 4 of the line"),
    "a spreadsheet": ("x.xlsx", zipped({"xl/workbook.xml": b"<?xml?>" * 90}), ""),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_a_data_error_with_its_place(kind: str, read: Read, tmp_path: Path) -> None:
    name, content, expected = FAULTS[kind]
    with pytest.raises(DataError) as caught:
        read({name: content})
    assert str(caught.value).startswith(f"{tmp_path}/raw/{name}{expected}")
    assert len(str(caught.value)) < 500


def jsons(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Return the forms of a JSON file, and what stands before the number of a record."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    by_row = {name: {str(at): value for at, value in enumerate(column)} for name, column in columns.items()}
    return {
        "an array": (json.dumps(rows), "item "),
        "a pretty array": (json.dumps(rows, indent=2), "item "),
        "objects a line in an array": ("[" + ",\n".join(map(json.dumps, rows)) + "\n]", "item "),
        "an array after a blank line": ("\n " + json.dumps(rows), "item "),
        "columns": (json.dumps(columns), "item "),
        "pretty columns": (json.dumps(columns, indent=1), "item "),
        "columns of pandas": (json.dumps(by_row), "item "),
        "rows of pandas": (json.dumps({str(at): row for at, row in enumerate(rows)}), "item "),
    }


@pytest.mark.parametrize("kind", jsons(ROWS))
def test_json_is_read_in_every_form(kind: str, read: Read) -> None:
    text, before = jsons(ROWS)[kind]
    _, found = read({"x.json": text.encode()})
    assert found == [(f"x.json: {before}{at}", row) for at, row in enumerate(ROWS, 1)]


def test_one_record_of_lists_is_a_record(read: Read) -> None:
    record = {"doc_token": ["light", "bends"], "doc_label": ["a", "b"]}
    assert [found for _, found in read({"x.json": jsonl([record])})[1]] == [record]


@pytest.mark.parametrize("sign", ["::", " ||| ", "|", "\t"])
@pytest.mark.parametrize("quote", ['"', None])
def test_a_delimiter_may_have_several_characters(sign: str, quote: str | None, read: Read) -> None:
    rows = [{"text": "light bends", "label": "a"}, {"text": "b: é", "label": ""}]
    lines = ["text", "label"], *(row.values() for row in rows)
    content = "\n".join(map(sign.join, lines)).encode()
    assert [found for _, found in read({"x.csv": content}, Dialect(sign, quote))[1]] == rows


def test_a_long_delimiter_is_text_between_quotes(read: Read) -> None:
    _, found = read({"x.csv": b'text::label\n"a::b"::c\n'}, Dialect("::"))
    assert found == [("x.csv:2", {"text": "a::b", "label": "c"})]


def test_without_a_header_columns_have_numbers(read: Read) -> None:
    dialect = Dialect(header="none")
    assert read({"x.csv": b"a b,c\nd,e\n"}, dialect)[1] == [
        ("x.csv:1", {"1": "a b", "2": "c"}),
        ("x.csv:2", {"1": "d", "2": "e"}),
    ]


HEADS = {
    "a number": ('3,"Wall St.",text', "column 1 is a number"),
    "a fraction": ("text,0.5", "column 2 is a number"),
    "a sentence": ("pos,It was good fun.", "column 2 is a text"),
    "a long text": (f"pos,{'word ' * 20}", "column 2 is a text"),
    "a name twice": ("pos,pos", "column 'pos' is there 2 times"),
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_document_in_place_of_a_header_is_refused(kind: str, read: Read) -> None:
    line, why = HEADS[kind]
    with pytest.raises(DataError) as caught:
        read({"x.csv": f"{line}\n".encode() * 2})
    assert why in str(caught.value)
    assert str(caught.value).startswith("x.csv:1: ") or "/x.csv:1: " in str(caught.value)
    assert "dataset.prepare.header=none" in str(caught.value)
    assert "word word" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["text,2019,2020", "0,1", ",0,1", "text,how good is it from one to ten, please,c"]
)
def test_a_header_of_numbers_or_texts_is_one_on_request(line: str, read: Read) -> None:
    header = None if line.lstrip(",").startswith("0") else "first"
    (table,), _ = read({"x.csv": f"{line}\n{line}\n".encode()}, Dialect(header=header))
    assert list(table.columns) == [name.strip() or "column 1" for name in line.split(",")]


def test_a_first_line_that_is_no_header_is_no_traceback(read: Read) -> None:
    before = csv.field_size_limit(131_072)
    try:
        with contextlib.suppress(HblmError):
            read({"x.csv": b"word " * 40_000 + b",sports\n"})
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize(
    "dialect", [Dialect(delimiter="\\t"), Dialect(delimiter=""), Dialect(delimiter="::"), Dialect(quote="''")]
)
def test_a_delimiter_or_quote_of_another_length_is_no_traceback(dialect: Dialect, read: Read) -> None:
    with contextlib.suppress(HblmError):
        read({"x.csv": b"text\tlabel\na\tb\n"}, dialect)


@pytest.mark.parametrize(
    "kind", ["comma", "JSONL", "Parquet", "gz", "bz2", "xz", "a zip of CSV", "cut Parquet"]
)
def test_no_file_stays_open(kind: str, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    plain = Path.open

    def recorded(path: Path, mode: str = "r", **more: Any) -> Any:
        opened.append(plain(path, mode, **more))
        return opened[-1]

    monkeypatch.setattr(Path, "open", recorded)
    name, content, *_ = (FORMATS | FAULTS)[kind]
    with contextlib.suppress(DataError):
        read({name: content})
    left = [stream.name for stream in opened if not stream.closed]
    for stream in opened:
        stream.close()
    assert left == []


# --- Hugging Face's folders

FEATURES = datasets.Features(
    {
        "text": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["sci", "arts"]),
        "tags": datasets.Sequence(datasets.ClassLabel(names=["sci/phys", "arts/film", "arts"])),
        "plain": datasets.Sequence(datasets.Value("int64")),
    }
)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Return a saver of datasets, one for each split; `whole` is a Dataset, the others are a DatasetDict."""

    def make(**parts: list[dict[str, Any]]) -> Path:
        datasets.disable_progress_bars()
        found = {name: datasets.Dataset.from_list(rows, features=FEATURES) for name, rows in parts.items()}
        whole = found["whole"] if "whole" in found else datasets.DatasetDict(found)
        whole.save_to_disk(tmp_path / "saved")
        return tmp_path / "saved"

    return make


def row(text: str, label: int | None = 0, tags: Sequence[int | None] = ()) -> dict[str, Any]:
    return {"text": text, "label": label, "tags": list(tags), "plain": [1, 2]}


def test_a_dataset_dict_is_a_table_for_each_split(saved: Callable[..., Path]) -> None:
    folder = saved(train=[row("a", 1, [0, 2]), row("b")], validation=[row("c")], test=[row("d", 0, [1])])
    assert is_arrow_folder(folder)
    tables = arrow_tables(folder)
    assert [(table.split, table.place) for table in tables] == [
        ("train", f"{folder}/train: row "),
        ("val", f"{folder}/validation: row "),
        ("test", f"{folder}/test: row "),
    ]
    assert list(tables[0].columns) == ["text", "label", "tags", "plain"]
    assert list(tables[0].records()) == [
        (1, {"text": "a", "label": "arts", "tags": ["sci/phys", "arts"], "plain": [1, 2]}),
        (2, {"text": "b", "label": "sci", "tags": [], "plain": [1, 2]}),
    ]
    assert [dict(record)["tags"] for _, record in tables[2].records()] == [["arts/film"]]


def test_a_dataset_is_one_table(saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hblm.data.raw.columnar._ROWS", 2)
    folder = saved(whole=[row(f"t{at}", None if at == 1 else at % 2) for at in range(5)])
    (table,) = arrow_tables(folder)
    found = list(table.records())
    assert (table.split, table.place) == ("", f"{folder}: row ")
    assert [number for number, _ in found] == [1, 2, 3, 4, 5]
    assert [record["label"] for _, record in found] == ["sci", None, "sci", "arts", "sci"]
    assert list(table.records()) == found


def test_reading_a_folder_leaves_it_as_it_is(saved: Callable[..., Path]) -> None:
    folder = saved(train=[row("a")], test=[row("b")])
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for table in arrow_tables(folder):
        list(table.records())
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def beyond_the_end(folder: Path) -> None:
    """Let the texts of an Arrow file end far behind the file: they are t0 to t9, then t10 and so on."""
    file = next(folder.glob("train/*.arrow"))
    ends = struct.pack("<2i", 2 * 9, 2 * 10)
    content = file.read_bytes()
    assert ends in content
    file.write_bytes(content.replace(ends, struct.pack("<2i", 2 * 9, 1 << 30)))


@pytest.mark.parametrize(
    "damage",
    [
        beyond_the_end,
        lambda folder: next(folder.glob("train/*.arrow")).write_bytes(b"rubbish"),
        lambda folder: next(folder.glob("train/*.arrow")).unlink(),
        lambda folder: (folder / "train/state.json").write_text("{"),
        lambda folder: (folder / "train/dataset_info.json").unlink(),
        lambda folder: (folder / "dataset_dict.json").write_text('{"splits": ["train", "nowhere"]}'),
        lambda folder: (folder / "dataset_dict.json").write_text("[]"),
    ],
)
def test_a_damaged_folder_is_a_data_error(damage: Callable[[Path], Any], saved: Callable[..., Path]) -> None:
    folder = saved(train=[row(f"t{at}") for at in range(50)])
    damage(folder)
    with pytest.raises(DataError, match="cannot be read, damaged or of another kind") as caught:
        [list(table.records()) for table in arrow_tables(folder)]
    assert str(caught.value).startswith(str(folder))


@pytest.mark.parametrize(
    "array",
    [
        pyarrow.array([1 << 30], pyarrow.date32()),
        pyarrow.array([1 << 62], pyarrow.timestamp("ms")),
        pyarrow.array([1 << 62], pyarrow.duration("s")),
    ],
    ids=["date", "timestamp", "duration"],
)
def test_values_that_python_has_no_room_for_are_a_data_error(array: pyarrow.Array, read: Read) -> None:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": array}), sink)
    with pytest.raises(DataError, match=r"x\.parquet: row : cannot be read|x\.parquet: cannot be read"):
        read({"x.parquet": sink.getvalue()})


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
def test_a_table_of_too_many_columns_is_refused(name: str, read: Read) -> None:
    columns = [f"c{at}" for at in range(20_000)]
    content = ",".join(columns) + "\n" if name == "x.csv" else json.dumps(dict.fromkeys(columns)) + "\n"
    with pytest.raises(DataError, match=rf"{name}:1: 20,000 columns; no table has more"):
        read({name: content.encode()})


def test_empty_rows_without_end_are_refused(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hblm.data.raw.tables.MOST_BLANK", 10)
    assert len(read({"x.csv": b"text,label\n" + b"a,b\n,\n" * 20})[1]) == 20
    with pytest.raises(DataError, match=r"x\.csv:13: 11 empty rows"):
        read({"x.csv": b"text,label\na,b\n" + b",\n" * 20})


def test_other_folders_are_none_of_hugging_faces(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(delimited(ROWS))
    assert not is_arrow_folder(tmp_path)
    assert not is_arrow_folder(tmp_path / "train.csv")
    assert not is_arrow_folder(tmp_path / "nowhere")
