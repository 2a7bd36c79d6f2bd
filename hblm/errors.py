"""Errors that a user can fix: what was given, where, and what would be right.

The programs print the message without a traceback and exit with code 2.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path


class HblmError(Exception):
    """Base of the user errors; a program prints only the message."""


class ConfigError(HblmError):
    """An invalid key, value or combination on the command line or in a YAML file."""


class DataError(HblmError):
    """A raw or prepared dataset that breaks its format; the message names file, line, document and label."""


class CheckpointError(HblmError):
    """A checkpoint folder that is missing, damaged, or contradicts the given options."""


class TrainingError(HblmError):
    """Training that cannot continue, such as a loss that is NaN."""


class SharingError(HblmError):
    """A file or folder of another user that this user may not write."""

    def __init__(self, path: Path) -> None:
        """Name the owner of `path`, which exists, and what the owner can do."""
        owner = f" (made by user {path.stat().st_uid})" if hasattr(os, "getuid") and path.exists() else ""
        super().__init__(
            f"{path}{owner} may not be written by this user; a folder that several users share belongs to "
            f"their group, chmod -R g+w, and each of them has umask 002; or write to another folder"
        )


class ProcessError(HblmError):
    """A process of a run failed; `cause` is a key of config.FAILURES."""

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


def nearest(given: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for the known names closest to `given`; "" if none is close."""
    return did_you_mean(close_names(given, known))


def did_you_mean(names: Iterable[str]) -> str:
    """Return the question that proposes the names; "" for no names."""
    names = [f"{name:.200}" for name in names]
    return f"; did you mean {' or '.join(names)}?" if names else ""


def close_names(given: str, known: Iterable[str]) -> list[str]:
    """Return the known name closest in spelling, else the names whose initials are `given`, as in lr."""
    names = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(given.casefold(), names, n=1, cutoff=0.6)
    if not close:
        close = [name for name in names if "".join(part[:1] for part in name.split("_")) == given.casefold()]
    return [names[name] for name in close]
