"""Sweeps on a real SLURM of two nodes on this machine, which these tests start and stop."""

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
from quick_cells import write_quick_cells

from hblm.sweep.launchers import slurm, slurm_queue

pytestmark = pytest.mark.slurm
UP = Path(__file__).parent.parent / "slurm-up.sh"
quick = pytest.mark.usefixtures("_quick_cells")


@pytest.fixture(scope="session")
def _slurm():
    """Start SLURM for the session, if it is installed or required."""
    installed = shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin")
    if installed is None and not os.environ.get("HBLM_REQUIRE_SLURM"):
        pytest.skip("SLURM is not installed; .ci/run installs it")
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))  # pytest's own are closed to munge's clients
    settings = {**os.environ, "SLURM_UP_CPUS": "4", "SLURM_UP_MEM": "8000", "SLURM_UP_NODES": "2"}
    subprocess.run(["bash", str(UP), str(folder)], check=True, env=settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setattr(slurm_queue, "FRESH", 0.5)
        yield
    subprocess.run(["bash", str(UP), "stop", str(folder)], check=True)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def over_time(_slurm, learnable, tmp_path_factory) -> Path:
    """Submit a sweep whose cell exceeds its time, which takes SLURM over a minute; return its folder."""
    folder = tmp_path_factory.mktemp("over_time")
    write_quick_cells(folder / "site")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(folder / "site"))
        write_grid(learnable, {"seed": "15"}, name="late")
        assert sweep("submit", "on=slurm", "time=1", "cluster.signal_delay=10", name="late") == 0
    return folder


@pytest.fixture(autouse=True)
def _own_jobs(_slurm, over_time):
    """Cancel what a test leaves in the queue."""
    yield
    for name in ("hblm-tiny", "hblm-short"):
        subprocess.run(["scancel", "-u", str(os.getuid()), "-n", name], check=True)


def job(label: str) -> str:
    status = by_label()[label]
    assert status.attempt is not None
    job_id = slurm_queue.Queue(state().folder / "slurm").job_of(status.cell.key, status.attempt.number)
    assert job_id is not None
    return job_id


def call(*command: str) -> str:
    return subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout


def in_queue() -> str:
    return call("squeue", "-h", "-n", "hblm-tiny")


def is_at_work(label: str, restarts: int, times: int = 1) -> bool:
    """Return whether a cell was restarted so often, and its log has so many lines on its first epoch."""
    each = by_label()[label]
    if each.attempt is None or each.attempt.fields.get("restarts") != restarts:
        return False
    return state().log_of(each.cell, each.attempt.number).read_text().count("epoch 1/") >= times


@quick
def test_a_sweep_with_every_kind_of_end(learnable, capsys):
    """The cells that end well are in the table, the others named with their causes, and tried again."""
    write_grid(learnable, {"seed": "18,1,13,14,16,2"})
    assert sweep("submit", "on=slurm", "cluster.gres=gpu:1", "time=20") == 0
    call("scancel", job("seed=2"))  # while it is pending
    until(lambda: states()[:2] == ["running", "done"])
    assert {each["device"] for each in attempts() if "device" in each} == {"0", "1"}
    call("scancel", job("seed=18"))  # while it runs
    assert sweep("watch") == 1
    ends = {label: (each.state, each.cause) for label, each in by_label().items()}
    forgotten = ends.pop("seed=2")[0]  # SLURM may forget a task that never ran; then it is run again
    assert forgotten in ("cancelled", "pending")
    assert ends == {
        "seed=18": ("cancelled", "cancelled"),
        "seed=1": ("done", "done"),
        "seed=13": ("failed", "raised"),
        "seed=14": ("failed", "killed"),
        "seed=16": ("failed", "exit"),
    }
    printed = capsys.readouterr().out
    assert "RuntimeError: no luck" in printed
    assert "Not in this table" in printed
    assert sweep("retry", "cause=raised,killed") == 0
    assert sweep("watch") == 1  # the other failure, and what was cancelled, stay so
    assert states().count("done") == (4 if forgotten == "pending" else 3)
    assert by_label()["seed=18"].state == "cancelled"


@quick
def test_a_job_told_to_stop_is_requeued_and_starts_over(learnable):
    write_grid(learnable, {"seed": "20", "threshold": "0.3,0.4,0.5"})
    assert sweep("submit", "on=slurm", "time=30", "cluster.max_requeues=1", "cluster.signal_delay=30") == 0
    first, second, _ = labels = [f"threshold={value}" for value in (0.3, 0.4, 0.5)]
    until(lambda: all(is_at_work(label, 0) for label in labels))
    call("scancel", "--signal=USR2", job(first))
    call("scontrol", "requeue", job(second))
    until(lambda: is_at_work(first, 1) and is_at_work(second, 1))
    assert len(attempts()) == 3  # the same attempts, under the same jobs
    requeued = next(each for each in attempts() if each["label"].startswith(first))
    assert requeued["requeues"] == 1
    assert "starts over" in requeued["requeued"]
    call("scancel", "--signal=USR2", job(first))  # beyond max_requeues
    until(lambda: by_label()[first].state == "failed")
    assert by_label()[first].cause == "time"
    assert sweep("cancel") == 0
    assert states() == ["failed", "cancelled", "cancelled"]
    until(lambda: not in_queue())


@quick
def test_more_cells_than_an_array_takes(learnable, monkeypatch):
    assert slurm_queue.max_array_size() == 1001
    monkeypatch.setattr(slurm, "max_array_size", lambda: 2)
    write_grid(learnable, {"seed": "1,2,18"})
    assert sweep("submit", "on=slurm", "time=20", "cluster.array_parallelism=1") == 0
    write_grid(learnable, {"seed": "1", "head": "linear"})  # changes no submitted cell
    check_arrays([2, 1])
    until(lambda: states() == ["done", "done", "running"])
    assert sweep("cancel") == 0
    assert states() == ["done", "done", "cancelled"]


@pytest.mark.long
@quick
def test_a_thousand_cells(learnable):
    write_grid(learnable, {"seed": "range(21,1023)"})
    assert sweep("submit", "on=slurm", "time=20", "cluster.array_parallelism=2") == 0
    check_arrays([1001, 1])
    until(lambda: states().count("done") >= 3, 200)
    assert sweep("cancel") == 0
    assert set(states()) == {"done", "cancelled"}


def check_arrays(sizes: list[int]) -> None:
    """Compare the sizes of the sweep's arrays, the first one first, and how many jobs run at a time."""
    files = sorted((state().folder / "slurm").glob("*.json"), key=lambda file: int(file.stem))
    assert [len(json.loads(file.read_text())["cells"]) for file in files] == sizes
    until(lambda: states().count("running") > 0)
    limit = state().submission()["where"]["cluster"]["array_parallelism"]
    assert len(call("squeue", "-h", "-n", "hblm-tiny", "-t", "R").splitlines()) <= limit


def test_a_cell_on_two_nodes_with_two_processes_on_each(learnable):
    """It is one run; asked to stop it is requeued; a killed process on the other node fails it by name."""
    options = ("on=slurm", "nodes=2", "cluster.partition=all", "time=30")
    write_grid(learnable, {"seed": "1", "trainer.processes": "2"}, name="short")
    assert sweep("submit", *options, name="short") == 0
    long = {"trainer.epochs": "2000", "trainer.patience": "2000"}
    write_grid(learnable, {"seed": "1", "trainer.processes": "2", **long})
    assert sweep("submit", *options) == 0
    assert sweep("watch", name="short") == 0
    result = by_label("short")["short"].result
    assert result is not None
    record = json.loads(result.read_text())
    assert record["environment"]["processes"] == 4
    assert record["test"]["single"]["documents"] == 23
    until(lambda: is_at_work("tiny", 0))
    call("scancel", "--signal=USR2", job("tiny"))
    until(lambda: is_at_work("tiny", 1, times=2))
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
    until(lambda: not in_queue())


@quick
def test_a_cell_over_its_time_is_tried_again_with_more(over_time, monkeypatch):
    monkeypatch.chdir(over_time)
    monkeypatch.setenv("PYTHONPATH", str(over_time / "site"))
    assert sweep("watch", name="late") == 1
    (status,) = state("late").statuses()
    assert (status.state, status.cause) == ("failed", "time")
    assert sweep("retry", "time=20", name="late") == 0
    assert sweep("watch", name="late") == 0


@quick
def test_a_lost_shell_and_a_failed_node_hang_nothing(learnable):
    """The shell that submitted is killed: its cell goes on. Its node fails: it waits and can be cancelled."""
    write_grid(learnable, {"seed": "18"})
    shell = start("submit", "on=slurm", "time=30", "wait=true")
    until(lambda: state().exists() and states() == ["running"])
    shell.kill()
    shell.communicate()
    assert states() == ["running"]
    call("scontrol", "update", "nodename=n1", "state=down", "reason=test")
    try:
        until(lambda: states() == ["pending"])  # SLURM has put it back into the queue
        assert "PENDING" in by_label()["tiny"].reason
        assert sweep("cancel") == 0
        assert states() == ["cancelled"]
    finally:
        until(_is_back)


def _is_back() -> bool:
    """Resume the node, which drains itself when it meets a job that SLURM had given up."""
    subprocess.run(["scontrol", "update", "nodename=n1", "state=resume"], capture_output=True, check=False)
    return set(call("sinfo", "-h", "-n", "n1", "-o", "%T").split()) == {"idle"}


def test_a_refusal_of_slurm_is_shown(learnable, capsys):
    write_grid(learnable, {"seed": "1,2"})
    assert sweep("submit", "on=slurm", "cluster.partition=moon") == 2
    assert "SLURM refuses the jobs" in capsys.readouterr().err
    assert states() == ["pending", "pending"]
    given = ("trainer.processes=4", "cluster.gpus_per_node=2")
    assert sweep("submit", "on=slurm", *given) == 2
    assert "trainer.processes=4 need a GPU each" in capsys.readouterr().err
