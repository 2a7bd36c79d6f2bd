"""Training, evaluation and sweeps as functions: the results of the programs, and typed."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from grids import write_grid
from programs import LEARNING, checkpoint_of, evaluation, run

from hblm import api
from hblm.errors import CheckpointError, ConfigError

TINY = {"encoder": "tiny", "trainer": "smoke", "device": "cpu", "encoder.max_length": 32}


def test_a_run_that_is_done_is_returned_and_nothing_is_printed(trained, learnable, capfd):
    result = api.train(*LEARNING, dataset=learnable, output_dir=trained.parent.parent, **TINY)
    record = json.loads(trained.read_text())
    assert (result.path, result.checkpoint) == (trained, checkpoint_of(trained))
    assert (result.is_new, result.run_id, result.content) == (False, record["run_id"], record)
    assert result.test == record["test"]["single"]["overall"]
    assert result.val["micro_f1"] == record["val"]["single"]["overall"]["micro_f1"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.long
@pytest.mark.precision
def test_a_trained_run_is_that_of_the_program(learnable, trained, capfd):
    expected = json.loads(trained.read_text())
    made = []
    call = {"dataset": learnable, "output_dir": Path("out"), **TINY}
    threads = [threading.Thread(target=lambda: made.append(api.train(*LEARNING, **call))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.is_new for result in made) == [False, True]
    for result in made:
        assert result.run_id == expected["run_id"]
        assert result.test == expected["test"]["single"]["overall"]
    assert capfd.readouterr().out == ""
    assert made[0].model(device="cpu").predict("A x y")[0] == "a"
    bare = api.train(
        *("trainer.epochs=1", "seed=2"), **call, **{"trainer.keep_checkpoint": False, "pooling": "max"}
    )
    assert bare.checkpoint is None
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        bare.model()


def test_faults_are_raised_and_never_exit(learnable):
    with pytest.raises(ConfigError, match=r"(?s)film=logt is not.*seed=-1 is out of range"):
        api.train(dataset=learnable, film="logt", seed=-1)
    with pytest.raises(ConfigError, match="dataset= is required"):
        api.train(encoder="tiny")
    with pytest.raises(ConfigError, match="checkpoint=nowhere is not a folder"):
        api.evaluate("nowhere")


def test_an_evaluation_is_that_of_the_program(trained, capfd):
    checkpoint = checkpoint_of(trained)
    expected = evaluation(checkpoint, "split=val", "threshold=0.3")
    capfd.readouterr()
    result = api.evaluate(checkpoint, "threshold=0.3", split="val", output_dir="two", device="cpu")
    assert result.content["val"] == expected["val"]
    assert result.scores == expected["val"]["single"]["overall"]
    assert (result.view, result.split, result.predictions) == ("single", "val", None)
    assert json.loads(result.path.read_text()) == result.content
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ConfigError, match=r"(?s)seed=3 contradicts the checkpoint.*split=vall is not one of"):
        api.evaluate(checkpoint, split="vall", seed=3)


@pytest.mark.slow
def test_an_evaluation_of_a_pair_with_predictions(learnable):
    short = (*LEARNING, "trainer.epochs=2")
    pair = [checkpoint_of(run(learnable, *short, f"direction={each}")) for each in ("top_down", "bottom_up")]
    result = api.evaluate(pair, ensemble_weight=0.25, predictions=True, joint_eval_view="all", device="cpu")
    assert result.content["settings"]["ensemble_weight"] == 0.25
    assert result.view == "fused"
    assert result.predictions is not None
    assert list(result.predictions.iterdir())


@pytest.mark.usefixtures("_quick_cells")
@pytest.mark.slow
def test_a_sweep_is_planned_run_and_followed(learnable, capfd):
    write_grid(learnable, {"seed": "1,2"})
    grid = {"config_dir": "mine", "devices": [0, 1], "seed": [1, 2, 13]}
    planned = api.plan_sweep("tiny", **grid)
    assert planned.counts == {"new": 3}
    assert not planned.folder.exists()
    ended = api.sweep("tiny", **grid)
    assert ended.counts == {"done": 2, "failed": 1}
    assert not ended.is_done
    assert [cell.run_id for cell in ended.cells] == [cell.run_id for cell in planned.cells]
    failed = ended.cells[2]
    assert (failed.label, failed.path) == ("seed=13", None)
    assert failed.reason == "raised: RuntimeError: no luck"
    assert len(ended.results()["file"].unique()) == 2
    assert api.sweep_status("tiny") == ended == api.sweep_status("tiny", wait=True)
    assert capfd.readouterr().out == ""


def test_a_sweep_of_an_unprepared_dataset_and_faults_of_its_arguments():
    write_grid("nowhere", {"seed": "1,2"})
    planned = api.plan_sweep("tiny", config_dir="mine")
    assert [(cell.label, cell.state, cell.run_id) for cell in planned.cells] == [
        ("seed=1", "new", None),
        ("seed=2", "new", None),
    ]
    assert planned.unprepared
    assert planned.results().empty
    with pytest.raises(ConfigError, match="nothing was submitted"):
        api.sweep_status("tiny")
    with pytest.raises(ConfigError, match="seed=abc is not a whole number"):
        api.plan_sweep("tiny", config_dir="mine", seed=["abc", 2])
