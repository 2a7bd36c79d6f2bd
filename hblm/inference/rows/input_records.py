"""Records of an input of any format, read once and in constant memory; bad records are values with a fault.

A text is read line by line as it arrives, so that standard input and pipes can be read as well. JSON that is
one value, and spreadsheets, are read into memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hblm.data.raw.archives import RawFile
from hblm.data.raw.columnar import open_parquet
from hblm.data.raw.delimited import Row, rows_of_lines
from hblm.data.raw.json_records import read_array
from hblm.data.raw.tables import Dialect, Table, arrow_tables, delimiter_of, names_of, sheet_table, unequal
from hblm.data.raw.text import Line, is_odd
from hblm.document import parse_object
from hblm.errors import DataError

_TEXT = "text"  # the column of plain lines


@dataclass(frozen=True, slots=True)
class InputRecord:
    """A record with its place in messages; `fault`, with the place, says why it cannot be read."""

    place: str
    values: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True)
class Records:
    """The records of an input.

    Attributes:
        place: the name of the input in messages.
        columns: their names; () where each record names its own, as in JSON.
        read: yields the records with the given columns at least; it can be called once.
    """

    place: str
    columns: Sequence[str]
    read: Callable[[Sequence[str]], Iterator[InputRecord]]


def records_of_lines(lines: Iterator[Line], format_name: str | None, place: str, dialect: Dialect) -> Records:
    """Return the records of a text.

    Args:
        lines: of the text.
        format_name: txt, jsonl, csv or tsv; None: jsonl if the first sign is {, else txt.
        place: of the text.
        dialect: of CSV and TSV.

    Raises:
        ConfigError: the delimiter is not in the first line.
        DataError: CSV or TSV without a header.
    """
    if format_name is None:
        lines, ahead = itertools.tee(lines)
        first = next((line.text for line in ahead if line.text.strip()), "")
        format_name = "jsonl" if first.lstrip().startswith("{") else "txt"
        del ahead  # so that the lines are not kept for it
    if format_name == "jsonl":
        return Records(place, (), lambda _: _json_lines(lines, place))
    if format_name == "txt":
        return Records(place, (_TEXT,), lambda _: _plain_lines(lines, place))
    return _delimited(lines, format_name, place, dialect)


def records_of_file(file: RawFile, format_name: str, dialect: Dialect) -> Records | None:
    """Return the records of a file that is not read line by line; None for a JSON file with an object a line.

    Raises:
        DataError: the file is damaged, or of another kind.
    """
    if format_name == "json":
        values = read_array(file, dialect.encoding)
        return None if values is None else Records(file.place, (), lambda _: _items(values, file.place))
    if format_name == "parquet":
        return _records_of_table(Table(f"{file.place}: row ", "", *open_parquet(file)))
    return _records_of_table(sheet_table(file, "", dialect))


def records_of_saved(path: Path) -> Records:
    """Return the records of a folder that `save_to_disk` wrote.

    Raises:
        DataError: the folder is damaged, or has several splits.
    """
    tables = arrow_tables(path)
    if len(tables) > 1:
        names = ", ".join(Path(table.name).name for table in tables)
        raise DataError(f"{path}: holds several splits ({names}); give the folder of one of them")
    return _records_of_table(tables[0])


def _records_of_table(table: Table) -> Records:
    def read(columns: Sequence[str]) -> Iterator[InputRecord]:
        for number, record in table.records(*columns):
            yield InputRecord(f"{table.place}{number}", record)

    return Records(table.name, table.columns, read)


def _plain_lines(lines: Iterator[Line], place: str) -> Iterator[InputRecord]:
    for number, text, fault in lines:
        here = f"{place}:{number}"
        yield InputRecord(here, {_TEXT: text.rstrip("\r\n")}, fault and f"{here}: {fault}")


def _json_lines(lines: Iterator[Line], place: str) -> Iterator[InputRecord]:
    for number, text, fault in lines:
        here = f"{place}:{number}"
        if fault:
            yield InputRecord(here, fault=f"{here}: {fault}")
        elif text.strip():
            try:
                yield InputRecord(here, parse_object(text.rstrip("\r\n"), here, "with a text"))
            except DataError as error:
                yield InputRecord(here, fault=str(error))


def _items(values: Sequence[Any], place: str) -> Iterator[InputRecord]:
    for number, value in enumerate(values, 1):
        here = f"{place}: item {number}"
        if isinstance(value, dict):
            yield InputRecord(here, value)
        else:
            yield InputRecord(here, fault=f"{here}: expected an object with a text, found {value!r:.60}")


def _delimited(lines: Iterator[Line], format_name: str, place: str, dialect: Dialect) -> Records:
    """Return the records of CSV or TSV; the first row that is not empty is the header."""
    faults: dict[int, str] = {}  # of lines that no row has reported yet

    def texts() -> Iterator[str]:
        for line in lines:
            if line.fault:
                faults[line.number] = line.fault
            yield line.text

    source, ahead = itertools.tee(texts())
    first = next((text for text in ahead if text.strip()), "")
    del ahead  # so that the lines are not kept for it
    delimiter = delimiter_of(first, dialect, f".{format_name}", place)
    rows = rows_of_lines(
        source,
        delimiter=delimiter,
        quote=dialect.quote,
        blank=f"{delimiter} " in first,  # a blank after each delimiter
    )
    header = next(rows, Row(1, []))
    fault = header.fault or _fault_in(header, faults)
    if fault:
        raise DataError(f"{place}:{header.number}: {fault}")
    names = names_of(header.cells, dialect.header, f"{place}:", header.number)
    documents = itertools.chain([header], rows) if dialect.header == "none" else rows

    def read(_: Sequence[str]) -> Iterator[InputRecord]:
        for row in documents:
            fault = row.fault or _fault_in(row, faults)
            if fault or any(map(str.strip, row.cells)):
                fault = fault or unequal(row.cells, names, dialect.header, delimiter)
                yield _record_of_row(row, names, f"{place}:{row.number}", fault)

    return Records(place, names, read)


def _record_of_row(row: Row, names: Sequence[str], place: str, fault: str) -> InputRecord:
    if fault:
        return InputRecord(place, fault=f"{place}: {fault}")
    return InputRecord(place, dict(zip(names, row.cells, strict=True)))


def _fault_in(row: Row, faults: dict[int, str]) -> str:
    """Return the fault of the first bad line of a row; "" for none. Faults of earlier lines are dropped."""
    for number in [number for number in faults if number < row.number]:
        del faults[number]
    return faults.pop(min(faults)) if faults and any(map(is_odd, row.cells)) else ""
