"""Output of `status` and `watch`: counts, tables of cells, progress, failures. No torch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from hblm.config.sweep import SWEEP_STATES
from hblm.console import VisibleConsole, visible
from hblm.sweep.attempts import CellStatus
from hblm.sweep.launchers.registry import Sweep
from hblm.sweep.state import tail

_MAX_ROWS = 40  # of a table of cells; a longer one shows running and failed cells only
_LINES_OF_A_FAILURE = 3
_LOOK_EVERY = 1.0  # seconds
_REASON_WIDTH = 60  # characters in a table


def counts(statuses: Sequence[CellStatus]) -> str:
    """Return for example "12 cells: 9 done, 1 failed, 2 pending"."""
    number = Counter(status.state for status in statuses)
    states = ", ".join(f"{number[state]:,} {state}" for state in SWEEP_STATES if number[state])
    return f"{len(statuses):,} cell{'s' * (len(statuses) != 1)}: {states or 'none'}"


def duration(seconds: float) -> str:
    """Return 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def took(status: CellStatus) -> float | None:
    """Return how many seconds the last attempt has taken; None if its file has no times."""
    fields = status.attempt.fields if status.attempt else {}
    if "started" not in fields:
        return None
    end = fields.get("ended", time.time() if status.state == "running" else None)
    # the clock of the host that started it may be ahead of this one's
    return None if end is None else max(0.0, float(end) - float(fields["started"]))


def seconds_left(statuses: Sequence[CellStatus], n_at_once: int) -> float | None:
    """Return the time until all cells have ended, from the mean of those done; None if none is done."""
    done = [seconds for each in statuses if each.state == "done" and (seconds := took(each)) is not None]
    if not done:
        return None
    mean = sum(done) / len(done)
    left = sum(
        max(0.0, mean - (took(each) or 0)) if each.state == "running" else mean
        for each in statuses
        if each.state in ("running", "pending")
    )
    return left / max(1, n_at_once)


def print_table(statuses: Sequence[CellStatus]) -> None:
    """Print the cells; of many, those that are running or failed."""
    table = table_of(statuses)
    if table.row_count:
        VisibleConsole().print(table)


def table_of(statuses: Sequence[CellStatus]) -> Table:
    """Return the cells with state, attempt, place, time and reason."""
    table = Table()
    for name in ("cell", "state", "attempt", "where", "time", "why", "values"):
        table.add_column(name, overflow="fold", justify="right" if name in ("cell", "time") else "left")
    shown = [*statuses]
    if len(shown) > _MAX_ROWS:
        shown = [each for each in shown if each.state in ("running", "failed")][:_MAX_ROWS]
    for each in shown:
        fields = each.attempt.fields if each.attempt else {}
        seconds = took(each)
        place = " ".join(str(fields[key]) for key in ("host", "device") if fields.get(key) is not None)
        table.add_row(
            str(each.cell.number),
            each.state,
            str(each.attempt.number) if each.attempt else "",
            place,
            "" if seconds is None else duration(seconds),
            each.reason[:_REASON_WIDTH],
            each.cell.label,
        )
    return table


def print_failures(sweep: Sweep, statuses: Sequence[CellStatus]) -> None:
    """Print each failed cell, its cause, the last lines of its log and the log's path."""
    for each in statuses:
        if each.state != "failed" or each.attempt is None:
            continue
        log = sweep.log(each)
        print(f"cell {each.cell.number} failed, attempt {each.attempt.number}: {each.cell.label}")
        print(f"  {each.reason}")
        for line in tail(log, _LINES_OF_A_FAILURE) if log else []:
            print(f"  | {line}")
        print(f"  log {log}")


def print_other_commits(statuses: Sequence[CellStatus]) -> None:
    """Print which cells ran from a different git commit than they were submitted from."""
    numbers = []
    for each in statuses:
        ran_from = each.attempt.fields.get("commit") if each.attempt else None
        if None not in (ran_from, each.cell.commit) and ran_from != each.cell.commit:
            numbers.append(str(each.cell.number))
    if numbers:
        print(f"different git commit than at submission: cells {', '.join(numbers)}")


def follow(sweep: Sweep, n_at_once: int) -> list[CellStatus]:
    """Show how many cells are done, running and failed, until no launcher is active; return the statuses.

    Without a terminal only failures are printed, a line each, as they happen.
    """
    console = VisibleConsole(stderr=True)
    shown: set[tuple[str, int]] = set()
    statuses = sweep.statuses()
    with _bar(console) as bar:
        task = bar.add_task(visible(sweep.name), total=None, line="")
        while True:
            # before the statuses are read again: cells change until the launcher ends
            goes_on = sweep.is_active(statuses)
            statuses = sweep.statuses()
            bar.update(task, **_progress(statuses, n_at_once))
            for each in statuses:
                attempt = None if each.attempt is None else (each.cell.key, each.attempt.number)
                if each.state == "failed" and attempt is not None and attempt not in shown:
                    console.print(f"cell {each.cell.number} failed ({each.reason}): {each.cell.label}")
                    shown.add(attempt)
            if not goes_on:
                return statuses
            time.sleep(_LOOK_EVERY)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[line]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _progress(statuses: Sequence[CellStatus], n_at_once: int) -> dict[str, Any]:
    """Return total, completed and line of the bar."""
    number = Counter(each.state for each in statuses)
    left = seconds_left(statuses, n_at_once)
    line = f"{number['running']} running, {number['failed']} failed"
    line += "" if left is None else f", about {duration(left)} left"
    return {"total": len(statuses), "completed": number["done"], "line": line}
