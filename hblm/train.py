"""Program `python -m hblm.train`: one run, from a configuration to a checkpoint and a result."""

from __future__ import annotations

from hblm.cli.main import run_program
from hblm.cli.programs import TRAIN
from hblm.engine.training import run


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    run_program(TRAIN, run, argv)


if __name__ == "__main__":
    main()
