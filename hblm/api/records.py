"""Tables in memory as JSON lines: DataFrames, Hugging Face's `datasets`, lists of records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hblm.data.raw.columnar import dataset_records
from hblm.data.raw.tables import split_of_name
from hblm.errors import DataError

WANTED = "a DataFrame, a datasets.Dataset, a list of mappings, or a mapping of splits to these"
_SUFFIX = ".jsonl"


def write_records(source: Any, folder: Path) -> dict[Path, str]:
    """Write a table, or one for each split, as JSON lines into a folder.

    Returns:
        Each file with its description, such as "DataFrame of 120 rows"; the description is also its name.

    Raises:
        DataError: it is no table, a split is not train, val or test, or a row is not a mapping.
    """
    if not isinstance(source, Mapping):
        return dict([_write_table(source, "", folder)])
    files: dict[Path, str] = {}
    for name, table in source.items():
        if not split_of_name(str(name)):
            raise DataError(f"{name!r:.60} is none of train, val and test; the keys of a mapping are splits")
        if split_of_name(str(name)) in map(split_of_name, files.values()):
            raise DataError(f"{', '.join(map(str, source))}: two of these are one split")
        files.update([_write_table(table, f"{split_of_name(str(name))}, ", folder)])
    if not files:
        raise DataError("an empty mapping; its keys are splits")
    return files


def _write_table(table: Any, prefix: str, folder: Path) -> tuple[Path, str]:
    """Write one table; return the file and its description."""
    unnamed, rows = folder / f"table{_SUFFIX}", 0
    with unnamed.open("w", encoding="utf-8", newline="\n") as stream:
        for record in _records(table):
            if not isinstance(record, Mapping):
                raise DataError(f"row {rows + 1} is {record!r:.60}; expected {WANTED}")
            values = {str(name): _plain(value) for name, value in record.items()}
            stream.write(json.dumps(values, ensure_ascii=False) + "\n")
            rows += 1
    if not rows:
        raise DataError(f"{prefix}{type(table).__name__} has no rows")
    description = f"{prefix}{type(table).__name__} of {rows:,} row{'s' * (rows != 1)}"
    return unnamed.rename(folder / (description + _SUFFIX)), description


def _records(table: Any) -> Iterator[Any]:
    """Yield the rows of a table as mappings of column names to values."""
    if hasattr(table, "itertuples"):
        names = [str(name) for name in table.columns]
        if len(set(names)) < len(names):
            raise DataError(f"columns {', '.join(names):.200}: two have the same name")
        return (dict(zip(names, row, strict=True)) for row in table.itertuples(index=False, name=None))
    if hasattr(table, "with_format") and hasattr(table, "select_columns") and hasattr(table, "__len__"):
        return (record for _, record in dataset_records(table, "row ")(()))
    if isinstance(table, Iterable) and not isinstance(table, (str, bytes)):
        return iter(table)
    raise DataError(f"{table!r:.60} is a {type(table).__name__}; expected {WANTED}")


def _plain(value: Any) -> Any:
    """Return a value of JSON. A tuple of texts is one path; missing values of pandas and numpy are null."""
    if isinstance(value, tuple) and value and all(isinstance(item, str) for item in value):
        return [list(value)]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _inner(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_inner(item) for item in value]
    if hasattr(value, "tolist"):  # an array or a number of numpy, a tensor
        return _plain(value.tolist())
    if isinstance(value, float):
        return None if value != value else value
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": len(value)}  # neither a text nor a label
    text = str(value)
    return None if text in ("<NA>", "NaT") else text


def _inner(item: Any) -> Any:
    return [_inner(each) for each in item] if isinstance(item, (list, tuple)) else _plain(item)
