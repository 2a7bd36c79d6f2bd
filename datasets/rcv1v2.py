"""Prepare RCV1-v2 (Lewis et al. 2004): 804,414 stories of Reuters, 103 topics on 4 levels.

Two sources are needed: the texts (NIST's `rcv1.tar.xz`, its folder, or a zip per day), and the LYRL2004
files with ids, corrected labels (qrels) and the hierarchy. The topics inside the stories are not used.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hblm.config.converter_options import read_options
from hblm.console import Advance, StartTask
from hblm.data.convert.document_buffer import DocumentBuffer
from hblm.data.convert.label_trees import read_tree
from hblm.data.convert.splits import held_out
from hblm.data.raw.archives import Raw, RawFile
from hblm.data.raw.cleaning import Cleaning
from hblm.data.raw.many_files import Corpus, contents
from hblm.data.raw.news_xml import Paragraphs, parse_newsml
from hblm.data.raw.text import read_lines
from hblm.data.writer import Conversion
from hblm.errors import DataError
from hblm.taxonomy import Node, Taxonomy

STORY = r"([1-9][0-9]{0,8})newsML\.xml"
QRELS, IDS = "rcv1-v2.topics.qrels", "rcv1v2-ids.dat"  # LYRL2004 files, also with .gz
HIERARCHIES = ("rcv1.topics.hier.orig", "rcv1.taxonomy")
TRAIN = ("lyrl2004_tokens_train.dat", "lyrl2004_vectors_train.dat")
TEST = ("lyrl2004_tokens_test_pt?.dat", "lyrl2004_vectors_test_pt?.dat")
LAST_OF_TRAINING = 26_150  # LYRL2004 splits by date: ids 2286 to 26150, and 26151 to 810596
NUMBER = re.compile("[0-9]{1,9}")
EDGE = re.compile(r"parent:\s*(\S+)\s+child:\s*(\S+)\s+child-description:\s*(.*)")
ONCE = "an archive beside what was unpacked from it? keep one of the two"
LICENCE = "Texts: (c) Reuters, under NIST's agreement, never to be passed on. LYRL2004 files: public."


class Options(NamedTuple):
    """Options of a preparation.

    Attributes:
        text: body, or title_body.
        paragraphs: joined by a space, or glued without one as in the papers' scripts.
        validation: which tenth of the training stories: that of hgclr (HPT and HBGL as well), or of hitin.
        empty: stories without text: keep, or drop as the papers' scripts do.
        clean: a published cleaning of the texts.
        lyrl: folder or archive of the LYRL2004 files; null: they lie in raw.
    """

    text: Literal["body", "title_body"] = "body"
    paragraphs: Paragraphs = "space"
    validation: Literal["hgclr", "hitin"] = "hgclr"
    empty: Literal["keep", "drop"] = "keep"
    clean: Cleaning = "none"
    lyrl: str | None = None


class Lists(NamedTuple):
    """Contents of the LYRL2004 files.

    Attributes:
        taxonomy: the topics.
        topics: of each story of RCV1-v2, in the order of the list of ids.
        training: ids of the training stories.
        sources: of the manifest.
        notes: for the user.
    """

    taxonomy: Taxonomy
    topics: Mapping[int, tuple[str, ...]]
    training: Collection[int]
    sources: list[dict[str, Any]]
    notes: list[str]


def convert(raw: Path, options: Mapping[str, Any], scratch: Path, progress: StartTask) -> Conversion:
    """Read lists and labels, then all stories on all cores.

    Raises:
        ConfigError: an invalid option.
        DataError: a missing file or story, or a fault with its file and line.
    """
    chosen = read_options(Options, options, "rcv1v2")
    lists = read_lists(raw, chosen.lyrl)
    parse = functools.partial(
        parse_newsml, text=chosen.text, paragraphs=chosen.paragraphs, clean=chosen.clean
    )
    corpus = Corpus(raw, STORY, parse)
    buffer = DocumentBuffer(scratch)
    counts: Counter[str] = Counter()
    advance = progress("reading stories", len(lists.topics))
    blank = _read_stories(corpus, lists, chosen.empty == "keep", buffer, counts, advance)
    missing = [number for number in lists.topics if number not in blank and not buffer.has(str(number))]
    _refuse_missing(missing, len(lists.topics), raw)
    there = [number for number in lists.topics if buffer.has(str(number))]
    places = [buffer.at(str(number)) for number in there]
    split_of = splits_of(there, lists.training, chosen.validation)
    splits = [""] * len(buffer)
    for number, place in zip(there, places, strict=True):
        splits[place] = split_of[number]
    n_train, n_val = len(lists.training), len(validation(range(len(lists.training)), chosen.validation))
    listed = {"train": n_train - n_val, "val": n_val, "test": len(lists.topics) - n_train}
    notes = list(lists.notes)
    kept = [number for number in blank if number in lists.training and chosen.empty == "keep"]
    if kept:
        notes.append(
            f"{len(kept):,} training stories have no text; the papers' scripts drop them before validation "
            f"is drawn, and so draw another: dataset.prepare.empty=drop does as they do"
        )
    return Conversion(
        taxonomy=lists.taxonomy,
        splits=buffer.documents(buffer.labels, splits, places),
        documents=len(buffer),
        options={name: value for name, value in chosen._asdict().items() if name != "lyrl"},
        sources=[*lists.sources, *(source for source in corpus.sources if source not in lists.sources)],
        counts=dict(sorted(counts.items())),
        dropped={split: number - splits.count(split) for split, number in listed.items()},
        warnings=notes,
        licence=LICENCE,
    )


def _read_stories(
    corpus: Corpus,
    lists: Lists,
    keep_empty: bool,
    buffer: DocumentBuffer,
    counts: Counter[str],
    advance: Advance,
) -> dict[int, str]:
    """Add the listed stories to the buffer; return the places of those without a paragraph, by id.

    Raises:
        DataError: a fault in a story, or a repeated story.
    """
    blank: dict[int, str] = {}
    for file in corpus.files():
        number = int(file.key)
        if number not in lists.topics:
            counts["stories_that_rcv1v2_leaves_out"] += 1
            continue
        if file.fault:
            raise DataError(f"{file.place}: {file.fault}")
        article = file.value
        if article.identity != file.key:
            raise DataError(f"{file.place}: its itemid is {article.identity!r:.40}, not that of its name")
        before = buffer.place(buffer.at(file.key)) if buffer.has(file.key) else blank.get(number)
        if before:
            raise DataError(f"{file.place}: the story is there a second time, also as {before}; {ONCE}")
        counts["stories_read_as_iso_8859_1"] += article.latin_1
        advance(1)
        if article.is_blank:
            blank[number] = file.place
        if keep_empty or not article.is_blank:
            buffer.add(file.key, article.text, lists.topics[number], "", file.folder, number)
    return blank


def splits_of(stories: Iterable[int], training: Collection[int], rule: str) -> dict[int, str]:
    """Return the split of each story; the stories are in the order of the list of ids."""
    splits = {story: "train" if story in training else "test" for story in stories}
    held = validation([story for story, split in splits.items() if split == "train"], rule)
    splits.update(dict.fromkeys(held, "val"))
    return splits


def validation(training: Sequence[int], rule: str) -> Sequence[int]:
    """Return the validation stories among the training stories, which are in the order of the list of ids.

    hgclr: scikit-learn's train_test_split with a tenth and random_state 0, as in HGCLR, HPT and HBGL; hitin:
    pandas' sample of a tenth with random_state 7, as in HiTIN. Both take 2,315 of 23,149.
    """
    if rule == "hgclr":
        return held_out(training, math.ceil(0.1 * len(training)))[1]
    return held_out(training, max(round(0.1 * len(training)), 1), seed=7)[1]


def read_lists(raw: Path, elsewhere: str | None = None) -> Lists:
    """Read hierarchy, topics, ids and training ids, in `elsewhere` or else in `raw`.

    Raises:
        DataError: a missing file, a fault with file and line, a story without topics, or one in two splits.
    """
    notes = []
    path = Path(elsewhere) if elsewhere else raw
    if elsewhere and not path.exists():
        raise DataError(f"dataset.prepare.lyrl={path} is not there")
    with Raw(path, QRELS, IDS, *HIERARCHIES, *TRAIN, *TEST) as files:
        missing = [
            " or ".join(names) for names in (HIERARCHIES, (QRELS,), (IDS,)) if not files.matching(*names)
        ]
        if missing:
            raise DataError(
                f"{path}: no {' and no '.join(missing)}{contents(path)}; put the LYRL2004 files beside the "
                f"texts, or write dataset.prepare.lyrl=PATH (see DATA.md)"
            )
        taxonomy = read_hierarchy(_preferred(files, HIERARCHIES))
        qrels, ids = files.find(QRELS), files.find(IDS)
        by_story = read_qrels(qrels, taxonomy)
        topics = {number: by_story[number] for number in read_ids(ids, by_story, qrels.place)}
        if len(by_story) > len(topics):
            notes.append(f"{len(by_story) - len(topics):,} stories of the qrels are not in the list of ids")
        training = read_training(files, topics, ids.place)
        if not training:
            training = frozenset(number for number in topics if number <= LAST_OF_TRAINING)
            notes.append(
                f"no {TRAIN[0]}: training stories are those up to {LAST_OF_TRAINING}, as LYRL2004 split them"
            )
        if not training:
            raise DataError(f"{ids.place}: no story for training, that is none up to {LAST_OF_TRAINING}")
        return Lists(taxonomy, topics, training, files.sources("lyrl" if elsewhere else None), notes)


def read_hierarchy(file: RawFile) -> Taxonomy:
    """Read lines `parent: CCAT child: C15 child-description: PERFORMANCE`, or a .taxonomy file.

    Raises:
        DataError: a line of another form; no forest.
    """
    if file.base.lower().endswith(".taxonomy"):
        return read_tree(file)
    nodes, lines = [], {}
    for number, line in enumerate(read_lines(file), 1):
        match = EDGE.fullmatch(line.strip())
        if match is None:
            raise DataError(
                f"{file.place}:{number}: expected `parent: CODE child: CODE child-description: ...`, "
                f"found {line!r:.80}"
            )
        parent, child, description = match.groups()
        if child != "Root":
            nodes.append(Node(child, description.strip() or child, None if parent == "Root" else parent))
            lines[child] = number  # the last: the second of two is the fault
    nodes.sort(key=lambda node: node.id)
    return Taxonomy(nodes, place=lambda node: f"{file.place}:{lines[node]}" if node in lines else file.place)


def read_qrels(file: RawFile, taxonomy: Taxonomy) -> dict[int, tuple[str, ...]]:
    """Read lines `C15 2286 1`; return the topics of each story, equal sets kept once.

    Raises:
        DataError: a line of another form, or a topic outside the hierarchy.
    """
    topics: dict[int, tuple[str, ...]] = {}
    extended: dict[tuple[tuple[str, ...], str], tuple[str, ...]] = {}
    for number, line in enumerate(read_lines(file), 1):
        cells = line.split()
        if len(cells) != 3 or not NUMBER.fullmatch(cells[1]) or cells[2] != "1":
            raise DataError(f"{file.place}:{number}: expected `TOPIC ID 1`, found {line!r:.60}")
        topic, story = cells[0], int(cells[1])
        if topic not in taxonomy.index:
            raise DataError(
                f"{file.place}:{number}: topic {topic!r:.60} is not in the hierarchy{taxonomy.suggest(topic)}"
            )
        before = topics.get(story, ())
        if topic in before:
            continue
        key = (before, topic)
        if key not in extended:
            extended[key] = (*before, taxonomy.nodes[taxonomy.index[topic]].id)
        topics[story] = extended[key]
    return topics


def read_ids(file: RawFile, topics: Collection[int], qrels: str) -> Iterator[int]:
    """Yield the ids of a list, one a line.

    Raises:
        DataError: a line of another form, an id that is there twice, or one without topics in the `qrels`.
    """
    seen: set[int] = set()
    for line, text in enumerate(read_lines(file), 1):
        place = f"{file.place}:{line}"
        if not NUMBER.fullmatch(text.strip()):
            raise DataError(f"{place}: expected the id of a story, found {text!r:.60}")
        number = int(text)
        if number in seen:
            raise DataError(f"{place}: story {number} is there a second time")
        if number not in topics:
            raise DataError(f"{place}: story {number} has no topic; no line of {qrels} names it")
        seen.add(number)
        yield number


def read_training(files: Raw, topics: Collection[int], ids: str) -> Collection[int]:
    """Return the training stories in the token or vector files; empty without these files.

    Raises:
        DataError: a story is not in the list of `ids`, or is a test story as well.
    """
    training: dict[int, str] = {}
    for place, number in _split_ids(files, TRAIN):
        if number not in topics:
            raise DataError(f"{place}: story {number} is not in {ids}")
        training[number] = place
    for place, number in _split_ids(files, TEST) if training else ():
        if number in training:
            raise DataError(f"{place}: story {number} is for testing, and for training in {training[number]}")
    return training


def _split_ids(files: Raw, patterns: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield (place, id) of the stories in token files, or else in vector files.

    Raises:
        DataError: a line is neither `.I 2286` nor `2286 864:0.05 ...`; or there is no line.
    """
    for file in files.matching(patterns[0]) or files.matching(patterns[1]):
        tokens, any_story = False, False
        for line, text in enumerate(read_lines(file), 1):
            tokens = tokens or (line == 1 and text.startswith(".I"))
            if tokens and not text.startswith(".I"):
                continue
            cells = text.removeprefix(".I").split(maxsplit=2)
            if not cells or not NUMBER.fullmatch(cells[0]) or (not tokens and ":" not in "".join(cells[1:2])):
                raise DataError(
                    f"{file.place}:{line}: expected `.I 2286` (tokens) or `2286 864:0.05 ...` (vectors), "
                    f"found {text!r:.60}"
                )
            any_story = True
            yield f"{file.place}:{line}", int(cells[0])
        if not any_story:
            raise DataError(f"{file.place}: names no story")


def _preferred(files: Raw, names: Sequence[str]) -> RawFile:
    return files.find(next(name for name in names if files.matching(name)))


def _refuse_missing(missing: Sequence[int], listed: int, raw: Path) -> None:
    """Refuse a download without all stories."""
    if len(missing) == listed:
        raise DataError(f"{raw}: no story (such as 2286newsML.xml), loose or in an archive{contents(raw)}")
    if missing:
        names = ", ".join(f"{number}newsML.xml" for number in missing[:5])
        raise DataError(
            f"{raw}: {len(missing):,} of the {listed:,} stories of RCV1-v2 are not there: {names}"
            f"{' ...' if missing[5:] else ''}; are days missing?"
        )


if __name__ == "__main__":
    from hblm.prepare import main_for

    main_for("rcv1v2")
