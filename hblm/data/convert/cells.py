"""Cells of the chosen columns of a record, read as texts, labels and splits."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from hblm.data.convert.columns import Columns
from hblm.data.raw.cleaning import plain_name
from hblm.data.raw.tables import SPLIT_OF_WORD, Record, split_of_name
from hblm.errors import DataError

PATH = "\ufdd1"  # ends each name of a path; a Unicode noncharacter, which no name has

WAYS_TO_NAME = (
    "write dataset.prepare.label_names=FILE (a line for each label in that order, or a JSON list) or "
    "=[a,b,c], or =columns where each label has a column of its own"
)

# Values of a position of a multi-hot list, or of a one-hot column; None: unknown, as in Jigsaw at Kaggle
_MARKS: dict[str, bool | None] = {"0": False, "0.": False, "0.0": False, "false": False, "1": True}


_MARKS |= {"1.": True, "1.0": True, "true": True, "-1": None, "-1.": None, "-1.0": None}


_NUMBER = re.compile(r"-?\d+\.?|True|False")
_BETWEEN = re.compile(r"[\s,;|]+")  # separates marks in one text
_LONGEST_LIST = 1 << 18  # characters; parsed, it takes a hundred times as much memory


def text_of(record: Record, columns: Sequence[str], place: str) -> str:
    """Return the text of a record; several columns are joined by a line end, a list of tokens by spaces.

    A missing value (null, or the NaN of pandas) is the empty text.

    Raises:
        DataError: a value is not a text.
    """
    parts = []
    for name in columns:
        value = _value(record, name, place)
        value = "" if _is_missing(value) else value
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = " ".join(value)
        if not isinstance(value, str):
            raise DataError(f"{place}: {name} must be a text, found {value!r:.60}")
        parts.append(value)
    return "\n".join(parts)


def cells_of(
    record: Record, columns: Columns, place: str, *, whole: bool = False, tree: bool = False
) -> tuple[str, ...]:
    """Return the label cells of a record as texts: one per cell, or one per item of a list.

    A path given as a list, or in a column for each level, is one cell, with PATH after each name. In an
    object of numbers, the keys with at least 0.5 are the labels.

    Args:
        record: the record.
        columns: the columns to read.
        place: of the record, for messages.
        whole: a list is one path; a list of lists is always several paths.
        tree: a taxonomy is given, in which the names of levels are looked up one by one.

    Raises:
        DataError: a value is not a label, a level is empty above a name, or names of levels are ambiguous.
    """
    if columns.levels:
        return _cells_of_levels(record, columns, place, tree)
    cells: list[str] = []
    for name in columns.labels:
        value = _value(record, name, place)
        labels = _labels_in(value, name, place)
        if labels and all(isinstance(label, list) for label in labels):
            cells += (_path([_label(item, name, place) for item in path], name, place) for path in labels)
        elif whole and (isinstance(value, list) or len(labels) > 1):
            cells.append(_path([_label(item, name, place) for item in labels], name, place))
        else:
            cells += (_label(item, name, place) for item in labels)
    return tuple(filter(None, cells))


def _cells_of_levels(record: Record, columns: Columns, place: str, tree: bool) -> tuple[str, ...]:
    """Return the paths in columns of levels; a cell has one name, or a list with a name for each path."""
    levels = []
    for column in columns.levels:
        labels = _labels_in(_value(record, column, place), column, place)
        levels.append([_label(item, column, place) for item in labels] or [""])
    many = max(map(len, levels))
    single = 0  # the number of upper levels with one name
    while single < len(levels) and len(levels[single]) == 1:
        single += 1
    if any(len(names) not in (many, 1 if names == [""] else many) for names in levels[single:]):
        if tree:
            return tuple(f"{name}{PATH}" for names in levels for name in names if name)
        counts = ", ".join(
            f"{len(names)} in {name}" for name, names in zip(columns.levels, levels, strict=True)
        )
        raise DataError(
            f"{place}: which name is below which? there are {counts}; write lists of one length, a name for "
            f"each path, or give the tree, dataset.prepare.taxonomy=FILE"
        )
    paths = ([names[at if len(names) == many else 0] for names in levels] for at in range(many))
    cells = (_path(names, columns.levels, place) for names in paths)
    return tuple(dict.fromkeys(filter(None, cells)))


def _path(names: Sequence[str], columns: str | Sequence[str], place: str) -> str:
    """Return the names of a path as one cell; "" for no names."""
    filled = [name for name in names if name]
    if list(names[: len(filled)]) != filled:
        at = names.index("")
        empty = f"name {at + 1} of a path in {columns}" if isinstance(columns, str) else columns[at]
        raise DataError(f"{place}: {empty} is empty and a level below it is not; a path has no holes")
    return path_of(filled)


def path_of(names: Iterable[str]) -> str:
    """Return the names of a path as one cell."""
    return "".join(f"{name}{PATH}" for name in names)


def path_in(cell: str) -> tuple[str, ...]:
    """Return the names in a cell made by `path_of`; () for any other cell."""
    return tuple(cell.split(PATH)[:-1])


def _labels_in(value: Any, name: str, place: str) -> list[Any]:
    """Return the labels in a cell: the items of a list, the keys of an object of numbers, or the value."""
    value = _listed(value, place) if isinstance(value, str) else value
    if isinstance(value, dict):
        known = {key: item for key, item in value.items() if not _is_missing(item)}
        if all(isinstance(item, int | float) for item in known.values()):
            return [key for key, item in known.items() if item >= 0.5]
    items = value if isinstance(value, list) else [value]
    return [_name_in(item, name, place) if isinstance(item, dict) else item for item in items]


def _name_in(item: dict[str, Any], name: str, place: str) -> str:
    """Return the only text in an object."""
    texts = [value for value in item.values() if isinstance(value, str)]
    if len(texts) != 1:
        raise DataError(
            f"{place}: {name} holds an object with {', '.join(map(str, item)) or 'nothing'}; which of it is "
            f"the label? write the label's name in place of the object, or keep one text in each"
        )
    return texts[0]


def marked_of(record: Record, columns: Columns, names: Sequence[str], place: str) -> tuple[str, ...]:
    """Return the names of the positions with a 1: of the items of a list, or of the columns.

    Only 0, -1 or empty cells: no label.

    Raises:
        DataError: the number of values is not that of the names, or a value is neither 0 nor 1.
    """
    values: list[Any] = []
    for name in columns.labels:
        value = _value(record, name, place)
        value = _listed(value, place) if isinstance(value, str) else value
        values += value if isinstance(value, list) else [value]
    marks = _parts("" if _is_missing(value) else str(value) for value in values)
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
    """Return whether label cells are multi-hot: all of one length above 1, with only 0 and 1."""
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


def _listed(cell: str, place: str) -> Any:
    """Return the list or object in a cell, as JSON, Python or numpy write it; any other cell unchanged."""
    if len(cell) > _LONGEST_LIST:
        return cell
    bare = cell.strip()
    if bare.startswith("{") and bare.endswith("}"):
        return _parsed(bare, bare, dict, cell)
    if bare.startswith("[") and bare.endswith("]"):
        numbers = bare[1:-1].split()  # as numpy prints an array: [0 1], [0. 1.], [ True False]
        if "..." in numbers:
            raise DataError(
                f"{place}: {cell!r:.60} was cut when it was printed, and the values at ... are lost; write "
                f"whole lists, with tolist() in numpy"
            )
        if len(numbers) > 1 and all(_NUMBER.fullmatch(number) for number in numbers):
            return [number.removesuffix(".") for number in numbers]
        spaced = re.sub(r"(?<=['\"])\s+(?=['\"])", ", ", bare)  # as numpy prints an array: ['a' 'b']
        return _parsed(bare, spaced, list, cell)
    return cell


def _parsed(json_text: str, python_text: str, kind: type, otherwise: str) -> Any:
    """Return the value of this type in one of the texts, parsed as JSON or Python; else `otherwise`."""
    for read, text in ((json.loads, json_text), (ast.literal_eval, python_text)):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, kind):
            return value
    return otherwise


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _label(value: Any, name: str, place: str) -> str:
    """Return a value as a label; "" for a missing one (null, or the NaN of pandas)."""
    if _is_missing(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a class number in a column with missing values
    if isinstance(value, bool):
        raise DataError(
            f"{place}: {name} must hold labels (texts), found {value!r}; where each position of a list, or "
            f"each column, stands for a label, {WAYS_TO_NAME}"
        )
    if not isinstance(value, str | int):
        raise DataError(f"{place}: {name} must hold labels (texts), found {value!r:.60}")
    return plain_name(str(value))


def split_of(record: Record, column: str, place: str) -> str:
    """Return the split in a column of a record.

    Raises:
        DataError: the value is not a split.
    """
    value = _value(record, column, place)
    split = split_of_name(str(value))
    if not split:
        raise DataError(
            f"{place}: {column}={value!r:.60} names no split; known are {', '.join(SPLIT_OF_WORD)}"
        )
    return split
