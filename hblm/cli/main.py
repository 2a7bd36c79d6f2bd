"""Start of a program: help, the check of its arguments, the run by Hydra, error messages and exit codes.

`@hydra.main` alone reports only the first fault, with exit code 1 or a traceback, and accepts misspelt keys
in a YAML file. Here `check` judges every argument and every composed value before Hydra starts. All faults
are in one message, with exit code 2, and nothing has been created or run.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hblm.cli.check import check
from hblm.cli.command_line import arguments_of
from hblm.cli.contradictions import contradicted_method, contradiction
from hblm.cli.help import help_text
from hblm.cli.programs import SWEPT, Program
from hblm.config.compose import job_tree
from hblm.config.overrides import at_home
from hblm.config.schema import typed
from hblm.console import outlive_readers, visible_output
from hblm.errors import ConfigError, DataError, HblmError
from hblm.process import QUIET, as_started, place

# only the first of several processes lets Hydra write its log and its copy of the overrides
_NO_FILES = ("hydra.output_subdir=null", "hydra.run.dir=.", "hydra/job_logging=none")
# Hydra writes nothing into a read-only folder: a finished run is still shown
_READ_ONLY = (*_NO_FILES[:2], "hydra/job_logging=stdout", "hydra.sweep.dir=.", "hydra.sweep.subdir=.")


def run_program(
    program: Program,
    task: Callable[[Any], None],
    argv: list[str] | None = None,
    before: Callable[[list[str]], tuple[list[str], list[str]]] = lambda argv: (argv, []),
) -> None:
    """Check the arguments, let Hydra compose them, and run `task` with the typed configuration.

    `before` gets the arguments first, and returns those to continue with, and faults. The exit code is 2 for
    a user error, whose message is printed, and 130 for Ctrl-C.
    """
    outlive_readers()
    argv = at_home(sys.argv[1:] if argv is None else argv)
    # waiting threads that spin slow each other down where two runs share a CPU
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if place().size > 1:
        os.environ.setdefault(*QUIET)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach the handlers below instead of Hydra's own printer

    failed: list[str] = []

    def job(cfg: DictConfig) -> None:
        try:
            config: Any = typed(job_tree(cfg, program.schema)[0], program.schema)
            name = contradicted_method(HydraConfig.get().runtime.choices, config)
            if name:
                raise ConfigError(contradiction(name, config, []))
            task(config)
        except HblmError as error:
            # a grid continues with its other runs (Hydra keeps the exception); a single run ends here
            if HydraConfig.get().mode != RunMode.MULTIRUN:
                _fail(program, error)
            failed.append(" ".join(HydraConfig.get().overrides.task))
            print(f"{failed[-1]}: {error}", file=sys.stderr)
            raise
        finally:
            _free()

    with visible_output(), answering(program, failed):
        if arguments_of(program, argv)[0].help:
            print(help_text(program, argv))
            return
        if place().size > 1:
            _require_one_run(program, argv)
        argv, faults = before(argv)
        argv = check(program, argv, faults)
        sys.argv = [sys.argv[0], *argv, *(_NO_FILES if place().rank else _read_only(program, argv))]
        hydra.main(version_base="1.3", config_path="pkg://hblm.conf", config_name=program.name)(job)()


def _read_only(program: Program, argv: Sequence[str]) -> Sequence[str]:
    """Return the overrides that keep Hydra from writing, for an output folder without write permission."""
    if program.name not in SWEPT or any(text.startswith("hydra.") for text in argv):
        return ()
    given = [text.partition("=")[2] for text in argv if text.startswith("output_dir=")]
    folder = Path(given[-1] if given else program.schema.output_dir).absolute()  # type: ignore[attr-defined]
    while not folder.exists():
        folder = folder.parent
    return () if os.access(folder, os.W_OK | os.X_OK) else _READ_ONLY


def _free() -> None:
    """Free the memory of a grid's run, above all its model, before the next one starts.

    Accelerate leaves reference cycles. Hydra keeps a failed run's exception, and with it the locals of all
    frames in its traceback.
    """
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        return
    error = sys.exc_info()[1]
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()


def _require_one_run(program: Program, argv: Sequence[str]) -> None:
    """Refuse a command that a launcher started several times and that is one process.

    Raises:
        ConfigError: another program than train, or a grid.
    """
    message = f"was started {place().size} times by a launcher; start it without one"
    if program.name not in SWEPT:
        raise ConfigError(f"{program.name} is one process, and {message}")
    if {"-m", "--multirun"} & set(argv):
        raise ConfigError(f"a grid (-m) {message}, and write trainer.processes={place().local_size}")


@contextlib.contextmanager
def answering(program: Program, failed: Sequence[str] = ()) -> Iterator[None]:
    """Turn a user error into a message and exit code 2, and Ctrl-C into exit code 130.

    `failed` are the runs of a grid whose errors were printed already.
    """
    try:
        yield
    except (HblmError, HydraException, OmegaConfBaseException) as error:
        _fail(program, f"failed, {len(failed)} in all: {'; '.join(failed)}" if failed else error)
    except OSError as error:
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        _fail(program, f"{error.filename or 'writing failed'}: {error.strerror}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _fail(program: Program, error: object) -> NoReturn:
    message = as_started(str(error))
    lines = message.splitlines() or [type(error).__name__]
    if isinstance(error, DataError):  # one fault of several lines
        print(f"hblm.{program.name}: {message}", file=sys.stderr)
    elif len(lines) == 1:
        print(f"hblm.{program.name}: {lines[0]}", file=sys.stderr)
    else:
        print(f"hblm.{program.name}: {len(lines)} faults", file=sys.stderr)
        print("\n".join(f"  {line}" for line in lines), file=sys.stderr)
    sys.exit(2)
