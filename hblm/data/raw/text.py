"""Texts of raw files as pieces or lines, with detected encodings and line ends.

Bytes in another encoding and a line without an end are a DataError with file and line.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import re
from collections.abc import Iterator
from typing import IO, NamedTuple

from hblm.data.raw.archives import RawFile, reading
from hblm.errors import ConfigError, DataError

LONGEST = 16 << 20  # characters of a line, a cell or a record; only a damaged file has more
MOST_BLANK = 1 << 20  # empty lines or rows in a row; a file of only these may be endless
_CUT = "\ufdd3"  # a Unicode noncharacter, which no text has, in place of a line that is too long
_SURROGATE = re.compile("[\ud800-\udfff]")  # what the decoder makes of a byte that is not in the encoding
_OTHER_ENCODING = "if it is in another encoding, write dataset.prepare.encoding=cp1252 (or its name)"
_HEAD = 1 << 20  # bytes that are searched for the encoding and the line ends

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before that of UTF-16, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Line(NamedTuple):
    """A line of a text, its number from 1, and why it cannot be used; "" if it can."""

    number: int
    text: str
    fault: str = ""


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
    blank = empty = 0
    with _text(file, chosen, newline, newline=newline) as stream:
        for number, line, fault in _numbered(stream, newline):
            if fault:
                raise DataError(f"{file.place}:{number}: {fault}")
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


def _numbered(stream: io.TextIOWrapper, end: str) -> Iterator[Line]:
    """Yield the lines of a text with their ends; of one above LONGEST, the start and a fault."""
    number = 0
    while line := stream.readline(LONGEST + 2):
        number += 1
        if len(line) <= LONGEST or len(line.rstrip("\r\n")) <= LONGEST:
            yield Line(number, line)
            continue
        yield Line(
            number,
            line,
            f"a line of more than {LONGEST:,} characters; no document is that long: are line ends missing, "
            "or is it another kind of file?",
        )
        while line and not line.endswith(end):  # where the reader goes on, the rest is no other line
            line = stream.readline(LONGEST)


def sound_and_bad_lines(
    stream: IO[bytes], head: bytes, place: str, encoding: str | None, *, live: bool
) -> Iterator[Line]:
    """Yield each line of a text with its end; one that cannot be decoded or is too long has a fault.

    Blank lines are lines. The line of a text that still grows is yielded as soon as it is complete.

    Args:
        stream: the bytes; of a line with a fault, those of the text are lone surrogates.
        head: its first bytes, which are read again.
        place: of the text, for messages.
        encoding: None: that of the byte-order mark, else UTF-8.
        live: the head may end inside a line, so that it does not show how lines end.

    Raises:
        DataError: the head is not a text, UTF-16 or UTF-32 is damaged, or the file is.
    """
    chosen, end = _sniffed(head, place, encoding)
    end = "\n" if live else end
    odd_bytes = "surrogatepass" if _is_wide(chosen) else "surrogateescape"
    with reading(place), io.TextIOWrapper(stream, encoding=chosen, errors=odd_bytes, newline=end) as text:
        try:
            for number, line, fault in _numbered(text, end):
                if fault:
                    yield Line(number, f"{_CUT}\n", fault)
                else:
                    yield Line(number, line, _not_decoded(line, chosen))
        except UnicodeError:
            raise DataError(f"{place}: not {_shown(chosen)}; {_OTHER_ENCODING}") from None


def is_odd(text: str) -> bool:
    """Return whether a text has a part of a line with a fault."""
    return not text.isascii() and (_CUT in text or _SURROGATE.search(text) is not None)


def _not_decoded(line: str, encoding: str) -> str:
    """Return where a line has bytes that are not in the encoding; "" where it has none."""
    odd = None if line.isascii() else _SURROGATE.search(line)
    if not odd:
        return ""
    if _is_wide(encoding):
        return f"not {_shown(encoding)} at character {odd.start() + 1} of the line; {_OTHER_ENCODING}"
    before = len(line[: odd.start()].encode(encoding.removesuffix("-sig"), "surrogateescape"))
    return f"not {_shown(encoding)} at byte {before + 1} of the line; {_OTHER_ENCODING}"


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
    return _sniffed(head, file.place, encoding)


def _sniffed(head: bytes, place: str, encoding: str | None) -> tuple[str, str]:
    """Return the encoding and the line end of a text with these first bytes."""
    if head.startswith(b"PK\x03\x04"):
        raise DataError(f"{place}: a zip or Office file; save the sheet as CSV, or call an archive .zip")
    marked = next((name for bom, name in _BOMS if head.startswith(bom)), None)
    chosen = marked or encoding or "utf-8"
    if head.count(0) > len(head) // 4 and not _is_wide(chosen):
        raise DataError(
            f"{place}: not a text in {chosen}: a quarter of its bytes are NUL; "
            f"UTF-16 without a byte-order mark needs dataset.prepare.encoding=utf-16-le"
        )
    text = head.decode(chosen if _is_wide(chosen) else "latin-1", "ignore")
    return chosen, "\r" if "\r" in text and "\n" not in text else "\n"


def _is_wide(encoding: str) -> bool:
    """Return whether a character takes more than one byte, so that a byte \\n does not end a line."""
    return re.sub("[-_]", "", encoding.lower()).startswith(("utf16", "utf32"))


def _shown(encoding: str) -> str:
    return {"utf-8": "UTF-8", "utf-8-sig": "UTF-8"}.get(encoding, encoding)


def _undecodable(file: RawFile, encoding: str, line_end: str) -> str:
    """Return a message with the place of the first invalid byte; the decoder only knows its own block."""
    name = _shown(encoding)
    if _is_wide(encoding):
        return f"{file.place}: not {name}; {_OTHER_ENCODING}"
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
    return f"{file.place}:{line}: not {name} at byte {byte + 1} of the line; {_OTHER_ENCODING}"


def _after(end: bytes, byte: int, block: bytes) -> int:
    """Return the column of the byte after a block, given the column of its first byte."""
    last = block.rfind(end)
    return byte + len(block) if last < 0 else len(block) - last - 1
