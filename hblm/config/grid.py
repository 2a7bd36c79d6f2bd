"""Sweep files: reading multirun/sweep/NAME.yaml, its axes, and the cells of their product."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite, prod
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, RangeSweep, Transformer

from hblm.config.compose import Unreadable, parse
from hblm.config.groups import OptionGroups, read_yaml
from hblm.config.schema import plain, read_tree
from hblm.config.sweep import SweepNode
from hblm.errors import ConfigError, nearest

GROUP = "sweep"
MOST_VALUES, MOST_CELLS = 10_000, 100_000  # values of an axis, cells of a grid
PAIRED_BY = ("direction", "method")  # axes in which the two members of an ensemble differ


@dataclass(frozen=True)
class Axis:
    """A key and its values, each as it is written after key= and as Python's value is shown."""

    key: str
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Cell:
    """A cell of a grid before it is composed: one override for each axis, and the values by axis."""

    overrides: tuple[str, ...]
    values: Mapping[str, str]


@dataclass(frozen=True)
class SweepFile:
    """The contents of a sweep file: its axes, and its node `sweep:`.

    Attributes:
        name: the file's, without .yaml.
        file: its path.
        params: hydra.sweeper.params: key -> values, as Hydra's sweeper takes them.
        node: exclude, zip, expect, table, ensemble_weight.
    """

    name: str
    file: Path
    params: Mapping[str, str]
    node: SweepNode

    @property
    def beyond_hydra(self) -> list[str]:
        """Return its keys that Hydra's own sweeper ignores."""
        return [name for name in ("exclude", "zip", "ensemble_weight") if getattr(self.node, name)]


def read_sweep(given: str, option_groups: OptionGroups) -> SweepFile:
    """Read a sweep file, by its name or its path.

    Raises:
        ConfigError: there is no such file, or all that is wrong in it.
    """
    options = option_groups.groups.get(GROUP, {})
    file = options.get(given) or Path(given)
    if not file.is_file():
        close = nearest(given, options)
        there = " There" if close else "; there"
        known = f"{there} are {', '.join(sorted(options))}" if options else ""
        raise ConfigError(f"sweep={given} is no sweep file{close}{known}")
    tree = read_yaml(file)
    if not isinstance(tree.get("sweep") or {}, dict):
        raise ConfigError(f"{file}: sweep: is not a group of keys such as table and expect")
    if "sweep" not in tree and "hydra" not in tree:
        raise ConfigError(f"{file} has neither axes under hydra.sweeper.params nor a group of keys sweep:")
    node, of_node = read_tree(tree.get("sweep") or {}, SweepNode, "sweep.")
    faults = [str(fault) for fault in of_node]
    params: Any = tree
    for part in ("hydra", "sweeper", "params"):
        params = params.get(part) or {} if isinstance(params, dict) else {}
    if not isinstance(params, dict):
        faults.append("hydra.sweeper.params is not a group of axes, such as seed: 1,2,3")
        params = {}
    for key, value in params.items():
        if isinstance(value, (list, dict)):
            written = ",".join(map(plain, value))
            faults.append(
                f"hydra.sweeper.params.{key} is a YAML {'list' if isinstance(value, list) else 'mapping'}, "
                f"which Hydra takes for one value; write {key}: {written}"
            )
    good = {str(key): plain(value) for key, value in params.items() if not isinstance(value, (list, dict))}
    sweep = SweepFile(file.stem, file, good, node)
    if not faults:
        faults += _faults(sweep, option_groups)
    if faults:
        raise ConfigError("\n".join(f"{file}: {fault}" for fault in faults))
    return sweep


def axes_of(sweep: SweepFile, option_groups: OptionGroups, overrides: Sequence[str] = ()) -> list[Axis]:
    """Return the axes of a sweep, in their order: the file's, then those of the command line.

    An override of an axis takes its place; one with a single value is an axis with one value.

    Raises:
        ConfigError: an axis has too many values.
        Unreadable: an axis cannot be read.
    """
    written = {key: f"{key}={value}" for key, value in sweep.params.items()}
    for text in overrides:
        written[parse(text).get_key_element()] = text
    return [_axis(key, parse(text), option_groups) for key, text in written.items()]


def cells_of(sweep: SweepFile, axes: Sequence[Axis]) -> Iterator[Cell]:
    """Yield the cells of the axes: zipped ones advance together, excluded cells are left out.

    The last axis varies fastest. Raises ConfigError where zipped axes have not the same length, or there are
    too many cells.
    """
    by_key = {axis.key: axis for axis in axes}
    together = {key: tuple(names) for names in sweep.node.zip for key in names}
    blocks: list[tuple[tuple[str, ...], list[tuple[tuple[str, str], ...]]]] = []
    for axis in axes:
        names = together.get(axis.key, (axis.key,))
        if any(names == block for block, _ in blocks):
            continue
        lengths = {name: len(by_key[name].values) for name in names}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{name} has {count}" for name, count in lengths.items())
            raise ConfigError(f"{sweep.file}: sweep.zip: zipped axes have as many values each; {counts}")
        blocks.append((names, list(zip(*(by_key[name].values for name in names), strict=True))))
    count = prod(len(values) for _, values in blocks)
    if count > MOST_CELLS:
        of_axes = " x ".join(
            f"{len(values):,} {' and '.join(names)}" for names, values in blocks if len(values) > 1
        )
        raise ConfigError(f"{count:,} cells ({of_axes}) are too many; a grid has at most {MOST_CELLS:,}")
    keys = [key for names, _ in blocks for key in names]
    for choice in itertools.product(*(values for _, values in blocks)):
        flat = dict(zip(keys, itertools.chain.from_iterable(choice), strict=True))
        cell = Cell(
            tuple(f"{axis.key}={flat[axis.key][0]}" for axis in axes),
            {key: value for key, (_, value) in flat.items()},
        )
        if not any(_matches(rule, cell) for rule in sweep.node.exclude):
            yield cell


def count_values(override: Override) -> float:
    """Return how many values an override names, without making them."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return len(value.list)
    if isinstance(value, RangeSweep):
        span = float(value.stop or 0) - float(value.start or 0)
        steps = span / float(value.step) if value.step else inf
        return max(0.0, ceil(steps)) if isfinite(steps) else inf
    return 1


def values_of(override: Override, option_groups: OptionGroups) -> list[Any]:
    """Return the values that an override names, as Python's."""
    value = override.value()
    if isinstance(value, Glob):
        return list(value.filter(list(option_groups.groups.get(override.key_or_group, {}))))
    if override.is_sweep_override():
        return list(override.sweep_iterator(transformer=Transformer.identity))
    return [value]


def _axis(key: str, override: Override, option_groups: OptionGroups) -> Axis:
    if (count := count_values(override)) > MOST_VALUES:
        raise ConfigError(f"{override.input_line} names {count:,} values; at most {MOST_VALUES:,} can be run")
    values = values_of(override, option_groups)
    if isinstance(override.value(), Glob):
        written = [str(value) for value in values]
    elif override.is_sweep_override():
        written = list(override.sweep_string_iterator())
    else:
        written = [(override.input_line or "").partition("=")[2]]
    return Axis(key, tuple((text, plain(value)) for text, value in zip(written, values, strict=True)))


def _matches(rule: Mapping[str, Any], cell: Cell) -> bool:
    return all(cell.values.get(key) in _listed(wanted) for key, wanted in rule.items())


def _listed(wanted: Any) -> list[str]:
    return [plain(value) for value in (wanted if isinstance(wanted, list) else [wanted])]


def _faults(sweep: SweepFile, option_groups: OptionGroups) -> Iterator[str]:
    """Yield the faults between a file's axes and its rules, such as a rule that matches no cell."""
    axes = {}
    for key, value in sweep.params.items():
        try:
            axes[key] = _axis(key, parse(f"{key}={value}"), option_groups)
        except ConfigError as error:
            yield f"hydra.sweeper.params.{error}"
            return
        except Unreadable:
            yield f"hydra.sweeper.params.{key}: {value} cannot be read; write {key}: a,b or range(1,6)"
            return
    zipped: set[str] = set()
    for names in sweep.node.zip:
        if not isinstance(names, list) or len(names) < 2 or not all(isinstance(name, str) for name in names):
            yield f"sweep.zip holds {names}, which is not a list of axes; write zip: [[seed, dataset]]"
            continue
        for name in names:
            if name not in axes:
                yield f"sweep.zip names {name}, which is not an axis{nearest(name, axes)}"
            elif name in zipped:
                yield f"sweep.zip names {name} twice"
            zipped.add(name)
    for rule in sweep.node.exclude:
        if not isinstance(rule, dict) or not rule:
            yield f"sweep.exclude holds {rule}, which is not a mapping such as {{dataset: wos, seed: 1}}"
            continue
        for key, wanted in rule.items():
            if key not in axes:
                yield f"sweep.exclude names {key}, which is not an axis{nearest(str(key), axes)}"
                continue
            known = [value for _, value in axes[key].values]
            for value in _listed(wanted):
                if value not in known:
                    yield f"sweep.exclude: {key} is never {value}{nearest(value, known)}"
    if sweep.node.ensemble_weight and not axes.keys() & set(PAIRED_BY):
        yield f"sweep.ensemble_weight pairs cells by {' or '.join(PAIRED_BY)}, which is not an axis"
