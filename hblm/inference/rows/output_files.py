"""The output of a prediction: a file that appears when it is whole, or standard output row by row."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from hblm import signals
from hblm.config.predict import STREAM, PredictConfig
from hblm.errors import ConfigError
from hblm.files import new_file, remove_stale
from hblm.inference.rows.output_rows import Columns, CsvRows, JsonRows, RowWriter

_CHECK_EVERY = 0.2  # seconds between checks for signals while the reader of the output stalls


class _Stream(io.FileIO):
    """An output whose reader may stall: a write that waits for it ends with Stopped after a signal."""

    def write(self, data: Any) -> int:
        if not hasattr(select, "PIPE_BUF"):  # Windows
            return super().write(data)
        while not select.select([], [self], [], _CHECK_EVERY)[1]:
            signals.check()
        return super().write(memoryview(data)[: select.PIPE_BUF])  # as much as there is room for


def _opened(path: str, flags: int) -> int:
    """Open a pipe or a device; the wait for a pipe's reader ends with Stopped after a signal."""
    while True:
        try:
            file = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            if error.errno != errno.ENXIO or not Path(path).is_fifo():
                raise
            signals.check()
            time.sleep(_CHECK_EVERY)
        else:
            os.set_blocking(file, True)
            return file


def is_stream(config: PredictConfig) -> bool:
    """Return whether the output is standard output, a pipe or a device."""
    path = Path(str(config.output))
    return not config.writes_file or (path.exists() and not path.is_file())


def require_free(config: PredictConfig) -> None:
    """Refuse an output that is there and not to be replaced; remove what killed processes left beside it.

    Raises:
        ConfigError: it is there, is the input, or is a folder; or Parquet would go into a pipe or a device.
    """
    if not config.writes_file:
        return
    path, source = Path(str(config.output)), Path(config.input)
    if path.is_file() and config.input != STREAM and source.exists() and path.samefile(source):
        raise ConfigError(f"output={path} is the input, which would be replaced; write another output=")
    if path.is_dir():
        raise ConfigError(f"output={path} is a folder; write output={path / 'predictions.jsonl'}")
    if is_stream(config) and config.chosen_output_format == "parquet":
        raise ConfigError(
            f"output={path} is a pipe or a device, and Parquet needs a file: output=FILE.parquet"
        )
    if path.is_file() and not config.force:
        raise ConfigError(f"output={path} is there already; write force=true to replace it")
    if path.parent.is_dir():
        remove_stale(path.parent)


@contextlib.contextmanager
def open_output(config: PredictConfig, columns: Columns) -> Iterator[RowWriter]:
    """Open the output for the block; a file has its name only if the block ends without an exception."""
    path = Path(str(config.output))
    if not config.writes_file:
        with io.BufferedWriter(_Stream(1, "wb", closefd=False)) as stream:
            yield _rows(config, stream, columns)
    elif is_stream(config):
        with io.BufferedWriter(_Stream(path, "wb", opener=_opened)) as stream:
            yield _rows(config, stream, columns)
    else:
        with new_file(path) as temporary, _open_file(config, temporary, columns) as rows:
            yield rows


@contextlib.contextmanager
def _open_file(config: PredictConfig, path: Path, columns: Columns) -> Iterator[RowWriter]:
    if config.chosen_output_format == "parquet":
        from hblm.inference.rows.parquet_rows import ParquetRows  # pyarrow is slow to load

        with ParquetRows(path, columns) as rows:
            yield rows
    else:
        with path.open("wb") as stream:
            yield _rows(config, stream, columns)


def _rows(config: PredictConfig, stream: IO[bytes], columns: Columns) -> RowWriter:
    return (CsvRows if config.chosen_output_format == "csv" else JsonRows)(stream, columns)
