"""Quality checks of labels and texts: spelling variants, words for missing values, empty and equal texts."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hblm.data.convert.cells import path_in, path_of
from hblm.data.convert.label_trees import Path
from hblm.errors import DataError
from hblm.taxonomy import Taxonomy

MISSING_VALUE_WORDS = frozenset(
    ("nan", "none", "null", "nil", "n/a", "na", "#n/a", "<na>", "nat", "undefined")
)

_SHOWN = 3
_WHOLE = re.compile(r"(-?\d+)\.0+")
_AT_THE_END = " .,;:!?"


def normalized_name(name: str) -> str:
    """Return the normal form of a name, which its spelling variants share.

    Case, Unicode form (NFKC), blanks, characters without width, punctuation at the end, and the decimals of a
    whole number such as 76.0 are removed. A name of only punctuation is unchanged.
    """
    normal = unicodedata.normalize("NFKC", name)
    normal = "".join(sign for sign in normal if sign.isspace() or not _is_hidden(sign))
    normal = " ".join(normal.split()).casefold()
    whole = _WHOLE.fullmatch(normal)
    return whole[1] if whole else normal.rstrip(_AT_THE_END) or normal


def is_blank(text: str) -> bool:
    """Return whether a text has no visible character."""
    return all(sign.isspace() or _is_hidden(sign) for sign in text)


def _is_hidden(sign: str) -> bool:
    return unicodedata.category(sign) in ("Cf", "Cc")  # without width, or control


def merged(paths: Mapping[Path, int]) -> dict[Path, Path]:
    """Return each path with the most frequent spelling of each of its names.

    Args:
        paths: the number of documents of each path; variants are those of one name below one parent.
    """
    spelling_variants: dict[Path, Counter[str]] = {}
    for path, documents in paths.items():
        senses = tuple(map(normalized_name, path))
        for depth, name in enumerate(path, 1):
            spelling_variants.setdefault(senses[:depth], Counter())[name] += documents
    best = {
        senses: min(counts, key=lambda name: (-counts[name], name))
        for senses, counts in spelling_variants.items()
    }
    return {
        path: tuple(best[senses[: depth + 1]] for depth in range(len(path)))
        for path in paths
        for senses in [tuple(map(normalized_name, path))]
    }


def spelling_variants(taxonomy: Taxonomy, support: Mapping[str, int]) -> list[list[tuple[str, int]]]:
    """Return (name, documents) of siblings that are variants of one name, the most frequent ones first.

    Args:
        taxonomy: the nodes.
        support: node id -> documents.
    """
    by_name: dict[tuple[str | None, str], list[tuple[str, int]]] = {}
    for node in taxonomy.nodes:
        by_name.setdefault((node.parent, normalized_name(node.name)), []).append(
            (node.name, support.get(node.id, 0))
        )
    several = [sorted(names, key=lambda item: -item[1]) for names in by_name.values() if names[1:]]
    return sorted(several, key=lambda names: (-sum(documents for _, documents in names), names))


def describe_variants(variants: Sequence[Sequence[tuple[str, int]]]) -> str:
    """Return a note on the nodes that are variants of one name; "" for none."""
    if not variants:
        return ""
    shown = "; ".join(
        " and ".join(f"{name!r:.60} ({documents:,} documents)" for name, documents in names[:_SHOWN])
        for names in variants[:_SHOWN]
    )
    return (
        f"{sum(map(len, variants)):,} nodes are {len(variants):,} names in several spellings (case, blanks, "
        f"signs of no width, Unicode form, punctuation at the end, 76.0 for 76): "
        f"{shown}{' ...' if variants[_SHOWN:] else ''}"
    )


class QualityChecks:
    """Counts irregular records while they are read."""

    def __init__(self) -> None:
        self._null: Counter[str] = Counter()
        self._blank: list[str] = []
        self._headers: list[str] = []
        self._n_blank = 0

    def is_header(self, record: Mapping[str, object], place: str) -> bool:
        """Return whether a record repeats the names of its columns, and count it."""
        same = len(record) > 1 and all(
            isinstance(value, str) and value.strip() == name for name, value in record.items()
        )
        if same:
            self._headers.append(place)
        return same

    def labels(self, cells: tuple[str, ...]) -> tuple[str, ...]:
        """Return the cells; words for missing values are counted."""
        for cell in cells:
            for name in path_in(cell) or (cell,):
                if name.casefold() in MISSING_VALUE_WORDS:
                    self._null[name] += 1
        return cells

    def is_blank(self, text: str, place: str) -> bool:
        """Return whether a text is empty, and count it."""
        blank = is_blank(text)
        if blank:
            self._n_blank += 1
            if len(self._blank) < _SHOWN:
                self._blank.append(place)
        return blank

    def notes(self, options: Mapping[str, object]) -> list[str]:
        """Return a note for each kind of irregular record, with the options that act on it."""
        notes = []
        if self._headers:
            places = _first(self._headers)
            notes.append(
                f"{len(self._headers):,} lines repeat the header ({places}), as in files that were pasted "
                f"together: dataset.prepare.repeated_headers={options['repeated_headers']}"
            )
        if self._null:
            words = ", ".join(f"{word!r} {times:,} times" for word, times in self._null.most_common(_SHOWN))
            notes.append(
                f"labels that often stand for no value ({words}): dataset.prepare.null_labels="
                f"{options['null_labels']} (keep, or empty: they are no labels)"
            )
        if self._n_blank:
            notes.append(
                f"{self._n_blank:,} documents have no text ({_first(self._blank, self._n_blank)}): "
                f"dataset.prepare.empty_texts={options['empty_texts']} (keep or drop)"
            )
        return notes


def _first(places: Sequence[str], of: int | None = None) -> str:
    more = (of or len(places)) > _SHOWN
    return ", ".join(places[:_SHOWN]) + (" ..." if more else "")


def without_missing_values(cells: tuple[str, ...], place: str) -> tuple[str, ...]:
    """Return the cells without words for missing values; a path ends above such a word.

    Raises:
        DataError: a path continues below such a word.
    """
    left = []
    for cell in cells:
        path = path_in(cell)
        names = [name for name in path or (cell,) if name.casefold() not in MISSING_VALUE_WORDS]
        if names != list(path or (cell,))[: len(names)]:
            raise DataError(f"{place}: {path!r:.120}: a level below one without a value; a path has no holes")
        left += [path_of(names)] if path and names else names
    return tuple(left)


def notes_on_labels(taxonomy: Taxonomy, labels: Sequence[Sequence[str]], texts: Sequence[int]) -> list[str]:
    """Return notes on spelling variants, and on equal texts with different labels.

    Args:
        taxonomy: the nodes.
        labels: of each document, node ids.
        texts: a hash of each document's text.
    """
    support = Counter(label for of_document in labels for label in of_document)
    alike = describe_variants(spelling_variants(taxonomy, support))
    notes = [f"{alike}; dataset.prepare.merge_labels=true makes one node of each"] if alike else []
    number = n_contradicting(texts, map(frozenset, labels))
    if number:
        notes.append(f"{number:,} texts occur more than once, with different labels")
    return notes


def n_contradicting(texts: Iterable[int], labels: Iterable[object]) -> int:
    """Return the number of texts that occur with different labels; texts are given by their hashes."""
    first: dict[int, object] = {}
    pairs = zip(texts, labels, strict=True)
    return len({text for text, of_document in pairs if first.setdefault(text, of_document) != of_document})
