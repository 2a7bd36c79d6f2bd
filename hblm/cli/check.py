"""The check of a command line before Hydra starts: each argument, and what the YAML files compose to."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import OmegaConf

from hblm.cli.command_line import arguments_of, without_spaces
from hblm.cli.contradictions import contradicted_method, contradicting, contradiction
from hblm.cli.programs import SWEPT, Program
from hblm.config.compose import CHDIR, Composer, Unreadable, compose, parse
from hblm.config.grid import MOST_VALUES, SweepFile, axes_of, cells_of, count_values, read_sweep, values_of
from hblm.config.groups import STAND_IN, OptionGroups, groups_of
from hblm.config.hints import key_hint, option_hint, word_hint
from hblm.config.overrides import argument
from hblm.config.schema import Fault, Leaf, leaves, plain, read_leaf
from hblm.config.sweep import SweepNode
from hblm.errors import ConfigError, nearest

_LONGEST_SHOWN = 500  # characters of an argument that cannot be read
_PREPARE = "dataset.prepare"  # the options of a converter, any key
_CELLS_CHECKED = 200  # of a grid, before it starts; each run is checked again when its turn comes
PASSED_ON = ("hydra_help", "version", "info")  # Hydra answers these by itself


@dataclass
class _Arguments:
    """The key=value arguments of a command line, judged one by one.

    Attributes:
        written: key -> value as it is written.
        good: those that can be taken.
        faults: what is wrong with the others.
        refused: the keys of the others, and the keys that their faults propose.
    """

    written: Mapping[str, str]
    good: list[Override] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)

    @property
    def given(self) -> set[str]:
        """The keys and groups of those that can be taken."""
        return {override.key_or_group for override in self.good}


def check(
    program: Program,
    argv: Sequence[str],
    known_faults: Sequence[str] = (),
    composer: Composer | None = None,
) -> list[str]:
    """Return the arguments as Hydra takes them, flags first.

    A `composer` of the program, with the folder of --config-dir, keeps what is composed here.

    Raises:
        ConfigError: `known_faults`, and each fault of the command line and of the YAML files it selects.
    """
    words, of_spaces = without_spaces(argv)
    arguments, of_flags = arguments_of(program, words)
    flags = [
        f"--{name.replace('_', '-')}{'' if value is True else f'={value}'}"
        for name, value in vars(arguments).items()
        if name != "overrides" and value
    ]
    if any(getattr(arguments, name, None) for name in PASSED_ON):
        return [*flags, *arguments.overrides]
    option_groups = OptionGroups(arguments.config_dir)
    judged = _judge(program, arguments.overrides, option_groups, arguments.multirun)
    judged.refused |= meant_by(of_flags)
    faults = [*known_faults, *of_spaces, *of_flags]
    if arguments.multirun and arguments.cfg:
        faults.append("--cfg shows one run; drop --multirun (-m)")
    faults += judged.faults
    grid, of_grid, wrong_values = _grid(program, judged, option_groups, arguments.multirun)
    faults += of_grid
    stand_in, of_dataset = _stand_in(program, judged, option_groups)
    faults += of_dataset
    composer = composer or Composer(program.name, program.schema, option_groups.search_path)
    axes = axes_of(grid, option_groups, [override.input_line or "" for override in judged.good])
    for cell in itertools.islice(cells_of(replace(grid, node=SweepNode()), axes), _CELLS_CHECKED):
        if not wrong_values & {*cell.overrides}:
            texts = [*cell.overrides, *stand_in]
            of_cell = composition_faults(composer, option_groups, judged.good, texts)
            faults += [fault for fault in of_cell if not _is_about(fault, judged.refused)]
    if faults:
        raise ConfigError("\n".join(dict.fromkeys(faults)))
    return [*flags, *arguments.overrides]


def _judge(program: Program, texts: Sequence[str], option_groups: OptionGroups, many: bool) -> _Arguments:
    """Return the key=value arguments, judged one by one."""
    judged = _Arguments({key: value for key, _, value in (text.partition("=") for text in texts)})
    for text in texts:
        try:
            override = parse(text)
        except Unreadable:
            override = None
        if override is None or not override.key_or_group:
            key = text.partition("=")[0]
            faults = [*_unreadable(text, program, option_groups, many, judged.written)]
        else:
            key = override.key_or_group
            faults = [*override_faults(program, option_groups, override, many, judged.written)]
        if override is not None and not faults:
            judged.good.append(override)
        else:
            judged.faults += faults
            judged.refused |= {key, *meant_by(faults)}
    return judged


def _grid(
    program: Program, judged: _Arguments, option_groups: OptionGroups, many: bool
) -> tuple[SweepFile, list[str], set[str]]:
    """Return the given sweep file (for none, one without axes), its faults, and its wrong key=value."""
    none = SweepFile("", Path(), {}, SweepNode())
    if "sweep" not in judged.given or program.name not in SWEPT:
        return none, [], set()
    name = next(str(override.value()) for override in judged.good if override.key_or_group == "sweep")
    try:
        grid, faults = read_sweep(name, option_groups), []
    except ConfigError as error:
        grid, faults = none, str(error).splitlines()
    of_axes, wrong_values = axis_faults(program, grid, option_groups)
    return grid, [*faults, *_grid_faults(grid, name, many), *of_axes], wrong_values


def _stand_in(
    program: Program, judged: _Arguments, option_groups: OptionGroups
) -> tuple[list[str], list[str]]:
    """Return an override in place of a missing dataset, so that the rest composes; and the fault."""
    groups = groups_of(program.name, option_groups)
    if "dataset" not in groups or {"dataset", "experiment", "sweep"} & judged.given:
        return [], []
    of_converter = f"{_PREPARE}."  # of another dataset than the one that takes its place
    judged.good = [each for each in judged.good if not each.key_or_group.startswith(of_converter)]
    if {"dataset", "experiment", "sweep"} & {*judged.written, *judged.refused}:
        return [STAND_IN], []
    names = ", ".join(sorted(option_groups.groups["dataset"]))
    return [STAND_IN], [f"dataset= is required: one of {names}"]


def _unreadable(
    text: str, program: Program, option_groups: OptionGroups, many: bool, given: Mapping[str, str]
) -> Iterator[str]:
    """Yield what is wrong with an argument that Hydra cannot read, and how it is written."""
    key, equals, value = text.partition("=")
    if len(text) > _LONGEST_SHOWN:
        yield f"{text:.{_LONGEST_SHOWN}} is not of the form key=value"
    elif equals and re.fullmatch(r"\+*[\w.@/]+", key):
        quoted = argument(key, value.strip(chr(34)))
        try:
            override = parse(shlex.split(quoted)[0])
        except Unreadable:  # the key cannot be read either
            yield f"{text} is not of the form key=value"
            return
        faults = [*override_faults(program, option_groups, override, many, given)]
        yield from faults  # quotes alone would not make it right
        if not faults:
            yield f"{text} is not of the form key=value; quote special characters twice: {quoted}"
    else:
        yield f"{text} is not of the form key=value{word_hint(text, program.name, option_groups)}"


def meant_by(faults: Iterable[str]) -> set[str]:
    """Return the keys that faults propose: these are meant, and so not missing."""
    keys = {key for fault in faults for key in re.findall(r"([\w.]+)=", fault.partition("; ")[2])}
    return keys.union(*(re.findall(r"[\w.]+", each.partition("did you mean")[2]) for each in faults))


def _is_about(fault: str, refused: Iterable[str]) -> bool:
    """Return whether a fault is about a key that was refused: its value is neither missing nor judged."""
    return any(re.search(rf"(?<![\w.]){re.escape(key)}=", fault) for key in refused)


def _grid_faults(grid: SweepFile, name: str, many: bool) -> Iterator[str]:
    """Yield why Hydra's own sweeper cannot run a sweep file."""
    submit = f"python -m hblm.sweep submit sweep={name}"
    if not many:
        yield f"sweep={name} names a grid, not one run; add -m, or write: {submit}"
    elif grid.beyond_hydra:
        keys = " and ".join(f"sweep.{key}" for key in grid.beyond_hydra)
        yield f"sweep={name} has {keys}, which -m cannot do; write: {submit}"


def axis_faults(program: Program, grid: SweepFile, option_groups: OptionGroups) -> tuple[list[str], set[str]]:
    """Return the faults of a sweep file's axes, once and not for each cell; and the wrong key=value."""
    all_faults: list[str] = []
    wrong: set[str] = set()
    for axis in axes_of(grid, option_groups):
        values = [f"{axis.key}={text}" for text, _ in axis.values]
        for text in (f"{axis.key}={grid.params[axis.key]}", *values):
            faults = [*override_faults(program, option_groups, parse(text), True, grid.params)]
            if not faults:
                continue
            wrong.add(text)
            if text not in values or len(values) == 1:
                all_faults += (f"{grid.file}: hydra.sweeper.params.{axis.key}: {fault}" for fault in faults)
    return all_faults, wrong


def override_faults(
    program: Program,
    option_groups: OptionGroups,
    override: Override,
    many: bool,
    given: Mapping[str, str],
    programs: Sequence[str] = (),
) -> Iterator[str]:
    """Yield what is wrong with one override.

    Args:
        program: the program that must know the key.
        option_groups: the groups and their options.
        override: one argument of the command line.
        many: whether it may have several values.
        given: the whole command line: key -> value as it is written.
        programs: the programs whose keys are proposed; empty: the program itself.
    """
    key, text = override.key_or_group, override.input_line or ""
    if key == "hydra" or key.startswith(("hydra.", "hydra/")):
        yield from _hydra_faults(override)
        return
    known = {leaf.name: leaf for leaf in leaves(program.schema)}
    groups = set(groups_of(program.name, option_groups))
    if override.type == OverrideType.DEL:
        yield f"{text}: a key cannot be removed; give it another value"
        return
    if override.is_sweep_override() and not override.is_discrete_sweep():
        yield f"{text}: write the values one by one, or as range(start,stop)"
        return
    if (count := count_values(override)) > MOST_VALUES:
        yield f"{text} names {count:,} values; at most {MOST_VALUES:,} can be run"
        return
    if override.is_sweep_override() and not many:
        value = text.partition("=")[2]
        is_list = key in known and str(known[key].field.type).startswith("list")
        if is_list and not known[key].rules["one"]:
            yield f"{text} is not a list; write {shlex.quote(f'{key}=[{value}]')}"
            return
        together = f", or write {shlex.quote(f'{key}=[{value}]')} for all at once" if is_list else ""
        yield f"{text} names several values; add -m to run one after the other{together}"
        return
    if key in groups:
        data_dir = given.get("data_dir", "data")
        for value in values_of(override, option_groups):
            if isinstance(value, list) and value:
                yield f"{key}={plain(value)} is not one of {', '.join(sorted(option_groups.groups[key]))}" + (
                    _several(key, value, many)
                )
            elif not isinstance(value, str) or value not in option_groups.groups[key]:
                yield f"{key}={plain(value)} {no_option(key, str(value), program, option_groups, data_dir)}"
    elif key in known:
        yield from _value_faults(known[key], values_of(override, option_groups), many)
    elif key.rpartition(".")[0] not in (
        name for name, leaf in known.items() if isinstance(leaf.default, dict)
    ):
        value = text.partition("=")[2]
        datasets = given.get("dataset", "").split(",")
        hint = key_hint(key, value, programs or (program.name,), option_groups, datasets)
        yield f"{key}={value} is not a key{hint}"


def no_option(
    group: str, value: str, program: Program, option_groups: OptionGroups, data_dir: str = "data"
) -> str:
    """Return the message for an option that a group does not have, with what to write."""
    options = ", ".join(sorted(option_groups.groups[group]))
    return f"is not one of {options}{option_hint(group, value, program.name, option_groups, data_dir)}"


def _hydra_faults(override: Override) -> Iterator[str]:
    """Yield why a key of Hydra's own cannot be given; most can."""
    key, text = override.key_or_group, override.input_line or ""
    if ("/" in key or key == "hydra") and not isinstance(override.value(), (str, list, type(None))):
        yield f"{text}: the value is the name of an option of Hydra's"


def _several(key: str, value: Any, many: bool) -> str:
    """Return how several values are written, where a list or 1-5 was given for one value; else ""."""
    how = "" if many else ", with -m"
    span = re.fullmatch(r"(\d+) ?(?:-|:|\.\.|to) ?(\d+)", value) if isinstance(value, str) else None
    if span:
        return (
            f"; several values are written {shlex.quote(f'{key}=range({span[1]},{int(span[2]) + 1})')}{how}"
        )
    if isinstance(value, list) and value:
        return f"; several values are written {key}={','.join(map(plain, value))}{how}"
    return ""


def _value_faults(leaf: Leaf, values: Iterable[Any], many: bool) -> Iterator[str]:
    for value in values:
        group = leaf.rules["option_of"]
        if group:
            yield f"{leaf.name}={plain(value)} is set by choosing the option; write {group}={plain(value)}"
            continue
        if isinstance(value, str) and "${" in value:
            continue  # an interpolation: judged by what it composes to
        _, why = read_leaf(leaf, value)
        if why:
            yield f"{leaf.name}={plain(value)} {why}{_several(leaf.name, value, many)}"


def composition_faults(
    composer: Composer, option_groups: OptionGroups, overrides: list[Override], cell: list[str]
) -> Iterator[str]:
    """Yield the faults of the YAML files that a run's overrides select, and the conflicts between keys."""
    judged = {override.key_or_group for override in overrides if "${" not in (override.input_line or "")}
    judged.discard(CHDIR)
    try:
        composed = composer.compose(cell)
    except Unreadable as error:
        unknown = re.search(r"Could not override '([\w.]+)\.(\w+)'", str(error))
        if unknown and unknown[1].startswith(_PREPARE):
            yield _unknown_option(composer.name, cell, unknown[1], unknown[2])
            return
        yield re.sub(r" To append to your config use .*", "", str(error))
        return
    required = [*option_groups.left_out(composed.choices, {text.partition("=")[0] for text in cell})]
    for fault in [*composed.faults, *(Fault(key, "???", "is required") for key in required)]:
        group = fault.key.partition(".")[0]
        if fault.value == "???":
            context = f" with {group}={composed.choices[group]}" if group in composed.choices else ""
            yield f"{fault.key}= is required{context}"
        elif fault.key not in judged:
            yield f"{option_groups.place_of(fault.key, dict(composed.choices))}{fault}"
    if not required and all(fault.value == "???" for fault in composed.faults):
        yield from composed.config.conflicts()
        name = contradicted_method(composed.choices, composed.config)
        if name:
            yield contradiction(name, composed.config, contradicting(composer, name, cell))


def _unknown_option(program: str, texts: list[str], group: str, name: str) -> str:
    """Return the message for an unknown option of a converter, with the options that it has."""
    others = [text for text in texts if not text.startswith(f"{group}.")]
    known = list(OmegaConf.select(compose(program, others), group) or {})
    has = f"; it has {', '.join(known)}" if known else "; this dataset has none"
    return f"{group}.{name} is not an option of the dataset{nearest(name, known)}{has}"
