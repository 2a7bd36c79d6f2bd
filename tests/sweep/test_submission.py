"""Frozen cells and sweep.json: read as they were written, replaced when data change, run again by force."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import made_results
import pytest
from grids import submitted, sweep, write_grid
from programs import TINY, compose

from hblm.config.schema import typed
from hblm.config.train import TrainConfig
from hblm.engine import training
from hblm.errors import DataError
from hblm.files import sha256_text
from hblm.json_files import canonical_json
from hblm.runs import paths
from hblm.sweep.cells import FrozenCell
from hblm.sweep.launchers import local
from hblm.sweep.launchers.registry import open_sweep


def test_a_frozen_cell_is_read_as_it_was_written(learnable):
    state, cells = submitted(learnable, {"seed": "1,2"})
    assert state.cells() == cells
    assert cells[0].config["seed"] == 1
    assert "sweep" not in cells[0].config


@pytest.mark.parametrize("skew", [-3600, 0, 3600])
@pytest.mark.parametrize("kind", ["train", "0.5", "auto"])
def test_a_forced_cell_is_done_by_another_result_whatever_the_clocks_say(learnable, kind, skew):
    """The host that runs it may have another time than the one that submits it."""
    grid = {"method": "top_down,bottom_up"}, "  ensemble_weight: [0.5, auto]"
    at = {"train": 0, "0.5": 2, "auto": 3}[kind]
    state, cells = submitted(learnable, *grid)
    write_result(cells[at], "first", skew)
    assert state.status(cells[at]).state == "done"
    forced = dataclasses.replace(cells[at], force=True).without_older_results()
    assert state.status(forced).state == "pending"
    write_result(forced, "second", skew)
    assert state.status(forced).state == "done"


@pytest.mark.slow
def test_an_ensembles_scores_on_other_data_are_not_its_cells_result(learnable):
    state, cells = submitted(learnable, {"method": "top_down,bottom_up"}, "  ensemble_weight: [0.5]")
    (cell,) = (cell for cell in cells if cell.kind == "ensemble")
    write_result(cell, "other_mail_first", 0, other_data=True)
    assert state.status(cell).state == "pending"
    write_result(cell, "second", 0)
    assert state.status(cell).state == "done"


def write_result(cell: FrozenCell, finished: str, skew: float, **more: bool) -> None:
    """Write the result of a run or an ensemble, on a host whose clock differs by `skew` seconds.

    `more` are further settings of an ensemble.
    """
    if cell.kind == "train":
        record = {**made_results.result(seed=1), "run_id": cell.id, "finished": finished}
        file = made_results.write(Path("outputs"), cell.names[0], record)
    else:
        is_auto = cell.config["ensemble_weight"] == "auto"
        settings = {"split": "test", "ensemble_weight": 0.5, "threshold": 0.5, **more}
        settings["ensemble_weight_search"] = {"0.5": 0.7} if is_auto else None
        run_id = sha256_text(canonical_json({"ensemble": [*cell.needs]}))
        name = f"eval_ensemble_{cell.config['dataset']}_{finished}"
        record = {"run_id": run_id, "finished": finished, "settings": settings}
        file = made_results.write(Path("outputs"), name, record)
    os.utime(file, (time.time() + skew,) * 2)


@pytest.mark.parametrize("options", [[], ["trainer=auto", "loss=auto", "film=none"]], ids=["given", "auto"])
@pytest.mark.slow
def test_a_cell_whose_data_changed_takes_its_place(learnable, one_path, monkeypatch, options):
    """Its old run cannot be done any more, and settings chosen from the old data are no part of the cell."""
    monkeypatch.setattr(local, "start_worker", lambda files: True)  # nothing runs
    write_grid("data/fruit", {"seed": "1,2"})
    Path("data").mkdir()
    Path("data/fruit").symlink_to(learnable)
    assert sweep("submit", "seed=1", *options) == 0
    state = open_sweep("outputs", "tiny")
    (first,) = state.cells()
    assert sweep("submit", *options) == 0
    before = state.cells()
    assert [cell.number for cell in before] == [1, 2]
    assert before[0].id == first.id
    Path("data/fruit").unlink()
    Path("data/fruit").symlink_to(one_path)
    assert sweep("submit", *options) == 0
    after = state.cells()
    assert len(after) == 2
    assert not {cell.id for cell in after} & {cell.id for cell in before}


def test_a_frozen_cell_whose_data_changed_is_refused(learnable):
    config = compose("train", TrainConfig, *TINY, f"dataset.path={learnable}")
    with pytest.raises(DataError, match="was run 00000000 when it was frozen or started and would now be"):
        training.run(config, expected="0" * 64)
    assert not list(Path("outputs/results").glob("*.json"))


@pytest.mark.slow
def test_a_run_that_another_process_does_is_not_waited_for(learnable):
    _, (cell,) = submitted(learnable, {"seed": "1"})
    with cell.lock(), pytest.raises(paths.Busy):
        training.run(typed(cell.config, TrainConfig), expected=cell.id, wait=False)
