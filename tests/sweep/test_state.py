"""The files of a sweep: states of cells, damaged files, folders that were moved or may not be written."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import time
from pathlib import Path

import psutil
import pytest
from grids import finish, submitted, sweep
from users import BEN, as_user, needs_root

from hblm.errors import ConfigError
from hblm.files import HOST
from hblm.sweep import commands, job
from hblm.sweep.arguments import SweepArguments, read_arguments
from hblm.sweep.launchers.local_files import WorkerFiles
from hblm.sweep.launchers.registry import Sweep, open_sweep
from hblm.sweep.progress import took
from hblm.version import FORMULAS


def test_done_means_that_the_result_is_there(learnable):
    state, cells = submitted(learnable, {"seed": "1,2"})
    assert [each.state for each in state.statuses()] == ["pending", "pending"]
    result = finish(cells[0])
    assert [each.state for each in state.statuses()] == ["done", "pending"]
    result.write_text(json.dumps({"run_id": "another"}))
    assert [each.state for each in Sweep(state.folder).statuses()] == ["pending", "pending"]
    finish(cells[0], cells[0].names[1])  # under another of its names
    assert [each.state for each in Sweep(state.folder).statuses()] == ["done", "pending"]


@pytest.mark.parametrize("skew", [-3600, 0, 3600])
def test_an_attempt_of_another_host_is_known_by_its_lock_whatever_the_clocks_say(learnable, skew):
    state, (cell,) = submitted(learnable, {"seed": "1"})
    with state.attempt_lock(cell, 1):
        state.write_attempt(cell, 1, state="running", host="elsewhere", started=time.time() + skew)
        assert state.status(cell).state == "running"
        assert (took(state.status(cell)) or 0) >= 0
    assert (state.status(cell).state, state.status(cell).cause) == ("pending", "lost")


def test_the_last_attempt_decides_the_state_of_a_cell(learnable):
    state, (cell,) = submitted(learnable, {"seed": "1"})

    def seen() -> tuple[str, str | None]:
        (status,) = state.statuses()
        return status.state, status.cause

    state.write_attempt(cell, 1, state="ended", cause="raised", why="x")
    assert seen() == ("failed", "raised")
    state.request_attempt(cell)
    state.request_attempt(cell)
    assert seen() == ("pending", None)
    assert [each.number for each in state.attempts(cell)] == [1, 2]
    me = psutil.Process()
    state.write_attempt(cell, 2, state="running", host=HOST, pid=me.pid, born=me.create_time())
    assert seen() == ("running", None)
    state.write_attempt(cell, 2, born=me.create_time() - 1000)  # the pid was another process's
    assert seen() == ("pending", "lost")
    state.write_attempt(cell, 2, state="ended", cause="cancelled")
    assert seen() == ("cancelled", "cancelled")
    with cell.lock():
        assert seen()[0] == "running"
        assert state.statuses()[0].elsewhere


def test_files_of_earlier_versions_are_read(learnable):
    """Their attempts are `waiting` when requested, and their local attempts name no launcher."""
    state, (cell,) = submitted(learnable, {"seed": "1"})
    file = state.folder / "attempts" / f"{cell.key}.1.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"id": cell.id, "label": cell.label, "state": "waiting", "asked": 1.0}))
    assert state.status(cell).state == "pending"
    assert state.next_number(cell) == 1
    file.write_text(json.dumps({"id": cell.id, "state": "queued", "on": "moon"}))  # an unknown launcher
    assert (state.status(cell).state, state.status(cell).cause) == ("pending", "lost")


def test_a_damaged_file_is_named(learnable, capsys):
    state, (cell,) = submitted(learnable, {"seed": "1"})
    (state.folder / "cells" / f"{cell.key}.json").write_text("{")
    assert sweep("status") == 2
    assert f"{cell.key}.json is damaged (not valid JSON" in capsys.readouterr().err
    file = state.folder / "sweep.json"
    sound = json.loads(file.read_text())
    for where in ({"on": "moon"}, {"on": "slurm"}, {"devices": []}):
        file.write_text(json.dumps({**sound, "where": {**sound["where"], **where}}))
        assert sweep("status") == 2
        assert "sweep.json is damaged: invalid or missing where" in capsys.readouterr().err
    file.write_text("{")
    assert sweep("watch") == 2
    assert "sweep.json is damaged" in capsys.readouterr().err


def fault_of(arguments: SweepArguments) -> str:
    """Run a command; return what was wrong with the files, or ""."""
    try:
        assert commands.run(arguments) in (0, 1)
    except ConfigError as error:
        return str(error)
    return ""


ODD = [None, True, 7, -1, "text", "../../x", [], [7], {}, {"a": {"b": []}}, 10**300]


@pytest.mark.parametrize("kind", ["sweep", "cells", "attempts"])
@pytest.mark.slow
def test_odd_values_in_files_are_named_and_never_end_in_a_traceback(learnable, caplog, kind):
    state, cells = submitted(learnable, {"method": "top_down,bottom_up"}, "  ensemble_weight: [0.5, auto]")
    for cell in cells:
        state.write_attempt(cell, 1, state="ended", cause="raised", why="x", pid=7, born=1.0, started=2.0)
    arguments = read_arguments(["status", "sweep=tiny", "--config-dir", "mine"])
    names = {"sweep": ["sweep.json"], "cells": [f"cells/{cell.key}.json" for cell in cells[1:3]]}
    for name in names.get(kind, [f"attempts/{cells[0].key}.1.json"]):
        file = state.folder / name
        sound = json.loads(file.read_text())
        for key, value in itertools.product(sound, ODD):
            file.write_text(json.dumps({**sound, key: value}))
            caplog.clear()
            fault = fault_of(arguments)  # unused keys are not checked; a damaged attempt is skipped
            assert not fault or f"{file.name} is damaged: invalid or missing" in fault, (key, value)
            assert not caplog.messages or f"skipped {file}" in caplog.messages[0]
        file.write_text(json.dumps(sound))


@pytest.mark.parametrize(
    "values",
    [{"names": ["../out"]}, {"names": ["a/b"]}, {"output_dir": "/"}, {"id": "../../x"}, {"needs": ["../x"]}],
    ids=str,
)
def test_a_cell_cannot_name_what_lies_outside_its_folder(learnable, values):
    state, (cell,) = submitted(learnable, {"seed": "1"})
    file = state.folder / "cells" / f"{cell.key}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    with pytest.raises(ConfigError, match=r"is damaged|output_dir is /;"):
        state.cells()


def test_a_sweep_in_another_folder_than_its_results_is_refused(learnable):
    state, _ = submitted(learnable, {"seed": "1"})
    Path("outputs").rename("moved")
    Path("outputs").symlink_to("moved")  # the same folder under another path
    assert len(state.cells()) == 1
    Path("outputs").unlink()
    with pytest.raises(ConfigError, match=r"the sweep's folder is in .*moved, .* output_dir is .*outputs"):
        open_sweep("moved", "tiny").cells()


def test_pending_cells_of_other_formulas_are_refused(learnable, capsys):
    """Their run ids stand for what another version computes."""
    state, cells = submitted(learnable, {"seed": "1,2"})
    for cell in cells:
        file = state.folder / "cells" / f"{cell.key}.json"
        values = json.loads(file.read_text())
        assert values.pop("formulas") == FORMULAS
        file.write_text(json.dumps(values))
    before = sorted((path.name, path.read_bytes()) for path in state.folder.rglob("*.json"))
    for verb in ("plan", "submit", "retry"):
        assert sweep(verb) == 2
        message = capsys.readouterr().err
        assert "2 pending cells submitted by hblm 0.1" in message
        assert "changed" not in message
    assert sorted((path.name, path.read_bytes()) for path in state.folder.rglob("*.json")) == before
    place = {"device": "cpu"}
    assert job.make_attempt(state, state.cell(cells[0].key), 1, place) == 2
    (attempt,) = state.attempts(cells[0])
    assert (attempt.cause, attempt.fields["why"]) == (
        "error",
        f"this cell was submitted by hblm 0.1; delete {state.folder} and submit again",
    )
    for cell in cells:
        finish(cell)
    state.require_current()  # results of all are there: nothing is pending


def test_cells_that_ran_from_another_commit_are_named(learnable, capsys):
    state, cells = submitted(learnable, {"seed": "1,2"})
    for number, commit in enumerate(("c" * 40, cells[1].commit)):
        state.write_cell(dataclasses.replace(cells[number], commit="a" * 40 if number == 0 else commit))
        state.write_attempt(cells[number], 1, state="ended", cause="raised", why="x", commit=commit)
    assert sweep("status") == 1
    assert "different git commit than at submission: cells 1\n" in capsys.readouterr().out


@needs_root
def test_a_sweep_that_may_not_be_written_is_shown(learnable, shared):
    state, cells = submitted(learnable, {"seed": "1,2"})
    finish(cells[0])
    with WorkerFiles(state.folder).lock(), cells[1].lock():
        pass
    assert sweep("status") == 0  # which imports all modules that it needs
    for path in (shared, *shared.rglob("*")):
        os.chown(path, 0, 0)
        path.chmod(0o755 if path.is_dir() else 0o644)
    before = sorted(shared.rglob("*"))
    with WorkerFiles(state.folder).lock():
        assert as_user(BEN, 0o002, lambda: expect(sweep("status"), 0)) == ""
    assert as_user(BEN, 0o002, lambda: expect(sweep("logs", "cell=2"), 0)) == ""
    assert sorted(shared.rglob("*")) == before
    assert as_user(BEN, 0o002, lambda: expect(sweep("retry", "cell=1"), 2)) == ""


def expect(code: int, expected: int) -> None:
    assert code == expected
