"""Corpora of many small files: which are stories, in which order, from folders and archives of every size."""

from __future__ import annotations

import functools
import gc
import hashlib
import io
import json
import multiprocessing
import os
import random
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from raws import packed

from hblm.data.raw import archives, many_files, parallel
from hblm.data.raw.many_files import Corpus, ParsedFile, count_loose
from hblm.data.raw.news_xml import parse_newsml
from hblm.errors import DataError
from hblm.files import sha256_file

PATTERN = r"(\d+)s\.xml"
Files = Mapping[str, bytes]
FILES: Files = {
    "b/2/30s.xml": b"thirty",
    "b/2/4s.xml": b"four",
    "b/10/5s.xml": b"five",
    "a/9s.xml": b"nine",
    "1s.xml": b"one",
    "a/notes.txt": b"not a story",
    "a/9s.xml.bak": b"not a story",
    "b/x9s.xml": b"not a story",
}
IN_ORDER = ["1", "9", "5", "30", "4"]  # folders and names as they sort


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in one process, but where a test says otherwise: several take a second to start."""
    monkeypatch.setattr(parallel, "n_cores", lambda: 1)


def text(data: bytes) -> str:
    """Parse a story: its text, in which nothing is wrong but the word."""
    if data == b"wrong":
        raise ValueError("it is wrong")
    return data.decode()


def corpus(path: Path, parse: Callable[[bytes], Any] = text, **more: Any) -> Corpus:
    return Corpus(path, PATTERN, parse, **more)


def read(path: Path, **more: Any) -> list[ParsedFile]:
    return list(corpus(path, **more).files())


def keys(path: Path, **more: Any) -> list[str]:
    return [story.key for story in read(path, **more)]


def fault_in(path: Path, **more: Any) -> str:
    """Return what reading says; what is left open would be told when it is forgotten."""
    with warnings.catch_warnings(record=True) as left_open:
        warnings.simplefilter("always", ResourceWarning)
        with pytest.raises(DataError) as caught:
            read(path, **more)
    assert [str(warning.message) for warning in left_open] == []
    message = str(caught.value)
    assert "\n" not in message
    return message


def archive(kind: str, members: Files, folder: Path) -> bytes:
    path = packed(folder / f"being packed.{kind}", dict(members))
    data = path.read_bytes()
    path.unlink()
    return data


# --- folders


def test_a_folder_is_read_in_the_order_of_folders_and_names(tmp_path: Path) -> None:
    path = packed(tmp_path / "set", dict(FILES))
    assert read(path) == [
        ParsedFile("1", f"{path}/1s.xml", "one", ""),
        ParsedFile("9", f"{path}/a/9s.xml", "nine", ""),
        ParsedFile("5", f"{path}/b/10/5s.xml", "five", ""),
        ParsedFile("30", f"{path}/b/2/30s.xml", "thirty", ""),
        ParsedFile("4", f"{path}/b/2/4s.xml", "four", ""),
    ]


def test_a_story_knows_its_folder() -> None:
    places = {
        "/x/a b/1.xml": "/x/a b/",
        "/x/y.zip:1.xml": "/x/y.zip:",
        "/x/y.zip:a/1.xml": "/x/y.zip:a/",
        "/x/y.zip:z.zip:1.xml": "/x/y.zip:z.zip:",
        "1.xml": "",
    }
    assert {place: ParsedFile("1", place, None, "").folder for place in places} == places


def test_names_fit_whatever_their_case(tmp_path: Path) -> None:
    files = {"1S.XML": b"x", "a/2s.Xml": b"x"}
    assert keys(packed(tmp_path / "set", files)) == ["1", "2"]
    assert keys(packed(tmp_path / "set.zip", files)) == ["1", "2"]


def test_hidden_files_and_those_of_macs_are_left_out(tmp_path: Path) -> None:
    files = {
        "1s.xml": b"x",
        ".2s.xml": b"x",
        ".git/3s.xml": b"x",
        "__MACOSX/4s.xml": b"x",
        "a/.b/5s.xml": b"x",
    }
    for kind in ("set", "set.zip", "set.tar"):
        assert keys(packed(tmp_path / kind, files)) == ["1"]


@pytest.mark.parametrize("kind", ["set", "set.zip", "set.tar.xz"])
def test_only_wanted_stories_are_read(kind: str, tmp_path: Path) -> None:
    parsed = []

    def parse(data: bytes) -> str:
        parsed.append(data)
        return data.decode()

    path = packed(tmp_path / kind, dict(FILES))
    assert sorted(keys(path, parse=parse, wanted=frozenset(["4", "9", "77"]))) == ["4", "9"]
    assert sorted(parsed) == [b"four", b"nine"]


@pytest.mark.parametrize("kind", ["set", "set.zip", "set.tar.gz"])
def test_what_is_wrong_with_a_story_is_told_in_its_place_and_others_are_read(
    kind: str, tmp_path: Path
) -> None:
    path = packed(tmp_path / kind, {"1s.xml": b"one", "2s.xml": b"wrong", "3s.xml": b"three"})
    place = f"{path}/" if kind == "set" else f"{path}:"
    assert read(path) == [
        ParsedFile("1", f"{place}1s.xml", "one", ""),
        ParsedFile("2", f"{place}2s.xml", None, "it is wrong"),
        ParsedFile("3", f"{place}3s.xml", "three", ""),
    ]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", ["set", "set.zip", "set.tar.gz"])
def test_a_story_longer_than_any_is_told_and_not_parsed(
    kind: str, streamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_files, "LONGEST", 5)
    monkeypatch.setattr(many_files, "_STREAMED", 0 if streamed else 1 << 20)
    path = packed(tmp_path / kind, {"1s.xml": b"12345", "2s.xml": b"123456"})
    first, second = read(path)
    assert (first.value, first.fault) == ("12345", "")
    assert (second.value, second.fault) == (None, "more than 5 bytes; no document is that long")


def test_other_faults_of_a_parser_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        read(packed(tmp_path / "set", dict(FILES)), parse=lambda data: 1 // 0)


def test_a_folder_without_stories_has_none(tmp_path: Path) -> None:
    found = corpus(packed(tmp_path / "set", {"a/notes.txt": b"x"}))
    assert list(found.files()) == []
    assert found.sources == []


def test_many_files_of_a_folder_are_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "set", {f"{number:02}s.xml": b"%d" % number for number in range(11)})
    whole = corpus(path)
    expected = list(whole.files())
    for size in (1, 5, 11, 12):
        monkeypatch.setattr(many_files, "_AT_ONCE", size)
        found = corpus(path)
        assert list(found.files()) == expected
        assert found.sources == whole.sources


def test_a_link_to_a_folder_that_is_read_is_not_followed_again(tmp_path: Path) -> None:
    path = packed(tmp_path / "set", {"a/1s.xml": b"x"})
    (path / "b").symlink_to(path / "a")
    (path / "a" / "above").symlink_to(path)
    assert keys(path) == ["1"]


def test_loose_files_are_counted_by_their_names_alone(tmp_path: Path) -> None:
    path = packed(tmp_path / "set", {**FILES, ".hidden/7s.xml": b"", "8S.XML": b""})
    packed(path / "more.zip", {"9s.xml": b""})
    assert count_loose(path, PATTERN) == 6
    assert count_loose(path / "a", PATTERN) == 1


# --- archives


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tgz", "tar.xz", "tar.bz2"])
def test_an_archive_is_read_as_it_is(kind: str, tmp_path: Path) -> None:
    path = packed(tmp_path / f"set.{kind}", dict(FILES))
    found = read(path)
    assert [story.key for story in found] == ["30", "4", "5", "9", "1"]
    assert found[0] == ParsedFile("30", f"{path}:b/2/30s.xml", "thirty", "")


def test_archives_of_a_folder_come_after_its_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    path = packed(tmp_path / "set", {"z/1s.xml": b"x", "a/5s.xml": b"x"})
    packed(path / "a" / "b.zip", {"4s.xml": b"x", "3s.xml": b"x"})
    packed(path / "a" / "a.tar", {"9s.xml": b"x"})
    packed(path / "m.zip", {"7s.xml": b"x"})
    assert keys(path) == ["7", "5", "9", "4", "3", "1"]


def of_one_another(folder: Path) -> Files:
    """Return what a zip of a story, a zip, a tar.xz and a story holds."""
    return {
        "1s.xml": b"one",
        "a/in.zip": archive("zip", {"2s.xml": b"two", "3s.xml": b"three"}, folder),
        "4s.xml": b"four",
        "in.tar.xz": archive("tar.xz", {"b/5s.xml": b"five"}, folder),
        "6s.xml": b"six",
    }


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_in_archives_are_read_where_they_lie(kind: str, tmp_path: Path) -> None:
    path = packed(tmp_path / f"set.{kind}", dict(of_one_another(tmp_path)))
    found = read(path)
    assert [story.key for story in found] == list("123456")
    assert [story.place for story in found[1:5]] == [
        f"{path}:a/in.zip:2s.xml",
        f"{path}:a/in.zip:3s.xml",
        f"{path}:4s.xml",
        f"{path}:in.tar.xz:b/5s.xml",
    ]


def test_archives_without_end_are_refused(tmp_path: Path) -> None:
    members: Files = {"1s.xml": b"x"}
    for depth in range(6):
        data = archive("zip", members, tmp_path)
        path = tmp_path / f"{depth}.zip"
        path.write_bytes(data)
        members = {"in.zip": data}
        if depth < 4:  # four in one another
            assert keys(path) == ["1"]
        else:
            message = fault_in(path)
            assert message.startswith(f"{path}:in.zip:in.zip")
            assert "more than 4 deep" in message


LARGE_FORMS: Mapping[str, Callable[[Path], Files]] = {
    "stories": lambda folder: {f"a/{number}s.xml": b"%d" % number for number in (5, 3, 4, 1, 2, 9, 8)},
    "archives alone": lambda folder: {
        f"{day}.zip": archive("zip", {f"{day}{number}s.xml": b"x" for number in range(3)}, folder)
        for day in (3, 1, 2)
    },
    "both": of_one_another,
    "none": lambda folder: {"notes.txt": b"x"},
}


@pytest.mark.parametrize("at_once", [1, 2, 400])
@pytest.mark.parametrize("form", LARGE_FORMS)
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.xz"])
def test_a_large_archive_gives_the_same_stories_in_the_same_order(
    kind: str, form: str, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path / f"set.{kind}", dict(LARGE_FORMS[form](tmp_path)))
    small = corpus(path)
    expected = list(small.files())
    monkeypatch.setattr(many_files, "_STREAMED", 0)
    monkeypatch.setattr(many_files, "_AT_ONCE", at_once)
    large = corpus(path)
    assert list(large.files()) == expected
    assert large.sources == small.sources


def test_an_archive_is_large_from_a_number_of_bytes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path / "set.zip", {"1s.xml": b"x"})
    opened_here = []
    source = archives.archived

    def noted(archive: Any, *arguments: Any) -> Any:
        opened_here.append(archive)
        return source(archive, *arguments)

    def undone(function: object, shared: object, work: Iterable[object]) -> Iterator[Any]:
        """Take all work and do none of it."""
        assert len(list(work)) == 1
        return iter(())

    monkeypatch.setattr(many_files, "archived", noted)
    monkeypatch.setattr(many_files, "in_order", undone)
    for limit, expected in ((path.stat().st_size + 1, []), (path.stat().st_size, [path])):
        monkeypatch.setattr(many_files, "_STREAMED", limit)
        assert keys(path) == []
        assert opened_here == expected


# --- what a manifest says was read


def test_the_source_of_loose_files_is_a_hash_over_their_hashes_in_order(tmp_path: Path) -> None:
    found = corpus(packed(tmp_path / "set", dict(FILES)))
    assert found.sources == []
    texts = [story.value.encode() for story in found.files()]
    assert [text.decode() for text in texts] == ["one", "nine", "five", "thirty", "four"]
    (source,) = found.sources
    whole = hashlib.sha256(b"".join(hashlib.sha256(text).digest() for text in texts)).hexdigest()
    assert source["sha256"] == whole
    assert (source["matching"], source["files"], source["bytes"]) == (PATTERN, 5, 21)


def test_loose_files_that_are_not_wanted_are_only_counted(tmp_path: Path) -> None:
    found = corpus(packed(tmp_path / "set", dict(FILES)), wanted=frozenset(["30"]))
    assert [story.key for story in found.files()] == ["30"]
    (source,) = found.sources
    assert (source["files"], source["bytes"]) == (5, 6)
    one = hashlib.sha256(hashlib.sha256(b"thirty").digest()).hexdigest()
    assert source["sha256"] == one


def test_sources_are_archives_as_they_lie_in_the_download(tmp_path: Path) -> None:
    path = packed(tmp_path / "set", {"1s.xml": b"x"})
    for name in ("b/2.zip", "a.tar.gz", "b/1.zip"):
        (path / name).parent.mkdir(exist_ok=True)
        packed(path / name, {f"{len(name)}s.xml": b"x"})
    found = corpus(path)
    assert len(list(found.files())) == 4
    loose, *archives = found.sources
    assert loose["files"] == 1
    assert archives == [
        {"name": name, "bytes": (path / name).stat().st_size, "sha256": sha256_file(path / name)}
        for name in ("a.tar.gz", "b/1.zip", "b/2.zip")
    ]


def test_an_archive_alone_is_its_own_source(tmp_path: Path) -> None:
    path = packed(tmp_path / "set.zip", dict(FILES))
    found = corpus(path)
    assert len(list(found.files())) == 5
    assert found.sources == [{"name": "set.zip", "bytes": path.stat().st_size, "sha256": sha256_file(path)}]


# --- faults


def changed(data: bytes, at: int) -> bytes:
    """Return the bytes with one of them changed."""
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


NOISE = random.Random(5).randbytes(3000)
LONG = {f"{number}s.xml": NOISE[number * 1000 :][:1000].hex().encode() for number in range(3)}
DAMAGE: Mapping[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "zip, nothing": ("zip", lambda data: b"", ":"),
    "zip, another kind of file": ("zip", lambda data: b"<html>", ":"),
    "zip, cut": ("zip", lambda data: data[: len(data) // 2], ":"),
    "zip, a byte": ("zip", lambda data: changed(data, len(data) // 2), ":1s.xml:"),
    "tar, cut in a story": ("tar", lambda data: data[:3000], ":"),
    "tar, cut between stories": ("tar", lambda data: data[: 2 * (512 + 2048)], ":"),
    "tar, a byte of a header": ("tar", lambda data: changed(data, 512 + 2048 + 3), ":"),
    "tar.gz, cut": ("tar.gz", lambda data: data[: len(data) // 2], ":"),
    "tar.gz, a byte": ("tar.gz", lambda data: changed(data, len(data) // 2), ":"),
    "tar.xz, nothing": ("tar.xz", lambda data: b"", ":"),
    "tar.xz, cut": ("tar.xz", lambda data: data[: len(data) // 2], ":"),
    "tar.xz, its last bytes": ("tar.xz", lambda data: data[:-4], ":"),
    "tar.xz, a byte": ("tar.xz", lambda data: changed(data, len(data) // 2), ":"),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_with_the_archive_wherever_it_lies(
    name: str, streamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_files, "_STREAMED", 0 if streamed else 1 << 30)
    kind, damage, place = DAMAGE[name]
    data = damage(archive(kind, LONG, tmp_path))
    folder = packed(tmp_path / "set", {f"b.{kind}": data, "a.zip": archive("zip", FILES, tmp_path)})
    message = fault_in(folder)
    assert message.startswith(f"{folder}/b.{kind}{place}")
    assert "damaged or cut short" in message
    outer = packed(tmp_path / "outer.zip", {"in.tar": archive("tar", {f"b.{kind}": data}, tmp_path)})
    message = fault_in(outer)
    assert message.startswith(f"{outer}:in.tar:b.{kind.removesuffix('.xz').removesuffix('.gz')}")
    assert "damaged or cut short" in message


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_an_encrypted_archive_and_one_that_climbs_are_refused(
    streamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_files, "_STREAMED", 0 if streamed else 1 << 30)
    data = bytearray(archive("zip", {"1s.xml": b"x"}, tmp_path))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "e.zip").write_bytes(data)
    assert fault_in(tmp_path / "e.zip") == f"{tmp_path}/e.zip: 1s.xml is encrypted; unpack the archive first"
    for kind in ("zip", "tar", "tar.gz"):
        path = packed(tmp_path / f"c.{kind}", {"1s.xml": b"x", "../2s.xml": b"x"})
        assert fault_in(path).startswith(f"{path}: holds '../2s.xml', a path that leaves")


def test_what_is_not_there_or_no_archive_is_named(tmp_path: Path) -> None:
    assert fault_in(tmp_path / "none").startswith(f"{tmp_path}/none: cannot be read: No such file")
    (tmp_path / "1s.xml").write_bytes(b"x" * 600)
    assert fault_in(tmp_path / "1s.xml").startswith(f"{tmp_path}/1s.xml: ")


def test_a_file_that_goes_away_is_named(tmp_path: Path) -> None:
    path = packed(tmp_path / "set", dict(FILES))
    found = corpus(path, parse=lambda data: (path / "b" / "2" / "4s.xml").unlink(missing_ok=True)).files()
    with pytest.raises(DataError, match=r"/set/b/2/4s.xml: cannot be read: No such file or directory$"):
        list(found)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_reading_may_stop_early_and_leaves_nothing_open(
    streamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_files, "_STREAMED", 0 if streamed else 1 << 30)
    monkeypatch.setattr(many_files, "_AT_ONCE", 1)
    path = packed(tmp_path / "set", {"1s.xml": b"x"})
    for name in ("a.zip", "b.tar.xz"):
        packed(path / name, LONG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for stop in range(1, 7):
            found = corpus(path).files()
            for _ in range(stop):
                next(found)
            found.close()  # type: ignore[attr-defined]
        gc.collect(1)
    assert [str(warning.message) for warning in caught] == []


# --- on several cores


def newsml(number: int) -> bytes:
    return f'<newsitem itemid="{number}"><text><p>Story {number}.</p></text></newsitem>'.encode()


def test_several_processes_give_the_same_stories_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"a{number}/{number}s.xml": newsml(number) for number in range(10)}
    files |= {f"{day}.zip": archive("zip", {f"{day}s.xml": newsml(day)}, tmp_path) for day in (30, 31)}
    files["b.tar"] = archive("tar", {f"{number}s.xml": newsml(number) for number in range(50, 57)}, tmp_path)
    nested = {f"{day}.zip": archive("zip", {f"{day}s.xml": newsml(day)}, tmp_path) for day in (70, 71)}
    files["c.tar"] = archive("tar", {**nested, "80s.xml": newsml(80)}, tmp_path)
    files["d.zip"] = archive("zip", {"90s.xml": b"<newsitem>", "91s.xml": newsml(91)}, tmp_path)
    path = packed(tmp_path / "set", files)
    parse = functools.partial(parse_newsml, text="body", paragraphs="space")
    alone = corpus(path, parse)
    expected = list(alone.files())
    assert len(expected) == 24
    assert [story.key for story in expected if story.fault] == ["90"]
    monkeypatch.setattr(parallel, "n_cores", lambda: 2)
    monkeypatch.setattr(many_files, "_STREAMED", 4000)  # which the tars are above, and the zips below
    monkeypatch.setattr(many_files, "_AT_ONCE", 3)
    together = corpus(path, parse)
    found = list(together.files())
    assert sorted(found) == sorted(expected)
    assert together.sources == alone.sources
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_bad_archive_in_another_process_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "n_cores", lambda: 2)
    days = {f"{day}.zip": archive("zip", {f"{day}s.xml": newsml(day)}, tmp_path) for day in range(10, 30)}
    days["17.zip"] = days["17.zip"][:-9]
    path = packed(tmp_path / "set", days)
    parse = functools.partial(parse_newsml, text="body", paragraphs="space")
    assert fault_in(path, parse=parse).startswith(f"{path}/17.zip: damaged or cut short")
    assert multiprocessing.active_children() == []


def test_a_zip_may_hold_a_name_twice(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile's
        with zipfile.ZipFile(stream, "w") as target:
            target.writestr("1s.xml", "one")
            target.writestr("1s.xml", "another")
    (tmp_path / "x.zip").write_bytes(stream.getvalue())
    assert [story.value for story in read(tmp_path / "x.zip")] == ["one", "another"]


# --- what is no file, or has no name


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_among_the_files_is_told_and_not_waited_for(tmp_path: Path) -> None:
    path = packed(tmp_path / "set", dict(FILES))
    os.mkfifo(path / "a" / "77s.xml")
    os.mkfifo(path / "a" / "b.zip")
    (path / "c.zip").symlink_to(path / "gone")
    told = [story for story in read(path) if story.fault]
    (file,) = told
    assert (file.key, file.place, file.value) == ("77", f"{path}/a/77s.xml", None)
    assert file.fault.startswith("a named pipe (FIFO), not a file")


@pytest.mark.skipif(sys.platform != "linux", reason="names on disk are Unicode elsewhere")
def test_the_name_of_an_archive_need_not_be_utf_8(tmp_path: Path) -> None:
    made = packed(tmp_path / "x.zip", {"1s.xml": b"one"})
    folder = tmp_path / "set"
    folder.mkdir()
    made.rename(folder / os.fsdecode(b"caf\xe9.zip"))
    found = corpus(folder)
    assert [story.key for story in found.files()] == ["1"]
    assert json.loads(json.dumps(found.sources))[0]["name"].encode("utf-8") == b"caf\\udce9.zip"


def test_a_file_that_is_no_archive_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "ids.dat").write_text("1")
    assert fault_in(tmp_path / "ids.dat") == f"{tmp_path}/ids.dat: neither a folder nor an archive"
