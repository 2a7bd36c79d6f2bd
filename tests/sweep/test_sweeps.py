"""Whole sweeps: cells that fail in every way, parents that die, sweeps that meet."""

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


@pytest.mark.slow
def test_a_sweep_with_every_kind_of_failure(learnable: Path, misbehaving, capsys, monkeypatch):
    # two of the runs are there before: by Hydra's own multirun
    write_grid(learnable, {"method": "flat,dual", "seed": "1,11,12,13,14,15"})
    from hblm.cli import main, programs
    from hblm.engine import training

    main.run_program(
        programs.TRAIN, training.run, ["--config-dir", "mine", "-m", "sweep=tiny", "method=flat", "seed=1,11"]
    )
    made = sorted(Path("outputs/results").glob("*.json"))
    assert len(made) == 2
    assert "sweep" not in json.loads(made[0].read_text())["config"]
    times = [file.stat().st_mtime_ns for file in made]
    capsys.readouterr()
    write_grid(
        learnable,
        {"method": "flat,dual", "seed": "1,11,12,13,14,15"},
        "  exclude:\n    - {method: dual, seed: [13, 14, 15]}\n    - {method: dual, seed: 12}\n"
        "  table: {rows: [method], columns: [dataset], metric: [test.macro_f1]}",
    )
    assert sweep("submit", "devices=[0,1]", "time=0.5", "wait=true") == 1
    printed = capsys.readouterr().out
    found = by_label()
    assert len(found) == 8
    assert {label: (each.state, each.cause) for label, each in found.items() if each.state != "done"} == {
        "method=flat seed=13": ("failed", "raised"),
        "method=flat seed=14": ("failed", "killed"),
        "method=flat seed=15": ("failed", "time"),
    }
    assert [file.stat().st_mtime_ns for file in made] == times  # nothing done is done again
    assert found["method=flat seed=1"].attempt is None
    for said in ("RuntimeError: no luck", "by SIGKILL", "longer than time=0.5 minutes", "Results of tiny"):
        assert said in printed
    assert "Not in this table: cell 4 (method=flat seed=13), failed: raised;" in " ".join(printed.split())
    assert Path("outputs/tables/tiny.html").exists()

    assert sweep("status") == 1
    assert sweep("logs", "cell=4") == 0
    assert "no luck" in capsys.readouterr().out
    assert sweep("retry", "cause=memory") == 0
    assert "no cell failed by memory" in capsys.readouterr().out
    assert sweep("retry", "cause=killed,raised", "wait=true") == 1  # one is still over its time
    assert [each.state for each in by_label().values()].count("failed") == 1
    assert sweep("retry", "time=5", "wait=true") == 0
    assert set(states()) == {"done"}
    capsys.readouterr()
    assert sweep("watch") == 0
    assert "Not in this table" not in capsys.readouterr().out


@pytest.mark.slow
def test_exit_codes_and_memory_are_told_apart_and_cancel_stops(learnable: Path, misbehaving, capsys):
    write_grid(learnable, {"seed": "16,17,18,19,1"})
    assert sweep("submit", "devices=[0]", "per_device=3", "memory=1.5") == 0
    until(lambda: [states()[at] for at in (0, 1, 3)] == ["failed"] * 3 and states()[2] == "running")
    found = state().statuses()
    assert [found[at].cause for at in (0, 1, 3)] == ["exit", "memory", "memory"]
    assert "beyond memory=1.5 GB" in str(found[3].attempt)
    assert sweep("cancel", "cell=3") == 0
    assert states()[2] == "cancelled"
    until(lambda: worker() is None)
    assert states() == ["failed", "failed", "cancelled", "failed", "done"]
    assert sweep("retry", "cell=3") == 0
    until(lambda: states()[2] == "running")
    running = state().statuses()[2].attempt
    assert running is not None
    assert sweep("cancel") == 0
    assert worker() is None
    assert states()[2] == "cancelled"
    assert not psutil.pid_exists(running.fields["pid"])


@pytest.mark.slow
def test_a_stopped_or_killed_parent_loses_nothing(learnable: Path, misbehaving):
    write_grid(learnable, {"seed": "1,2,3,4"})
    parent = start("submit", "devices=[0,1]", "wait=true")
    until(lambda: states().count("running") == 2 if state().exists() else False)
    os.kill(parent.pid, signal.SIGINT)
    parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert worker() is None
    assert "running" not in states()
    stopped = [each["cause"] for each in attempts()]
    assert stopped.count("interrupted") == 2

    assert sweep("submit", "devices=[0,1]") == 0
    until(lambda: states().count("running") == 2)
    killed = worker()
    assert killed is not None
    pids = [each.attempt.fields["pid"] for each in state().statuses() if each.state == "running"]
    os.kill(killed["pid"], signal.SIGKILL)
    os.kill(pids[0], signal.SIGKILL)
    until(lambda: worker() is None)
    assert sweep("submit", "devices=[0,1]", "wait=true") == 0
    assert set(states()) == {"done"}
    causes = [each["cause"] for each in attempts()]
    assert causes.count("lost") == 1
    assert causes.count("done") == 4  # the other one went on without its parent
    assert (
        len(list(Path("outputs/results").glob("*seed?.json")))
        + len(list(Path("outputs/results").glob("*seed?-*.json")))
        == 4
    )


@pytest.mark.slow
def test_two_sweeps_share_cells_and_devices(learnable: Path):
    write_grid(learnable, {"method": "flat,dual", "seed": "1,2"}, name="one")
    write_grid(learnable, {"method": "dual", "direction": "top_down,bottom_up", "seed": "1,2,3"}, name="two")
    both = [start("submit", "devices=[0,1]", "wait=true", name=name) for name in ("one", "two")]
    for process in both:
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said
    assert len(state("two").cells()) == 3  # a joint model under two directions is one run
    told = [*attempts("one"), *attempts("two")]
    done = [each for each in told if each["cause"] == "done"]
    ids = [each["id"] for each in done]
    assert len(ids) == len(set(ids)) == 5  # whoever came first
    for device in ("0", "1"):
        held = sorted((each["started"], each["ended"]) for each in done if each["device"] == device)
        assert held
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(held))
        assert {each["visible"] for each in done if each["device"] == device} == {device}


@pytest.mark.slow
def test_a_waiting_cell_runs_as_it_was_submitted(learnable: Path):
    from hblm.sweep.devices import Device, lease

    held = lease([Device("0", 1)], "this test")
    assert held is not None
    write_grid(learnable, {"seed": "1"})
    assert sweep("submit", "devices=[0]") == 0
    write_grid(learnable, {"seed": "1", "head": "linear", "trainer.epochs": "7"})
    time.sleep(2)
    assert states() == ["pending"]
    held.slots[0].release()
    until(lambda: states() == ["done"])
    result = state().statuses()[0].result
    assert result is not None
    told = json.loads(result.read_text())
    assert told["choices"]["head"] == "mlp"
    assert told["config"]["trainer"]["epochs"] == 1


@pytest.mark.slow
def test_ensembles_wait_for_their_members_and_force_runs_again(learnable: Path, capsys):
    write_grid(learnable, {"method": "top_down,bottom_up", "seed": "1"}, "  ensemble_weight: [0.5, auto]")
    assert sweep("submit", "devices=[0,1]", "wait=true") == 0
    assert [each.cell.kind for each in state().statuses()] == ["train", "train", "ensemble", "ensemble"]
    assert "ensemble" in capsys.readouterr().out
    before = {each.cell.label: each.result for each in state().statuses()}
    times = {label: result.stat().st_mtime_ns for label, result in before.items()}
    assert sweep("submit", "devices=[0,1]", "wait=true") == 0
    assert {label: each.result for label, each in by_label().items()} == before  # nothing ran again
    assert sweep("submit", "devices=[0,1]", "wait=true", "force=true") == 0
    after = {label: each.result.stat().st_mtime_ns for label, each in by_label().items()}
    assert all(after[label] > times[label] for label in times)
    moved = [
        file.name.startswith("eval_ensemble_") for file in Path("outputs/superseded").glob("*/results/*.json")
    ]
    assert sorted(moved) == [False, False, True, True]  # the two runs, and the ensembles of what they were


@pytest.mark.slow
def test_a_cell_of_two_processes_takes_two_devices(learnable: Path):
    write_grid(learnable, {"seed": "1,2", "trainer.processes": "2"})
    assert sweep("submit", "devices=[0,1,2]", "wait=true") == 0
    told = attempts()
    assert sorted(each["visible"] for each in told) == ["0,1", "0,1"]
    first, second = sorted(told, key=lambda each: each["started"])
    assert first["ended"] <= second["started"]  # the third device alone is too little
    records = [json.loads(each.result.read_text()) for each in by_label().values() if each.result]
    assert [record["environment"]["processes"] for record in records] == [2, 2]
    assert sweep("submit", "devices=[0]", "seed=3") == 2
