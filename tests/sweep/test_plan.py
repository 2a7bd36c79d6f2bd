"""From a grid to planned cells: merged by run id, faults of all cells together, estimates of time."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import made_results
import pytest
from grids import planned, submitted, sweep, write_grid
from programs import TINY, compose

from hblm.config.schema import typed
from hblm.config.train import TrainConfig
from hblm.data.dataset import open_prepared
from hblm.encoders.pretrained import identity_of_entry, locate
from hblm.engine import auto, training
from hblm.errors import ConfigError
from hblm.runs import paths
from hblm.runs.checkpoint import SCHEMA_VERSION
from hblm.sweep import job
from hblm.sweep.plan import Plan, make_plan
from hblm.sweep.plan_output import print_plan
from hblm.sweep.run_times import expected_seconds, seconds_of
from hblm.version import FORMULAS


def plan(*overrides: str) -> Plan:
    return make_plan("tiny", overrides, "mine", prepare=False)


def test_cells_that_are_one_run_are_one(learnable):
    axes = {"joint_variant": "dual", "direction": "top_down,bottom_up", "threshold": "0.4,0.6"}
    made = planned(learnable, axes)
    assert made.n_cells == 4
    assert len(made.cells) == 2  # dual has no direction
    assert made.cells[0].also == ["direction=bottom_up threshold=0.4"]


@pytest.mark.slow
def test_a_checkpoint_to_start_from_exists_when_cells_get_their_ids(learnable):
    folder = Path("outputs/checkpoints/x")
    (folder / "encoder").mkdir(parents=True)
    for name in ("model.safetensors", "encoder/config.json", "encoder/tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "taxonomy.json").write_bytes((learnable / "taxonomy.json").read_bytes())
    place = {"name": "fruit", "path": str(learnable), "fingerprint": "f" * 64}
    meta = {"name": "x", "tag": "tiny", "dataset": place, "encoder": {}, "training": "t"}
    meta |= {"schema_version": SCHEMA_VERSION, "formulas": FORMULAS, "precision": "fp32"}
    config = compose("train", TrainConfig, *TINY, f"dataset.path={learnable}")
    meta |= {"eval_batch_size": 8, "node_priors": [0.5] * 7, "config": dataclasses.asdict(config)}
    meta["run_id"] = paths.id_of(config, data="f" * 64, encoder=identity_of_entry({}))
    (folder / "hblm.json").write_text(json.dumps(meta))
    alone = planned(learnable, {"seed": "1"}).cells[0].run
    started = plan(f"init_from={folder}").cells[0].run
    assert None not in (alone, started)
    assert started.id != alone.id
    with pytest.raises(ConfigError, match=r": init_from=none is not a folder"):
        plan("init_from=none")


def test_the_label_has_the_values_that_vary(learnable):
    made = planned(learnable, {"method": "flat", "threshold": "0.4,0.6", "seed": "1"})
    assert [cell.label for cell in made.cells] == ["threshold=0.4", "threshold=0.6"]


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


def test_an_unknown_grid_is_refused(capsys):
    write_grid("data/x", {"seed": "1"})
    assert sweep("plan", name="mian") == 2
    assert "sweep=mian is no sweep file; did you mean main?" in capsys.readouterr().err


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


@pytest.mark.slow
def test_a_cell_that_contradicts_its_method_is_refused_unless_it_is_excluded(learnable, capsys):
    axes = {"method": "flat", "film": "none,logit"}
    write_grid(learnable, axes)
    assert sweep("plan", "seed=x") == 2
    assert "seed=x is not a whole number" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"^film=logit: method=flat contradicts film=logit: "):
        plan()
    write_grid(learnable, axes, "  exclude: [{method: flat, film: logit}]")
    assert len(plan().cells) == 1


def test_a_missing_dataset_is_shown_by_plan_and_refused_by_submit(capsys):
    write_grid("data/nowhere", {"seed": "1,2"})
    assert sweep("plan") == 0
    assert "data/nowhere" in capsys.readouterr().out
    assert sweep("submit") == 2
    assert not Path("outputs/sweeps").exists()


def test_ensembles_are_pairs_of_directions(learnable):
    grid = {"method": "flat,dual,top_down,bottom_up", "seed": "1,2"}, "  ensemble_weight: [0.5, auto]"
    made = planned(learnable, *grid)
    assert [ensemble.label for ensemble in made.ensembles] == [
        f"ensemble seed={seed} ensemble_weight={weight}" for seed in (1, 2) for weight in ("0.5", "auto")
    ]
    _, cells = submitted(learnable, *grid)
    ids = {cell.label: cell.id for cell in cells}
    first = next(cell for cell in cells if cell.kind == "ensemble")
    assert first.needs == (ids["method=top_down seed=1"], ids["method=bottom_up seed=1"])


def test_hours_are_those_of_runs_like_them(learnable):
    grid = {"method": "flat,dual,top_down,bottom_up", "seed": "1,2"}, "  ensemble_weight: [0.5, auto]"
    made = planned(learnable, *grid)
    assert seconds_of(Path("outputs/results")) == {}
    for number, (cell, seconds) in enumerate(zip(made.cells[:2], (10.0, 30.0), strict=True)):
        record = made_results.result() | {
            "config": dataclasses.asdict(cell.config),
            "seconds": {"total": seconds},
        }
        made_results.write(Path("outputs"), str(number), {**record, "choices": cell.config.choices()})
    known = seconds_of(Path("outputs/results"))
    assert {expected_seconds(cell, known) for cell in made.cells} == {20.0}


def test_cells_are_frozen_with_what_was_chosen_for_them(learnable):
    """And an ordinary run of the same command is the same run."""
    state, cells = submitted(learnable, {"trainer": "auto,original", "encoder.trainable": "true,false"})
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
    state, (frozen_cell,) = submitted(learnable, {"trainer": "auto"})
    given = {}
    monkeypatch.setattr(training, "run", lambda config, **more: given.update(more, config=config))
    job.run_cell(state, state.cell(frozen_cell.key), None)
    assert given["chosen"] == frozen_cell.chosen
    assert given["config"].left_open == ()


def test_cells_that_what_was_chosen_contradicts_are_refused_together(learnable):
    write_grid(learnable, {"trainer": "auto", "trainer.gradient_accumulation": "4000,4001"})
    with pytest.raises(ConfigError) as caught:
        plan()
    first, second = str(caught.value).splitlines()
    assert first.startswith("trainer.gradient_accumulation=4000: trainer.gradient_accumulation=4000 is more")
    assert second.startswith("trainer.gradient_accumulation=4001: ")


def test_an_encoder_of_unknown_size_is_refused_if_settings_depend_on_it(learnable, capsys):
    write_grid(learnable, {"encoder.model_name": "tiny,some/model"})
    assert plan().unprepared == {}  # nothing is left to auto
    made = plan("trainer=auto")
    assert list(made.unprepared) == ["some/model"]
    assert [cell.run is None for cell in made.cells] == [False, True]
    print_plan(made, [])
    assert "some/model: encoder.model_name=some/model: the hub cannot be reached" in capsys.readouterr().out
    assert sweep("submit", "trainer=auto") == 2
    assert not Path("outputs/sweeps").exists()
