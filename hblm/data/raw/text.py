"""Texts of raw files as pieces, lines or rows of cells, with detected encodings and line ends.

Bytes in another encoding, a line without an end, and a quote that is never closed are a DataError with file
and line.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Iterable, Iterator
from typing import Any

from hblm.data.raw.archives import RawFile, reading
from hblm.errors import ConfigError, DataError

LONGEST = 16 << 20  # characters of a line, a cell or a record; only a damaged file has more
MOST_BLANK = 1 << 20  # empty lines or rows in a row; a file of only these may be endless
_RETURN = "\ufdd0"  # a Unicode noncharacter, which no text has
_SIGN = "\ufdd2"  # another one, in place of a delimiter of several characters
_HEAD = 1 << 20  # bytes that are searched for the encoding and the line ends

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before that of UTF-16, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(file: RawFile, otherwise: str) -> str:
    """Return the encoding of a file: that of its byte-order mark, UTF-8, UTF-16, or `otherwise`.

    A file in which most letters outside ASCII are valid UTF-8 is UTF-8, though damaged.
    """
    with reading(file.place), file.open() as stream:
        head = stream.read(_HEAD)
        marked = next((name for bom, name in _BOMS if head.startswith(bom)), None)
        if marked:
            return marked
        for name, at in (("utf-16-le", 1), ("utf-16-be", 0)):  # of Latin letters every second byte is NUL
            if head[at::2].count(0) > len(head) // 4:
                return name
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        broken = sound = 0
        while head:
            text = decoder.decode(head)
            if not text.isascii():
                broken += text.count("\ufffd")
                sound += sum(not sign.isascii() for sign in text) - text.count("\ufffd")
            head = stream.read(_HEAD)
        broken += len(decoder.decode(b"", final=True))
    return otherwise if broken > sound else "utf-8"


def read_text(file: RawFile, encoding: str | None = None) -> Iterator[str]:
    """Yield a text in pieces, with \\n as line ends; the encoding is that of the byte-order mark, else UTF-8.

    Raises:
        DataError: the file is damaged, or not in the encoding.
    """
    chosen, ends = _sniff(file, encoding)
    with _text(file, chosen, ends, newline=None) as stream:
        while piece := stream.read(1 << 16):
            yield piece


def read_lines(file: RawFile, encoding: str | None = None, *, ends: bool = False) -> Iterator[str]:
    """Yield the lines of a text without blank lines at its end.

    Lines end at \\n or \\r\\n; in a file without \\n (of an old Mac) at \\r. U+2028 and similar
    characters do not end a line.

    Args:
        file: the file.
        encoding: None: that of the byte-order mark, else UTF-8.
        ends: keep the line ends, and blank lines.

    Raises:
        DataError: damaged, not in the encoding, or a line above LONGEST.
    """
    chosen, newline = _sniff(file, encoding)
    blank = empty = number = 0
    with _text(file, chosen, newline, newline=newline) as stream:
        while line := stream.readline(LONGEST + 2):
            number += 1
            if len(line) > LONGEST and len(line.rstrip("\r\n")) > LONGEST:
                raise DataError(
                    f"{file.place}:{number}: a line of more than {LONGEST:,} characters; no document is that "
                    f"long: are line ends missing, or is it another kind of file?"
                )
            is_blank = line.isspace()
            empty = empty + 1 if is_blank else 0  # in a row
            if empty > MOST_BLANK:
                raise DataError(f"{file.place}:{number}: {empty:,} empty lines; is the file damaged?")
            if ends:
                yield line
                continue
            if is_blank:
                blank += 1
                continue
            line = line.rstrip("\r\n") if line.endswith(("\n", "\r")) else line
            for _ in range(blank):
                yield ""
            blank = 0
            yield line


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
    if quote is None:
        for number, line in enumerate(lines, 1):
            if not line.isspace():
                yield number, line.rstrip("\r\n").split(delimiter)
        return
    sign = delimiter if len(delimiter) == 1 else _SIGN  # a csv.reader takes one character
    if sign != delimiter:
        lines = (line.replace(delimiter, sign) for line in lines)
    rows = delimited(map(_hide_returns, lines), sign, quote, blank)
    start = 1
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as error:
            unclosed = "field larger" in str(error) or "unexpected end" in str(error)
            why = "a quote is opened in this row and never closed" if unclosed else str(error)
            raise DataError(
                f"{file.place}:{start}: {why}; where quotes are plain text, write dataset.prepare.quote=none"
            ) from None
        if cells is None:
            return
        if cells:
            if sign != delimiter:
                cells = [cell.replace(sign, delimiter) for cell in cells]  # between quotes
            yield start, [cell.replace(_RETURN, "\r") if _RETURN in cell else cell for cell in cells]
        start = rows.line_num + 1


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


def require_encoding(name: str | None) -> None:
    """Refuse an encoding that Python does not know.

    Raises:
        ConfigError: it does not.
    """
    try:
        "a".encode(name or "utf-8")
    except (LookupError, ValueError):  # unknown, or one between bytes such as hex
        raise ConfigError(
            f"dataset.prepare.encoding={name} is no encoding; write utf-8, cp1252, iso-8859-1, utf-16 ..."
        ) from None


@contextlib.contextmanager
def _text(file: RawFile, encoding: str, line_end: str, *, newline: str | None) -> Iterator[io.TextIOWrapper]:
    """Open a text; `newline` is that of `open`, `line_end` serves to find the line of an invalid byte."""
    with (
        reading(file.place),
        file.open() as raw,
        io.TextIOWrapper(raw, encoding=encoding, newline=newline) as stream,
    ):
        try:
            yield stream
        except UnicodeError:
            raise DataError(_undecodable(file, encoding, line_end)) from None


def _sniff(file: RawFile, encoding: str | None) -> tuple[str, str]:
    """Return the encoding and the line end of a file."""
    with reading(file.place), file.open() as stream:
        head = stream.read(_HEAD)
        head += stream.read(4) if head.endswith((b"\r", b"\r\0")) else b""  # the \n may be the next
    if head.startswith(b"PK\x03\x04"):
        raise DataError(f"{file.place}: a zip or Office file; save the sheet as CSV, or call an archive .zip")
    marked = next((name for bom, name in _BOMS if head.startswith(bom)), None)
    chosen = marked or encoding or "utf-8"
    if head.count(0) > len(head) // 4 and not _is_wide(chosen):
        raise DataError(
            f"{file.place}: not a text in {chosen}: a quarter of its bytes are NUL; "
            f"UTF-16 without a byte-order mark needs dataset.prepare.encoding=utf-16-le"
        )
    text = head.decode(chosen if _is_wide(chosen) else "latin-1", "ignore")
    return chosen, "\r" if "\r" in text and "\n" not in text else "\n"


def _is_wide(encoding: str) -> bool:
    """Return whether a character takes more than one byte, so that a byte \\n does not end a line."""
    return re.sub("[-_]", "", encoding.lower()).startswith(("utf16", "utf32"))


def _undecodable(file: RawFile, encoding: str, line_end: str) -> str:
    """Return a message with the place of the first invalid byte; the decoder only knows its own block."""
    hint = "if it is in another encoding, write dataset.prepare.encoding=cp1252 (or its name)"
    name = {"utf-8": "UTF-8", "utf-8-sig": "UTF-8"}.get(encoding, encoding)
    if _is_wide(encoding):
        return f"{file.place}: not {name}; {hint}"
    end, line, byte = line_end.encode(), 1, 0
    decoder = codecs.getincrementaldecoder(encoding)()
    with file.open() as stream:
        while block := stream.read(1 << 16):
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                start = error.start - (
                    len(error.object) - len(block)
                )  # negative: the character begins in the block before
                block = block[: max(start, 0)]
                line, byte = line + block.count(end), _after(end, byte, block) + min(start, 0)
                break
            line, byte = line + block.count(end), _after(end, byte, block)
        else:  # the file ends inside a character
            byte -= len(decoder.getstate()[0])
    return f"{file.place}:{line}: not {name} at byte {byte + 1} of the line; {hint}"


def _after(end: bytes, byte: int, block: bytes) -> int:
    """Return the column of the byte after a block, given the column of its first byte."""
    last = block.rfind(end)
    return byte + len(block) if last < 0 else len(block) - last - 1
