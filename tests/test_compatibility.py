"""Files that published versions wrote, in tests/fixtures/: this version reads them, with the same numbers.

A test that fails here breaks what docs/compatibility.md promises: go on reading the old format, or raise its
mark and change that page. fixtures/make.py makes the folder of a new version.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas
import pytest
from programs import compose, edit, evaluation

from hblm.config.aggregate import AggregateConfig
from hblm.config.train import TrainConfig
from hblm.data.dataset import open_prepared
from hblm.engine import training
from hblm.sweep.__main__ import main as sweep
from hblm.tables import report
from hblm.tables.result_files import read_results
from hblm.version import __version__

FIXTURES = Path(__file__).parent / "fixtures"
VERSIONS = sorted(folder.name for folder in FIXTURES.iterdir() if (folder / "outputs").is_dir())
SINGLE = {"single": (), "reverse": ("direction=bottom_up",), "conditional": ("loss=conditional",)}
RUNS = {**SINGLE, "joint": ("joint_variant=tri_head_diffcat",)}  # label -> options of its command


@pytest.fixture(params=VERSIONS, autouse=True)
def _kept(request):
    """Copy a version's files into the working folder, where its sweep was submitted."""
    shutil.copytree(FIXTURES / request.param, Path.cwd(), dirs_exist_ok=True)
    for cell in Path("outputs/sweeps").glob("*/cells/*.json"):
        edit(cell, output_dir=str(Path("outputs").resolve()), folder=str(Path.cwd()))


def result_of(experiment: str) -> Path:
    cells = (json.loads(file.read_text()) for file in Path("outputs/sweeps/kept/cells").glob("*.json"))
    (cell,) = (cell for cell in cells if cell["label"] == f"experiment={experiment}")
    (result,) = (file for name in cell["names"] if (file := Path("outputs/results", f"{name}.json")).exists())
    return result


def evaluations_of(result: Path) -> list[Path]:
    run_id = json.loads(result.read_text())["run_id"]
    files = Path("outputs/results").glob("eval_*.json")
    return [file for file in files if json.loads(file.read_text())["run_id"] == run_id]


def predictions_of(evaluation: Path) -> pandas.DataFrame:
    frame = pandas.read_parquet(evaluation.with_suffix(".predictions")).astype({"node": str, "view": str})
    return frame.sort_values(["view", "document", "node"]).reset_index(drop=True)


def test_this_version_has_files():
    assert __version__ in VERSIONS, "run tests/fixtures/make.py"


def test_a_prepared_dataset_has_its_hash():
    stored = json.loads(result_of("single").read_text())["dataset"]
    assert open_prepared(Path("data/fruit"), "fruit").fingerprint == stored["fingerprint"]


@pytest.mark.parametrize("experiment", RUNS)
def test_a_checkpoint_gives_the_scores_that_it_gave(experiment):
    result = result_of(experiment)
    (before,) = evaluations_of(result)
    checkpoint = Path("outputs/checkpoints", result.stem)
    how = ("dataset.path=data/fruit", "predictions=true", "predictions_floor=0")
    after = evaluation(checkpoint, *how)
    pandas.testing.assert_frame_equal(
        predictions_of(after["made"]), predictions_of(before), rtol=0, atol=1e-4
    )
    stored = json.loads(result.read_text())["test"]
    for view, scores in stored.items():
        assert after["test"][view]["overall"] == pytest.approx(scores["overall"], abs=1e-9)


def test_an_ensemble_of_checkpoints_gives_the_scores_that_it_gave():
    (before,) = Path("outputs/results").glob("eval_ensemble_*.json")
    members = tuple(Path("outputs/checkpoints", result_of(name).stem) for name in ("single", "reverse"))
    after = evaluation(members, "dataset.path=data/fruit")
    for view, scores in json.loads(before.read_text())["test"].items():
        assert after["test"][view]["overall"] == pytest.approx(scores["overall"], abs=1e-9)


@pytest.mark.parametrize("experiment", RUNS)
def test_a_run_counts_as_done(experiment, capsys):
    options = ("dataset=custom", "dataset.path=data/fruit", "pooling=max", "trainer=original", "device=cpu")
    encoder = ("encoder.model_name=encoder", "encoder.max_length=32")
    trainer = ("epochs=30", "batch_size=10", "learning_rate=1e-2", "precision=fp32")
    keys = (*encoder, *(f"trainer.{each}" for each in trainer))
    training.run(compose("train", TrainConfig, *options, *keys, *RUNS[experiment]))
    printed = capsys.readouterr().out
    assert "done before" in printed
    assert str(result_of(experiment)) in printed


def test_all_results_are_read():
    results, passed_over = read_results(["outputs"], lambda *row: True)
    assert passed_over == []
    assert len(results) == len(list(Path("outputs/results").glob("*.json")))


@pytest.mark.parametrize("test", ["seeds", "documents"])
def test_a_table_has_the_numbers_of_the_results(test, capsys):
    report.run(AggregateConfig(rows=["method", "loss"], metric=["test.macro_f1"], formats=["csv"], test=test))
    cells = pandas.read_csv("outputs/tables/table.csv").set_index(["method", "loss"])["mean"]
    for experiment in RUNS:
        result = json.loads(result_of(experiment).read_text())
        view = "fused" if experiment == "joint" else "single"
        method = {"joint": "tri_head_diffcat", "reverse": "bottom_up"}.get(experiment, "top_down")
        macro = result["test"][view]["overall"]["macro_f1"]
        assert cells[method, result["choices"]["loss"]] == pytest.approx(macro, abs=1e-6)
    assert "without a test over documents" not in capsys.readouterr().out


def test_a_sweep_has_its_states(capsys):
    with pytest.raises(SystemExit) as ended:
        sweep(["status", "sweep=kept"])
    assert ended.value.code == 1
    assert "kept: 5 cells: 4 done, 1 failed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        sweep(["logs", "sweep=kept"])
    assert "the training loss is nan at epoch 1" in capsys.readouterr().out


def test_a_sweep_planned_again_has_the_same_cells(capsys):
    """From the user's own YAML files of that version, by run ids."""
    with pytest.raises(SystemExit) as ended:
        sweep(["plan", "sweep=kept", "--config-dir", "mine"])
    assert ended.value.code == 0
    assert "5 cells: 4 done, 1 failed" in capsys.readouterr().out
