"""From a plan to the files of a sweep: frozen cells, and sweep.json. No torch."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hblm.config.identity import ensemble_id
from hblm.errors import ConfigError
from hblm.files import HOST
from hblm.json_files import canonical_json
from hblm.runs.environment import code
from hblm.sweep.attempts import CellStatus
from hblm.sweep.cells import FrozenCell
from hblm.sweep.plan import Ensemble, Plan, PlannedCell
from hblm.sweep.state import SweepState
from hblm.version import FORMULAS


def freeze(plan: Plan) -> list[FrozenCell]:
    """Return the plan's cells as they are to be run, numbered from 1.

    Raises:
        ConfigError: a dataset is not prepared, or the size of an encoder is unknown.
    """
    if plan.unprepared:
        raise ConfigError("\n".join(plan.unprepared.values()))
    commit = code()
    shared = {
        "folder": Path.cwd(),
        "submitted": time.time(),
        "formulas": FORMULAS,
        "commit": commit["git_commit"],
        "dirty": commit["git_dirty"],
    }
    frozen = [
        *(_frozen_run(cell, shared) for cell in plan.cells),
        *(_frozen_ensemble(ensemble, shared) for ensemble in plan.ensembles),
    ]
    return [
        dataclasses.replace(cell, number=number).without_older_results()
        for number, cell in enumerate(frozen, 1)
    ]


def _frozen_run(cell: PlannedCell, shared: Mapping[str, Any]) -> FrozenCell:
    assert cell.run is not None  # its dataset is prepared
    return FrozenCell(
        id=cell.run.id,
        number=0,
        kind="train",
        label=cell.label,
        names=cell.run.names,
        config=dataclasses.asdict(cell.config),
        needs=(),
        output_dir=cell.run.output_dir.resolve(),
        force=cell.config.force,
        chosen=cell.chosen,
        **shared,
    )


def _frozen_ensemble(ensemble: Ensemble, shared: Mapping[str, Any]) -> FrozenCell:
    first = ensemble.members[0].config
    ids = tuple(member.run.id for member in ensemble.members if member.run is not None)
    return FrozenCell(
        id=ensemble_id(ids, ensemble.weight),
        number=0,
        kind="ensemble",
        label=ensemble.label,
        names=(),
        config={
            "dataset": first.dataset_name,
            "ensemble_weight": ensemble.weight,
            "threshold": first.threshold,
            "device": first.device,
        },
        needs=ids,
        output_dir=Path(first.output_dir).resolve(),
        force=first.force,
        **shared,
    )


def write_submission(
    state: SweepState, name: str, plan: Plan, cells: Sequence[FrozenCell], where: Mapping[str, Any]
) -> None:
    """Write the cells that are new or to be run again, and sweep.json, under the lock of the submission.

    Args:
        state: the sweep.
        name: of the grid.
        plan: the grid's cells.
        cells: the same, frozen.
        where: where they run, as sweep.json stores it.
    """
    known = {cell.id: cell for cell in state.cells()} if state.exists() else {}
    numbers = itertools.count(max((cell.number for cell in known.values()), default=0) + 1)
    for old in _replaced(state, known, cells):
        del known[old.id]
    for cell in cells:
        before = known.get(cell.id)
        cell = dataclasses.replace(cell, number=next(numbers) if before is None else before.number)
        status = None if before is None else state.status(before)
        if status is not None and not _is_to_run(status, cell):
            continue
        state.write_cell(cell)
        known[cell.id] = cell
        if status is not None and _needs_request(status, cell):
            state.request_attempt(cell)
    state.write_submission(
        {
            "sweep": name,
            "file": str(plan.sweep.file),
            "overrides": [*plan.overrides],
            "cells": [cell.key for cell in sorted(known.values(), key=lambda cell: cell.number)],
            "table": vars(plan.sweep.node.table),
            "expect": plan.sweep.node.expect,
            "submitted": time.time(),
            "host": HOST,
            "code": dict(code()),
            "where": where,
        }
    )


def _is_to_run(status: CellStatus, cell: FrozenCell) -> bool:
    """Return whether a known cell is to be run: its process has not read it yet, and it has no result."""
    return status.state != "running" and (status.state != "done" or cell.force)


def _needs_request(status: CellStatus, cell: FrozenCell) -> bool:
    """Return whether a known cell runs again only if another attempt is requested."""
    is_queued = status.attempt is not None and status.attempt.state == "queued"
    return status.state == "cancelled" or (cell.force and not is_queued)


def _replaced(
    state: SweepState, known: Mapping[str, FrozenCell], cells: Sequence[FrozenCell]
) -> list[FrozenCell]:
    """Return the known cells that have another run id now, because their data or their encoder changed."""
    ids, requests = {cell.id for cell in cells}, {_request(cell) for cell in cells}
    return [
        old
        for old in known.values()
        if old.id not in ids
        and _request(old) in requests
        and state.status(old).state in ("pending", "failed", "cancelled")
    ]


def _request(cell: FrozenCell) -> str:
    """Return the settings that were given for a cell: without its data, and what was chosen from them."""
    given = {**cell.config, "force": False}
    for name in cell.chosen:
        node, _, key = name.partition(".")
        given[node] = {**given[node], key: None}
    return canonical_json([cell.kind, cell.label, given])
