"""Rows of predictions as Parquet, with nested columns of paths and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hblm.errors import DataError
from hblm.inference.rows.output_rows import Columns, OutputRow, text_cell

_BYTES_AT_ONCE = 64 << 20  # of rows that wait, so that row groups are large
_ROWS_AT_ONCE = 1 << 16

_PATHS = pa.list_(
    pa.struct(
        [
            ("nodes", pa.list_(pa.string())),
            ("names", pa.list_(pa.string())),
            ("scores", pa.list_(pa.float32())),
        ]
    )
)
_SCORES = pa.map_(pa.string(), pa.float32())


class ParquetRows:
    """Writes a file, as a context manager.

    A kept column has the type of its values in the first window. It is text, as in CSV, if these are all
    null, have objects or several types, or are whole numbers of more than 64 bits.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        """Write to a path once the first rows are known."""
        self._path, self._columns = path, columns
        self._schema: Any = None
        self._writer: Any = None
        self._waiting: list[Any] = []

    def __enter__(self) -> ParquetRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if self._writer is None:
                self.write([])  # a file without rows has the columns as well
            self._write_waiting()
        if self._writer is not None:
            self._writer.close()

    def write(self, rows: Sequence[OutputRow]) -> None:
        """Take a window of rows; write all that wait if they are many.

        Raises:
            DataError: a kept value is not of its column's type.
        """
        kept = {
            name: [row.kept[at] if row.kept else None for row in rows]
            for at, name in enumerate(self._columns.kept)
        }
        if self._writer is None:
            self._schema = self._schema_of(kept)
            self._writer = pq.ParquetWriter(self._path, self._schema)
        columns: dict[str, Sequence[Any]] = {"row": [row.number for row in rows], **kept}
        columns["paths"] = [None if row.fault else [path.to_json() for path in row.paths] for row in rows]
        if self._columns.nodes is not None:
            columns["scores"] = [self._by_node(row) for row in rows]
        if self._columns.errors:
            columns["error"] = [row.fault or None for row in rows]
        arrays = [self._array(field, columns[field.name], rows) for field in self._schema]
        self._waiting.append(pa.table(arrays, schema=self._schema))
        size = sum(table.nbytes for table in self._waiting)
        if size > _BYTES_AT_ONCE or sum(table.num_rows for table in self._waiting) > _ROWS_AT_ONCE:
            self._write_waiting()

    def _by_node(self, row: OutputRow) -> list[tuple[str, float]] | None:
        if row.scores is None or self._columns.nodes is None:
            return None
        return [*zip(self._columns.nodes, row.scores.tolist(), strict=True)]

    def _schema_of(self, kept: Mapping[str, Sequence[Any]]) -> Any:
        """Return the types of all columns; those of the kept ones by their first values."""
        fields = [("row", pa.int64())]
        for name, values in kept.items():
            fields.append((name, _type_of(values)))
        fields.append(("paths", _PATHS))
        fields += [("scores", _SCORES)] * (self._columns.nodes is not None)
        fields += [("error", pa.string())] * self._columns.errors
        return pa.schema(fields)

    def _array(self, field: Any, values: Sequence[Any], rows: Sequence[OutputRow]) -> Any:
        """Return the values of a column.

        Raises:
            DataError: a kept value is not of the column's type; the row is named.
        """
        if field.name not in self._columns.kept:
            return pa.array(values, field.type)
        if pa.types.is_string(field.type):
            values = [None if value is None else text_cell(value) for value in values]
        array = _exact(values, field.type)
        if array is not None:
            return array
        for row, value in zip(rows, values, strict=True):
            if _exact([value], field.type) is None:
                raise DataError(
                    f"row {row.number}: {field.name} is {value!r:.60}, and the first rows have {field.type}; "
                    "Parquet has one type a column, write output_format=jsonl"
                )
        raise AssertionError(f"{field.name}: values of {field.type} that are none together")

    def _write_waiting(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting = []


def _type_of(values: Sequence[Any]) -> Any:
    """Return a type that holds the values and those of other rows of their kind; text where none does."""
    try:
        kind = inner = pa.array(values).type
    except pa.ArrowException:  # of several types
        return pa.string()
    except OverflowError:
        return pa.string() if _exact(values, pa.uint64()) is None else pa.uint64()
    while pa.types.is_list(inner):
        inner = inner.value_type
    # the keys of objects are not known from the first ones, and Arrow drops others
    return pa.string() if pa.types.is_null(inner) or pa.types.is_nested(inner) else kind


def _exact(values: Sequence[Any], kind: Any) -> Any:
    """Return an array of a type that holds the values as they are; None if they do not fit."""
    try:
        array = pa.array(values, kind)
    except (pa.ArrowException, OverflowError):
        return None
    # Arrow cuts fractions off where the type is of whole numbers
    return array if all(map(_same, array.to_pylist(), values)) else None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other or (one != one and other != other))
