"""Parquet and spreadsheets that unpack to far more than their size: an answer, and no gigabytes."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from raws import file_of

from hblm.data.raw import parquet, spreadsheet
from hblm.data.raw.parquet import batches
from hblm.data.raw.spreadsheet import read_sheet
from hblm.errors import DataError

ROWS = [{"text": f"text {at}", "label": ["a", "b"][: at % 3]} for at in range(200)]


def written(table: pyarrow.Table, **options: object) -> io.BytesIO:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream, **options)
    stream.seek(0)
    return stream


def records(stream: io.BytesIO) -> list[dict[str, object]]:
    return [row for batch in batches(stream) for row in batch.to_pylist()]


@pytest.mark.parametrize("compression", ["snappy", "zstd"])
def test_what_is_read_does_not_depend_on_the_process_that_reads(compression: str) -> None:
    """Of a file with lists nothing is known, so that a child process reads it; nor of zstd."""
    table = pyarrow.Table.from_pylist(ROWS)
    found = records(written(table.select(["text"]), compression=compression, row_group_size=30))
    assert found == table.select(["text"]).to_pylist()
    assert records(written(table, compression=compression, row_group_size=30)) == table.to_pylist()


def test_names_of_classes_and_shared_values_come_as_they_are() -> None:
    table = pyarrow.table({"text": ["a", "b"], "label": pyarrow.array(["x", "y"]).dictionary_encode()})
    assert records(written(table, compression="zstd")) == table.to_pylist()


def test_a_file_that_is_not_read_to_its_end_leaves_no_process() -> None:
    stream = written(pyarrow.Table.from_pylist(ROWS * 50), compression="zstd")
    found = batches(stream)
    assert next(found).num_rows
    found.close()


def test_a_row_is_bounded_in_bytes_and_in_values(monkeypatch: pytest.MonkeyPatch) -> None:
    short = pyarrow.table({"text": ["a" * 50, "b"]}).to_batches()
    long = pyarrow.table({"label": [list(range(100)), [1]]}).to_batches()
    nested = pyarrow.table({"label": [[[None] * 100], [[None]]]}).to_batches()
    monkeypatch.setattr(parquet, "BATCH", 40)
    with pytest.raises(ValueError, match="a row of more than"):
        list(parquet._parts(short))
    monkeypatch.setattr(parquet, "BATCH", 10_000)
    monkeypatch.setattr(parquet, "VALUES", 100)
    assert [part.num_rows for part in parquet._parts(short)] == [2]
    for batch in (long, nested):
        with pytest.raises(ValueError, match="a row of more than"):
            list(parquet._parts(batch))


BOMBS = {
    "a value of a gigabyte": lambda: written(
        pyarrow.table({"text": pyarrow.array(["a" * (3 << 28)], pyarrow.large_string())}),
        compression="brotli",
    ),
    "a list of many nulls": lambda: written(
        pyarrow.table(
            {"label": pyarrow.ListArray.from_arrays(np.array([0, 1 << 24], "int32"), pyarrow.nulls(1 << 24))}
        ),
        compression="zstd",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_parquet_that_unpacks_to_gigabytes_is_refused_in_little_memory(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(BOMBS[name]().getvalue())
    assert (tmp_path / "x.parquet").stat().st_size < 1 << 20
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, -1))\n"
        "from hblm.data.raw.tables import *; from pathlib import Path\n"
        "with Raw(Path('x.parquet')) as raw: list(open_tables(raw, Dialect())[0].records())"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert "DataError: x.parquet: " in ended.stderr
    assert re.search("MiB|larger than values array", ended.stderr)  # of the second, pyarrow may read nothing


SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
SHARED = (
    '<Relationship Id="rId9" Target="sharedStrings.xml" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/sharedStrings"/>'
)


def with_texts(text: str, rows: int) -> bytes:
    """Return a spreadsheet whose cells all show one text, which is stored once."""
    made = openpyxl.Workbook()
    made.active.append([1])
    plain = io.BytesIO()
    made.save(plain)
    packed = io.BytesIO()
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            content = source.read(info)
            content = content.replace(b"</Relationships>", f"{SHARED}</Relationships>".encode())
            start, _, end = content.partition(b"<row ")
            if end:
                cells = (f'<row r="{at}"><c r="A{at}" t="s"><v>0</v></c></row>' for at in range(1, rows + 1))
                content = start + "".join(cells).encode() + end[end.index(b"</sheetData>") :]
            target.writestr(info.filename, content)
        target.writestr("xl/sharedStrings.xml", f'<sst xmlns="{SHEET}"><si><t>{text}</t></si></sst>')
    return packed.getvalue()


def test_a_sheet_is_read_alike_in_either_process(monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_texts("a text", 5)
    found = list(read_sheet(file_of(data, "x.xlsx")))
    assert found == [(at, ["a text"]) for at in range(1, 6)]
    assert list(spreadsheet.rows(io.BytesIO(data), bounded=False)) == found


@pytest.mark.slow
def test_a_sheet_of_one_long_text_many_times_is_refused() -> None:
    data = with_texts("a" * 200_000, 10_000)
    assert len(data) < 1 << 20
    with pytest.raises(DataError, match=r"x\.xlsx: .*unpacks to more than 1024 MiB at once"):
        list(read_sheet(file_of(data, "x.xlsx")))


def test_a_sheet_that_unpacks_to_too_much_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheet, "_LARGEST", 1 << 20)
    data = with_texts("a" * (1 << 20), 1)
    assert len(data) < 1 << 20
    with pytest.raises(DataError, match=r"x\.xlsx: unpacks to more than 1 MiB"):
        list(read_sheet(file_of(data, "x.xlsx")))
