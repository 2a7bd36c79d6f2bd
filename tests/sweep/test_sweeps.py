"""Whole sweeps on this machine: cells that fail in every way, parents that die, sweeps that meet."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from grids import attempts, by_label, start, state, states, sweep, until, worker, write_grid

from hblm.cli import main, programs
from hblm.engine import training
from hblm.sweep.devices import Device, lease

quick = pytest.mark.usefixtures("_quick_cells")


@pytest.mark.slow
@quick
def test_a_sweep_with_every_kind_of_failure(learnable: Path, capsys):
    write_grid(
        learnable,
        {"seed": "1,2,13,14,15,16,17"},
        "  table: {rows: [method], columns: [dataset], metric: [test.macro_f1]}",
    )
    assert sweep("submit", "devices=[0,1,2]", "time=0.2", "wait=true") == 1
    printed = capsys.readouterr().out
    assert {label: (each.state, each.cause) for label, each in by_label().items()} == {
        "seed=1": ("done", "done"),
        "seed=2": ("done", "done"),
        "seed=13": ("failed", "raised"),
        "seed=14": ("failed", "killed"),
        "seed=15": ("failed", "time"),
        "seed=16": ("failed", "exit"),
        "seed=17": ("failed", "memory"),
    }
    for line in ("RuntimeError: no luck", "by SIGKILL", "longer than time=0.2 minutes", "Results of tiny"):
        assert line in printed
    assert "Not in this table: cell 3 (seed=13), failed: raised;" in " ".join(printed.split())
    assert Path("outputs/tables/tiny.html").exists()

    assert sweep("status") == 1
    assert sweep("logs", "cell=3") == 0
    assert "no luck" in capsys.readouterr().out
    assert sweep("retry", "cause=error") == 0
    assert "no cell failed by error" in capsys.readouterr().out
    assert sweep("retry", "cause=killed,raised", "wait=true") == 1  # the others stay failed
    assert states() == ["done"] * 4 + ["failed"] * 3
    assert sweep("retry", "time=5", "wait=true") == 0
    assert set(states()) == {"done"}
    capsys.readouterr()
    assert sweep("watch") == 0
    assert "Not in this table" not in capsys.readouterr().out


@pytest.mark.slow
@quick
def test_cells_beyond_their_memory_are_stopped_and_cancel_stops_others(learnable: Path):
    write_grid(learnable, {"seed": "18,19,1"})
    assert sweep("submit", "devices=[0]", "per_device=2", "memory=0.4") == 0
    until(lambda: states() == ["running", "failed", "done"])
    memory = state().statuses()[1]
    assert memory.cause == "memory"
    assert "beyond memory=0.4 GB" in memory.reason
    assert sweep("cancel", "cell=1") == 0
    assert states()[0] == "cancelled"
    until(lambda: worker() is None)
    assert states() == ["cancelled", "failed", "done"]
    assert sweep("retry", "cell=1") == 0
    until(lambda: states()[0] == "running")
    running = state().statuses()[0].attempt
    assert running is not None
    assert sweep("cancel") == 0
    assert worker() is None
    assert states()[0] == "cancelled"
    assert not psutil.pid_exists(running.fields["pid"])


@pytest.mark.slow
@quick
def test_a_stopped_or_killed_parent_loses_nothing(learnable: Path):
    write_grid(learnable, {"seed": "18,1,15,2"})
    parent = start("submit", "devices=[0,1]", "wait=true")
    until(lambda: states() == ["running", "done", "running", "pending"] if state().exists() else False)
    os.kill(parent.pid, signal.SIGINT)
    output, _ = parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert "interrupted; 4 cells: 1 done, 3 pending; run submit again" in output
    assert worker() is None
    assert [each["cause"] for each in attempts()].count("interrupted") == 2

    assert sweep("submit", "devices=[0,1]") == 0
    until(lambda: states() == ["running", "done", "done", "done"])
    killed, running = worker(), state().statuses()[0].attempt
    assert killed is not None
    assert running is not None
    os.kill(killed["pid"], signal.SIGKILL)
    until(lambda: worker() is None)
    assert states()[0] == "running"  # it goes on without its parent
    os.kill(running.fields["pid"], signal.SIGKILL)
    until(lambda: states()[0] == "pending")
    assert by_label()["seed=18"].cause == "lost"
    write_grid(learnable, {"seed": "1,2,3,15"})
    assert sweep("submit", "devices=[0,1]") == 0
    until(lambda: [each.get("cause") for each in attempts()].count("done") == 4)
    assert states() == ["running", *["done"] * 4]
    assert sweep("cancel") == 0
    causes = [each["cause"] for each in attempts()]
    assert [causes.count(cause) for cause in ("lost", "done", "cancelled")] == [1, 4, 1]
    assert len(list(Path("outputs/results").glob("*.json"))) == 4


@pytest.mark.slow
@quick
def test_two_sweeps_share_cells_and_devices(learnable: Path):
    write_grid(learnable, {"method": "flat,dual", "seed": "1,2"}, name="one")
    write_grid(learnable, {"method": "dual", "direction": "top_down,bottom_up", "seed": "1,2,3"}, name="two")
    both = [start("submit", "devices=[0,1]", "wait=true", name=name) for name in ("one", "two")]
    for process in both:
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
    assert len(state("two").cells()) == 3  # a joint model under two directions is one run
    done = [each for each in (*attempts("one"), *attempts("two")) if each["cause"] == "done"]
    ids = [each["id"] for each in done]
    assert len(ids) == len(set(ids)) == 5  # whoever came first
    for device in ("0", "1"):
        held = sorted((each["started"], each["ended"]) for each in done if each["device"] == device)
        assert held
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(held))
        assert {each["visible"] for each in done if each["device"] == device} == {device}


@quick
@pytest.mark.slow
def test_a_pending_cell_runs_as_it_was_submitted(learnable: Path):
    held = lease([Device("0", 1)], "this test")
    assert held is not None
    write_grid(learnable, {"seed": "1"})
    assert sweep("submit", "devices=[0]") == 0
    write_grid(learnable, {"seed": "1", "head": "linear", "trainer.epochs": "7"})
    time.sleep(1)
    assert states() == ["pending"]
    held.slots[0].release()
    until(lambda: states() == ["done"])
    result = state().statuses()[0].result
    assert result is not None
    assert json.loads(result.read_text())["config"]["trainer"]["epochs"] == 1


@pytest.mark.slow
@quick
def test_a_cell_of_two_processes_takes_two_devices(learnable: Path, capsys):
    write_grid(learnable, {"seed": "1,2", "trainer.processes": "2"})
    assert sweep("submit", "devices=[0,1,2]", "wait=true") == 0
    assert sorted(each["visible"] for each in attempts()) == ["0,1", "0,1"]
    first, second = sorted(attempts(), key=lambda each: each["started"])
    assert first["ended"] <= second["started"]  # one free device is not enough
    assert sweep("submit", "devices=[0]", "seed=3") == 2
    assert "trainer.processes=2 need a GPU each, and devices=[0] are 1" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_of_hydras_own_multirun_is_done_in_a_sweep(learnable: Path, capsys):
    write_grid(learnable, {"seed": "1,2"})
    words = ["--config-dir", "mine", "-m", "sweep=tiny", "seed=2"]
    main.run_program(programs.TRAIN, training.run, words)
    (result,) = Path("outputs/results").glob("*.json")
    assert "sweep" not in json.loads(result.read_text())["config"]
    assert sweep("plan") == 0
    assert "2 cells: 1 done, 1 new" in capsys.readouterr().out


@pytest.mark.slow
def test_ensembles_wait_for_their_members_and_force_runs_again(learnable: Path, capsys):
    write_grid(learnable, {"method": "top_down,bottom_up", "seed": "1"}, "  ensemble_weight: [auto]")
    assert sweep("submit", "devices=[0,1]", "wait=true") == 0
    assert [each.cell.kind for each in state().statuses()] == ["train", "train", "ensemble"]
    assert "ensemble" in capsys.readouterr().out
    before = {each.cell.label: each.result for each in state().statuses()}
    times = {label: result.stat().st_mtime_ns for label, result in before.items()}
    assert sweep("submit", "devices=[0,1]", "wait=true") == 0
    assert {label: each.result for label, each in by_label().items()} == before  # nothing ran again
    assert sweep("submit", "devices=[0,1]", "wait=true", "force=true") == 0
    after = {label: each.result.stat().st_mtime_ns for label, each in by_label().items()}
    assert all(after[label] > times[label] for label in times)
    superseded = Path("outputs/superseded").glob("*/results/*.json")
    # the two runs, and the ensemble of the superseded runs
    assert sorted(file.name.startswith("eval_ensemble_") for file in superseded) == [False, False, True]
