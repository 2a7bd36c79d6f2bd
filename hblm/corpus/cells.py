"""What the cells of a chosen column say: texts, labels, splits."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

from hblm.corpus.columns import Columns
from hblm.corpus.tables import SPLIT_OF_WORD, Record, split_of_name
from hblm.corpus.trees import plain_name
from hblm.errors import DataError

_LONGEST_LIST = 1 << 18  # characters; what Python makes of one takes a hundred times as much memory


def text_of(record: Record, columns: Sequence[str], place: str) -> str:
    """Return a record's text; several columns are joined by a line end, a list of tokens by spaces.

    No value (null, or the NaN that pandas writes) is the empty text.

    Raises:
        DataError: a value that is no text.
    """
    parts = []
    for name in columns:
        value = _value(record, name, place)
        value = "" if _is_nothing(value) else value
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = " ".join(value)
        if not isinstance(value, str):
            raise DataError(f"{place}: {name} must be a text, found {value!r:.60}")
        parts.append(value)
    return "\n".join(parts)


def cells_of(record: Record, columns: Columns, place: str) -> tuple[str, ...]:
    """Return what a record's label columns hold, as texts: a cell each, or the items of a list.

    Raises:
        DataError: a value that is no label, or a level without the one above it.
    """
    if columns.levels:
        names = [_label(_value(record, name, place), name, place) for name in columns.levels]
        filled = [name for name in names if name]
        if names[: len(filled)] != filled:
            empty = columns.levels[names.index("")]
            raise DataError(f"{place}: {empty} is empty and a level below it is not; a path has no holes")
        return tuple(filled)
    cells: list[str] = []
    for name in columns.labels:
        value = _value(record, name, place)
        if isinstance(value, str):
            value = _listed(value)
        cells += (_label(item, name, place) for item in (value if isinstance(value, list) else [value]))
    return tuple(filter(None, cells))


def _value(record: Record, name: str, place: str) -> Any:
    if name not in record:
        raise DataError(f"{place}: no {name!r}; the record has {', '.join(map(repr, record))}")
    return record[name]


def _listed(cell: str) -> str | list[Any]:
    """Return the items of a list written as JSON or as Python does, any other cell as it is."""
    if cell.startswith("[") and cell.endswith("]") and len(cell) <= _LONGEST_LIST:
        spaced = re.sub(r"(?<=['\"])\s+(?=['\"])", ", ", cell)  # as numpy prints an array: ['a' 'b']
        for read, text in ((json.loads, cell), (ast.literal_eval, spaced)):
            try:
                value = read(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(value, list):
                return value
    return cell


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _label(value: Any, name: str, place: str) -> str:
    """Return a cell's label, "" for an empty one (null, or the NaN that pandas writes)."""
    if _is_nothing(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a class number in a column that has holes
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{place}: {name} must hold labels (texts), found {value!r:.60}")
    return plain_name(str(value))


def split_of(record: Record, column: str, place: str) -> str:
    """Return the split that a record's column names.

    Raises:
        DataError: it names none.
    """
    value = _value(record, column, place)
    found = split_of_name(str(value))
    if not found:
        raise DataError(
            f"{place}: {column}={value!r:.60} names no split; known are {', '.join(SPLIT_OF_WORD)}"
        )
    return found
