"""Texts in memory, as users have them: lists, columns of tables, arrays, generators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hblm.errors import DataError, nearest

_COLUMN = "text"
_WANTED = "a list of texts, a column, a table with a column of texts, or an iterable of texts"


def texts_in(given: Any, column: str | None = None) -> list[str]:
    """Return the texts in order.

    Args:
        given: texts in a list, tuple, Series, array or generator; or a table: a DataFrame or a
            `datasets.Dataset`.
        column: of a table; None: the one named `text`, or the only one.

    Raises:
        DataError: no texts, or one of them is missing or of another type, with its position from 0.
    """
    if hasattr(given, "columns") or hasattr(given, "column_names"):
        given = _column_of(given, column)
    elif column is not None:
        raise DataError(
            f"text={column!r} names a column, and a {type(given).__name__} has none; leave it out"
        )
    # a set has no order by which predictions could be returned
    if isinstance(given, (str, bytes, Mapping, set, frozenset)) or not isinstance(given, Iterable):
        raise DataError(f"{given!r:.60} is a {type(given).__name__}; expected {_WANTED}")
    dimensions = getattr(given, "ndim", 1)
    if dimensions != 1:
        raise DataError(f"an array of {dimensions} dimensions; expected one text an item: one dimension")
    return [_text(value, position) for position, value in enumerate(given)]


def _column_of(table: Any, column: str | None) -> Any:
    """Return the column of texts of a table.

    Raises:
        DataError: it has no such column, or which one it is cannot be known.
    """
    names = getattr(table, "column_names", None)
    if isinstance(names, Mapping):  # a DatasetDict
        raise DataError(f"a mapping of the splits {', '.join(names)}; give one of them")
    names = list(table.columns if names is None else names)
    listed = f"its columns are {', '.join(map(repr, names)):.300}"
    if column is not None:
        if column not in names:
            raise DataError(f"text={column!r} is no column{nearest(column, map(str, names))}; {listed}")
        return table[column]
    if _COLUMN in names or len(names) == 1:
        return table[_COLUMN if _COLUMN in names else names[0]]
    raise DataError(f"which column has the texts? write text=NAME; {listed}")


def _text(value: Any, position: int) -> str:
    """Return a value that is a text.

    Raises:
        DataError: it is not, or cannot be encoded in UTF-8.
    """
    if not isinstance(value, str):
        missing = value is None or str(value) in ("nan", "<NA>", "NaT")
        what = f"missing ({value})" if missing else f"{value!r:.60}, a {type(value).__name__}, not a text"
        raise DataError(f"texts[{position}] is {what}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"texts[{position}] holds a lone surrogate at character {error.start}") from None
    return str(value)
