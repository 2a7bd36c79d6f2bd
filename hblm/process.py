"""One process of a run: its rank, its processors, and what its end means."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass

from hblm.errors import ConfigError, HblmError, ProcessError

# else torch warns of every run in which all parameters get a gradient, and it cannot be known that they do
QUIET = ("TORCH_CPP_LOG_LEVEL", "ERROR")


@dataclass(frozen=True)
class Place:
    """Which of a run's processes this is: `rank` of `size`, `local_size` of them on this machine."""

    rank: int
    size: int
    local_size: int


def place() -> Place:
    """Return which of a run's processes this is, by the variables that torchrun sets."""
    size = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if size == 1:
        return Place(0, 1, 1)
    return Place(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_WORLD_SIZE", size)))


def n_cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def require_fitting(processes: int) -> None:
    """Refuse a number of processes that contradicts the launcher's.

    Raises:
        ConfigError: `trainer.processes` is neither 1 nor what the launcher started on this machine.
    """
    here = place()
    if here.size > 1 and processes not in (1, here.local_size):
        raise ConfigError(
            f"trainer.processes={processes}, but the launcher started {here.local_size} processes on this "
            "machine; leave trainer.processes out"
        )


def died(code: int) -> tuple[str, str]:
    """Return the cause and what is said of a process that wrote nothing itself."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the host's memory may have run out" if name == "SIGKILL" else ""
        return "killed", f"killed by {name}{hint}"
    return "exit", f"ended with exit code {code}"


def explain(error: BaseException) -> tuple[str, str, int]:
    """Return the cause (a key of config.FAILURES, or interrupted), one line on it, and the exit code."""
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
    """End this process at once when the one that started it is gone, which closes standard input."""

    def wait() -> None:
        os.read(0, 1)  # without a lock, which the interpreter would miss at its end
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
