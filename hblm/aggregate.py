"""Program `python -m hblm.aggregate`: results to tables, tests and figures. No torch."""

from __future__ import annotations

from hblm.cli.main import run_program
from hblm.cli.programs import AGGREGATE
from hblm.tables.report import run


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    run_program(AGGREGATE, run, argv)


if __name__ == "__main__":
    main()
