"""Spreadsheets as texts: what kinds of cells and sheets become, and every way in which a file is none."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import io
import random
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from openpyxl.styles import Font
from raws import file_of, packed

from hblm.data.raw.archives import Raw, RawFile
from hblm.data.raw.spreadsheet import _OLD, read_sheet
from hblm.errors import DataError

Table = list[tuple[int, list[str]]]


def book(fill: Callable[[Any], None]) -> bytes:
    """Return a workbook that `fill` has written to."""
    made = openpyxl.Workbook()
    fill(made)
    stream = io.BytesIO()
    made.save(stream)
    return stream.getvalue()


def of(*rows: list[Any]) -> bytes:
    """Return a workbook of one sheet with these rows."""

    def fill(made: Any) -> None:
        for row in rows:
            made.active.append(row)

    return book(fill)


def read(data: bytes, name: str = "Data.xlsx") -> Table:
    return list(read_sheet(file_of(data, name)))


def fault(data: bytes, name: str = "Data.xlsx") -> str:
    """Return what reading says, which names the file and is one line."""
    with pytest.raises(DataError) as caught:
        read(data, name)
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    return message


def zipped(members: Mapping[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# --- cells

CELLS: dict[str, tuple[Any, str]] = {
    "a whole number": (12, "12"),
    "a whole number as a float": (12.0, "12"),
    "nought": (0, "0"),
    "below 0": (-3, "-3"),
    "a fraction": (1.5, "1.5"),
    "a million": (46985000.0, "46985000"),
    "a text of digits": ("007", "007"),
    "a text of a float": ("1.0", "1.0"),
    "blanks around": ("  CS ", "  CS "),
    "a line end and a tab": ("a\nb\tc", "a\nb\tc"),
    "quotes": ('"a" ""', '"a" ""'),
    "signs of XML": ("<b> &amp; & ]]>", "<b> &amp; & ]]>"),
    "far letters": ("βeta – 日本 😀 e\u0301", "βeta – 日本 😀 e\u0301"),
    "nothing": (None, ""),
    "a long text": ("é" * 32_000, "é" * 32_000),
}


@pytest.mark.parametrize("kind", CELLS)
def test_cells_become_texts(kind: str) -> None:
    value, expected = CELLS[kind]
    assert read(of(["a", "b", "c"], ["x", value, "y"])) == [(1, ["a", "b", "c"]), (2, ["x", expected, "y"])]


def test_a_date_is_no_number() -> None:
    assert read(of(["a"], [datetime.date(2017, 1, 2)]))[1][1] == ["2017-01-02"]
    with_time = datetime.datetime(2017, 1, 2, 3, 4)
    assert read(of(["a"], [with_time]))[1][1] == ["2017-01-02 03:04:00"]


def test_rows_are_as_wide_as_the_widest() -> None:
    assert read(of(["a", "b"], ["c"], ["d", "e", "f"])) == [
        (1, ["a", "b", ""]),
        (2, ["c", "", ""]),
        (3, ["d", "e", "f"]),
    ]


# As Excel writes: texts shared by cells, with runs of other fonts and readings; empty cells left out.
EXCEL = {
    "[Content_Types].xml": '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Target="xl/workbook.xml" Type='
    '"http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"/></Relationships>',
    "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/'
    'relationships"><Relationship Id="rId1" Target="worksheets/sheet1.xml" Type='
    '"http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet"/>'
    '<Relationship Id="rId2" Target="sharedStrings.xml" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/'
    'sharedStrings"/></Relationships>',
    "xl/workbook.xml": '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r='
    '"http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets>'
    '<sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/sharedStrings.xml": '<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    '<si><t>Y1</t></si><si><t>area</t></si><si><t xml:space="preserve">Computer graphics </t></si>'
    '<si><r><t xml:space="preserve">5 µm </t></r><r><rPr><i/></rPr>'
    '<t>E. coli</t></r></si><si><t>東京</t><rPh sb="0" eb="2"><t>トウキョウ</t></rPh></si>'
    "<si><t>p &lt; 0.05 &amp; q&#8217;s</t></si><si><t/></si></sst>",
    "xl/worksheets/sheet1.xml": '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    '<dimension ref="A1:C6"/><sheetData>'
    '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c></row>'
    '<row r="2"><c r="A2"><v>3</v></c><c r="B2" t="s"><v>2</v></c></row>'
    '<row r="3"><c r="A3"><v>3.0</v></c><c r="B3" t="s"><v>3</v></c></row>'
    '<row r="5"><c r="A5"><v>1.2E1</v></c><c r="B5" t="s"><v>4</v></c><c r="C5" t="s"><v>5</v></c></row>'
    '<row r="6"><c r="B6" t="inlineStr"><is><t>in line</t></is></c>'
    '<c r="C6" t="str"><f>A1</f><v>Y1</v></c></row>'
    '<row r="7"><c r="A7" s="0"/></row>'
    "</sheetData></worksheet>",
}


def test_a_workbook_of_excel_is_read() -> None:
    assert read(zipped(EXCEL)) == [
        (1, ["Y1", "area", ""]),
        (2, ["3", "Computer graphics ", ""]),
        (3, ["3", "5 µm E. coli", ""]),
        (4, ["", "", ""]),
        (5, ["12", "東京", "p < 0.05 & q’s"]),
        (6, ["", "in line", "Y1"]),
    ]


def test_a_wrong_size_of_the_sheet_does_no_harm() -> None:
    expected = read(zipped(EXCEL))
    sheet = EXCEL["xl/worksheets/sheet1.xml"]
    for size in ('<dimension ref="A1"/>', '<dimension ref="A1:Z9"/>', ""):
        changed = sheet.replace('<dimension ref="A1:C6"/>', size)
        assert read(zipped({**EXCEL, "xl/worksheets/sheet1.xml": changed})) == expected


@pytest.mark.parametrize("name", ["Data.xls", "Data.xlsx", "x"])
def test_an_old_workbook_is_refused_with_the_way_out(name: str) -> None:
    """Its reader stops the process where a byte of it is wrong, and it has no checksums."""
    message = fault(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(4000), name)
    assert "save it as .xlsx" in message


def test_an_opendocument_sheet_is_read() -> None:
    def cell(value: object) -> str:
        kind = f'"float" office:value="{value}"' if isinstance(value, float) else '"string"'
        return f"<table:table-cell office:value-type={kind}><text:p>{value}</text:p></table:table-cell>"

    empty = '<table:table-cell table:number-columns-repeated="16000"/>'  # as they come at the ends
    rows = "".join(
        f"<table:table-row>{''.join(map(cell, row))}{empty}</table:table-row>"
        for row in (["text", "y"], ["é – 日本", 12.0])
    )
    rows += f'<table:table-row table:number-rows-repeated="1048574">{empty}</table:table-row>'
    name = "urn:oasis:names:tc:opendocument:xmlns"
    spaces = "".join(f' xmlns:{each}="{name}:{each}:1.0"' for each in ("office", "table", "text"))
    body = f"<office:spreadsheet><table:table table:name='S'>{rows}</table:table></office:spreadsheet>"
    members = {
        "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
        "META-INF/manifest.xml": f'<m:manifest xmlns:m="{name}:manifest:1.0"/>',
        "content.xml": f"<office:document-content{spaces}><office:body>{body}</office:body>"
        "</office:document-content>",
    }
    assert read(zipped(members), "x.ods") == [(1, ["text", "y"]), (2, ["é – 日本", "12"])]


def old(*rows: list[Any]) -> bytes:
    """Return an .xls of one sheet: the records of BIFF8 in a compound file of one stream."""

    def record(kind: int, data: bytes = b"") -> bytes:
        return struct.pack("<HH", kind, len(data)) + data

    def begin(kind: int) -> bytes:
        return record(0x0809, struct.pack("<HHHHII", 0x0600, kind, 0, 0, 0, 0))

    sheet = begin(0x0010) + record(0x0200, struct.pack("<IIHHH", 0, len(rows), 0, max(map(len, rows)), 0))
    for at, row in enumerate(rows):
        for column, cell in enumerate(row):
            place = struct.pack("<HHH", at, column, 0)
            if isinstance(cell, str):
                text = cell.encode("utf-16-le")
                sheet += record(0x0204, place + struct.pack("<HB", len(text) // 2, 1) + text)
            else:
                sheet += record(0x0203, place + struct.pack("<d", cell))
    sheet += record(0x000A)
    size = len(begin(5)) + len(record(0x0085, b"12345678S")) + len(record(0x000A))
    book = begin(5) + record(0x0085, struct.pack("<IHBB", size, 0, 1, 0) + b"S") + record(0x000A) + sheet
    stream = book.ljust(-(-max(len(book), 4096) // 512) * 512, b"\0")
    free, end, fat = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
    sectors = len(stream) // 512
    chain = [fat, end, *range(3, 2 + sectors), end]
    header = _OLD + bytes(16) + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(6)
    header += struct.pack("<9I", 0, 1, 1, 0, 4096, end, 0, end, 0) + struct.pack("<109I", 0, *[free] * 108)

    def entry(name: str, kind: int, child: int, start: int, length: int) -> bytes:
        spelt = name.encode("utf-16-le")
        return struct.pack(
            "<64sHBBIII16sI16sIQ",
            spelt,
            len(spelt) + 2,
            kind,
            1,
            free,
            free,
            child,
            b"",
            0,
            b"",
            start,
            length,
        )

    folder = entry("Root Entry", 5, 1, end, 0) + entry("Workbook", 2, free, 2, len(stream))
    table = struct.pack(f"<{len(chain)}I", *chain).ljust(512, b"\xff")
    return header + table + folder.ljust(512, b"\0") + stream


@pytest.mark.parametrize("name", ["Data.xls", "Data.xlsx"])
def test_an_old_workbook_is_read(name: str) -> None:
    assert read(old(["text", "y"], ["é – 日本", 12.0], ["b", 1.5]), name) == [
        (1, ["text", "y"]),
        (2, ["é – 日本", "12"]),
        (3, ["b", "1.5"]),
    ]


@pytest.mark.parametrize("at", [0x2C, 0x30, 0x1E, 600, 1024 + 116, 1536 + 25])
def test_a_damaged_old_workbook_is_refused_or_read(at: int) -> None:
    data = bytearray(old(["text", "y"], ["a", 1]))
    data[at : at + 4] = b"\xff\xff\xff\x7f"
    with contextlib.suppress(DataError):
        read(bytes(data), "Data.xls")


def test_a_new_workbook_may_have_an_old_ones_name() -> None:
    assert read(of(["a"], [1]), "Data.xls") == [(1, ["a"]), (2, ["1"])]


# --- rows and sheets


def test_rows_bear_their_numbers_in_the_sheet() -> None:
    def fill(made: Any) -> None:
        for place, value in {"C4": "a", "D4": "b", "C5": 1, "D7": "x"}.items():
            made.active[place] = value

    assert read(book(fill)) == [(4, ["a", "b"]), (5, ["1", ""]), (6, ["", ""]), (7, ["", "x"])]


def test_rows_and_columns_that_only_have_a_font_are_none() -> None:
    def fill(made: Any) -> None:
        made.active.append(["a", "b"])
        made.active.append([1, 2])
        for place in ("D1", "B9"):
            made.active[place].font = Font(bold=True)

    assert read(book(fill)) == [(1, ["a", "b"]), (2, ["1", "2"])]


def test_a_sheet_may_have_one_row() -> None:
    assert read(of(["a", "b"])) == [(1, ["a", "b"])]
    assert read(of(["a"])) == [(1, ["a"])]


@pytest.mark.parametrize("rows", [[[], [], ["a", "b"]], [["a"], [1]], [["a"], [], [1]]])
def test_the_first_sheet_with_rows_is_read(rows: list[list[Any]]) -> None:
    def fill(made: Any) -> None:
        made.create_chartsheet("a chart", 0)
        for name in ("filled", "another"):
            made.create_sheet(name)
        for row in rows:
            made["filled"].append(row)
        made["another"].append(["not this"])
        made["another"].append(["nor this"])

    alone = read(of(*rows, ["last"]))[:-1]
    assert read(book(fill)) == alone
    assert alone[-1][0] == len(rows)


def test_a_workbook_without_rows_is_refused() -> None:
    assert "no sheet of it has rows" in fault(of())
    assert "no sheet of it has rows" in fault(book(lambda made: made.create_sheet("another")))


def test_a_long_sheet_is_read_whole() -> None:
    found = read(of(*([at, f"text {at}"] for at in range(1000))))
    assert found == [(at + 1, [str(at), f"text {at}"]) for at in range(1000)]


# --- files that are no sheet

GOOD = of(["Y1", "area"], *([at, f"área {at * 7919}"] for at in range(40)))

NONE: dict[str, bytes] = {
    "nothing": b"",
    "a text": b"Y1\tY2\n0\t1\n",
    "a text of UTF-16": "Y1\tY2\n".encode("utf-16"),
    "a web page": b"<!DOCTYPE html><html><table><tr><td>1</td></tr></table></html>",
    "NUL bytes": bytes(5000),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "the start of a zip": b"PK\x03\x04" + bytes(40),
    "the start of an old workbook": bytes.fromhex("d0cf11e0a1b11ae1") + bytes(1000),
    "a zip of nothing": zipped({}),
    "a zip of a text": zipped({"Data.txt": "Y1\tY2\n"}),
    "a document of Word": zipped({"[Content_Types].xml": "<Types/>", "word/document.xml": "<w/>"}),
}


@pytest.mark.parametrize("name", ["Data.xlsx", "Data.xls"])
@pytest.mark.parametrize("kind", NONE)
def test_another_kind_of_file_is_refused(kind: str, name: str) -> None:
    assert "not a spreadsheet" in fault(NONE[kind], name)


@pytest.mark.parametrize("part", [name for name in EXCEL if "orksheet" in name or "shared" in name])
@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "no XML"])
def test_a_workbook_with_a_bad_part_is_refused(damage: str, part: str) -> None:
    whole = EXCEL[part]
    bad = {"cut": whole[: len(whole) * 2 // 3], "empty": "", "no XML": "Y1\tY2"}
    parts = {**EXCEL, **({part: bad[damage]} if damage in bad else {})}
    if damage == "gone":
        del parts[part]
    fault(zipped(parts))


def test_a_workbook_that_lists_no_sheet_is_refused() -> None:
    book_of_none = re.sub("<sheet .*?/>", "", EXCEL["xl/workbook.xml"])
    assert "no sheet of it has rows" in fault(zipped({**EXCEL, "xl/workbook.xml": book_of_none}))


def test_a_cell_of_a_shared_text_that_is_not_there_is_refused() -> None:
    sheet = EXCEL["xl/worksheets/sheet1.xml"].replace("<v>5</v>", "<v>99</v>")
    fault(zipped({**EXCEL, "xl/worksheets/sheet1.xml": sheet}))


def test_a_workbook_that_is_cut_short_is_refused_wherever() -> None:
    for size in [*range(0, len(GOOD), 211), len(GOOD) - 1]:
        fault(GOOD[:size])


def test_a_workbook_without_a_block_in_its_middle_is_refused_wherever() -> None:
    for at in range(100, len(GOOD) - 800, 300):
        fault(GOOD[:at] + GOOD[at + 512 :])


def is_refused(data: bytes) -> bool:
    """Tell whether a workbook with a changed byte is refused; else it must hold what it held."""
    try:
        found = read(data)
    except DataError:
        return True
    assert found == read(GOOD)
    return False


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_no_changed_byte_goes_unseen(method: int) -> None:
    data = zipped(members_of(GOOD), method)
    places = [*random.Random(4).sample(range(len(data)), 60), *range(len(data) - 22, len(data))]
    refused = [is_refused(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]) for at in places]
    assert sum(refused) > 30  # others are a date, a comment, or such


def test_a_workbook_in_an_encrypted_zip_is_refused() -> None:
    changed = bytearray(GOOD)
    at = changed.index(b"PK\x01\x02")
    while at >= 0:
        changed[at + 8] |= 1
        at = changed.find(b"PK\x01\x02", at + 1)
    fault(bytes(changed))


def test_the_part_that_is_damaged_is_named() -> None:
    data = zipped(members_of(GOOD), zipfile.ZIP_STORED)
    at = data.index("área 7919<".encode()) + 4
    message = fault(data[:at] + b"!" + data[at + 1 :])
    assert "damaged (xl/worksheets/sheet1.xml in it); download or copy it again" in message


def test_a_sheet_in_an_archive_is_named_with_it(tmp_path: Path) -> None:
    raw = packed(tmp_path / "x.zip", {"a/Data.xlsx": b"no sheet", "a/b.xlsx": GOOD})
    with Raw(raw) as files:
        assert list(read_sheet(files.find("b.xlsx"))) == read(GOOD)
        with pytest.raises(DataError) as caught:
            list(read_sheet(files.find("Data.xlsx")))
    assert str(caught.value).startswith(f"{raw}:a/Data.xlsx: not a spreadsheet")


def test_a_compressed_sheet_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    raw = packed(tmp_path / "set", {"Data.xlsx.gz": gzip.compress(GOOD)[:-40]})
    with Raw(raw) as files, pytest.raises(DataError, match=r"Data\.xlsx\.gz: damaged or cut short"):
        list(read_sheet(files.files[0]))


def test_a_sheet_that_is_gone_is_refused(tmp_path: Path) -> None:
    raw = packed(tmp_path / "set", {"Data.xlsx": GOOD})
    with Raw(raw) as files:
        (raw / "Data.xlsx").unlink()
        with pytest.raises(DataError, match=r"Data\.xlsx: cannot be read: No such file"):
            list(read_sheet(files.files[0]))


@pytest.mark.parametrize("data", [GOOD, b"", GOOD[:500], b"no sheet"])
def test_the_file_is_closed_whatever_it_holds(data: bytes) -> None:
    streams = []

    def opened() -> io.BytesIO:
        streams.append(io.BytesIO(data))
        return streams[-1]

    rows = read_sheet(RawFile("x", "x", Path("x"), opened))
    assert streams == []  # not before it is asked for
    with contextlib.suppress(DataError):
        next(rows)
    assert [stream.closed for stream in streams] == [True]


# --- cells that are not as one would like


def test_blank_rows_at_the_end_are_none() -> None:
    assert read(of(["a", "b"], ["1", "2"], ["\u00a0", " "], [None, ""])) == [(1, ["a", "b"]), (2, ["1", "2"])]


@pytest.mark.parametrize("place", ["XFD1048576", "ZZZZZZ99999999999", "A99999999999999999999"])
def test_a_cell_far_out_is_refused_before_room_is_made_for_it(place: str) -> None:
    sheet = EXCEL["xl/worksheets/sheet1.xml"]
    first = re.search(r'<c r="A1"', sheet)
    assert first
    far = sheet.replace(first.group(), f'<c r="{place}"', 1)
    assert "has a cell beyond" in fault(zipped({**EXCEL, "xl/worksheets/sheet1.xml": far}))
