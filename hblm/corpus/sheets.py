"""Rows of a spreadsheet (.xlsx, .xlsb, .xls, .ods), as texts."""

from __future__ import annotations

import datetime
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

from python_calamine import CalamineError, CalamineWorkbook

from hblm.corpus.raw import RawFile, inside_zip, open_zip, reading
from hblm.errors import DataError

_CELL = re.compile(rb'<(?:\w+:)?c\b[^>]*?\br="([A-Z]+)([0-9]+)"')
_OLD = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # .xls, and .xlsx with a password: no zip
_MOST_CELLS = 1 << 24


def read_sheet(file: RawFile) -> Iterator[tuple[int, list[str]]]:
    """Yield (row from 1, cells) of the first sheet that has rows; whole numbers have no decimals.

    A day is year-month-day, with the time of day where there is one.

    Raises:
        DataError: damaged, encrypted, another kind of file, or no sheet with rows.
    """
    with reading(file.place), file.open() as stream:
        content = io.BytesIO(stream.read())
        is_old = content.getvalue().startswith(_OLD)
        if not is_old:
            _require_whole(content, file.place)
    rows = _rows_apart(content.getvalue(), file.place) if is_old else _rows(content, file.place)
    if not rows:
        raise DataError(f"{file.place}: no sheet of it has rows")
    yield from rows


def _rows(content: io.BytesIO, place: str) -> list[tuple[int, list[str]]]:
    rows: list[tuple[int, list[Any]]] = []
    try:
        book = CalamineWorkbook.from_filelike(content)
        for sheet in map(book.get_sheet_by_name, book.sheet_names):
            first = (sheet.start or (0, 0))[0]
            rows = [(number, row) for number, row in enumerate(sheet.iter_rows(), 1) if number > first]
            if rows:
                break
    except BaseException as error:  # what its Rust raises where it breaks off is no Exception
        if not isinstance(error, CalamineError) and type(error).__name__ != "PanicException":
            raise
        raise DataError(f"{place}: not a spreadsheet that can be read: {error}") from None
    while rows and not any(_text(cell).strip() for cell in rows[-1][1]):
        rows.pop()
    return [(number, [_text(cell) for cell in row]) for number, row in rows]


def _rows_apart(content: bytes, place: str) -> list[tuple[int, list[str]]]:
    """Read an old workbook in a process of its own: a wrong byte can end the process of its reader."""
    command = [sys.executable, "-c", "from hblm.corpus.sheets import print_rows; print_rows()"]
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        command, input=content, capture_output=True, env={**os.environ, "PYTHONPATH": path}, check=False
    )
    if done.returncode:
        raise DataError(
            f"{place}: not a spreadsheet that can be read, damaged or with a password; save it as .xlsx, or "
            f"as CSV"
        )
    return [(number, row) for number, row in json.loads(done.stdout)]


def print_rows() -> None:
    """Print the rows of the workbook on standard input, as JSON."""
    print(json.dumps(_rows(io.BytesIO(sys.stdin.buffer.read()), "")))


def _require_whole(content: io.BytesIO, place: str) -> None:
    """Refuse what is no sound zip: the reader of sheets does not survive all that is not."""
    if not zipfile.is_zipfile(content):
        raise DataError(
            f"{place}: not a spreadsheet that can be read, or damaged; save it as .xlsx, or as text with tabs"
        )
    with open_zip(content) as archive, inside_zip():
        if any(info.flag_bits & 1 for info in archive.infolist()):
            raise DataError(f"{place}: encrypted; save it without a password")
        bad = archive.testzip()
        if bad:
            raise DataError(f"{place}: damaged ({bad} in it); download or copy it again")
        _require_bounded(archive, place)
    content.seek(0)


def _require_bounded(archive: zipfile.ZipFile, place: str) -> None:
    """Refuse a sheet with a cell so far out that the reader, which keeps all cells up to it, has no room."""
    for name in archive.namelist():
        if "worksheets/" in name:
            last_row = last_column = 0
            for column, row in _CELL.findall(archive.read(name)):
                last_row = max(last_row, int(row[:9]))
                last_column = max(last_column, _number_of(column[:9]))
            if last_row * last_column > _MOST_CELLS:
                raise DataError(f"{place}: {name} has a cell beyond {_MOST_CELLS:,} cells; is it damaged?")


def _number_of(column: bytes) -> int:
    """Return a column's number: A is 1, AA is 27."""
    number = 0
    for letter in column:
        number = 26 * number + letter - ord("A") + 1
    return number


def _text(cell: object) -> str:
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        cell = cell.date()
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
