"""Proposals for arguments that a program does not take: keys and options of it or of another program."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from os.path import exists, isfile
from pathlib import Path

from hblm.config.compose import SCHEMAS
from hblm.config.groups import OptionGroups, read_yaml
from hblm.config.overrides import argument
from hblm.config.schema import leaves
from hblm.config.sweep import SweepConfig
from hblm.errors import close_names, did_you_mean, nearest

_SCHEMAS: Mapping[str, type] = {**SCHEMAS, "sweep": SweepConfig}

_NEEDS = {  # the arguments without which a program does not start; the first that takes a key is proposed
    "train": ("dataset=NAME",),
    "evaluate": ("checkpoint=DIR",),
    "export": ("checkpoint=DIR", "to=onnx"),
    "prepare": ("dataset=NAME",),
    "sweep": ("VERB", "sweep=NAME"),
    "aggregate": (),
}

_OPTIONS = "dataset.prepare."
_PREPARED, _CHECKPOINT = "taxonomy.json", "hblm.json"  # files that mark such folders
_NO_VALUE = "..."


def groups_of(program: str, option_groups: OptionGroups) -> list[str]:
    """Return the groups that a program chooses options from."""
    groups = {
        "train": option_groups.of_runs,
        "prepare": ["dataset", "encoder"],
        "sweep": ["sweep", "cluster"],
    }
    return groups.get(program, [])


@functools.cache  # option groups live as long as a command
def options_of(dataset: str, option_groups: OptionGroups) -> tuple[str, ...]:
    """Return the keys of a dataset's converter, as they are written on the command line."""
    options = read_yaml(option_groups.groups["dataset"][dataset]).get("prepare")
    return tuple(f"{_OPTIONS}{name}" for name in options) if isinstance(options, dict) else ()


def accepted(
    programs: Iterable[str], option_groups: OptionGroups, datasets: Iterable[str] = ()
) -> dict[str, str]:
    """Return each name that programs know -> how it is written; for a key that options set, the group.

    Args:
        programs: hblm.sweep takes the keys of two.
        option_groups: the options.
        datasets: the options of the group dataset whose converters' keys count.
    """
    written: dict[str, str] = {}
    for program in programs:
        keys = {leaf.name: leaf.rules["option_of"] or leaf.name for leaf in leaves(_SCHEMAS[program])}
        written |= keys | {group: group for group in groups_of(program, option_groups)}
        if _OPTIONS.rstrip(".") in keys:
            written |= {option: option for name in datasets for option in options_of(name, option_groups)}
    return written


def key_hint(
    key: str, value: str, programs: Sequence[str], option_groups: OptionGroups, datasets: Collection[str] = ()
) -> str:
    """Return what to write for a key that programs do not know; "" where no name is near it.

    Args:
        key, value: the argument.
        programs: the programs that do not know the key.
        option_groups: the options.
        datasets: the chosen options of dataset; empty: any.
    """
    datasets = [name for name in datasets if name in option_groups.groups["dataset"]]
    own = accepted(programs, option_groups, datasets or option_groups.groups["dataset"])
    names = _nearest_keys(key, own, option_groups, programs)
    written = dict.fromkeys(own[name] for name in names if name in own)
    if written:
        return did_you_mean(written)
    return _elsewhere(names[0], value, programs, option_groups) if names else ""


def flag_hint(flag: str, value: str, programs: Sequence[str], option_groups: OptionGroups) -> str:
    """Return how a flag such as --epochs 3 is written as key=value; `value` is "" for none."""
    key, equals, behind = flag.lstrip("-").replace("-", "_").partition("=")
    value = flag.partition("=")[2] if equals and behind else value
    if key == "dataset_name" and value in option_groups.groups["dataset"]:
        key = "dataset"  # the original's flag
    own = accepted(programs, option_groups, option_groups.groups["dataset"])
    names = _nearest_keys(key, own, option_groups, programs)
    # a group whose name is near the flag is no proposal for a value that is not among its options
    written = [
        name
        for name in dict.fromkeys(own[name] for name in names if name in own)
        if not value or value in option_groups.groups.get(name, [value])
    ]
    if written:
        values = (value or ("true" if _is_switch(name, programs) else _NO_VALUE) for name in written)
        arguments = (_given(name, each) for name, each in zip(written, values, strict=True))
        return f"; write {' or '.join(arguments)}"
    if names and names[0] not in own:
        value = value or ("true" if _is_switch(names[0], _SCHEMAS) else _NO_VALUE)
        return _elsewhere(names[0], value, programs, option_groups)
    return "; keys are written KEY=VALUE, and --help lists them"


def word_hint(text: str, program: str, option_groups: OptionGroups) -> str:
    """Return what to write for a word without =: an option, a key, or a file or folder."""
    if text and text[0] in "\u2010\u2011\u2012\u2013\u2014\u2212":
        return "; a flag begins with a plain hyphen, -"
    groups = [
        group for group in groups_of(program, option_groups) if text in option_groups.groups.get(group, ())
    ]
    if groups:
        return did_you_mean(f"{group}={text}" for group in groups)
    own = accepted([program], option_groups)
    if text in own:
        return f"; write {own[text]}={'true' if _is_switch(text, [program]) else _NO_VALUE}"
    key, colon, value = text.partition(":")
    if colon and key in own:
        return f"; write {_given(own[key], value.lstrip('= '))}"
    return _place_hint(text, program) if exists(text) else ""


def option_hint(group: str, value: str, program: str, option_groups: OptionGroups, data_dir: str) -> str:
    """Return what to write for an option that a group does not have."""
    options = option_groups.groups[group]
    if group == "dataset" and value:
        place = Path(data_dir, value)
        if place.parent == Path(data_dir) and isfile(place / _PREPARED):
            check = " check=true" * (program == "prepare")
            named = argument("dataset.name", value)
            return f"; {place} is a prepared folder: write dataset=custom {named}{check}"
        known = [name for name in options if Path(value) == Path(data_dir, name)]
        if known or exists(value):
            return did_you_mean(known) or _place_hint(value, program, "dataset=custom ")
    name = Path(value.removeprefix(f"{group}.").removesuffix(".yaml")).name
    close = f"; did you mean {name}?" if name in options else nearest(name, options)
    if group == "encoder":
        model = argument("encoder.model_name", value)
        close += f"{_joint(close)}encoder.model_name= takes a model of the hub or a folder: {model}"
    if option_groups.config_dir:
        folder = option_groups.config_dir / group
        return f"{close}{_joint(close)}options of your own are files {folder}/NAME.yaml"
    return f"{close}{_joint(close)}--config-dir DIR adds options of your own, as DIR/{group}/NAME.yaml"


def _joint(before: str) -> str:
    return " " if before.endswith("?") else "; "


def _nearest_keys(
    key: str, own: Mapping[str, str], option_groups: OptionGroups, programs: Sequence[str]
) -> list[str]:
    """Return the names nearest to a key: by last part, then inside its group, then of all programs."""
    others = accepted(set(_SCHEMAS) - {*programs}, option_groups, option_groups.groups["dataset"])
    prefix, _, last = key.rpartition(".")
    whole = [name for name in own if name.replace(".", "_").casefold() == key.replace(".", "_").casefold()]
    same = [name for name in own if _last(name).casefold() == last.casefold()]
    inside = [name for name in own if prefix and name.startswith(f"{prefix}.")]
    # a name that another program knows exactly is no misspelling
    elsewhere = [name for name in others if key in (name, _last(name)) and name not in own]
    # other programs' names count only where their last part is near
    like = {name.casefold() for name in get_close_matches(last.casefold(), map(_last, others), 5, cutoff=0.8)}
    names = [*own, *(name for name in others if _last(name).casefold() in like)]
    keys = [name for name in names if not name.startswith(_OPTIONS)]
    options = [name for name in names if name.startswith(_OPTIONS)]
    if whole:
        return whole
    stages = (same, inside, sorted(elsewhere, key=lambda name: name != key), keys, options)
    for candidates in stages:
        by_last: dict[str, list[str]] = {}
        for name in dict.fromkeys(candidates):
            by_last.setdefault(_last(name), []).append(name)
        close = close_names(last, by_last)
        if close:
            return [name for each in close for name in by_last[each]]
    return close_names(key, own)


def _elsewhere(name: str, value: str, programs: Sequence[str], option_groups: OptionGroups) -> str:
    """Return which other program takes a key, and the command that starts it."""
    datasets = [each for each in option_groups.groups["dataset"] if name in options_of(each, option_groups)]
    if datasets and {"train", "prepare"} & {*programs}:
        return f"{did_you_mean([name])} It is an option of dataset={' and of dataset='.join(datasets)}"
    program, written = next(
        (program, known[name])
        for program in _NEEDS
        if name in (known := accepted([program], option_groups, option_groups.groups["dataset"]))
        if (program, name) != ("train", "sweep")  # which needs -m
        if not (program == "train" and datasets)
    )
    needs = [each for each in _NEEDS[program] if not each.startswith(f"{written}=")]
    if datasets:
        needs = [f"dataset={'custom' if 'custom' in datasets else datasets[0]}"]
    command = " ".join(["python -m", f"hblm.{program}", *needs, _given(written, value)])
    return f"; {written}= is a key of hblm.{program}: {command}"


def checkpoint_meant(file: Path) -> Path | None:
    """Return the checkpoint that a file belongs to, as one of its files or as its run's result."""
    run = file.parent.parent / "checkpoints" / file.stem
    folders = (file.parent, file.parent.parent, run) if isfile(file) else ()
    return next((folder for folder in folders if isfile(folder / _CHECKPOINT)), None)


def _place_hint(text: str, program: str, before: str = "") -> str:
    """Return the key for an existing file or folder in a program, else the program that takes it."""
    path = Path(text)
    data, raw = argument("dataset.path", text), argument("raw", text)
    if program == "aggregate":
        return f"; did you mean {argument('results', text)}?"
    meant = checkpoint_meant(path) or path
    if isfile(meant / _CHECKPOINT):
        checkpoint = argument("checkpoint", str(meant))
        if "checkpoint" in {leaf.name for leaf in leaves(_SCHEMAS[program])}:
            return f"; did you mean {checkpoint}?"
        return f"; {text} is a checkpoint: python -m hblm.evaluate {checkpoint}"
    if isfile(path / _PREPARED):
        if program == "evaluate":
            return f"; did you mean {data}?"
        check = " check=true" * (program == "prepare")
        return f"; {text} is a prepared folder: write dataset=custom {data}{check}"
    if program == "prepare":
        return f"; did you mean {before}{raw}?"
    return f"; raw data are prepared first: python -m hblm.prepare dataset=custom {raw}" * (
        program == "train"
    )


def _given(key: str, value: str) -> str:
    """Return key=value quoted for a shell, its value being as Hydra reads it."""
    return shlex.quote(f"{key}={value}")


def _is_switch(name: str, programs: Iterable[str]) -> bool:
    return any(
        leaf.name == name and isinstance(leaf.default, bool)
        for program in programs
        for leaf in leaves(_SCHEMAS[program])
    )


def _last(name: str) -> str:
    return name.rpartition(".")[2]
