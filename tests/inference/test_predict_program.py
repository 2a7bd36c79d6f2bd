"""The program as users start it: standard input and output, signals, memory; and a real model."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import psutil
import pytest
import words
from programs import checkpoint_of

from hblm.data.dataset import open_prepared
from hblm.engine.device import has_fast_bf16
from hblm.evaluate import main as evaluate
from hblm.predict import main as predict
from hblm.runs.checkpoint import open_checkpoint
from hblm.runs.decisions import read_decisions

PROGRAM = [sys.executable, words.__file__, "checkpoint=x"]  # a model made of words


def started(*overrides: str, **streams: Any) -> subprocess.Popen[bytes]:
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.Popen([*PROGRAM, *overrides], **streams)


def pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


@pytest.mark.slow
def test_a_row_is_answered_while_the_producer_runs() -> None:
    with started("input=-") as process:
        stdin, stdout = pipes(process)
        for number, text in enumerate(("a1", "b"), 1):
            stdin.write(f"{text}\n".encode())
            stdin.flush()
            row = json.loads(stdout.readline())  # the input is still open
            assert (row["row"], row["paths"][0]["nodes"][-1]) == (number, text)
        assert process.poll() is None
        rest, printed = process.communicate(b"a2")
    assert [json.loads(line)["row"] for line in rest.splitlines()] == [3]
    assert printed.startswith(b"3 rows, 0 errors, ")
    assert process.returncode == 0


@pytest.mark.slow
def test_many_rows_through_standard_input_in_constant_memory() -> None:
    def peak(count: int) -> float:
        """Return the most memory in MB that the program held for a number of rows."""
        with (
            open("rows", "rb") as rows,
            open("out", "wb") as out,
            started("input=-", "keep=[id]", stdin=rows, stdout=out, stderr=None) as process,
        ):
            watched, most = psutil.Process(process.pid), 0
            while process.poll() is None:
                most = max(most, watched.memory_info().rss)
                time.sleep(0.05)
        assert process.returncode == 0
        with open("out", "rb") as stream:
            for number, line in enumerate(stream, 1):
                row = json.loads(line)
                assert (row["row"], row["id"]) == (number, number)
                assert row["paths"][0]["nodes"][-1] == ("a1", "b")[number % 2]
        assert number == count
        return most / 1e6

    def write(count: int) -> None:
        with open("rows", "w") as stream:
            for number in range(1, count + 1):
                print(json.dumps({"id": number, "text": ("a1", "b")[number % 2] + " x" * 50}), file=stream)

    write(5_000)
    before = peak(5_000)
    write(100_000)
    assert peak(100_000) < before + 40


@pytest.mark.slow
def test_head_closes_the_pipe() -> None:
    with started("input=-") as process:
        stdin, stdout = pipes(process)
        stdin.write(b"a1\n")
        stdin.flush()
        assert json.loads(stdout.readline())["row"] == 1
        stdout.close()
        with contextlib.suppress(BrokenPipeError):
            while process.poll() is None:
                stdin.write(b"b\n")
                stdin.flush()
                time.sleep(0.05)
        assert process.stderr is not None
        printed = process.stderr.read()
    assert (process.returncode, printed) == (0, b"")


@pytest.fixture(params=["SIGTERM", "SIGINT", "SIGKILL"])
def ended(request: pytest.FixtureRequest) -> Iterator[tuple[str, int, bytes]]:
    """Give a signal's name, and exit code and messages of a program that got it while it waited for rows."""
    number = signal.Signals[request.param]
    with started("input=-", "output=out.jsonl") as process:
        stdin, _ = pipes(process)
        stdin.write(b"a1\n" * 10_000)
        stdin.flush()
        while not [*Path().glob(".out.jsonl.*.tmp")]:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.stderr is not None
        printed = process.stderr.read()
        yield request.param, process.wait(), printed


@pytest.mark.slow
def test_a_signal_leaves_no_half_file(ended: tuple[str, int, bytes]) -> None:
    name, code, printed = ended
    assert code == {"SIGTERM": 143, "SIGINT": 130, "SIGKILL": -9}[name]
    assert not Path("out.jsonl").exists()
    if name == "SIGTERM":
        assert printed.startswith(b"stopped by SIGTERM; ")
    if name == "SIGINT":
        assert printed == b"interrupted\n"
    if name != "SIGKILL":
        assert not os.listdir()
        return
    Path("in.txt").write_text("b\n")
    subprocess.run([*PROGRAM, "input=in.txt", "output=out.jsonl"], check=True)
    assert sorted(os.listdir()) == ["in.txt", "out.jsonl"]  # what a killed run left is removed


@pytest.mark.slow
def test_bad_rows_decide_the_exit_code() -> None:
    def run(*overrides: str) -> tuple[int, list[bytes], str]:
        done = subprocess.run(
            [*PROGRAM, "input=-", *overrides], input=b'{"text": "b"}\n{\n', capture_output=True
        )
        return done.returncode, done.stdout.splitlines(), done.stderr.decode()

    code, rows, printed = run("on_error=report")
    assert (code, len(rows), json.loads(rows[1])["row"]) == (1, 2, 2)
    assert printed.startswith("2 rows, 1 errors, ")
    code, rows, printed = run()
    assert (code, len(rows)) == (2, 1)
    assert printed.startswith("hblm.predict: standard input:2: not valid JSON: ")
    assert "Traceback" not in printed


@pytest.mark.slow
@pytest.mark.precision
def test_predictions_are_those_of_an_evaluation(trained: Path, learnable: Path) -> None:
    checkpoint = checkpoint_of(trained)
    evaluate(
        [
            f"checkpoint={checkpoint}",
            "predictions=true",
            "predictions_floor=0",
            "output_dir=out",
            "device=cpu",
        ]
    )
    (folder,) = Path("out/results").glob("*.predictions")
    expected = pd.read_parquet(folder).astype({"node": str, "document": str})
    keys = (f"checkpoint={checkpoint}", f"input={learnable / 'test.jsonl'}", "keep=[id]", "device=cpu")
    predict([*keys, "all_scores=true", "consistency=none", "output=raw.parquet"])
    predict([*keys, "output=paths.jsonl"])
    raw = pd.read_parquet("raw.parquet")
    documents = {document.id for document in open_prepared(learnable).documents("test")}
    assert set(raw["id"]) == documents
    given = {(row.document, row.node): row.score for row in expected.itertuples()}
    made = {(row.id, node): score for row in raw.itertuples() for node, score in row.scores}
    assert made.keys() == given.keys()
    rounding = 2e-3 if has_fast_bf16(gpu=False) else 2e-5  # of batches of other sizes
    np.testing.assert_allclose([made[pair] for pair in given], [*given.values()], atol=rounding)
    closed = expected[expected["predicted"]].groupby("document")["node"].agg(set)
    for line in Path("paths.jsonl").read_text().splitlines():
        row = json.loads(line)
        nodes = {node for path in row["paths"] for node in path["nodes"]}
        assert closed.get(row["id"], set()) <= nodes  # raised: with all ancestors


@pytest.mark.slow
def test_stored_decisions_are_those_of_the_checkpoint(
    trained: Path, learnable: Path, one_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = (f"checkpoint={checkpoint_of(trained)}", f"input={learnable / 'test.jsonl'}", "device=cpu")

    def predicted(*overrides: str) -> list[set[str]]:
        predict([*keys, *overrides, "output=out.jsonl", "force=true"])
        rows = map(json.loads, Path("out.jsonl").read_text().splitlines())
        return [{node for path in row["paths"] for node in path["nodes"]} for row in rows]

    tuned = predicted("tune=global")
    checkpoint = open_checkpoint(checkpoint_of(trained))
    (chosen,) = read_decisions(checkpoint).values()
    threshold, *_ = chosen.thresholds("global", checkpoint.taxonomy)
    assert tuned == predicted(f"threshold={threshold}")
    assert predicted("tune=global", "calibrated=true") == tuned  # other scores, the same nodes
    many = predicted("threshold=0.05")
    sure = predicted("threshold=0.05", "confidence=0.9", f"calibrate={one_path}")
    assert all(fewer <= more for fewer, more in zip(sure, many, strict=True))
    assert sure != many
    with pytest.raises(SystemExit):
        predicted("confidence=0.9")
    message = capsys.readouterr().err
    assert "trainer.calibration_share" in message
    assert "calibrate=FOLDER" in message


@pytest.mark.slow
def test_several_checkpoints_are_averaged(pair: tuple[Path, Path], learnable: Path) -> None:
    def scores(*checkpoints: Path) -> np.ndarray:
        given = ",".join(map(str, checkpoints))
        keys = [f"checkpoint=[{given}]", f"input={learnable / 'test.jsonl'}", "device=cpu", "precision=fp32"]
        predict([*keys, "all_scores=true", "consistency=none", "output=out.jsonl", "force=true"])
        rows = map(json.loads, Path("out.jsonl").read_text().splitlines())
        return np.array([[*row["scores"].values()] for row in rows])

    def logits(values: np.ndarray) -> np.ndarray:
        return np.log(values / (1 - values))

    mean = (logits(scores(pair[0])) + logits(scores(pair[1]))) / 2
    np.testing.assert_allclose(logits(scores(*pair)), mean, atol=1e-4)
