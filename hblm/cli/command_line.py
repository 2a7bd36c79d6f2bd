"""Splitting a command line into flags and key=value arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from hblm.cli.programs import SWEPT, Program
from hblm.config.groups import OptionGroups
from hblm.config.hints import flag_hint
from hblm.errors import ConfigError

_NO_NAME = (
    " is no flag here; keys of your own go into DIR/experiment/NAME.yaml: --config-dir DIR experiment=NAME"
)

_OWN_COMPLETION = (
    ' (-sc) does not know these programs; write: eval "$(hblm completion bash)", or zsh, or fish'
)
_CROSSES = " (-m) is for hblm.train; a sweep crosses all its values without it"
_SHOWN = " is a flag of hblm.train; plan shows what a sweep would run"


def arguments_of(program: Program, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return flags, and key=value arguments as `overrides`, in any order; and the faults.

    Raises:
        ConfigError: a flag lacks its value, or cannot have the one given.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists the flags and keys")

    parser.error = refuse  # type: ignore[method-assign]  # which prints a usage of Hydra's, and exits
    long = {f"-{name.replace('_', '-')}" for name in vars(parser.parse_args([]))}
    argv = [f"-{text}" if text.partition("=")[0] in long else text for text in argv]
    unknown = {text for text in parser.parse_known_intermixed_args(argv)[1] if text.startswith("-")}
    faults: list[str] = []
    known: list[str] = []
    words = [*argv]
    while words:
        word = words.pop(0)
        if word not in unknown:
            known.append(word)
            continue
        has_value = words and "=" not in word and "=" not in words[0] and not words[0].startswith("-")
        value = words.pop(0) if has_value else ""
        programs = (program.name,) if program.by_hydra else (program.name, *SWEPT)
        hint = flag_hint(word, value, programs, OptionGroups())
        faults.append(f"{' '.join([word, value]).strip()} is not a flag of hblm.{program.name}{hint}")
    arguments = parser.parse_intermixed_args(known)
    refused = {"config_name": _NO_NAME, "config_path": _NO_NAME, "shell_completion": _OWN_COMPLETION} | (
        {} if program.by_hydra else {"multirun": _CROSSES, "cfg": _SHOWN, "info": _SHOWN}
    )
    for name, why in refused.items():
        if getattr(arguments, name):
            faults.append(f"--{name.replace('_', '-')}{why}")
            setattr(arguments, name, None)
    return arguments, faults


def without_spaces(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Join arguments that spaces around = or after a comma split; return them and a fault for each."""
    joined: list[list[str]] = []
    for word in argv:
        last = joined[-1][-1] if joined else ""
        behind = last[-1:] in ("=", ",") and "=" not in word and word[:1] != "-"
        if (
            joined
            and last[:1] != "-"
            and (behind or word[:1] == "," or (word[:1] == "=" and last and "=" not in last))
        ):
            joined[-1].append(word)
        else:
            joined.append([word])
    faults = [f"{' '.join(each)}: write {''.join(each)}, without spaces" for each in joined if len(each) > 1]
    return ["".join(each) for each in joined], faults
