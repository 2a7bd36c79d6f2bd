"""Reader of the Blurb Genre Collections: `<book>` records without a root, which are not well-formed XML.

English and German files have raw `&` beside `&amp;`, a `<body>` inside the `<book>`, and topics as `<d0>` ...
or as `<topic d="0">`; or no topics, which are then in a file of their own.
"""

from __future__ import annotations

import html.entities
import re
from collections.abc import Iterator
from typing import NamedTuple

from hblm.data.raw.archives import RawFile
from hblm.data.raw.cleaning import plain_name
from hblm.data.raw.text import LONGEST, read_lines, read_text
from hblm.errors import DataError

_OPEN, _CLOSE = re.compile(r"<book[\s>]"), "</book>"
_BETWEEN = re.compile(r"(<\?xml[^>]*\?>|<!--.*?-->|</?books>|\s)*", re.DOTALL)  # allowed between books
_ENTITY = re.compile(r"&(#\d+|#[xX][0-9a-fA-F]+|\w+);")
_TOPICS = re.compile(r"<(?:d(\d)|topic\b[^>]*\bd=[\"'](\d)[\"'][^>]*)>(.*?)</(?:d\1|topic)>", re.DOTALL)
_TOPIC = re.compile(r"<(?:d\d|topic)\b", re.IGNORECASE)  # the beginning of a topic, damaged or not


class BookRecord(NamedTuple):
    """One record; `topics` are (level, name), and `line` is its first line."""

    line: int
    title: str
    body: str
    isbn: str
    topics: tuple[tuple[int, str], ...]


def read_books(file: RawFile, encoding: str | None = None) -> Iterator[BookRecord]:
    """Yield the books of a file.

    Raises:
        DataError: damaged, a book that is never closed or has no text or ISBN, or other text between books.
    """
    waiting, line = "", 1
    for piece in read_text(file, encoding):
        waiting += piece
        start = 0
        while (end := waiting.find(_CLOSE, start)) >= 0:
            end += len(_CLOSE)
            record = waiting[start:end]
            yield _book(record, file, line)
            line += record.count("\n")
            start = end
        waiting = waiting[start:]
        if len(waiting) > LONGEST:
            line += _blank_lines(waiting)
            raise DataError(
                f"{file.place}:{line}: no {_CLOSE} in {LONGEST:,} characters; is it the right file?"
            )
    if _BETWEEN.fullmatch(waiting) is None:
        line += _blank_lines(waiting)
        raise DataError(
            f"{file.place}:{line}: the file ends inside a book or other text: {waiting.strip()!r:.60}"
        )


def _book(record: str, file: RawFile, line: int) -> BookRecord:
    between = _BETWEEN.match(record)
    start = between.end() if between else 0
    line += record.count("\n", 0, start)
    place = f"{file.place}:{line}"
    if not _OPEN.match(record, start):
        raise DataError(f"{place}: expected <book ...>, found {record[start : start + 60]!r}")
    again = _OPEN.search(record, start + 1)
    if again:
        raise DataError(
            f"{place}: the book that begins here is never closed; the next begins before {_CLOSE}"
        )
    before, opened, rest = record[start:].partition("<body>")
    body, closed, after = rest.rpartition("</body>")  # the last: a blurb may hold tags of its own
    if not opened or not closed:
        raise DataError(f"{place}: the book has no <body>")
    title, isbn = _field(before, "title"), _field(after, "isbn")
    if not isbn:
        raise DataError(f"{place}: the book has no <isbn> after its <body>")
    topics = tuple((int(old or new), plain_name(_plain(name))) for old, new, name in _TOPICS.findall(after))
    if len(topics) != len(_TOPIC.findall(after)) or not all(name and "<" not in name for _, name in topics):
        raise DataError(f"{place}: a topic of the book that begins here is damaged: {after.strip()!r:.200}")
    return BookRecord(line, title, _plain(body).strip(), isbn, topics)


def _field(text: str, name: str) -> str:
    """Return the text between the tags of a field; "" if there is none."""
    return _plain(text.partition(f"<{name}>")[2].partition(f"</{name}>")[0]).strip()


def _plain(text: str) -> str:
    """Resolve entities and keep other & (html.unescape resolves prefixes: &region becomes ®ion)."""
    return _ENTITY.sub(_character, text)


def _character(match: re.Match[str]) -> str:
    if match[1].startswith("#"):
        return html.unescape(match[0])
    return html.entities.html5.get(f"{match[1]};", match[0])


def _blank_lines(text: str) -> int:
    return text.count("\n", 0, len(text) - len(text.lstrip()))


def read_gold(file: RawFile, encoding: str | None = None) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Read a file of labels: lines `isbn<TAB>label<TAB>label ...`, with all levels together.

    The file of GermEval 2019 has two tasks; the part after the line `subtask_b` counts.

    Returns:
        ISBN -> line and labels.

    Raises:
        DataError: a line without labels, or an ISBN twice.
    """
    labels_of: dict[str, tuple[int, tuple[str, ...]]] = {}
    parts = {"": labels_of}
    for number, line in enumerate(read_lines(file, encoding), 1):
        if line.strip().startswith("subtask_"):
            labels_of = parts[line.strip()] = {}
            continue
        isbn, *labels = (plain_name(cell) for cell in line.split("\t"))
        labels = [label for label in labels if label]
        if not labels:
            raise DataError(f"{file.place}:{number}: expected an ISBN, a tab and labels, found {line!r:.60}")
        if isbn in labels_of:
            raise DataError(
                f"{file.place}:{number}: the ISBN {isbn!r} is on line {labels_of[isbn][0]} as well"
            )
        labels_of[isbn] = number, tuple(labels)
    return parts.get("subtask_b", parts[""])
