"""The output of a prediction: a file that appears when it is whole, or standard output row by row."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hblm.config.predict import PredictConfig
from hblm.errors import ConfigError
from hblm.files import new_file, remove_stale
from hblm.inference.rows.output_rows import Columns, CsvRows, JsonRows, RowWriter


def require_free(config: PredictConfig) -> None:
    """Refuse an output that is there and not to be replaced; remove what killed processes left beside it.

    Raises:
        ConfigError: it is there, or is a folder.
    """
    if not config.writes_file:
        return
    path = Path(str(config.output))
    if path.is_dir():
        raise ConfigError(f"output={path} is a folder; write output={path / 'predictions.jsonl'}")
    if path.is_file() and not config.force:
        raise ConfigError(f"output={path} is there already; write force=true to replace it")
    if path.parent.is_dir():
        remove_stale(path.parent)


@contextlib.contextmanager
def open_output(config: PredictConfig, columns: Columns) -> Iterator[RowWriter]:
    """Open the output for the block; a file has its name only if the block ends without an exception."""
    path = Path(str(config.output))
    if not config.writes_file:
        with io.BufferedWriter(io.FileIO(1, "wb", closefd=False)) as stream:
            yield _rows(config, stream, columns)
    elif path.exists() and not path.is_file():  # a pipe or a device
        with path.open("wb") as stream:
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
