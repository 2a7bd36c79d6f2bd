"""What a person sees of a sweep: its plan, how it stands, its progress, and why cells failed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from hblm.config.sweep import SWEEP_STATES
from hblm.console import VisibleConsole, visible
from hblm.sweep.state import Ledger, Standing, tail

_ROWS = 40  # of a table of cells; of more, those that run or failed


_LINES_OF_A_FAILURE = 3


_LOOK_EVERY = 1.0  # seconds


_WHY = 60  # characters of a reason in a table


def counts(standings: Sequence[Standing]) -> str:
    """Return "12 cells: 9 done, 1 failed, 2 waiting"."""
    number = Counter(standing.state for standing in standings)
    told = ", ".join(f"{number[state]:,} {state}" for state in SWEEP_STATES if number[state])
    return f"{len(standings):,} cell{'s' * (len(standings) != 1)}: {told or 'none'}"


def duration(seconds: float) -> str:
    """Return 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def took(standing: Standing) -> float | None:
    """Return how many seconds the last attempt has taken; None where it told no times."""
    told = standing.attempt.told if standing.attempt else {}
    if "started" not in told:
        return None
    end = told.get("ended", time.time() if standing.state == "running" else None)
    # the clock of the host that started it may be ahead of this one's
    return None if end is None else max(0.0, float(end) - float(told["started"]))


def seconds_left(standings: Sequence[Standing], at_once: int) -> float | None:
    """Return the time until all have ended, by the mean of those that are done; None where none is."""
    done = [seconds for each in standings if each.state == "done" and (seconds := took(each)) is not None]
    if not done:
        return None
    mean = sum(done) / len(done)
    left = sum(
        max(0.0, mean - (took(each) or 0)) if each.state == "running" else mean
        for each in standings
        if each.state in ("running", "waiting")
    )
    return left / max(1, at_once)


def why(standing: Standing) -> str:
    """Return the cause of a failure and one line on it."""
    if standing.state == "running" and standing.elsewhere:
        return "in another sweep or by itself"
    attempt = standing.attempt
    if attempt is None or attempt.cause == "done":
        return ""
    if attempt.cause is None:
        return str(attempt.told.get("why", "")) if standing.state in ("waiting", "running") else ""
    return f"{attempt.cause}: {attempt.told.get('why', '')}".partition("\n")[0]


def print_table(standings: Sequence[Standing]) -> None:
    """Print the cells, of many those that run or failed."""
    table = table_of(standings)
    if table.row_count:
        VisibleConsole().print(table)


def table_of(standings: Sequence[Standing]) -> Table:
    """Return the cells with state, attempt, place, time and reason."""
    table = Table()
    for name in ("cell", "state", "attempt", "where", "time", "why", "values"):
        table.add_column(name, overflow="fold", justify="right" if name in ("cell", "time") else "left")
    shown = [*standings]
    if len(shown) > _ROWS:
        shown = [each for each in shown if each.state in ("running", "failed")][:_ROWS]
    for each in shown:
        told = each.attempt.told if each.attempt else {}
        seconds = took(each)
        place = " ".join(str(told[key]) for key in ("host", "device") if told.get(key) is not None)
        table.add_row(
            str(each.cell.number),
            each.state,
            str(each.attempt.number) if each.attempt else "",
            place,
            "" if seconds is None else duration(seconds),
            why(each)[:_WHY],
            each.cell.label,
        )
    return table


def print_failures(ledger: Ledger, standings: Sequence[Standing], lines: int = _LINES_OF_A_FAILURE) -> None:
    """Print each failed cell, its cause, its log's last lines and where the log lies."""
    for each in standings:
        if each.state != "failed" or each.attempt is None:
            continue
        log = ledger.output_of(each)
        print(f"cell {each.cell.number} failed, attempt {each.attempt.number}: {each.cell.label}")
        print(f"  {why(each)}")
        for line in tail(log, lines) if log else []:
            print(f"  | {line}")
        print(f"  log {log}")


def follow(ledger: Ledger, at_once: int, alive: Callable[[], bool]) -> list[Standing]:
    """Show how many cells are done, running and failed until no more can be; return how they stand.

    Without a terminal only failures are said, a line each, as they happen.
    """
    console = VisibleConsole(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    said: set[tuple[str, int]] = set()
    with bar:
        task = bar.add_task(visible(ledger.name), total=None, told="")
        while True:
            going = alive()
            standings = ledger.standings()
            number = Counter(each.state for each in standings)
            left = seconds_left(standings, at_once)
            told = f"{number['running']} running, {number['failed']} failed"
            told += "" if left is None else f", about {duration(left)} left"
            bar.update(task, total=len(standings), completed=number["done"], told=told)
            for each in standings:
                if each.state == "failed" and each.attempt is not None:
                    event = each.cell.key, each.attempt.number
                    if event not in said:
                        console.print(f"cell {each.cell.number} failed ({why(each)}): {each.cell.label}")
                    said.add(event)
            if not going:
                return standings
            time.sleep(_LOOK_EVERY)
