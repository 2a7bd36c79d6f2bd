"""Which column of a table is what: told by its name where that is unambiguous, else asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from hblm.data.convert.separators import NONE, Separators
from hblm.data.raw.cleaning import plain_name
from hblm.data.raw.tables import Record, Table, split_of_name
from hblm.errors import ConfigError, nearest

# The words are looked for in lower case, without a plural's s, and without the parts in _AROUND; the second
# set only where nothing is in the first.
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


_DIALECTS = (("token", "label"), ("doc_token", "doc_label"))  # their files have a topic column as well


_LOOKED_AT = 100  # records, for columns of class numbers


class Columns(NamedTuple):
    """What is read of a record: names of columns, () or None for none."""

    text: tuple[str, ...]
    labels: tuple[str, ...]
    levels: tuple[str, ...]
    id: str | None
    split: str | None

    @property
    def all(self) -> list[str]:
        """Return the names of all columns that are read."""
        return [*self.text, *self.labels, *self.levels, *filter(None, (self.id, self.split))]


def choose_columns(
    tables: Sequence[Table],
    *,
    text: str | Sequence[str] | None,
    labels: str | Sequence[str] | None,
    levels: Sequence[str] | None,
    identity: str | None,
    split: str | None,
    beside: str = "",
) -> Columns:
    """Return the columns to read: those that were named, else the one whose name says what it is.

    Where only two columns are neither ids nor splits and one of them is known, the other is what is missing.
    Beside a column of names, one of class numbers is no candidate for the labels. `beside` ends a message
    about labels that are not there.

    Raises:
        ConfigError: a name that is no column, or no telling which.
    """
    names = [name for name in tables[0].columns if all(name in table.columns for table in tables)]
    shown = ", ".join(f"{name!r:.40}" for name in names[:20])
    where = f"{tables[0].name}: its columns are {shown}"
    if any(set(table.columns) != set(names) for table in tables):
        each = (f"{table.name} has {', '.join(table.columns)}" for table in tables)
        where = f"the columns that all files have: {shown or 'none'}; {'; '.join(each):.600}"
    way_out = beside or _labelled_alone(tables, _several(labels) or _several(levels))
    spelt = {plain_name(name): name for name in names}

    def column(name: str) -> str:
        """Return the column of a name, whether é is one character or two."""
        return name if name in names else spelt.get(plain_name(str(name)), name)

    given = {
        key: tuple(map(column, _several(chosen)))
        for key, chosen in {"text": text, "labels": labels, "levels": levels}.items()
    }
    single = {"id": identity and column(identity), "split": split and column(split)}
    wanted = [(key, name) for key, chosen in given.items() for name in chosen]
    wanted += [(key, name) for key, name in single.items() if name not in (None, NONE)]
    for key, name in wanted:
        if name not in names:
            raise ConfigError(
                f"dataset.prepare.{key}={name} is no column{nearest(str(name), names)} ({where})"
                f"{way_out if key in ('labels', 'levels') else ''}"
            )
    if given["labels"] and given["levels"]:
        raise ConfigError(
            "dataset.prepare.labels and dataset.prepare.levels are two ways to say one thing; drop one"
        )
    twice = sorted(set(given["text"]) & {*given["labels"], *given["levels"]})
    if twice:
        raise ConfigError(
            f"column {twice[0]!r} cannot be the text and the labels: a model would only read it off"
        )
    if identity is None:
        single["id"] = next((name for name in names if _plain(name) in _ID), None)
    if split is None and not any(table.split for table in tables):
        single["split"] = _split_column(names, tables[0], where)
    spoken = next((pair for pair in _DIALECTS if set(pair) <= set(names)), None)
    for_labels = [spoken[1]] if spoken else _speaking_of(names, _LABELS)
    for_text = [spoken[0]] if spoken else _speaking_of(names, _TEXT)
    for_text = [name for name in for_text if name not in for_labels]
    numbered = _numbered(names)
    if tables[0].headed and not (for_text or for_labels or numbered or given["text"] or given["labels"]):
        where += "; if the first row is a document already, write dataset.prepare.header=none"
    rest = [name for name in names if name not in single.values() and not _INDEX.fullmatch(name.strip())]
    if len(rest) == 2 and not numbered:
        known = (given["labels"] or tuple(for_labels), given["text"] or tuple(for_text))
        if not known[1] and len(known[0]) == 1:
            for_text = [name for name in rest if name not in known[0]]
        if not known[0] and len(known[1]) == 1:
            for_labels = [name for name in rest if name not in known[1]]
    if not given["text"]:
        given["text"] = _detected("text", for_text, where)
    if not given["labels"] and not given["levels"]:
        for_labels = [name for name in for_labels if name not in given["text"]]
        for_labels = _without_numbers(
            for_labels, islice(tables[0].records(*for_labels), _LOOKED_AT) if for_labels else ()
        )
        if numbered and not for_labels:
            given["levels"] = numbered
        else:
            given["labels"] = _detected("labels", [*for_labels, *numbered], where, way_out)
    return Columns(
        given["text"],
        given["labels"],
        given["levels"],
        *(None if name == NONE else name for name in single.values()),
    )


def _several(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]+", "_", name.casefold()).strip("_")


def _speaking_of(names: Sequence[str], ranks: Sequence[set[str]]) -> list[str]:
    """Return the columns whose names say it, those of the first rank if there are any."""
    found = ([name for name in names if _speaks_of(name, words)] for words in ranks)
    return next(filter(None, found), [])


def _speaks_of(name: str, words: set[str]) -> bool:
    """Tell whether a column's name is one of the words, in the plural or with more around it.

    The last part tells: a `topic_path` is a path, a `label_text` a label, a `raw_text` a text.
    """
    parts = _plain(name).split("_")
    if parts[-1] == "id":
        return False
    whole = "_".join(parts)
    bare = [part for part in parts if part not in _AROUND] or parts[-1:]
    candidates = {whole, bare[-1], *(["_".join(bare)] if len(bare) > 1 else [])}
    return any(word in words or word.removesuffix("s") in words for word in candidates)


def _split_column(names: Sequence[str], table: Table, where: str) -> str | None:
    """Return the column that says train, val or test."""
    candidates = [name for name in names if _plain(name) in _SPLIT]
    first = next(table.records(*candidates), (0, {}))[1] if candidates else {}
    found = next((name for name in candidates if split_of_name(str(first.get(name)))), None)
    if found is None and "split" in candidates and first:
        raise ConfigError(
            f"column 'split' says {first.get('split')!r:.40}, which is no split; write "
            f"dataset.prepare.split=none, or the column that says train, val and test ({where})"
        )
    return found


def _without_numbers(names: list[str], records: Iterable[tuple[int, Record]]) -> list[str]:
    """Leave out the columns of class numbers, unless there is nothing else."""
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
    """Return the columns that number the levels, from 0 or 1 on without a gap, in that order."""
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


def _labelled_alone(tables: Sequence[Table], given: Sequence[str]) -> str:
    """Return which files have labels where some have none, as Kaggle's test.csv, for the end of a message."""
    with_labels = []
    for table in tables:
        known = given or _speaking_of(table.columns, _LABELS) or _numbered(table.columns)
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


def _detected(key: str, found: Sequence[str], where: str, way_out: str = "") -> tuple[str, ...]:
    if len(found) == 1:
        return (found[0],)
    why = f"{' and '.join(map(repr, found))} could each be it" if found else "no column's name says so"
    other = ", or dataset.prepare.levels=[A,B] with one for each level" if key == "labels" else ""
    raise ConfigError(
        f"which column has the {key}? {why}; write dataset.prepare.{key}=NAME{other} ({where}){way_out}"
    )


def as_options(columns: Columns, signs: Separators) -> Mapping[str, Any]:
    """Return what was chosen, as the options that would choose it."""
    return {
        "text": list(columns.text),
        "labels": list(columns.labels) or None,
        "levels": list(columns.levels) or None,
        "id": columns.id or NONE,
        "split": columns.split or NONE,
        "separator": None if columns.levels else signs.path or NONE,
        "label_separator": None if columns.levels else signs.labels or NONE,
    }
