"""Records of columnar files: Parquet, and folders of `save_to_disk` of Hugging Face's datasets.

Only the requested columns are read, so that a column of an unknown type does no harm.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet

from hblm.data.raw import parquet as parquet_batches
from hblm.data.raw.archives import RawFile
from hblm.errors import DataError

_ROWS = 1000  # of save_to_disk, read at once
# reads (number, record) of some columns; () for all
Records = Callable[[Collection[str]], Iterator[tuple[int, Mapping[str, Any]]]]


def open_parquet(file: RawFile) -> tuple[Sequence[str], Records]:
    """Return the columns of a Parquet file, and a reader of its records; class numbers become names.

    Raises:
        DataError: damaged, or not Parquet; while reading also a class number without a name.
    """
    with _library(file.place), file.open() as stream, pyarrow.parquet.ParquetFile(stream) as parquet:
        columns = list(parquet.schema_arrow.names)
        metadata = json.loads((parquet.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))

    def batches(wanted: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        with _library(file.place), file.open() as stream:
            for batch in parquet_batches.batches(stream, wanted):
                yield _records_of(batch.select(wanted))

    features = _inside(_inside(metadata, "info"), "features")
    return columns, _reader(columns, batches, features, f"{file.place}: row ")


def open_saved(path: Path) -> list[tuple[str, Sequence[str], Records]]:
    """Return name, columns and reader of each split in a folder of `save_to_disk`; "" for a single one.

    Raises:
        DataError: damaged, or not such a folder; while reading also a class number without a name.
    """
    datasets = importlib.import_module("datasets")  # by name: a folder of ours is called so as well
    datasets.disable_progress_bars()
    with _library(str(path)):
        _require_sound(path)
        saved = datasets.load_from_disk(str(path))
    parts = saved.items() if isinstance(saved, datasets.DatasetDict) else [("", saved)]
    opened = []
    for name, part in parts:
        place = str(path / name if name else path)
        opened.append((name, part.column_names, dataset_records(part, f"{place}: row ")))
    return opened


def dataset_records(part: Any, place: str) -> Records:
    """Return a reader of the records of a `datasets.Dataset`; class numbers become names.

    Args:
        part: the dataset.
        place: of a record, without its number, for messages.
    """

    def batches(wanted: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        with _library(place.removesuffix(": row ")):
            plain = part.select_columns(wanted).with_format("arrow")  # no images or sounds decoded
            for table in plain.iter(batch_size=_ROWS):
                yield _records_of(table)

    return _reader(part.column_names, batches, part.features.to_dict(), place)


def _records_of(table: Any) -> list[dict[str, Any]]:
    """Return the records of a table or a batch."""
    names, columns = table.schema.names, map(_values_of, table.columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values_of(column: Any) -> list[Any]:
    """Return the values of a column; dates that Python has no room for, those after 9999, as texts.

    Raises:
        OverflowError: there is no room for another value.
    """
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except OverflowError:
        return [*map(_value_of, column)]


def _value_of(item: Any) -> Any:
    try:
        return item.as_py()
    except OverflowError:
        if not (pyarrow.types.is_date(item.type) or pyarrow.types.is_timestamp(item.type)):
            raise
        text = item.cast(pyarrow.string()).as_py()
        if text.startswith("<"):  # <value out of range: 9>: Arrow cannot write it either
            raise
        return text


def _reader(
    columns: Sequence[str],
    batches: Callable[[Sequence[str]], Iterator[list[dict[str, Any]]]],
    features: Mapping[str, Any],
    place: str,
) -> Records:
    """Return a reader of the records of a table, with class numbers as names."""

    def records(wanted: Collection[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        chosen = [name for name in columns if name in wanted or not wanted]
        number = 0
        for batch in batches(chosen):
            for record in batch:
                number += 1
                yield (
                    number,
                    {
                        name: named(features.get(name), value, f"{place}{number}: {name}")
                        for name, value in record.items()
                    },
                )

    return records


def named(feature: Any, value: Any, place: str) -> Any:
    """Return a value with the names of its classes, as the features of datasets describe it.

    A list's feature is `{"feature": ..., "_type": "Sequence"}` (or "List", "LargeList", with datasets 4), or
    `[...]` (datasets 2); an object's has one for each key. Class -1 is none: test splits have it.

    Raises:
        DataError: a class without a name.
    """
    inner = feature[0] if isinstance(feature, list) and feature else _inside(feature, "feature")
    if isinstance(value, list):
        return [named(inner or feature, item, place) for item in value]
    if isinstance(value, dict):  # of a list of objects, datasets 2 and 3 make an object of lists
        return {
            key: named(
                inner.get(key) if isinstance(inner, dict) and inner else _inside(feature, key), item, place
            )
            for key, item in value.items()
        }
    names = _inside(feature, "names")
    if _inside(feature, "_type") != "ClassLabel" or not isinstance(names, list) or type(value) is not int:
        return value
    if value == -1:
        return None
    if not 0 <= value < len(names):
        raise DataError(
            f"{place} is class {value}, and the file names the classes 0 to {len(names) - 1} "
            f"({', '.join(map(str, names)):.80}); -1 is for documents without a label"
        )
    return names[value]


def _inside(value: Any, key: str) -> Any:
    """Return the value of a key; {} if there is none."""
    return value.get(key, {}) if isinstance(value, dict) else {}


def _require_sound(path: Path) -> None:
    """Validate the Arrow files of a folder: reading a damaged one, which is memory-mapped, kills the process.

    Raises:
        pyarrow.ArrowException, OSError: one of them is damaged.
    """
    for file in sorted(path.glob("**/*.arrow")):
        with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as stream:
            for batch in stream:
                batch.validate(full=True)


_RAISED = (
    *(pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError),
    OverflowError,  # of a date or a duration that Python has no room for
)


@contextlib.contextmanager
def _library(place: str) -> Iterator[None]:
    """Turn the exceptions of the libraries into a DataError."""
    try:
        yield
    except (MemoryError, RecursionError) as error:
        raise DataError(f"{place}: unpacks to more than the memory holds, or is damaged ({error})") from None
    except _RAISED as error:
        why = " ".join(str(error).split())
        raise DataError(f"{place}: cannot be read, damaged or of another kind: {why:.200}") from None
