"""Short fault runs: programs killed at random moments or started twice at once, bits flipped. Marked slow."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from grids import write_grid
from programs import LEARNING, TINY, checkpoint_of, compose, evaluation, run
from safetensors.torch import load_file

from hblm.config.aggregate import AggregateConfig
from hblm.config.evaluate import EvaluateConfig
from hblm.config.prepare import PrepareConfig
from hblm.config.train import TrainConfig
from hblm.data import preparation
from hblm.engine import training
from hblm.errors import DataError, HblmError
from hblm.inference import evaluate
from hblm.tables import documents, report
from hblm.tables.collect import results

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("HBLM_KILLS", "2"))
TRAIN = (
    *(sys.executable, "-m", "hblm.train", "dataset=custom", "encoder=tiny", "trainer=smoke"),
    *("trainer.epochs=3", "encoder.max_length=16", "force=true", "device=cpu"),
)


@pytest.fixture(autouse=True)
def _temporary_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def start(*argv: str) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own, so that its workers die with it."""
    with Path("child.log").open("ab") as log:
        return subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)


def finish(*argv: str) -> None:
    """Run a program that must succeed."""
    assert start(*argv).wait(timeout=300) == 0, Path("child.log").read_text()


def assert_whole(root: Path) -> None:
    """Check that every file under `root` that has a final name is complete."""
    for path in root.rglob("*"):
        relative = path.relative_to(root)
        if relative.parts[0] == "hydra" or any(part.startswith(".") for part in relative.parts):
            continue  # Hydra's log is exempt, and a temporary name may hold anything
        if path.suffix == ".json":
            json.loads(path.read_text())
        if path.name == "model.safetensors":
            load_file(path)
    for checkpoint in root.glob("checkpoints/[!.]*"):
        names = {path.name for path in checkpoint.iterdir()}
        assert names == {"hblm.json", "model.safetensors", "taxonomy.json", "encoder"}
    for result in root.glob("results/[!.]*.json"):
        assert result.with_suffix(".nodes.csv").exists()
        assert json.loads(result.read_text())["status"] == "done"


def test_kill_9_at_random_moments_leaves_nothing_half_written(learnable):
    command = (*TRAIN, f"dataset.path={learnable}")
    began = time.monotonic()
    finish(*command)
    whole = time.monotonic() - began
    draw = random.Random(1)
    outputs = Path("outputs")
    for number in range(8):
        child = start(*command, f"seed={number % 2 + 1}")
        # most of a short run is loading libraries; what writes comes towards its end
        time.sleep(whole * draw.uniform(0.4, 1.05))
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        assert_whole(outputs)
    finish(*command)
    assert_whole(outputs)
    assert not list(outputs.glob("results/.*.tmp"))
    assert not list(outputs.glob("checkpoints/.*.tmp"))


def kill_in_the_middle(act: Callable[[], object], share: float, whole: float) -> None:
    """Do something in a child of this process, which has all that is imported, and kill it on the way."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the child leaves alone
        child = os.fork()
    if child == 0:
        try:
            os.setsid()
            with open("child.log", "a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                act()
        finally:
            os._exit(0)
    time.sleep(whole * share)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)


def assert_nothing_left(*roots: Path) -> None:
    left = [path for root in roots for path in root.rglob("*") if path.name.endswith(".tmp")]
    left += [path for path in Path(tempfile.gettempdir()).iterdir() if path.name.startswith("hblm")]
    assert not left


@pytest.mark.parametrize("program", ["train", "evaluate", "aggregate", "prepare"])
def test_whatever_is_killed_the_next_start_finishes_and_cleans_up(program, learnable):
    """What was whole before a kill is so after it, and the next start leaves no temporary name anywhere."""
    result = run(learnable, "trainer.epochs=1")
    raw = Path("raw.jsonl")
    raw.write_text("".join(json.dumps({"text": f"a {n}", "label": f"l{n % 5}"}) + "\n" for n in range(3000)))
    train_again = [f"dataset.path={learnable}", "trainer.epochs=1", "force=true"]
    made = ("dataset=custom", "dataset.path=data/made", "dataset.prepare.separator=none", "encoder=tiny")
    again = compose("prepare", PrepareConfig, *made, f"raw={raw}", "force=true")
    table = AggregateConfig(frame=["parquet", "csv"], formats=["markdown", "csv"])
    acts: dict[str, Callable[[], object]] = {
        "train": lambda: training.run(compose("train", TrainConfig, *TINY, *train_again)),
        "evaluate": lambda: evaluate.run(
            EvaluateConfig(checkpoint=[str(checkpoint_of(result))], predictions=True, device="cpu")
        ),
        "aggregate": lambda: report.run(table),
        "prepare": lambda: preparation.run(again),
    }
    act = acts[program]
    act()
    began = time.monotonic()
    act()
    whole = time.monotonic() - began
    draw = random.Random(program)
    for _ in range(max(2, KILLS // 4)):
        kill_in_the_middle(act, draw.uniform(0.0, 1.1), whole)
        assert_whole(Path("outputs"))
        runs_there = [*Path("outputs").glob("**/results/[!.]*.json")]
        assert any(json.loads(file.read_text())["kind"] == "single" for file in runs_there)
        if program == "prepare":  # it was there before, and so it is after a kill
            preparation.run(compose("prepare", PrepareConfig, *made))
        act()
        assert_whole(Path("outputs"))
        assert_nothing_left(Path("outputs"), *[path for path in [Path("data")] if path.exists()])


def test_a_killed_sweep_goes_on_and_cleans_up(learnable, tmp_path, monkeypatch):
    monkeypatch.setenv("HBLM_DEVICES", str(tmp_path / "devices"))
    write_grid(learnable, {"seed": "1,2"})
    command = (
        sys.executable,
        "-m",
        "hblm.sweep",
        "submit",
        "sweep=tiny",
        "--config-dir",
        "mine",
        "wait=true",
    )
    draw = random.Random(0)
    for _ in range(max(1, KILLS // 10)):
        child = start(*command)
        time.sleep(draw.uniform(3, 25))
        end_all_here()
        child.wait()
        assert_whole(Path("outputs"))
    finish(*command)
    assert_whole(Path("outputs"))
    assert len(list(Path("outputs/results").glob("*.json"))) == 2
    assert_nothing_left(Path("outputs"), tmp_path / "devices")


def end_all_here() -> None:
    """Kill what runs in this folder: of a sweep also the processes that outlive the one that started it."""
    while True:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and Path(process.cwd()) == Path.cwd():
                    found.append(process)
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if not found or not psutil.wait_procs(found, timeout=10)[1]:
            return


def test_a_killed_preparation_leaves_no_dataset():
    options = "dataset.prepare.packages=[pandas]", "dataset.prepare.max_documents=300"
    command = (sys.executable, "-m", "hblm.prepare", "dataset=docstrings", *options)
    began = time.monotonic()
    finish(*command)
    whole = time.monotonic() - began
    for share in (0.3, 0.6, 0.8, 0.95):
        child = start(*command, "force=true")
        time.sleep(whole * share)
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        check = subprocess.run([*command, "check=true"], check=False, capture_output=True, text=True)
        assert check.returncode == 0, check.stderr
    finish(*command, "force=true")
    assert [path.name for path in Path("data").iterdir() if not path.name.startswith(".")] == ["docstrings"]
    assert not list(Path("data").glob(".*.tmp"))


@pytest.mark.long
def test_two_processes_may_prepare_and_tokenise_the_same_data_at_once():
    command = (
        *(sys.executable, "-m", "hblm.train", "dataset=docstrings", "encoder=tiny", "trainer=smoke"),
        *("dataset.prepare.packages=[networkx]", "dataset.prepare.max_documents=300"),
        *("dataset.prepare.min_support=5", "encoder.max_length=16", "trainer.epochs=1", "device=cpu"),
    )
    both = [start(*command, f"seed={seed}") for seed in (1, 2)]
    for child in both:
        assert child.wait(timeout=300) == 0, Path("child.log").read_text()
    assert len(list(Path("outputs/results").glob("*.json"))) == 2
    assert len([path for path in Path("outputs/cache/tokens").iterdir() if path.is_dir()]) == 1
    assert_whole(Path("outputs"))


def test_a_grid_goes_on_after_a_cell_that_fails(learnable):
    done = subprocess.run(
        [*TRAIN[:3], "-m", *TRAIN[3:], f"dataset.path={learnable}", "encoder.max_length=16,1000,17"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "max_length=1000 is more than" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list(Path("outputs/results").glob("*.json"))) == 2


def test_errors_inside_a_run_exit_with_2_and_no_traceback(learnable):
    for fault in ("encoder.max_length=1000", f"dataset.path={learnable}/nowhere", "encoder.model_name=./no"):
        done = subprocess.run(
            [*TRAIN, f"dataset.path={learnable}", fault], check=False, capture_output=True, text=True
        )
        assert done.returncode == 2, fault
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def evaluated(checkpoint: Path) -> dict[str, Any]:
    """Return the scores of an evaluation that leaves nothing; none where it is refused."""
    try:
        found = evaluation(checkpoint)
    except HblmError:
        return {}
    for path in found["made"].parent.glob(f"{found['made'].stem}*"):
        path.unlink()
    return {"evaluation": found["test"]}


def collected(predictions: Path) -> dict[str, Any]:
    """Return what tables read of results; nothing of what is passed over by name or refused."""
    table = results("outputs", repeats=True)
    found: dict[str, Any] = {
        str(file): [  # a column that only another result has is NaN or None
            {name: value for name, value in row.items() if value == value and value is not None}
            for row in rows.to_dict("records")
        ]
        for file, rows in table.groupby("file")
    }
    passed = {str(each.file) for each in table.attrs["passed_over"]}
    assert found.keys() | passed == {str(path) for path in Path("outputs/results").glob("*.json")}
    documents.read_predictions.cache_clear()
    with contextlib.suppress(DataError):
        found["predictions"] = documents.read_predictions(predictions).to_dict("list")
    return found


@pytest.mark.long
def test_one_flipped_bit_in_any_file_changes_no_number(learnable):
    result = run(learnable, *LEARNING, "encoder.trainable=false")
    checkpoint = checkpoint_of(result)
    predictions = Path(evaluation(checkpoint, "predictions=true")["predictions"]["path"])
    draw, refused = random.Random(0), set()
    files = [path for path in sorted(Path("outputs").rglob("*")) if path.is_file() and path.stat().st_size]
    kinds = {"checkpoints", "results", "tokens", "embeddings"}
    assert kinds <= {part for path in files for part in path.parts}
    for path in files:
        is_result = path.parts[1] == "results"
        read = functools.partial(*((collected, predictions) if is_result else (evaluated, checkpoint)))
        content, expected = path.read_bytes(), read()
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        found = read()
        assert all(expected[name] == value for name, value in found.items()), path
        if found.keys() != expected.keys():
            refused.add(path.parts[1])
        path.write_bytes(content)
    assert refused == {"checkpoints", "results"}
