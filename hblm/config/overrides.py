"""Quoting of key=value arguments for a shell and for Hydra."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence


def at_home(argv: Sequence[str]) -> list[str]:
    """Return the arguments with the home folder in place of ~."""
    return [_at_home(text) for text in argv]


def override(key: str, value: str) -> str:
    """Return key=value as Hydra's parser takes it, once the shell has taken its quotes off."""
    return shlex.split(argument(key, value))[0]


def _at_home(text: str) -> str:
    """Return an argument with the home folder for ~, which shells do not expand after dataset.path=."""
    match = re.fullmatch(r"([\w.@/+]+=[\"']?)(~(?:/.*)?)", text, re.DOTALL)
    return match[1] + os.path.expanduser(match[2]) if match else text


def argument(key: str, value: str) -> str:
    """Return key=value as it is written on a shell, quoted for it and for Hydra where that is needed."""
    if re.fullmatch(r"[\w./:@+-]+", value, re.ASCII):
        return f"{key}={value}"
    return shlex.quote(f"{key}={quoted(value)}")


def quoted(value: str) -> str:
    """Return a text in the quotes of Hydra's parser, which reads it as a text whatever it holds."""
    escaped = re.sub(r'(\\*)("|$)', lambda match: 2 * match[1] + ('\\"' if match[2] else ""), value)
    return f'"{escaped}"'
