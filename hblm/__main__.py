"""Program `hblm`, or `python -m hblm`: the other programs as sub-commands, and tab completion. No torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hblm.cli.command import run_command


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    run_command(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    main()
