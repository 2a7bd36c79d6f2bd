"""Program `python -m hblm.evaluate`: scores of a trained checkpoint, or of an ensemble of two."""

from __future__ import annotations

from hblm.cli.main import run_program
from hblm.cli.programs import EVALUATE
from hblm.inference.arguments import without_stored
from hblm.inference.evaluate import run


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    run_program(EVALUATE, run, argv, before=without_stored)


if __name__ == "__main__":
    main()
