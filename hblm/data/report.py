"""Report on a prepared dataset: report.md in its folder, and the same tables on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hblm.config.schema import plain
from hblm.console import VisibleConsole, visible
from hblm.data.statistics import SAMPLE, DatasetStatistics
from hblm.data.token_counter import TokenCounter
from hblm.document import SPLITS

_LISTED = 20  # the largest number of nodes, or of sources, that are listed
_PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))


@dataclass(frozen=True)
class Section:
    """A titled table and the notes below it."""

    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    notes: Sequence[str] = ()


class Description:
    """The report on a dataset.

    Attributes:
        statistics: the counts.
        sections: the tables with their notes, in order.
    """

    def __init__(self, statistics: DatasetStatistics, tokens: TokenCounter) -> None:
        """Make the sections from the statistics of a dataset, whose text lengths `tokens` counted."""
        self.statistics = statistics
        self.sections = [
            _documents(statistics),
            _levels(statistics),
            _support(statistics),
            _paths(statistics),
            _nodes(statistics),
            _duplicates(statistics),
            _lengths(statistics, tokens),
            _provenance(statistics),
        ]

    def markdown(self) -> str:
        """Return the text of report.md."""
        fingerprint = self.statistics.prepared.fingerprint
        lines = [f"# {_escaped(self.statistics.prepared.name)}", "", _headline(self.statistics), ""]
        lines += [f"sha256 of the four files together: {fingerprint}", ""]
        for section in self.sections:
            lines += [f"## {section.title}", ""]
            if section.rows:
                lines.append(_row(section.columns))
                lines.append(_row("---:" if at else "---" for at in range(len(section.columns))))
                lines += [_row(map(_cell, row)) for row in section.rows]
                lines.append("")
            lines += [f"- {_escaped(note)}" for note in section.notes]
            lines += [""] if section.notes else []
        return "\n".join(lines)

    def show(self, console: Console | None = None) -> None:
        """Print the report."""
        console = console or VisibleConsole()
        place = Text(visible(f"{self.statistics.prepared.folder}: {_headline(self.statistics)}"))
        console.print(place)
        for section in self.sections:
            if section.rows:
                table = Table(title=section.title, title_justify="left")
                for at, column in enumerate(section.columns):
                    table.add_column(column, justify="right" if at else "left", overflow="fold")
                for row in section.rows:
                    table.add_row(*(Text(visible(_cell(value))) for value in row))
                console.print(table)
            else:
                console.print(section.title, style="italic", highlight=False)
            for note in section.notes:
                console.print(Text(visible(f"  {note}")))


def _headline(statistics: DatasetStatistics) -> str:
    taxonomy = statistics.prepared.taxonomy
    documents = sum(split.counts.documents for split in statistics.splits.values())
    levels = " / ".join(f"{len(level):,}" for level in taxonomy.levels)
    return f"{documents:,} documents, {len(taxonomy):,} nodes on {len(taxonomy.levels)} levels ({levels})."


def _documents(statistics: DatasetStatistics) -> Section:
    columns = ("split", "documents", "labels each", "most labels", "several paths", "stop above a leaf")
    rows = []
    for split, split_statistics in statistics.splits.items():
        counts = split_statistics.counts
        several = sum(count for paths, count in split_statistics.n_paths.items() if paths > 1)
        rows.append(
            (
                split,
                counts.documents,
                f"{counts.support.total() / counts.documents:.2f}",
                max(split_statistics.n_labels),
                _share(several, counts.documents),
                _share(split_statistics.above_a_leaf, counts.documents),
            )
        )
    manifest = statistics.prepared.manifest or {}
    notes = list(manifest.get("warnings") or [])
    for split, number in (manifest.get("dropped") or {}).items():
        notes.append(f"{split}: {number:,} more are listed, and were dropped for having no text or no label")
    for split, split_statistics in statistics.splits.items():
        if split_statistics.counts.unlabelled:
            notes.append(f"{split}: {split_statistics.counts.unlabelled:,} documents without labels")
        if split_statistics.counts.blank_texts:
            notes.append(f"{split}: {split_statistics.counts.blank_texts:,} documents without text")
    return Section("Documents", columns, rows, notes)


def _levels(statistics: DatasetStatistics) -> Section:
    rows: list[tuple[object, ...]] = []
    supports = {name: split.counts.support for name, split in statistics.splits.items()}
    for level, ids in enumerate(_ids(statistics)):
        unused = sum(not any(support[node] for support in supports.values()) for node in ids)
        unlearnt = sum(not supports["train"][node] for node in ids)
        labels = [sum(support[node] for node in ids) for support in supports.values()]
        rows.append((level, len(ids), unused, unlearnt, *labels))
    columns = (
        "level",
        "nodes",
        "without documents",
        "without training",
        *(f"{split} labels" for split in SPLITS),
    )
    return Section("Levels", columns, rows)


def _support(statistics: DatasetStatistics) -> Section:
    rows: list[tuple[object, ...]] = []
    support = statistics.splits["train"].counts.support
    for level, ids in enumerate(_ids(statistics)):
        spread = np.quantile([support[node] for node in ids], (0, 0.25, 0.5, 0.75, 1), method="nearest")
        rows.append((level, *(int(value) for value in spread)))
    return Section("Training documents of a node", ("level", "least", "25 %", "median", "75 %", "most"), rows)


def _ids(statistics: DatasetStatistics) -> list[list[str]]:
    """Return the node ids of each level."""
    taxonomy = statistics.prepared.taxonomy
    return [[taxonomy.nodes[at].id for at in level] for level in taxonomy.levels]


def _paths(statistics: DatasetStatistics) -> Section:
    rows = []
    for level in range(len(statistics.prepared.taxonomy.levels)):
        for leaf in (True, False):
            ends = [split.ends[level, leaf] for split in statistics.splits.values()]
            if any(ends):
                rows.append((f"level {level}, {'at a leaf' if leaf else 'above a leaf'}", *ends))
    most = max(max(split.n_paths, default=0) for split in statistics.splits.values())
    for number in range(min(most, 4) + 1):
        more = number == 4 and most > 4
        documents = [
            sum(count for paths, count in split.n_paths.items() if paths == number or (more and paths > 4))
            for split in statistics.splits.values()
        ]
        if any(documents):
            name = f"{number}{' or more' * more} path{'' if number == 1 else 's'}"
            rows.append((f"documents with {name}", *documents))
    return Section("Path shapes", ("paths that end on ...", *SPLITS), rows, _closed(statistics))


def _closed(statistics: DatasetStatistics) -> list[str]:
    repaired = (statistics.prepared.manifest or {}).get("repaired")
    if not isinstance(repaired, dict):
        return ["every document has the ancestors of its labels"]
    closed = repaired.get("documents_closed", 0)
    return [f"label sets that were not closed: {closed:,}; their ancestors were added"]


def _nodes(statistics: DatasetStatistics) -> Section:
    nodes = statistics.prepared.taxonomy.nodes
    supports = {
        split: split_statistics.counts.support for split, split_statistics in statistics.splits.items()
    }
    by_train = sorted(nodes, key=lambda node: supports["train"][node.id])
    shown = by_train if len(nodes) <= 10 else [*by_train[:5], *by_train[-5:]]
    rows = [(node.id, *(supports[split][node.id] for split in SPLITS)) for node in reversed(shown)]
    title = "Nodes" if len(nodes) <= 10 else "Most and least frequent nodes"
    unused = [node.id for node in nodes if not any(support[node.id] for support in supports.values())]
    unlearnt = [node.id for node in nodes if not supports["train"][node.id] and node.id not in unused]
    children = Counter(statistics.prepared.taxonomy.parents)
    only = sum(count == 1 for parent, count in children.items() if parent >= 0)
    repeated = len(nodes) - len({node.name for node in nodes})
    notes = []
    if unused:
        notes.append(f"nodes without documents: {_named(unused)}; each adds a zero to macro-F1")
    if unlearnt:
        notes.append(f"nodes without training documents: {_named(unlearnt)}")
    if repeated:
        notes.append(f"names that repeat: {repeated:,} nodes share theirs with an earlier one")
    if only:
        notes.append(f"nodes with a single child: {only:,}")
    return Section(title, ("node", *(f"{split} documents" for split in SPLITS)), rows, notes)


def _duplicates(statistics: DatasetStatistics) -> Section:
    rows = [(f"within {split}", statistics.repeated_within(split)) for split in SPLITS]
    rows += [
        (f"{later}, text also in {earlier}", statistics.shared(earlier, later)) for earlier, later in _PAIRS
    ]
    notes = []
    if any(count for _, count in rows[len(SPLITS) :]):
        notes.append("texts that are in two splits make scores better than they are on new texts")
    return Section("Documents with equal texts", ("where", "documents"), rows, notes)


def _lengths(statistics: DatasetStatistics, tokens: TokenCounter) -> Section:
    rows = [
        (split, "words", *_spread(split_statistics.words))
        for split, split_statistics in statistics.splits.items()
    ]
    columns = ("split", "unit", "median", "90 %", "99 %", "longest", f"cut at {tokens.max_length} tokens")
    rows = [(*row, "") for row in rows]
    if tokens.count is None:
        notes = [f"tokens of {tokens.model} are not counted: {tokens.why_not}"]
        return Section("Text lengths", columns[:-1], [row[:-1] for row in rows], notes)
    notes = [f"tokens: those of {tokens.model}, special tokens included"]
    for split, split_statistics in statistics.splits.items():
        cut = sum(length > tokens.max_length for length in split_statistics.tokens)
        rows.append(
            (split, "tokens", *_spread(split_statistics.tokens), _share(cut, len(split_statistics.tokens)))
        )
        if len(split_statistics.tokens) < split_statistics.counts.documents:
            notes.append(f"{split}: tokens of {SAMPLE:,} documents drawn at random")
    return Section("Text lengths", columns, rows, notes)


def _spread(lengths: Any) -> tuple[int, ...]:
    return tuple(
        int(value) for value in np.quantile(np.asarray(lengths), (0.5, 0.9, 0.99, 1), method="nearest")
    )


def _provenance(statistics: DatasetStatistics) -> Section:
    manifest = statistics.prepared.manifest
    if manifest is None:
        return Section("Where it comes from", notes=["made by hand: there is no manifest.json"])
    rows: list[tuple[object, object]] = [
        ("converter", f"{manifest.get('converter')} {manifest.get('version')}")
    ]
    options, repaired = manifest.get("options") or {}, manifest.get("repaired") or {}
    rows += [(f"options: {name}", plain(value)) for name, value in options.items() if value is not None]
    for name, count in repaired.items():
        if count:
            rows.append((f"repaired or dropped: {name.replace('_', ' ')}", plain(count)))
    sources = manifest.get("sources") or []
    if len(sources) > _LISTED and all("bytes" in source for source in sources):
        size = sum(source["bytes"] for source in sources)
        rows.append((f"read: {len(sources):,} files", f"{size:,} bytes; manifest.json names them"))
        sources = []
    for source in sources[:_LISTED]:
        size = f"{source['bytes']:,} bytes, " if "bytes" in source else ""
        known = f"sha256 {source['sha256'][:12]}..." if "sha256" in source else source.get("version", "")
        rows.append((f"read: {source.get('name')}", f"{size}{known}"))
    notes = []
    if len(sources) > _LISTED:
        notes.append(f"and {len(sources) - _LISTED:,} more sources; manifest.json names all")
    if manifest.get("licence"):
        notes.append(f"licence: {manifest['licence']}")
    return Section("Where it comes from", ("what", "value"), rows, notes)


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _LISTED:,} more" if len(ids) > _LISTED else ""
    return f"{len(ids):,} ({', '.join(ids[:_LISTED])}{more})"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _escaped(text: str) -> str:
    """Escape characters that Markdown or HTML would interpret."""
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, f"\\{sign}")
    return visible(" ".join(text.split()))
