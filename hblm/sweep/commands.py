"""The verbs of `python -m hblm.sweep`, one function each. No torch."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hblm.errors import ConfigError
from hblm.process import as_started
from hblm.sweep import plan_output, progress
from hblm.sweep.arguments import SweepArguments
from hblm.sweep.attempts import CellStatus
from hblm.sweep.cells import FrozenCell
from hblm.sweep.final_table import print_final_table
from hblm.sweep.launchers.registry import Sweep, open_sweep
from hblm.sweep.plan import Plan, make_plan
from hblm.sweep.state import tail
from hblm.sweep.submission import freeze, write_submission

OPEN_STATES = ("pending", "running")


def run(arguments: SweepArguments) -> int:
    """Run the command of the verb; return the exit code."""
    sweep = open_sweep(arguments.config.output_dir, arguments.sweep_name)
    return COMMANDS[arguments.verb](arguments, sweep)


def plan(arguments: SweepArguments, sweep: Sweep) -> int:
    """Show what a submission would run."""
    config = arguments.config
    launcher = sweep.launcher(config.on)
    n_at_once = launcher.n_at_once(launcher.where(config))
    grid = make_plan(config.sweep, arguments.overrides, arguments.config_dir, prepare=False)
    if sweep.exists():
        sweep.require_current()
    statuses = {} if grid.unprepared else planned_statuses(grid, sweep)
    plan_output.print_plan(grid, [*statuses.values()])
    plan_output.print_hours(grid, statuses, Path(config.output_dir), n_at_once)
    return 0


def planned_statuses(grid: Plan, sweep: Sweep) -> dict[str, CellStatus]:
    """Return the statuses of the cells by run id; `new` of pending ones that are not submitted."""
    submitted = {cell.id for cell in sweep.cells()} if sweep.exists() else set()
    statuses = {}
    for cell in freeze(grid):
        status = sweep.status(cell)
        is_new = status.state == "pending" and cell.id not in submitted
        statuses[cell.id] = replace(status, state="new") if is_new else status
    return statuses


def submit(arguments: SweepArguments, sweep: Sweep) -> int:
    """Freeze every cell and start them."""
    freeze_cells(arguments, sweep)
    return _start(arguments, sweep)


def freeze_cells(arguments: SweepArguments, sweep: Sweep) -> None:
    """Compose and check every cell, and write the submission; nothing is started.

    Raises:
        ConfigError: all faults of the cells, or a device that they need is missing.
    """
    config = arguments.config
    if sweep.exists():
        sweep.require_current()
    launcher = sweep.launcher(config.on)
    where = launcher.where(config)
    grid = make_plan(config.sweep, arguments.overrides, arguments.config_dir, prepare=True)
    cells = freeze(grid)  # before anything is written, so that a fault leaves no files behind
    launcher.require_devices(cells, where)
    with sweep.exclusively():
        write_submission(sweep, config.sweep, grid, cells, where)


def _start(arguments: SweepArguments, sweep: Sweep) -> int:
    """Start the pending cells; return at once, or at their end with wait=true."""
    statuses = sweep.statuses()
    print(f"{sweep.name}: {progress.counts(statuses)}")
    if any(each.state == "failed" for each in statuses):
        print(as_started(f"failed cells run again after python -m hblm.sweep retry {arguments.command}"))
    launcher, where = sweep.current()
    if line := launcher.start(where):
        print(line)
    if arguments.config.wait:
        return watch(arguments, sweep)
    print(as_started(f"watch it    python -m hblm.sweep watch {arguments.command}"))
    return 0


def status(arguments: SweepArguments, sweep: Sweep) -> int:
    """Print the status of every cell; 1 if a cell failed."""
    launcher, where = sweep.current()
    statuses = sweep.statuses()
    print(f"{sweep.name}: {progress.counts(statuses)}")
    progress.print_table(statuses)
    launchers = sweep.launchers(statuses)
    for line in filter(None, (each.process_line() for each in launchers)):
        print(line)
    open_cells = [each for each in statuses if each.state in OPEN_STATES]
    if not all(any(each.covers(cell) for each in launchers) for cell in open_cells):
        print("no process starts the pending cells; run submit again")
    progress.print_other_commits(statuses)
    left = progress.seconds_left(statuses, launcher.n_at_once(where))
    if left:
        print(f"about {progress.duration(left)} left")
    return int(any(each.state == "failed" for each in statuses))


def watch(arguments: SweepArguments, sweep: Sweep) -> int:
    """Show progress until the end, then failures and the table; 0 if all cells are done."""
    launcher, where = sweep.current()
    ends_on_interrupt = arguments.config.wait and launcher.ends_on_interrupt
    if ends_on_interrupt:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, which stops the cells as well
    try:
        statuses = progress.follow(sweep, launcher.n_at_once(where))
    except KeyboardInterrupt:
        if not ends_on_interrupt:
            print("the cells keep running; cancel stops them", file=sys.stderr)
            raise
        launcher.interrupt()
        print(f"interrupted; {progress.counts(sweep.statuses())}; run submit again", file=sys.stderr)
        return 130
    progress.print_failures(sweep, statuses)
    print(f"{sweep.name}: {progress.counts(statuses)}")
    progress.print_other_commits(statuses)
    print_final_table(sweep, statuses, arguments.config.output_dir)
    n_open = sum(each.state in OPEN_STATES for each in statuses)
    if n_open:
        print(f"{n_open:,} cells are not done and no process starts them; run submit again")
        if launcher.own_log is not None:
            print(f"log of the worker process: {launcher.own_log}")
    return int(any(each.state != "done" for each in statuses))


def logs(arguments: SweepArguments, sweep: Sweep) -> int:
    """Print the ends of the chosen cells' logs, or of those of failed cells."""
    chosen = _chosen(arguments, sweep.statuses())
    if not arguments.config.cell:
        chosen = [each for each in chosen if each.state == "failed"]
        if not chosen:
            print("no cell failed; cell=NUMBER shows another cell's log")
    for each in chosen:
        if each.attempt is None:
            print(f"cell {each.cell.number} has no attempt yet: {each.cell.label}")
            continue
        log = sweep.log(each)
        print(f"cell {each.cell.number}, attempt {each.attempt.number}, {each.state}: {each.cell.label}")
        print(f"log {log}")
        for line in tail(log, arguments.config.lines) if log else []:
            print(f"  | {line}")
    return 0


def cancel(arguments: SweepArguments, sweep: Sweep) -> int:
    """Stop the chosen cells, or all."""
    chosen = _chosen(arguments, sweep.statuses())
    for launcher in sweep.launchers(chosen):
        for line in launcher.cancel(chosen, everything=not arguments.config.cell):
            print(line)
    for each in (sweep.status(each.cell) for each in chosen):
        if each.state == "pending":
            sweep.cancel_pending(each.cell)
    print(f"{sweep.name}: {progress.counts(sweep.statuses())}")
    return 0


def retry(arguments: SweepArguments, sweep: Sweep) -> int:
    """Request another attempt at failed cells, and start them."""
    config = arguments.config
    sweep.require_current()
    launcher, where = sweep.current()
    where = launcher.changed_where(where, config, arguments.given)
    with sweep.exclusively():  # includes the look at the cells, so that no two processes request an attempt
        chosen = _chosen(arguments, sweep.statuses())
        states = ("failed", "cancelled") if config.cell else ("failed",)
        again = [
            each
            for each in chosen
            if each.state in states and (not config.cause or each.cause in config.cause)
        ]
        for each in again:
            sweep.request_attempt(each.cell)
        if again:
            sweep.write_submission({**sweep.submission(), "where": where})
    if not again:
        causes = f" by {', '.join(config.cause)}" if config.cause else ""
        print(f"{sweep.name}: no cell failed{causes}; {progress.counts(sweep.statuses())}")
        return 0
    print(f"{len(again):,} cell{'s' * (len(again) != 1)} again")
    return _start(arguments, sweep)


def _chosen(arguments: SweepArguments, statuses: Sequence[CellStatus]) -> list[CellStatus]:
    """Return the cells of cell=, by number or id; all if none is given.

    Raises:
        ConfigError: there is no such cell.
    """
    if not arguments.config.cell:
        return [*statuses]
    chosen: dict[str, CellStatus] = {}
    for given in arguments.config.cell:
        matches = [each for each in statuses if _is_named(each.cell, given)]
        if len(matches) != 1:
            raise ConfigError(
                f"cell={given} names {len(matches) or 'no'} cells; they are 1 to {len(statuses)}, "
                "or digits of a run id"
            )
        chosen[matches[0].cell.key] = matches[0]
    return [*chosen.values()]


def _is_named(cell: FrozenCell, given: str) -> bool:
    return given == str(cell.number) or (len(given) >= 6 and cell.id.startswith(given))


COMMANDS: Mapping[str, Callable[[SweepArguments, Sweep], int]] = {
    "plan": plan,
    "submit": submit,
    "status": status,
    "watch": watch,
    "logs": logs,
    "cancel": cancel,
    "retry": retry,
}
