"""Tab completion: the words that may take the place of an unfinished one on the command line of `hblm`.

A person waits for it. So it reads the dataclasses of the programs, YAML files of options, and folders, and
imports neither Hydra nor torch.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from os.path import expanduser, isfile, join
from typing import NamedTuple

from hblm.cli.programs import SWEEP, TRAIN, Program, programs
from hblm.config.groups import OptionGroups, first_comment, groups_of, options_of
from hblm.config.schema import Leaf, leaves
from hblm.config.sweep import COMPOSING_VERBS, VERBS

COMPLETION = "completion"  # the sub-command that prints the script of a shell
SHELLS = {
    "bash": 'eval "$(hblm completion bash)"',
    "zsh": 'eval "$(hblm completion zsh)"',
    "fish": "hblm completion fish | source",
}

_FILES = ("raw", "result", "results", "input", "output", "calibrate")  # keys that name a file or folder
_FOLDERS = (
    *("checkpoint", "init_from", "encoder.model_name", "dataset.path"),
    *("output_dir", "data_dir", "cache_dir"),
)
_MARKS = ("hblm.json", "taxonomy.json")  # files of a checkpoint and of a prepared folder: the path ends there
_FLAGS = {"--help": "keys, options and examples", "--config-dir": "a folder with options of your own"}
_FLAGS_OF_HYDRA = {"--multirun": "every combination of several values", "--cfg": "show what would be run"}
_AFTER_FLAG = {"--cfg": ("job", "hydra", "all"), "-c": ("job", "hydra", "all")}
_CONFIG_DIR = ("--config-dir", "-cd")


class Candidate(NamedTuple):
    """A whole word, and what it is, "" where that is not known."""

    word: str
    about: str = ""


def candidates(words: Sequence[str], current: str) -> list[Candidate]:
    """Return what may take the place of the word `current`, each beginning with it.

    Args:
        words: those between `hblm` and the current word.
        current: the unfinished word, "" after a space.

    Raises:
        ConfigError: --config-dir is not a folder, or a file in it cannot be read.
    """
    if not words:
        found = [Candidate(each.name, each.summary.splitlines()[0]) for each in programs().values()]
        found += [
            Candidate(COMPLETION, "the script for tab completion"),
            Candidate("--help"),
            Candidate("--version"),
        ]
    elif words[0] in programs():
        found = [*_arguments(programs()[words[0]], words[1:], current)]
    else:
        found = [Candidate(shell) for shell in SHELLS if [*words] == [COMPLETION]]
    return [each for each in dict.fromkeys(found) if each.word.startswith(current)]


def _arguments(program: Program, words: Sequence[str], current: str) -> Iterator[Candidate]:
    """Yield the candidates for an argument of a program after the words before it."""
    before = words[-1] if words else ""
    if before in _CONFIG_DIR:
        yield from map(Candidate, _paths(current, folders=True))
    elif before in _AFTER_FLAG:
        yield from map(Candidate, _AFTER_FLAG[before])
    elif current.startswith("-"):
        flags = _FLAGS | (_FLAGS_OF_HYDRA if program.by_hydra else {})
        yield from (Candidate(flag, about) for flag, about in flags.items())
    elif program == SWEEP and not {*words} & {*VERBS}:
        yield from map(Candidate, VERBS)
    else:
        composes = program == SWEEP and {*words} & {*COMPOSING_VERBS}
        taking = [program, TRAIN] if composes else [program]
        option_groups = OptionGroups(_config_dir(words))
        if "=" in current:
            yield from _values(taking, option_groups, current)
        else:
            yield from _keys(taking, option_groups, words, current)


def _config_dir(words: Sequence[str]) -> str | None:
    """Return the folder that --config-dir names, None for none."""
    for place, flag in enumerate(words):
        name, equals, behind = flag.partition("=")
        value = behind if equals else "".join(words[place + 1 : place + 2])
        if name in _CONFIG_DIR and value:
            return expanduser(value)
    return None


def _keys(
    taking: Sequence[Program], option_groups: OptionGroups, words: Sequence[str], current: str
) -> Iterator[Candidate]:
    """Yield the groups and keys that are not given yet, those of a node as `node.` until that is written."""
    given = dict(word.partition("=")[::2] for word in words if "=" in word)
    names: dict[str, str] = {}
    for program in taking:
        abouts = {fld.name: fld.metadata.get("doc", "") for fld in dataclasses.fields(program.schema)}
        names |= {group: abouts.get(group, "") for group in groups_of(program.name, option_groups)}
        names |= {leaf.name: leaf.rules["doc"] for leaf in _settable(program)}
        if "dataset" in groups_of(program.name, option_groups):
            chosen = option_groups.groups["dataset"].keys() & {*given.get("dataset", "").split(",")}
            names |= {option: "" for name in sorted(chosen) for option in options_of(name, option_groups)}
    for name, about in names.items():
        if name.startswith(current) and name not in given:
            node, dot, _ = name[len(current) :].partition(".")
            yield Candidate(f"{current}{node}.") if dot else Candidate(f"{name}=", about)


def _values(taking: Sequence[Program], option_groups: OptionGroups, current: str) -> Iterator[Candidate]:
    """Yield the values of the key or group before =, for the last one of several."""
    key, _, written = current.partition("=")
    last = max(written.rfind(sign) for sign in ",[") + 1
    before, part = f"{key}={written[:last]}", written[last:]
    of_group = any(key in groups_of(program.name, option_groups) for program in taking)
    if of_group or key == "sweep":
        for option, file in option_groups.groups[key].items():
            yield Candidate(f"{before}{option}", first_comment(file))
    keys = [leaf for program in taking for leaf in _settable(program) if leaf.name == key]
    values: Iterable[str] = [value for leaf in keys for value in _choices(leaf)]
    if keys and key in (*_FILES, *_FOLDERS):
        values = _paths(part, folders=key in _FOLDERS)
    yield from (Candidate(f"{before}{value}") for value in values)


def _settable(program: Program) -> list[Leaf]:
    """Return the keys with a value of their own: not those that options set, and no group of any keys."""
    keys = (leaf for leaf in leaves(program.schema) if not isinstance(leaf.default, dict))
    return [leaf for leaf in keys if not leaf.rules["option_of"]]


def _choices(leaf: Leaf) -> list[str]:
    """Return the values of a key that has few, [] for any other."""
    kind = str(leaf.field.type)
    values = [*leaf.rules["choices"], *(("true", "false") if kind.startswith("bool") else ())]
    return [*values, "null"] if values and kind.endswith("| None") else values


def _paths(start: str, *, folders: bool) -> Iterator[str]:
    """Yield the paths that begin with a text, folders with / at their end, or nothing else with `folders`."""
    parent, name = start[: start.rfind("/") + 1], start[start.rfind("/") + 1 :]
    for entry in sorted(os.scandir(expanduser(parent) or "."), key=lambda entry: entry.name):
        if not entry.name.startswith(name) or (entry.name.startswith(".") and not name):
            continue
        if entry.is_dir():
            ends = folders and any(isfile(join(entry.path, mark)) for mark in _MARKS)
            yield f"{parent}{entry.name}{'' if ends else '/'}"
        elif not folders:
            yield f"{parent}{entry.name}"
