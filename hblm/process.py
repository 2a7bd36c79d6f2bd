"""This process: how it was started, its rank among those of a run, its processors, its end; failures."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from dataclasses import dataclass

from hblm.errors import ConfigError, HblmError, ProcessError

# Otherwise torch warns in every run in which all parameters get a gradient: find_unused_parameters=True is
# needed for the runs in which some get none.
QUIET = ("TORCH_CPP_LOG_LEVEL", "ERROR")

CONSOLE = "hblm"  # the command with the programs as sub-commands; it is the first word of sys.argv[0] then


@dataclass(frozen=True)
class Place:
    """The rank of this process among `size`, of which `local_size` are on this machine."""

    rank: int
    size: int
    local_size: int


def place() -> Place:
    """Return the rank of this process, from the environment variables that torchrun sets."""
    size = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if size == 1:
        return Place(0, 1, 1)
    return Place(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_WORLD_SIZE", size)))


def as_started(text: str) -> str:
    """Return a text with its commands as the user started this one: `hblm NAME` or `python -m hblm.NAME`."""
    if not sys.argv[0].startswith(f"{CONSOLE} "):
        return text
    return re.sub(r"python -m hblm\.(\w+)", rf"{CONSOLE} \1", text)


def n_cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def require_fitting(processes: int) -> None:
    """Refuse a number of processes that differs from the launcher's.

    Raises:
        ConfigError: `trainer.processes` is neither 1 nor the number that the launcher started here.
    """
    here = place()
    if here.size > 1 and processes not in (1, here.local_size):
        raise ConfigError(
            f"trainer.processes={processes}, but the launcher started {here.local_size} processes on this "
            "machine; leave trainer.processes out"
        )


def cause_of_exit(code: int) -> tuple[str, str]:
    """Return the cause (a key of config.FAILURES), and one line, for an exit code; below 0: a signal."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the host's memory may have run out" if name == "SIGKILL" else ""
        return "killed", f"killed by {name}{hint}"
    return "exit", f"ended with exit code {code}"


def explain(error: BaseException) -> tuple[str, str, int]:
    """Return an exception's cause (a key of config.FAILURES, or interrupted), one line, and the exit code."""
    name = type(error).__name__
    why = f"{name}: {error}".strip().splitlines()[0] if str(error) else name
    if isinstance(error, ProcessError):
        return error.cause, str(error), 1
    if isinstance(error, HblmError):
        return "error", str(error), 2
    if isinstance(error, SystemExit):
        exit_code = error.code if isinstance(error.code, int) else (0 if error.code is None else 1)
        return "exit", f"the process ended itself with exit code {exit_code}", exit_code
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":
        return "memory", why, 1
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", why, 130
    return "raised", why, 1


def die_with_parent() -> None:
    """End this process as soon as its parent has ended, which closes standard input."""

    def wait() -> None:
        os.read(0, 1)  # sys.stdin has a lock, which the interpreter needs when it exits
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
