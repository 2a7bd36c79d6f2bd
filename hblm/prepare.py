"""Program `python -m hblm.prepare`: from raw data to a prepared dataset in data/<name>/."""

from __future__ import annotations

import sys

from hblm.cli.main import run_program
from hblm.cli.programs import PREPARE
from hblm.data.preparation import run


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    run_program(PREPARE, run, argv)


def main_for(name: str) -> None:
    """Prepare dataset `name` from the command line: what datasets/<name>.py does when run as a script."""
    main([f"dataset={name}", *sys.argv[1:]])


if __name__ == "__main__":
    main()
