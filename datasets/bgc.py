"""Prepare the Blurb Genre Collection (Aly, Remus, Biemann 2019): blurbs of books, 146 genres on 4 levels.

Reads the official zip or its folder: `BlurbGenreCollection_EN_{train,dev,test}.txt` and `hierarchy.txt`. A
folder with another hierarchy and other books of the same format is read as well, such as those of
GermEval 2019: one file of books is split here, and labels may lie in `gold.txt`, by ISBN.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hblm.config.converter_options import read_options
from hblm.console import StartTask
from hblm.data.convert.document_buffer import DocumentBuffer
from hblm.data.convert.label_trees import read_tree
from hblm.data.convert.splits import fill_splits, require_shares
from hblm.data.raw.archives import Raw, RawFile
from hblm.data.raw.blurbs import BookRecord, read_books, read_gold
from hblm.data.raw.cleaning import CLEANINGS, Cleaning
from hblm.data.raw.tables import split_of_name
from hblm.data.raw.text import require_encoding
from hblm.data.writer import Conversion
from hblm.document import SPLITS
from hblm.errors import DataError
from hblm.taxonomy import Taxonomy

LICENCE = "CC BY-NC 4.0; the blurbs are (c) Penguin Random House."
TEXTS: Mapping[str, Callable[[BookRecord], str]] = {
    "body": lambda book: book.body,
    "title": lambda book: book.title,
    "title_body": lambda book: f"{book.title}\n{book.body}",
    "hjcl": lambda book: f"Title: {book.title}. Text: {book.body}",
}


class Options(NamedTuple):
    """Options of a preparation.

    Attributes:
        text: which parts of a book are its text; hjcl: as HJCL writes it, `Title: ... . Text: ...`.
        unused_nodes: what happens to nodes of hierarchy.txt that no book has.
        repeated_ids: what happens to a second book with the same ISBN; number: its id gets a number.
        shares: of train, val and test, where the books come in one file.
        seed: of these splits.
        clean: a published cleaning of the texts.
        encoding: of the files; null: the byte-order mark's, else UTF-8.
    """

    text: Literal["body", "title", "title_body", "hjcl"] = "body"
    unused_nodes: Literal["drop", "keep"] = "drop"
    repeated_ids: Literal["refuse", "number"] = "refuse"
    shares: list[float] = [0.8, 0.1, 0.1]  # noqa: RUF012 (never changed)
    seed: int = 13
    clean: Cleaning = "none"
    encoding: str | None = None


def convert(raw: Path, options: Mapping[str, Any], scratch: Path, progress: StartTask) -> Conversion:
    """Read hierarchy and books.

    Raises:
        ConfigError: an invalid option.
        DataError: a missing file, or a fault with its file and line.
    """
    chosen = read_options(Options, options, "bgc")
    require_encoding(chosen.encoding)
    require_shares(chosen.shares)
    counts: Counter[str] = Counter()
    buffer = DocumentBuffer(scratch, "; dataset.prepare.repeated_ids=number gives the later one another")
    advance = progress("reading books", None)
    with Raw(raw) as files:
        tree = read_tree(files.find("hierarchy*.txt"), chosen.encoding)
        gold_files = files.matching("gold*.txt")
        gold_file = files.find("gold*.txt") if gold_files else None
        gold = _GoldLabels(gold_file, read_gold(gold_file, chosen.encoding)) if gold_file else None
        for file, split in _book_files(files):
            before = len(buffer)
            for book in read_books(file, chosen.encoding):
                labels = _labels(book, file, tree, gold, counts)
                identity = book.isbn
                if chosen.repeated_ids == "number":
                    identity = _numbered(identity, buffer, counts)
                text = CLEANINGS[chosen.clean](TEXTS[chosen.text](book))
                buffer.add(identity, text, labels, split, f"{file.place}:", book.line)
                advance(1)
            if len(buffer) == before:
                raise DataError(f"{file.place}: holds no books")
        sources = files.sources()
    taxonomy, dropped = _used(tree, buffer) if chosen.unused_nodes == "drop" else (tree, [])
    counts["nodes_without_documents_dropped"] = len(dropped)
    splits, notes = fill_splits(buffer, buffer.labels, shares=chosen.shares, seed=chosen.seed)
    if dropped:
        notes.append(f"nodes of the hierarchy without books, dropped: {', '.join(dropped)}")
    return Conversion(
        taxonomy=taxonomy,
        splits=buffer.documents(buffer.labels, splits),
        options=chosen._asdict(),
        sources=sources,
        counts=dict(sorted(counts.items())),
        warnings=notes,
        licence=LICENCE,
    )


def _book_files(files: Raw) -> list[tuple[RawFile, str]]:
    """Return the files of books with their splits; "" for a file that will be split."""
    files_of_books = files.matching("blurb*.txt")
    by_split = {split_of_name(file.base): file for file in files_of_books}
    if len(files_of_books) == 1 and not fnmatchcase(files_of_books[0].base.lower(), "blurbgenrecollection_*"):
        return [(files_of_books[0], "")]
    if len(by_split) != len(files_of_books) or sorted(by_split) != sorted(SPLITS):
        names = ", ".join(file.name for file in files_of_books) or f"none; it holds {files.listing()}"
        raise DataError(
            f"{files.path}: expected BlurbGenreCollection_EN_train.txt, ..._dev.txt and ..._test.txt, or one "
            f"file blurb*.txt; found {names}"
        )
    return [(by_split[split], split) for split in SPLITS]


class _GoldLabels(NamedTuple):
    """Labels by ISBN, each with its line, and their file."""

    file: RawFile
    labels: Mapping[str, tuple[int, tuple[str, ...]]]


def _labels(
    book: BookRecord, file: RawFile, tree: Taxonomy, gold: _GoldLabels | None, counts: Counter[str]
) -> tuple[str, ...]:
    """Return the book's nodes: names are unique in these hierarchies, and so they are the ids."""
    place = f"{file.place}:{book.line}"
    labels = tuple(name for _, name in book.topics)
    if not labels and gold is not None and book.isbn in gold.labels:
        line, labels = gold.labels[book.isbn]
        place = f"{gold.file.place}:{line}"
    if not labels:
        where = f", and {gold.file.place} has no line for its ISBN {book.isbn}" if gold else ""
        raise DataError(f"{place}: the book has no topics{where}")
    for label in labels:
        if label not in tree.index:
            raise DataError(f"{place}: topic {label!r:.100} is not in the hierarchy{tree.suggest(label)}")
    counts["topics_on_another_level_than_said"] += sum(
        tree.index[name] not in tree.levels[level] if level < len(tree.levels) else True
        for level, name in book.topics
    )
    return labels


def _numbered(isbn: str, buffer: DocumentBuffer, counts: Counter[str]) -> str:
    """Return an unused id: the ISBN, or the ISBN with a number."""
    identity, number = isbn, 1
    while buffer.has(identity):
        number += 1
        identity = f"{isbn}-{number}"
    counts["repeated_ids_numbered"] += number > 1
    return identity


def _used(tree: Taxonomy, buffer: DocumentBuffer) -> tuple[Taxonomy, list[str]]:
    """Return the tree of the nodes with books, and the other nodes."""
    used = {node for labels in set(buffer.labels) for node in tree.close(labels)}
    dropped = [node.id for node in tree.nodes if node.id not in used]
    return Taxonomy(node for node in tree.nodes if node.id in used), dropped


if __name__ == "__main__":
    from hblm.prepare import main_for

    main_for("bgc")
