"""Sweeps on a real SLURM of one node, which these tests start and stop."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest
from grids import attempts, by_label, start, state, states, sweep, until, write_grid

from hblm.sweep.launchers import slurm_queue

pytestmark = pytest.mark.slurm
UP = Path(__file__).parent.parent / "slurm-up.sh"


@pytest.fixture(scope="session")
def _slurm():
    """Start SLURM for the session, where it is installed or must be."""
    found = shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None and not os.environ.get("HBLM_REQUIRE_SLURM"):
        pytest.skip("SLURM is not installed; .ci/run installs it")
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))  # pytest's own are closed to munge's clients
    settings = {**os.environ, "SLURM_UP_CPUS": "4", "SLURM_UP_MEM": "8000", "SLURM_UP_NODES": "2"}
    subprocess.run(["bash", str(UP), str(folder)], check=True, env=settings)
    yield folder / "slurm.conf"
    subprocess.run(["bash", str(UP), "stop", str(folder)], check=True)
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _use_it(_slurm, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(_slurm))
    monkeypatch.setattr(slurm_queue, "_FRESH", 0.5)
    yield
    subprocess.run(["scancel", "-u", str(os.getuid())], check=True)


def job(label: str) -> str:
    found = by_label()[label]
    assert found.attempt is not None
    known = slurm_queue.Queue(state().folder / "slurm").job_of(found.cell.key, found.attempt.number)
    assert known is not None
    return known


def tell(*command: str) -> None:
    subprocess.run(command, check=True, timeout=60)


def test_a_sweep_with_every_kind_of_end(learnable, misbehaving, capsys):
    """The cells that end well are in the table, the others named with their causes, and tried again."""
    write_grid(learnable, {"seed": "15,18,13,14,16,1,2"})
    asked = ("on=slurm", "cluster.gres=gpu:1", "cluster.signal_delay=10", "time=1")
    assert sweep("submit", *asked) == 0
    until(lambda: states()[:2] == ["running", "running"])
    assert {each.attempt.fields["device"] for each in by_label().values() if each.state == "running"} == {
        "0",
        "1",
    }
    tell("scancel", job("seed=2"))  # while it is pending
    tell("scancel", job("seed=18"))  # while it runs
    assert sweep("watch") == 1
    found = {label: (each.state, each.cause) for label, each in by_label().items()}
    forgotten = found.pop("seed=2")[0]  # SLURM may forget a task that never ran; then it is run again
    assert forgotten in ("cancelled", "pending")
    assert found == {
        "seed=15": ("failed", "time"),
        "seed=18": ("cancelled", "cancelled"),
        "seed=13": ("failed", "raised"),
        "seed=14": ("failed", "killed"),
        "seed=16": ("failed", "exit"),
        "seed=1": ("done", "done"),
    }
    printed = capsys.readouterr().out
    assert "RuntimeError: no luck" in printed
    assert "Not in this table" in printed
    assert sweep("retry", "time=20") == 0
    assert sweep("watch") == 1  # what was cancelled stays so
    assert states().count("done") == (6 if forgotten == "pending" else 5)
    assert by_label()["seed=18"].state == "cancelled"


def test_a_job_told_to_stop_is_requeued_and_starts_over(learnable):
    write_grid(learnable, {"seed": "1,2,3", "trainer.epochs": "2000", "trainer.patience": "2000"})
    assert sweep("submit", "on=slurm", "time=30", "cluster.max_requeues=1", "cluster.signal_delay=30") == 0
    labels = [f"seed={seed}" for seed in (1, 2, 3)]

    def training(label: str, restarts: int) -> bool:
        each = by_label()[label]
        if each.attempt is None or each.attempt.fields.get("restarts") != restarts:
            return False
        return "epoch" in state().log_of(each.cell, each.attempt.number).read_text()

    until(lambda: all(training(label, 0) for label in labels))
    tell("scancel", "--signal=USR2", job("seed=1"))
    tell("scontrol", "requeue", job("seed=2"))
    until(lambda: training("seed=1", 1) and training("seed=2", 1))
    told = {each["label"].split()[0]: each for each in attempts()}
    assert len(told) == len(attempts()) == 3  # the same attempts, under the same jobs
    assert told["seed=1"]["requeues"] == 1
    assert "starts over" in told["seed=1"]["requeued"]
    tell("scancel", "--signal=USR2", job("seed=1"))  # beyond max_requeues
    until(lambda: by_label()["seed=1"].state == "failed")
    assert by_label()["seed=1"].cause == "time"
    assert sweep("cancel") == 0
    assert states() == ["failed", "cancelled", "cancelled"]
    until(lambda: not subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout)


def test_more_cells_than_an_array_takes(learnable):
    write_grid(learnable, {"seed": "range(1,1003)"})
    assert sweep("submit", "on=slurm", "time=20", "cluster.array_parallelism=2") == 0
    write_grid(learnable, {"seed": "1", "head": "linear"})  # changes nothing that waits
    files = sorted((state().folder / "slurm").glob("*.json"), key=lambda file: int(file.stem))
    assert [len(json.loads(file.read_text())["cells"]) for file in files] == [1001, 1]
    until(lambda: states().count("done") >= 3, 200)
    running = subprocess.run(["squeue", "-h", "-t", "R"], capture_output=True, text=True, check=True).stdout
    assert len(running.splitlines()) <= 2
    assert sweep("cancel") == 0
    assert set(states()) == {"done", "cancelled"}
    result = by_label()["seed=1"].result
    assert result is not None
    assert json.loads(result.read_text())["choices"]["head"] == "mlp"


def test_a_cell_on_two_nodes_with_two_processes_on_each(learnable):
    """It is one run; asked to stop it is requeued; a killed process on the other node fails it by name."""
    asked = ("on=slurm", "nodes=2", "cluster.partition=all", "time=30")
    write_grid(learnable, {"seed": "1", "trainer.processes": "2"}, name="short")
    assert sweep("submit", *asked, name="short") == 0
    assert sweep("watch", name="short") == 0
    result = by_label("short")["short"].result
    assert result is not None
    record = json.loads(result.read_text())
    assert record["environment"]["processes"] == 4
    assert record["test"]["single"]["documents"] == 23
    long = {"trainer.epochs": "2000", "trainer.patience": "2000"}
    write_grid(learnable, {"seed": "1", "trainer.processes": "2", **long})
    assert sweep("submit", *asked) == 0

    def training(restarts: int) -> bool:
        each = by_label()["tiny"]
        if each.attempt is None or each.attempt.fields.get("restarts") != restarts:
            return False
        return state().log_of(each.cell, each.attempt.number).read_text().count("epoch 1/") > restarts

    until(lambda: training(0))
    tell("scancel", "--signal=USR2", job("tiny"))
    until(lambda: training(1))
    assert by_label()["tiny"].attempt.fields["nodes"] == 2
    ranks = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "hblm.engine.worker" in process.cmdline():
                ranks[process.environ()["RANK"]] = process
    assert set(ranks) == {"0", "1", "2", "3"}
    ranks["3"].kill()  # of the second node
    until(lambda: by_label()["tiny"].state == "failed")
    assert by_label()["tiny"].cause == "killed"
    assert "process 3 of 4: killed by SIGKILL" in by_label()["tiny"].attempt.fields["why"]
    until(lambda: not subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout)


def test_a_lost_shell_and_a_failed_node_hang_nothing(learnable):
    """The shell that submitted is killed: its cell goes on. Its node fails: it waits and can be cancelled."""
    write_grid(learnable, {"seed": "1", "trainer.epochs": "2000", "trainer.patience": "2000"})
    shell = start("submit", "on=slurm", "time=30", "wait=true")
    until(lambda: state().exists() and states() == ["running"])
    shell.kill()
    shell.communicate()
    assert states() == ["running"]
    tell("scontrol", "update", "nodename=n1", "state=down", "reason=test")
    try:
        until(lambda: states() == ["pending"])  # SLURM has put it back into the queue
        assert "PENDING" in by_label()["tiny"].attempt.fields["why"]
        assert sweep("cancel") == 0
        assert states() == ["cancelled"]
    finally:
        until(_is_back)


def _is_back() -> bool:
    """Ask for the node, which drains itself when it meets a job that it was thought to have lost."""
    subprocess.run(["scontrol", "update", "nodename=n1", "state=resume"], capture_output=True, check=False)
    told = subprocess.run(["sinfo", "-h", "-n", "n1", "-o", "%T"], capture_output=True, text=True, check=True)
    return set(told.stdout.split()) == {"idle"}


def test_what_slurm_refuses_is_told(learnable, capsys):
    write_grid(learnable, {"seed": "1,2"})
    assert sweep("submit", "on=slurm", "cluster.partition=moon") == 2
    assert "SLURM refuses the jobs" in capsys.readouterr().err
    assert states() == ["pending", "pending"]
    assert sweep("submit", "nodes=2") == 2
    assert "nodes=2 needs on=slurm" in capsys.readouterr().err
    given = ("trainer.processes=4", "cluster.gpus_per_node=2")
    assert sweep("submit", "on=slurm", *given) == 2
    assert "trainer.processes=4 need a GPU each" in capsys.readouterr().err
    assert sweep("submit", "on=slurm", "cluster.partiton=main") == 2
    assert "did you mean cluster.partition?" in capsys.readouterr().err
