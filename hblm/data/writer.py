"""Writer of prepared datasets: atomic, with equal bytes for equal input."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import hblm
from hblm.data.expected_counts import compare, mismatch_table
from hblm.document import SPLITS, Document, check_text
from hblm.errors import DataError
from hblm.files import new_folder, sha256_file
from hblm.json_files import canonical_json
from hblm.taxonomy import Taxonomy

FILES = ("taxonomy.json", *(f"{split}.jsonl" for split in SPLITS))
MANIFEST = "manifest.json"
REPORT = "report.md"

_MISMATCH = "the counts are not those expected (allow_mismatch=true)"


@dataclass
class Conversion:
    """The result of a converter.

    Attributes:
        taxonomy: the label forest.
        splits: documents of exactly train, val and test; each is iterated once, in that order.
        options: the options of the converter as used, in plain JSON types.
        version: of the converter; it grows when the bytes for equal input change.
        sources: files (name, size, sha256) or packages (name, version) that were read.
        counts: repairs and dropped documents by reason; read after the splits are written.
        warnings: for the user; written to the manifest.
        licence: of the data, if it is known.
        documents: the number of documents, for a progress bar; None: unknown.
        dropped: documents per split that the raw data lists, and that had no text or no label.
    """

    taxonomy: Taxonomy
    splits: Mapping[str, Iterable[Document]]
    options: Mapping[str, Any]
    version: int = 1
    sources: Sequence[Mapping[str, Any]] = ()
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    licence: str = ""
    documents: int | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass
class SplitCounts:
    """Counts of one split, in all and per level; memory grows with the nodes, not with the documents."""

    taxonomy: Taxonomy
    documents: int = 0
    unlabelled: int = 0
    blank_texts: int = 0
    support: Counter[str] = field(default_factory=Counter)
    at_level: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Index the level of each node."""
        nodes, levels = self.taxonomy.nodes, self.taxonomy.levels
        self.level = {nodes[at].id: level for level, places in enumerate(levels) for at in places}

    def add(self, document: Document) -> None:
        """Count a document, whose labels are nodes, closed and distinct."""
        self.documents += 1
        self.unlabelled += not document.labels
        self.blank_texts += not document.text or document.text.isspace()
        self.support.update(document.labels)
        for level in {self.level[label] for label in document.labels}:
            self.at_level[level] += 1

    def as_json(self) -> dict[str, Any]:
        """Return the counts as in the manifest; `nodes` of a level are those with support."""
        levels = []
        for level, places in enumerate(self.taxonomy.levels):
            support = [self.support[self.taxonomy.nodes[at].id] for at in places]
            nodes = sum(count > 0 for count in support)
            levels.append({"documents": self.at_level[level], "labels": sum(support), "nodes": nodes})
        return {
            "documents": self.documents,
            "labels": self.support.total(),
            "unlabelled": self.unlabelled,
            "blank_texts": self.blank_texts,
            "levels": levels,
        }


def write_dataset(
    target: Path,
    conversion: Conversion,
    *,
    converter: str,
    on_document: Callable[[], None] = lambda: None,
    expect: Mapping[str, Any] = MappingProxyType({}),
    allow_mismatch: bool = False,
) -> dict[str, Any]:
    """Write a prepared dataset and return its manifest; an older one at `target` is replaced.

    Args:
        target: the folder; its name is that of the dataset.
        conversion: taxonomy and documents; this function closes and orders the labels.
        converter: the name of the converter.
        on_document: called after each document, for a progress bar.
        expect: the expected counts (expected_counts.py).
        allow_mismatch: write the dataset, with a warning, if the counts differ.

    Raises:
        ConfigError: invalid expectations.
        DataError: an invalid document, an empty split, other counts than expected, or files at `target` that
            do not belong to a prepared dataset.
    """
    if sorted(conversion.splits) != sorted(SPLITS):
        raise DataError(f"{converter}: the splits must be {SPLITS}, not {tuple(conversion.splits)}")
    given = _plain_json(converter, {"options": conversion.options, "sources": list(conversion.sources)})
    repaired = {"documents_closed": 0, "documents_with_repeated_labels": 0}
    place = Path(os.path.realpath(target))  # a link stays a link: the folder that it points to is replaced
    try:
        _refuse_foreign(target)
        with new_folder(place) as folder:
            (folder / FILES[0]).write_text(conversion.taxonomy.to_json(), encoding="utf-8", newline="\n")
            counts = {}
            for split in SPLITS:
                split_counts = SplitCounts(conversion.taxonomy)
                writer = _SplitWriter(target / f"{split}.jsonl", split_counts, repaired)
                writer.write(conversion.splits[split], folder / f"{split}.jsonl", on_document)
                counts[split] = split_counts.as_json()
            met = _require_expected(target, conversion, counts, expect, allow_mismatch)
            manifest = {
                "name": Path(os.path.abspath(target)).name,
                "converter": converter,
                "version": conversion.version,
                "hblm": hblm.__version__,
                **given,
                "taxonomy": {"nodes": len(conversion.taxonomy), "levels": _level_sizes(conversion)},
                "counts": counts,
                "expected": {**expect, "met": met},
                **({"dropped": _dropped(conversion)} if _dropped(conversion) else {}),
                "repaired": repaired | dict(sorted(conversion.counts.items())),
                "warnings": [*conversion.warnings, *([] if met else [_MISMATCH])],
                "licence": conversion.licence,
                "files": {file: sha256_file(folder / file) for file in FILES},
            }
            text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
            (folder / MANIFEST).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:  # a full disk, a read-only folder, or a raw file that was removed
        raise DataError(
            f"{error.filename or target}: {error.strerror or error}; nothing was written"
        ) from error
    return manifest


def _require_expected(
    target: Path,
    conversion: Conversion,
    counts: Mapping[str, Any],
    expect: Mapping[str, Any],
    allow_mismatch: bool,
) -> bool:
    """Return whether the counts are the expected ones; refuse others unless they are allowed."""
    mismatch = mismatch_table(compare(expect, counts, _level_sizes(conversion), _dropped(conversion)))
    if mismatch and not allow_mismatch:
        raise DataError(
            f"{target}: not the set that was expected, so nothing was written "
            f"(allow_mismatch=true writes it):\n{mismatch}"
        )
    return not mismatch


def _level_sizes(conversion: Conversion) -> list[int]:
    return [len(level) for level in conversion.taxonomy.levels]


def _dropped(conversion: Conversion) -> dict[str, int]:
    return {split: number for split, number in conversion.dropped.items() if number}


@dataclass
class _SplitWriter:
    """Writes one split, document by document; `path` is its final path, for messages."""

    path: Path
    counts: SplitCounts
    repaired: dict[str, int]

    def write(self, documents: Iterable[Document], into: Path, on_document: Callable[[], None]) -> None:
        """Stream the documents to the file `into`."""
        seen: set[str] = set()
        with into.open("w", encoding="utf-8", newline="\n") as stream:
            for number, document in enumerate(documents, 1):
                place = f"{self.path}:{number}"
                if not (document.id and isinstance(document.id, str) and isinstance(document.text, str)):
                    raise DataError(
                        f"{place}: id must be a string that is not empty, and text a string, found "
                        f"id {document.id!r:.60}, text {document.text!r:.60}"
                    )
                if document.id in seen:
                    raise DataError(
                        f"{place}, document {document.id!r:.100}: another document of this split has the "
                        f"same id; ids are unique within a split"
                    )
                seen.add(document.id)
                check_text(document.id, document.text, place)
                closed = self._closed(document, place)
                stream.write(closed.to_json() + "\n")
                self.counts.add(closed)
                on_document()
        if not seen:
            raise DataError(f"{self.path}: the split is empty; it needs at least one document")

    def _closed(self, document: Document, place: str) -> Document:
        """Return the document with the ancestors of its labels, in taxonomy order; count repairs."""
        taxonomy = self.counts.taxonomy
        given = set(document.labels)
        for label in given:
            if label not in taxonomy.index:
                raise DataError(
                    f"{place}, document {document.id!r:.100}: label {label!r:.100} is not a node of the "
                    f"taxonomy{taxonomy.suggest(str(label))}"
                )
        if not given and self.path.stem == "train":
            raise DataError(
                f"{place}, document {document.id!r:.100}: no labels; a training document needs at least one"
            )
        closed = taxonomy.close(given)
        self.repaired["documents_closed"] += len(closed) > len(given)
        self.repaired["documents_with_repeated_labels"] += len(given) < len(document.labels)
        return Document(document.id, document.text, tuple(sorted(closed, key=taxonomy.index.__getitem__)))


def _refuse_foreign(target: Path) -> None:
    """Refuse to replace a file or folder that is not a prepared dataset."""
    if not os.path.lexists(target) or (target.is_symlink() and not target.exists()):
        return
    if not target.is_dir():
        raise DataError(f"{target}: a file lies where the dataset's folder should be; move it away first")
    names = sorted(path.name for path in target.iterdir())
    foreign = [name for name in names if name not in (*FILES, MANIFEST, REPORT)]
    if foreign:
        raise DataError(
            f"{target}: holds {', '.join(foreign[:5])}, not a prepared dataset's; "
            f"move it away or give another folder"
        )
    if names and MANIFEST not in names:
        raise DataError(
            f"{target}: has no {MANIFEST}, so it was made or edited by hand; "
            f"move it away or give another folder"
        )


def _plain_json(converter: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value as JSON gives it back, keys sorted; invalid JSON is refused before hours are spent."""
    try:
        plain: dict[str, Any] = json.loads(canonical_json(value))
    except (TypeError, ValueError) as error:
        raise DataError(f"{converter}: options and sources must be plain JSON: {error}") from None
    return plain
