"""Which column of a table is what, and what its cells say: detected if unambiguous, else asked for."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hblm.corpus.signs import NONE, Signs
from hblm.corpus.tables import SPLIT_OF_WORD, Record, Table, split_of_name
from hblm.corpus.trees import plain_name
from hblm.errors import ConfigError, DataError, nearest

_TEXT = "text token tokens doc_token document doc content body abstract sentence review article post message"
_LABELS = (
    "label labels doc_label label_path path paths category categories category_path topic topics class "
    "classes target targets group groups newsgroup tags"
)
_ID = "id doc_id docid document_id uid guid uuid"
_SPLIT = "split data_type subset partition"
_LEVEL = re.compile(r"(level|lvl|l|label|cat|category|class|topic|tier|d)[ _-]?(\d+)", re.IGNORECASE)
_DIALECTS = (("token", "label"), ("doc_token", "doc_label"))  # their files have a topic column as well


class Columns(NamedTuple):
    """What is read of a record: names of columns, () or None for none."""

    text: tuple[str, ...]
    labels: tuple[str, ...]
    levels: tuple[str, ...]
    id: str | None
    split: str | None


def choose_columns(
    tables: Sequence[Table],
    *,
    text: str | Sequence[str] | None,
    labels: str | Sequence[str] | None,
    levels: Sequence[str] | None,
    identity: str | None,
    split: str | None,
) -> Columns:
    """Return the columns to read: those that were named, else the one whose name says what it is.

    Raises:
        ConfigError: a name that is no column, or no telling which.
    """
    names = [name for name in tables[0].columns if all(name in table.columns for table in tables)]
    shown = ", ".join(f"{name!r:.40}" for name in names[:20])
    where = f"{tables[0].place.rstrip(': row')}: its columns are {shown}"
    given = {"text": _several(text), "labels": _several(labels), "levels": _several(levels)}
    single = {"id": identity, "split": split}
    wanted = [(key, name) for key, chosen in given.items() for name in chosen]
    wanted += [(key, name) for key, name in single.items() if name not in (None, NONE)]
    for key, name in wanted:
        if name not in names:
            raise ConfigError(
                f"dataset.prepare.{key}={name} is no column{nearest(str(name), names)} ({where})"
            )
    if given["labels"] and given["levels"]:
        raise ConfigError(
            "dataset.prepare.labels and dataset.prepare.levels are two ways to say one thing; drop one"
        )
    spoken = next((pair for pair in _DIALECTS if set(pair) <= set(names)), ("", ""))
    if not given["text"]:
        given["text"] = _detected("text", [spoken[0]] if spoken[0] else _among(names, _TEXT), where)
    if not given["labels"] and not given["levels"]:
        numbered = _numbered(names)
        single_column = [spoken[1]] if spoken[1] else _among(names, _LABELS)
        if numbered and not single_column:
            given["levels"] = numbered
        else:
            given["labels"] = _detected("labels", single_column + list(numbered), where)
    if identity is None:
        single["id"] = next(iter(_among(names, _ID)), None)
    if split is None and not any(table.split for table in tables):
        candidates = _among(names, _SPLIT)
        first = next(tables[0].records(), (0, {}))[1]
        single["split"] = next((name for name in candidates if split_of_name(str(first.get(name)))), None)
        if "split" in candidates and single["split"] is None:
            raise ConfigError(
                f"column 'split' says {first['split']!r:.40}, which is no split; write dataset.prepare.split="
                f"none, or the column that says train, val and test ({where})"
            )
    return Columns(
        given["text"],
        given["labels"],
        given["levels"],
        *(None if name == NONE else name for name in single.values()),
    )


def _several(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _among(names: Sequence[str], known: str) -> list[str]:
    return [name for name in names if name.casefold().replace(" ", "_") in known.split()]


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


def _detected(key: str, found: Sequence[str], where: str) -> tuple[str, ...]:
    if len(found) == 1:
        return (found[0],)
    why = f"{' and '.join(map(repr, found))} could each be it" if found else "no column's name says so"
    other = ", or dataset.prepare.levels=[A,B] with one for each level" if key == "labels" else ""
    raise ConfigError(f"which column has the {key}? {why}; write dataset.prepare.{key}=NAME{other} ({where})")


# --- cells


def text_of(record: Record, columns: Sequence[str], place: str) -> str:
    """Return a record's text; several columns are joined by a line end, a list of tokens by spaces.

    Raises:
        DataError: a value that is no text.
    """
    parts = []
    for name in columns:
        value = _value(record, name, place)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = " ".join(value)
        if not isinstance(value, str):
            raise DataError(f"{place}: {name} must be a text, found {value!r:.60}")
        parts.append(value)
    return "\n".join(parts)


def cells_of(record: Record, columns: Columns, place: str) -> tuple[str, ...]:
    """Return what a record's label columns hold, as texts: a cell each, or the items of a list.

    Raises:
        DataError: a value that is no label, or a level without the one above it.
    """
    if columns.levels:
        names = [_label(_value(record, name, place), name, place) for name in columns.levels]
        filled = [name for name in names if name]
        if names[: len(filled)] != filled:
            empty = columns.levels[names.index("")]
            raise DataError(f"{place}: {empty} is empty and a level below it is not; a path has no holes")
        return tuple(filled)
    cells: list[str] = []
    for name in columns.labels:
        value = _value(record, name, place)
        if isinstance(value, str):
            value = _listed(value)
        cells += (_label(item, name, place) for item in (value if isinstance(value, list) else [value]))
    return tuple(filter(None, cells))


def _value(record: Record, name: str, place: str) -> Any:
    if name not in record:
        raise DataError(f"{place}: no {name!r}; the record has {', '.join(map(repr, record))}")
    return record[name]


def _listed(cell: str) -> str | list[Any]:
    """Return the items of a list written as JSON or as Python does, any other cell as it is."""
    if cell.startswith("[") and cell.endswith("]"):
        spaced = re.sub(r"(?<=['\"])\s+(?=['\"])", ", ", cell)  # as numpy prints an array: ['a' 'b']
        for read, text in ((json.loads, cell), (ast.literal_eval, spaced)):
            try:
                value = read(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(value, list):
                return value
    return cell


def _label(value: Any, name: str, place: str) -> str:
    """Return a cell's label, "" for an empty one (null, or the NaN that pandas writes)."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a class number in a column that has holes
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{place}: {name} must hold labels (texts), found {value!r:.60}")
    return plain_name(str(value))


def split_of(record: Record, column: str, place: str) -> str:
    """Return the split that a record's column names.

    Raises:
        DataError: it names none.
    """
    value = _value(record, column, place)
    found = split_of_name(str(value))
    if not found:
        raise DataError(
            f"{place}: {column}={value!r:.60} names no split; known are {', '.join(SPLIT_OF_WORD)}"
        )
    return found


def as_options(columns: Columns, signs: Signs) -> Mapping[str, Any]:
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
