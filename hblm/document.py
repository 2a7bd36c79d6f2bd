"""A document and its line in a prepared split: one JSON object with id, text and labels."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hblm.errors import DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Document:
    """A text with the ids of its nodes, in any order."""

    id: str
    text: str
    labels: tuple[str, ...]

    def to_json(self) -> str:
        """Return the document as one line of JSON, without the line end."""
        return json.dumps({"id": self.id, "text": self.text, "labels": list(self.labels)}, ensure_ascii=False)


def parse_document(line: str, place: str) -> Document:
    """Read one line of a split.

    Args:
        line: the JSON text.
        place: file and line for messages, such as "data/wos/train.jsonl:17".

    Raises:
        DataError: not JSON, not an object, a missing key, or a value of another type.
    """
    value = parse_object(line, place, '{"id", "text", "labels"}')
    if not ("id" in value and "text" in value and "labels" in value):
        missing = [key for key in ("id", "text", "labels") if key not in value]
        raise DataError(
            f"{place}: the document has no {' and no '.join(missing)}; its keys are {sorted(value)!s:.300}"
        )
    identity, text, labels = value["id"], value["text"], value["labels"]
    if not isinstance(identity, str) or not identity:
        raise DataError(f"{place}: id must be a string that is not empty, found {_kind(identity)}")
    if not isinstance(text, str):
        raise DataError(f"{place}, document {identity!r:.100}: text must be a string, found {_kind(text)}")
    if not isinstance(labels, list) or not set(map(type, labels)) <= {str}:
        raise DataError(
            f"{place}, document {identity!r:.100}: labels must be a list of node ids (strings), "
            f"found {_kind(labels)}"
        )
    if "\\" in line:  # text decoded from UTF-8 has lone surrogates only as escapes
        check_text(identity, text, place)
    return Document(identity, text, tuple(labels))


def parse_object(line: str, place: str, expected: str) -> dict[str, Any]:
    """Read a line with one JSON object; `expected` shows its keys, for the message.

    Raises:
        DataError: not JSON, or not an object.
    """
    try:
        if line.startswith("\ufeff"):
            raise json.JSONDecodeError("Unexpected UTF-8 BOM", line, 0)
        value = decode_json(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not valid JSON: {error.msg} (column {error.pos + 1})") from None
    except RecursionError:
        raise DataError(f"{place}: not a document: nested too deeply") from None
    except ValueError as error:  # a duplicate key, or a number with more digits than Python converts
        raise DataError(f"{place}: not a document: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{place}: expected an object {expected}, found {_kind(value)}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON.

    Raises:
        ValueError: a key is there twice.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {name!r:.60} is there twice")
    return values


# For files that people write: a duplicate key is an error, and not the loss of a value.
decode_json = json.JSONDecoder(object_pairs_hook=_unique).decode


def check_text(identity: str, text: str, place: str) -> None:
    """Refuse an id or text that cannot be encoded in UTF-8.

    Raises:
        DataError: it has a lone surrogate, from a wrong decoding or half an escaped pair.
    """
    for name, part in (("id", identity), ("text", text)):
        try:
            part.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"{place}, document {identity!r:.100}: {name} holds a lone surrogate "
                f"at character {error.start}"
            ) from None


def _kind(value: object) -> str:
    """Return the kind of a JSON value in words, for messages."""
    names = {str: "a string", list: "a list", dict: "an object", bool: "true/false", type(None): "null"}
    if isinstance(value, list) and value:
        others = [item for item in value if not isinstance(item, str)]
        return f"a list with {_kind(others[0])}" if others else "a list"
    if isinstance(value, str) and not value:
        return "an empty string"
    return names.get(type(value), "a number")
