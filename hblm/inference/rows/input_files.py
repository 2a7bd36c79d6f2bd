"""Opening of an input: a file by its format, standard input, a pipe, or a folder of `save_to_disk`."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from hblm.config.predict import INPUT_FORMATS, STREAM, PredictConfig, input_format
from hblm.data.raw.archives import Raw, RawFile, reading
from hblm.data.raw.tables import Dialect, is_arrow_folder
from hblm.data.raw.text import require_encoding, sound_and_bad_lines
from hblm.errors import ConfigError, DataError, HblmError
from hblm.inference.rows.input_records import Records, records_of_file, records_of_lines, records_of_saved
from hblm.inference.rows.input_rows import InputRow, in_own_words, input_rows

_LINES = ("txt", "jsonl", "csv", "tsv")  # formats that are read line by line
_HEAD = 1 << 20  # bytes of a file that show its encoding and line ends
_ACTS_ON = {  # key -> the formats of the input on which it acts
    "delimiter": ("csv", "tsv"),
    "quote": ("csv", "tsv"),
    "header": ("csv", "tsv", "xlsx", "ods"),
    "encoding": ("txt", "jsonl", "json", "csv", "tsv"),
}
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")


def is_live(config: PredictConfig) -> bool:
    """Return whether the input may still grow: standard input, or a pipe."""
    path = Path(config.input)
    return config.input == STREAM or path.is_fifo() or path.is_char_device()


def read_input(config: PredictConfig) -> Iterator[InputRow]:
    """Yield the rows of the input; it is opened with the first one.

    Raises:
        ConfigError: the input is not there, its format is unknown, or a key does not fit it.
        DataError: the input is damaged.
    """
    try:
        with ExitStack() as opened:
            yield from input_rows(_open(config, opened), config.text, config.keep)
    except HblmError as error:
        raise type(error)(in_own_words(str(error))) from None


def _open(config: PredictConfig, opened: ExitStack) -> Records:
    require_encoding(config.encoding)
    dialect = Dialect(
        config.delimiter, None if config.quote == "none" else config.quote, config.encoding, config.header
    )
    if is_live(config):
        return _open_stream(config, dialect, opened)
    path = Path(config.input)
    if not path.exists():
        raise ConfigError(f"input={path} is not there")
    if path.is_dir():
        if not is_arrow_folder(path):
            raise ConfigError(f"input={path} is a folder, and not one that save_to_disk wrote; give a file")
        _require_acting(config, "saved by save_to_disk")
        return records_of_saved(path)
    raw = opened.enter_context(Raw(path))
    if len(raw.files) != 1:
        raise ConfigError(f"input={path} holds {len(raw.files):,} files ({raw.listing()}); give one of them")
    format_name = config.format or input_format(raw.files[0].name)
    if not format_name:
        raise ConfigError(
            f"input={path}: the name does not end in a known format; write format=, one of "
            f"{', '.join(INPUT_FORMATS)}"
        )
    _require_acting(config, format_name)
    return _open_file(raw.files[0], format_name, dialect, opened)


def _require_acting(config: PredictConfig, format_name: str) -> None:
    """Refuse keys that do not act on the format of the input.

    Raises:
        ConfigError: one of them is given.
    """
    for key, formats in _ACTS_ON.items():
        given = getattr(config, key)
        if given != getattr(PredictConfig, key) and format_name not in formats:
            raise ConfigError(
                f"{key}={given} acts on {', '.join(formats)}, and input={config.input} is {format_name}; "
                "leave it out, or write format="
            )


def _open_file(file: RawFile, format_name: str, dialect: Dialect, opened: ExitStack) -> Records:
    if format_name not in _LINES:
        records = records_of_file(file, format_name, dialect)
        if records is not None:
            return records
        format_name = "jsonl"
    with reading(file.place), file.open() as stream:
        head = stream.read(_HEAD)
    with reading(file.place):
        stream = opened.enter_context(file.open())
    lines = sound_and_bad_lines(stream, head, file.place, dialect.encoding, live=False)
    return records_of_lines(lines, format_name, file.place, dialect)


def _open_stream(config: PredictConfig, dialect: Dialect, opened: ExitStack) -> Records:
    """Return the records of standard input or a pipe; a format without lines is copied first."""
    place = "standard input" if config.input == STREAM else config.input
    with reading(place):
        source = 0 if config.input == STREAM else config.input
        # not sys.stdin: its lock, which a waiting reader holds, would block the end of the interpreter
        stream = opened.enter_context(io.BufferedReader(io.FileIO(source, closefd=source != 0)))
        head = stream.peek()
    if head.startswith(_COMPRESSED):
        raise DataError(f"{place}: is compressed; write zcat FILE | (or bzcat, xzcat), or input=FILE")
    format_name = config.format
    _require_acting(config, format_name or "jsonl or txt")
    if format_name is None or format_name in _LINES:
        lines = sound_and_bad_lines(stream, head, place, dialect.encoding, live=True)
        return records_of_lines(lines, format_name, place, dialect)
    return _open_file(_copied(stream, place, format_name, opened), format_name, dialect, opened)


def _copied(stream: IO[bytes], place: str, format_name: str, opened: ExitStack) -> RawFile:
    copy = Path(opened.enter_context(tempfile.TemporaryDirectory()), f"input.{format_name}")
    with copy.open("wb") as target:
        shutil.copyfileobj(stream, target, 1 << 20)
    return RawFile(copy.name, place, copy, lambda: copy.open("rb"))
