"""Prepare the New York Times Annotated Corpus (LDC2008T19): 36,355 articles, 166 nodes on 8 levels.

Reads LDC's download, its folder with an archive per month, the same unpacked or flattened; and HiAGM's lists
of articles and taxonomy, by which HGCLR, HPT, HBGL and HiTIN prepare it as well.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hblm.config.converter_options import read_options
from hblm.console import StartTask
from hblm.data.convert.document_buffer import DocumentBuffer
from hblm.data.convert.label_trees import read_tree
from hblm.data.raw.archives import Raw, RawFile, reading
from hblm.data.raw.cleaning import Cleaning, plain_name
from hblm.data.raw.many_files import Corpus, ParsedFile, contents
from hblm.data.raw.news_xml import Article, Paragraphs, parse_nitf
from hblm.data.raw.text import read_lines
from hblm.data.writer import Conversion
from hblm.errors import DataError
from hblm.taxonomy import Node, Taxonomy

ARTICLE = r"([0-9]{1,9})\.xml"
LISTS = {  # HiAGM's, with their md5; lines such as Nytimes/1995/0799990.xml, and not JSON
    "train": ("idnewnyt_train.json", "77c45d1c043a602760357bcabacffeb1"),
    "val": ("idnewnyt_val.json", "934ba2692cfefa4d6326c6b4454c22c2"),
    "test": ("idnewnyt_test.json", "8c454ba8e70eda9490d875466b035a59"),
}
TREES = {
    "nyt.taxonomy": "f0579450c316a648b18c2647e4495cc2",
    "nyt_label.vocab": "6f2009108151dcc6147c50a25cb5b551",
}
LINE = re.compile(r"(?:.*/)?([0-9]{1,9})\.xml")
TOP = "Top"  # of every path, and no node
LICENCE = "LDC2008T19, under LDC's user agreement, never to be passed on; lists and taxonomy: HiAGM, MIT."


class Options(NamedTuple):
    """Options of a preparation.

    Attributes:
        text: published: every paragraph but the first, as in the papers; or the block full_text.
        paragraphs: joined by a space, or glued without one as in the papers' scripts.
        overlaps: an article that the lists name again: drop it there, or keep it as another document.
        clean: a published cleaning of the texts.
        lists: folder or archive of the id lists and the taxonomy; null: they lie in raw.
    """

    text: Literal["published", "full_text"] = "published"
    paragraphs: Paragraphs = "space"
    overlaps: Literal["drop", "keep"] = "drop"
    clean: Cleaning = "none"
    lists: str | None = None


class Listing(NamedTuple):
    """A line of a list: an article, its split, the path in the line, and the place of the line."""

    article: str
    split: str
    path: str
    place: str


class Listed(NamedTuple):
    """A document to be made of an article."""

    identity: str
    article: str
    split: str


def convert(raw: Path, options: Mapping[str, Any], scratch: Path, progress: StartTask) -> Conversion:
    """Read lists and taxonomy, then the articles that are listed, on all cores.

    Raises:
        ConfigError: an invalid option.
        DataError: a missing file or article, or a fault with its file and line.
    """
    chosen = read_options(Options, options, "nyt")
    counts: Counter[str] = Counter()
    taxonomy, listings, sources, notes = read_lists(raw, chosen.lists)
    documents = documents_of(listings, chosen.overlaps == "keep", counts)
    of_article: dict[str, list[Listed]] = {}
    for document in documents:
        of_article.setdefault(document.article, []).append(document)
    parse = functools.partial(parse_nitf, text=chosen.text, paragraphs=chosen.paragraphs, clean=chosen.clean)
    corpus = Corpus(raw, ARTICLE, parse, frozenset(of_article))
    buffer = DocumentBuffer(scratch)
    read: dict[str, str] = {}
    dropped: Counter[str] = Counter()
    advance = progress("reading articles", len(of_article))
    for file in corpus.files():
        article = _article(file, read)
        advance(1)
        counts["articles_read_as_iso_8859_1"] += article.latin_1
        labels = labels_of(article.paths, taxonomy)
        fault = "without_text" if article.is_blank else "without_label" if not labels else ""
        if fault:
            counts[f"articles_{fault}_dropped"] += 1
            dropped.update(document.split for document in of_article[file.key])
            continue
        for identity, _, split in of_article[file.key]:
            buffer.add(identity, article.text, labels, split, f"{file.folder}article ", int(file.key))
    _require_all(listings, read, raw)
    if not len(buffer):
        raise DataError(
            f"{raw}: none of the {len(read):,} articles has a text and a label of the tree; is it NYT's?"
        )
    order = [buffer.at(document.identity) for document in documents if buffer.has(document.identity)]
    return Conversion(
        taxonomy=taxonomy,
        splits=buffer.documents(buffer.labels, buffer.splits, order),
        documents=len(buffer),
        options={name: value for name, value in chosen._asdict().items() if name != "lists"},
        sources=[*sources, *(source for source in corpus.sources if source not in sources)],
        counts=dict(sorted(counts.items())),
        dropped=dropped,
        warnings=notes,
        licence=LICENCE,
    )


def _article(file: ParsedFile, read: dict[str, str]) -> Article:
    """Return the article of a file, and add its folder to those `read`; refuse a fault or a repetition."""
    if file.key in read:
        raise DataError(
            f"{file.place}: the article is there a second time, also in {read[file.key]}; an archive "
            f"beside what was unpacked from it? keep one of the two"
        )
    read[file.key] = file.folder
    if file.fault:
        raise DataError(f"{file.place}: {file.fault}")
    article: Article = file.value
    if article.identity and article.identity.lstrip("0") != file.key.lstrip("0"):
        raise DataError(f"{file.place}: its doc-id is {article.identity!r:.40}, not that of its name")
    return article


def documents_of(listings: list[Listing], keep: bool, counts: Counter[str]) -> list[Listed]:
    """Return the documents in the order of the lists: one of an article, unless repetitions are kept.

    Training comes before validation, and validation before test. A repeated article is counted
    for its own list, or else for the pair with the earliest list.
    """
    documents = []
    named: dict[str, list[str]] = {}
    for article, split, _, _ in listings:
        before = named.setdefault(article, [])
        if before:
            where = f"again_in_{split}" if split in before else f"in_{split}_and_{before[0]}"
            counts[f"articles_listed_{where}"] += 1
        before.append(split)
        if len(before) == 1 or keep:
            documents.append(Listed(f"{article}-{len(before)}" if before[1:] else article, article, split))
    return documents


def labels_of(paths: tuple[str, ...], taxonomy: Taxonomy) -> tuple[str, ...]:
    """Return the nodes on the paths: prefixes that are nodes, of paths with three names or more."""
    nodes: dict[str, None] = {}
    for path in paths:
        names = [plain_name(name) for name in path.split("/")]
        if len(names) >= 3:
            nodes |= dict.fromkeys("/".join(names[:depth]) for depth in range(2, len(names) + 1))
    return tuple(node for node in nodes if node in taxonomy.index)


def read_lists(
    raw: Path, elsewhere: str | None = None
) -> tuple[Taxonomy, list[Listing], list[dict[str, Any]], list[str]]:
    """Read taxonomy and lists, in `elsewhere` or else in `raw`; return them, the sources, and notes.

    Raises:
        DataError: a missing file, or a line of another form.
    """
    notes = []
    path = Path(elsewhere) if elsewhere else raw
    if elsewhere and not path.exists():
        raise DataError(f"dataset.prepare.lists={path} is not there")
    names = [name for name, _ in LISTS.values()]
    with Raw(path, *names, *TREES) as files:
        missing = [name for name in names if not files.matching(name)]
        missing += [] if files.matching(*TREES) else [" or ".join(TREES)]
        if missing:
            raise DataError(
                f"{path}: no {' and no '.join(missing)}{contents(path)}; put HiAGM's lists and taxonomy "
                f"beside the corpus, or write dataset.prepare.lists=PATH (see DATA.md)"
            )
        tree = files.find(next(name for name in TREES if files.matching(name)))
        taxonomy = read_nodes(tree)
        if _md5(tree) not in TREES.values():
            notes.append(
                f"{tree.base} is not the published tree (its md5 is none of {', '.join(TREES.values())})"
            )
        listings = []
        for split, (name, md5) in LISTS.items():
            file = files.find(name)
            before = len(listings)
            listings += _listings(file, split)
            if len(listings) == before:
                raise DataError(f"{file.place}: names no article")
            if _md5(file) != md5:
                notes.append(f"{name} is not the published list (its md5 is not {md5})")
        return taxonomy, listings, files.sources("lists" if elsewhere else None), notes


def read_nodes(file: RawFile) -> Taxonomy:
    """Read nyt.taxonomy, or nyt_label.vocab with a path a line; ids are paths, names their last parts.

    Raises:
        DataError: no forest.
    """
    if file.base.lower().endswith(".taxonomy"):
        nodes = read_tree(file).nodes
        return Taxonomy([Node(node.id, node.id.rpartition("/")[2], node.parent) for node in nodes])
    paths = {plain_name(line): number for number, line in enumerate(read_lines(file), 1)}
    nodes = []
    for path in sorted(paths.keys() - {"Root", ""}):
        above, _, name = path.rpartition("/")
        nodes.append(Node(path, name, None if above in (TOP, "") else above))
    return Taxonomy(nodes, place=lambda node: f"{file.place}:{paths[node]}" if node in paths else file.place)


def _md5(file: RawFile) -> str:
    with reading(file.place), file.open() as stream:
        return hashlib.md5(stream.read(), usedforsecurity=False).hexdigest()


def _listings(file: RawFile, split: str) -> Iterator[Listing]:
    for number, line in enumerate(read_lines(file), 1):
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise DataError(
                f"{file.place}:{number}: expected a line such as Nytimes/1995/0799990.xml, found {line!r:.60}"
            )
        yield Listing(match[1], split, line.strip(), f"{file.place}:{number}")


def _require_all(listings: list[Listing], read: Mapping[str, str], raw: Path) -> None:
    """Refuse a corpus in which listed articles are missing."""
    first_lines = {listing.article: listing for listing in reversed(listings)}
    missing = [listing for listing in reversed(first_lines.values()) if listing.article not in read]
    if missing and not read:
        raise DataError(
            f"{raw}: no listed article (such as {missing[0].path}), loose or in an archive{contents(raw)}"
        )
    if missing:
        years = Counter(listing.path.rpartition("/")[0].rpartition("/")[2] for listing in missing)
        by_year = ", ".join(f"{year}: {number:,}" for year, number in sorted(years.items()) if year)
        raise DataError(
            f"{raw}: {len(missing):,} of {len(read) + len(missing):,} listed articles are not there "
            f"({by_year or 'no years'}), the first of them {missing[0].path} ({missing[0].place}); are "
            f"months missing?"
        )


if __name__ == "__main__":
    from hblm.prepare import main_for

    main_for("nyt")
