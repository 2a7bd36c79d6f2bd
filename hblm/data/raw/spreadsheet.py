"""Rows of a spreadsheet (.xlsx, .xlsb, .xls, .ods), as texts."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator

from hblm.data.raw.archives import RawFile, inside_zip, open_zip, read_up_to, reading
from hblm.data.raw.limited_process import rows
from hblm.errors import DataError

_CELL = re.compile(rb'<(?:\w+:)?c\b[^>]*?\br="([A-Z]+)([0-9]+)"')


_OLD = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # .xls, and .xlsx with a password: no zip


_MOST_CELLS = 1 << 24


_LARGEST = 1 << 28  # bytes of a spreadsheet, packed or unpacked


_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_sheet(file: RawFile) -> Iterator[tuple[int, list[str]]]:
    """Yield (row from 1, cells) of the first sheet that has rows; whole numbers have no decimals.

    A day is year-month-day, with the time of day where there is one.

    Raises:
        DataError: damaged, encrypted, another kind of file, or no sheet with rows.
    """
    with reading(file.place):
        data = read_up_to(file, _LARGEST + 1)
    if len(data) > _LARGEST:
        raise DataError(f"{file.place}: more than {_LARGEST >> 20} MiB; save it as CSV or JSONL")
    content = io.BytesIO(data)
    bounded = False
    if not data.startswith(_OLD):
        with reading(file.place):
            bounded = _require_whole(content, file.place)
    blank: list[tuple[int, list[str]]] = []  # at the end of a sheet they are no rows
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


def _require_whole(content: io.BytesIO, place: str) -> bool:
    """Refuse what is no sound zip: the reader of sheets does not survive all that is not.

    Returns:
        Whether what it holds is known to fit into memory: a few bytes of a cell can repeat the longest text.
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
        _require_bounded(archive, place)
    content.seek(0)
    return sum(sizes.values()) ** 2 // 8 < _LARGEST


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
