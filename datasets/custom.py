"""Prepare the user's own data: JSON, CSV, TSV, sheets, Parquet or a folder of Hugging Face `datasets`."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hblm.config.converter_options import read_options
from hblm.console import Advance, StartTask
from hblm.data.convert.cells import cells_of, marked_of, split_of, text_of
from hblm.data.convert.columns import Columns, as_options, choose_columns
from hblm.data.convert.document_buffer import DocumentBuffer
from hblm.data.convert.label_trees import read_tree
from hblm.data.convert.labels import LabelOptions, resolve_labels
from hblm.data.convert.quality import QualityChecks, notes_on_labels, without_missing_values
from hblm.data.convert.separators import NONE
from hblm.data.convert.splits import fill_splits, require_shares
from hblm.data.raw.archives import Raw, RawFile, source_of
from hblm.data.raw.cleaning import CLEANINGS, Cleaning, plain_name
from hblm.data.raw.tables import (
    Dialect,
    Record,
    Table,
    arrow_tables,
    is_arrow_folder,
    open_tables,
    split_of_name,
)
from hblm.data.raw.text import read_text, require_encoding
from hblm.data.writer import Conversion
from hblm.errors import ConfigError, DataError
from hblm.taxonomy import Taxonomy

RAW = "a file or folder: JSON, CSV, TSV, Excel, Parquet, or what Hugging Face's save_to_disk wrote"
COLUMNS = "columns"  # label_names: the names of the columns
COLUMN_OPTIONS = {"text", "labels", "levels", "id", "split"}
TREE_FILES = ("taxonomy.json", "*.taxonomy", "*.taxnomy", "taxonomy.t*", "hierarchy.t*")
Strings, Numbers = list[str], list[float]  # one of the options is called list


class Options(NamedTuple):
    """Options of a preparation; null: detected if unambiguous.

    Attributes:
        text: column or key of the text; of several, joined by line ends.
        labels: column of the labels or paths; of several, each with some.
        levels: columns with a name for each level, the root's first; of lists, a name for each path.
        id: column of the ids; none: documents are numbered.
        split: column that says train, val or test; none: there is none.
        list: what a list of names is: a path, the root first, or labels.
        separator: between the names of a path; none: labels are names.
        label_separator: between the labels of a cell; none: one label a cell.
        label_names: of the positions of multi-hot lists, or of one-hot columns: a file, a list, or `columns`;
            none: 0 and 1 are labels.
        taxonomy: file of the tree, in the raw folder or anywhere; none: the paths are the tree.
        delimiter: between the cells of delimited text.
        header: of CSV, TSV and sheets; none: there is none, and columns are called 1, 2, 3; first: the first
            row is one, though it holds numbers or long texts.
        quote: around cells that hold the delimiter; none: quotes are plain text.
        encoding: of text; null: the byte-order mark's, else UTF-8.
        shares: of train, val and test, for the splits that are not there.
        seed: of these splits.
        unlabelled: what happens to documents without labels; keep: they go to val and test.
        clean: a published cleaning of the texts.
        merge_labels: make one node of names that differ in case, blanks, signs of no width, Unicode form,
            punctuation at the end or decimals (76.0), under their most frequent spelling.
        null_labels: what happens to labels such as NaN, None, null and N/A; empty: they are no labels.
        empty_texts: what happens to documents without a text.
        repeated_headers: what happens to lines that repeat the header, as in files that were pasted together.
    """

    text: str | Strings | None = None
    labels: str | Strings | None = None
    levels: Strings | None = None
    id: str | None = None
    split: str | None = None
    list: Literal["path", "labels"] | None = None
    separator: str | None = None
    label_separator: str | None = None
    label_names: str | Strings | None = None
    taxonomy: str | None = None
    delimiter: str | None = None
    header: Literal["none", "first"] | None = None
    quote: str | None = '"'
    encoding: str | None = None
    shares: Numbers = [0.8, 0.1, 0.1]  # noqa: RUF012 (never changed)
    seed: int = 13
    unlabelled: Literal["refuse", "drop", "keep"] = "refuse"
    clean: Cleaning = "none"
    merge_labels: bool = False
    null_labels: Literal["keep", "empty"] = "keep"
    empty_texts: Literal["keep", "drop"] = "keep"
    repeated_headers: Literal["drop", "keep"] = "drop"


def convert(raw: Path, options: Mapping[str, Any], scratch: Path, progress: StartTask) -> Conversion:
    """Read the user's files.

    Raises:
        ConfigError: an invalid option, or a missing one whose value cannot be detected.
        DataError: a fault in the files, with its place.
    """
    chosen = _read_options(options)
    buffer = DocumentBuffer(scratch, "; dataset.prepare.id=none numbers the documents")
    counts: Counter[str] = Counter()
    checks = QualityChecks()
    with ExitStack() as opened:
        files = opened.enter_context(Raw(raw))
        tree, tree_file = _given_tree(files, chosen, opened)
        names_file = _names_file(files, chosen, opened)
        others = [file for file in (tree_file, names_file) if file]  # files that are not documents
        tables = _open_tables(raw, files, chosen, others)
        columns = choose_columns(
            tables,
            text=chosen.text,
            labels=chosen.labels,
            levels=chosen.levels,
            identity=chosen.id,
            split=chosen.split,
            hint=_training_file(raw),
        )
        if chosen.list is None and _are_objects(tables[0], columns):
            chosen = chosen._replace(list="labels")  # the keys are the labels
        names = _label_names(names_file, chosen, columns)
        labels_of = _labels_reader(columns, names, chosen, has_tree=tree is not None)
        reader = _Reader(columns, labels_of, chosen, buffer, counts, checks)
        reader.read(tables, progress("reading documents", None))
        unread = _unread(raw, files, tables, others)
        sources = _sources(raw, files, tree_file, names_file)
    if not len(buffer):
        dropped = counts["documents_without_labels"]
        raise DataError(f"{raw}: no documents{f'; {dropped:,} have no labels' if dropped else ''}")
    taxonomy, labels, separators = resolve_labels(
        buffer, columns, names, _label_options(chosen), tree, counts
    )
    splits, notes = fill_splits(buffer, labels, shares=chosen.shares, seed=chosen.seed)
    notes += checks.notes(chosen._asdict())
    notes += notes_on_labels(taxonomy, labels, buffer.digests)
    _require_trainable(buffer, labels, splits)
    if unread:
        notes.append(f"files that were not read: {', '.join(unread[:10])}{' ...' if unread[10:] else ''}")
    in_download = tree_file in files.files
    tree_name = (tree_file.name if in_download else str(tree_file.stored)) if tree_file else NONE
    return Conversion(
        taxonomy=taxonomy,
        splits=buffer.documents(labels, splits),
        options=chosen._asdict() | as_options(columns, separators) | {"taxonomy": tree_name},
        sources=sources,
        counts=dict(sorted(counts.items())),
        warnings=notes,
        licence="The data's own; not known here.",
    )


def _read_options(options: Mapping[str, Any]) -> Options:
    """Return the checked options."""
    numbered = {name: _as_names(options[name]) for name in COLUMN_OPTIONS & options.keys()}
    chosen = read_options(Options, {**options, **numbered}, "custom")
    require_encoding(chosen.encoding)
    require_shares(chosen.shares)
    return chosen


def _open_tables(raw: Path, files: Raw, chosen: Options, others: Sequence[RawFile]) -> list[Table]:
    """Open the tables of documents."""
    if is_arrow_folder(raw):
        return arrow_tables(raw)
    delimiter = "\t" if chosen.delimiter == "\\t" else chosen.delimiter
    quote = None if chosen.quote == NONE else chosen.quote
    ignored = [file.name for file in [*files.matching(*TREE_FILES), *others]]
    return open_tables(files, Dialect(delimiter, quote, chosen.encoding, chosen.header), ignored)


def _labels_reader(
    columns: Columns, names: Sequence[str], chosen: Options, *, has_tree: bool
) -> Callable[..., tuple[str, ...]]:
    """Return the function that reads the label cells of a record: by position if `names` are given."""
    if names:
        return functools.partial(marked_of, columns=columns, names=names)
    return functools.partial(cells_of, columns=columns, whole=chosen.list == "path", tree=has_tree)


def _unread(raw: Path, files: Raw, tables: Sequence[Table], others: Sequence[RawFile]) -> list[str]:
    """Return the names of the files in the download that were not read."""
    if is_arrow_folder(raw):
        return []
    return [
        file.name
        for file in files.files
        if file not in others and not any(table.place.startswith(file.place) for table in tables)
    ]


def _sources(
    raw: Path, files: Raw, tree_file: RawFile | None, names_file: RawFile | None
) -> list[dict[str, Any]]:
    """Return the sources of the manifest: the files that were read, in the download or elsewhere."""
    if is_arrow_folder(raw):
        for file in files.files:
            with file.open():  # marks the file as read
                pass
    sources = files.sources()
    for option, each in (("taxonomy", tree_file), ("label_names", names_file)):
        if each and each not in files.files:
            sources.append(source_of(each.stored, str(each.stored)) | {"option": option})
    return sources


def _as_names(given: Any) -> Any:
    """Return the names of columns as texts; without a header they are numbers."""
    if isinstance(given, list):
        return [_as_names(name) for name in given]
    return str(given) if type(given) is int else given


def _training_file(raw: Path) -> str:
    """Return the training file beside a test file, for the end of a message; "" if there is none."""
    if not raw.is_file() or split_of_name(raw.name) not in ("val", "test"):
        return ""
    suffix = raw.name.partition(".")[2]
    beside = [
        path
        for path in sorted(raw.parent.iterdir())
        if split_of_name(path.name) == "train" and path.name.partition(".")[2] == suffix
    ]
    return f"; {beside[0]} lies beside it: has it the labels? write raw={beside[0]}" if beside else ""


def _given_tree(files: Raw, chosen: Options, opened: ExitStack) -> tuple[Taxonomy | None, RawFile | None]:
    """Return the tree in a file, and the file; None and None if the paths make the tree."""
    if chosen.taxonomy == NONE:
        return None, None
    if chosen.taxonomy is not None:
        file = _named_file(files, "taxonomy", chosen.taxonomy, opened)
        return read_tree(file, chosen.encoding), file
    tree_files = files.matching(*TREE_FILES)
    if len(tree_files) > 1:
        names = " or ".join(file.name for file in tree_files)
        raise ConfigError(
            f"which file is the taxonomy? write dataset.prepare.taxonomy={names} (none: the paths are)"
        )
    if not tree_files or len(files.files) == 1:
        return None, None
    return read_tree(tree_files[0], chosen.encoding), tree_files[0]


def _named_file(files: Raw, option: str, given: str, opened: ExitStack) -> RawFile:
    """Return the file of an option: in the download, or anywhere."""
    path = Path(given)
    same = path.resolve() if path.is_file() and files.path.is_dir() else None
    matches = [file for file in files.files if same == file.stored.resolve() or file.name == given]
    if len(matches) > 1:
        raise ConfigError(
            f"dataset.prepare.{option}={given} is {' and '.join(file.place for file in matches)}"
        )
    if not matches and not path.is_file():
        raise ConfigError(f"dataset.prepare.{option}={path} is no file, nor one in {files.path}")
    return matches[0] if matches else opened.enter_context(Raw(path)).files[0]


def _names_file(files: Raw, chosen: Options, opened: ExitStack) -> RawFile | None:
    """Return the file with the names of multi-hot labels; None if none is given."""
    given = chosen.label_names
    if not isinstance(given, str) or given in (NONE, COLUMNS):
        return None
    return _named_file(files, "label_names", given, opened)


def _are_objects(table: Table, columns: Columns) -> bool:
    """Return whether the labels are objects such as {"a": 1.0, "b": 0.0}."""
    if not columns.labels:
        return False
    records = (record for _, record in table.records(*columns.labels))
    values = ([record.get(name) for name in columns.labels] for record in records)
    first = next((row for row in values if any(value is not None for value in row)), [])
    return any(isinstance(value, dict) or str(value).lstrip().startswith("{") for value in first)


def _label_names(file: RawFile | None, chosen: Options, columns: Columns) -> tuple[str, ...]:
    """Return the names of multi-hot labels in the order of their positions; () if there are none."""
    given = chosen.label_names
    if given in (None, NONE):
        return ()
    if columns.levels:
        raise ConfigError(
            "dataset.prepare.label_names names the positions of labels, and dataset.prepare.levels says that "
            "the columns are levels; write dataset.prepare.labels="
        )
    place = "dataset.prepare.label_names"
    if file is None:
        listed = list(columns.labels) if given == COLUMNS else list(given or ())
    else:
        place = file.place
        text = "".join(read_text(file, chosen.encoding))
        listed = _json_names(text, place) if text.lstrip().startswith("[") else text.rstrip().split("\n")
    names = tuple(plain_name(name) for name in listed)
    seen: set[str] = set()
    for at, name in enumerate(names):
        if not name or name in seen:
            why = f"{name!r:.60} is there twice" if name else "a name is empty"
            raise DataError(f"{place}:{at + 1}: {why}; each position has a name of its own")
        seen.add(name)
    if given == COLUMNS and len(names) < 2:
        raise ConfigError(
            f"dataset.prepare.label_names=columns needs a column for each label, and the labels are in "
            f"{names[0]!r} alone; name the columns, dataset.prepare.labels=[A,B,C]"
        )
    return names


def _json_names(text: str, place: str) -> list[str]:
    try:
        names = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not valid JSON: {error}") from None
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"{place}: expected a JSON list of names (texts), or a line for each name")
    return list(names)


@dataclass
class _Reader:
    """Reads records into the buffer.

    Attributes:
        columns: the columns to read.
        labels_of: returns the label cells of a record.
        options: of the converter.
        buffer: of the documents.
        counts: of dropped records, by reason.
        checks: count irregular records.
        numbers: documents so far, by split, across the files of the split.
    """

    columns: Columns
    labels_of: Callable[..., tuple[str, ...]]
    options: Options
    buffer: DocumentBuffer
    counts: Counter[str]
    checks: QualityChecks
    numbers: Counter[str] = field(default_factory=Counter)

    def read(self, tables: Sequence[Table], advance: Advance) -> None:
        """Read all records of the tables."""
        clean = CLEANINGS[self.options.clean]
        for table in tables:
            for number, record in table.records(*self.columns.all):
                place = f"{table.place}{number}"
                repeats = self.options.header != "none" and self.checks.is_header(record, place)
                if repeats and self.options.repeated_headers == "drop":
                    self.counts["repeated_header_lines"] += 1
                    continue
                cells = self._cells(record, place)
                advance(1)
                if not cells and self.options.unlabelled != "keep":
                    self.counts["documents_without_labels"] += 1
                    continue
                text = clean(text_of(record, self.columns.text, place))
                if self.checks.is_blank(text, place) and self.options.empty_texts == "drop":
                    self.counts["documents_without_text"] += 1
                    continue
                column = self.columns.split
                split = split_of(record, column, place) if column else table.split
                identity = self._identity(record, table.split, place)
                self.buffer.add(identity, text, cells, split, table.place, number)

    def _cells(self, record: Record, place: str) -> tuple[str, ...]:
        """Return the label cells of a record; refuse a record without any if the options say so."""
        cells = self.checks.labels(self.labels_of(record, place=place))
        if self.options.null_labels == "empty":
            cells = without_missing_values(cells, place)
        if not cells and self.options.unlabelled == "refuse":
            empty = " and ".join(self.columns.levels or self.columns.labels)
            raise DataError(
                f"{place}: no label ({empty} is empty); dataset.prepare.unlabelled=drop leaves such "
                f"documents out, =keep puts them into val and test"
            )
        return cells

    def _identity(self, record: Record, split: str, place: str) -> str:
        """Return the id of a record: that of its column, or a number."""
        self.numbers[split] += 1
        if not self.columns.id:
            return f"{split or 'document'}-{self.numbers[split]}"
        value = record.get(self.columns.id)
        identity = "" if value is None else str(value).strip()
        if not identity:
            raise DataError(f"{place}: {self.columns.id} is empty; dataset.prepare.id=none numbers documents")
        return identity


def _label_options(chosen: Options) -> LabelOptions:
    return LabelOptions(**{name: getattr(chosen, name) for name in LabelOptions._fields})


def _require_trainable(
    buffer: DocumentBuffer, labels: Sequence[tuple[str, ...]], splits: Sequence[str]
) -> None:
    for at, split in enumerate(splits):
        if split == "train" and not labels[at]:
            raise DataError(
                f"{buffer.place(at)}: a training document without labels; dataset.prepare.unlabelled=drop "
                f"leaves such documents out"
            )


if __name__ == "__main__":
    from hblm.prepare import main_for

    main_for("custom")
