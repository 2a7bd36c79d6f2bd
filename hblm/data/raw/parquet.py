"""Parquet files as Arrow batches of bounded size; as a program, the batches of stdin as an Arrow stream."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import pyarrow.parquet

from hblm.data.raw import limited_process

BATCH = 1 << 25  # bytes of a batch, which the parent process turns into Python objects

VALUES = 1 << 21  # values of a batch, those inside lists included: some take no byte

_ROWS, _ROWS_LIMITED = 1000, 64  # rows read at once; fewer in a child process, for texts of megabytes

_SNAPPY = 22  # the largest ratio of unpacked to packed bytes


def batches(content: IO[bytes], columns: Sequence[str] = ()) -> Iterator[Any]:
    """Yield the rows of a Parquet file as batches of at most BATCH bytes.

    Args:
        content: the file.
        columns: the columns to read; empty: all.

    Raises:
        pyarrow.ArrowException, OSError, ValueError: the library cannot read the file, or memory ran out.
    """
    with pyarrow.parquet.ParquetFile(content) as parquet:
        rows = _bounded_rows(parquet, content.seek(0, os.SEEK_END), columns)
    content.seek(0)
    if rows:
        yield from _batches(content, rows, columns)
        return
    with limited_process.output_of("hblm.data.raw.parquet", content, *columns) as output:
        try:
            with pyarrow.ipc.open_stream(output) as stream:
                yield from stream
        except pyarrow.ArrowException as error:
            raise ValueError(str(error)) from None


def _bounded_rows(parquet: pyarrow.parquet.ParquetFile, size: int, columns: Sequence[str]) -> int:
    """Return a number of rows that cannot exceed BATCH bytes; 0 if there is no such bound.

    Snappy unpacks to at most _SNAPPY times its size; a value is no longer than all pages together; without
    lists a row has one value per column.
    """
    metadata, schema = parquet.metadata, parquet.schema
    paths = (f"{schema.column(at).path}." for at in range(len(schema)))
    below = tuple(f"{name}." for name in columns) or ("",)
    read = [at for at, path in enumerate(paths) if path.startswith(below)]
    flat = all(not schema.column(at).max_repetition_level for at in read)
    packed = {
        metadata.row_group(group).column(at).compression
        for group in range(min(metadata.num_row_groups, _ROWS))
        for at in read
    }
    if not flat or metadata.num_row_groups > _ROWS or packed - {"UNCOMPRESSED", "SNAPPY"}:
        return 0
    return min(_ROWS, BATCH // max(_SNAPPY * size * len(read), 1))


def _batches(content: IO[bytes], rows: int, columns: Sequence[str]) -> Iterator[Any]:
    with pyarrow.parquet.ParquetFile(content, pre_buffer=False, buffer_size=1 << 20) as parquet:
        for batch in parquet.iter_batches(rows, columns=list(columns) or None, use_threads=False):
            schema = pyarrow.schema(list(map(_without_dictionary, batch.schema)))
            table = pyarrow.Table.from_batches([batch]).cast(schema).combine_chunks()
            yield from _parts(table.to_batches())


def _without_dictionary(field: Any) -> Any:
    """Return a field whose values are stored one by one, so that their size is known."""
    if pyarrow.types.is_dictionary(field.type):
        return field.with_type(field.type.value_type)
    return field


def _parts(batches: Iterable[Any]) -> Iterator[Any]:
    """Halve the batches until each is within BATCH and VALUES."""
    for batch in batches:
        if batch.nbytes <= BATCH and sum(_n_values(column) for column in batch.columns) <= VALUES:
            yield batch
        elif batch.num_rows == 1:
            raise ValueError(f"a row of more than {BATCH >> 20} MiB, or {VALUES:,} values")
        else:
            half = batch.num_rows // 2
            yield from _parts([batch.slice(0, half), batch.slice(half)])


def _n_values(column: Any) -> int:
    if pyarrow.types.is_struct(column.type):
        return len(column) + sum(_n_values(part) for part in column.flatten())
    if pyarrow.types.is_map(column.type):  # flatten has no kernel for it
        entries = pyarrow.StructArray.from_arrays([column.keys, column.items], ["key", "value"])
        return len(column) + _n_values(pyarrow.ListArray.from_arrays(column.offsets, entries).flatten())
    if pyarrow.types.is_nested(column.type) and hasattr(column, "flatten"):
        return len(column) + _n_values(column.flatten())
    return len(column)


def _write(content: IO[bytes], output: IO[bytes], columns: Sequence[str]) -> None:
    stream = None
    for batch in _batches(content, _ROWS_LIMITED, columns):
        stream = stream or pyarrow.ipc.new_stream(output, batch.schema)
        stream.write_batch(batch)
    stream = stream or pyarrow.ipc.new_stream(output, pyarrow.schema([]))
    stream.close()


if __name__ == "__main__":
    sys.exit(limited_process.run(functools.partial(_write, columns=sys.argv[1:])))
