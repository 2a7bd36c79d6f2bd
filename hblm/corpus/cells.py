"""What the cells of a chosen column say: texts, labels, splits."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from hblm.corpus.columns import Columns
from hblm.corpus.tables import SPLIT_OF_WORD, Record, split_of_name
from hblm.corpus.trees import plain_name
from hblm.errors import DataError

WAYS_TO_NAME = (
    "write dataset.prepare.label_names=FILE (a line for each label in that order, or a JSON list) or "
    "=[a,b,c], or =columns where each label has a column of its own"
)
# What a position of a multi-hot list, or a one-hot column, may say; None: not known, as in Kaggle's Jigsaw
_MARKS: dict[str, bool | None] = {"0": False, "0.": False, "0.0": False, "false": False, "1": True}
_MARKS |= {"1.": True, "1.0": True, "true": True, "-1": None, "-1.": None, "-1.0": None}
_NUMBER = re.compile(r"-?\d+\.?|True|False")
_BETWEEN = re.compile(r"[\s,;|]+")  # marks that are one text


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
            value = _listed(value, place)
        cells += (_label(item, name, place) for item in (value if isinstance(value, list) else [value]))
    return tuple(filter(None, cells))


def marked_of(record: Record, columns: Columns, names: Sequence[str], place: str) -> tuple[str, ...]:
    """Return the names at which a record's label columns have a 1: of a list's positions, or of the columns.

    Nothing but 0, -1 or empty cells: no label.

    Raises:
        DataError: another number of values than of names, or a value that is neither 0 nor 1.
    """
    values: list[Any] = []
    for name in columns.labels:
        value = _value(record, name, place)
        value = _listed(value, place) if isinstance(value, str) else value
        values += value if isinstance(value, list) else [value]
    marks = _parts("" if _is_nothing(value) else str(value) for value in values)
    if len(marks) == 1 < len(names) == len(marks[0]):
        marks = list(marks[0])  # digits in a row: 0010
    if set(marks) <= {"", "-1", "-1.0"}:
        return ()
    where = " and ".join(columns.labels)
    if len(marks) != len(names):
        raise DataError(
            f"{place}: {where} holds {len(marks)} values, and dataset.prepare.label_names has {len(names)} "
            f"names"
        )
    for name, mark in zip(names, marks, strict=True):
        if _MARKS.get(mark.casefold()) is None:
            raise DataError(f"{place}: {where} is {mark!r:.60} at {name!r:.60}; expected 0 or 1")
    return tuple(name for name, mark in zip(names, marks, strict=True) if _MARKS[mark.casefold()])


def are_marks(documents: Iterable[Sequence[str]]) -> bool:
    """Tell whether label cells are multi-hot: of one length above 1, with nothing but 0 and 1."""
    lengths: set[int] = set()
    for cells in documents:
        marks = [_MARKS.get(part.casefold(), "") for part in _parts(cells)]
        if "" in marks or len(lengths) > 1:
            return False
        if set(marks) != {None}:
            lengths.add(len(marks))
    return len(lengths) == 1 and lengths.pop() > 1


def _parts(cells: Iterable[str]) -> list[str]:
    return [part for cell in cells for part in _BETWEEN.split(cell.strip())]


def _value(record: Record, name: str, place: str) -> Any:
    if name not in record:
        raise DataError(f"{place}: no {name!r}; the record has {', '.join(map(repr, record))}")
    return record[name]


def _listed(cell: str, place: str) -> str | list[Any]:
    """Return the items of a list written as JSON, Python or numpy does, any other cell as it is."""
    cell = cell.strip()
    if cell.startswith("[") and cell.endswith("]"):
        numbers = cell[1:-1].split()  # as numpy prints an array: [0 1], [0. 1.], [ True False]
        if "..." in numbers:
            raise DataError(
                f"{place}: {cell!r:.60} was cut when it was printed, and the values at ... are lost; write "
                f"whole lists, with tolist() in numpy"
            )
        if len(numbers) > 1 and all(_NUMBER.fullmatch(number) for number in numbers):
            return [number.removesuffix(".") for number in numbers]
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
    if isinstance(value, bool):
        raise DataError(
            f"{place}: {name} must hold labels (texts), found {value!r}; where each position of a list, or "
            f"each column, stands for a label, {WAYS_TO_NAME}"
        )
    if not isinstance(value, str | int):
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
