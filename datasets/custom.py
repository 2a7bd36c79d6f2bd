"""Prepare the user's own data: JSONL, CSV, TSV, Parquet or a Hugging Face `datasets` folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hblm.corpus.cells import cells_of, split_of, text_of
from hblm.corpus.clean import CLEANINGS, Cleaning
from hblm.corpus.columns import Columns, as_options, choose_columns
from hblm.corpus.hygiene import Oddities, merged, oddities_of_nodes, without_nulls
from hblm.corpus.options import read_options
from hblm.corpus.raw import Raw, RawFile, source_of
from hblm.corpus.signs import NONE, Signs, choose_signs
from hblm.corpus.split import fill_splits, require_shares
from hblm.corpus.spool import Spool
from hblm.corpus.tables import Dialect, Table, arrow_tables, is_arrow_folder, open_tables
from hblm.corpus.texts import require_encoding
from hblm.corpus.trees import Finder, ids_of, infer_tree, read_tree, without_root
from hblm.corpus.write import Conversion
from hblm.errors import ConfigError, DataError
from hblm.taxonomy import Taxonomy
from hblm.terminal import Advance, StartTask

RAW = "a file or folder: JSONL, CSV, TSV, Parquet, or what Hugging Face's save_to_disk wrote"
TREE_FILES = ("taxonomy.json", "*.taxonomy", "*.taxnomy", "taxonomy.t*", "hierarchy.t*")


class Options(NamedTuple):
    """What a preparation can set; null: detected where that is unambiguous.

    Attributes:
        text: column or key of the text; of several, joined by line ends.
        labels: column of the labels or paths; of several, each with some.
        levels: columns with a name for each level, the root's first.
        id: column of the ids; none: documents are numbered.
        split: column that says train, val or test; none: there is none.
        separator: between the names of a path; none: labels are names.
        label_separator: between the labels of a cell; none: one label a cell.
        taxonomy: file of the tree, in the raw folder or anywhere; none: the paths are the tree.
        delimiter: between the cells of delimited text.
        quote: around cells that hold the delimiter; none: quotes are plain text.
        encoding: of text; null: the byte-order mark's, else UTF-8.
        shares: of train, val and test, for the splits that are not there.
        seed: of these splits.
        unlabelled: what becomes of documents without labels; keep: in val and test.
        clean: a published cleaning of the texts.
        merge_labels: make one node of names that differ in case, blanks, signs of no width, Unicode form,
            punctuation at the end or decimals (76.0), under their most frequent spelling.
        null_labels: what becomes of labels such as NaN, None, null and N/A; empty: they are no labels.
        empty_texts: what becomes of documents without a text.
        repeated_headers: what becomes of lines that repeat the header, as in files that were pasted together.
    """

    text: str | list[str] | None = None
    labels: str | list[str] | None = None
    levels: list[str] | None = None
    id: str | None = None
    split: str | None = None
    separator: str | None = None
    label_separator: str | None = None
    taxonomy: str | None = None
    delimiter: str | None = None
    quote: str | None = '"'
    encoding: str | None = None
    shares: list[float] = [0.8, 0.1, 0.1]  # noqa: RUF012 (never changed)
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
        ConfigError: an option that is wrong, or one that is missing because nothing tells.
        DataError: a fault in the files, with its place.
    """
    chosen = read_options(Options, options, "custom")
    require_encoding(chosen.encoding)
    require_shares(chosen.shares)
    with Raw(raw) as files:
        tree, tree_file = _given_tree(files, chosen)
        delimiter = "\t" if chosen.delimiter == "\\t" else chosen.delimiter
        dialect = Dialect(delimiter, None if chosen.quote == NONE else chosen.quote, chosen.encoding)
        trees = [file.name for file in [*files.matching(*TREE_FILES), *([tree_file] if tree_file else [])]]
        tables = arrow_tables(raw) if is_arrow_folder(raw) else open_tables(files, dialect, trees)
        columns = choose_columns(
            tables,
            text=chosen.text,
            labels=chosen.labels,
            levels=chosen.levels,
            identity=chosen.id,
            split=chosen.split,
        )
        spool = Spool(scratch, "; dataset.prepare.id=none numbers the documents")
        counts: Counter[str] = Counter()
        oddities = Oddities()
        _read(tables, columns, chosen, spool, counts, oddities, progress("reading documents", None))
        if is_arrow_folder(raw):
            for file in files.files:
                with file.open():  # all of them are sources
                    pass
        unread = [
            file.name
            for file in files.files
            if file != tree_file and not any(table.place.startswith(file.place) for table in tables)
        ]
        sources = files.sources()
        if tree_file and tree_file not in files.files:  # it lies elsewhere
            sources.append(source_of(tree_file.stored, str(tree_file.stored)))
    if not len(spool):
        dropped = counts["documents_without_labels"]
        raise DataError(f"{raw}: no documents{f'; {dropped:,} have no labels' if dropped else ''}")
    taxonomy, labels, signs = _labelled(spool, columns, chosen, tree, counts)
    splits, notes = fill_splits(spool, labels, shares=chosen.shares, seed=chosen.seed)
    notes += oddities.notes(chosen._asdict())
    notes += oddities_of_nodes(taxonomy, labels, spool.digests)
    _require_trainable(spool, labels, splits)
    if unread and not is_arrow_folder(raw):
        notes.append(f"files that were not read: {', '.join(unread[:10])}{' ...' if unread[10:] else ''}")
    used = (
        chosen._asdict()
        | as_options(columns, signs)
        | {
            "taxonomy": (tree_file.name if tree_file in files.files else str(tree_file.stored))
            if tree_file
            else NONE
        }
    )
    return Conversion(
        taxonomy=taxonomy,
        splits=spool.documents(labels, splits),
        options=used,
        sources=sources,
        counts=dict(sorted(counts.items())),
        warnings=notes,
        licence="The data's own; not known here.",
    )


def _given_tree(files: Raw, chosen: Options) -> tuple[Taxonomy | None, RawFile | None]:
    """Return the tree that a file describes, and the file; None and None where the paths are the tree."""
    if chosen.taxonomy == NONE:
        return None, None
    found = files.matching(*TREE_FILES)
    if chosen.taxonomy is not None:
        path = Path(chosen.taxonomy)
        same = path.resolve() if path.is_file() and files.path.is_dir() else None
        found = [
            file for file in files.files if same == file.stored.resolve() or file.name == chosen.taxonomy
        ]
        if not found and not path.is_file():
            raise ConfigError(f"dataset.prepare.taxonomy={path} is no file, nor one in {files.path}")
        if not found:
            with Raw(path) as elsewhere:
                return read_tree(elsewhere.files[0], chosen.encoding), elsewhere.files[0]
    if len(found) > 1:
        names = " or ".join(file.name for file in found)
        raise ConfigError(
            f"which file is the taxonomy? write dataset.prepare.taxonomy={names} (none: the paths are)"
        )
    if not found or len(files.files) == 1:
        return None, None
    return read_tree(found[0], chosen.encoding), found[0]


def _read(
    tables: Sequence[Table],
    columns: Columns,
    chosen: Options,
    spool: Spool,
    counts: Counter[str],
    oddities: Oddities,
    advance: Advance,
) -> None:
    clean = CLEANINGS[chosen.clean]
    numbered: Counter[str] = Counter()  # across the files of a split
    for table in tables:
        for number, record in table.records():
            place = f"{table.place}{number}"
            if oddities.is_header(record, place) and chosen.repeated_headers == "drop":
                counts["repeated_header_lines"] += 1
                continue
            cells = oddities.labels(cells_of(record, columns, place))
            if chosen.null_labels == "empty":
                cells = without_nulls(cells, place, holes=not columns.levels)
            advance(1)
            if not cells and chosen.unlabelled != "keep":
                if chosen.unlabelled == "refuse":
                    empty = " and ".join(columns.levels or columns.labels)
                    raise DataError(
                        f"{place}: no label ({empty} is empty); dataset.prepare.unlabelled=drop leaves such "
                        f"documents out, =keep puts them into val and test"
                    )
                counts["documents_without_labels"] += 1
                continue
            text = clean(text_of(record, columns.text, place))
            if oddities.is_blank(text, place) and chosen.empty_texts == "drop":
                counts["documents_without_text"] += 1
                continue
            numbered[table.split] += 1
            identity = f"{table.split or 'document'}-{numbered[table.split]}"
            if columns.id:
                value = record.get(columns.id)
                identity = "" if value is None else str(value).strip()
                if not identity:
                    raise DataError(
                        f"{place}: {columns.id} is empty; dataset.prepare.id=none numbers documents"
                    )
            split = split_of(record, columns.split, place) if columns.split else table.split
            spool.add(identity, text, cells, split, table.place, number)


def _labelled(
    spool: Spool, columns: Columns, chosen: Options, tree: Taxonomy | None, counts: Counter[str]
) -> tuple[Taxonomy, list[tuple[str, ...]], Signs]:
    """Return the taxonomy, each document's node ids, and what separates names and labels."""
    first: dict[tuple[str, ...], int] = {}  # distinct cells -> the document that has them first
    for at, cells in enumerate(spool.labels):
        first.setdefault(cells, at)
    finder = Finder(tree) if tree else None
    if columns.levels:
        signs = Signs("/", None)
        paths = {cells: [cells] if cells else [] for cells in first}
        if chosen.levels is None:
            _require_levels(columns.levels, first)
    else:
        signs = choose_signs(
            {cell for cells in first for cell in cells},
            path=chosen.separator,
            labels=chosen.label_separator,
            is_node=finder.has if finder else lambda label: False,
        )
        paths = {cells: [path for cell in cells for path in _paths(cell, signs, finder)] for cells in first}
        for cells, found in paths.items():
            if cells and not found:
                raise DataError(f"{spool.place(first[cells])}: no label in {cells!r:.80}")
            if any(not name for path in found for name in path):
                raise DataError(
                    f"{spool.place(first[cells])}: a path with an empty name in {cells!r:.120} "
                    f"(names are separated by {signs.path!r})"
                )
    if finder and chosen.merge_labels:
        raise ConfigError(
            "dataset.prepare.merge_labels=true: the taxonomy file names the nodes; edit it there"
        )
    if finder:
        nodes = {
            cells: tuple(
                dict.fromkeys(node for path in found for node in finder.find(path, spool.place(first[cells])))
            )
            for cells, found in paths.items()
        }
        return finder.taxonomy, [nodes[cells] for cells in spool.labels], signs
    separator = "/" if columns.levels or signs.path == "\\" else signs.path or ""
    if not columns.levels and signs.path is None and chosen.separator != NONE:
        example = ", ".join(repr(cell) for cells in list(first)[:3] for cell in cells[:1])
        raise ConfigError(
            f"the labels ({example} ...) are no paths, and there is no taxonomy file: how do they hang "
            f"together? write dataset.prepare.taxonomy=FILE, dataset.prepare.separator=SIGN if they are "
            f"paths (none: one level, no tree), or dataset.prepare.levels=[A,B] where each level has a column"
        )
    if chosen.merge_labels:
        times = Counter(path for cells in spool.labels for path in paths[cells])
        spelt = merged(times)
        counts["labels_merged"] = len(times) - len(set(spelt.values()))
        paths = {cells: [spelt[path] for path in found] for cells, found in paths.items()}
    distinct = list({path: None for found in paths.values() for path in found})
    stripped = dict(zip(distinct, without_root(distinct), strict=True))
    taxonomy = infer_tree(stripped.values(), separator)
    ids = {path: ids_of(inner, separator) for path, inner in stripped.items()}  # each id once in memory
    nodes = {
        cells: tuple(dict.fromkeys(node for path in found for node in ids[path]))
        for cells, found in paths.items()
    }
    return taxonomy, [nodes[cells] for cells in spool.labels], signs


def _paths(cell: str, signs: Signs, finder: Finder | None) -> list[tuple[str, ...]]:
    """Return the paths of a cell; what is a node as a whole is one, whatever signs are in it."""
    if finder is None:
        return signs.paths(cell)
    if finder.has(cell):
        return [(cell,)]
    labels = signs._replace(path=None).paths(cell)
    return [path for (label,) in labels for path in ([(label,)] if finder.has(label) else signs.paths(label))]


def _require_levels(columns: Sequence[str], found: Collection[tuple[str, ...]]) -> None:
    """Refuse columns that are numbered like levels and hold equals, as in label1, label2 of one document."""
    tops = {names[0] for names in found if names}
    below = sorted(tops.intersection(name for names in found for name in names[1:]))
    if below:
        listed = ",".join(columns)
        raise ConfigError(
            f"are {', '.join(columns)} the levels of a tree? {below[0]!r} is first in some documents, below "
            f"another in others; write dataset.prepare.levels=[{listed}] if they are levels, "
            f"dataset.prepare.labels=[{listed}] if each holds a label"
        )


def _require_trainable(spool: Spool, labels: Sequence[tuple[str, ...]], splits: Sequence[str]) -> None:
    for at, split in enumerate(splits):
        if split == "train" and not labels[at]:
            raise DataError(
                f"{spool.place(at)}: a training document without labels; dataset.prepare.unlabelled=drop "
                f"leaves such documents out"
            )


if __name__ == "__main__":
    from hblm.prepare import main_for

    main_for("custom")
