"""Rows of predictions as JSONL and CSV; each window of rows is flushed when it is written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson

from hblm.inference.decision import PredictedPath


@dataclass(frozen=True, slots=True)
class OutputRow:
    """A row of the output.

    Attributes:
        number: that of the input's row.
        kept: the values of the kept columns.
        paths: the predicted paths, by falling score.
        scores: of each node in taxonomy order, float32; None where they are not written.
        fault: of a bad row, which has nothing else; "" of a good one.
    """

    number: int
    kept: Sequence[Any] = ()
    paths: Sequence[PredictedPath] = ()
    scores: npt.NDArray[np.float32] | None = None
    fault: str = ""


@dataclass(frozen=True)
class Columns:
    """Columns of the output besides `row` and `paths`.

    Attributes:
        kept: names of the kept columns.
        nodes: the ids of all nodes, for `scores`; None: there is no such column.
        errors: whether there is a column `error` (of CSV and Parquet).
    """

    kept: Sequence[str]
    nodes: Sequence[str] | None
    errors: bool


class RowWriter(Protocol):
    """Writes rows in the order in which it gets them."""

    def write(self, rows: Sequence[OutputRow]) -> None:
        """Write a window of rows."""


class JsonRows:
    """Writes an object a line."""

    def __init__(self, stream: IO[bytes], columns: Columns) -> None:
        """Write to an open stream."""
        self._stream, self._columns = stream, columns

    def write(self, rows: Sequence[OutputRow]) -> None:
        """Write a window of rows, and flush it."""
        self._stream.write(b"".join(_json(self._object(row)) + b"\n" for row in rows))
        self._stream.flush()

    def _object(self, row: OutputRow) -> dict[str, Any]:
        if row.fault:
            return {"row": row.number, "error": row.fault}
        kept = dict(zip(self._columns.kept, row.kept, strict=True))
        made = {"row": row.number, **kept, "paths": [path.to_json() for path in row.paths]}
        return made if row.scores is None else made | {"scores": _by_node(self._columns, row.scores)}


class CsvRows:
    """Writes a line for each row, with paths and scores as JSON in one cell."""

    def __init__(self, stream: IO[bytes], columns: Columns) -> None:
        """Write the header to an open stream."""
        self._stream, self._columns = stream, columns
        scores, error = ["scores"] * (columns.nodes is not None), ["error"] * columns.errors
        self._write_cells([["row", *columns.kept, "paths", *scores, *error]])

    def write(self, rows: Sequence[OutputRow]) -> None:
        """Write a window of rows, and flush it."""
        self._write_cells(map(self._cells, rows))

    def _cells(self, row: OutputRow) -> list[str]:
        kept = [*map(text_cell, row.kept)] or [""] * len(self._columns.kept)
        paths = "" if row.fault else _json([path.to_json() for path in row.paths]).decode()
        cells = [str(row.number), *kept, paths]
        if self._columns.nodes is not None:
            cells.append("" if row.scores is None else _json(_by_node(self._columns, row.scores)).decode())
        return [*cells, row.fault] if self._columns.errors else cells

    def _write_cells(self, rows: Iterable[Sequence[str]]) -> None:
        text = io.StringIO(newline="")
        plain = csv.writer(text, lineterminator="\n")
        quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for cells in rows:
            # not quoted by Python before 3.13, and readers take a carriage return as the end of the row
            writer = quoted if any("\r" in cell for cell in cells) else plain
            writer.writerow(cells)
        self._stream.write(text.getvalue().encode())
        self._stream.flush()


def _by_node(columns: Columns, scores: npt.NDArray[np.float32]) -> dict[str, Any]:
    assert columns.nodes is not None
    return dict(zip(columns.nodes, scores, strict=True))


def text_cell(value: Any) -> str:
    """Return a kept value as a cell: a text as it is, null as "", anything else as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    text = _json(value).decode()
    return str(orjson.loads(text)) if text.startswith('"') else text  # a date


def _json(value: Any) -> bytes:
    """Return a value as JSON; a float32 as the shortest decimal that is read back as the same float32."""
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:  # a whole number of more than 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_number).encode()


def _number(value: Any) -> Any:
    return float(str(value)) if isinstance(value, np.float32) else str(value)
