"""What a preparation must give: counts that a dataset's YAML expects, compared with those that were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from hblm.document import SPLITS
from hblm.errors import ConfigError, nearest

_KEYS = ("documents", "levels")


class Expectation(NamedTuple):
    """One count: what it counts, what was expected, what was found."""

    what: str
    expected: int
    found: int


def require_expectable(expect: Mapping[str, Any]) -> None:
    """Refuse expectations that nothing can meet.

    Raises:
        ConfigError: a key or value of another kind.
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
) -> list[Expectation]:
    """Return every count that is expected, beside what a manifest's counts say.

    The documents are those that the raw data lists: those dropped for having no text or label count as well.

    Raises:
        ConfigError: expectations that nothing can meet.
    """
    require_expectable(expect)
    found = [
        Expectation(f"documents in {split}", number, counts[split]["documents"] + dropped.get(split, 0))
        for split, number in (expect.get("documents") or {}).items()
    ]
    wanted = expect.get("levels")
    if wanted:
        found.append(Expectation("levels", len(wanted), len(levels)))
        for level, number in enumerate(wanted):
            found.append(
                Expectation(f"nodes on level {level}", number, levels[level] if level < len(levels) else 0)
            )
    return found


def mismatch_table(compared: Sequence[Expectation]) -> str:
    """Return a table of expected and found, differences marked; "" if there are none."""
    if all(row.expected == row.found for row in compared):
        return ""
    width = max(len(row.what) for row in compared)
    lines = [f"{'':{width}}  {'expected':>10}  {'found':>10}"]
    for row in compared:
        mark = "" if row.expected == row.found else f"  differs by {row.found - row.expected:+,}"
        lines.append(f"{row.what:{width}}  {row.expected:>10,}  {row.found:>10,}{mark}")
    return "\n".join(lines)
