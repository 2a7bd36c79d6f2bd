"""Program `python -m hblm.predict`: labels of new texts by a trained checkpoint, or by several."""

from __future__ import annotations

from hblm.cli.main import run_program
from hblm.cli.programs import PREDICT
from hblm.inference.predict import run


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    run_program(PREDICT, run, argv)


if __name__ == "__main__":
    main()
