"""Rows of a spreadsheet (.xlsx, .xls), as texts."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

from python_calamine import CalamineError, CalamineWorkbook

from hblm.corpus.raw import RawFile, reading
from hblm.errors import DataError


def read_sheet(file: RawFile) -> Iterator[tuple[int, list[str]]]:
    """Yield (row from 1, cells) of the first sheet that has rows; whole numbers have no decimals.

    Raises:
        DataError: damaged, or no sheet with rows.
    """
    with reading(file.place), file.open() as stream:
        content = io.BytesIO(stream.read())
        if zipfile.is_zipfile(content):
            with zipfile.ZipFile(content) as archive:
                bad = archive.testzip()
            if bad:
                raise DataError(f"{file.place}: damaged ({bad} in it); download or copy it again")
    content.seek(0)
    try:
        book = CalamineWorkbook.from_filelike(content)
        sheets = (book.get_sheet_by_name(name) for name in book.sheet_names)
        sheet = next((sheet for sheet in sheets if sheet.total_height), None)
    except CalamineError as error:
        raise DataError(f"{file.place}: not a spreadsheet that can be read: {error}") from None
    if sheet is None:
        raise DataError(f"{file.place}: no sheet of it has rows")
    first = sheet.start[0] if sheet.start else 0
    for number, row in enumerate(sheet.iter_rows(), 1):
        if number > first:
            yield number, [_text(cell) for cell in row]


def _text(cell: object) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
