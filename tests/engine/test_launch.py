"""A run of several processes: the numbers of one, and nothing left behind when one of them fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from programs import TINY, compose, numbers, run

from hblm import evaluate, json_files, process, signals
from hblm.cli import main, programs
from hblm.config.identity import identity_values
from hblm.config.train import TrainConfig
from hblm.engine import collectives, exit_reports, launch, training
from hblm.engine.metrics import ScoreCounter
from hblm.errors import ConfigError, ProcessError, TrainingError
from hblm.taxonomy import Node, Taxonomy

# no dropout, whose masks every process draws for itself; 7 does not divide by 2, nor 60 documents by 7;
# fp32, since bf16 rounds to three digits and the order of sums differs
STILL = (
    *("encoder.dropout=0", "encoder.projection_dropout=0", "head.dropout=0"),
    *("trainer.batch_size=7", "trainer.precision=fp32"),
)
LEARNING = (*STILL, "trainer.epochs=3", "trainer.learning_rate=3e-3", "pooling=max")
ENDLESS = (*STILL, "trainer.epochs=9999", "trainer.patience=9999", "trainer.processes=2")


def command(data: Path, *overrides: str) -> list[str]:
    return [*TINY, f"dataset.path={data}", *overrides]


def assert_alike(one: Any, other: Any, at: str = "") -> None:
    """Compare results: everything equal, but floats to rounding."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), at
        for name, value in one.items():
            assert_alike(value, other[name], f"{at}/{name}")
    elif isinstance(one, list):
        assert len(one) == len(other), at
        for number, values in enumerate(zip(one, other, strict=True)):
            assert_alike(*values, f"{at}/{number}")
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-5, rel=1e-4), at
    else:
        assert one == other, at


def noted(result: Path) -> list[dict[str, Any]]:
    """Return the notes' values; their texts name the checkpoint."""
    notes = json.loads(result.read_text())["notes"]
    return [{name: value for name, value in note.items() if name != "text"} for note in notes]


def documents_and_processes(result: Path) -> tuple[Any, int]:
    record = json.loads(result.read_text())
    return record["test"], record["environment"]["processes"]


# the branch without a loss gets no gradient; five micro-batches of 7 leave the second process none in some
SHAPES = {
    "joint": ("joint_variant=dual", "joint_variant.joint_loss_bu=0", "trainer.gradient_accumulation=5"),
    "frozen": ("encoder.trainable=false",),
}


@pytest.mark.parametrize(
    "shape",
    [pytest.param("joint", marks=pytest.mark.slow), pytest.param("frozen", marks=pytest.mark.long)],
)
def test_two_processes_give_the_numbers_of_one(learnable, shape):
    alone = run(learnable, *LEARNING, *SHAPES[shape], "output_dir=alone")
    shared = run(learnable, *LEARNING, *SHAPES[shape], "output_dir=shared", "trainer.processes=2")
    assert_alike(numbers(alone), numbers(shared))
    assert_alike(*(noted(result) for result in (alone, shared)))
    assert any(note.get("predicted_from") for note in noted(alone))  # from the counts of both
    found, n_processes = documents_and_processes(shared)
    assert n_processes == 2
    assert all(view["documents"] == 23 for view in found.values())
    assert len(list(Path("shared/results").glob("*.json"))) == 1


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node=2")
ACCELERATE = (  # its --cpu starts one process; this starts two, and device=cpu does the rest
    "accelerate.commands.launch",
    *("--multi_gpu", "--num_processes=2", "--num_machines=1"),
    *("--mixed_precision=no", "--dynamo_backend=no"),
)


@pytest.mark.parametrize(
    "launcher",
    [pytest.param(TORCHRUN, marks=pytest.mark.slow), pytest.param(ACCELERATE, marks=pytest.mark.long)],
)
def test_launchers_start_the_processes_as_well(learnable, launcher):
    alone = run(learnable, *LEARNING, "output_dir=alone")
    words = command(learnable, *LEARNING, "output_dir=shared")
    for again in (False, True):  # the second time all of them see that it is done
        # with --main_process_port=0 accelerate takes a port of outgoing connections, which one of them may
        # take before it listens there
        port = () if "--standalone" in launcher else (f"--main_process_port={launch._free_port()}",)
        done = subprocess.run(
            [sys.executable, "-m", *launcher, *port, "-m", "hblm.train", *words],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("result ") == 1
        assert ("done before" in done.stdout) == again
    (shared,) = Path("shared/results").glob("*.json")
    assert_alike(numbers(alone), numbers(shared))
    assert documents_and_processes(shared)[1] == 2
    assert len(list(Path("shared/hydra").glob("*/*"))) == 2  # one for each command, not for each process


@pytest.fixture
def endless(learnable):
    """Start a run of two processes that never ends by itself; return its watcher once they train."""
    log = Path("printed.log")
    with log.open("wb") as stream:
        watcher = subprocess.Popen(
            [sys.executable, "-m", "hblm.train", *command(learnable, *ENDLESS)],
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        until(lambda: "epoch 2/" in log.read_text())
        members = psutil.Process(watcher.pid).children()
        assert len(members) == 2
        yield SimpleNamespace(watcher=watcher, members=members, log=log)
    finally:
        watcher.kill()
        watcher.wait()


def until(condition) -> None:
    end = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


def assert_nothing_left(members: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(members, timeout=20)
    assert not alive
    for folder in ("results", "checkpoints"):  # a temporary name goes with the next start
        assert not list(Path("outputs", folder).glob("[!.]*"))


@pytest.mark.slow
def test_a_killed_process_ends_the_run(endless):
    endless.members[1].kill()
    assert endless.watcher.wait(30) == 2
    printed = endless.log.read_text()
    assert printed.splitlines()[-1].startswith("hblm.train: process 1 of 2: killed by SIGKILL")
    assert "Traceback" not in printed
    assert_nothing_left(endless.members)


@pytest.mark.slow
def test_an_interrupt_ends_all_processes(endless):
    os.killpg(endless.watcher.pid, signal.SIGINT)  # as a terminal does
    assert endless.watcher.wait(30) == 130
    assert endless.log.read_text().splitlines()[-1] == "interrupted"
    assert_nothing_left(endless.members)


@pytest.mark.slow
def test_processes_end_with_the_one_that_watches_them(endless):
    endless.watcher.kill()
    assert_nothing_left(endless.members)


@pytest.mark.slow
def test_what_a_process_raises_is_raised_as_it_is(learnable):
    with pytest.raises(TrainingError, match=r"the training loss is (nan|inf) at epoch"):
        run(
            learnable,
            *LEARNING,
            "trainer.processes=2",
            "trainer.learning_rate=1e30",
            "trainer.max_grad_norm=1e30",
        )


def test_the_cause_comes_before_what_it_caused(tmp_path):
    """A process that was killed explains why another could not reach it."""
    json_files.write_json(tmp_path / exit_reports.TASK, {"processes": 2, "machines": 1})
    exit_reports.write_report(
        tmp_path, 0, cause="raised", why="connection closed", error="RuntimeError", output=""
    )
    exit_reports.write_report(tmp_path, 1, cause="killed", why="killed by SIGKILL", error="", output="")
    with pytest.raises(ProcessError, match="process 1 of 2: killed by SIGKILL") as caught:
        exit_reports.raise_first(exit_reports.read_reports(tmp_path))
    assert process.explain(caught.value)[0] == "killed"


def test_a_stop_that_one_hears_stops_all(tmp_path):
    json_files.write_json(tmp_path / exit_reports.TASK, {"processes": 2, "machines": 1})
    exit_reports.write_report(tmp_path, 0, cause="stopped", why="SIGUSR2", error="Stopped", output="")
    with pytest.raises(signals.Stopped, match="SIGUSR2"):
        exit_reports.raise_first(exit_reports.read_reports(tmp_path))


@pytest.mark.slow
def test_a_launcher_may_not_start_everything(learnable, monkeypatch, capsys):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    for call in (
        lambda: evaluate.main(["checkpoint=nowhere"]),
        lambda: main.run_program(programs.TRAIN, training.run, ["-m", "seed=1,2", *command(learnable)]),
        lambda: main.run_program(programs.TRAIN, training.run, command(learnable, "trainer.processes=3")),
    ):
        with pytest.raises(SystemExit) as end:
            call()
        assert end.value.code == 2
    printed = capsys.readouterr().err.splitlines()
    assert printed == [
        "hblm.evaluate: evaluate is one process, and was started 2 times by a launcher; start it without one",
        "hblm.train: a grid (-m) was started 2 times by a launcher; start it without one, and write "
        "trainer.processes=2",
        "hblm.train: trainer.processes=3, but the launcher started 2 processes on this machine; leave "
        "trainer.processes out",
    ]


def test_processes_are_part_of_no_identity(learnable):
    given = command(learnable)
    names = [
        identity_values(compose("train", TrainConfig, *given, *more))
        for more in ((), ("trainer.processes=4",))
    ]
    assert names[0] == names[1]


def test_more_processes_than_documents_of_a_step_are_refused(learnable, capsys):
    with pytest.raises(SystemExit):
        main.run_program(
            programs.TRAIN, training.run, command(learnable, "trainer.batch_size=2", "trainer.processes=3")
        )
    assert "trainer.processes=3" in capsys.readouterr().err


def place(rank: int, size: int) -> Any:
    return SimpleNamespace(process_index=rank, num_processes=size)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_document_is_somebodys_once(size):
    documents = np.arange(100, 105)
    shares = [collectives.documents_of(place(rank, size), documents) for rank in range(size)]
    assert sorted(each for mine, counts in shares if counts for each in mine.tolist()) == documents.tolist()
    assert all(len(mine) == 1 for mine, counts in shares if not counts)
    batches = [np.arange(3), np.arange(3, 6), np.arange(6, 7)]
    dealt = [batch for rank in range(size) for batch in collectives.batches_of(place(rank, size), batches)]
    assert sorted(np.concatenate(dealt)) == list(range(7))


def test_counters_add_up():
    """What two counters saw together is what one sees that saw it all."""
    taxonomy = Taxonomy(
        Node(str(number), "", str(number // 2) if number > 1 else None) for number in range(1, 8)
    )
    draw = torch.Generator().manual_seed(0)
    scores, targets = torch.rand(9, 7, generator=draw), torch.rand(9, 7, generator=draw) > 0.6
    whole, first, second = (ScoreCounter(taxonomy, 0.5) for _ in range(3))
    whole.update(scores, targets)
    first.update(scores[:4], targets[:4])
    second.update(scores[4:], targets[4:])
    first.add(second.counted())
    assert_alike(whole.compute(), first.compute())
    assert whole.node_table() == first.node_table()


def test_a_place_is_what_a_launcher_says(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert process.place() == process.Place(0, 1, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")  # some clusters set it for their own ends
    assert process.place() == process.Place(0, 1, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert process.place() == process.Place(3, 4, 2)


def test_processes_need_a_gpu_each(monkeypatch):
    from hblm.engine import device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(device, "place", lambda: process.Place(0, 4, 4))
    with pytest.raises(ConfigError, match="4 processes on this machine need a GPU each, and there are 2"):
        device.accelerator("auto", "fp32")
