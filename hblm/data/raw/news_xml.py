"""Parsers of news articles of Reuters (NewsML, RCV1) and the New York Times (NITF), one XML file each.

External entities and document type definitions are never fetched; expat refuses entity expansion attacks.
"""

from __future__ import annotations

import html.entities
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple
from xml.etree import ElementTree

from hblm.data.raw.cleaning import CLEANINGS, Cleaning

Paragraphs = Literal["space", "glued"]
_ENTITIES = {name: chr(code) for name, code in html.entities.name2codepoint.items()}


class Article(NamedTuple):
    """One article.

    Attributes:
        identity: its id; "" if the file has none.
        text: the paragraphs, joined and cleaned.
        is_blank: whether no paragraph has text.
        paths: of the taxonomic classifiers, unchanged (NITF only).
        latin_1: whether the bytes are not in their declared encoding and were read as ISO-8859-1.
    """

    identity: str
    text: str
    is_blank: bool
    paths: tuple[str, ...]
    latin_1: bool


def parse_newsml(data: bytes, *, text: str, paragraphs: Paragraphs, clean: Cleaning = "none") -> Article:
    """Read a story of RCV1.

    Args:
        data: the file.
        text: body, or title_body, with the title before it.
        paragraphs: joined by a space, or glued together as HPT and others do.
        clean: a published cleaning of the text.

    Raises:
        ValueError: not XML, or another kind of file.
    """
    root, latin_1 = _parse(data, "newsitem")
    body = root.find("text")
    joined = _joined(_paragraphs(body) if body is not None else (), paragraphs)
    is_blank = not joined.strip()
    if text == "title_body":
        joined = "\n".join(filter(None, (_text(root.find("title")).strip(), joined)))
    return Article(root.get("itemid", ""), CLEANINGS[clean](joined), is_blank, (), latin_1)


def parse_nitf(data: bytes, *, text: str, paragraphs: Paragraphs, clean: Cleaning = "none") -> Article:
    """Read an article of the New York Times.

    Args:
        data: the file.
        text: published, every paragraph but the first of the file, as HiAGM and those after it; or
            full_text, the block of that name.
        paragraphs: joined by a space, or glued together as HiAGM and others do.
        clean: a published cleaning of the text.

    Raises:
        ValueError: not XML, or another kind of file.
    """
    root, latin_1 = _parse(data, "nitf")
    if text == "published":
        elements = list(_paragraphs(root))[1:]
    else:
        elements = [
            p for block in root.iter("block") if block.get("class") == text for p in _paragraphs(block)
        ]
    named = root.find("head/docdata/doc-id")
    paths = [
        _text(classifier).strip()
        for classifier in root.iter("classifier")
        if classifier.get("type") == "taxonomic_classifier"
    ]
    identity = "" if named is None else named.get("id-string", "")
    joined = _joined(elements, paragraphs)
    return Article(identity, CLEANINGS[clean](joined), not joined.strip(), tuple(paths), latin_1)


def _parse(data: bytes, wanted: str) -> tuple[ElementTree.Element, bool]:
    latin_1 = False
    try:
        try:
            root = _root(data)
        except (ElementTree.ParseError, ValueError, LookupError):  # the latter of an encoding that is unknown
            latin_1 = not _is_utf_8(data)  # then it may be ISO-8859-1 that declares nothing, or UTF-8
            root = _root(data, "iso-8859-1" if latin_1 else "utf-8")
    except ElementTree.ParseError as error:
        raise ValueError(f"not well-formed XML: {error}") from None
    if root.tag != wanted:
        raise ValueError(f"expected <{wanted}> as its root, found <{root.tag:.60}>")
    return root, latin_1


def _is_utf_8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _root(data: bytes, encoding: str | None = None) -> ElementTree.Element:
    parser = ElementTree.XMLParser(encoding=encoding)
    if b"<!DOCTYPE" in data or b"\0" in data:  # the latter in UTF-16
        parser.entity.update(_ENTITIES)  # which the definition, that is not fetched, may define
    parser.feed(data)
    return parser.close()


def _paragraphs(element: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """Yield the <p> below an element, in order; what is inside one is part of it."""
    open_elements = [iter(element)]
    while open_elements:
        child = next(open_elements[-1], None)
        if child is None:
            open_elements.pop()
        elif child.tag == "p":
            yield child
        else:
            open_elements.append(iter(child))


def _text(element: ElementTree.Element | None) -> str:
    return "" if element is None else "".join(element.itertext())


def _joined(elements: Iterable[ElementTree.Element], paragraphs: Paragraphs) -> str:
    texts = map(_text, elements)
    if paragraphs == "glued":
        return "".join(texts)
    return " ".join(filter(None, (text.strip() for text in texts)))
