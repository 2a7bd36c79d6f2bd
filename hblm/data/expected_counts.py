"""Expected counts of a dataset, given in its YAML, compared with the counts of a preparation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from hblm.document import SPLITS
from hblm.errors import ConfigError, nearest

_KEYS = ("documents", "levels")


class Comparison(NamedTuple):
    """One count: its name, the expected and the actual number."""

    name: str
    expected: int
    actual: int


def require_expectable(expect: Mapping[str, Any]) -> None:
    """Refuse invalid expectations.

    Raises:
        ConfigError: an unknown key, or a value of another type.
    """
    for name, value in expect.items():
        if name not in _KEYS:
            raise ConfigError(
                f"dataset.expect.{name} is not one of {', '.join(_KEYS)}{nearest(str(name), _KEYS)}"
            )
        by_split = isinstance(value, Mapping) and set(value) <= set(SPLITS)
        sound = by_split if name == "documents" else isinstance(value, Sequence)
        numbers = value.values() if isinstance(value, Mapping) else value
        if not sound or not all(type(number) is int for number in numbers):
            shape = "[7,134], nodes by level" if name == "levels" else "{train: 9, val: 1, test: 2}"
            raise ConfigError(f"dataset.expect.{name}={value}: expected numbers such as {shape}")


def compare(
    expect: Mapping[str, Any],
    counts: Mapping[str, Any],
    levels: Sequence[int],
    dropped: Mapping[str, int] = MappingProxyType({}),
) -> list[Comparison]:
    """Return a comparison for each expected count.

    The documents are those that the raw data lists, so that dropped documents count as well.

    Args:
        expect: the expected counts.
        counts: of each split, as in a manifest.
        levels: the number of nodes of each level.
        dropped: documents per split that had no text or no label.

    Raises:
        ConfigError: invalid expectations.
    """
    require_expectable(expect)
    comparisons = [
        Comparison(f"documents in {split}", number, counts[split]["documents"] + dropped.get(split, 0))
        for split, number in (expect.get("documents") or {}).items()
    ]
    wanted = expect.get("levels")
    if wanted:
        comparisons.append(Comparison("levels", len(wanted), len(levels)))
        for level, number in enumerate(wanted):
            comparisons.append(
                Comparison(f"nodes on level {level}", number, levels[level] if level < len(levels) else 0)
            )
    return comparisons


def mismatch_table(compared: Sequence[Comparison]) -> str:
    """Return a table of expected and actual counts with their differences; "" if all are equal."""
    if all(row.expected == row.actual for row in compared):
        return ""
    width = max(len(row.name) for row in compared)
    lines = [f"{'':{width}}  {'expected':>10}  {'found':>10}"]
    for row in compared:
        mark = "" if row.expected == row.actual else f"  differs by {row.actual - row.expected:+,}"
        lines.append(f"{row.name:{width}}  {row.expected:>10,}  {row.actual:>10,}{mark}")
    return "\n".join(lines)
