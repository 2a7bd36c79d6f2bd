"""Locks and files in folders that several users share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from users import ANN, BEN, as_user, modes_below, needs_root

from hblm import files, json_files
from hblm.data.cache import Entry
from hblm.locks import is_held, lock_of
from hblm.runs import paths
from hblm.runs.paths import Run
from hblm.sweep.launchers.local_files import WorkerFiles
from hblm.sweep.state import SweepState

HOLD = """
import sys, time
from pathlib import Path
from hblm.locks import lock_of
with lock_of(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def entry_made(folder: Path) -> None:
    entry = Entry(folder / "cache", {"of": 1}, ["part"])
    with entry.locked(), entry.renewed() as made:
        (made / "part").write_text("whole")


def library_file(folder: Path) -> None:
    """Write a folder with a file that is its owner's alone, as safetensors makes them."""
    with files.new_folder(folder / "checkpoint") as made:
        (made / "encoder").mkdir()
        for file in (made / "weights", made / "encoder" / "weights"):
            file.touch(mode=0o600)


def lock_taken(folder: Path) -> None:
    with lock_of(folder / "locks" / "a.lock"):
        pass


def sweep_locked(folder: Path) -> None:
    sweep = folder / "sweeps" / "a"
    with SweepState(sweep).editing(), WorkerFiles(sweep).lock():
        pass


def run_writable(folder: Path) -> None:
    run = Run("0" * 64, "name", folder)
    with run.lock(), paths.naming(folder):
        run.require_writable()


def file_written(folder: Path) -> None:
    json_files.write_json(folder / "tables" / "a.json", {})


WRITERS = [entry_made, library_file, lock_taken, sweep_locked, run_writable, file_written]


@needs_root
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o027, 0o077])
@pytest.mark.parametrize("write", WRITERS)
def test_modes_are_what_the_umask_gives(write, umask, shared):
    assert as_user(ANN, umask, lambda: write(shared)) == ""
    found = modes_below(shared)
    assert found
    expected = {True: f"{0o777 & ~umask:o}", False: f"{0o666 & ~umask:o}"}
    assert found == {name: expected[(shared / name).is_dir()] for name in found}


@needs_root
@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.slow
def test_a_user_of_the_group_goes_on_where_another_wrote(write, shared):
    assert as_user(ANN, 0o002, lambda: write(shared)) == ""
    assert as_user(BEN, 0o002, lambda: write(shared)) == ""
    assert as_user(ANN, 0o002, lambda: write(shared)) == ""


@needs_root
@pytest.mark.parametrize("write", [entry_made, lock_taken, sweep_locked, run_writable])
def test_who_may_not_write_is_told_whose_the_file_is(write, shared):
    assert as_user(ANN, 0o022, lambda: write(shared)) == ""
    error = as_user(BEN, 0o022, lambda: write(shared))
    assert error.startswith(f"SharingError: {shared}")
    assert f"made by user {ANN}" in error


@needs_root
@pytest.mark.parametrize(
    "missing", ["results", "checkpoints", "superseded", ".locks/names.lock", "checkpoint"]
)
@pytest.mark.slow
def test_what_a_run_will_write_is_tried_before_it_trains(missing, shared):
    run = Run("0" * 64, "name", shared)

    def first() -> None:
        run.checkpoint.mkdir(parents=True)
        json_files.write_json(run.result, {"run_id": run.id})
        run_writable(shared)

    assert as_user(ANN, 0o002, first) == ""
    place = run.checkpoint if missing == "checkpoint" else shared / missing
    assert as_user(BEN, 0o002, run.require_writable) == ""
    place.chmod(0o644 if place.is_file() else 0o755)
    assert as_user(BEN, 0o002, run.require_writable).startswith(f"SharingError: {place} (made by user {ANN})")
    assert as_user(ANN, 0o002, run.require_writable) == ""


@needs_root
def test_who_may_only_read_sees_whether_a_lock_is_held(shared):
    file = shared / "locks" / "a.lock"
    seen = shared / "seen"
    seen.touch()
    seen.chmod(0o666)

    def look() -> None:
        seen.write_text(str(is_held(file)))

    process = subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        file.chmod(0o444)
        assert as_user(BEN, 0o002, look) == ""
        assert seen.read_text() == "True"
    finally:
        process.kill()
        process.communicate()
    assert as_user(BEN, 0o002, look) == ""
    assert seen.read_text() == "False"


def test_a_lock_that_was_never_taken_is_not_made_by_a_look(tmp_path):
    assert not is_held(tmp_path / "locks" / "a.lock")
    assert list(tmp_path.iterdir()) == []
