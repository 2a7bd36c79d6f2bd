"""Errors that a user can act on: what was given, where, and what would be right.

The programs print their message without a traceback and exit with code 2.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path


class HblmError(Exception):
    """Base of every error that is the user's to mend; its message is all that a program prints."""


class ConfigError(HblmError):
    """A key, value or combination on the command line or in a YAML file that no run can have."""


class DataError(HblmError):
    """A dataset, raw or prepared, that breaks its format: file, line, document and label named."""


class CheckpointError(HblmError):
    """A checkpoint folder that is missing, damaged, or contradicts what was asked of it."""


class TrainingError(HblmError):
    """Training that cannot go on, such as a loss that is no longer a number."""


class SharingError(HblmError):
    """A file or folder that another user made, and that this one may not write."""

    def __init__(self, path: Path) -> None:
        """Say whose the path is, which must be there, and what its owner can do."""
        owner = f" (made by user {path.stat().st_uid})" if hasattr(os, "getuid") and path.exists() else ""
        super().__init__(
            f"{path}{owner} may not be written by this user; a folder that several users share belongs to "
            f"their group, chmod -R g+w, and each of them has umask 002; or write to another folder"
        )


class ProcessError(HblmError):
    """One of a run's processes failed; `cause` says how, in the words of config.FAILURES."""

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


def nearest(given: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for the known names closest to `given`, or "" where none is close."""
    return did_you_mean(close_names(given, known))


def did_you_mean(names: Iterable[str]) -> str:
    """Return the question that proposes the names, "" for none."""
    names = [f"{name:.200}" for name in names]
    return f"; did you mean {' or '.join(names)}?" if names else ""


def close_names(given: str, known: Iterable[str]) -> list[str]:
    """Return the known name closest in spelling, else those whose initials `given` is, as in lr."""
    names = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(given.casefold(), names, n=1, cutoff=0.6)
    if not close:
        close = [name for name in names if "".join(part[:1] for part in name.split("_")) == given.casefold()]
    return [names[name] for name in close]
