"""The user's own files as tables of records: JSONL, CSV, TSV, Parquet, folders of Hugging Face's datasets."""

from __future__ import annotations

import contextlib
import csv
import importlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from hblm.corpus.confined import batches
from hblm.corpus.raw import Raw, RawFile
from hblm.corpus.texts import MOST_BLANK, delimited, read_lines, read_rows
from hblm.document import SPLITS, parse_object
from hblm.errors import DataError

SPLIT_OF_WORD = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "development", "eval"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_JSON, _DELIMITED, _PARQUET = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv", ".tab"), (".parquet",)
_LAST = (".txt",)  # read as delimited text
_ARROW = ("dataset_dict.json", "state.json")
_COPIES = re.compile(r"fold|seed|version|run\d|(?<![a-z])v\d", re.IGNORECASE)  # numbered, and no parts of one
_ROWS = 1000  # of a columnar file, read at once
_MOST_COLUMNS = 1 << 14
_LOOKED_AT = 100  # records of JSONL whose keys are the columns: some may lack one
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Records of one split, or of none yet.

    Attributes:
        place: how messages call it; followed by a record's number it is the record's place.
        split: train, val or test; "" where nothing says.
        columns: the names in a record.
        records: reads it: (number, record) each.
    """

    place: str
    split: str
    columns: Sequence[str]
    records: Callable[[], Iterator[tuple[int, Record]]]


@dataclass(frozen=True)
class Dialect:
    """How delimited text is read; None: detected."""

    delimiter: str | None = None
    quote: str | None = '"'
    encoding: str | None = None


def is_arrow_folder(path: Path) -> bool:
    """Tell whether a folder was written by `save_to_disk` of Hugging Face's datasets."""
    return any((path / name).is_file() for name in _ARROW)


def arrow_tables(path: Path) -> list[Table]:
    """Open a folder written by `save_to_disk`; class numbers come as their names.

    Raises:
        DataError: damaged, or not such a folder.
    """
    datasets = importlib.import_module("datasets")  # by name: a folder of ours is called so as well
    datasets.disable_progress_bars()
    with _arrow(str(path)):
        _require_sound(path)
        found = datasets.load_from_disk(str(path))
    parts = found.items() if isinstance(found, datasets.DatasetDict) else [("", found)]
    tables = []
    for name, part in parts:
        if name and not split_of_name(name):
            raise DataError(
                f"{path}: its split {name!r} is none of train, val and test; save it without that one"
            )
        place = str(path / name if name else path)
        records = _arrow_records(part, place)
        tables.append(Table(f"{place}: row ", split_of_name(name), part.column_names, records))
    return tables


def open_tables(raw: Raw, dialect: Dialect, ignored: Sequence[str] = ()) -> list[Table]:
    """Return the tables of a download: files whose names say train, val or test, else the one data file.

    Args:
        raw: the download.
        dialect: of delimited text.
        ignored: names of files that are no data, such as the taxonomy's.

    Raises:
        DataError: no data file, or no telling which.
    """
    single = len(raw.files) == 1
    files = [file for file in raw.files if not file.base.lower().startswith(("readme", "license", "licence"))]
    inside = next((file.place for file in files if file.base in _ARROW), None)
    if inside:
        raise DataError(f"{inside}: part of a datasets folder; unpack it, and give the folder that holds it")
    for suffixes in ((*_JSON, *_DELIMITED, *_PARQUET), _LAST):  # .txt only where there is nothing else
        data = [file for file in files if file.name.lower().endswith(suffixes) and file.name not in ignored]
        if data:
            break
    data = raw.files if single else data
    by_split = by_split_name(raw, data)
    if by_split.keys() - {""} and not single:
        if "train" not in by_split:
            raise DataError(
                f"{raw.path}: no file for training; found {', '.join(file.name for file in data)}; "
                f"a name says its split by the word train, val or test"
            )
        return [_open(file, split, dialect) for split in SPLITS for file in by_split.get(split, ())]
    if len(data) != 1:
        why = "several data files" if data else "no data file (.jsonl, .csv, .tsv, .parquet)"
        raise DataError(
            f"{raw.path}: {why}; it holds {raw.listing()}. Give one file as raw=, or files whose names "
            f"say train, val and test"
        )
    return [_open(data[0], "", dialect)]


def by_split_name(raw: Raw, files: Sequence[RawFile]) -> dict[str, list[RawFile]]:
    """Return the files of each split that their names speak of, "" for those that speak of none.

    Raises:
        DataError: two files of one split that are not its numbered parts.
    """
    found: dict[str, list[RawFile]] = {}
    for file in files:
        folder = file.name.rpartition("/")[0]
        found.setdefault(split_of_name(file.base) or split_of_name(folder), []).append(file)
    for split, several in found.items():
        _require_all_parts(raw, several)
        same = len({file.name for file in several}) < len(several)  # train.csv and train.csv.gz
        parts = len({re.sub(r"\d+", "0", file.name) for file in several}) == 1
        copies = len(several) > 1 and any(_COPIES.search(file.base) for file in several)
        if split and (same or copies or not parts):
            raise DataError(
                f"{raw.path}: several files look like the {split} split: "
                f"{', '.join(file.place for file in several)}; give a folder with one of them"
            )
    return found


def _require_all_parts(raw: Raw, files: Sequence[RawFile]) -> None:
    """Refuse parts such as 00000-of-00003 of which one is missing."""
    numbers = [re.search(r"(\d+)-of-(\d+)", file.base) for file in files]
    parts = {match[1] for match in numbers if match}
    for match in filter(None, numbers):
        for part in range(int(match[2])):
            name = f"{part:0{len(match[1])}}"
            if name not in parts:
                missing = f"{name}-of-{match[2]}"
                raise DataError(
                    f"{raw.path}: {match.string} is there, and no part {missing} of the same file"
                )


def split_of_name(name: str) -> str:
    """Return the split that a file's name, or a column's value, speaks of; "" for none."""
    words = {SPLIT_OF_WORD.get(word, "") for word in re.split("[^a-z]+", name.lower())} - {""}
    return words.pop() if len(words) == 1 else ""


def _open(file: RawFile, split: str, dialect: Dialect) -> Table:
    name = file.base.lower()
    if name.endswith(_JSON):
        return json_table(file, split, dialect.encoding)
    if name.endswith(_PARQUET):
        return _parquet_table(file, split)
    return _delimited_table(file, split, dialect)


def json_table(file: RawFile, split: str, encoding: str | None) -> Table:
    """Open a file of JSON objects, one a line.

    Raises:
        DataError: the first line is none, or an array.
    """

    def records() -> Iterator[tuple[int, Record]]:
        for number, line in enumerate(read_lines(file, encoding), 1):
            if not line.strip():
                continue
            if number == 1 and line.lstrip().startswith("["):
                raise DataError(
                    f"{file.place}:1: a JSON array; expected JSONL, one object a line "
                    f"(jq -c '.[]' FILE > FILE.jsonl makes it)"
                )
            record = parse_object(line, f"{file.place}:{number}", "with text and labels")
            _require_columns(file.place, number, len(record))
            yield number, record

    keys = {key: None for _, record in islice(records(), _LOOKED_AT) for key in record}
    if not keys:
        raise DataError(f"{file.place}: holds no records")
    return Table(f"{file.place}:", split, list(keys), records)


def _delimited_table(file: RawFile, split: str, dialect: Dialect) -> Table:
    lines = read_lines(file, dialect.encoding)
    header_line = next(lines, "")
    lines.close()  # type: ignore[attr-defined]
    if not header_line:
        raise DataError(f"{file.place}: holds no header line")
    # the first one, where two would do
    signs = "\t,;|" if file.base.lower().endswith((".tsv", ".tab")) else ",\t;|"
    delimiter = dialect.delimiter or max(signs, key=lambda sign: _cells(header_line, sign, dialect.quote))
    blank = f"{delimiter} " in header_line  # after each delimiter, before the quotes

    def rows() -> Iterator[tuple[int, list[str]]]:
        return read_rows(
            file, delimiter=delimiter, quote=dialect.quote, encoding=dialect.encoding, blank=blank
        )

    names = next(rows(), (1, [""]))[1]
    header = [name.strip() or f"column {number}" for number, name in enumerate(names, 1)]
    _require_columns(file.place, 1, len(header))
    repeated = sorted(name for name, times in Counter(header).items() if times > 1)
    if repeated:
        raise DataError(
            f"{file.place}:1: column {repeated[0]!r:.80} is there {header.count(repeated[0])} times"
        )

    def records() -> Iterator[tuple[int, Record]]:
        empty = 0
        for number, cells in islice(rows(), 1, None):
            if not any(map(str.strip, cells)):  # as spreadsheets leave them at the end
                empty += 1
                if empty > MOST_BLANK:
                    raise DataError(f"{file.place}:{number}: {empty:,} empty rows; is the file damaged?")
                continue
            empty = 0
            if len(cells) != len(header):
                sign = {"\t": "tab", ",": "comma", ";": "semicolon"}.get(delimiter, delimiter)
                raise DataError(
                    f"{file.place}:{number}: {len(cells)} cells, and the header has {len(header)} "
                    f"({', '.join(header)}); cells are separated by {sign}"
                )
            yield number, dict(zip(header, cells, strict=True))

    return Table(f"{file.place}:", split, header, records)


def _require_columns(place: str, line: int, found: int) -> None:
    if found > _MOST_COLUMNS:
        raise DataError(
            f"{place}:{line}: {found:,} columns; no table has more than {_MOST_COLUMNS:,}: is it another "
            f"kind of file, or are line ends missing?"
        )


def _cells(line: str, sign: str, quote: str | None) -> int:
    if quote is None:
        return line.count(sign)
    try:
        return len(next(delimited([line], sign, quote)))
    except csv.Error:  # a quote that another line closes, or one that is text
        return line.count(sign)


def _parquet_table(file: RawFile, split: str) -> Table:
    def records() -> Iterator[tuple[int, Record]]:
        number = 0
        with _arrow(file.place), file.open() as stream:
            for batch in batches(stream):
                for record in batch.to_pylist():
                    number += 1
                    yield number, _with_class_names(record, classes)

    with _arrow(file.place), file.open() as stream, pyarrow.parquet.ParquetFile(stream) as parquet:
        columns = list(parquet.schema_arrow.names)
        classes = _class_names(parquet.schema_arrow.metadata or {})
    return Table(f"{file.place}: row ", split, columns, records)


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Return column -> names of its classes, as Hugging Face's Parquet files have them in their schema."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return {name: found["names"] for name, found in features.items() if found.get("_type") == "ClassLabel"}


def _with_class_names(record: Record, classes: Mapping[str, list[str]]) -> Record:
    if not classes:
        return record
    named = {name: classes[name][record[name]] for name in classes if isinstance(record[name], int)}
    return {**record, **named}


def _arrow_records(part: Any, place: str) -> Callable[[], Iterator[tuple[int, Record]]]:
    """Read a dataset of Hugging Face's library, class numbers turned into names."""

    def named(feature: Any, value: Any) -> Any:
        inner = getattr(feature, "feature", None)  # of a list
        if hasattr(feature, "int2str"):
            return None if value is None or value < 0 else feature.int2str(value)
        if inner is not None and isinstance(value, list):
            return [named(inner, item) for item in value]
        return value

    def records() -> Iterator[tuple[int, Record]]:
        number = 0
        with _arrow(place):
            for batch in part.iter(batch_size=_ROWS):
                for values in zip(*batch.values(), strict=True):
                    number += 1
                    record = zip(batch, values, strict=True)
                    yield number, {name: named(part.features[name], value) for name, value in record}

    return records


def _require_sound(path: Path) -> None:
    """Look through the Arrow files of a folder: reading damaged ones, which are mapped, ends the process.

    Raises:
        pyarrow.ArrowException, OSError: one of them is damaged.
    """
    for file in sorted(path.glob("**/*.arrow")):
        with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as stream:
            for batch in stream:
                batch.validate(full=True)


_BY_LIBRARY = (
    *(pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError),
    OverflowError,  # of a date or a duration that Python has no room for
)


@contextlib.contextmanager
def _arrow(place: str) -> Iterator[None]:
    """Turn what damaged columnar files raise into a DataError."""
    try:
        yield
    except (MemoryError, RecursionError) as error:
        raise DataError(f"{place}: unpacks to more than the memory holds, or is damaged ({error})") from None
    except _BY_LIBRARY as error:
        why = " ".join(str(error).split())
        raise DataError(f"{place}: cannot be read, damaged or of another kind: {why:.200}") from None
