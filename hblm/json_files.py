"""JSON files: canonical text, bounded reading, sealed by a hash of their own content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from hblm.files import LARGEST_JSON, read_bytes, write_text

SEAL = "sha256"


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a JSON file with its seal, the sha256 of its values whatever their order."""
    read_back = orjson.loads(json.dumps(content, allow_nan=False))  # keys become text
    return {**content, SEAL: _seal_of(read_back)}


def is_as_sealed(content: Mapping[str, Any]) -> bool:
    """Return whether the content of a JSON file is what `sealed` returned; what has no seal is not."""
    bare = {name: value for name, value in content.items() if name != SEAL}
    try:
        return bool(content.get(SEAL) == _seal_of(bare))
    except orjson.JSONEncodeError:  # far too deep, or a lone surrogate: nothing that was sealed
        return False


def _seal_of(content: Mapping[str, Any]) -> str:
    """Hash values of JSON: by orjson, as tables read thousands of results."""
    text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text.replace(b"e+", b"e")).hexdigest()  # versions of orjson write 1e16 or 1e+16


def write_json(target: Path, value: object) -> None:
    """Write indented JSON whole or not at all; a number that JSON cannot hold is an error."""
    write_text(target, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_object(file: Path, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """Return the object that a JSON file holds, whoever wrote it.

    No number in it is NaN or infinite, no text has a lone surrogate, and it is nested so little deep that
    whatever walks through it comes to its end. Of a key that is there twice the last value counts.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it cannot be read, or holds something else; why, without the file's name.
    """
    content = read_bytes(file, largest)
    try:
        value = orjson.loads(content)
        orjson.dumps(value)  # which goes 254 levels deep, where reading goes 1024
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {_fault_in(content, error)}") from None
    except orjson.JSONEncodeError:
        raise ValueError("not valid JSON: nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {value!r:.60}")
    return value


def _fault_in(content: bytes, error: orjson.JSONDecodeError) -> str:
    if not content.strip():
        return "empty"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as odd:
        return f"not UTF-8 at byte {odd.start + 1}"
    what = "nested too deeply" if "depth limit" in error.msg else error.msg
    return f"{what} (line {error.lineno}, column {error.colno})"
