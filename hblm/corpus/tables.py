"""The user's own files as tables of records: JSONL, CSV, TSV, Parquet, folders of Hugging Face's datasets."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hblm.corpus.columnar import Records, open_parquet, open_saved
from hblm.corpus.raw import Raw, RawFile
from hblm.corpus.texts import delimited, read_lines, read_rows
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
_LOOKED_AT = 100  # records of JSONL whose keys are the columns: some may lack one
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Records of one split, or of none yet.

    Attributes:
        place: how messages call it; followed by a record's number it is the record's place.
        split: train, val or test; "" where nothing says.
        columns: the names in a record.
        reader: reads some columns, () for all: (number, record) each. A record may have others as well.
    """

    place: str
    split: str
    columns: Sequence[str]
    reader: Records

    def records(self, *columns: str) -> Iterator[tuple[int, Record]]:
        """Yield (number, record), with at least these columns, all if none are named."""
        return self.reader(columns)


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
    tables = []
    for name, columns, records in open_saved(path):
        if name and not split_of_name(name):
            raise DataError(
                f"{path}: its split {name!r} is none of train, val and test; save it without that one"
            )
        place = str(path / name if name else path)
        tables.append(Table(f"{place}: row ", split_of_name(name), columns, records))
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
        return Table(f"{file.place}: row ", split, *open_parquet(file))
    return _delimited_table(file, split, dialect)


def json_table(file: RawFile, split: str, encoding: str | None) -> Table:
    """Open a file of JSON objects, one a line.

    Raises:
        DataError: the first line is none, or an array.
    """

    def records(_: Collection[str]) -> Iterator[tuple[int, Record]]:
        for number, line in enumerate(read_lines(file, encoding), 1):
            if not line.strip():
                continue
            if number == 1 and line.lstrip().startswith("["):
                raise DataError(
                    f"{file.place}:1: a JSON array; expected JSONL, one object a line "
                    f"(jq -c '.[]' FILE > FILE.jsonl makes it)"
                )
            yield number, parse_object(line, f"{file.place}:{number}", "with text and labels")

    keys = {key: None for _, record in islice(records(()), _LOOKED_AT) for key in record}
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
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{file.place}:1: column {repeated[0]!r} is there {header.count(repeated[0])} times")

    def records(_: Collection[str]) -> Iterator[tuple[int, Record]]:
        for number, cells in islice(rows(), 1, None):
            if not any(map(str.strip, cells)):  # as spreadsheets leave them at the end
                continue
            if len(cells) != len(header):
                sign = {"\t": "tab", ",": "comma", ";": "semicolon"}.get(delimiter, delimiter)
                raise DataError(
                    f"{file.place}:{number}: {len(cells)} cells, and the header has {len(header)} "
                    f"({', '.join(header)}); cells are separated by {sign}"
                )
            yield number, dict(zip(header, cells, strict=True))

    return Table(f"{file.place}:", split, header, records)


def _cells(line: str, sign: str, quote: str | None) -> int:
    if quote is None:
        return line.count(sign)
    try:
        return len(next(delimited([line], sign, quote)))
    except csv.Error:  # a quote that another line closes, or one that is text
        return line.count(sign)
