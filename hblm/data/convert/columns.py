"""Columns of a table for text, labels, levels, ids and splits: given, or detected by unambiguous names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from hblm.data.convert.separators import NONE, Separators
from hblm.data.raw.cleaning import plain_name
from hblm.data.raw.tables import Record, Table, split_of_name
from hblm.errors import ConfigError, nearest

# Words in the names of columns, in lower case, without a plural's s and without the parts in _AROUND. The
# second set counts only if no name matches the first.
_TEXT = (
    {"text", "token", "doc_token", "document", "doc", "content", "body", "abstract", "fulltext"},
    {"sentence", "review", "article", "post", "message", "news", "email", "mail", "description", "data"}
    | {"sample", "input"},
)

_LABELS = (
    {"label", "doc_label", "path", "category", "categorie", "topic", "class", "classe", "target", "group"}
    | {"newsgroup", "tag"},
    {"genre", "section", "hierarchy", "taxonomy", "annotation", "y", "cat"},
)

_AROUND = {"name", "names", "text", "full", "raw", "clean", "content", "contents"}

_ID = {"id", "doc_id", "docid", "document_id", "uid", "guid", "uuid"}

_SPLIT = {"split", "data_type", "subset", "partition"}

_INDEX = re.compile(r"index|unnamed: ?\d+|column \d+|no|nr|#", re.IGNORECASE)

_LEVEL = re.compile(
    r"((?:.+[ _-])?(?:level|lvl|l)|label|cat|category|class|topic|tier|d)[ _-]?(\d+)", re.IGNORECASE
)

_DIALECTS = (
    ("token", "label"),
    ("doc_token", "doc_label"),
)  # files of these dialects have a topic column as well

_LOOKED_AT = 100  # records that are searched for class numbers


class Columns(NamedTuple):
    """Names of the columns that are read of a record; () or None for none."""

    text: tuple[str, ...]
    labels: tuple[str, ...]
    levels: tuple[str, ...]
    id: str | None
    split: str | None

    @property
    def all(self) -> list[str]:
        """Return the names of all columns that are read."""
        return [*self.text, *self.labels, *self.levels, *filter(None, (self.id, self.split))]


class _Candidates(NamedTuple):
    """Columns whose names say what they hold.

    Attributes:
        text: of the text.
        labels: of the labels.
        levels: columns that number the levels, the root's first.
    """

    text: list[str]
    labels: list[str]
    levels: tuple[str, ...]


def choose_columns(
    tables: Sequence[Table],
    *,
    text: str | Sequence[str] | None,
    labels: str | Sequence[str] | None,
    levels: Sequence[str] | None,
    identity: str | None,
    split: str | None,
    hint: str = "",
) -> Columns:
    """Return the columns to read: the given ones, else the one whose name says what it holds.

    If only two columns are neither ids nor splits and one of them is known, the other one is the missing one.
    Beside a column of names, a column of class numbers is no candidate for the labels.

    Args:
        tables: all tables; a column must be in each.
        text, labels, levels, identity, split: as given; None: to be detected; "none": there is none.
        hint: the end of a message about labels that are missing.

    Raises:
        ConfigError: a given name is not a column, or the names are ambiguous.
    """
    names = [name for name in tables[0].columns if all(name in table.columns for table in tables)]
    where = _listing(tables, names)
    hint = hint or _only_some_labelled(tables, _several(labels) or _several(levels))
    given = _given_columns(
        names, Columns(_several(text), _several(labels), _several(levels), identity, split)
    )
    _require_columns(given, names, where, hint)
    _require_compatible(given)
    if given.id is None:
        given = given._replace(id=next((name for name in names if _plain(name) in _ID), None))
    if given.split is None and not any(table.split for table in tables):
        given = given._replace(split=_split_column(names, tables[0], where))
    candidates = _completed(_candidates(names), given, names)
    if tables[0].headed and not (any(candidates) or given.text or given.labels):
        where += "; if the first row is a document already, write dataset.prepare.header=none"
    if not given.text:
        given = given._replace(text=_only("text", candidates.text, where))
    if not given.labels and not given.levels:
        given = _with_labels(given, candidates, tables[0], where, hint)
    return given._replace(
        id=None if given.id == NONE else given.id, split=None if given.split == NONE else given.split
    )


def text_column(names: Sequence[str], where: str) -> str:
    """Return the column of the text in a table of new documents, by its name; an only column is it.

    Raises:
        ConfigError: no name says so, or several do; `where` is the table and its columns, for the message.
    """
    none = Columns((), (), (), None, None)
    candidates = _completed(_candidates(names), none, names).text
    rest = [name for name in names if _plain(name) not in _ID and not _INDEX.fullmatch(name.strip())]
    if not candidates and len(rest) == 1:
        candidates = rest
    if len(candidates) == 1:
        return candidates[0]
    several = " and ".join(map(repr, candidates))
    why = f"{several} could each be it" if candidates else "no column's name says so"
    raise ConfigError(f"which column has the text? {why}; write text=NAME ({where})")


def _listing(tables: Sequence[Table], names: Sequence[str]) -> str:
    """Return the columns that all tables have, and those of each table if they differ, for messages."""
    shown = ", ".join(f"{name!r:.40}" for name in names[:20])
    if all(set(table.columns) == set(names) for table in tables):
        return f"{tables[0].name}: its columns are {shown}"
    each = (f"{table.name} has {', '.join(table.columns)}" for table in tables)
    return f"the columns that all files have: {shown or 'none'}; {'; '.join(each):.600}"


def _given_columns(names: Sequence[str], given: Columns) -> Columns:
    """Return the given names as the tables spell them, whether é is one character or two."""
    spelling = {plain_name(name): name for name in names}

    def column(name: str) -> str:
        return name if name in names else spelling.get(plain_name(str(name)), name)

    return Columns(
        text=tuple(map(column, given.text)),
        labels=tuple(map(column, given.labels)),
        levels=tuple(map(column, given.levels)),
        id=given.id and column(given.id),
        split=given.split and column(given.split),
    )


def _require_columns(given: Columns, names: Sequence[str], where: str, hint: str) -> None:
    """Refuse a given name that is not a column of all tables."""
    for key, chosen in given._asdict().items():
        for name in _several(chosen):
            if name not in names and not (key in ("id", "split") and name == NONE):
                raise ConfigError(
                    f"dataset.prepare.{key}={name} is no column{nearest(str(name), names)} ({where})"
                    f"{hint if key in ('labels', 'levels') else ''}"
                )


def _require_compatible(given: Columns) -> None:
    """Refuse labels together with levels, and a text that is also a label."""
    if given.labels and given.levels:
        raise ConfigError("dataset.prepare.labels and dataset.prepare.levels both name the labels; drop one")
    twice = sorted(set(given.text) & {*given.labels, *given.levels})
    if twice:
        raise ConfigError(
            f"column {twice[0]!r} cannot be the text and the labels: a model would only read it off"
        )


def _candidates(names: Sequence[str]) -> _Candidates:
    """Return the columns whose names say what they hold."""
    dialect = next((pair for pair in _DIALECTS if set(pair) <= set(names)), None)
    labels = [dialect[1]] if dialect else _matching(names, _LABELS)
    text = [dialect[0]] if dialect else _matching(names, _TEXT)
    return _Candidates([name for name in text if name not in labels], labels, _numbered(names))


def _completed(candidates: _Candidates, given: Columns, names: Sequence[str]) -> _Candidates:
    """Return the candidates; of two columns, the other one of a known text or label is a candidate too."""
    rest = [name for name in names if name not in (given.id, given.split)]
    rest = [name for name in rest if not _INDEX.fullmatch(name.strip())]
    if len(rest) != 2 or candidates.levels:
        return candidates
    labels, text = given.labels or tuple(candidates.labels), given.text or tuple(candidates.text)
    if not text and len(labels) == 1:
        candidates = candidates._replace(text=[name for name in rest if name not in labels])
    if not labels and len(text) == 1:
        candidates = candidates._replace(labels=[name for name in rest if name not in text])
    return candidates


def _with_labels(given: Columns, candidates: _Candidates, table: Table, where: str, hint: str) -> Columns:
    """Return the columns with those of the labels, or of the levels."""
    labels = [name for name in candidates.labels if name not in given.text]
    records = islice(table.records(*labels), _LOOKED_AT) if labels else ()
    labels = _without_numbers(labels, records)
    if candidates.levels and not labels:
        return given._replace(levels=candidates.levels)
    return given._replace(labels=_only("labels", [*labels, *candidates.levels], where, hint))


def _several(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names in an option that takes one name or several."""
    return (given,) if isinstance(given, str) else tuple(given or ())


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]+", "_", name.casefold()).strip("_")


def _matching(names: Sequence[str], ranks: Sequence[set[str]]) -> list[str]:
    """Return the columns whose names match the first set of words that matches any."""
    matches = ([name for name in names if _matches(name, words)] for words in ranks)
    return next(filter(None, matches), [])


def _matches(name: str, words: set[str]) -> bool:
    """Return whether the name of a column is one of the words, in the plural or with other parts around it.

    The last part decides: a `topic_path` is a path, a `label_text` a label, a `raw_text` a text.
    """
    parts = _plain(name).split("_")
    if parts[-1] == "id":
        return False
    whole = "_".join(parts)
    bare = [part for part in parts if part not in _AROUND] or parts[-1:]
    candidates = {whole, bare[-1], *(["_".join(bare)] if len(bare) > 1 else [])}
    return any(word in words or word.removesuffix("s") in words for word in candidates)


def _split_column(names: Sequence[str], table: Table, where: str) -> str | None:
    """Return the column with the values train, val and test; None if there is none."""
    candidates = [name for name in names if _plain(name) in _SPLIT]
    first = next(table.records(*candidates), (0, {}))[1] if candidates else {}
    column = next((name for name in candidates if split_of_name(str(first.get(name)))), None)
    if column is None and "split" in candidates and first:
        raise ConfigError(
            f"column 'split' says {first.get('split')!r:.40}, which is no split; write "
            f"dataset.prepare.split=none, or the column that says train, val and test ({where})"
        )
    return column


def _without_numbers(names: list[str], records: Iterable[tuple[int, Record]]) -> list[str]:
    """Return the columns without those of class numbers; all of them if each has class numbers."""
    if len(names) < 2:
        return names
    named = {
        name
        for _, record in records
        for name in names
        if not isinstance(value := record.get(name), int) and not str(value or "0").strip().isdigit()
    }
    return [name for name in names if name in named] or names


def _numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that number the levels from 0 or 1 on without a gap, in that order; () for none."""
    families: dict[str, dict[int, str]] = {}
    for name in names:
        match = _LEVEL.fullmatch(name.strip())
        if match:
            families.setdefault(match[1].casefold(), {})[int(match[2])] = name
    whole = [
        tuple(family[number] for number in sorted(family))
        for family in families.values()
        if len(family) > 1 and min(family) < 2 and max(family) - min(family) == len(family) - 1
    ]
    return whole[0] if len(whole) == 1 else ()


def _only_some_labelled(tables: Sequence[Table], given: Sequence[str]) -> str:
    """Return which files have labels if others have none, as test.csv at Kaggle, for the end of a message."""
    with_labels = []
    for table in tables:
        known = given or _matching(table.columns, _LABELS) or _numbered(table.columns)
        with_labels.append(not set(known).isdisjoint(table.columns))
    if all(with_labels) or not any(with_labels):
        return ""
    named = [table.name for table in tables]
    without = ", ".join(name for name, there in zip(named, with_labels, strict=True) if not there)
    others = [name for name, there in zip(named, with_labels, strict=True) if there]
    return (
        f"; {without} has no labels: give {' or '.join(others)} alone as raw=, of which validation and test "
        f"are drawn"
    )


def _only(key: str, candidates: Sequence[str], where: str, hint: str = "") -> tuple[str, ...]:
    """Return the only candidate; refuse none or several."""
    if len(candidates) == 1:
        return (candidates[0],)
    several = " and ".join(map(repr, candidates))
    why = f"{several} could each be it" if candidates else "no column's name says so"
    other = ", or dataset.prepare.levels=[A,B] with one for each level" if key == "labels" else ""
    raise ConfigError(
        f"which column has the {key}? {why}; write dataset.prepare.{key}=NAME{other} ({where}){hint}"
    )


def as_options(columns: Columns, separators: Separators) -> Mapping[str, Any]:
    """Return the choice as the options that make it again."""
    return {
        "text": list(columns.text),
        "labels": list(columns.labels) or None,
        "levels": list(columns.levels) or None,
        "id": columns.id or NONE,
        "split": columns.split or NONE,
        "separator": None if columns.levels else separators.path or NONE,
        "label_separator": None if columns.levels else separators.labels or NONE,
    }
