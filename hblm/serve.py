"""Program `python -m hblm.serve`: predictions of a trained checkpoint over HTTP."""

from __future__ import annotations

from hblm.cli.main import run_program
from hblm.cli.programs import SERVE
from hblm.inference.service.serve import run


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    run_program(SERVE, run, argv)


if __name__ == "__main__":
    main()
