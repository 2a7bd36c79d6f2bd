"""Rows of documents to predict: every format, and bad rows among good ones."""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
import lzma
import os
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import datasets
from hblm.config.predict import PredictConfig
from hblm.data.raw import delimited, text
from hblm.errors import ConfigError, DataError
from hblm.inference.rows.input_files import read_input
from hblm.inference.rows.input_rows import InputRow

TEXTS = ["one", "two, with a comma", 'three "quoted"', "four\nlines", "", "fünf 日本 😀"]
IDS = [f"d{number}" for number in range(len(TEXTS))]


def rows(path: Path | str, content: bytes | str | None = None, **keys: Any) -> list[InputRow]:
    """Return the rows of a file, which is written first if its content is given."""
    if content is not None:
        Path(path).write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_input(PredictConfig(checkpoint=["x"], input=str(path), **keys)))


def texts(path: Path | str, content: bytes | str | None = None, **keys: Any) -> list[str | None]:
    """Return the text of each row, None for a bad one."""
    return [None if row.fault else row.text for row in rows(path, content, **keys)]


def faults(path: Path | str, content: bytes | str, **keys: Any) -> dict[int, str]:
    return {row.number: row.fault for row in rows(path, content, **keys) if row.fault}


def frame() -> pd.DataFrame:
    return pd.DataFrame({"id": IDS, "text": TEXTS})


def write_sheet(path: Path) -> None:
    book = openpyxl.Workbook()
    for row in [("id", "text"), *zip(IDS, TEXTS, strict=True)]:
        book.active.append(row)
    book.save(path)


def write_lines(path: Path) -> None:
    lines = (json.dumps({"id": name, "text": each}) for name, each in zip(IDS, TEXTS, strict=True))
    path.write_text("\n".join(lines) + "\n")


WRITERS: dict[str, Callable[[Path], Any]] = {
    "a.csv": lambda path: frame().to_csv(path, index=False),
    "a.tsv": lambda path: frame().to_csv(path, index=False, sep="\t"),
    "semicolon.csv": lambda path: frame().to_csv(path, index=False, sep=";"),
    "windows.csv": lambda path: frame().to_csv(path, index=False, encoding="utf-16", lineterminator="\r\n"),
    "bom.csv": lambda path: frame().to_csv(path, index=False, encoding="utf-8-sig"),
    "a.csv.gz": lambda path: frame().to_csv(path, index=False),
    "a.jsonl": write_lines,
    "a.ndjson": write_lines,
    "lines.json": write_lines,
    "a.json": lambda path: path.write_text(frame().to_json(orient="records")),
    "columns.json": lambda path: path.write_text(json.dumps({"id": IDS, "text": TEXTS})),
    "pandas.json": lambda path: frame().to_json(path),
    "a.parquet": lambda path: frame().to_parquet(path),
    "a.xlsx": write_sheet,
    "saved": lambda path: datasets.Dataset.from_pandas(frame()).save_to_disk(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_has_the_same_rows(name: str) -> None:
    WRITERS[name](Path(name))
    assert rows(name, keep=["id"]) == [
        InputRow(number, each, [identity])
        for number, (each, identity) in enumerate(zip(TEXTS, IDS, strict=True), 1)
    ]
    assert [list(row.kept) for row in rows(name)] == [[]] * len(TEXTS)


def test_plain_lines_are_documents_blank_ones_included() -> None:
    assert texts("a.txt", "one\n\n two\r\nthree") == ["one", "", " two", "three"]
    assert texts("old_mac.txt", "one\rtwo\r") == ["one", "two"]
    assert texts("a.txt", "") == []
    assert texts("log", "x\n", format="txt") == ["x"]
    assert texts("bom.txt", "\ufeffx\n") == ["x"]
    assert texts("odd.csv", "text,b\n\ufdd3,1\n") == ["\ufdd3"]  # a noncharacter is a text as well
    assert texts("latin.txt", "é\n".encode("cp1252"), encoding="cp1252") == ["é"]


@pytest.mark.parametrize(
    ("ending", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_compressed_files_are_read(ending: str, pack: Callable[[bytes], bytes]) -> None:
    assert texts(f"a.txt{ending}", pack(b"one\ntwo\n")) == ["one", "two"]
    with pytest.raises(DataError, match=f"^a.jsonl{ending}: damaged or cut short"):
        rows(f"a.jsonl{ending}", pack(json.dumps({"text": os.urandom(5000).hex()}).encode())[:-9])


def test_an_archive_of_one_file_is_read() -> None:
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("in/side.csv", "text\none\n")
    assert texts("a.zip") == ["one"]
    with zipfile.ZipFile("a.zip", "a") as archive:
        archive.writestr("b.csv", "text\ntwo\n")
    with pytest.raises(ConfigError, match=r"input=a.zip holds 2 files \(b.csv, in/side.csv\)"):
        rows("a.zip")


BAD = {
    "a.jsonl": (
        '{"text": "one"}\n{"text": "t\n[1]\n\n{"text": null}\n{"text": 7}\n{"other": 1}\n'
        '{"text": "\\ud800"}\n{"text": "x", "text": "y"}\n{"text": ["two", "words"]}\n',
        ["one", None, None, None, None, None, None, None, "two words"],
        {
            2: "a.jsonl:2: not valid JSON: Unterminated string",
            3: "a.jsonl:3: expected an object with a text, found a list",
            4: "a.jsonl:5: text is null; a text is expected",
            5: "a.jsonl:6: text must be a text, found 7",
            6: "a.jsonl:7: no 'text'; the record has 'other'",
            7: "a.jsonl:8: the text holds a lone surrogate at character 1",
            8: "a.jsonl:9: not a document: the key 'text' is there twice",
        },
    ),
    "a.csv": (
        'id,text\n1,one\n2,two,too\n3\n4,"four"x\n5,"fi\nve"\n\n6,six\n',
        ["one", None, None, None, "fi\nve", "six"],
        {
            2: "a.csv:3: 3 cells, and the header has 2 (id, text); cells are separated by comma",
            3: "a.csv:4: 1 cells, and",
            4: "a.csv:5: ',' expected after '\"'; where quotes are plain text, write quote=none",
        },
    ),
    "unclosed.csv": (
        'id,text\n1,one\n2,"two\n3,three\n4,four\n',
        ["one", None, "three", "four"],
        {2: "unclosed.csv:3: a quote is opened in this row and never closed"},
    ),
    "bytes.csv": (
        b'id,text\n1,on\xe9\n2,two\n3,"a\nb\xff"\n4,four\n',
        [None, "two", None, "four"],
        {
            1: "bytes.csv:2: not UTF-8 at byte 5 of the line; if it is in another encoding, write encoding=",
            3: "bytes.csv:4: not UTF-8 at byte 2 of the line",
        },
    ),
    "a.txt": (
        "ö".encode() + b"\xff\nx\n\xc3\n\xed\xa0\x80\n",
        [None, "x", None, None],
        {1: "a.txt:1: not UTF-8 at byte 3 of the line", 3: "a.txt:3: not UTF-8 at byte 1 of the line"},
    ),
    "wide.txt": (
        "\ufeffx\n".encode("utf-16-le") + b"\x00\xd8\n\x00" + "y\n".encode("utf-16-le"),
        ["x", None, "y"],
        {2: "wide.txt:2: not utf-16 at character 1 of the line"},
    ),
    "a.json": (
        '[{"text": "one"}, 5, {"text": null}, {"text": "two"}]',
        ["one", None, None, "two"],
        {2: "a.json: item 2: expected an object with a text, found 5", 3: "a.json: item 3: text is null"},
    ),
    "pandas.json": (
        '{"text": {"0": "one", "1": null}}',
        ["one", None],
        {2: "pandas.json: item 2: text is null"},
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_the_rows_go_on_after_a_bad_one(name: str) -> None:
    content, expected, messages = BAD[name]
    assert texts(name, content) == expected
    found = faults(name, content)
    assert set(found) == {number for number, each in enumerate(expected, 1) if each is None}
    for number, message in messages.items():
        assert found[number].startswith(message), found[number]


def test_null_in_a_column_is_a_bad_row_and_an_empty_text_a_document() -> None:
    for name, write in (("a.parquet", pd.DataFrame.to_parquet), ("a.json", pd.DataFrame.to_json)):
        write(pd.DataFrame({"text": ["one", None, ""]}), name)
        assert texts(name) == ["one", None, ""]
    pd.DataFrame({"text": ["a", "b"], "x": [float("nan"), 5]}).to_parquet("x.parquet")
    assert texts("x.parquet", text=["x"]) == [None, None]


def test_a_line_that_is_too_long_is_a_bad_row(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (text, delimited):
        monkeypatch.setattr(module, "LONGEST", 30)
    long = "x" * 100
    assert texts("a.txt", f"one\n{long}\ntwo\n") == ["one", None, "two"]
    assert texts("a.jsonl", f'{{"text": "one"}}\n{{"text": "{long}"}}\n{{"text": "two"}}\n') == [
        *("one", None, "two")
    ]
    assert texts("a.csv", f'text,b\none,1\n"{long}",1\ntwo,1\n') == ["one", None, "two"]
    assert "a line of more than 30 characters" in faults("a.txt", f"{long}\n")[1]
    # the search for the end of a quote ends as well, and the lines after it are rows
    swallowed = "".join(f"row{number},1\n" for number in range(9))
    assert texts("a.csv", f'text,b\n"one,1\n{swallowed}') == [None, *(f"row{number}" for number in range(9))]


def test_the_column_of_the_text_is_given_or_known_by_its_name() -> None:
    table = "title,body,id\nA,B,1\n"
    assert texts("a.csv", table) == ["B"]
    assert texts("a.csv", table, text=["title"]) == ["A"]
    assert texts("a.csv", table, text=["title", "body"]) == ["A\nB"]
    assert texts("one.csv", "anything,id\nA,1\n") == ["A"]
    assert texts("a.jsonl", '{"id": 1, "content": "x"}\n') == ["x"]
    with pytest.raises(ConfigError, match=r"text=titel is no column; did you mean title\? \(a.csv: its col"):
        rows("a.csv", table, text=["titel"])
    with pytest.raises(ConfigError, match="keep=x is no column"):
        rows("a.csv", table, keep=["x"])
    with pytest.raises(ConfigError, match=r"which column has the text.*write text=NAME"):
        rows("a.csv", "a,b\nA,B\n")
    message = faults("a.jsonl", '{"a": 1, "b": 2}\n{"text": "x"}\n')
    assert message[1].startswith("which column has the text?")
    assert message.keys() == {1}


def test_a_record_without_a_kept_key_has_null_there() -> None:
    content = '{"text": "x", "id": 1, "more": {"a": [1]}}\n{"text": "y"}\n'
    assert [row.kept for row in rows("a.jsonl", content, keep=["id", "more"])] == [
        [1, {"a": [1]}],
        [None, None],
    ]
    content = '{"text": "x"}\n{"text": "y", "id": 1}\n{"text": "z"}\n'
    assert [row.kept for row in rows("a.jsonl", content, keep=["id"])] == [[None], [1], [None]]
    content = '{"text": "x", "id": 1}\n{"text": "y", "id": "\\ud800"}\n'
    assert faults("a.jsonl", content, keep=["id"]) == {
        2: "a.jsonl:2: id holds a lone surrogate at character 1"
    }


def test_csv_takes_the_keys_of_a_preparation() -> None:
    assert texts("a.csv", "one\ntwo words\n", header="none") == ["one", "two words"]
    assert texts("a.csv", "x|1\none|2\n", header="none", text=["1"]) == ["x", "one"]
    assert texts("a.csv", 'text;b\nis 5";x\n', quote="none") == ['is 5"']
    assert texts("a.csv", "text~b\nx~y\n", delimiter="~") == ["x"]
    with pytest.raises(ConfigError, match=r"^delimiter='~' is not in the first line of a.csv"):
        rows("a.csv", "text,b\nx,y\n", delimiter="~")
    with pytest.raises(DataError, match=r"^a.csv:1: the name of column 1 is a number.*write header=none"):
        rows("a.csv", "5,a\n")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("a.jsonl", "delimiter", ","),
        ("a.txt", "header", "none"),
        ("a.json", "quote", "none"),
        ("a.parquet", "encoding", "utf-8"),
        ("a.xlsx", "delimiter", ";"),
        ("-", "delimiter", ","),
    ],
)
def test_keys_that_do_not_act_on_the_format_are_refused(name: str, key: str, value: str) -> None:
    WRITERS.get(name, Path.touch)(Path(name)) if name != "-" else None
    with pytest.raises(ConfigError, match=f"^{key}={value} acts on .*csv.*, and input={name} is "):
        rows(name, **{key: value})


def test_a_kept_column_may_hold_what_python_has_no_room_for() -> None:
    table = {
        "text": pa.array(["a", "b"]),
        "map": pa.array([[("k", 1)], [("l", 2), ("m", 3)]], pa.map_(pa.string(), pa.int64())),
        "day": pa.array([0, 10**7], pa.date32()),
    }
    pq.write_table(pa.table(table), "a.parquet")
    assert [row.kept for row in rows("a.parquet", keep=["map", "day"])] == [
        [[("k", 1)], date(1970, 1, 1)],
        [[("l", 2), ("m", 3)], "29349-01-26"],
    ]


def test_what_is_no_input_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^encoding=foo is no encoding; write utf-8"):
        rows("a.txt", "x", encoding="foo")
    for name, message in {
        "nothing.csv": "input=nothing.csv is not there",
        ".": "input=. is a folder, and not one that save_to_disk wrote",
    }.items():
        with pytest.raises(ConfigError, match=message):
            rows(name)
    with pytest.raises(ConfigError, match="does not end in a known format; write format=, one of txt, jsonl"):
        rows("a.dat", "x")
    with pytest.raises(DataError, match="a quarter of its bytes are NUL"):
        rows("a.txt", bytes(1000))
    with pytest.raises(DataError, match=r"a.parquet: cannot be read"):
        rows("a.parquet", "x" * 1000)
    frames = datasets.DatasetDict(
        {name: datasets.Dataset.from_dict({"text": ["x"]}) for name in ("train", "test")}
    )
    frames.save_to_disk("splits")
    with pytest.raises(DataError, match=r"splits: holds several splits \(train, test\)"):
        rows("splits")
    assert texts("splits/test") == ["x"]


@pytest.mark.parametrize(
    ("format_name", "begin", "line"),
    [
        ("txt", "", "{}"),
        ("jsonl", "", '{{"text": "{}"}}'),
        (None, "", '{{"text": "{}"}}'),
        (None, "", "{}"),
        ("csv", "text,b\n", "{},1"),
        ("tsv", "b\ttext\n", "1\t{}"),
    ],
)
def test_a_pipe_gives_each_row_before_the_next_is_written(
    format_name: str | None, begin: str, line: str
) -> None:
    os.mkfifo("pipe")
    taken = [threading.Event() for _ in range(3)]

    def write() -> None:
        with open("pipe", "w") as stream:
            stream.write(begin)
            for number, event in enumerate(taken):
                print(line.format(f"text{number}"), file=stream, flush=True)
                if not event.wait(20):  # the row was not yielded: end the pipe, so that the test fails
                    return

    writer = threading.Thread(target=write)
    writer.start()
    found = []
    for row in read_input(PredictConfig(checkpoint=["x"], input="pipe", format=format_name)):
        taken[len(found)].set()
        found.append(row.text)
    writer.join()
    assert found == ["text0", "text1", "text2"]


@pytest.mark.parametrize("name", ["a.parquet", "a.xlsx", "a.json", "lines.json"])
def test_formats_without_lines_are_read_from_a_pipe(name: str) -> None:
    WRITERS[name](Path(name))
    os.mkfifo("pipe")
    content = Path(name).read_bytes()
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(content))
    writer.start()
    assert texts("pipe", format=name.rpartition(".")[2]) == TEXTS
    writer.join()


def test_a_compressed_pipe_is_named() -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(gzip.compress(b"one\n")))
    writer.start()
    with pytest.raises(DataError, match=r"^pipe: is compressed; write zcat FILE \|"):
        rows("pipe")
    writer.join()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_memory_does_not_grow_with_the_input(name: str) -> None:
    line = {"a.txt": "words " * 20, "a.csv": "words " * 20 + ",1", "a.jsonl": '{"text": "some words"}'}[name]
    with open(name, "w") as stream:
        stream.write("text,b\n" if name == "a.csv" else "")
        stream.writelines(itertools.repeat(f"{line}\n", 20_000))
    tracemalloc.start()
    assert sum(1 for _ in read_input(PredictConfig(checkpoint=["x"], input=name))) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_500_000  # the first megabyte of a file shows its encoding
