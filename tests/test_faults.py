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
import time
from pathlib import Path
from typing import Any

import pytest
from programs import LEARNING, checkpoint_of, evaluation, run
from safetensors.torch import load_file

from hblm.errors import DataError, HblmError
from hblm.tables import documents
from hblm.tables.collect import results

pytestmark = pytest.mark.slow

TRAIN = (
    *(sys.executable, "-m", "hblm.train", "dataset=custom", "encoder=tiny", "trainer=smoke"),
    *("trainer.epochs=3", "encoder.max_length=16", "force=true", "device=cpu"),
)


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
    documents._read.cache_clear()
    with contextlib.suppress(DataError):
        found["predictions"] = documents._read(predictions).to_dict("list")
    return found


@pytest.mark.trains
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
