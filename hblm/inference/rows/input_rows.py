"""Rows of documents to predict: the text and the kept columns; a bad row has a fault, and the rows go on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hblm.data.convert.cells import text_of
from hblm.data.convert.columns import text_column
from hblm.errors import ConfigError, DataError, nearest
from hblm.inference.rows.input_records import InputRecord, Records


@dataclass(frozen=True, slots=True)
class InputRow:
    """One document of the input.

    Attributes:
        number: from 1 on, in the order of the input; a bad row has one as well.
        text: of the document; "" of a bad row.
        kept: the values of the kept columns.
        fault: what is wrong with a bad row, with its place; "" of a good one.
    """

    number: int
    text: str = ""
    kept: Sequence[Any] = ()
    fault: str = ""


class Wanted(NamedTuple):
    """Columns that are read of each record: those of the text, and the kept ones."""

    text: Sequence[str]
    kept: Sequence[str]


def input_rows(records: Records, text: Sequence[str] | None, keep: Sequence[str]) -> Iterator[InputRow]:
    """Yield a row for each record.

    Args:
        records: of the input.
        text: the columns of the text, joined by line ends; None: the one whose name says so.
        keep: the columns to keep; a record without one has null there.

    Raises:
        ConfigError: a given column is not in the table, or none is the text's by its name. Where records name
            their columns themselves (JSON), a column of the text that is not there is a fault of the row.
        DataError: the file is damaged.
    """
    wanted = records.columns and wanted_columns(records.columns, text, keep, records.place)
    read = records.read([*wanted.text, *wanted.kept] if wanted else [])
    for number, record in enumerate(read, 1):
        try:
            if record.fault:
                raise DataError(record.fault)
            if not wanted:
                columns = wanted_columns(list(record.values), text, (), record.place)
                wanted = Wanted(columns.text, keep)
            yield _row(number, record, wanted)
        except (DataError, ConfigError) as error:
            yield InputRow(number, fault=in_own_words(str(error)))


def in_own_words(message: str) -> str:
    """Return the message of a reader, which names keys of a preparation, with those of a prediction."""
    return message.replace("dataset.prepare.", "")


def wanted_columns(
    names: Sequence[str], text: Sequence[str] | None, keep: Sequence[str], place: str
) -> Wanted:
    """Return the columns to read.

    Raises:
        ConfigError: a given one is not there, or none is the text's by its name.
    """
    shown = ", ".join(f"{name!r:.40}" for name in names[:20])
    where = f"{place}: its columns are {shown or 'none'}"
    for key, given in (("text", text or ()), ("keep", keep)):
        for name in given:
            if name not in names:
                raise ConfigError(f"{key}={name} is no column{nearest(name, names)} ({where})")
    return Wanted(text or [text_column(names, where)], keep)


def _row(number: int, record: InputRecord, wanted: Wanted) -> InputRow:
    """Return the row of a record.

    Raises:
        DataError: the text is missing, not a text, or cannot be encoded in UTF-8, or a kept value cannot.
    """
    values, place = record.values, record.place
    if all(name in values and _is_null(values[name]) for name in wanted.text):
        raise DataError(f"{place}: {' and '.join(wanted.text)} is null; a text is expected")
    text = text_of(values, wanted.text, place)
    kept = [values.get(name) for name in wanted.kept]
    for name, value in (("the text", text), *zip(wanted.kept, kept, strict=True)):
        try:
            (value if isinstance(value, str) else _as_text(value)).encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{place}: {name} holds a lone surrogate at character {error.start + 1}"
            ) from None
    return InputRow(number, text, kept)


def _is_null(value: Any) -> bool:
    return value is None or value != value  # NaN, which pandas writes for it


def _as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
