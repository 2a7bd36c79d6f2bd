"""Files are there whole or not at all, even where the process that writes them dies."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hblm import files, json_files
from hblm.files import unfit_as_name
from hblm.json_files import LARGEST_JSON, is_as_sealed, read_object, sealed
from hblm.runs import environment

WRITER = """
import sys, time
from pathlib import Path
from hblm.files import new_file, new_folder
target = Path(sys.argv[2])
with (new_folder if sys.argv[1] == "folder" else new_file)(target) as temporary:
    part = temporary / "part" if sys.argv[1] == "folder" else temporary
    part.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def start_writer(kind: str, target: Path) -> subprocess.Popen[str]:
    """Start a process that is in the middle of writing `target`."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, kind, str(target)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.stdout.close()
    return process


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_killed_writer_leaves_a_temporary_name_that_the_next_start_removes(
    kind: str, tmp_path: Path
) -> None:
    old = tmp_path / "target"
    old.write_text("old") if kind == "file" else old.mkdir()
    process = start_writer(kind, tmp_path / "target")
    try:
        files.remove_stale(tmp_path)
        names = sorted(path.name for path in tmp_path.iterdir())
        assert len(names) == 2, "the name of a living process was removed"
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert names[0].startswith(".target.")
    assert names[0].endswith(".tmp")
    files.remove_stale(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert old.read_text() == "old" if kind == "file" else list(old.iterdir()) == []


def test_an_exception_leaves_nothing_and_keeps_the_old(tmp_path: Path) -> None:
    files.write_text(tmp_path / "file", "old")

    def break_off(kind: str) -> None:
        if kind == "file":
            with files.new_file(tmp_path / "file") as temporary:
                temporary.write_text("half")
                raise KeyError
        with files.new_folder(tmp_path / "folder") as temporary:
            (temporary / "part").write_text("half")
            raise KeyError

    for kind in ("file", "folder"):
        with pytest.raises(KeyError):
            break_off(kind)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_nothing_is_there_before_the_end(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder"
    with files.new_folder(target) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "part").write_text("whole")
        assert not target.exists()
    assert (target / "sub" / "part").read_text() == "whole"
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


def test_a_folder_replaces_an_older_one_altogether(tmp_path: Path) -> None:
    for content in ("one", "two"):
        with files.new_folder(tmp_path / "folder") as temporary:
            (temporary / content).write_text(content)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["two"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_names_of_another_host_are_removed_only_when_old(tmp_path: Path) -> None:
    fresh, old = tmp_path / ".a.elsewhere.1.tmp", tmp_path / ".b.elsewhere.1.tmp"
    for path in (fresh, old):
        path.write_text("")
    month_ago = time.time() - 30 * 24 * 3600
    os.utime(old, (month_ago, month_ago))
    files.remove_stale(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [fresh.name]


def test_a_temporary_name_says_whose_it_is(tmp_path: Path) -> None:
    name = files.temporary_beside(tmp_path / "a.json").name
    assert name == f".a.json.{socket.gethostname()}.{os.getpid()}.tmp"


def test_canonical_json_does_not_depend_on_order_and_refuses_nan() -> None:
    assert json_files.canonical_json({"b": [1.5, None], "a": "é"}) == '{"a":"\\u00e9","b":[1.5,null]}'
    with pytest.raises(ValueError, match="JSON"):
        json_files.canonical_json({"loss": float("nan")})


def test_hashes_of_a_text_and_of_its_file_agree(tmp_path: Path) -> None:
    text = "naïve\n" * 300_000  # more than one block
    files.write_text(tmp_path / "file", text)
    assert files.sha256_file(tmp_path / "file") == files.sha256_text(text)


def test_json_is_written_with_its_letters(tmp_path: Path) -> None:
    json_files.write_json(tmp_path / "a.json", {"name": "Ørsted"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "Ørsted" in text
    assert text.endswith("}\n")
    with pytest.raises(ValueError, match="JSON"):
        json_files.write_json(tmp_path / "a.json", {"loss": float("inf")})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "Ørsted"}


def test_the_environment_names_code_and_versions() -> None:
    found = environment.environment()
    assert {"hblm", "git_commit", "git_dirty", "python", "platform", "host", "versions"} <= set(found)
    assert found["versions"]["torch"]
    json_files.canonical_json(found)


@pytest.mark.parametrize("name", ["wos", "Café-v1.1_seed1", "a b", "文書", ".hidden", "a..b", "x" * 255])
def test_what_can_name_a_file(name, tmp_path):
    assert unfit_as_name(name) == ""
    (tmp_path / name).write_text("")


UNFIT = {
    "names no file": ["", " ", ".", ".."],
    "separator": ["a/b", "/", "../x", "a\\b"],
    "control character": ["a\0", "\x1b[31m", "a\nb", "\x7f", "\x9b", "a\u2028b"],
    "lone surrogate": ["\ud800", "a\udcff"],
    "too long": ["x" * 256, "é" * 128],
}


@pytest.mark.parametrize(("reason", "name"), [(why, name) for why, names in UNFIT.items() for name in names])
def test_what_cannot_name_a_file(reason, name):
    assert reason in unfit_as_name(name)


def test_a_seal_is_that_of_the_values():
    content = sealed({"b": [1.5, None, "é"], "a": {"x": True}, 3: "three"})
    read = json.loads(json.dumps(content))
    assert is_as_sealed(read)
    assert is_as_sealed(dict(reversed(read.items())))
    for name in read:
        assert not is_as_sealed({key: value for key, value in read.items() if key != name})
        assert not is_as_sealed({**read, name: "other"})
    assert not is_as_sealed({**read, "more": None})
    assert not is_as_sealed({**read, "b": math.nan})


def test_a_hash_is_computed_once_for_each_state_of_a_file(tmp_path, monkeypatch):
    file, asked = tmp_path / "weights", []
    monkeypatch.setattr(files, "sha256_file", lambda path: asked.append(path) or str(len(asked)))
    file.write_bytes(b"abc")
    assert files.sha256_once(file) == files.sha256_once(file) == "1"
    (tmp_path / "other").write_bytes(b"abd")
    os.utime(tmp_path / "other", ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    (tmp_path / "other").replace(file)  # of the same size and time
    assert files.sha256_once(file) == "2"


ODD_JSON = {
    "nested deeply": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested deeper than is walked": b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}",
    "a number of 400 digits": b'{"a": ' + b"1" * 400 + b"}",
    "a number of 5,000 digits": b'{"a": ' + b"1" * 5_000 + b"}",
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "half a pair of surrogates": b'{"a": "\\ud800"}',
    "not UTF-8": b'{"a": "\xe9"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "empty": b"",
    "cut short": b'{"a": [1',
    "a list": b"[1]",
}


@pytest.mark.parametrize("kind", ODD_JSON)
def test_a_json_file_that_cannot_be_used_is_a_reason_in_words(kind, tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(ODD_JSON[kind])
    with pytest.raises(ValueError, match=r"^(not valid JSON: |expected an object, found \[1\])") as caught:
        read_object(file)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "large"])
def test_what_is_no_file_is_neither_read_nor_waited_for(kind, tmp_path):
    place = tmp_path / "a.json"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    else:
        with place.open("wb") as stream:
            stream.truncate(LARGEST_JSON + 1)
    with pytest.raises(ValueError, match=r"not a file; write|Is a directory|at most"):
        read_object(place)


def test_a_byte_order_mark_is_no_fault_and_a_missing_file_is_itself(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_object(tmp_path / "a.json") == {"a": 1}
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "b.json")
