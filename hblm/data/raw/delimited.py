"""Rows of cells of delimited text, such as CSV and TSV, with quoted line ends and delimiters.

A misplaced quote, or one that is never closed, is a DataError with file and line; `rows_of_lines` goes on
after it.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from hblm.data.raw.archives import RawFile
from hblm.data.raw.text import LONGEST, read_lines
from hblm.errors import ConfigError, DataError

_RETURN = "\ufdd0"  # a Unicode noncharacter, which no text has
_SIGN = "\ufdd2"  # another one, in place of a delimiter of several characters


class Row(NamedTuple):
    """The cells of a row of delimited text, the number of its first line, and why it cannot be used."""

    number: int
    cells: list[str]
    fault: str = ""


def read_rows(
    file: RawFile,
    *,
    delimiter: str,
    quote: str | None = '"',
    encoding: str | None = None,
    blank: bool = False,
) -> Iterator[tuple[int, list[str]]]:
    """Yield (first line, cells) for each row of a delimited text without empty rows.

    A carriage return inside a line is text, also without quotes.

    Args:
        file: the file.
        delimiter: between cells; one character or more.
        quote: around cells with the delimiter; None: quotes are text.
        encoding: None: that of the byte-order mark, else UTF-8.
        blank: ignore a blank after the delimiter.

    Raises:
        ConfigError: the delimiter is empty or has a line end.
        DataError: as `read_lines`; also a misplaced quote, or one that is never closed.
    """
    lines = read_lines(file, encoding, ends=True)
    if not delimiter or "\r" in delimiter or "\n" in delimiter:
        raise ConfigError(f"dataset.prepare.delimiter={delimiter!r}: expected characters of one line")
    for number, cells, fault in rows_of_lines(lines, delimiter=delimiter, quote=quote, blank=blank):
        if fault:
            raise DataError(f"{file.place}:{number}: {fault}")
        yield number, cells


def rows_of_lines(lines: Iterable[str], *, delimiter: str, quote: str | None, blank: bool) -> Iterator[Row]:
    """Yield the rows of lines with their ends, without empty rows; a row with misplaced quotes has a fault.

    The rows go on in the line after the fault; after a quote that is never closed, in the line after the one
    that opens it.

    Args:
        lines: with their ends.
        delimiter, quote, blank: as in `read_rows`.
    """
    if quote is None:
        for number, line in enumerate(lines, 1):
            if not line.isspace():
                yield Row(number, line.rstrip("\r\n").split(delimiter))
        return
    yield from _quoted(lines, delimiter, quote, blank)


def _quoted(lines: Iterable[str], delimiter: str, quote: str, blank: bool) -> Iterator[Row]:
    sign = delimiter if len(delimiter) == 1 else _SIGN  # a csv.reader takes one character
    if sign != delimiter:
        lines = (line.replace(delimiter, sign) for line in lines)
    source, again = map(_hide_returns, lines), deque[str]()
    taken: list[str] = []  # the lines of this row

    def feed() -> Iterator[str]:
        while (line := again.popleft() if again else next(source, None)) is not None:
            taken.append(line)
            yield line

    rows, start = delimited(feed(), sign, quote, blank), 1
    while True:
        taken.clear()
        try:
            cells = next(rows, None)
        except csv.Error as error:
            unclosed = "field larger" in str(error) or "unexpected end" in str(error)
            why = "a quote is opened in this row and never closed" if unclosed else str(error)
            yield Row(start, [], f"{why}; where quotes are plain text, write dataset.prepare.quote=none")
            if unclosed:
                again.extendleft(reversed(taken[1:]))
                del taken[1:]
                rows = delimited(feed(), sign, quote, blank)
            start += len(taken)
            continue
        if cells is None:
            return
        if cells:
            if sign != delimiter:
                cells = [cell.replace(sign, delimiter) for cell in cells]  # between quotes
            yield Row(start, [cell.replace(_RETURN, "\r") if _RETURN in cell else cell for cell in cells])
        start += len(taken)


def _hide_returns(line: str) -> str:
    """Replace carriage returns inside a line, which a csv.reader accepts only between quotes."""
    end = "\r\n" if line.endswith("\r\n") else line[-1:]
    body = line[: len(line) - len(end)]
    return body.replace("\r", _RETURN) + end if "\r" in body else line


def delimited(lines: Iterable[str], delimiter: str, quote: str, blank: bool = False) -> Any:
    """Return a csv.reader for cells of up to LONGEST characters.

    Raises:
        ConfigError: a delimiter or quote that is not one character.
    """
    for name, sign in (("delimiter", delimiter), ("quote", quote)):
        require_character(name, sign)
    csv.field_size_limit(LONGEST)
    return csv.reader(lines, delimiter=delimiter, quotechar=quote, strict=True, skipinitialspace=blank)


def require_character(option: str, sign: str) -> None:
    """Refuse a delimiter or quote that is not one character of a line.

    Raises:
        ConfigError: it is not.
    """
    if len(sign) != 1 or sign in "\r\n":
        raise ConfigError(f"dataset.prepare.{option}={sign!r}: expected one character")
