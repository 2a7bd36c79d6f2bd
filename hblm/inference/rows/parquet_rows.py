"""Rows of predictions as Parquet, with nested columns of paths and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hblm.errors import DataError
from hblm.inference.rows.output_rows import Columns, OutputRow

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

    A kept column has the type of its values in the first window; text if these are all null.
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
            try:
                found = pa.array(values).type
            except pa.ArrowException:  # of several types; each row that does not fit is named
                found = pa.string()
            fields.append((name, pa.string() if pa.types.is_null(found) else found))
        fields.append(("paths", _PATHS))
        fields += [("scores", _SCORES)] * (self._columns.nodes is not None)
        fields += [("error", pa.string())] * self._columns.errors
        return pa.schema(fields)

    def _array(self, field: Any, values: Sequence[Any], rows: Sequence[OutputRow]) -> Any:
        """Return the values of a column.

        Raises:
            DataError: a kept value is not of the column's type; the row is named.
        """
        try:
            return pa.array(values, field.type)
        except (pa.ArrowException, OverflowError):
            pass
        for row, value in zip(rows, values, strict=True):
            try:
                pa.array([value], field.type)
            except (pa.ArrowException, OverflowError):
                raise DataError(
                    f"row {row.number}: {field.name} is {value!r:.60}, and the first rows have {field.type}; "
                    "Parquet has one type a column, write output_format=jsonl"
                ) from None
        raise AssertionError(f"{field.name}: values of {field.type} that are none together")

    def _write_waiting(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting = []
