"""Entries of a cache: whole or not there, damaged ones made anew, one process at a time."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hblm.data.cache import META, Entry, checksums

MADE_FROM = {"format": 1, "dataset": "abc", "length": 0.5}
FILES = ["numbers", "empty"]
CONTENT = bytes(range(256)) * 8


def fill(entry: Entry) -> Entry:
    with entry.renewed() as folder:
        (folder / "numbers").write_bytes(CONTENT)
        (folder / "empty").write_bytes(b"")
    return entry


def describe(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the files that meta.json names; what "../numbers" would be is there."""
    shutil.copy(folder / "numbers", folder.parent)
    meta = json.loads((folder / META).read_text())
    change(meta["files"])
    (folder / META).write_text(json.dumps(meta))


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    return fill(Entry(tmp_path / "kind", MADE_FROM, FILES))


def test_an_entry_is_there_once_it_is_filled(tmp_path):
    entry = Entry(tmp_path / "kind", MADE_FROM, FILES)
    assert not entry.is_whole()
    fill(entry)
    assert entry.is_whole()
    assert Entry(tmp_path / "kind", dict(reversed(MADE_FROM.items())), FILES).is_whole()
    assert not Entry(tmp_path / "kind", {**MADE_FROM, "length": 0.25}, FILES).is_whole()
    assert checksums(entry.folder).keys() == {"numbers", "empty"}


@pytest.mark.parametrize("at", [0, 1, 1000, len(CONTENT) - 1])
def test_one_flipped_bit_is_seen(entry, at):
    damaged = bytearray(CONTENT)
    damaged[at] ^= 1 << at % 8
    (entry.folder / "numbers").write_bytes(damaged)
    assert not entry.is_whole()
    fill(entry)
    assert entry.is_whole()
    assert (entry.folder / "numbers").read_bytes() == CONTENT


def test_any_flipped_bit_of_what_describes_it_is_seen_or_changes_nothing(entry):
    meta = entry.folder / META
    text = meta.read_bytes()
    described = json.loads(text)
    for at in range(len(text)):
        damaged = bytearray(text)
        damaged[at] ^= 1
        meta.write_bytes(damaged)
        if entry.is_whole():
            assert json.loads(damaged) == described  # white space


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "numbers").write_bytes(CONTENT[:-1]),
        lambda folder: (folder / "numbers").write_bytes(CONTENT + b"\0"),
        lambda folder: (folder / "empty").unlink(),
        lambda folder: (folder / META).unlink(),
        lambda folder: (folder / META).write_text("[]"),
        lambda folder: (folder / META).write_text('{"made_from": {}, "files": {}}'),
        lambda folder: (folder / META).write_text("[" * 100_000),
        lambda folder: (folder / META).write_bytes(b"\xff"),
        lambda folder: describe(folder, lambda files: files.clear()),
        lambda folder: describe(folder, lambda files: files.pop("empty")),
        lambda folder: describe(folder, lambda files: files.update({"../numbers": files["numbers"]})),
        lambda folder: describe(folder, lambda files: files.update({"../numbers": files.pop("numbers")})),
        lambda folder: describe(folder, lambda files: files.update(empty=None)),
        lambda folder: [(folder / "empty").unlink(), (folder / "empty").mkdir()],
        lambda folder: [(folder / "empty").unlink(), os.mkfifo(folder / "empty")],
        lambda folder: [shutil.rmtree(folder), folder.write_text("a file")],
    ],
)
def test_what_is_not_whole_is_not_used(entry, damage):
    damage(entry.folder)
    assert not entry.is_whole()
    with pytest.raises(OSError, match="not there as written"):
        entry.require_whole()
    assert fill(entry).is_whole()


def test_a_failure_leaves_nothing_and_no_lock_held(tmp_path):
    entry = Entry(tmp_path / "kind", MADE_FROM, FILES)

    def fail() -> None:
        with entry.locked(), entry.renewed() as folder:
            (folder / "numbers").write_bytes(CONTENT)
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert [path.suffix for path in entry.folder.parent.iterdir()] in ([], [".lock"])
    with entry.locked():
        fill(entry)
    assert entry.is_whole()


def test_the_second_waits_says_so_and_makes_nothing(tmp_path, caplog):
    caplog.set_level("INFO", logger="hblm")
    entry, found = Entry(tmp_path / "kind", MADE_FROM, FILES), []

    def second() -> None:
        with Entry(tmp_path / "kind", MADE_FROM, FILES).locked():
            found.append(entry.is_whole())

    waiting = threading.Thread(target=second)
    with entry.locked():
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        assert found == []
        assert "another process fills" in caplog.text
        fill(entry)
    waiting.join(20)
    assert found == [True]
