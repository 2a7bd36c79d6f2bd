"""Separators between the names of a path, and between the labels of a cell: given, or detected.

A wrong guess would silently make another tree. So an ambiguous separator is an error that names the options.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from hblm.data.convert.label_trees import Path
from hblm.data.raw.cleaning import plain_name
from hblm.errors import ConfigError

NONE = "none"  # the value of an option: there is none, do not detect it

PATH_SEPARATORS = (
    "--",
    "->",
    "=>",
    ">>",
    "→",
    "»",
    ">",
    "::",
    "/",
    "\\",
    "|",
    ".",
    ":",
)  # one that contains another one comes first

LABEL_SEPARATORS = (";", "|", "\n", ",", " ")
_IN_TEXT = (".", ":")  # punctuation, if a blank follows
_BETWEEN_EQUALS = ("/", "|", ":", "::", "\\")  # may separate labels of one level, as in Action/Comedy


class Separators(NamedTuple):
    """The separators of the names of a path, and of the labels of a cell; None for none."""

    path: str | None
    labels: str | None

    def paths(self, cell: str) -> list[Path]:
        """Return the paths of a cell; names are stripped of blanks."""
        paths = []
        for label in _split(cell, self.labels):
            paths.append(tuple(plain_name(name) for name in _names(label, self.path)))
        return paths


def choose_separators(
    cells: Iterable[str], *, path: str | None, labels: str | None, is_node: Callable[[str], bool]
) -> Separators:
    """Return the given separators, else those that are unambiguous in the distinct cells.

    A sign separates labels if splitting by it gives fewer distinct labels than cells. It separates the names
    of a path if at least half of the labels contain it, no name is empty, and there are fewer first names
    than labels. `_is_list` and `_is_path` have the exceptions.

    Args:
        cells: the distinct label cells.
        path, labels: as given; None: to be detected; "none": there is none.
        is_node: returns whether a whole label is a node of a given taxonomy.

    Raises:
        ConfigError: the cells are ambiguous, or a given separator is in none of them.
    """
    unknown = {cell for cell in cells if not is_node(cell)}
    if labels is None:
        labels = next(
            (sign for sign in LABEL_SEPARATORS if sign != path and _is_list(unknown, sign, path, is_node)),
            NONE,
        )
    else:
        _require_occurring("label_separator", labels, unknown)
    chosen = None if labels == NONE else labels
    single = {label for cell in unknown for label in _split(cell, chosen) if not is_node(label)}
    if path is not None:
        _require_occurring("separator", path, single)
        return Separators(None if path == NONE else path, chosen)
    fitting: list[str] = []
    for sign in PATH_SEPARATORS:
        held = any(sign in longer for longer in fitting)
        if sign != chosen and not held and _is_path(single, sign):
            fitting.append(sign)
    if len(fitting) > 1:
        example = max(sorted(single), key=lambda label: sum(sign in label for sign in fitting))
        raise ConfigError(
            f"what separates the names of a path, as in {example!r:.80}? {' or '.join(map(repr, fitting))} "
            f"would do; {_hint('separator', fitting[0])} (none: labels are names, not paths)"
        )
    return Separators(fitting[0] if fitting else None, chosen)


def _split(cell: str, sign: str | None) -> list[str]:
    return [label for part in (cell.split(sign) if sign else [cell]) if (label := part.strip())]


def _names(label: str, sign: str | None) -> list[str]:
    """Return the names of a path; a separator at its beginning or end is ignored."""
    if not sign or label == sign:
        return [label]
    return label.removeprefix(sign).removesuffix(sign).split(sign)


def _hint(option: str, sign: str) -> str:
    quoted = f"'dataset.prepare.{option}=\"{sign}\"'" if sign not in (".", "/", ":", "--", "::") else ""
    return f"write {quoted or f'dataset.prepare.{option}={sign}'}"


def _require_occurring(option: str, sign: str, labels: set[str]) -> None:
    """Refuse a given separator that is in none of the labels."""
    if sign != NONE and labels and (not sign or not any(sign in label for label in labels)):
        shown = ", ".join(map(repr, sorted(labels)[:3]))
        raise ConfigError(f"dataset.prepare.{option}={sign} is in none of the labels ({shown:.200} ...)")


def _is_list(cells: set[str], sign: str, path: str | None, is_node: Callable[[str], bool]) -> bool:
    """Return whether a sign separates labels.

    Raises:
        ConfigError: the cells are ambiguous.
    """
    holding = sorted(cell for cell in cells if sign in cell)
    if not holding:
        return False
    inside = {part for cell in holding for part in _split(cell, sign)}
    if all(map(is_node, inside)):
        return True
    times = Counter(part for cell in cells for part in _split(cell, sign))
    fewer = len(times) < len(cells)
    paths = [other for other in ((path,) if path else PATH_SEPARATORS) if other not in (NONE, sign)]
    if (
        sign == " "
    ):  # most names contain blanks: a list only if every part is a path, or a label of another cell
        sure = any(all(other in part or part in cells for part in inside) for other in paths)
        likely = any(_share_below_known_tops(inside, cells, other) > 0.6 for other in paths)
        if (sure and not fewer) or (likely and not sure):
            raise ConfigError(_question(sign, holding[0]))
        return sure
    if any(
        all(other in cell for cell in cells) and not all(other in part for part in inside) for other in paths
    ):
        return False  # part of a name: every cell is a path, but the parts are not
    recurring = any(times[part] > 1 for part in inside)
    also_path = sign in PATH_SEPARATORS and path is None and _is_path(cells, sign)
    if (fewer and also_path) or (not fewer and not also_path and (recurring or sign != ",")):
        raise ConfigError(_question(sign, holding[0]))
    return fewer and not also_path


def _share_below_known_tops(parts: set[str], cells: set[str], sign: str) -> float:
    tops = {cell.split(sign)[0] for cell in cells if sign in cell}
    known = sum((sign in part and part.split(sign)[0] in tops) or part in cells for part in parts)
    return known / len(parts)


def _question(sign: str, example: str) -> str:
    return (
        f"does {sign!r} separate several labels in {example!r:.80}, or the names of a path, or is it part "
        f"of a name? {_hint('label_separator', sign)}, or dataset.prepare.label_separator=none; and "
        f"dataset.prepare.separator= with what separates the names of a path"
    )


def _is_path(labels: set[str], sign: str) -> bool:
    """Return whether a sign separates the names of a path.

    Raises:
        ConfigError: it may separate labels of one level as well.
    """
    paths = [[name.strip() for name in _names(label, sign)] for label in labels]
    deep = sum(len(names) > 1 for names in paths)
    tops = {names[0] for names in paths}
    if not deep or 2 * deep < len(labels) or not all(map(all, paths)) or len(tops) >= len(labels):
        return False
    if sign == ">" and any("<" in label for label in labels):
        return False  # tags
    if any("://" in label for label in labels) or all(name.isdigit() for names in paths for name in names):
        return False  # addresses; numbers, dates and times
    if sign in _IN_TEXT and any(f"{sign} " in label for label in labels):
        return False
    if sign == ":" and len(tops) == 1:
        return False  # a prefix
    below = {name for names in paths for name in names[1:]}
    if sign in _BETWEEN_EQUALS and tops & below:
        both = sorted(tops & below)[0]
        hint = _hint("separator", sign)
        raise ConfigError(
            f"is {sign!r} between the names of a path? {both!r} is first in some labels and below another in "
            f"others; {hint}, or dataset.prepare.separator=none (labels are names), or "
            f"dataset.prepare.label_separator= if it separates several labels"
        )
    return True
