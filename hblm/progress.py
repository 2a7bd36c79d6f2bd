"""Progress for people: bars on a terminal, silence elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int], None]
StartTask = Callable[[str, "int | None"], Advance]


def silent(description: str, total: int | None) -> Advance:
    """Start a task that shows nothing."""
    return lambda steps: None


@contextlib.contextmanager
def terminal_progress(console: Console | None = None) -> Iterator[StartTask]:
    """Give a function that starts a task, `start("tokenising", total)`, and returns how to advance it.

    Bars appear on a terminal only, on standard error, and go when they are done.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield silent
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:

        def start(description: str, total: int | None) -> Advance:
            task = progress.add_task(description, total=total)
            return lambda steps: progress.advance(task, steps)

        yield start
