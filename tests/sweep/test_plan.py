"""From a grid to frozen cells: merged by run id, refused with all faults, told by what is there."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import made_results
import psutil
import pytest
from grids import sweep, write_grid
from programs import TINY, checkpoint_of, compose
from users import BEN, as_user, needs_root

from hblm.config.schema import typed
from hblm.config.sweep import Cluster
from hblm.config.train import TrainConfig
from hblm.data.dataset import open_prepared
from hblm.encoders.pretrained import locate
from hblm.engine import auto, training
from hblm.errors import ConfigError, DataError
from hblm.files import HOST, sha256_text
from hblm.json_files import canonical_json
from hblm.runs import paths
from hblm.sweep.arguments import read_arguments
from hblm.sweep.cells import FrozenCell
from hblm.sweep.launchers.local_files import WorkerFiles
from hblm.sweep.launchers.registry import Sweep, open_sweep
from hblm.sweep.plan import Plan, make_plan
from hblm.sweep.progress import took
from hblm.sweep.run_times import expected_seconds, seconds_of
from hblm.sweep.submission import freeze
from hblm.version import FORMULAS


def plan(*overrides: str, prepare: bool = False) -> Plan:
    return make_plan("tiny", overrides, "mine", prepare=prepare)


def frozen(*overrides: str) -> tuple[Sweep, list[FrozenCell]]:
    """Freeze a grid as submit does, and start nothing."""
    state = open_sweep("outputs", "tiny")
    cells = freeze(plan(*overrides))
    for cell in cells:
        state.write_cell(cell)
    where = {
        "on": "local",
        "time": None,
        "memory": None,
        "devices": [["cpu", 1]],
        "cluster": None,
        "nodes": 1,
    }
    more = {"table": {}, "expect": [], "file": "tiny.yaml", "where": where}
    state.write_submission({"cells": [cell.key for cell in cells], **more})
    return state, cells


def finish(cell: FrozenCell, name: str | None = None) -> Path:
    """Write a result as a run of this cell would."""
    record = {**made_results.result(seed=1), "run_id": cell.id}
    return made_results.write(Path("outputs"), name or cell.names[0], record)


def test_cells_that_are_one_run_are_one(learnable):
    write_grid(learnable, {"joint_variant": "dual,none", "direction": "top_down,bottom_up", "seed": "1,2"})
    made = plan()
    assert made.n_cells == 8
    assert len(made.cells) == 6  # dual has no direction
    assert made.cells[0].also == ["joint_variant=dual direction=bottom_up seed=1"]


def test_a_checkpoint_to_start_from_is_there_when_cells_are_named(trained, learnable):
    write_grid(learnable, {"seed": "1"})
    alone, started = (plan(*more).cells[0].run for more in ((), (f"init_from={checkpoint_of(trained)}",)))
    assert started.id != alone.id
    with pytest.raises(ConfigError, match=r": init_from=none is not a folder"):
        plan("init_from=none")


def test_the_label_tells_what_varies(learnable):
    write_grid(learnable, {"method": "dual,flat", "seed": "1"})
    assert [cell.label for cell in plan().cells] == ["method=dual", "method=flat"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config-dir", "mine", "plan", "sweep=tiny"], ""),
        (["plan", "--config-dir=mine", "sweep=tiny"], ""),
        (["plan", "sweep=tiny", "-cd", "mine"], ""),
        (["plan", "sweep", "=", "tiny"], "sweep = tiny: write sweep=tiny, without spaces"),
        (
            ["plan", "tiny", "--config-dir=mine"],
            "tiny is not of the form key=value; did you mean sweep=tiny?",
        ),
        (["main"], "did you mean submit sweep=main?"),
        (["-m", "plan", "sweep=main"], "--multirun (-m) is for hblm.train"),
        (["plan", "sweep=main", "--cfg", "job"], "--cfg is a flag of hblm.train; plan shows"),
        (
            ["plan", "--epochs", "3", "sweep=main"],
            "--epochs 3 is not a flag of hblm.sweep; write trainer.epochs=3",
        ),
        (["plan", "sweep=main", "cluster=mine"], "is not one of slurm; --config-dir DIR adds options"),
    ],
)
def test_arguments_are_read_in_any_place_and_slips_explained(words: list[str], said: str) -> None:
    write_grid("data/x", {"seed": "1,2"})
    if not said:
        assert (read_arguments(words).verb, read_arguments(words).config_dir) == ("plan", "mine")
        return
    with pytest.raises(ConfigError) as caught:
        read_arguments(words)
    (fault,) = str(caught.value).splitlines()
    assert said in fault


def test_the_keys_of_sweeps_and_of_runs_are_proposed() -> None:
    write_grid("data/x", {"seed": "1,2"})
    with pytest.raises(ConfigError) as caught:
        plan("devces=0", "trainer.epoch=1")
    assert [line.partition("; ")[2] for line in str(caught.value).splitlines()] == [
        "did you mean devices?",
        "did you mean trainer.epochs?",
    ]


def test_a_plan_leaves_nothing_behind(learnable, capsys):
    write_grid(learnable, {"seed": "1,2"})
    assert sweep("plan") == 0
    assert "2 cells: 2 new" in capsys.readouterr().out
    assert not Path("outputs").exists()


def test_faults_of_all_cells_come_together(learnable):
    write_grid(learnable, {"trainer.batch_size": "8,2", "trainer.epochs": "1,0"})
    with pytest.raises(ConfigError) as caught:
        plan("trainer.lr=3", "seed=x")
    assert "trainer.lr=3 is not a key" in str(caught.value)
    assert "seed=x is not a whole number" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        plan("trainer.gradient_accumulation=4")
    assert "trainer.epochs=0 is out of range" in str(caught.value)
    cell = "trainer.batch_size=2 trainer.epochs=1"
    assert f"{cell}: trainer.gradient_accumulation=4 is more micro-batches" in str(caught.value)


def test_a_cell_that_contradicts_its_method_is_refused_unless_it_is_left_out(learnable, capsys):
    axes = {"method": "flat,top_down", "film": "none,logit"}
    write_grid(learnable, axes)
    assert sweep("plan", "seed=x") == 2
    assert "seed=x is not a whole number" in capsys.readouterr().err
    assert sweep("plan") == 2
    said = capsys.readouterr().err
    assert "method=flat film=logit: method=flat contradicts film=logit: " in said
    assert "method=top_down film=none: method=top_down contradicts film=none: " in said
    rules = "[{method: flat, film: logit}, {method: top_down, film: none}]"
    write_grid(learnable, axes, f"  exclude: {rules}")
    assert len(plan().cells) == 2
    with pytest.raises(ConfigError, match="method=flat contradicts head=mlp"):
        plan("head=mlp")


def test_a_dataset_that_is_not_there_is_told_and_refused(capsys):
    write_grid("data/nowhere", {"seed": "1,2"})
    assert sweep("plan") == 0
    assert "data/nowhere" in capsys.readouterr().out
    assert sweep("submit") == 2
    assert not Path("outputs/sweeps").exists()


def test_a_frozen_cell_is_read_as_it_was_written(learnable):
    write_grid(learnable, {"seed": "1,2"})
    state, cells = frozen()
    assert state.cells() == cells
    assert cells[0].config["seed"] == 1
    assert "sweep" not in cells[0].config


def test_done_means_that_the_result_is_there(learnable):
    write_grid(learnable, {"seed": "1,2"})
    state, cells = frozen()
    assert [each.state for each in state.statuses()] == ["pending", "pending"]
    result = finish(cells[0])
    assert [each.state for each in state.statuses()] == ["done", "pending"]
    result.write_text(json.dumps({"run_id": "another"}))
    assert [each.state for each in Sweep(state.folder).statuses()] == ["pending", "pending"]
    finish(cells[0], cells[0].names[1])  # under another of its names
    assert [each.state for each in Sweep(state.folder).statuses()] == ["done", "pending"]


@pytest.mark.parametrize("skew", [-3600, 0, 3600])
@pytest.mark.parametrize("kind", ["train", "ensemble"])
def test_a_forced_cell_is_done_by_another_result_whatever_the_clocks_say(learnable, kind, skew):
    """The host that runs it may have another time than the one that submits it."""

    def finish_again(finished: str) -> None:
        if kind == "train":
            record = {**made_results.result(seed=1), "run_id": cells[at].id, "finished": finished}
            file = made_results.write(Path("outputs"), cells[at].names[0], record)
        else:
            for cell in cells[:at]:
                finish(cell)
            settings = {"split": "test", "ensemble_weight": 0.5, "threshold": 0.5}
            record = {
                "run_id": sha256_text(canonical_json({"ensemble": [*cells[at].needs]})),
                "finished": finished,
            }
            name = f"eval_ensemble_{cells[at].config['dataset']}_{finished}"
            file = made_results.write(Path("outputs"), name, {**record, "settings": settings})

        os.utime(file, (time.time() + skew,) * 2)

    node = "  ensemble_weight: [0.5]" if kind == "ensemble" else ""
    write_grid(learnable, {"direction": "top_down,bottom_up", "seed": "1"}, node=node)
    at = -1 if kind == "ensemble" else 0
    _, cells = frozen()
    finish_again("first")
    state, cells = frozen("force=true")
    assert state.status(cells[at]).state == "pending"
    finish_again("second")
    assert state.status(cells[at]).state == "done"


@pytest.mark.parametrize("skew", [-3600, 0, 3600])
def test_an_attempt_of_another_host_is_known_by_its_lock_whatever_the_clocks_say(learnable, skew):
    write_grid(learnable, {"seed": "1"})
    state, (cell,) = frozen()
    with state.attempt_lock(cell, 1):
        state.write_attempt(cell, 1, state="running", host="elsewhere", started=time.time() + skew)
        assert state.status(cell).state == "running"
        assert (took(state.status(cell)) or 0) >= 0
    assert (state.status(cell).state, state.status(cell).cause) == ("pending", "lost")


def test_attempts_tell_how_a_cell_stands(learnable):
    write_grid(learnable, {"seed": "1"})
    state, (cell,) = frozen()

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


def test_a_damaged_ledger_is_named(learnable, capsys):
    write_grid(learnable, {"seed": "1"})
    state, (cell,) = frozen()
    (state.folder / "cells" / f"{cell.key}.json").write_text("{")
    assert sweep("status") == 2
    assert f"{cell.key}.json is damaged (not valid JSON" in capsys.readouterr().err
    (state.folder / "sweep.json").write_text("{")
    assert sweep("watch") == 2
    assert "sweep.json is damaged" in capsys.readouterr().err


ODD = [None, True, 7, -1, "text", "../../x", [], [7], {}, {"a": {"b": []}}, 10**300]


@pytest.mark.parametrize("kind", ["sweep", "cells", "attempts"])
def test_odd_values_in_a_ledger_are_named_and_never_end_in_a_traceback(learnable, capsys, caplog, kind):
    write_grid(learnable, {"method": "top_down,bottom_up"}, "  ensemble_weight: [0.5]")
    state, cells = frozen()
    for cell in cells:
        state.write_attempt(cell, 1, state="ended", cause="raised", why="x", pid=7, born=1.0, started=2.0)
    for file in [state.folder / "sweep.json"] if kind == "sweep" else (state.folder / kind).glob("*.json"):
        sound = json.loads(file.read_text())
        for key in sound:
            for value in ODD:
                file.write_text(json.dumps({**sound, key: value}))
                caplog.clear()
                code = sweep("status")
                told = capsys.readouterr().err
                # what is not used is not looked at; of several attempts a damaged one is passed over
                assert code in (0, 1) or (
                    code == 2 and f"{file.name} is damaged: invalid or missing" in told
                ), (
                    key,
                    value,
                )
                assert not caplog.messages or f"passed over {file}" in caplog.messages[0]
        file.write_text(json.dumps(sound))


@pytest.mark.parametrize(
    "values",
    [{"names": ["../out"]}, {"names": ["a/b"]}, {"output_dir": "/"}, {"id": "../../x"}, {"needs": ["../x"]}],
    ids=str,
)
def test_a_cell_cannot_name_what_lies_outside_its_folder(learnable, values):
    write_grid(learnable, {"seed": "1"})
    state, (cell,) = frozen()
    file = state.folder / "cells" / f"{cell.key}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    with pytest.raises(ConfigError, match=r"is damaged|output_dir is /;"):
        state.cells()


def test_a_ledger_of_another_folder_is_told_where_its_results_go(learnable):
    write_grid(learnable, {"seed": "1"})
    state, _ = frozen()
    Path("outputs").rename("moved")
    Path("outputs").symlink_to("moved")  # the same folder under another path
    assert len(state.cells()) == 1
    Path("outputs").unlink()
    with pytest.raises(ConfigError, match=r"the sweep's folder is in .*moved, .* output_dir is .*outputs"):
        open_sweep("moved", "tiny").cells()


def test_ensembles_are_pairs_of_directions(learnable):
    write_grid(
        learnable, {"method": "flat,top_down,bottom_up,dual", "seed": "1,2"}, "  ensemble_weight: [0.5, auto]"
    )
    made = plan()
    assert [ensemble.label for ensemble in made.ensembles] == [
        f"ensemble seed={seed} ensemble_weight={weight}" for seed in (1, 2) for weight in ("0.5", "auto")
    ]
    _, cells = frozen()
    ids = {cell.label: cell.id for cell in cells}
    first = next(cell for cell in cells if cell.kind == "ensemble")
    assert first.needs == (ids["method=top_down seed=1"], ids["method=bottom_up seed=1"])


def test_hours_are_those_of_runs_like_them(learnable):
    write_grid(learnable, {"method": "flat,dual", "seed": "1,2"})
    made = plan()
    assert seconds_of(Path("outputs/results")) == {}
    for number, (cell, seconds) in enumerate(zip(made.cells[:2], (10.0, 30.0), strict=True)):
        record = made_results.result() | {
            "config": dataclasses.asdict(cell.config),
            "seconds": {"total": seconds},
        }
        made_results.write(Path("outputs"), str(number), {**record, "choices": cell.config.choices()})
    known = seconds_of(Path("outputs/results"))
    assert [expected_seconds(cell, known) for cell in made.cells] == [20.0, 20.0, 20.0, 20.0]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["stats"], "stats is not one of plan, submit, status"),
        (["stats"], "did you mean status?"),
        (["status", "devices=[0"], "devices=[0 is not of the form key=value"),
        (["status", "seed=3"], "seed=3: status takes the keys"),
        (["submit", "per_device=0"], "per_device=0 is out of range"),
        (["submit", "on=moon"], "on=moon is not one of local"),
        (["retry", "cause=tme"], "did you mean time?"),
        (["status", "name=a/b"], "cannot name a folder"),
        (["status"], "nothing was submitted under"),
    ],
)
def test_a_wrong_command_line_is_refused(argv, said, capsys):
    write_grid("data/x", {"seed": "1"})
    assert sweep(*argv) == 2
    assert said in capsys.readouterr().err


def test_an_unknown_grid_is_refused(capsys):
    write_grid("data/x", {"seed": "1"})
    assert sweep("plan", name="mian") == 2
    assert "sweep=mian is no sweep file; did you mean main?" in capsys.readouterr().err


def test_cells_are_frozen_with_what_was_chosen_for_them(learnable):
    """And an ordinary run of the same command is the same run."""
    write_grid(learnable, {"trainer": "auto,original", "encoder.trainable": "true,false"})
    state, cells = frozen()
    assert state.cells() == cells
    tuned, still, *others = cells
    names = ("learning_rate", "head_learning_rate", "batch_size", "patience")
    assert set(tuned.chosen) == set(still.chosen) == {f"trainer.{name}" for name in names}
    assert [cell.chosen for cell in others] == [{}, {}]
    for cell in cells:
        assert cell.config["trainer"]["epochs"] == 1  # the file's own value
        assert typed(cell.config, TrainConfig).left_open == ()
    for cell in (tuned, still):
        for name in names:
            assert cell.config["trainer"][name] == cell.chosen[f"trainer.{name}"]["value"]
    assert tuned.chosen["trainer.patience"]["reason"] == "60 documents, tuned encoder of width 64"
    words = ("trainer=auto", "trainer.epochs=1", f"dataset.path={learnable}")
    config, chosen = auto.settle(
        compose("train", TrainConfig, *TINY, *words), open_prepared(learnable), locate("tiny")
    )
    assert chosen == tuned.chosen
    assert training.identify(config, open_prepared(learnable), locate("tiny")).id == tuned.id


def test_a_cell_passes_on_what_was_chosen_for_it(learnable, monkeypatch):
    from hblm.sweep import job

    write_grid(learnable, {"trainer": "auto"})
    state, (frozen_cell,) = frozen()
    given = {}
    monkeypatch.setattr(training, "run", lambda config, **more: given.update(more, config=config))
    job.run_cell(state, state.cell(frozen_cell.key), None)
    assert given["chosen"] == frozen_cell.chosen
    assert given["config"].left_open == ()


def test_cells_that_what_was_chosen_contradicts_are_refused_together(learnable):
    write_grid(learnable, {"trainer": "auto", "trainer.gradient_accumulation": "1,4000,4001"})
    with pytest.raises(ConfigError) as caught:
        plan()
    first, second = str(caught.value).splitlines()
    assert first.startswith("trainer.gradient_accumulation=4000: trainer.gradient_accumulation=4000 is more")
    assert second.startswith("trainer.gradient_accumulation=4001: ")


def test_an_encoder_of_unknown_size_is_told_and_refused_where_it_decides(learnable, capsys):
    write_grid(learnable, {"encoder.model_name": "tiny,some/model", "seed": "1,2"})
    assert plan().unprepared == {}  # all is given
    made = plan("trainer=auto")
    assert list(made.unprepared) == ["some/model"]
    assert [cell.run is None for cell in made.cells] == [False, False, True, True]
    assert sweep("plan", "trainer=auto") == 0
    assert "some/model: encoder.model_name=some/model: the hub cannot be reached" in capsys.readouterr().out
    assert sweep("submit", "trainer=auto") == 2
    assert not Path("outputs/sweeps").exists()


@pytest.mark.parametrize("options", [[], ["trainer=auto", "loss=auto", "film=none"]], ids=["given", "auto"])
def test_a_cell_whose_data_changed_takes_its_place(learnable, one_path, monkeypatch, options):
    """Its old run could not be made any more, and what was chosen by the old data is no part of the cell."""
    from hblm.sweep.launchers import local

    monkeypatch.setattr(local, "start_worker", lambda files: True)  # what is written is looked at, not run
    write_grid("data/fruit", {"seed": "1,2"})
    Path("data").mkdir()
    Path("data/fruit").symlink_to(learnable)
    assert sweep("submit", "seed=1", *options) == 0
    assert sweep("submit", *options) == 0
    state = open_sweep("outputs", "tiny")
    before = state.cells()
    assert [cell.number for cell in before] == [1, 2]
    assert sweep("submit", *options) == 0
    assert [cell.id for cell in state.cells()] == [cell.id for cell in before]
    Path("data/fruit").unlink()
    Path("data/fruit").symlink_to(one_path)
    assert sweep("submit", *options) == 0
    after = state.cells()
    assert len(after) == 2
    assert not {cell.id for cell in after} & {cell.id for cell in before}


def test_a_clusters_options_come_from_its_file_and_the_command_line():
    write_grid("data/x", {"seed": "1"})
    file = Path("mine/cluster/ours.yaml")
    file.parent.mkdir()
    file.write_text("# ours\npartition: gpu\nadditional: {nice: 1, mail_type: END}\n")
    base = ["submit", "sweep=tiny", "--config-dir", "mine", "on=slurm"]
    given = ["cluster.qos=high", "cluster.additional.nice=100", "cluster.setup=module load cuda"]
    assert read_arguments([*base, "cluster=ours", *given]).config.cluster == Cluster(
        partition="gpu", qos="high", setup=["module load cuda"], additional={"nice": 100, "mail_type": "END"}
    )
    with pytest.raises(ConfigError, match="cluster=our is not one of ours, slurm; did you mean ours"):
        read_arguments([*base, "cluster=our"])
    file.write_text("partiton: gpu\n")
    with pytest.raises(ConfigError, match=r"ours.yaml: cluster.partiton=gpu is not a key; did you mean"):
        read_arguments([*base, "cluster=ours"])


def test_a_frozen_cell_whose_data_changed_is_refused(learnable):
    config = compose("train", TrainConfig, *TINY, f"dataset.path={learnable}")
    with pytest.raises(DataError, match="was run 00000000 when it was frozen or started and would now be"):
        training.run(config, expected="0" * 64)
    assert not list(Path("outputs/results").glob("*.json"))


def test_a_run_that_another_process_does_is_not_waited_for(learnable):
    write_grid(learnable, {"seed": "1"})
    _, (cell,) = frozen()
    with cell.lock(), pytest.raises(paths.Busy):
        training.run(typed(cell.config, TrainConfig), expected=cell.id, wait=False)


def test_pending_cells_of_other_formulas_are_refused(learnable, capsys):
    """Their run ids stand for what another version computes."""
    write_grid(learnable, {"seed": "1,2"})
    state, cells = frozen()
    for cell in cells:
        file = state.folder / "cells" / f"{cell.key}.json"
        told = json.loads(file.read_text())
        assert told.pop("formulas") == FORMULAS
        file.write_text(json.dumps(told))
    before = sorted((path.name, path.read_bytes()) for path in state.folder.rglob("*.json"))
    for verb in ("plan", "submit", "retry"):
        assert sweep(verb) == 2
        said = capsys.readouterr().err
        assert "2 pending cells submitted by hblm 0.1" in said
        assert "changed" not in said
    assert sorted((path.name, path.read_bytes()) for path in state.folder.rglob("*.json")) == before
    words = [
        sys.executable,
        "-m",
        "hblm.sweep.launchers.local_job",
        str(state.folder),
        cells[0].key,
        "1",
        '[["cpu", 1]]',
    ]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 2
    (attempt,) = state.attempts(cells[0])
    assert (attempt.cause, attempt.fields["why"]) == (
        "error",
        f"this cell was submitted by hblm 0.1; delete {state.folder} and submit again",
    )
    for cell in cells:
        finish(cell)
    state.require_current()  # results of all are there: nothing is pending


@needs_root
def test_a_ledger_that_may_not_be_written_is_shown(learnable, shared):
    write_grid(learnable, {"seed": "1,2"})
    state, cells = frozen()
    finish(cells[0])
    with WorkerFiles(state.folder).lock(), cells[1].lock():
        pass
    assert sweep("status") == 0  # which imports all that it takes
    for path in (shared, *shared.rglob("*")):
        os.chown(path, 0, 0)
        path.chmod(0o755 if path.is_dir() else 0o644)
    before = sorted(shared.rglob("*"))
    with WorkerFiles(state.folder).lock():
        assert as_user(BEN, 0o002, lambda: expect(sweep("status"), 0)) == ""
    assert as_user(BEN, 0o002, lambda: expect(sweep("logs", "cell=2"), 0)) == ""
    assert sorted(shared.rglob("*")) == before
    assert as_user(BEN, 0o002, lambda: expect(sweep("retry", "cell=1"), 2)) == ""


def expect(found: int, expected: int) -> None:
    assert found == expected
