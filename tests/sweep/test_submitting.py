"""Several shells that submit one sweep at once, to commands that play SLURM."""

from __future__ import annotations

import os
import re
import sys
import warnings
from pathlib import Path

import pytest
from grids import by_label, state, states, submitted, sweep, write_grid

from hblm.json_files import write_json
from hblm.sweep.launchers import slurm_queue

# they keep the arrays in files of a folder, so that each process sees what another has submitted
SBATCH = """#!/bin/sh
until mkdir {queue}.taken 2>/dev/null; do sleep 0.05; done
id=$((100 + $(ls {queue} | wc -l)))
sleep 0.3
grep -o -- '--array=.*' "$1" > {queue}/$id || echo alone > {queue}/$id
rmdir {queue}.taken
echo "Submitted batch job $id"
"""
SQUEUE = """#!/bin/sh
for file in {queue}/*; do
    id=$(basename $file)
    last=$(sed -n 's/--array=0-\\([0-9]*\\).*/\\1/p' $file)
    if [ -z "$last" ]; then echo "$id|PENDING|None"; else
        for task in $(seq 0 $last); do echo "${{id}}_$task|PENDING|None"; done
    fi
done
"""


@pytest.fixture
def queue(tmp_path, monkeypatch) -> Path:
    """Play SLURM; return the folder of its arrays."""
    arrays, commands = tmp_path / "queue", tmp_path / "bin"
    arrays.mkdir()
    commands.mkdir()
    programs = {"sbatch": SBATCH, "squeue": SQUEUE} | dict.fromkeys(
        ("scontrol", "sacct", "srun"), "#!/bin/sh\n"
    )
    for name, text in programs.items():
        (commands / name).write_text(text.format(queue=arrays))
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    return arrays


def jobs(queue: Path) -> int:
    matches = [re.search(r"0-(\d+)", file.read_text()) for file in queue.iterdir()]
    return sum(int(match[1]) + 1 if match else 1 for match in matches)


def at_once(*argv: str, times: int = 3) -> list[int]:
    """Run the program several times at once, in children of this process; return the exit codes."""
    sys.stdout.flush()
    children = []
    for _ in range(times):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the children leave alone
            child = os.fork()
        if child == 0:
            code = 1
            try:
                code = sweep(*argv)
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.parametrize(
    ("squeue", "sacct", "expected"),
    [
        ("12_1|PENDING|Resources", "", ("pending", None, "job 12_1: PENDING Resources")),
        ("12_1|RUNNING|None", "", ("running", None, "job 12_1: RUNNING")),
        (None, "", ("running", None, "job 12_1: SLURM does not answer")),
        ("12_1|TIMEOUT|None", "", ("failed", "time", "time: longer than the job's time limit")),
        ("", "OUT_OF_MEMORY", ("failed", "memory", "memory: SLURM: out of memory")),
        ("", "CANCELLED by 0", ("cancelled", "cancelled", "cancelled: by scancel")),
        ("12_0|RUNNING|None", "", ("pending", "lost", "lost: job unknown to squeue and sacct")),
    ],
)
def test_the_state_of_a_running_attempt_is_that_of_its_job(learnable, monkeypatch, squeue, sacct, expected):
    """Also of one that a process of an earlier version submitted."""
    sweep_state, (cell,) = submitted(learnable, {"seed": "1"})
    sweep_state.write_attempt(cell, 1, state="running", on="slurm", host="elsewhere", started=1.0)
    record = {"array": "12", "alone": False, "submitted": 1.0, "cells": [["0" * 16, 1], [cell.key, 1]]}
    write_json(sweep_state.folder / "slurm" / "12.json", record)
    answers = {"squeue": squeue, "sacct": sacct}
    assert sweep_state.launcher("slurm").name == "slurm"  # its module is imported with the real function
    monkeypatch.setattr(slurm_queue, "call", lambda program, *words: answers[program])
    status = sweep_state.status(cell)
    assert (status.state, status.cause, status.reason) == expected


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("force=true",)])
def test_each_cell_is_queued_once_however_many_submit(learnable, queue, more):
    write_grid(learnable, {"seed": "1,2,3"})
    assert at_once("submit", "on=slurm", *more) == [0, 0, 0]
    assert jobs(queue) == 3
    assert states() == ["pending"] * 3
    assert at_once("submit", "on=slurm", *more) == [0, 0, 0]
    assert jobs(queue) == 3


@pytest.mark.slow
def test_each_failed_cell_is_queued_again_once(learnable, queue):
    write_grid(learnable, {"seed": "1,2"})
    assert sweep("submit", "on=slurm") == 0
    failed = by_label()["seed=2"]
    assert failed.attempt is not None
    ended = {"state": "ended", "cause": "raised", "why": "x"}
    state().write_attempt(failed.cell, failed.attempt.number, **ended)
    assert at_once("retry") == [0, 0, 0]
    assert jobs(queue) == 3


def test_what_a_killed_submission_left_goes_with_the_next(learnable, queue):
    write_grid(learnable, {"seed": "1,2"})
    folder = state().folder / "slurm"
    folder.mkdir(parents=True)
    left = [folder / "0123.pkl", folder / ".submission_file_0123.sh"]
    for file in left:
        file.touch()
    assert sweep("submit", "on=slurm") == 0
    assert not any(file.exists() for file in left)
    assert jobs(queue) == 2
