"""Files read by libraries that cannot be bounded from outside: Parquet and spreadsheets.

A kilobyte of Parquet or a few megabytes of a spreadsheet can unpack to many gigabytes inside the library,
before anything of it is handed out. pyarrow reserves what a page states as its size; calamine ends the whole
process where it gets no memory. Where a file's size alone does not exclude that, the library reads in a child
process, which may hold MEMORY and fails alone.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import pyarrow.parquet
from python_calamine import CalamineError, CalamineWorkbook

MEMORY = 1 << 30  # bytes that the process may hold besides its code


BATCH = 1 << 25  # bytes of a batch of a columnar file, which the parent process turns into objects


VALUES = 1 << 21  # values of a batch, those in lists counted: some take no byte


_ROWS, _ROWS_CONFINED = 1000, 64  # read at once; the latter so that texts of megabytes have room


_SNAPPY = 22


_NO_MEMORY = 3


@contextlib.contextmanager
def confined(reader: str, content: IO[bytes], *columns: str) -> Iterator[IO[bytes]]:
    """Read a file in a process of its own; give what that writes.

    Args:
        reader: "parquet", which writes Arrow's stream of batches, or "sheet", which writes lines of JSON.
        columns: of Parquet, those to read; none named: all.
        content: the file; one that is not on disk is copied to a temporary file, which has no name.

    Raises:
        OSError: the file cannot be read; the message is the library's, or says that memory ran out.
    """
    with contextlib.ExitStack() as opened:
        if not (isinstance(content, io.BufferedReader) and isinstance(content.raw, io.FileIO)):
            copy = opened.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(content, copy, 1 << 20)
            copy.seek(0)
            content = copy
        said = opened.enter_context(tempfile.TemporaryFile())
        command = [sys.executable, "-m", "hblm.data.raw.limited_process", reader, *columns]
        environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, stdin=content, stdout=subprocess.PIPE, stderr=said, env=environment
        )
        assert process.stdout is not None
        try:
            with process.stdout:
                try:
                    yield process.stdout
                    process.stdout.read(1)  # until it ends
                except (pyarrow.ArrowException, ValueError):  # what was written ends in the middle
                    process.stdout.close()
                    if process.wait() == 0:
                        raise
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        if code:
            said.seek(0)
            lines = said.read(1 << 16).decode("utf-8", "replace").split("\n")
            if code == 1:
                raise OSError(lines[-2] if lines[1:] else "the reader failed")
            raise OSError(f"it unpacks to more than {MEMORY >> 20} MiB at once, or is damaged")


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def batches(content: IO[bytes], columns: Sequence[str] = ()) -> Iterator[Any]:
    """Yield the rows of a Parquet file as batches of at most BATCH bytes; no columns named: of all.

    Raises:
        pyarrow.ArrowException, OSError, ValueError and others: what the library raises, or no memory.
    """
    with pyarrow.parquet.ParquetFile(content) as parquet:
        rows = _bounded_rows(parquet, content.seek(0, os.SEEK_END), columns)
    content.seek(0)
    if rows:
        yield from _batches(content, rows, columns)
        return
    with confined("parquet", content, *columns) as output, pyarrow.ipc.open_stream(output) as stream:
        yield from stream


def _bounded_rows(parquet: pyarrow.parquet.ParquetFile, size: int, columns: Sequence[str]) -> int:
    """Return how many rows cannot exceed BATCH bytes whatever is in the file; 0: nothing is known.

    Snappy unpacks to _SNAPPY times its size at most; a value is no longer than all pages together; outside
    lists a row has one value a column.
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
            schema = pyarrow.schema(list(map(_plain, batch.schema)))
            table = pyarrow.Table.from_batches([batch]).cast(schema).combine_chunks()
            yield from _parts(table.to_batches())


def _write_parquet(content: IO[bytes], output: IO[bytes], columns: Sequence[str]) -> None:
    stream = None
    for batch in _batches(content, _ROWS_CONFINED, columns):
        stream = stream or pyarrow.ipc.new_stream(output, batch.schema)
        stream.write_batch(batch)
    stream = stream or pyarrow.ipc.new_stream(output, pyarrow.schema([]))
    stream.close()


def _plain(field: Any) -> Any:
    """Return a field whose values are not shared: their size is known."""
    if pyarrow.types.is_dictionary(field.type):
        return field.with_type(field.type.value_type)
    return field


def _parts(batches: Iterable[Any]) -> Iterator[Any]:
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
    if pyarrow.types.is_nested(column.type) and hasattr(column, "flatten"):
        return len(column) + _n_values(column.flatten())
    return len(column)


def rows(content: IO[bytes], *, bounded: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield (row from 1, cells) of the first sheet that has rows; whole numbers have no decimals.

    Args:
        content: the spreadsheet.
        bounded: whether what it holds is known to fit into memory.

    Raises:
        ValueError: no spreadsheet.
        OSError: no memory, or damaged.
    """
    if bounded:
        yield from _rows(content)
        return
    with confined("sheet", content) as output:
        for line in output:
            number, cells = json.loads(line)
            yield number, cells


def _rows(content: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
    try:
        book = CalamineWorkbook.from_filelike(content)
        for sheet in map(book.get_sheet_by_name, book.sheet_names):
            first = (sheet.start or (0, 0))[0]
            any_row = False
            for number, row in enumerate(sheet.iter_rows(), 1):
                if number > first:
                    any_row = True
                    yield number, [_text(cell) for cell in row]
            if any_row:
                return
    except BaseException as error:  # what its Rust raises where it breaks off is no Exception
        if not isinstance(error, CalamineError) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(str(error)) from None


def _text(cell: object) -> str:
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        cell = cell.date()
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def main(reader: str, *columns: str) -> int:
    """Read stdin, write to stdout, return the exit code; what the library raised is the last of stderr."""
    _limit_memory()
    output = sys.stdout.buffer
    try:
        if reader == "sheet":
            for row in _rows(sys.stdin.buffer):
                output.write(json.dumps(row).encode() + b"\n")
        else:
            _write_parquet(sys.stdin.buffer, output, columns)
        output.flush()
    except MemoryError:
        return _NO_MEMORY
    except BrokenPipeError:  # enough was read
        os._exit(0)
    except Exception as error:  # whatever the library raises, and this process does nothing else
        print(f"\n{' '.join(str(error).split())}", file=sys.stderr)
        return _NO_MEMORY if isinstance(error, pyarrow.ArrowMemoryError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
