"""Prepare AAPD: arXiv abstracts with their categories (Yang et al. 2018, SGM), 61 nodes on 2 levels.

Three forms of the same 55,840 documents are read: SGM's `text_*` and `label_*` (line i of both is one),
hedwig's `train/dev/test.tsv` (54 digits 0 or 1, a tab, the text), and JSONL (`token` or `text`, `label` or
`labels`). The parent of a category `cs.ai` is its archive `cs`; missing archives are added.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hblm.config.converter_options import read_options
from hblm.console import Advance, StartTask
from hblm.data.convert.cells import cells_of, text_of
from hblm.data.convert.columns import Columns
from hblm.data.convert.document_buffer import DocumentBuffer
from hblm.data.raw.archives import Raw
from hblm.data.raw.cleaning import CLEANINGS, Cleaning
from hblm.data.raw.tables import by_split_name, json_table
from hblm.data.raw.text import read_lines, require_encoding
from hblm.data.writer import Conversion
from hblm.document import SPLITS
from hblm.errors import DataError
from hblm.taxonomy import Node, Taxonomy

# SGM's 54 categories by frequency (its aapd.json), which is also the order of hedwig's 54 digits.
CATEGORIES = {
    "cs.it": "Information Theory",
    "math.it": "Information Theory",
    "cs.lg": "Machine Learning",
    "cs.ai": "Artificial Intelligence",
    "stat.ml": "Machine Learning",
    "cs.ds": "Data Structures and Algorithms",
    "cs.si": "Social and Information Networks",
    "cs.dm": "Discrete Mathematics",
    "physics.soc-ph": "Physics and Society",
    "cs.lo": "Logic in Computer Science",
    "math.co": "Combinatorics",
    "cs.cc": "Computational Complexity",
    "math.oc": "Optimization and Control",
    "cs.ni": "Networking and Internet Architecture",
    "cs.cv": "Computer Vision and Pattern Recognition",
    "cs.cl": "Computation and Language",
    "cs.cr": "Cryptography and Security",
    "cs.sy": "Systems and Control",
    "cs.dc": "Distributed, Parallel, and Cluster Computing",
    "cs.ne": "Neural and Evolutionary Computing",
    "cs.ir": "Information Retrieval",
    "quant-ph": "Quantum Physics",
    "cs.gt": "Computer Science and Game Theory",
    "cs.cy": "Computers and Society",
    "cs.pl": "Programming Languages",
    "cs.se": "Software Engineering",
    "math.pr": "Probability",
    "cs.db": "Databases",
    "cs.cg": "Computational Geometry",
    "cs.na": "Numerical Analysis",
    "cs.hc": "Human-Computer Interaction",
    "math.na": "Numerical Analysis",
    "cs.ce": "Computational Engineering, Finance, and Science",
    "cs.ma": "Multiagent Systems",
    "cs.ro": "Robotics",
    "cs.fl": "Formal Languages and Automata Theory",
    "math.st": "Statistics Theory",
    "stat.th": "Statistics Theory",
    "cs.dl": "Digital Libraries",
    "cmp-lg": "Computation and Language",
    "cs.mm": "Multimedia",
    "cond-mat.stat-mech": "Statistical Mechanics",
    "cs.pf": "Performance",
    "math.lo": "Logic",
    "stat.ap": "Applications",
    "cs.ms": "Mathematical Software",
    "stat.me": "Methodology",
    "cs.sc": "Symbolic Computation",
    "cond-mat.dis-nn": "Disordered Systems and Neural Networks",
    "q-bio.nc": "Neurons and Cognition",
    "physics.data-an": "Data Analysis, Statistics and Probability",
    "nlin.ao": "Adaptation and Self-Organizing Systems",
    "q-bio.qm": "Quantitative Methods",
    "math.nt": "Number Theory",
}
ARCHIVES = {
    "cs": "Computer Science",
    "math": "Mathematics",
    "stat": "Statistics",
    "physics": "Physics",
    "cond-mat": "Condensed Matter",
    "q-bio": "Quantitative Biology",
    "nlin": "Nonlinear Sciences",
}
NAMES = {"train": ("train",), "val": ("val", "valid", "dev"), "test": ("test",)}
ALL_NAMES = [name for names in NAMES.values() for name in names]
PARTS, ENDS = ("text", "label"), ("", ".txt")
DIGITS = re.compile("[01]{54}")
KEYS = (("token", "text", "doc_token", "abstract"), ("label", "labels", "doc_label"))  # of JSONL
LICENCE = "arXiv abstracts; none is stated by those who distribute the set."


class Options(NamedTuple):
    """Options of a preparation.

    Attributes:
        clean: a published cleaning of the texts.
        encoding: of the files; null: the byte-order mark's, else UTF-8.
    """

    clean: Cleaning = "none"
    encoding: str | None = None


def convert(raw: Path, options: Mapping[str, Any], scratch: Path, progress: StartTask) -> Conversion:
    """Read any of the three forms.

    Raises:
        ConfigError: an invalid option.
        DataError: a missing file, or a fault with its file and line.
    """
    chosen = read_options(Options, options, "aapd")
    require_encoding(chosen.encoding)
    taxonomy = tree()
    clean = CLEANINGS[chosen.clean]
    buffer = DocumentBuffer(scratch)
    n_documents = dict.fromkeys(SPLITS, 0)
    with Raw(raw) as files:
        documents, form = _documents(files, chosen.encoding, progress("reading documents", None))
        for split, file, number, text, labels in documents:
            place = f"{file}{number}"
            for label in labels:
                if label not in taxonomy.index:
                    raise DataError(f"{place}: {label!r:.60} is no category of AAPD{taxonomy.suggest(label)}")
            if not labels:
                raise DataError(f"{place}: no label; every document of AAPD has one")
            n_documents[split] += 1
            buffer.add(f"{split}-{n_documents[split]}", clean(text), labels, split, file, number)
        sources = files.sources()
    return Conversion(
        taxonomy=taxonomy,
        splits=buffer.documents(buffer.labels, buffer.splits),
        options=chosen._asdict() | {"form": form},
        sources=sources,
        licence=LICENCE,
    )


def tree() -> Taxonomy:
    """Return the 61 nodes: 9 archives (two without categories), 52 categories."""
    names = dict(sorted((ARCHIVES | CATEGORIES).items()))
    return Taxonomy(
        Node(node, name, node.partition(".")[0] if "." in node else None) for node, name in names.items()
    )


Row = tuple[str, str, int, str, tuple[str, ...]]  # split, file, line, text, labels


def _documents(files: Raw, encoding: str | None, advance: Advance) -> tuple[Iterator[Row], str]:
    """Return the documents in order, and the form of the download."""
    if files.matching(*(f"{part}_{name}{end}" for part in PARTS for name in ALL_NAMES for end in ENDS)):
        return _aligned(files, encoding, advance), "text_label"
    if files.matching("*.tsv"):
        return _digits(files, encoding, advance), "hedwig"
    return _json(files, encoding, advance), "jsonl"


def _aligned(files: Raw, encoding: str | None, advance: Advance) -> Iterator[Row]:
    for split in SPLITS:
        texts, labels = (
            files.find(*(f"{part}_{name}{end}" for name in NAMES[split] for end in ENDS)) for part in PARTS
        )
        n_texts = sum(1 for _ in read_lines(texts, encoding))
        # not beside the texts: in a compressed tar, two at once are slow
        known = list(read_lines(labels, encoding))
        if n_texts != len(known):
            raise DataError(
                f"{labels.place}: {len(known):,} lines, and {texts.place} has {n_texts:,}; line i of both "
                f"is one document, so a file is damaged or of another split"
            )
        if not n_texts:
            raise DataError(f"{texts.place}: empty")
        for number, (text, label) in enumerate(zip(read_lines(texts, encoding), known, strict=True), 1):
            advance(1)
            yield split, f"{labels.place}:", number, text, tuple(label.lower().split())


def _digits(files: Raw, encoding: str | None, advance: Advance) -> Iterator[Row]:
    categories = list(CATEGORIES)
    for split in SPLITS:
        file = files.find(*(f"{name}.tsv" for name in NAMES[split]))
        number = 0
        for number, line in enumerate(read_lines(file, encoding), 1):
            cells = line.split("\t")
            if len(cells) != 2 or not DIGITS.fullmatch(cells[0].strip()):
                raise DataError(
                    f"{file.place}:{number}: expected 54 digits 0 or 1, a tab and the text, found "
                    f"{len(cells)} columns, the first {cells[0]!r:.60}"
                )
            chosen = (at for at, digit in enumerate(cells[0].strip()) if digit == "1")
            advance(1)
            yield split, f"{file.place}:", number, cells[1], tuple(categories[at] for at in chosen)
        if not number:
            raise DataError(f"{file.place}: empty")


def _json(files: Raw, encoding: str | None, advance: Advance) -> Iterator[Row]:
    by_split = by_split_name(files, files.matching("*.jsonl", "*.json"))
    for split in SPLITS:
        if split not in by_split:
            raise DataError(
                f"{files.path}: no file for {split}: expected text_{split} and label_{split}, {split}.tsv, "
                f"or {split}.jsonl; it holds {files.listing()}"
            )
        for table in (json_table(file, split, encoding) for file in by_split[split]):
            text, label = ([key for key in keys if key in table.columns] for keys in KEYS)
            if len(text) != 1 or len(label) != 1:
                raise DataError(
                    f"{table.place}1: expected one of {', '.join(KEYS[0])} and one of {', '.join(KEYS[1])}; "
                    f"its keys are {', '.join(table.columns)}"
                )
            columns = Columns(text=tuple(text), labels=tuple(label), levels=(), id=None, split=None)
            for number, record in table.records():
                place = f"{table.place}{number}"
                cells = " ".join(cells_of(record, columns, place)).lower().split()
                advance(1)
                yield split, table.place, number, text_of(record, columns.text, place), tuple(cells)


if __name__ == "__main__":
    from hblm.prepare import main_for

    main_for("aapd")
