"""A document and its line in a prepared split: one JSON object with id, text and labels."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hblm.errors import DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Document:
    """One text with the ids of its nodes, in any order."""

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
        place: where it stands, such as "data/wos/train.jsonl:17", for the message.

    Raises:
        DataError: not JSON, not an object, a missing key, or a value of another type.
    """
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not valid JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise DataError(f"{place}: not a document: nested too deeply") from None
    if not isinstance(value, dict):
        raise DataError(f'{place}: expected an object {{"id", "text", "labels"}}, found {_kind(value)}')
    missing = [key for key in ("id", "text", "labels") if key not in value]
    if missing:
        raise DataError(
            f"{place}: the document has no {' and no '.join(missing)}; its keys are {sorted(value)}"
        )
    identity, text, labels = value["id"], value["text"], value["labels"]
    if not isinstance(identity, str) or not identity:
        raise DataError(f"{place}: id must be a string that is not empty, found {_kind(identity)}")
    where = f"{place}, document {identity!r}"
    if not isinstance(text, str):
        raise DataError(f"{where}: text must be a string, found {_kind(text)}")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise DataError(f"{where}: labels must be a list of node ids (strings), found {_kind(labels)}")
    for name, part in (("id", identity), ("text", text)):
        try:
            part.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: {name} holds a lone surrogate at character {error.start}") from None
    return Document(identity, text, tuple(labels))


def _kind(value: object) -> str:
    names = {str: "a string", list: "a list", dict: "an object", bool: "true/false", type(None): "null"}
    if isinstance(value, list) and value:
        odd = next((item for item in value if not isinstance(item, str)), None)
        return f"a list with {_kind(odd)}" if odd is not None or None in value else "a list"
    if isinstance(value, str) and not value:
        return "an empty string"
    return names.get(type(value), "a number")
