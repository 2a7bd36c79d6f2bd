"""Blurbs as the Blurb Genre Collections hold them: `<book>` records without a root, not well-formed XML.

The English and the German files are read by this one reader: raw `&` beside `&amp;`, a `<body>` inside the
`<book>`, topics as `<d0>` ... or as `<topic d="0">`, or none, where they lie in a file of their own.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import NamedTuple

from hblm.corpus.raw import LONGEST, RawFile, read_lines, read_text
from hblm.corpus.trees import plain_name
from hblm.errors import DataError

_OPEN, _CLOSE = re.compile(r"<book[\s>]"), "</book>"
_BETWEEN = re.compile(r"(<\?xml[^>]*\?>|<!--.*?-->|</?books>|\s)*", re.DOTALL)  # what may stand between books
_ENTITY = re.compile(r"&(#\d+|#[xX][0-9a-fA-F]+|\w+);")
_TOPICS = re.compile(r'<(?:d(\d)|topic\s+d="(\d)"[^>]*)>(.*?)</(?:d\1|topic)>', re.DOTALL)


class Book(NamedTuple):
    """One record; `topics` are (level, name), and `line` is where it begins."""

    line: int
    title: str
    body: str
    isbn: str
    topics: tuple[tuple[int, str], ...]


def read_books(file: RawFile, encoding: str | None = None) -> Iterator[Book]:
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
            raise DataError(
                f"{file.place}:{line}: no {_CLOSE} in {LONGEST:,} characters; is it the right file?"
            )
    if _BETWEEN.fullmatch(waiting) is None:
        line += _blank_lines(waiting)
        raise DataError(
            f"{file.place}:{line}: the file ends inside a book or other text: {waiting.strip()!r:.60}"
        )


def _book(record: str, file: RawFile, line: int) -> Book:
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
    fields = {name: _field(record, name) for name in ("title", "body", "isbn")}
    for name in ("body", "isbn"):
        if fields[name] is None or (name == "isbn" and not fields[name]):
            raise DataError(f"{place}: the book has no <{name}>")
    topics = tuple((int(old or new), plain_name(_plain(name))) for old, new, name in _TOPICS.findall(record))
    return Book(line, fields["title"] or "", fields["body"] or "", fields["isbn"] or "", topics)


def _field(record: str, name: str) -> str | None:
    start, end = record.find(f"<{name}>"), record.rfind(f"</{name}>")
    return _plain(record[start + len(name) + 2 : end]).strip() if 0 <= start < end else None


def _plain(text: str) -> str:
    """Resolve entities that end in a semicolon; any other & is one (html.unescape makes &copies ©ies)."""
    return _ENTITY.sub(lambda found: html.unescape(found.group()), text)


def _blank_lines(text: str) -> int:
    return text.count("\n", 0, len(text) - len(text.lstrip()))


def read_gold(file: RawFile, encoding: str | None = None) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Read labels that lie in a file of their own: lines `isbn<TAB>label<TAB>label ...`, all levels together.

    The file of GermEval 2019 holds two tasks; what counts is what follows the line `subtask_b`.

    Returns:
        ISBN -> line and labels.

    Raises:
        DataError: a line without labels, or an ISBN twice.
    """
    found: dict[str, tuple[int, tuple[str, ...]]] = {}
    for number, line in enumerate(read_lines(file, encoding), 1):
        if line.strip().startswith("subtask_"):
            found = {}
            continue
        isbn, *labels = (plain_name(cell) for cell in line.split("\t"))
        labels = [label for label in labels if label]
        if not labels:
            raise DataError(f"{file.place}:{number}: expected an ISBN, a tab and labels, found {line!r:.60}")
        if isbn in found:
            raise DataError(f"{file.place}:{number}: the ISBN {isbn!r} is on line {found[isbn][0]} as well")
        found[isbn] = number, tuple(labels)
    return found
