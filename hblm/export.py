"""Program `python -m hblm.export`: a trained checkpoint for other programs, as ONNX or for a model hub."""

from __future__ import annotations

from hblm.cli.main import run_program
from hblm.cli.programs import EXPORT
from hblm.inference.exports.export import run


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    run_program(EXPORT, run, argv)


if __name__ == "__main__":
    main()
