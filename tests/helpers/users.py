"""Two users of one group, played by children of a root process; skipped where this is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

ANN, BEN, GROUP = 54321, 54322, 54320

needs_root = pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can play other users"
)


def as_user(user: int, umask: int, act: Callable[[], object]) -> str:
    """Do something as a user, in a child of this process; return "" or what it raised, as type: message.

    What it imports must have been imported: this interpreter may lie where only root can read.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # threads of libraries, which the child leaves alone
        child = os.fork()
    if child == 0:
        message = "it ended itself"
        try:
            os.setgroups([])
            os.setgid(GROUP)
            os.setuid(user)
            os.umask(umask)
            act()
            message = ""
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        finally:
            os.write(writing, message.encode()[:60_000])
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as stream:
        message = stream.read()
    os.waitpid(child, 0)
    return message


def modes_below(folder: Path) -> dict[str, str]:
    """Return the mode of each file and folder, the bit left out by which a folder hands its group on."""
    return {
        path.relative_to(folder).as_posix(): f"{path.stat().st_mode & 0o1777:o}"
        for path in sorted(folder.rglob("*"))
        if not path.is_symlink()
    }


def program_as(user: int, folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the package as a user of the group, who can read all and write what modes allow.

    Skips where a process cannot be given that: reading all lets it start this interpreter.
    """
    read = "-all,+dac_read_search"
    become = ["setpriv", "--reuid", str(user), "--regid", str(GROUP), "--clear-groups"]
    become += ["--inh-caps", read, "--ambient-caps", read]
    if shutil.which("setpriv") is None or subprocess.run([*become, "true"], check=False).returncode:
        pytest.skip("setpriv cannot start a process as another user here")
    module, *arguments = argv
    return subprocess.run(
        [*become, sys.executable, "-m", module, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "HOME": "/nonexistent"},
        umask=0o002,
    )
