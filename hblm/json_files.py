"""JSON files: canonical text, bounded reading, and a seal, which is a hash of the content."""

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
    """Return whether the content of a JSON file matches its seal; False without a seal."""
    bare = {name: value for name, value in content.items() if name != SEAL}
    try:
        return bool(content.get(SEAL) == _seal_of(bare))
    except orjson.JSONEncodeError:  # nested too deeply, or a lone surrogate: `sealed` writes neither
        return False


def _seal_of(content: Mapping[str, Any]) -> str:
    """Return the hash of JSON values; orjson is fast enough for thousands of results."""
    text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text.replace(b"e+", b"e")).hexdigest()  # versions of orjson write 1e16 or 1e+16


def write_json(target: Path, value: object) -> None:
    """Write indented JSON atomically; NaN and infinity raise ValueError."""
    write_text(target, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_object(file: Path, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """Return the object in a JSON file, which need not be trusted.

    No number is NaN or infinite, no text has a lone surrogate, and the nesting is at most 254 levels deep, so
    that a recursive walk ends. Of a repeated key the last value counts.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be read, or is not a JSON object; the message gives the reason without
            the path.
    """
    content = read_bytes(file, largest)
    try:
        value = orjson.loads(content)
        orjson.dumps(value)  # writes at most 254 levels; reading accepts 1024
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
