"""Rows of a spreadsheet (.xlsx), as texts."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

from python_calamine import CalamineError, CalamineWorkbook

from hblm.corpus.raw import RawFile, inside_zip, open_zip, reading
from hblm.errors import DataError


def read_sheet(file: RawFile) -> Iterator[tuple[int, list[str]]]:
    """Yield (row from 1, cells) of the first sheet that has rows; whole numbers have no decimals.

    Raises:
        DataError: damaged, encrypted, another kind of file, or no sheet with rows.
    """
    with reading(file.place), file.open() as stream:
        content = io.BytesIO(stream.read())
        _require_whole(content, file.place)
    rows: list[tuple[int, list[Any]]] = []
    try:
        book = CalamineWorkbook.from_filelike(content)
        for sheet in map(book.get_sheet_by_name, book.sheet_names):
            first = (sheet.start or (0, 0))[0]
            rows = [(number, row) for number, row in enumerate(sheet.iter_rows(), 1) if number > first]
            if rows:
                break
    except CalamineError as error:
        raise DataError(f"{file.place}: not a spreadsheet that can be read: {error}") from None
    if not rows:
        raise DataError(f"{file.place}: no sheet of it has rows")
    for number, row in rows:
        yield number, [_text(cell) for cell in row]


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
    content.seek(0)


def _text(cell: object) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
