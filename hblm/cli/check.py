"""Every argument and what the YAML files compose to, checked before Hydra starts."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import OmegaConf

from hblm.cli.command_line import arguments_of, without_spaces
from hblm.cli.programs import SWEPT, Program
from hblm.config.compose import CHDIR, Composer, Unreadable, compose, parse
from hblm.config.grid import MOST_VALUES, SweepFile, axes_of, cells_of, count_values, read_sweep, values_of
from hblm.config.groups import STAND_IN, OptionGroups, shipped_options
from hblm.config.hints import groups_of, key_hint, option_hint, word_hint
from hblm.config.overrides import argument
from hblm.config.schema import Leaf, leaves, plain, read_leaf
from hblm.config.sweep import SweepNode
from hblm.errors import ConfigError, nearest

_LONGEST_SHOWN = 500  # characters of an argument that cannot be read


_CELLS_CHECKED = 200  # of a grid, before it starts; each run is checked again when its turn comes


PASSED_ON = ("hydra_help", "version", "shell_completion", "info")  # Hydra answers these by itself


def _unreadable(
    text: str, program: Program, option_groups: OptionGroups, many: bool, given: Mapping[str, str]
) -> Iterator[str]:
    """Yield of an argument that Hydra cannot read what is wrong, and how it is written."""
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
        wrong = [*override_faults(program, option_groups, override, many, given)]
        yield from wrong  # quotes alone would not make it right
        if not wrong:
            yield f"{text} is not of the form key=value; quote special characters twice: {quoted}"
    else:
        yield f"{text} is not of the form key=value{word_hint(text, program.name, option_groups)}"


def check(program: Program, argv: Sequence[str], found: Sequence[str] = ()) -> list[str]:
    """Return the arguments as Hydra takes them, flags first.

    Raises:
        ConfigError: `found`, and each fault of the command line and of the YAML it selects.
    """
    words, faults = without_spaces(argv)
    arguments, of_flags = arguments_of(program, words)
    faults, refused = [*found, *faults, *of_flags], meant_by(of_flags)
    flags = [
        f"--{name.replace('_', '-')}{'' if value is True else f'={value}'}"
        for name, value in vars(arguments).items()
        if name != "overrides" and value
    ]
    if any(getattr(arguments, name, None) for name in PASSED_ON):
        return [*flags, *arguments.overrides]
    option_groups = OptionGroups(arguments.config_dir)
    if arguments.multirun and arguments.cfg:
        faults.append("--cfg shows one run; drop --multirun (-m)")
    as_written = {key: value for key, _, value in (text.partition("=") for text in arguments.overrides)}
    good: list[Override] = []
    for text in arguments.overrides:
        try:
            override = parse(text)
        except Unreadable:
            override = None
        if override is None or not override.key_or_group:
            wrong = [*_unreadable(text, program, option_groups, arguments.multirun, as_written)]
            faults += wrong
            refused |= {text.partition("=")[0], *meant_by(wrong)}
            continue
        wrong = [*override_faults(program, option_groups, override, arguments.multirun, as_written)]
        faults += wrong
        if wrong:
            refused.add(override.key_or_group)
            refused |= meant_by(wrong)
        else:
            good.append(override)
    given = {override.key_or_group for override in good}
    grid, wrong_values = SweepFile("", Path(), {}, SweepNode()), set[str]()
    if "sweep" in given and program.name in SWEPT:
        name = next(str(override.value()) for override in good if override.key_or_group == "sweep")
        try:
            grid = read_sweep(name, option_groups)
        except ConfigError as error:
            faults += str(error).splitlines()
        faults += _grid_faults(grid, name, arguments.multirun)
        of_axes, wrong_values = axis_faults(program, grid, option_groups)
        faults += of_axes
    needs_dataset = (
        "dataset" in groups_of(program.name, option_groups) and not {"experiment", "sweep"} & given
    )
    stand_in = []
    if needs_dataset and "dataset" not in given:
        stand_in = [STAND_IN]
        good = [override for override in good if not override.key_or_group.startswith("dataset.prepare.")]
        if not {"dataset", "experiment", "sweep"} & {*as_written, *refused}:
            faults.append(
                f"dataset= is required: one of {', '.join(sorted(option_groups.groups['dataset']))}"
            )
    composer = Composer(program.name, program.schema, option_groups.search_path)
    axes = axes_of(grid, option_groups, [override.input_line or "" for override in good])
    for cell in itertools.islice(cells_of(replace(grid, node=SweepNode()), axes), _CELLS_CHECKED):
        if wrong_values & {*cell.overrides}:
            continue
        composed = composition_faults(composer, option_groups, good, [*cell.overrides, *stand_in])
        faults += [fault for fault in composed if not _follows(fault, refused)]
    if faults:
        raise ConfigError("\n".join(dict.fromkeys(faults)))
    return [*flags, *arguments.overrides]


def meant_by(faults: Iterable[str]) -> set[str]:
    """Return the keys that faults propose: these are meant, and so not missing."""
    found = {key for fault in faults for key in re.findall(r"([\w.]+)=", fault.partition("; ")[2])}
    return found.union(*(re.findall(r"[\w.]+", each.partition("did you mean")[2]) for each in faults))


def _follows(fault: str, refused: Iterable[str]) -> bool:
    """Return whether a fault speaks of a key that was given and refused: it is neither missing nor judged."""
    return any(re.search(rf"(?<![\w.]){re.escape(key)}=", fault) for key in refused)


def _grid_faults(grid: SweepFile, name: str, many: bool) -> Iterator[str]:
    """Yield why a sweep file cannot be run by Hydra's own sweeper as it was asked for."""
    submit = f"python -m hblm.sweep submit sweep={name}"
    if not many:
        yield f"sweep={name} names a grid, not one run; add -m, or write: {submit}"
    elif grid.beyond_hydra:
        said = " and ".join(f"sweep.{key}" for key in grid.beyond_hydra)
        yield f"sweep={name} has {said}, which -m cannot do; write: {submit}"


def axis_faults(program: Program, grid: SweepFile, option_groups: OptionGroups) -> tuple[list[str], set[str]]:
    """Return what is wrong with a sweep file's axes, once and not in each cell; and the key=value of it."""
    found: list[str] = []
    wrong: set[str] = set()
    for axis in axes_of(grid, option_groups):
        values = [f"{axis.key}={text}" for text, _ in axis.values]
        for text in (f"{axis.key}={grid.params[axis.key]}", *values):
            faults = [*override_faults(program, option_groups, parse(text), True, grid.params)]
            if not faults:
                continue
            wrong.add(text)
            if text not in values or len(values) == 1:
                found += (f"{grid.file}: hydra.sweeper.params.{axis.key}: {fault}" for fault in faults)
    return found, wrong


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
        program: whose key it is to be.
        option_groups: the options.
        override: one of the command line's.
        many: whether it may have several values.
        given: all of the command line: key -> value as it is written.
        programs: those whose keys may be meant; the program itself.
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
    """Say that a group does not have an option, and what to write."""
    options = ", ".join(sorted(option_groups.groups[group]))
    return f"is not one of {options}{option_hint(group, value, program.name, option_groups, data_dir)}"


def _hydra_faults(override: Override) -> Iterator[str]:
    """Yield why a key of Hydra's own cannot be given; most can."""
    key, text = override.key_or_group, override.input_line or ""
    if ("/" in key or key == "hydra") and not isinstance(override.value(), (str, list, type(None))):
        yield f"{text}: the value is the name of an option of Hydra's"


def _several(key: str, value: Any, many: bool) -> str:
    """Say how several values are written, where a list or 1-5 was given for one; else ""."""
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
    """Yield what is wrong in the YAML files that a run's overrides select, and between keys."""
    judged = {override.key_or_group for override in overrides if "${" not in (override.input_line or "")}
    judged.discard(CHDIR)
    try:
        found = composer.compose(cell)
    except Unreadable as error:
        unknown = re.search(r"Could not override '([\w.]+)\.(\w+)'", str(error))
        if unknown and "prepare" in unknown[1]:
            yield _unknown_option(composer.name, cell, unknown[1], unknown[2])
            return
        yield re.sub(r" To append to your config use \S+", "", str(error))
        return
    for fault in found.faults:
        group = fault.key.partition(".")[0]
        if fault.value == "???":
            context = f" with {group}={found.choices[group]}" if group in found.choices else ""
            yield f"{fault.key}= is required{context}"
        elif fault.key not in judged:
            yield f"{option_groups.place_of(fault.key, dict(found.choices))}{fault}"
    if all(fault.value == "???" for fault in found.faults):
        yield from found.config.conflicts()
        name = contradicted_method(found.choices, found.config)
        if name:
            yield contradiction(name, found.config, _causes(composer, name, cell))


def contradicted_method(choices: Mapping[str, str | None], config: Any) -> str | None:
    """Return the chosen method if the other options make another one.

    A preset of the user's own is not judged: its name says nothing about the model.
    """
    name = choices.get("method")
    return name if name in shipped_options("method") and config.method != name else None


def contradiction(name: str, config: Any, causes: Sequence[str]) -> str:
    """Say that the options beside method=`name` make another method, and how to write that one."""
    others = " and ".join(causes) or "the other options"
    return (
        f"method={name} contradicts {others}: together they make method={config.method}; leave {others} out, "
        f"or write {' '.join([f'method={config.method}', *causes])}"
    )


def _causes(composer: Composer, name: str, cell: Sequence[str]) -> list[str]:
    """Return the overrides of a run that contradict its method, each alone or only together."""
    chosen = f"method={name}"
    others = [text for text in cell if text != chosen]

    def method_of(texts: Sequence[str]) -> str | None:
        try:
            method: str = composer.compose(texts).config.method
        except Unreadable:  # without what was left out
            return None
        return method

    alone = [text for text in others if method_of([chosen, STAND_IN, text]) not in (name, None)]
    return alone or [text for text in others if method_of([each for each in cell if each != text]) == name]


def _unknown_option(program: str, texts: list[str], group: str, name: str) -> str:
    """Say which keys a free group of keys has, when one that it has not was given."""
    others = [text for text in texts if not text.startswith(f"{group}.")]
    known = list(OmegaConf.select(compose(program, others), group) or {})
    has = f"; it has {', '.join(known)}" if known else "; this dataset has none"
    return f"{group}.{name} is not an option of the dataset{nearest(name, known)}{has}"
