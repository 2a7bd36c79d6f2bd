"""A third launcher, added through the registry: submit, watch, cancel and retry know none by name."""

from __future__ import annotations

import ast
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from grids import attempts, finish, state, states, sweep, write_grid

import hblm.sweep
from hblm.config.sweep import SweepConfig
from hblm.engine import training
from hblm.sweep import job
from hblm.sweep.attempts import STOPPED, Attempt, CellStatus, Sighting
from hblm.sweep.cells import FrozenCell
from hblm.sweep.launchers import registry
from hblm.sweep.launchers.base import Launcher


class ToyLauncher(Launcher):
    """Queues cells; `work` runs them in this process."""

    name = "toy"

    def n_at_once(self, where: Mapping[str, object]) -> int:
        return 1

    def start(self, where: Mapping[str, object]) -> str:
        waiting = [each for each in self.state.statuses() if each.state == "pending" and not each.is_launched]
        for each in waiting:
            number = self.state.next_number(each.cell)
            self.state.write_attempt(each.cell, number, state="queued", on=self.name)
        return f"{len(waiting)} toys"

    def look(self, cell: FrozenCell, attempt: Attempt) -> Sighting:
        return Sighting(attempt.state, None, "in the toy box")

    def cancel(self, statuses: Sequence[CellStatus], *, everything: bool) -> list[str]:
        for each in filter(self.is_own, statuses):
            self.state.end_attempt(each.cell, each.attempt.number, "cancelled", STOPPED["cancelled"])
        return [f"put {len(statuses)} toys away"]


def work(seconds: float) -> None:
    """Run the next queued cell."""
    launcher = state().launcher("toy")
    queued = [each for each in state().statuses() if launcher.is_own(each)]
    for each in queued[:1]:
        job.make_attempt(state(), each.cell, each.attempt.number, {"device": "toy"})


@pytest.fixture
def _toy(monkeypatch):
    """Register the launcher, which works while `watch` sleeps; its cells fail at seed 2 once."""
    monkeypatch.setitem(registry.LAUNCHERS, "toy", ToyLauncher)
    monkeypatch.setattr("hblm.sweep.progress.time", SimpleNamespace(time=time.time, sleep=work))
    failed = []

    def run(config, *, expected, **how):
        if config.seed == 2 and not failed:
            failed.append(expected)
            raise RuntimeError("no luck")
        finish(next(cell for cell in state().cells() if cell.id == expected))

    monkeypatch.setattr(training, "run", run)


@pytest.mark.usefixtures("_toy")
def test_a_launcher_is_a_class_and_a_line_in_the_registry(learnable, capsys):
    write_grid(learnable, {"seed": "1,2,3"})
    assert sweep("submit", "on=toy", "time=5") == 0
    assert "3 toys" in capsys.readouterr().out
    assert states() == ["pending"] * 3
    assert sweep("status") == 0
    printed = capsys.readouterr().out
    assert "in the toy box" in " ".join(printed.split())
    assert "no process starts" not in printed
    assert sweep("cancel", "cell=3") == 0
    assert "put 1 toys away" in capsys.readouterr().out
    assert states() == ["pending", "pending", "cancelled"]

    assert sweep("watch") == 1
    printed = capsys.readouterr().out
    assert "3 cells: 1 done, 1 failed, 1 cancelled" in printed
    assert "raised: RuntimeError: no luck" in printed
    assert "1 toys" in (sweep("retry", "time=6"), capsys.readouterr().out)[1]
    assert state().submission()["where"]["time"] == 6
    assert sweep("watch") == 1
    assert states() == ["done", "done", "cancelled"]
    assert {each["on"] for each in attempts()} == {"toy"}

    assert sweep("submit", "on=toy") == 0  # what was cancelled is submitted again
    assert sweep("watch") == 0
    assert sweep("submit", "on=tyo") == 2
    assert "on=tyo is not one of local, slurm, toy; did you mean toy?" in capsys.readouterr().err


@pytest.mark.usefixtures("_toy")
def test_attempts_of_the_launcher_before_are_still_watched_and_cancelled(learnable):
    write_grid(learnable, {"seed": "1,3"})
    assert sweep("submit", "on=toy") == 0
    submission = state().submission()
    where = registry.LAUNCHERS["local"](state()).where(SweepConfig(sweep="tiny", devices=["cpu"]))
    state().write_submission({**submission, "where": where})
    assert sweep("cancel", "cell=1") == 0
    assert states() == ["cancelled", "pending"]
    assert sweep("watch") == 1  # the toy goes on
    assert states() == ["cancelled", "done"]


def test_options_of_a_launcher_are_changed_by_a_retry():
    slurm, local = (registry.LAUNCHERS[name](state()) for name in ("slurm", "local"))
    config = SweepConfig(sweep="tiny", devices=["cpu"], per_device=2, time=5, memory=3)
    where = local.where(config)
    assert (where["on"], where["devices"], local.n_at_once(where)) == ("local", [["cpu", 2]], 2)
    config.per_device, config.time = 7, 8
    changed = local.changed_where(where, config, {"time"})
    assert changed == {**where, "time": 8}
    assert local.changed_where(where, config, {"per_device"})["devices"] == [["cpu", 7]]
    config.nodes, config.cluster.array_parallelism = 2, 9
    where = slurm.where(config)
    assert (where["nodes"], where["devices"], slurm.n_at_once(where)) == (2, [], 9)
    config.cluster.qos = "high"
    assert slurm.changed_where({**where, "memory": 1}, config, {"cluster"})["memory"] == 1


def test_no_other_file_compares_a_launchers_name():
    folder = Path(hblm.sweep.__file__).parent
    files = [*folder.glob("*.py"), *folder.glob("launchers/[br]*.py"), folder.parent / "config" / "sweep.py"]
    assert len(files) > 10
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare):
                texts = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
                assert not texts & {"local", "slurm"}, f"{file}:{node.lineno}"
