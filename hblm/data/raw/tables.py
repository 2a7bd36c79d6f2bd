"""Tables of records from the user's own files: JSON, CSV, TSV, sheets, Parquet, `save_to_disk`."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hblm.data.raw.archives import Raw, RawFile
from hblm.data.raw.columnar import Records, open_parquet, open_saved
from hblm.data.raw.delimited import delimited, read_rows
from hblm.data.raw.json_records import open_objects
from hblm.data.raw.spreadsheet import read_sheet
from hblm.data.raw.text import MOST_BLANK, read_lines
from hblm.document import SPLITS
from hblm.errors import ConfigError, DataError

SPLIT_OF_WORD = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "development", "eval"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}

_JSON, _DELIMITED, _PARQUET = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv", ".tab"), (".parquet",)
_SHEETS = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods")
_LAST = (".txt",)  # read as delimited text
_ARROW = ("dataset_dict.json", "state.json")
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?")

_COPIES = re.compile(
    r"fold|seed|version|run\d|(?<![a-z])v\d", re.IGNORECASE
)  # numbered files that are not parts of one

_MOST_COLUMNS = 1 << 14
_LOOKED_AT = 100  # records of JSONL whose keys make the columns: a record may lack a key
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Records of one split, or of no split yet.

    Attributes:
        place: its name in messages; with the number of a record it is the place of the record.
        split: train, val or test; "" if unknown.
        columns: the names in a record.
        reader: yields (number, record) with the given columns, () for all; a record may have others as well.
        headed: the names of the columns come from a first row.
    """

    place: str
    split: str
    columns: Sequence[str]
    reader: Records
    headed: bool = False

    @property
    def name(self) -> str:
        """Return the name of the table in messages that do not name a record."""
        return re.sub("(: (row|item) |:)$", "", self.place)

    def records(self, *columns: str) -> Iterator[tuple[int, Record]]:
        """Yield (number, record) with at least these columns; without names, all columns."""
        return self.reader(columns)


@dataclass(frozen=True)
class Dialect:
    """Format of delimited text and sheets; None: detected.

    `header` is "none" if the first row is a document, "first" if it is the header whatever it contains.
    """

    delimiter: str | None = None
    quote: str | None = '"'
    encoding: str | None = None
    header: str | None = None


def is_arrow_folder(path: Path) -> bool:
    """Return whether a folder was written by `save_to_disk` of Hugging Face's datasets."""
    return any((path / name).is_file() for name in _ARROW)


def arrow_tables(path: Path) -> list[Table]:
    """Open a folder written by `save_to_disk`; class numbers become names.

    Raises:
        DataError: the folder is damaged or of another kind.
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
    """Return the tables of a download: files with train, val or test in their name, else the only data file.

    Args:
        raw: the download.
        dialect: of delimited text.
        ignored: names of other files, such as that of the taxonomy.

    Raises:
        DataError: there is no data file, or several.
    """
    single = len(raw.files) == 1
    files = [file for file in raw.files if not file.base.lower().startswith(("readme", "license", "licence"))]
    inside = next((file.place for file in files if file.base in _ARROW), None)
    if inside:
        raise DataError(f"{inside}: part of a datasets folder; unpack it, and give the folder that holds it")
    for suffixes in (
        (*_JSON, *_DELIMITED, *_PARQUET, *_SHEETS),
        _LAST,
    ):  # .txt only where there is nothing else
        data = [file for file in files if file.name.lower().endswith(suffixes) and file.name not in ignored]
        if data:
            break
    data = raw.files if single else data
    by_split = by_split_name(raw, data)
    if by_split.keys() - {""} and not single:
        if "train" not in by_split:
            raise DataError(
                f"{raw.path}: no file for training; found {', '.join(file.name for file in data)}; "
                f"the name of a file contains its split: train, val or test"
            )
        return [_open(file, split, dialect) for split in SPLITS for file in by_split.get(split, ())]
    if len(data) != 1:
        why = (
            "several data files"
            if data
            else "no data file (.jsonl, .json, .csv, .tsv, .parquet, .xlsx, .ods)"
        )
        raise DataError(
            f"{raw.path}: {why}; it holds {raw.listing()}. Give one file as raw=, or files whose names "
            f"say train, val and test"
        )
    return [_open(data[0], "", dialect)]


def by_split_name(raw: Raw, files: Sequence[RawFile]) -> dict[str, list[RawFile]]:
    """Return the files of each split, by their names; "" for files without a split in their name.

    Raises:
        DataError: several files of one split that are not its numbered parts.
    """
    by_split: dict[str, list[RawFile]] = {}
    for file in files:
        folder = file.name.rpartition("/")[0]
        by_split.setdefault(split_of_name(file.base) or split_of_name(folder), []).append(file)
    for split, several in by_split.items():
        _require_all_parts(raw, several)
        same = len({file.name for file in several}) < len(several)  # train.csv and train.csv.gz
        parts = len({re.sub(r"\d+", "0", file.name) for file in several}) == 1
        copies = len(several) > 1 and any(_COPIES.search(file.base) for file in several)
        if split and (same or copies or not parts):
            raise DataError(
                f"{raw.path}: several files look like the {split} split: "
                f"{', '.join(file.place for file in several)}; give a folder with one of them"
            )
    return by_split


def _require_all_parts(raw: Raw, files: Sequence[RawFile]) -> None:
    """Refuse parts such as 00000-of-00003 if one of them is missing."""
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
    """Return the split in the name of a file, or in the value of a column; "" for none."""
    words = {SPLIT_OF_WORD.get(word, "") for word in re.split("[^a-z]+", name.lower())} - {""}
    return words.pop() if len(words) == 1 else ""


def _open(file: RawFile, split: str, dialect: Dialect) -> Table:
    name = file.base.lower()
    if name.endswith(_JSON):
        return json_table(file, split, dialect.encoding)
    if name.endswith(_PARQUET):
        return Table(f"{file.place}: row ", split, *open_parquet(file))
    if name.endswith(_SHEETS):
        return sheet_table(file, split, dialect)
    return _delimited_table(file, split, dialect)


def json_table(file: RawFile, split: str, encoding: str | None) -> Table:
    """Open a file of JSON objects.

    Raises:
        DataError: the first value is not an object, or there is none.
    """
    place, records = open_objects(file, encoding)
    keys = {key: None for _, record in islice(records(()), _LOOKED_AT) for key in record}
    _require_columns(file.place, 1, len(keys))
    if not keys:
        raise DataError(f"{file.place}: holds no records")
    return Table(place, split, list(keys), records)


def _delimited_table(file: RawFile, split: str, dialect: Dialect) -> Table:
    lines = read_lines(file, dialect.encoding)
    header_line = next((line for line in lines if line.strip()), "")
    lines.close()  # type: ignore[attr-defined]
    delimiter = delimiter_of(header_line, dialect, file.base, file.place)
    blank = f"{delimiter} " in header_line  # a blank after each delimiter

    def rows() -> Iterator[tuple[int, list[str]]]:
        return read_rows(
            file, delimiter=delimiter, quote=dialect.quote, encoding=dialect.encoding, blank=blank
        )

    return _table_of_rows(f"{file.place}:", split, rows, dialect.header, delimiter)


def delimiter_of(header_line: str, dialect: Dialect, base: str, place: str) -> str:
    """Return the delimiter of a text with this first line; `base` is its name, `place` that in messages.

    Raises:
        ConfigError: the given delimiter is not in the line.
    """
    if dialect.delimiter and dialect.delimiter not in header_line:
        raise ConfigError(
            f"dataset.prepare.delimiter={dialect.delimiter!r} is not in the first line of {place}"
        )
    # of equally frequent ones, the first
    signs = "\t,;|" if base.lower().endswith((".tsv", ".tab")) else ",\t;|"
    return dialect.delimiter or max(signs, key=lambda sign: _cells(header_line, sign, dialect.quote))


def sheet_table(file: RawFile, split: str, dialect: Dialect) -> Table:
    """Open a spreadsheet.

    Raises:
        DataError: damaged, or its first row is no header.
    """
    return _table_of_rows(f"{file.place}: row ", split, lambda: read_sheet(file), dialect.header)


def _table_of_rows(
    place: str,
    split: str,
    rows: Callable[[], Iterator[tuple[int, list[str]]]],
    header: str | None,
    delimiter: str = "",
) -> Table:
    """Return the table of rows of cells; the first row is the header, unless `header` is "none"."""
    number, cells = next(rows(), (1, []))
    names = names_of(cells, header, place, number)

    def records(_: Collection[str]) -> Iterator[tuple[int, Record]]:
        empty = 0
        for number, cells in islice(rows(), header != "none", None):
            if not any(map(str.strip, cells)):  # spreadsheets have empty rows at their end
                empty += 1
                if empty > MOST_BLANK:
                    raise DataError(f"{place}{number}: {empty:,} empty rows; is the file damaged?")
                continue
            empty = 0
            if why := unequal(cells, names, header, delimiter):
                raise DataError(f"{place}{number}: {why}")
            yield number, dict(zip(names, cells, strict=True))

    return Table(place, split, names, records, headed=header is None)


def names_of(cells: Sequence[str], header: str | None, place: str, number: int) -> list[str]:
    """Return the names of the columns of a table with this first row.

    Args:
        cells: of the first row.
        header: as in Dialect.
        place, number: with the number of a row, `place` is the place of the row.

    Raises:
        DataError: the row is empty, has too many columns, or may be a document.
    """
    name = place.removesuffix(": row ").removesuffix(":")
    _require_columns(name, number, len(cells))
    if not any(map(str.strip, cells)):
        raise DataError(f"{name}: holds no header line")
    if header == "none":
        return [str(at) for at in range(1, len(cells) + 1)]
    names = [name.strip() or f"column {at}" for at, name in enumerate(cells, 1)]
    _require_header(names, header, f"{place}{number}")
    return names


def unequal(cells: Sequence[str], names: Sequence[str], header: str | None, delimiter: str = "") -> str:
    """Return how the number of a row's cells differs from that of the columns; "" where it does not."""
    if len(cells) == len(names):
        return ""
    first = f"the header has {len(names)} ({', '.join(names):.300})"
    if header == "none":
        first = f"the first row has {len(names)}"
    sign = {"\t": "tab", ",": "comma", ";": "semicolon"}.get(delimiter, delimiter)
    return f"{len(cells)} cells, and {first}" + (f"; cells are separated by {sign}" if sign else "")


def _require_header(names: Sequence[str], header: str | None, place: str) -> None:
    """Refuse a first row that may be a document.

    Raises:
        DataError: a name occurs twice, is a number, or is as long as a text.
    """
    hint = "if the first row is a document already, write dataset.prepare.header=none"
    times = Counter(names)
    repeated = sorted(name for name in times if times[name] > 1)
    if repeated:
        raise DataError(f"{place}: column {repeated[0]!r:.60} is there {times[repeated[0]]} times; {hint}")
    given = [name for name in names if not name.startswith("column ")]
    if header == "first" or given == [str(at) for at in range(len(given))]:  # as pandas numbers columns
        return
    odd = next((at for at, name in enumerate(names, 1) if _NUMBER.fullmatch(name) or _is_text(name)), None)
    if odd:
        what = "a number" if _NUMBER.fullmatch(names[odd - 1]) else "a text"
        raise DataError(
            f"{place}: the name of column {odd} is {what}; {hint} (columns are then called 1, 2, 3); "
            f"if it is a header, dataset.prepare.header=first"
        )


def _is_text(name: str) -> bool:
    """Return whether the name of a column looks like a document."""
    words = len(name.split())
    return len(name) > 80 or words > 8 or (words > 3 and name.endswith((".", "!")))


def _require_columns(place: str, line: int, number: int) -> None:
    if number > _MOST_COLUMNS:
        raise DataError(
            f"{place}:{line}: {number:,} columns; no table has more than {_MOST_COLUMNS:,}: is it another "
            f"kind of file, or are line ends missing?"
        )


def _cells(line: str, sign: str, quote: str | None) -> int:
    if quote is None:
        return line.count(sign)
    try:
        return len(next(delimited([line], sign, quote)))
    except csv.Error:  # a quote that a later line closes, or a quote that is text
        return line.count(sign)
