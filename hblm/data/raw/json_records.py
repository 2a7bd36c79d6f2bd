"""Records of JSON: an object a line, one array of objects, or one object of columns."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from hblm.data.raw.archives import LARGEST, RawFile
from hblm.data.raw.columnar import Records
from hblm.data.raw.text import read_lines, read_text
from hblm.document import parse_object
from hblm.errors import DataError


def open_objects(file: RawFile, encoding: str | None) -> tuple[str, Records]:
    """Return the place of a record without its number, and a reader of the records of a JSON file.

    An array, or a .json file whose first line is not an object, is one value and is read into memory.

    Raises:
        DataError: not JSON, or one value that is no table.
    """
    values = read_array(file, encoding)
    if values is not None:

        def records(_: Collection[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
            for number, record in enumerate(values, 1):
                if not isinstance(record, dict):
                    raise DataError(
                        f"{file.place}: item {number}: expected an object with text and labels, "
                        f"found {record!r:.60}"
                    )
                yield number, record

        return f"{file.place}: item ", records

    def lines(_: Collection[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for number, line in enumerate(read_lines(file, encoding), 1):
            if line.strip():
                yield number, parse_object(line, f"{file.place}:{number}", "with text and labels")

    return f"{file.place}:", lines


def read_array(file: RawFile, encoding: str | None) -> list[Any] | None:
    """Return the records of a file that is one array, or one object of columns; None for an object a line.

    Raises:
        DataError: not JSON, or one value that is no table.
    """
    columns = file.base.lower().endswith(".json") and _is_one_value(file, encoding)
    start = next((text for piece in read_text(file, encoding) if (text := piece.lstrip())), "")
    return _whole(file, encoding) if columns or start.startswith("[") else None


def _is_one_value(file: RawFile, encoding: str | None) -> bool:
    """Return whether a file that is not an array is one value over several lines, or an object of columns."""
    filled = (line for line in read_lines(file, encoding) if line.strip())
    try:
        value = json.loads(next(filled, ""))
    except (ValueError, RecursionError, DataError):  # no line of JSON, or one that is too long
        return True
    more = next(filled, None)
    # a list of tokens has as many items as one of labels may have, but no blanks in them
    texts = [item for column in _lists(value) for item in column if isinstance(item, str)]
    return more is None and bool(_columns(value)) and (any(" " in text for text in texts) or not texts)


def _lists(value: Any) -> list[Any]:
    return [item for item in value.values() if isinstance(item, list)] if isinstance(value, dict) else []


def _whole(file: RawFile, encoding: str | None) -> list[Any]:
    """Return the records of a file that is one value."""
    pieces, size = [], 0
    for piece in read_text(file, encoding):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST:
            raise DataError(
                f"{file.place}: an array of more than {LARGEST:,} characters; write an object a line "
                f"(jq -c '.[]' FILE > FILE.jsonl)"
            )
    try:
        value = json.loads("".join(pieces))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file.place}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno})"
        ) from None
    except (RecursionError, ValueError) as error:  # a number of more digits than Python converts
        raise DataError(f"{file.place}: not a table: {error}") from None
    rows = value if isinstance(value, list) else _columns(value)
    if not rows and not isinstance(value, list):
        raise DataError(
            f"{file.place}: one JSON value; expected an object a line, an array of objects, or an object "
            f"with a list for each column"
        )
    return rows


def _columns(value: Any) -> list[Any]:
    """Return the records of an object that has a list, or an object with the same keys, for each column.

    [] for any other value. pandas writes the second, with the rows' numbers as keys, by default; with
    orient=index rows and columns change places.
    """
    columns = list(value.values()) if isinstance(value, dict) else []
    if columns and all(isinstance(column, list) and len(column) == len(columns[0]) > 1 for column in columns):
        return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    if not columns or not all(
        isinstance(column, dict) and column.keys() == columns[0].keys() for column in columns
    ):
        return []
    if all(map(str.isdigit, value)) and not any(map(str.isdigit, columns[0])):
        return columns
    if all(map(str.isdigit, columns[0])) and not any(map(str.isdigit, value)):
        return [{name: column[row] for name, column in value.items()} for row in columns[0]]
    return []
