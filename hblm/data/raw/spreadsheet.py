"""Rows of a spreadsheet (.xlsx, .xlsb, .xls, .ods) as texts; as a program, stdin's rows as lines of JSON."""

from __future__ import annotations

import datetime
import io
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from typing import IO

from python_calamine import CalamineError, CalamineWorkbook

from hblm.data.raw import limited_process
from hblm.data.raw.archives import RawFile, inside_zip, open_zip, read_up_to, reading
from hblm.errors import DataError

_CELL = re.compile(rb'<(?:\w+:)?c\b[^>]*?\br="([A-Z]+)([0-9]+)"')

_OLD = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # .xls, and .xlsx with a password: not a zip

_MOST_CELLS = 1 << 24

_LARGEST = 1 << 28  # bytes of a spreadsheet, packed or unpacked

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_sheet(file: RawFile) -> Iterator[tuple[int, list[str]]]:
    """Yield (row from 1, cells) of the first sheet that has rows.

    Whole numbers have no decimals. A date is year-month-day, followed by the time of day if there is one.
    Empty rows at the end are left out.

    Raises:
        DataError: the file is damaged, encrypted or of another kind, or no sheet has rows.
    """
    with reading(file.place):
        data = read_up_to(file, _LARGEST + 1)
    if len(data) > _LARGEST:
        raise DataError(f"{file.place}: more than {_LARGEST >> 20} MiB; save it as CSV or JSONL")
    content = io.BytesIO(data)
    bounded = False
    if not data.startswith(_OLD):
        with reading(file.place):
            bounded = _require_sound_zip(content, file.place)
    blank: list[tuple[int, list[str]]] = []
    any_row = False
    try:
        for number, cells in rows(content, bounded=bounded):
            if not any(map(str.strip, cells)):
                blank.append((number, cells))
                continue
            yield from blank
            blank, any_row = [], True
            yield number, cells
    except (ValueError, OSError) as error:
        raise DataError(
            f"{file.place}: not a spreadsheet that can be read ({error}); damaged, or with a password? save "
            f"it as .xlsx, or as CSV"
        ) from None
    if not any_row:
        raise DataError(f"{file.place}: no sheet of it has rows")


def _require_sound_zip(content: io.BytesIO, place: str) -> bool:
    """Refuse a file that is not a sound zip, because the reader of sheets aborts on some damage.

    Returns:
        Whether the content certainly fits into memory: a few bytes of a cell can repeat the longest text.
    """
    if not zipfile.is_zipfile(content):
        raise DataError(
            f"{place}: not a spreadsheet that can be read, or damaged; save it as .xlsx, or as text with tabs"
        )
    with open_zip(content) as archive, inside_zip():
        if any(info.flag_bits & 1 for info in archive.infolist()):
            raise DataError(f"{place}: encrypted; save it without a password")
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        if sum(sizes.values()) > _LARGEST:
            raise DataError(
                f"{place}: unpacks to more than {_LARGEST >> 20} MiB; save it as CSV or JSONL, if it is sound"
            )
        if any(info.compress_type not in _METHODS for info in archive.infolist()):
            raise DataError(f"{place}: compressed as no spreadsheet is; save it again")
        bad = archive.testzip()
        if bad:
            raise DataError(f"{place}: damaged ({bad} in it); download or copy it again")
        _require_few_cells(archive, place)
    content.seek(0)
    return sum(sizes.values()) ** 2 // 8 < _LARGEST


def _require_few_cells(archive: zipfile.ZipFile, place: str) -> None:
    """Refuse a sheet with a cell far out: the reader keeps all cells up to the last row and column."""
    for name in archive.namelist():
        if "worksheets/" in name:
            last_row = last_column = 0
            for column, row in _CELL.findall(archive.read(name)):
                last_row = max(last_row, int(row[:9]))
                last_column = max(last_column, _number_of(column[:9]))
            if last_row * last_column > _MOST_CELLS:
                raise DataError(f"{place}: {name} has a cell beyond {_MOST_CELLS:,} cells; is it damaged?")


def _number_of(column: bytes) -> int:
    """Return the number of a column: A is 1, AA is 27."""
    number = 0
    for letter in column:
        number = 26 * number + letter - ord("A") + 1
    return number


def rows(content: IO[bytes], *, bounded: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield (row from 1, cells) of the first sheet that has rows.

    Args:
        content: the spreadsheet.
        bounded: whether the content certainly fits into memory; if not, a child process reads it.

    Raises:
        ValueError: the file is not a spreadsheet.
        OSError: memory ran out, or the file is damaged.
    """
    if bounded:
        yield from _rows(content)
        return
    with limited_process.output_of("hblm.data.raw.spreadsheet", content) as output:
        for line in output:
            number, cells = json.loads(line)
            yield number, cells


def _rows(content: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
    try:
        book = CalamineWorkbook.from_filelike(content)
        for sheet in map(book.get_sheet_by_name, book.sheet_names):
            first = (sheet.start or (0, 0))[0]
            any_row = False
            for number, row in enumerate(sheet.iter_rows(), 1):
                if number > first:
                    any_row = True
                    yield number, [_text(cell) for cell in row]
            if any_row:
                return
    except BaseException as error:  # a panic of the Rust library is not an Exception
        if not isinstance(error, CalamineError) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(str(error)) from None


def _text(cell: object) -> str:
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        cell = cell.date()
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _write(content: IO[bytes], output: IO[bytes]) -> None:
    for row in _rows(content):
        output.write(json.dumps(row).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(limited_process.run(_write))
