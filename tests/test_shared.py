"""Programs in folders that another user made: shared with the group, or closed to all but their owner."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from programs import LEARNING, TINY, checkpoint_of, compose
from users import ANN, BEN, as_user, modes_below, needs_root, program_as

from hblm.config.aggregate import AggregateConfig
from hblm.config.train import TrainConfig
from hblm.engine import training
from hblm.tables import report

pytestmark = needs_root


def copied(folder: Path, place: Path) -> Path:
    """Copy a folder, all of it root's and closed to others' writing."""
    shutil.copytree(folder, place)
    for path in (place, *place.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return place


def test_a_run_leaves_nothing_that_the_umask_did_not_give(learnable, shared):
    data = copied(learnable, shared / learnable.name)
    config, forced = again(data), again(data, "force=true")
    training.run(config)  # which imports all that it takes
    shutil.rmtree("out")
    assert as_user(ANN, 0o002, lambda: training.run(config)) == ""
    modes = modes_below(shared / "out")
    assert {mode for name, mode in modes.items() if (shared / "out" / name).is_dir()} == {"775"}
    assert {mode for name, mode in modes.items() if (shared / "out" / name).is_file()} == {"664"}
    assert as_user(BEN, 0o002, lambda: training.run(forced)) == ""
    assert list(Path("out/superseded").glob("*/checkpoints/*/hblm.json"))


def again(data: Path, *overrides: str) -> TrainConfig:
    options = (f"dataset.path={data}", "trainer.epochs=1", "output_dir=out")
    config: TrainConfig = compose("train", TrainConfig, *TINY, *options, *overrides)
    return config


def test_a_run_that_is_done_is_shown_where_nothing_may_be_written(trained, learnable, shared):
    data = copied(learnable, shared / learnable.name)
    copied(trained.parent.parent, shared / "out")
    shared.chmod(0o755)
    options = ("output_dir=out", f"dataset.path={data}", *LEARNING)
    done = compose("train", TrainConfig, *TINY, *options)
    assert as_user(BEN, 0o002, lambda: training.run(done)) == ""
    other = compose("train", TrainConfig, *TINY, *options, "seed=2")
    error = as_user(BEN, 0o002, lambda: training.run(other))
    assert error.startswith("SharingError: out/.locks")


def test_results_that_may_not_be_written_are_aggregated_elsewhere(trained, shared):
    copied(trained.parent.parent, shared / "out")
    shared.chmod(0o755)
    (shared / "mine").mkdir()
    (shared / "mine").chmod(0o777)
    config = AggregateConfig(results=["out"], output_dir="mine")
    report.run(config)  # which imports all that it takes
    shutil.rmtree("mine/tables")
    assert as_user(BEN, 0o002, lambda: report.run(config)) == ""
    assert set(modes_below(shared / "mine").values()) == {"775", "664"}


@pytest.mark.long
def test_programs_read_a_folder_that_may_not_be_written(trained, learnable, shared):
    copied(learnable, shared / learnable.name)
    copied(trained.parent.parent, shared / "outputs")
    shared.chmod(0o755)
    elsewhere = shared / "mine"
    elsewhere.mkdir()
    elsewhere.chmod(0o777)
    of_data = ("dataset=custom", f"dataset.path={shared / learnable.name}")
    checkpoint = shared / "outputs" / "checkpoints" / checkpoint_of(trained).name
    for argv in (
        ("hblm.train", *TINY, of_data[1], *LEARNING),
        ("hblm.evaluate", f"checkpoint={checkpoint}", of_data[1], f"output_dir={elsewhere}", "device=cpu"),
        (
            "hblm.evaluate",
            f"checkpoint={checkpoint}",
            of_data[1],
            f"output_dir={elsewhere}",
            "predictions=true",
        ),
        ("hblm.aggregate", f"output_dir={elsewhere}"),
        ("hblm.prepare", *of_data, "check=true"),
        ("hblm.prepare", *of_data),
        ("hblm.train", *TINY, of_data[1], "trainer.epochs=1", f"output_dir={elsewhere}"),
    ):
        done = program_as(BEN, shared, *argv)
        assert done.returncode == 0, (argv, done.stdout, done.stderr)
    before = modes_below(shared / "outputs")
    for argv in (
        ("hblm.train", *TINY, of_data[1], "seed=2"),
        ("hblm.evaluate", f"checkpoint={checkpoint}", of_data[1], "device=cpu"),
        ("hblm.aggregate",),
    ):
        done = program_as(BEN, shared, *argv)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), (argv, done.stderr)
        assert "Permission denied" in done.stderr or "may not be written by this user" in done.stderr
    assert modes_below(shared / "outputs") == before
    assert set(modes_below(elsewhere).values()) == {"775", "664"}
