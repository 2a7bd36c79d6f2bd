"""Entries of a result on code, versions and machine: git commit, library versions, platform."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import hblm
from hblm.files import HOST


def code() -> Mapping[str, Any]:
    """Return git commit and dirty flag of this code; None for an installed wheel."""
    return _git(Path(hblm.__file__).resolve().parent.parent)


def environment() -> dict[str, Any]:
    """Return git commit and dirty flag of this code, versions of libraries, platform and host."""
    versions = {}
    for name in ("torch", "transformers", "accelerate", "tokenizers", "numpy", "hydra-core"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "hblm": hblm.__version__,
        **code(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": HOST,
        "versions": versions,
    }


def _git(folder: Path) -> Mapping[str, Any]:
    """Return commit and dirty flag of a checkout; None for an installed wheel, or without git."""
    if not (folder / ".git").exists():
        return {"git_commit": None, "git_dirty": None}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, timeout=20
        ).stdout.strip()

    try:
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}
