"""`hblm.api.sweep`: a grid of training runs that resumes; its plan and its status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hblm.api.arguments import text_of_value, words_of
from hblm.api.results import SweepCell, SweepResult
from hblm.config.schema import leaves
from hblm.config.sweep import SweepConfig
from hblm.config.train import TrainConfig
from hblm.sweep import progress
from hblm.sweep.arguments import SweepArguments, read_arguments
from hblm.sweep.attempts import CellStatus
from hblm.sweep.commands import freeze_cells, planned_statuses
from hblm.sweep.launchers.registry import Sweep, open_sweep
from hblm.sweep.plan import make_plan

_LISTS = {  # the keys that take a list; of others, a list is several values, each of which makes cells
    leaf.name
    for schema in (SweepConfig, TrainConfig)
    for leaf in leaves(schema)
    if str(leaf.field.type).startswith("list")
}


def plan_sweep(
    grid: str, *overrides: str, config_dir: str | Path | None = None, **settings: Any
) -> SweepResult:
    """Return the cells that `sweep` would run, with their states; nothing is written or started.

    The arguments and errors are those of `sweep`. A pending cell that was not submitted is `new`.
    """
    arguments, state = _opened("plan", grid, overrides, config_dir, settings)
    plan = make_plan(arguments.config.sweep, arguments.overrides, arguments.config_dir, prepare=False)
    if not plan.unprepared:
        return _result(state, [*planned_statuses(plan, state).values()])
    cells = (
        SweepCell(number, cell.label, "new", cell.run.id if cell.run else None, "", None)
        for number, cell in enumerate(plan.cells, 1)
    )
    return SweepResult(state.name, state.folder, tuple(cells), plan.unprepared)


def sweep(
    grid: str,
    *overrides: str,
    wait: bool = True,
    config_dir: str | Path | None = None,
    **settings: Any,
) -> SweepResult:
    """Submit a grid: check every cell, start those that are not done, in processes of their own.

    The cells run on if this process ends, or if waiting is interrupted. The same call again goes on, and
    returns at once what is done. A failed cell is run again by `python -m hblm.sweep retry`.

    Args:
        grid: a file of multirun/sweep/, or of sweep/ in `config_dir`.
        overrides: "key=value" or "key=value,value" as on the command line of hblm.sweep.
        wait: until no cell is running or pending; False returns at once.
        config_dir: a folder of your own options.
        settings: keys of the sweep, such as devices=[0, 1] or name="short", and of its runs. A list of
            values for a key of the runs makes cells of each: seed=[1, 2, 3].

    Raises:
        ConfigError: all faults of the arguments and cells, a line each.
    """
    arguments, state = _opened("submit", grid, overrides, config_dir, settings)
    freeze_cells(arguments, state)
    launcher, where = state.current()
    launcher.start(where)
    return _result(state, _followed(state) if wait else state.statuses())


def sweep_status(name: str, *, output_dir: str | Path = "outputs", wait: bool = False) -> SweepResult:
    """Return the states of a submitted sweep's cells; with `wait`, once none is running or pending.

    Args:
        name: of the sweep: its grid's, unless name= was given.
        output_dir: the folder of its results.
        wait: until the end.

    Raises:
        ConfigError: nothing was submitted under this name, or its files are damaged.
    """
    state = open_sweep(output_dir, name)
    return _result(state, _followed(state) if wait else state.statuses())


def _opened(
    verb: str,
    grid: str,
    overrides: Sequence[str],
    config_dir: str | Path | None,
    settings: Mapping[str, Any],
) -> tuple[SweepArguments, Sweep]:
    """Return the checked arguments and the sweep, which need not have been submitted yet."""
    flags = [] if config_dir is None else ["--config-dir", str(Path(config_dir).expanduser())]
    words = words_of(overrides, {"sweep": grid, **settings}, _several)
    arguments = read_arguments([verb, *flags, *words])
    return arguments, open_sweep(arguments.config.output_dir, arguments.sweep_name)


def _several(key: str, value: Any) -> str:
    """Return the text of a value; of several for a key that takes one, all of them with commas between."""
    if isinstance(value, (list, tuple, range)) and key not in _LISTS:
        return ",".join(map(text_of_value, value))
    return text_of_value(value)


def _followed(state: Sweep) -> list[CellStatus]:
    launcher, where = state.current()
    return progress.follow(state, launcher.n_at_once(where))


def _result(state: Sweep, statuses: Sequence[CellStatus]) -> SweepResult:
    cells = (
        SweepCell(each.cell.number, each.cell.label, each.state, each.cell.id, each.reason, each.result)
        for each in statuses
    )
    return SweepResult(state.name, state.folder, tuple(cells))
