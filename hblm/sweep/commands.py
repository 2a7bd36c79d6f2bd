"""`python -m hblm.sweep`: a grid planned, submitted, watched, stopped, tried again. No torch."""

from __future__ import annotations

import contextlib
import itertools
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hblm.config import overrides
from hblm.config.aggregate import AggregateConfig
from hblm.config.sweep import Cluster
from hblm.engine import auto
from hblm.errors import ConfigError
from hblm.files import HOST
from hblm.json_files import canonical_json
from hblm.runs.environment import code
from hblm.sweep import progress
from hblm.sweep.arguments import Asked
from hblm.sweep.devices import Device, choose_devices, require_enough
from hblm.sweep.launchers import local, slurm
from hblm.sweep.plan import Plan, expected_seconds, freeze, make_plan, seconds_of
from hblm.sweep.state import STOPPED, Frozen, Ledger, Standing, tail

_STOPPING = 30.0  # seconds that cancel waits for the cells to end


def plan(asked: Asked) -> int:
    """Show what a submission would run."""
    made = make_plan(asked.config.sweep, asked.overrides, asked.config_dir, prepare=False)
    ledger = asked.ledger
    if ledger.exists():
        ledger.require_current()
    states = {}
    if not made.unprepared:
        submitted = {cell.id for cell in ledger.cells()} if ledger.exists() else set()
        for cell in freeze(made):
            found = ledger.standing(cell)
            is_new = found.state == "waiting" and cell.id not in submitted
            states[cell.id] = replace(found, state="new") if is_new else found
    _print_plan(made, states)
    _print_hours(made, states, Path(asked.config.output_dir), _at_once(_where(asked)))
    return 0


def _print_plan(made: Plan, states: Mapping[str, Standing]) -> None:
    merged = sum(len(cell.also) for cell in made.cells)
    told = f"{made.sweep.name}: {made.n_cells:,} cells"
    told += f", {made.n_excluded:,} excluded" if made.n_excluded else ""
    told += f", {merged:,} the same run as another" if merged else ""
    told += f"; {len(made.cells):,} runs"
    told += f" and {len(made.ensembles):,} ensembles" if made.ensembles else ""
    print(told)
    for name, reason in made.unprepared.items():
        print(f"{name}: {reason}")
    if states:
        print(progress.counts([*states.values()]))
        progress.print_table([*states.values()])
    for line in dict.fromkeys(line for cell in made.cells for line in auto.lines(cell.chosen)):
        print(f"chosen: {line}")


def _print_hours(made: Plan, states: Mapping[str, Standing], output_dir: Path, at_once: int) -> None:
    known = seconds_of(output_dir / "results")
    open_cells = [
        cell
        for cell in made.cells
        if cell.run is None or cell.run.id not in states or states[cell.run.id].state != "done"
    ]
    found = [seconds for cell in open_cells if (seconds := expected_seconds(cell, known)) is not None]
    if not open_cells:
        return
    if not found:
        print("no result at hand tells how long these runs take")
        return
    total = progress.duration(sum(found))
    wall = f", {progress.duration(sum(found) / at_once)} with {at_once} at once" if at_once > 1 else ""
    of = f" for {len(found):,} of {len(open_cells):,} open runs, by runs like them"
    print(f"about {total} of computing{wall}{of}")


def submit(asked: Asked) -> int:
    """Freeze every cell and start the process that runs them."""
    ledger, config = asked.ledger, asked.config
    if ledger.exists():
        ledger.require_current()
    where = _where(asked)
    made = make_plan(config.sweep, asked.overrides, asked.config_dir, prepare=True)
    cells = freeze(made)  # so that a fault leaves no ledger behind
    _require_devices(cells, where)
    with _editing(ledger):
        _write_submission(asked, made, cells, where)
    return _go_on(asked)


@contextlib.contextmanager
def _editing(ledger: Ledger) -> Iterator[None]:
    """Hold the ledger's lock, and ask the cluster anew: another process may have submitted meanwhile."""
    with ledger.editing():
        ledger.remove_leftovers()
        ledger.jobs = slurm.Queue(ledger)
        yield


def _write_submission(asked: Asked, made: Plan, cells: Sequence[Frozen], where: Mapping[str, Any]) -> None:
    """Write the cells that are new or to be run again, and sweep.json."""
    ledger, config = asked.ledger, asked.config
    known = {cell.id: cell for cell in ledger.cells()} if ledger.exists() else {}
    numbers = itertools.count(max((cell.number for cell in known.values()), default=0) + 1)
    stand_in = {_said(cell) for cell in cells}
    for old in [cell for cell in known.values() if cell.id not in {each.id for each in cells}]:
        # the same cell before its data or encoder changed, so that it had another run id
        if _said(old) in stand_in and ledger.standing(old).state in ("waiting", "failed", "cancelled"):
            del known[old.id]
    for cell in cells:
        before = known.get(cell.id)
        cell = replace(cell, number=next(numbers) if before is None else before.number)
        found = None if before is None else ledger.standing(before)
        state = "" if found is None else found.state
        if state == "running" or (state == "done" and not cell.force):
            continue  # its process has read it, or nothing is left to do
        ledger.freeze(cell)
        if state == "cancelled" or (cell.force and found is not None and not _is_queued(found)):
            ledger.want_again(cell)
        known[cell.id] = cell
    ledger.clear_stop()
    ledger.write_sweep(
        {
            "sweep": config.sweep,
            "file": str(made.sweep.file),
            "overrides": [*made.overrides],
            "cells": [cell.key for cell in sorted(known.values(), key=lambda cell: cell.number)],
            "table": vars(made.sweep.node.table),
            "expect": made.sweep.node.expect,
            "submitted": time.time(),
            "host": HOST,
            "code": dict(code()),
            "where": where,
        }
    )


def _where(asked: Asked) -> dict[str, Any]:
    """Return where cells are to run, as sweep.json holds it."""
    config = asked.config
    where: dict[str, Any] = {"on": config.on, "time": config.time, "memory": config.memory}
    where |= {"devices": [], "cluster": None, "nodes": config.nodes}
    if config.on == "slurm":
        return {**where, "cluster": vars(config.cluster)}
    return {**where, "devices": local.arguments(choose_devices(config.devices, config.per_device))}


def _require_devices(cells: Sequence[Frozen], where: Mapping[str, Any]) -> None:
    """Refuse cells whose processes would find no GPU.

    Raises:
        ConfigError: they are more than the GPUs of a machine.
    """
    most = max((cell.processes for cell in cells), default=1)
    if where["on"] == "local":
        require_enough([Device(*each) for each in where["devices"]], most)
        return
    given = where["cluster"]["gpus_per_node"]
    if given and given < most:
        raise ConfigError(
            f"trainer.processes={most} need a GPU each, and cluster.gpus_per_node={given} are fewer"
        )


def _said(cell: Frozen) -> str:
    """Return what a cell was asked to be, whatever its data were, and what was chosen by them."""
    asked = {**cell.config, "force": False}
    for name in cell.chosen:
        node, _, key = name.partition(".")
        asked[node] = {**asked[node], key: None}
    return canonical_json([cell.kind, cell.label, asked])


def _go_on(asked: Asked) -> int:
    """Start the process that runs what waits, and return or stay."""
    ledger, name = asked.ledger, overrides.override("sweep", asked.config.sweep)
    standings = ledger.standings()
    print(f"{ledger.name}: {progress.counts(standings)}")
    for_name = "" if asked.config.name is None else f" {overrides.override('name', asked.config.name)}"
    for_place = "" if "output_dir" not in asked.given else f" {asked.overrides[-1]}"
    command = f"{name}{for_name}{for_place}"
    if any(each.state == "failed" for each in standings):
        print(f"failed cells stay so until python -m hblm.sweep retry {command}")
    where = ledger.sweep()["where"]
    if where["on"] == "slurm":
        _submit_jobs(ledger, where)
    elif any(each.state in ("waiting", "running") for each in standings):
        started = local.start(ledger)
        print("started" if started else "taken up by the process that runs this sweep's cells already")
    if asked.config.wait:
        return watch(asked)
    print(f"watch it    python -m hblm.sweep watch {command}")
    return 0


def _submit_jobs(ledger: Ledger, where: Mapping[str, Any]) -> None:
    """Submit the cells that wait and are not in the queue; of several processes one after the other."""
    with _editing(ledger):
        waiting = [each for each in ledger.standings() if each.state == "waiting"]
        open_cells = [each.cell for each in waiting if not _is_queued(each)]
        if open_cells:
            cluster = Cluster(**where["cluster"])
            asked = where["time"], where["memory"], int(where.get("nodes", 1))
            arrays = slurm.submit_cells(ledger, open_cells, cluster, *asked)
            print(f"{len(open_cells):,} jobs, as SLURM's {', '.join(arrays)}")


def _is_queued(standing: Standing) -> bool:
    return standing.attempt is not None and standing.attempt.state == "queued"


def _is_job(standing: Standing) -> bool:
    """Return whether a cell is in a cluster's queue, running or not."""
    attempt = standing.attempt
    if attempt is None or standing.state not in ("waiting", "running"):
        return False
    return attempt.told.get("on") == "slurm" and attempt.state in ("queued", "running")


def status(asked: Asked) -> int:
    """Print how every cell stands."""
    ledger = asked.ledger
    told = ledger.sweep()
    standings = ledger.standings()
    print(f"{ledger.name}: {progress.counts(standings)}")
    progress.print_table(standings)
    running = ledger.pool()
    if running is not None:
        print(f"cells are started by process {running.get('pid', '?')} on {running.get('host', '?')}")
    elif any(each.state in ("waiting", "running") and not _is_job(each) for each in standings):
        print("no process starts this sweep's cells; submit goes on with it")
    _print_moved(standings)
    left = progress.seconds_left(standings, _at_once(told["where"]))
    if left:
        print(f"about {progress.duration(left)} left")
    return int(any(each.state == "failed" for each in standings))


def _print_moved(standings: Sequence[Standing]) -> None:
    """Say which cells ran by other code than they were submitted with."""
    moved = [
        str(each.cell.number)
        for each in standings
        if each.attempt is not None
        and each.attempt.told.get("commit") is not None
        and each.cell.commit is not None
        and each.attempt.told["commit"] != each.cell.commit
    ]
    if moved:
        print(f"the code has moved: ran at another commit than submitted: cells {', '.join(moved)}")


def _at_once(where: Mapping[str, Any]) -> int:
    """Return how many cells run at a time."""
    if where["on"] == "slurm":
        return int(where["cluster"]["array_parallelism"])
    return sum(int(cells) for _, cells in where["devices"])


def watch(asked: Asked) -> int:
    """Show progress until the end, then failures and the table; 0 where all cells are done."""
    ledger = asked.ledger
    told = ledger.sweep()
    stops = asked.config.wait and told["where"]["on"] == "local"
    if stops:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the cells are stopped as well
    try:
        standings = progress.follow(ledger, _at_once(told["where"]), lambda: _goes_on(ledger))
    except KeyboardInterrupt:
        if not stops:
            print("the cells go on; cancel stops them", file=sys.stderr)
            raise
        ledger.ask_to_stop(None, "interrupted")
        _until_stopped(ledger)
        print(f"interrupted; {progress.counts(ledger.standings())}; submit goes on", file=sys.stderr)
        return 130
    progress.print_failures(ledger, standings)
    print(f"{ledger.name}: {progress.counts(standings)}")
    _print_moved(standings)
    _print_table(ledger, told, standings, asked.config.output_dir)
    open_cells = [each for each in standings if each.state in ("waiting", "running")]
    if open_cells:
        blocked = "need cells that are not done, or "
        print(f"{len(open_cells)} cells {blocked}have no process that starts them; submit goes on")
        print(f"what that process printed: {ledger.folder / 'pool.log'}")
    return int(any(each.state != "done" for each in standings))


def _goes_on(ledger: Ledger) -> bool:
    """Return whether anything starts or runs this sweep's cells."""
    return ledger.pool() is not None or any(_is_job(each) for each in ledger.standings())


def _print_table(
    ledger: Ledger, told: Mapping[str, Any], standings: Sequence[Standing], output_dir: str
) -> None:
    """Make the sweep's table of what is done, and name what is missing in it."""
    files = [str(each.result) for each in standings if each.result is not None]
    if not files:
        print("no table: no cell is done")
        return
    from hblm.tables.report import Sweep, report  # pandas and scipy take a second to load

    missing = [
        f"cell {each.cell.number} ({each.cell.label}), {each.state}"
        + (f": {each.cause}" if each.state == "failed" else "")
        for each in standings
        if each.result is None
    ]
    table = {name: asked for name, asked in told["table"].items() if asked}
    report(
        AggregateConfig(results=files, name=ledger.name, output_dir=output_dir),
        Sweep(told["file"], ledger.name, table, told["expect"] or None),
        missing,
    )


def logs(asked: Asked) -> int:
    """Print the ends of logs: of the cells asked for, else of those that failed."""
    ledger = asked.ledger
    chosen = _chosen(asked, ledger.standings())
    if not asked.config.cell:
        chosen = [each for each in chosen if each.state == "failed"]
        if not chosen:
            print("no cell failed; cell=NUMBER shows another's log")
    for each in chosen:
        if each.attempt is None:
            print(f"cell {each.cell.number} has no attempt yet: {each.cell.label}")
            continue
        log = ledger.output_of(each)
        print(f"cell {each.cell.number}, attempt {each.attempt.number}, {each.state}: {each.cell.label}")
        print(f"log {log}")
        for line in tail(log, asked.config.lines) if log else []:
            print(f"  | {line}")
    return 0


def cancel(asked: Asked) -> int:
    """Stop the cells asked for, else all."""
    ledger = asked.ledger
    chosen = _chosen(asked, ledger.standings())
    some = [each.cell.key for each in chosen] if asked.config.cell else None
    told = ledger.pool()
    if told is not None:
        ledger.ask_to_stop(some)
        _until_stopped(ledger, chosen if some is not None else None)
    jobs = [each for each in map(ledger.standing, (each.cell for each in chosen)) if _is_job(each)]
    for each in jobs:  # said first, so that none goes back into the queue
        if each.attempt is not None:
            ended = {
                "state": "ended",
                "cause": "cancelled",
                "why": STOPPED["cancelled"],
                "ended": time.time(),
            }
            ledger.write_attempt(each.cell, each.attempt.number, **ended)
    slurm.cancel_jobs([job for each in jobs if (job := _job_of(ledger, each)) is not None])
    until = time.monotonic() + _STOPPING
    while time.monotonic() < until and any(each.cell.is_running_somewhere() for each in jobs):
        time.sleep(0.2)
    for each in (ledger.standing(each.cell) for each in chosen):
        if each.state == "running" and not each.elsewhere and each.attempt is not None:
            if each.attempt.told.get("host") != HOST:
                print(f"cell {each.cell.number} runs on {each.attempt.told.get('host')}: cancel it there")
                continue
            local.end_process(int(each.attempt.told["pid"]), float(each.attempt.told["born"]))
        if ledger.standing(each.cell).state == "waiting":
            local.cancel_waiting(ledger, each.cell)
    ledger.clear_stop()
    print(f"{ledger.name}: {progress.counts(ledger.standings())}")
    return 0


def _job_of(ledger: Ledger, standing: Standing) -> str | None:
    if ledger.jobs is None or standing.attempt is None:
        return None
    return ledger.jobs.look(standing.cell.key, standing.attempt.number).job


def _until_stopped(ledger: Ledger, cells: Sequence[Standing] | None = None) -> None:
    """Wait until the pool, or the attempts at some cells, have ended."""
    until = time.monotonic() + _STOPPING
    while time.monotonic() < until and ledger.pool() is not None:
        if cells is not None and ledger.stop_asked() is None:
            states = [ledger.standing(each.cell) for each in cells]
            if not any(each.state == "running" and not each.elsewhere for each in states):
                return
        time.sleep(0.1)


def retry(asked: Asked) -> int:
    """Ask for another attempt at failed cells, and start what runs them."""
    ledger, config = asked.ledger, asked.config
    told = ledger.sweep()
    ledger.require_current()
    where = dict(told["where"])
    if "cluster" in asked.given:
        where["cluster"] = vars(config.cluster)
    if {"devices", "per_device"} & asked.given.keys():
        where["devices"] = local.arguments(choose_devices(config.devices, config.per_device))
    where |= {name: asked.given[name] for name in ("time", "memory") if name in asked.given}
    with _editing(ledger):  # from the look on: a cell that another process takes up is not wanted twice
        chosen = _chosen(asked, ledger.standings())
        states = ("failed", "cancelled") if config.cell else ("failed",)
        again = [
            each
            for each in chosen
            if each.state in states and (not config.cause or each.cause in config.cause)
        ]
        for each in again:
            ledger.want_again(each.cell)
        if again:
            ledger.clear_stop()
            ledger.write_sweep({**ledger.sweep(), "where": where})
    if not again:
        of = f" by {', '.join(config.cause)}" if config.cause else ""
        print(f"{ledger.name}: no cell failed{of}; {progress.counts(ledger.standings())}")
        return 0
    print(f"{len(again)} cells again")
    return _go_on(asked)


def _chosen(asked: Asked, standings: Sequence[Standing]) -> list[Standing]:
    """Return the cells asked for by number or id, all where none is named.

    Raises:
        ConfigError: there is no such cell.
    """
    if not asked.config.cell:
        return [*standings]
    found: dict[str, Standing] = {}
    for given in asked.config.cell:
        match = [each for each in standings if _is(each.cell, given)]
        if len(match) != 1:
            raise ConfigError(
                f"cell={given} names {len(match) or 'no'} cells; they are 1 to {len(standings)}, "
                "or digits of a run id"
            )
        found[match[0].cell.key] = match[0]
    return [*found.values()]


def _is(cell: Frozen, given: str) -> bool:
    return given == str(cell.number) or (len(given) >= 6 and cell.id.startswith(given))


TASKS: Mapping[str, Callable[[Asked], int]] = {
    "plan": plan,
    "submit": submit,
    "status": status,
    "watch": watch,
    "logs": logs,
    "cancel": cancel,
    "retry": retry,
}
