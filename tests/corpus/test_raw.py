"""Raw downloads: folders, archives and compressed files; every way in which their bytes can be wrong."""

from __future__ import annotations

import bz2
import codecs
import csv
import gc
import gzip
import io
import itertools
import lzma
import os
import random
import stat
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hblm.artifacts import sha256_file
from hblm.corpus import raw as raw_module
from hblm.corpus.raw import Raw, RawFile, read_lines, read_rows, read_text, require_encoding
from hblm.errors import ConfigError, DataError, HblmError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
ARCHIVES = [
    "folder",
    "X.ZIP",
    "x.zip",
    "x.tar",
    "x.tar.gz",
    "x.tgz",
    "x.tar.xz",
    "x.txz",
    "x.tar.bz2",
    "x.tbz2",
]
TEXT = "".join(random.Random(3).choices("abcdef ghij\n", k=4000)).encode()


def file_of(data: bytes, name: str = "x.txt") -> RawFile:
    """Return a file that lies in memory."""
    return RawFile(name, name, Path(name), lambda: io.BytesIO(data))


def packed(path: Path, members: dict[str, bytes]) -> Path:
    """Write members into a folder or an archive, whichever the path's name says."""
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    elif path.suffix:
        modes = {"gz": "w:gz", "tgz": "w:gz", "xz": "w:xz", "txz": "w:xz", "bz2": "w:bz2", "tbz2": "w:bz2"}
        with tarfile.open(path, modes.get(path.suffix[1:], "w")) as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    else:
        for name, data in members.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return path


def content(path: Path) -> dict[str, list[str]]:
    """Return the lines of every file of a download."""
    with Raw(path) as raw:
        return {file.name: list(read_lines(file)) for file in raw.files}


def fault_in(path: Path) -> str:
    """Return what reading a whole download says."""
    with pytest.raises(DataError) as caught:
        content(path)
    return str(caught.value)


# --- what a download holds


@pytest.mark.parametrize("kind", ARCHIVES)
def test_folders_and_archives_hold_the_same(kind: str, tmp_path: Path) -> None:
    members = {"b.txt": b"1\n2\n", "dir/a.csv": "é\n".encode(), "dir/c.txt.gz": gzip.compress(b"3\n")}
    path = packed(tmp_path / kind, members)
    assert content(path) == {"b.txt": ["1", "2"], "dir/a.csv": ["é"], "dir/c.txt": ["3"]}
    assert list(tmp_path.iterdir()) == [path]
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("upper", [False, True])
def test_a_single_file_may_be_compressed(suffix: str, upper: bool, tmp_path: Path) -> None:
    path = tmp_path / f"a.txt{suffix.upper() if upper else suffix}"
    path.write_bytes(COMPRESS[suffix](b"one\ntwo\n"))
    assert content(path) == {"a.txt": ["one", "two"]}


def test_a_single_plain_file_is_a_download(tmp_path: Path) -> None:
    path = tmp_path / "a.b.csv"
    path.write_bytes(b"one\n")
    with Raw(path) as raw:
        file = raw.find("a.b.csv")
        assert (file.name, file.base, file.place, file.stored) == ("a.b.csv", "a.b.csv", str(path), path)


@pytest.mark.parametrize("kind", ["folder", "x.zip", "x.tar.gz"])
def test_hidden_files_and_those_of_macs_are_left_out(kind: str, tmp_path: Path) -> None:
    hidden = [".DS_Store", "a/._b.txt", ".git/config", "__MACOSX/a/._b.txt", "__MACOSX/b.txt"]
    path = packed(tmp_path / kind, dict.fromkeys([*hidden, "a/b.txt"], b"x"))
    assert list(content(path)) == ["a/b.txt"]


def test_a_leading_dot_folder_of_tar_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.tar", {"./a/b.txt": b"x", "./.hidden": b"x"})
    assert list(content(path)) == ["a/b.txt"]


def test_a_zip_made_by_old_windows_programs_has_folders(tmp_path: Path) -> None:
    assert list(content(packed(tmp_path / "x.zip", {"set\\a.txt": b"x"}))) == ["set/a.txt"]


def test_links_and_folders_in_archives_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, kind in (("s.txt", tarfile.SYMTYPE), ("h.txt", tarfile.LNKTYPE), ("d", tarfile.DIRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("a.txt"))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("s.txt")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
        archive.writestr("d/", "")
        archive.writestr("a.txt", "")
    for name in ("x.tar", "x.zip"):
        assert list(content(tmp_path / name)) == ["a.txt"]


def test_a_hidden_folder_above_the_download_hides_nothing(tmp_path: Path) -> None:
    path = packed(tmp_path / ".cache" / "set", {"a.txt": b"x"})
    assert list(content(path)) == ["a.txt"]


@pytest.mark.parametrize("kind", ["folder", "x.zip", "x.tar"])
def test_a_download_without_files_is_refused(kind: str, tmp_path: Path) -> None:
    path = packed(tmp_path / kind, {".hidden": b"x"})
    with pytest.raises(DataError, match=f"{kind}: holds no files"):
        Raw(path)


def test_a_download_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"raw=.*nowhere.zip is not there"):
        Raw(tmp_path / "nowhere.zip")


def test_a_hidden_file_that_was_given_is_not_called_no_file(tmp_path: Path) -> None:
    path = tmp_path / ".reviews.csv"
    path.write_bytes(b"x\n")
    assert content(path) == {".reviews.csv": ["x"]}


def test_patterns_look_at_names_without_folders_whatever_the_case(tmp_path: Path) -> None:
    path = packed(tmp_path / "set", dict.fromkeys(["Train/A.TXT", "train/b.csv", "b/train.txt"], b"x"))
    raw = Raw(path)
    assert [file.name for file in raw.matching("*.txt")] == ["Train/A.TXT", "b/train.txt"]
    assert [file.name for file in raw.matching("TRAIN*")] == ["b/train.txt"]
    assert [file.name for file in raw.matching("a.*", "b.*")] == ["Train/A.TXT", "train/b.csv"]
    assert raw.matching("train/*") == []
    assert raw.find("nothing", "train.TXT").name == "b/train.txt"


def test_finding_none_or_several_names_what_is_there(tmp_path: Path) -> None:
    path = packed(tmp_path / "set", {f"{n:02}.txt": b"x" for n in range(12)})
    with pytest.raises(DataError) as caught:
        Raw(path).find("a.csv", "b.csv")
    assert str(caught.value).startswith(f"{path}: no a.csv or b.csv; it holds 00.txt, 01.txt, ")
    assert str(caught.value).endswith("07.txt and 4 more")
    with pytest.raises(DataError, match=r"set: 0\*\.txt is there 10 times \(.*00.txt, .*01.txt, .*keep one"):
        Raw(path).find("0*.txt")


def test_finding_a_file_plain_and_compressed_tells_the_two_apart(tmp_path: Path) -> None:
    path = packed(tmp_path / "set", {"a.txt": b"x", "a.txt.gz": gzip.compress(b"x")})
    with pytest.raises(DataError, match=r"a.txt is there 2 times .*a\.txt\.gz"):
        Raw(path).find("a.txt")


def test_the_sources_of_a_folder_are_the_files_that_were_opened(tmp_path: Path) -> None:
    path = packed(tmp_path / "set", {"b/x.txt": b"abc", "a.txt": b"x", "c.txt.bz2": bz2.compress(b"y")})
    with Raw(path) as raw:
        assert raw.sources() == []
        for name in ("x.txt", "c.txt", "x.txt"):
            assert list(read_lines(raw.find(name)))
        assert raw.sources() == [
            {"name": name, "bytes": (path / name).stat().st_size, "sha256": sha256_file(path / name)}
            for name in ("b/x.txt", "c.txt.bz2")
        ]


@pytest.mark.parametrize("kind", ["x.zip", "x.tar.gz", "x.txt"])
def test_the_source_of_an_archive_is_the_archive(kind: str, tmp_path: Path) -> None:
    path = packed(tmp_path / kind, {"a.txt": TEXT, "b.txt": TEXT}) if kind != "x.txt" else tmp_path / kind
    path.touch()
    with Raw(path) as raw:
        assert raw.sources() == []
        for file in raw.files:
            with file.open():
                pass
        assert raw.sources() == [
            {"name": kind, "bytes": path.stat().st_size, "sha256": sha256_file(path)},
        ]


# --- archives that would do harm

CLIMBING = [
    "../a.txt",
    "a/../../b.txt",
    "a/..",
    "/etc/a.txt",
    "//host/a.txt",
    "C:\\a.txt",
    "c:a.txt",
    "..\\a.txt",
    "a\\..\\..\\b.txt",
    "\\a.txt",
    "\\\\host\\share\\a.txt",
]


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize("kind", ["x.zip", "x.tar", "x.tar.gz"])
def test_a_path_that_climbs_is_refused_and_nothing_is_written(kind: str, name: str, tmp_path: Path) -> None:
    inner = tmp_path / "in" / "here"
    inner.mkdir(parents=True)
    path = packed(inner / kind, {"good.txt": b"x", name: b"x"})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError) as caught:
        Raw(path)
    assert str(caught.value).startswith(f"{path}: holds {name!r}, a path that leaves the folder")
    assert sorted(tmp_path.rglob("*")) == before
    assert list(Path.cwd().iterdir()) == []
    assert not Path("/etc/a.txt").exists()


@pytest.mark.parametrize("name", ["a..b.txt", "...txt/a", "a/b..", "CC:.txt", "a/C:b.txt"])
def test_dots_and_colons_in_names_are_no_climbing(name: str, tmp_path: Path) -> None:
    with Raw(packed(tmp_path / "x.zip", {name: b"x", "a.txt": b"x"})) as raw:
        assert [file.name for file in raw.files] == sorted({name, "a.txt"} - {"...txt/a"})


@pytest.mark.parametrize("kind", ["x.zip", "x.tar", "x.tar.gz"])
def test_a_refused_archive_is_closed(kind: str, tmp_path: Path) -> None:
    path = packed(tmp_path / kind, {"../a.txt": b"x"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(DataError):
            Raw(path)
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


# --- damage


def with_flags(archive: bytes, offset: int, value: bytes) -> bytes:
    """Return a zip of one member with a field of its headers replaced; the offset is the local header's."""
    central = archive.index(b"PK\x01\x02")
    changed = bytearray(archive)
    changed[offset : offset + len(value)] = value
    changed[central + offset + 2 : central + offset + 2 + len(value)] = value
    return bytes(changed)


def zipped(name: str = "a.txt", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of one member."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(name, TEXT)
    return stream.getvalue()


def tarred(mode: str) -> bytes:
    """Return a tar of two members."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name in ("a.txt", "b.txt"):
            info = tarfile.TarInfo(name)
            info.size = len(TEXT)
            archive.addfile(info, io.BytesIO(TEXT))
    return stream.getvalue()


def flipped(data: bytes, at: int) -> bytes:
    """Return the bytes with one of them changed."""
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def cut(data: bytes, start: int, stop: int) -> bytes:
    """Return the bytes without some in the middle."""
    return data[:start] + data[stop:]


GZ, ZIP, STORED = gzip.compress(TEXT), zipped(), zipped(method=zipfile.ZIP_STORED)
TAR, TAR_GZ, TAR_BZ2 = tarred("w"), tarred("w:gz"), tarred("w:bz2")
SECOND = 512 + 4096  # where the second member's header starts

# fault -> name of the file, its bytes, and what the message must say after the file's name
DAMAGED: dict[str, tuple[str, bytes, str]] = {
    "zip cut short": ("x.zip", ZIP[:-30], "damaged or cut short"),
    "zip with a hole": ("x.zip", cut(ZIP, 100, 400), ""),
    "zip with a changed byte": ("x.zip", flipped(STORED, 200), "damaged or cut short (Bad CRC-32"),
    "zip with a changed compressed byte": ("x.zip", flipped(ZIP, 400), "damaged or cut short"),
    "a text called zip": ("x.zip", TEXT, "damaged or cut short (File is not a zip file)"),
    "an empty zip file": ("x.zip", b"", "damaged or cut short"),
    "an encrypted zip": (
        "x.zip",
        with_flags(ZIP, 6, b"\1\0"),
        "a.txt is encrypted; unpack the archive first",
    ),
    "a zip of an unknown method": ("x.zip", with_flags(ZIP, 8, b"\x63\0"), "cannot be unpacked here"),
    "a zip with a broken name": ("x.zip", zipped("é.txt").replace(b"\xc3\xa9", b"\xff\xff"), "damaged"),
    "tar cut in a member": ("x.tar", TAR[: SECOND + 1000], "damaged or cut short"),
    "tar cut in a header": ("x.tar", TAR[: SECOND + 100], "damaged or cut short"),
    "tar cut between members": ("x.tar", TAR[:SECOND], "damaged or cut short"),
    "tar with a changed header": ("x.tar", flipped(TAR, SECOND + 3), "damaged or cut short"),
    "a text called tar": ("x.tar", TEXT, "damaged or cut short"),
    "tar.gz cut short": ("x.tar.gz", TAR_GZ[: len(TAR_GZ) // 2], "damaged or cut short"),
    "tgz cut at its start": ("x.tgz", TAR_GZ[:5], "damaged or cut short"),
    "tar.xz cut short": ("x.tar.xz", tarred("w:xz")[:1000], "damaged or cut short"),
    "tar.bz2 cut short": ("x.tar.bz2", TAR_BZ2[:1000], "damaged or cut short"),
    "gz cut short": ("x.txt.gz", GZ[: len(GZ) // 2], "damaged or cut short (Compressed file ended before"),
    "gz without its end": ("x.txt.gz", GZ[:-4], "damaged or cut short"),
    "gz with a changed byte": ("x.txt.gz", flipped(GZ, 300), "damaged or cut short"),
    "a text called gz": ("x.txt.gz", TEXT, "damaged or cut short (Not a gzipped file"),
    "bz2 cut short": ("x.txt.bz2", bz2.compress(TEXT)[:500], "damaged or cut short"),
    "a text called bz2": ("x.txt.bz2", TEXT, "Invalid data stream"),
    "xz cut short": ("x.txt.xz", lzma.compress(TEXT)[:500], "damaged or cut short"),
    "a text called xz": ("x.txt.xz", TEXT, "damaged or cut short (Input format not supported"),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_damage_is_named_with_the_file(fault: str, tmp_path: Path) -> None:
    name, data, expected = DAMAGED[fault]
    (tmp_path / name).write_bytes(data)
    message = fault_in(tmp_path / name)
    assert message.startswith(f"{tmp_path / name}:")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2"])
def test_no_changed_byte_of_a_compressed_tar_goes_unseen(kind: str, tmp_path: Path) -> None:
    data = {"tar.gz": TAR_GZ, "tar.bz2": TAR_BZ2}[kind]
    path = tmp_path / f"x.{kind}"
    path.write_bytes(data)
    whole = content(path)
    unseen = []
    for at in range(20, len(data) - 20, 40):
        path.write_bytes(flipped(data, at))
        try:
            found = content(path)
        except DataError:
            continue
        if found != whole:
            unseen.append(at)
    assert unseen == []


def test_a_member_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(flipped(STORED, 200))
    assert fault_in(tmp_path / "x.zip").startswith(f"{tmp_path / 'x.zip'}:a.txt: ")


def test_a_fault_of_the_disk_is_named(tmp_path: Path) -> None:
    with Raw(packed(tmp_path / "set", {"a.txt": b"x"})) as raw:
        (tmp_path / "set" / "a.txt").unlink()
        with pytest.raises(DataError, match=r"a.txt: cannot be read: No such file or directory"):
            list(read_lines(raw.files[0]))


# --- encodings


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (b"", "utf-8"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("told", [None, "cp1252"])
def test_a_mark_says_the_encoding_whatever_was_told(
    mark: bytes, encoding: str, end: str, told: str | None
) -> None:
    file = file_of(mark + end.join(["één", "čeština", "drie"]).encode(encoding))
    expected = ["één", "čeština", "drie"]
    told = told if mark else None
    assert list(read_lines(file, told)) == expected
    assert "".join(read_text(file, told)) == "\n".join(expected)


def test_a_byte_of_a_character_is_no_line_end() -> None:
    assert list(read_lines(file_of("čਊ\rb\rc".encode("utf-16")))) == ["čਊ", "b", "c"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "UTF-16LE", "utf_16_le"])
def test_utf_16_without_a_mark_is_read_if_it_is_said(encoding: str) -> None:
    assert list(read_lines(file_of("ab\ncd".encode(encoding)), encoding)) == ["ab", "cd"]


@pytest.mark.parametrize("encoding", ["utf-32", "utf-32-le"])
def test_utf_32_is_read_if_it_is_said(encoding: str) -> None:
    assert list(read_lines(file_of("ab\ncd".encode(encoding)), encoding)) == ["ab", "cd"]


@pytest.mark.parametrize("encoding", ["cp1252", "iso-8859-1", "cp037", "gb18030"])
def test_another_encoding_is_read_if_it_is_said(encoding: str) -> None:
    assert list(read_lines(file_of("é\nè\n".encode(encoding)), encoding)) == ["é", "è"]


FAR = 200_000  # lines, 2 MB: far beyond what is looked at for the encoding

# fault -> bytes, the encoding that is told, and what the message must say after the file's name
WRONG_ENCODINGS: dict[str, tuple[bytes, str | None, str]] = {
    "first line": (b"caf\xe9\n", None, ":1: not UTF-8 at byte 4 of the line"),
    "last line": (b"a\nb\n\nab\xff", None, ":4: not UTF-8 at byte 3 of the line"),
    "far away": (b"0123456789\n" * FAR + b"ab\xe9c\nx\n", None, f":{FAR + 1}: not UTF-8 at byte 3 "),
    "CRLF": (b"a\r\nb\xe9\r\n", None, ":2: not UTF-8 at byte 2 of the line"),
    "CR": (b"a\rb\rcd\xe9\r", None, ":3: not UTF-8 at byte 3 of the line"),
    "CR, far away": (b"0123456789\r" * FAR + b"ab\xe9\r", None, f":{FAR + 1}: not UTF-8 at byte 3 "),
    "a CR inside a line": (b"a\rb\xff\nc\n", None, ":1: not UTF-8 at byte 4 of the line"),
    "CRs inside earlier lines": (b"a\rb\nc\rd\ne\xff\n", None, ":3: not UTF-8 at byte 2 of the line"),
    "after a mark": (codecs.BOM_UTF8 + b"a\nb\xe9\n", None, ":2: not UTF-8 at byte 2 of the line"),
    "cut in a character": (b"a\ncaf\xc3", None, ":2: not UTF-8 at byte 4 of the line"),
    "ascii": (b"a\nb\xc3\xa9", "ascii", ":2: not ascii at byte 2 of the line"),
    "cp1252": (b"a\nbc\x81", "cp1252", ":2: not cp1252 at byte 3 of the line"),
    "UTF-16": ("a\nb".encode("utf-16") + b"\0\xd8", None, ": not UTF-16; "),
    "UTF-16 without a mark": ("ab".encode("utf-16-le"), "utf-16", ": not UTF-16"),
}


@pytest.mark.parametrize("fault", WRONG_ENCODINGS)
def test_bytes_in_another_encoding_are_named_with_their_place(fault: str) -> None:
    data, encoding, expected = WRONG_ENCODINGS[fault]
    with pytest.raises(DataError) as caught:
        list(read_lines(file_of(data, "a.txt"), encoding))
    assert str(caught.value).lower().startswith(f"a.txt{expected}".lower())
    assert "write dataset.prepare.encoding=" in str(caught.value)
    with pytest.raises(DataError):
        "".join(read_text(file_of(data), encoding))


def test_utf_16_without_a_mark_blames_no_wrong_line() -> None:
    lone = "ab\ncd\n".encode("utf-16-le") + b"\0\xd8a\0\n\0"
    with pytest.raises(DataError, match=r"^x.txt(:3)?: not utf-16-le"):
        list(read_lines(file_of(lone), "utf-16-le"))


def test_the_place_in_a_compressed_member_is_that_in_its_text(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.zip", {"dir/a.txt.gz": gzip.compress(b"a\nb\xe9\n")})
    assert fault_in(path).startswith(f"{path}:dir/a.txt.gz:2: not UTF-8 at byte 2 ")


@pytest.mark.parametrize("read", [read_lines, read_text])
def test_a_file_of_nul_bytes_is_no_text(read: Callable[[RawFile], Iterator[str]]) -> None:
    for data in (bytes(5000), TEXT[:1000] + bytes(4000), "a plain text".encode("utf-16-le")):
        with pytest.raises(DataError, match=r"^x.txt: not a text in utf-8: .* NUL; .*encoding=utf-16-le"):
            list(read(file_of(data)))


@pytest.mark.parametrize("name", [None, "utf-8", "CP1252", "latin 1", "utf-16-le"])
def test_an_encoding_that_is_known_passes(name: str | None) -> None:
    require_encoding(name)


@pytest.mark.parametrize("name", ["utf-9", "ansi?", "hex", "rot13", "zlib"])
def test_an_encoding_that_no_text_has_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"dataset.prepare.encoding={name}.* is no encoding; write utf-8"):
        require_encoding(name)


# --- lines

# kind -> bytes and the lines that they are
LINES: dict[str, tuple[bytes, list[str]]] = {
    "nothing": (b"", []),
    "only blanks": (b"\n \r\n\t\n", []),
    "no last end": (b"a\nb", ["a", "b"]),
    "Windows ends": (b"a\r\nb\r\n", ["a", "b"]),
    "old Mac's ends": (b"a\rb\r", ["a", "b"]),
    "a CR in a line": (b"a\rb\nc\r\n", ["a\rb", "c"]),
    "ends doubled by a bad copy": (b"a\r\r\nb\r\r\n", ["a", "b"]),
    "blank lines at the end": (b"a\n\n \n\r\n\t", ["a"]),
    "blank lines in the middle": (b"a\n\n\n \nb\n\n", ["a", "", "", "", "b"]),
    "blank lines at the start": (b"\n\na\n", ["", "", "a"]),
    "blank lines of an old Mac": (b"a\r\rb\r\r", ["a", "", "b"]),
    "separators that end nothing": (
        "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\nh".encode(),
        ["a\u2028b\u2029c\x85d\x0be\x0cf\x1cg", "h"],
    ),
    "white space around a text": (b"  a \n\tb\t\n", ["  a ", "\tb\t"]),
    "a NUL": (b"a long enough text\0\n", ["a long enough text\0"]),
}


@pytest.mark.parametrize("kind", LINES)
def test_lines_end_where_they_should(kind: str) -> None:
    data, expected = LINES[kind]
    assert list(read_lines(file_of(data))) == expected


def test_a_windows_end_on_the_edge_of_what_is_looked_at_is_one_end() -> None:
    long = b"a" * (raw_module._HEAD - 1)
    assert list(read_lines(file_of(long + b"\r\nb\r\nc\r\n")))[1:] == ["b", "c"]


def test_a_text_comes_whole_with_plain_line_ends() -> None:
    assert "".join(read_text(file_of(b"\r\na\r\n\rb\n\n"))) == "\na\n\nb\n\n"
    long = "é" * 200_000
    assert "".join(read_text(file_of(long.encode()))) == long


WITHOUT_ENDS = st.text(st.sampled_from("ab \té\u2028\x85\x0b\x0c\x1e\u00a0\ufeff😀"), max_size=5)


@given(
    st.lists(WITHOUT_ENDS, max_size=8),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8-sig", "utf-16", "gb18030"]),
    st.booleans(),
)
def test_lines_that_were_written_are_read_again(
    lines: list[str], end: str, encoding: str, last_end: bool
) -> None:
    data = (end.join(lines) + end * last_end).encode(encoding)
    expected = ["" if line.isspace() else line for line in lines]
    while expected and not expected[-1]:
        expected.pop()
    assert list(read_lines(file_of(data), encoding)) == expected


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Make ten characters the longest line."""
    before = csv.field_size_limit()
    monkeypatch.setattr(raw_module, "LONGEST", 10)
    yield 10
    csv.field_size_limit(before)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""])
def test_a_line_above_the_longest_is_refused(end: str, short: int) -> None:
    file = file_of(f"a{end or chr(10)}{'é' * (short + 1)}{end}".encode())
    with pytest.raises(DataError, match=r"^x.txt:2: a line of more than 10 characters; .*of file"):
        list(read_lines(file))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""])
def test_a_line_of_the_longest_length_is_read(end: str, short: int) -> None:
    line = "é" * short
    assert list(read_lines(file_of(f"{line}{end}".encode()))) == [line]


LONG_LINE = """
import resource, sys
from pathlib import Path
from hblm.corpus.raw import Raw, read_lines
from hblm.errors import DataError
with Raw(Path(sys.argv[1])) as raw:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        list(read_lines(raw.files[0]))
    except DataError as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
@pytest.mark.parametrize("kind", ["plain", "compressed", "in another encoding"])
def test_an_endless_line_is_refused_in_little_memory(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.txt.gz" if kind == "compressed" else "a.txt")
    with gzip.open(path, "wb", 1) if kind == "compressed" else path.open("wb") as stream:
        stream.write(b"a line\n")
        if kind == "in another encoding":
            stream.write(b"caf\xe9 ")
        for _ in range(200):
            stream.write(b"word " * 200_000)
    found = subprocess.run(
        [sys.executable, "-c", LONG_LINE, str(path)], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    expected = "not UTF-8 at byte 4" if kind == "in another encoding" else "a line of more than 16,777,216 "
    assert found[0].startswith(f"{path}:2: {expected}")
    assert int(found[1]) < 150


# --- rows of cells


def rows_of(data: bytes, **options: str | None) -> list[tuple[int, list[str]]]:
    """Return the rows of a text, cells separated by commas if nothing else is said."""
    return list(read_rows(file_of(data, "x.csv"), **{"delimiter": ",", **options}))


def test_cells_may_hold_lines_quotes_and_delimiters() -> None:
    data = b'a,"b, ""c""\nd\r\n\ne",f\n"","",""\ng,h,i'
    assert rows_of(data) == [
        (1, ["a", 'b, "c"\nd\r\n\ne', "f"]),
        (5, ["", "", ""]),
        (6, ["g", "h", "i"]),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_row_bears_the_number_of_its_first_line(end: str) -> None:
    data = end.join(["a,b", "", '"c', "", 'd",e', "", "", "f,g", '"h', 'i",j', ""]).encode()
    assert [number for number, _ in rows_of(data)] == [1, 3, 8, 9]


@pytest.mark.parametrize("quote", ['"', None])
def test_empty_lines_are_no_rows(quote: str | None) -> None:
    assert rows_of(b"\na,b\n\n\r\nc,d\n\n", quote=quote) == [(2, ["a", "b"]), (5, ["c", "d"])]


@pytest.mark.parametrize("quote", ['"', None])
def test_a_cell_of_a_megabyte_is_read(quote: str | None) -> None:
    long = "é word " * 150_000
    assert rows_of(f"a,{long}\n".encode(), quote=quote) == [(1, ["a", long])]
    if quote:
        long = long.replace("word", "word\n")
        assert rows_of(f'a,"{long}"\nb,c\n'.encode()) == [(1, ["a", long]), (150_002, ["b", "c"])]


def test_quotes_are_plain_text_if_it_is_said() -> None:
    assert rows_of(b'a "b\t"c"d\r\n"\t\n', delimiter="\t", quote=None) == [
        (1, ['a "b', '"c"d']),
        (2, ['"', ""]),
    ]


def test_separators_of_lines_in_cells_end_no_row() -> None:
    text = "a\u2028b\x85c\x0cd"
    for quote in ('"', None):
        assert rows_of(f"{text},x\n".encode(), quote=quote) == [(1, [text, "x"])]


# fault -> bytes, and what the message must say after the file's name
BROKEN_ROWS: dict[str, tuple[bytes, list[str]]] = {
    "never closed": (b'a,b\n"c,d\ne,f\n', [":2: ", "opened in this row and never closed", "quote=none"]),
    "closed late": (b'a,b\n"c,d\ne,"f"\ng', [":2: ", "quote=none"]),
    "text after a quote": (b'a,b\n\n"c\nd"e,f\n', [":3: ", "expected after", "quote=none"]),
    "not the encoding": (b"a,b\nc,\xe9\n", [":2: ", "not UTF-8 at byte 3"]),
}


@pytest.mark.parametrize("fault", BROKEN_ROWS)
def test_a_broken_row_is_named_with_its_first_line(fault: str) -> None:
    data, expected = BROKEN_ROWS[fault]
    with pytest.raises(DataError) as caught:
        rows_of(data)
    assert str(caught.value).startswith(f"x.csv{expected[0]}")
    for part in expected:
        assert part in str(caught.value)


def test_a_quote_that_swallows_the_file_is_named_before_it_fills_memory(short: int) -> None:
    taken = itertools.count()

    class Counted(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            next(taken)
            return super().read1(100)

    data = b'a,b\n"c,d\n' + b"e,f\n" * 10_000
    file = RawFile("x.csv", "x.csv", Path("x.csv"), lambda: Counted(data))
    with pytest.raises(DataError, match=r"^x.csv:2: a quote is opened in this row and never closed"):
        list(read_rows(file, delimiter=","))
    assert next(taken) < 10


def test_a_row_above_the_longest_line_is_refused(short: int) -> None:
    for quote in ('"', None):
        with pytest.raises(DataError, match=r"^x.csv:2: a line of more than 10 characters"):
            rows_of(b"a,b\n0123456789,b\n", quote=quote)


def test_a_bare_carriage_return_is_text() -> None:
    assert rows_of(b'a,"b\rc"\nd,e\n') == [(1, ["a", "b\rc"]), (2, ["d", "e"])]
    assert rows_of(b"a,b\rc\nd,e\n", quote=None) == [(1, ["a", "b\rc"]), (2, ["d", "e"])]
    assert rows_of(b'a,b\nc,d\re\n"f\r\ng",h\r\n') == [
        (1, ["a", "b"]),
        (2, ["c", "d\re"]),
        (3, ["f\r\ng", "h"]),
    ]


@pytest.mark.parametrize("options", [{"delimiter": ";;"}, {"delimiter": ""}, {"quote": "''"}, {"quote": ""}])
def test_signs_that_no_table_has_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(HblmError):
        rows_of(b"a,b\n", **options)


CELLS = st.text(st.sampled_from('ab,;"\t \n\ré\u2028\x85'), max_size=6)


@given(st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=6), st.sampled_from(",;\t"))
def test_rows_that_were_written_are_read_again(rows: list[list[str]], delimiter: str) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
    numbers = []
    for row in rows:
        numbers.append(stream.getvalue().count("\n") + 1)
        writer.writerow(row)
    found = rows_of(stream.getvalue().encode(), delimiter=delimiter)
    assert found == list(zip(numbers, rows, strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which files are open")
@pytest.mark.parametrize("kind", ["folder", "x.zip", "x.tar", "x.tar.gz"])
@pytest.mark.parametrize("suffix", ["", *COMPRESS])
def test_a_closed_stream_leaves_no_file_open(suffix: str, kind: str, tmp_path: Path) -> None:
    data = COMPRESS[suffix](TEXT) if suffix else TEXT
    with Raw(packed(tmp_path / kind, {f"a.txt{suffix}": data})) as raw, raw.files[0].open() as stream:
        assert stream.read() == TEXT
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    still_open = [os.readlink(link) for link in links if link.exists()]
    assert [name for name in still_open if str(tmp_path) in name] == []
    assert stream.closed


def test_reading_may_stop_early_and_leaves_nothing_open(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Raw(packed(tmp_path / "set", {"a.csv": TEXT})) as raw:
            for read in (read_lines(raw.files[0]), read_rows(raw.files[0], delimiter=",")):
                next(read)
                read.close()
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
    os.rename(tmp_path / "set" / "a.csv", tmp_path / "b.csv")
