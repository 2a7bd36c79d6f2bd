"""Prepare WOS-46985 (Kowsari et al. 2017, HDLTex): abstracts of papers, 141 nodes on 2 levels.

Reads `Data.xlsx`, or the `Data.txt` that people save from it, in the zip as downloaded or unpacked. Tree,
areas that are merged and splits are those of HiAGM, which HGCLR, HPT, HBGL and HiTIN took over.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from hblm.config.converter_options import read_options
from hblm.console import StartTask
from hblm.data.convert.document_buffer import DocumentBuffer
from hblm.data.convert.splits import held_out
from hblm.data.raw.archives import Raw, RawFile
from hblm.data.raw.cleaning import CLEANINGS, Cleaning, plain_name
from hblm.data.raw.spreadsheet import read_sheet
from hblm.data.raw.text import encoding_of, read_lines, require_encoding
from hblm.data.writer import Conversion
from hblm.errors import DataError
from hblm.taxonomy import Node, Taxonomy

NUMBER = re.compile("[0-9]{1,9}")
TABLES = ("Data.xlsx", "Data.txt", "Data.xls")
COLUMNS = ("Y1", "Y2", "Domain", "area", "Abstract")  # of Y1 Y2 Y Domain area keywords Abstract
# Of "Y1-Y2" of the 46,985 rows in their order, joined by spaces: merging and splits depend on it.
ROWS, ORDER = 46_985, "db4632adc985d4e537e7e0ee4b1ee0743290dfbc83277adaff56e8eccb8dccfe"
# The domains' names in the set's ReadMe.txt, where the cells of Domain say less.
DOMAINS = {
    "CS": "Computer Science",
    "ECE": "Electrical Engineering",
    "MAE": "Mechanical Engineering",
    "Civil": "Civil Engineering",
    "Medical": "Medical Science",
}
OTHERWISE = "cp1252"  # what Excel writes where it is not UTF-8 or UTF-16
LICENCE = (
    "(c) 2017 Kamran Kowsari; the ReadMe grants use and redistribution in the manner of the MIT licence."
)


class Options(NamedTuple):
    """Options of a preparation.

    Attributes:
        merge: published: areas that share a code are merged as HiAGM does; none: they stay apart.
        clean: a published cleaning of the texts.
        encoding: of Data.txt; null: UTF-8 or UTF-16 if it is that, else cp1252.
    """

    merge: Literal["published", "none"] = "published"
    clean: Cleaning = "none"
    encoding: str | None = None


class Table(NamedTuple):
    """The table in a file: (line or row, cells) with the header first, and how it was read."""

    file: RawFile
    place: str
    cells: Iterator[tuple[int, list[str]]]
    encoding: str | None
    notes: list[str]


class Row(NamedTuple):
    """One document: its codes `Y1-Y2`, its names, its text, and its line or row."""

    code: str
    domain: str
    area: str
    text: str
    number: int


def convert(raw: Path, options: Mapping[str, Any], scratch: Path, progress: StartTask) -> Conversion:
    """Read the rows, merge areas, split.

    Raises:
        ConfigError: an invalid option.
        DataError: no table, or a fault with its file and line.
    """
    chosen = read_options(Options, options, "wos")
    require_encoding(chosen.encoding)
    clean = CLEANINGS[chosen.clean]
    buffer = DocumentBuffer(scratch)
    codes: list[str] = []
    empty: list[int] = []
    with Raw(raw) as files:
        table = _table(files, chosen.encoding)
        advance = progress("reading abstracts", None)
        for row in _rows(table):
            buffer.add(
                str(len(buffer)),
                clean(row.text),
                (row.domain, row.area),
                "",
                table.place,
                row.number,
            )
            codes.append(row.code)
            advance(1)
            if not row.text:
                empty.append(row.number)
        by_split = published_split(len(buffer))
        if not all(by_split.values()):
            raise DataError(
                f"{table.file.place}: {len(buffer)} rows below its header, too few for three splits"
            )
        sources = files.sources()
    pairs = buffer.labels
    areas = merged(codes, pairs) if chosen.merge == "published" else [area for _, area in pairs]
    merged_pairs = [(domain, area) for (domain, _), area in zip(pairs, areas, strict=True)]
    taxonomy, node_of = tree(merged_pairs)
    labels = [(domain, node_of[domain, area]) for domain, area in merged_pairs]
    split_of = {row: split for split, rows in by_split.items() for row in rows}
    splits = [split_of[row] for row in range(len(buffer))]
    changed = sum(before != after for before, after in zip(pairs, merged_pairs, strict=True))
    return Conversion(
        taxonomy=taxonomy,
        splits=buffer.documents(labels, splits, list(split_of)),
        documents=len(buffer),
        options=chosen._asdict() | {"encoding": table.encoding},
        version=2,  # 2: domains have texts
        sources=sources,
        counts={"documents_with_their_area_merged": changed},
        warnings=[*table.notes, *_empty(empty), *_merges(pairs, areas), *_notes(codes, labels, splits)],
        licence=LICENCE,
    )


def merged(codes: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return the area of each row, areas that share a code merged as HiAGM's preparation does it.

    A row takes the first area seen so far under its code (its own included) that has more rows in its domain
    than its own. So the result depends on the order of rows: a small area that comes before the larger one
    keeps the rows until then (in WOS, Electrical generator keeps one).
    """
    rows = Counter(pairs)
    seen: dict[str, dict[str, None]] = {}
    areas = []
    for code, (domain, area) in zip(codes, pairs, strict=True):
        known = seen.setdefault(code, {})
        known[area] = None
        larger = (other for other in known if rows[domain, other] > rows[domain, area])
        areas.append(next(larger, area))
    return areas


def tree(pairs: Iterable[tuple[str, str]]) -> tuple[Taxonomy, dict[tuple[str, str], str]]:
    """Return the tree of domains and areas, and the node of each pair.

    A node's id is its name; an area whose name another node has as well is `domain/area`. Domains that are
    abbreviated have their name in full as text.
    """
    distinct = sorted(set(pairs))
    domains = sorted({domain for domain, _ in distinct})
    times = Counter([*domains, *(area for _, area in distinct)])
    node_of = {(domain, area): area if times[area] == 1 else f"{domain}/{area}" for domain, area in distinct}
    nodes = [Node(domain, domain, None, DOMAINS.get(domain)) for domain in domains]
    nodes += [Node(node, area, domain) for (domain, area), node in node_of.items()]
    return Taxonomy(nodes), node_of


def published_split(rows: int) -> dict[str, list[int]]:
    """Return the rows of each split, in the order of HiAGM's files: numpy's seed 7, then a fifth twice."""
    order = list(range(rows))
    np.random.RandomState(7).shuffle(order)
    rest, test = held_out(order, math.ceil(0.2 * rows))
    train, val = held_out(rest, math.ceil(0.2 * len(rest)))
    return {"train": train, "val": val, "test": test}


def _table(files: Raw, encoding: str | None) -> Table:
    """Open the sheet, or else the text saved from it.

    Raises:
        DataError: neither is there.
    """
    if not files.matching(*TABLES):
        files.open_archives()  # the download is a zip that holds WebOfScience.zip
    name = next((name for name in TABLES if files.matching(name)), None)
    if name:
        file = files.find(name)
    elif len(files.files) == 1 and files.files[0].base.lower().endswith((".xlsx", ".xls", ".txt")):
        file = files.files[0]
    else:
        raise DataError(
            f"{files.path}: no Data.xlsx and no Data.txt (they lie in Meta-data/ of WebOfScience.zip); "
            f"it holds {files.listing()}"
        )
    if not file.base.lower().endswith(".txt"):
        return Table(file, f"{file.place}: row ", read_sheet(file), encoding, [])
    chosen = encoding or encoding_of(file, OTHERWISE)
    guessed = f"{file.base} is not UTF-8 and was read as {chosen}; dataset.prepare.encoding says otherwise"
    lines = enumerate(read_lines(file, chosen), 1)
    cells = ((number, [_unquoted(cell) for cell in line.split("\t")]) for number, line in lines)
    return Table(
        file, f"{file.place}:", cells, chosen, [guessed] if not encoding and chosen == OTHERWISE else []
    )


def _rows(table: Table) -> Iterator[Row]:
    """Yield the rows below the header, names without blanks around them.

    Raises:
        DataError: a column that is missing, a row of another length, or one without a name.
    """
    place, cells = table.place, table.cells
    number, header = next(cells, (1, []))
    names = [cell.strip().casefold() for cell in header]
    missing = [name for name in COLUMNS if name.casefold() not in names]
    if missing:
        raise DataError(
            f"{place}{number}: no column {' and no '.join(missing)}; expected Y1, Y2, Y, Domain, area, "
            f"keywords, Abstract, found {', '.join(header)!r:.100}"
        )
    columns = [names.index(name.casefold()) for name in COLUMNS]
    for number, row in cells:
        if len(row) != len(header):
            raise DataError(
                f"{place}{number}: {len(row)} columns where the header has {len(header)}; an abstract with a "
                f"line end or a tab in it? read Data.xlsx instead"
            )
        y1, y2, domain, area, text = (row[column].strip() for column in columns)
        for name, value in (("Y1", y1), ("Y2", y2)):
            if not NUMBER.fullmatch(value):
                raise DataError(f"{place}{number}: {name} is {value!r:.40}, expected a whole number")
        domain, area = plain_name(domain), plain_name(area)
        for name, value in (("Domain", domain), ("area", area)):
            if not value:
                raise DataError(f"{place}{number}: the {name} is empty")
        yield Row(f"{int(y1)}-{int(y2)}", domain, area, text, number)


def _unquoted(cell: str) -> str:
    """Return a cell without the quotes that Excel added."""
    cell = cell.strip()
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"')
    return cell


def _empty(numbers: Sequence[int]) -> list[str]:
    """Return a note on the rows without abstract, such as Excel's error cells (#NAME?)."""
    more = " ..." if numbers[10:] else ""
    named = ", ".join(map(str, numbers[:10]))
    return [f"{len(numbers):,} abstracts are empty: row {named}{more}"] if numbers else []


def _merges(pairs: Sequence[tuple[str, str]], areas: Sequence[str]) -> list[str]:
    """Return a note on the merged areas, most rows first."""
    moved = Counter(
        (area, into) for (_, area), into in zip(pairs, areas, strict=True) if area != into
    ).most_common()
    merges = ", ".join(f"{area} -> {into} ({rows:,})" for (area, into), rows in moved)
    return [f"areas merged: {merges}"] if merges else []


def _notes(codes: Sequence[str], labels: Sequence[tuple[str, str]], splits: Sequence[str]) -> list[str]:
    """Return notes on the order of the rows, and on nodes without training documents."""
    notes = []
    if len(codes) == ROWS and hashlib.sha256(" ".join(codes).encode()).hexdigest() != ORDER:
        notes.append(
            "the rows have another order, or other codes, than the published ones: splits and which "
            "areas are merged depend on it, and differ from those of the papers"
        )
    support = Counter(node for _, node in labels)
    trained = {node for (_, node), split in zip(labels, splits, strict=True) if split == "train"}
    for node in sorted(support.keys() - trained):
        notes.append(f"{node} has no training document ({support[node]} in all), so no model can learn it")
    return notes


if __name__ == "__main__":
    from hblm.prepare import main_for

    main_for("wos")
