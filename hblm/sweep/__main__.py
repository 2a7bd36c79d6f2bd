"""Program `python -m hblm.sweep`: plan, submit, watch, cancel and retry a grid. No torch."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from hblm.cli.command_line import arguments_of
from hblm.cli.help import help_text
from hblm.cli.main import answering
from hblm.cli.programs import SWEEP
from hblm.config.overrides import at_home
from hblm.console import log, outlive_readers, visible_output
from hblm.sweep.arguments import Asked
from hblm.sweep.commands import TASKS


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    outlive_readers()
    words = at_home(sys.argv[1:] if argv is None else argv)
    with visible_output(), answering(SWEEP):
        logging.basicConfig(format="%(message)s")
        log.setLevel(logging.INFO)  # the messages of preparing a dataset
        if arguments_of(SWEEP, words)[0].help:
            print(help_text(SWEEP, words))
            return
        asked = Asked(words)
        sys.exit(TASKS[asked.verb](asked))


if __name__ == "__main__":
    main()
