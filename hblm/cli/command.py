"""The command `hblm`: its help and version, and the start of the programs by their names.

A sub-command runs its program as `python -m hblm.NAME` does; so a program listed in programs.py is one. Each
import is made where it is needed: a completion, which a person waits for, loads neither Hydra nor rich.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence

from hblm.version import __version__

_COMPLETION = "completion"  # not imported: the start of a program needs none of it
_PAGE = """\
Train, evaluate and use hierarchical text classifiers; hblm NAME ... is the same as python -m hblm.NAME ...

usage: hblm NAME [ARGUMENTS ...]

programs (hblm NAME --help shows the keys, options and examples of one)
{programs}
  {completion:<12} Print the script for tab completion: eval "$(hblm completion bash)"

flags
  --help, -h   this page
  --version    the version of hblm"""


def run_command(argv: Sequence[str]) -> None:
    """Run a sub-command, or print the help or version; the exit code is 2 for an unknown sub-command."""
    name, *arguments = argv or ["--help"]
    if name == _COMPLETION:
        from hblm.cli import shells

        shells.run(arguments)
        return
    from hblm.cli.programs import programs
    from hblm.process import CONSOLE

    if name in programs():
        sys.argv = [f"{CONSOLE} {name}", *arguments]  # by its first word, help and messages name this command
        runpy.run_module(f"hblm.{name}", run_name="__main__")
        return
    from hblm.console import outlive_readers, visible

    outlive_readers()
    if name in ("--help", "-h"):
        rows = (f"  {each.name:<12} {each.summary.splitlines()[0]}" for each in programs().values())
        print(_PAGE.format(programs="\n".join(rows), completion=_COMPLETION))
    elif name == "--version":
        print(f"{CONSOLE} {__version__}")
    else:
        print(visible(f"{CONSOLE}: {_unknown(name)}"), file=sys.stderr)
        sys.exit(2)


def _unknown(name: str) -> str:
    """Return the message for a first argument that is no sub-command, with what to write."""
    from hblm.cli.programs import programs
    from hblm.config.sweep import VERBS
    from hblm.errors import did_you_mean, nearest

    names = [*programs(), _COMPLETION]
    if "=" in name or name.startswith("-"):
        what = "a key" if "=" in name else "a flag"
        return f"{name:.200} is {what} without a program before it; write one of {', '.join(names)} first"
    bare = name.removeprefix("hblm.")
    close = did_you_mean([f"sweep {name}"]) if name in VERBS else nearest(bare, names)
    return f"{name:.200} is not one of {', '.join(names)}{close}"
