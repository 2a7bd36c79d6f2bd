"""Raw downloads: folders, archives and compressed files; every way in which their bytes can be wrong."""

from __future__ import annotations

import bz2
import gc
import gzip
import io
import lzma
import os
import socket
import stat
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from raws import TEXT, content, fault_in, packed

from hblm.data.raw import archives as raw_module
from hblm.data.raw.archives import Raw
from hblm.data.raw.delimited import read_rows
from hblm.data.raw.text import read_lines
from hblm.errors import DataError
from hblm.files import sha256_file

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


# --- a listing of some names only

MANY = {
    "a.xml": b"1",
    "news/B.XML": b"2",
    "news/c.xml.gz": gzip.compress(b"3"),
    "news/d.xml.BZ2": bz2.compress(b"4"),
    "news/e.txt": b"5",
    "xml/f": b"6",
    "g.xml.txt": b"7",
    "h.xml/i[1].txt": b"8",
    ".hidden.xml": b"9",
    "__MACOSX/._a.xml": b"0",
}
# patterns -> the names that match one of them
ONLY: dict[tuple[str, ...], list[str]] = {
    ("*.xml",): ["a.xml", "news/B.XML", "news/c.xml", "news/d.xml"],
    ("*.XML",): ["a.xml", "news/B.XML", "news/c.xml", "news/d.xml"],
    ("?.txt", "f"): ["news/e.txt", "xml/f"],
    ("[ab].xml",): ["a.xml", "news/B.XML"],
    ("c.xml",): ["news/c.xml"],
    ("a?xml", "a.xml"): ["a.xml"],
    ("i[[]1].txt",): ["h.xml/i[1].txt"],
    ("a.xm",): [],
    (".xml",): [],
    ("news/*",): [],
    ("*",): [
        *("a.xml", "g.xml.txt", "h.xml/i[1].txt", "news/B.XML", "news/c.xml", "news/d.xml"),
        *("news/e.txt", "xml/f"),
    ],
}


@pytest.mark.parametrize("kind", ["folder", "x.zip", "x.tar", "x.tar.gz"])
@pytest.mark.parametrize("only", ONLY)
def test_only_names_that_match_are_listed(only: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    path = packed(tmp_path / kind, MANY)
    with Raw(path, *only) as raw, Raw(path) as whole:
        assert [file.name for file in raw.files] == ONLY[only]
        assert [file.name for file in whole.matching(*only)] == ONLY[only]
        texts = {file.name: list(read_lines(file)) for file in whole.files}
        assert all(list(read_lines(file)) == texts[file.name] for file in raw.files)


def test_only_looks_at_names_of_old_windows_programs_without_their_folders(tmp_path: Path) -> None:
    with Raw(packed(tmp_path / "x.zip", {"set\\a.xml": b"x", "set\\b.txt": b"x"}), "a.*") as raw:
        assert [file.name for file in raw.files] == ["set/a.xml"]


@pytest.mark.parametrize("kind", ["x.zip", "x.tar", "x.tar.gz"])
def test_a_path_that_climbs_is_refused_though_its_name_was_not_asked_for(kind: str, tmp_path: Path) -> None:
    path = packed(tmp_path / kind, {"good.xml": b"x", "../a.txt": b"x"})
    with pytest.raises(DataError, match=r"holds '\.\./a\.txt', a path that leaves the folder"):
        Raw(path, "*.xml")


@pytest.mark.parametrize("kind", ["x.tar", "x.tar.gz"])
def test_a_tar_that_is_cut_after_the_last_name_asked_for_is_refused(kind: str, tmp_path: Path) -> None:
    path = packed(tmp_path / kind, {"a.xml": b"x", **{f"{at}.txt": TEXT for at in range(9)}})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=f"{kind}: damaged or cut short"):
        Raw(path, "*.xml")


def test_an_encrypted_member_that_was_not_asked_for_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(with_flags(zipped(), 6, b"\1\0"))
    with Raw(path, "*.xml") as raw:
        assert raw.files == []
    with pytest.raises(DataError, match=r"a\.txt is encrypted"):
        Raw(path, "*.txt")


@pytest.mark.parametrize("kind", ["folder", "x.zip", "x.tar"])
def test_finding_nothing_among_some_names_is_a_fault_only_when_a_file_is_wanted(
    kind: str, tmp_path: Path
) -> None:
    path = packed(tmp_path / kind, {"a.txt": b"x"})
    with Raw(path, "*.xml") as raw:
        assert raw.files == raw.matching("*") == []
        assert raw.sources() == []
        with pytest.raises(DataError, match=rf"{kind}: no \*\.xml"):
            raw.find("*.xml")


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
        gc.collect(1)
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
        gc.collect(1)
    assert [str(warning.message) for warning in caught] == []
    os.rename(tmp_path / "set" / "a.csv", tmp_path / "b.csv")


# --- archives in archives

INSIDE = {"b.txt": b"1\n2\n", "dir/a.csv": "é\n".encode(), "dir/c.txt.gz": gzip.compress(b"3\n")}
INNER = ["i.zip", "I.ZIP", "i.tar", "i.tar.gz", "i.tgz", "i.tar.xz", "i.tar.bz2"]


def archive(name: str, members: dict[str, bytes], tmp_path: Path) -> bytes:
    """Return the bytes of an archive."""
    folder = tmp_path / "made"
    folder.mkdir(exist_ok=True)
    path = packed(folder / name, members)
    data = path.read_bytes()
    path.unlink()
    folder.rmdir()
    return data


def opened(path: Path) -> dict[str, list[str]]:
    """Return the lines of every file of a download, archives in it opened."""
    with Raw(path) as raw:
        raw.open_archives()
        return {file.name: list(read_lines(file)) for file in raw.files}


def fault_inside(path: Path) -> str:
    """Return what opening archives, and reading all files, says."""
    with pytest.raises(DataError) as caught:
        opened(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("kind", ["folder", "x.zip", "x.tar", "x.tar.gz"])
def test_archives_in_a_download_are_opened_in_their_place(kind: str, inner: str, tmp_path: Path) -> None:
    members = {f"sub/{inner}": archive(inner, INSIDE, tmp_path), "z.txt": b"4\n"}
    path = packed(tmp_path / kind, members)
    begin = f"{path}/sub/{inner}" if kind == "folder" else f"{path}:sub/{inner}"
    with Raw(path) as raw:
        assert [file.is_archive for file in raw.files] == [True, False]
        assert raw.files[0].place == begin
        raw.open_archives()
        assert {file.name: list(read_lines(file)) for file in raw.files} == {
            "b.txt": ["1", "2"],
            "dir/a.csv": ["é"],
            "dir/c.txt": ["3"],
            "z.txt": ["4"],
        }
        assert [file.name for file in raw.files] == ["b.txt", "dir/a.csv", "dir/c.txt", "z.txt"]
        assert [file.place for file in raw.files[:3]] == [
            f"{begin}:{name}" for name in ("b.txt", "dir/a.csv", "dir/c.txt.gz")
        ]
        stored = path / "sub" / inner if kind == "folder" else path
        assert {file.stored for file in raw.files[:3]} == {stored}
    assert sorted(tmp_path.iterdir()) == [path]
    assert list(Path.cwd().iterdir()) == []


def test_a_download_without_archives_stays_as_it_is(tmp_path: Path) -> None:
    with Raw(packed(tmp_path / "x.zip", INSIDE)) as raw:
        before = [(file.name, file.place) for file in raw.files]
        raw.open_archives()
        assert [(file.name, file.place) for file in raw.files] == before
        assert raw.sources() == []


def test_archives_are_opened_once(tmp_path: Path) -> None:
    path = packed(tmp_path / "set", {"i.zip": archive("i.zip", INSIDE, tmp_path)})
    with Raw(path) as raw:
        raw.open_archives()
        before = [file.place for file in raw.files]
        raw.open_archives()
        assert [file.place for file in raw.files] == before
        assert list(read_lines(raw.find("b.txt"))) == ["1", "2"]


def test_a_compressed_archive_is_opened(tmp_path: Path) -> None:
    data = gzip.compress(archive("i.zip", INSIDE, tmp_path))
    assert sorted(opened(packed(tmp_path / "set", {"i.zip.gz": data}))) == ["b.txt", "dir/a.csv", "dir/c.txt"]


def test_hidden_files_of_inner_archives_and_hidden_archives_are_left_out(tmp_path: Path) -> None:
    inner = archive("i.zip", {"a.txt": b"x", ".b": b"x", "__MACOSX/._a.txt": b"x"}, tmp_path)
    path = packed(tmp_path / "set", {"i.zip": inner, ".j.zip": inner, "__MACOSX/._i.zip": b"no zip"})
    assert opened(path) == {"a.txt": ["x"]}


def test_an_inner_archive_without_files_adds_none(tmp_path: Path) -> None:
    path = packed(tmp_path / "set", {"i.zip": archive("i.zip", {}, tmp_path), "a.txt": b"x"})
    assert opened(path) == {"a.txt": ["x"]}


def test_one_name_in_two_inner_archives_is_two_files(tmp_path: Path) -> None:
    inner = archive("i.zip", {"a.txt": b"x"}, tmp_path)
    path = packed(tmp_path / "x.zip", {"i.zip": inner, "j.zip": inner})
    with Raw(path) as raw:
        raw.open_archives()
        with pytest.raises(DataError) as caught:
            raw.find("a.txt")
    assert f"a.txt is there 2 times ({path}:i.zip:a.txt, {path}:j.zip:a.txt); keep one" in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "x.zip"])
def test_the_source_of_an_inner_file_is_the_file_on_disk(kind: str, tmp_path: Path) -> None:
    inner = archive("i.tar.gz", INSIDE, tmp_path)
    path = packed(tmp_path / kind, {"sub/i.tar.gz": inner, "z.txt": b"x"})
    on_disk, name = (path / "sub/i.tar.gz", "sub/i.tar.gz") if kind == "folder" else (path, "x.zip")
    with Raw(path) as raw:
        raw.open_archives()
        assert list(read_lines(raw.find("b.txt"))) == ["1", "2"]
        assert raw.sources() == [
            {"name": name, "bytes": on_disk.stat().st_size, "sha256": sha256_file(on_disk)}
        ]


def nested(depth: int, tmp_path: Path) -> bytes:
    """Return a zip in a zip in a zip ..., with a text in the innermost."""
    data = archive("0.zip", {"a.txt": b"x"}, tmp_path)
    for number in range(1, depth):
        data = archive(f"{number}.zip", {f"{number - 1}.zip": data}, tmp_path)
    return data


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_four_archives_in_one_another_are_opened(depth: int, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(nested(depth, tmp_path))
    assert opened(tmp_path / "x.zip") == {"a.txt": ["x"]}
    assert opened(packed(tmp_path / "set", {"i.zip": nested(depth, tmp_path)})) == {"a.txt": ["x"]}


def test_archives_in_archives_without_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(nested(12, tmp_path))
    found = fault_inside(tmp_path / "x.zip")
    assert found.startswith(f"{tmp_path / 'x.zip'}:10.zip:")
    assert found.endswith(": archives in archives, more than 4 deep")
    path = packed(tmp_path / "set", {"a.txt": b"x", "i.zip": nested(12, tmp_path)})
    assert fault_inside(path).startswith(f"{path}/i.zip:10.zip:")


def test_an_inner_archive_that_is_too_large_for_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = archive("i.zip", INSIDE, tmp_path)
    path = packed(tmp_path / "x.zip", {"i.zip": inner})
    monkeypatch.setattr(raw_module, "LARGEST", len(inner))
    assert len(opened(path)) == 3
    monkeypatch.setattr(raw_module, "LARGEST", len(inner) - 1)
    found = fault_inside(path)
    assert found.startswith(f"{path}:i.zip: archives of more than")
    assert found.endswith("unpack the outer one first")


@pytest.mark.parametrize("name", ["../a.txt", "a/../../b.txt", "/etc/a.txt", "C:\\a.txt", "..\\a.txt"])
@pytest.mark.parametrize("inner", ["i.zip", "i.tar.gz"])
def test_a_path_that_climbs_out_of_an_inner_archive_is_refused(inner: str, name: str, tmp_path: Path) -> None:
    data = archive(inner, {"good.txt": b"x", name: b"x"}, tmp_path)
    path = packed(tmp_path / "x.zip", {"z.txt": b"x", inner: data})
    found = fault_inside(path)
    assert found.startswith(f"{path}:{inner}: holds {name!r}, a path that leaves the folder")
    assert sorted(tmp_path.rglob("*")) == [path]
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "x.zip"])
@pytest.mark.parametrize("fault", [fault for fault, (name, _, _) in DAMAGED.items() if "x.txt" not in name])
def test_damage_to_an_inner_archive_is_named_with_it(fault: str, kind: str, tmp_path: Path) -> None:
    name, data, expected = DAMAGED[fault]
    path = packed(tmp_path / kind, {"a.txt": b"x", f"i/{name}": data})
    found = fault_inside(path)
    assert found.startswith(f"{path}/i/{name}:" if kind == "folder" else f"{path}:i/{name}:")
    assert expected in found


@pytest.mark.parametrize(
    "fault", ["zip cut short", "an encrypted zip", "tar cut in a member", "tgz cut at its start"]
)
def test_a_download_with_a_damaged_archive_is_closed(fault: str, tmp_path: Path) -> None:
    name, data, _ = DAMAGED[fault]
    good = archive("g.zip", INSIDE, tmp_path)
    path = packed(tmp_path / "x.zip", {"a.zip": good, f"b{name}": data, "z.tar.gz": good})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        fault_inside(path)
        gc.collect(1)
    assert [str(warning.message) for warning in caught] == []


@pytest.mark.parametrize("inner", ["i.zip", "i.tar.gz", "i.tar.bz2"])
def test_an_inner_archive_without_a_block_in_its_middle_is_refused_wherever(
    inner: str, tmp_path: Path
) -> None:
    data = archive(inner, {"a.txt": TEXT, "b.txt": TEXT[::-1]}, tmp_path)
    for at in range(20, len(data) - 400, 500):
        path = packed(tmp_path / f"{at}", {inner: cut(data, at, at + 64)})
        assert fault_inside(path).startswith(f"{path}/{inner}:")


def test_an_inner_archive_that_its_outer_one_damaged_is_named(tmp_path: Path) -> None:
    inner = archive("i.zip", {"a.txt": TEXT}, tmp_path)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as outer:
        outer.writestr("i.zip", inner)
    (tmp_path / "x.zip").write_bytes(flipped(stream.getvalue(), 300))
    found = fault_inside(tmp_path / "x.zip")
    assert found.startswith(f"{tmp_path / 'x.zip'}:i.zip: damaged or cut short (Bad CRC-32")


# --- more in a file than its size can hold


def tar_of(kind: bytes, size: int, content: bytes) -> bytes:
    """Return a tar that begins with a header of that kind and size."""
    info = tarfile.TarInfo("x.csv")
    info.type, info.size = kind, size
    return info.tobuf(format=tarfile.GNU_FORMAT) + content


def overlapping() -> bytes:
    """Return a zip of which two members have the same bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.csv", TEXT)
        archive.writestr("b.csv", TEXT)
        archive.infolist()[1].header_offset = 0
    return stream.getvalue()


ZEROS = bytes(3 << 20)
SWOLLEN: dict[str, Callable[[], bytes]] = {
    "x.csv.gz": lambda: gzip.compress(b"a\n" + ZEROS),
    "x.csv.bz2": lambda: bz2.compress(b"a\n" + ZEROS),
    "x.csv.xz": lambda: lzma.compress(b"a\n" + ZEROS),
    "size.tar.gz": lambda: gzip.compress(tar_of(tarfile.REGTYPE, len(ZEROS), ZEROS)),
    "names.tar.gz": lambda: gzip.compress(tar_of(tarfile.GNUTYPE_LONGNAME, len(ZEROS), ZEROS)),
    "headers.tar.xz": lambda: lzma.compress(tar_of(tarfile.XHDTYPE, len(ZEROS), ZEROS)),
    "absurd.tar": lambda: tar_of(tarfile.REGTYPE, 1 << 62, TEXT),
    "absurd.tar.gz": lambda: gzip.compress(tar_of(tarfile.REGTYPE, 1 << 62, TEXT)),
    "x.zip": lambda: zip_of(("x.csv", ZEROS)),
    "same.zip": overlapping,
}


def zip_of(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


@pytest.mark.parametrize("name", SWOLLEN)
def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_module, "_ALWAYS", 1 << 20)
    (tmp_path / name).write_bytes(SWOLLEN[name]())
    assert fault_in(tmp_path / name).startswith(f"{tmp_path / name}")


def test_how_much_a_file_may_unpack_to_grows_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_module, "_ALWAYS", 0)
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"abcd\n" * 1000) + bytes(100))
    assert content(tmp_path / "x.csv.gz") == {"x.csv": ["abcd"] * 1000}
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"abcd\n" * 100_000))
    assert "unpacks to more than" in fault_in(tmp_path / "x.csv.gz")


def test_archives_in_archives_share_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = zip_of(("a.csv", TEXT))
    path = packed(tmp_path / "x.zip", {"1.zip": inner, "2.zip": inner})
    for most, refused in ((2 * len(inner), False), (2 * len(inner) - 1, True)):
        monkeypatch.setattr(raw_module, "LARGEST", most)
        with Raw(path) as raw:
            if refused:
                with pytest.raises(DataError, match="unpack the outer one first"):
                    raw.open_archives()
            else:
                raw.open_archives()
                assert len(raw.files) == 2


@pytest.mark.parametrize("kind", ["folder", "x.zip", "x.tar"])
def test_a_download_of_too_many_files_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path / kind, {f"{at}.csv": b"x" for at in range(11)})
    monkeypatch.setattr(raw_module, "MOST_FILES", 11)
    assert len(content(path)) == 11
    monkeypatch.setattr(raw_module, "MOST_FILES", 10)
    assert "holds more than 10 files" in fault_in(path)


def test_a_member_that_the_library_would_unpack_at_once_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(zip_of(("x.csv", TEXT), method=zipfile.ZIP_BZIP2))
    assert "cannot be unpacked here (compressed by bzip2)" in fault_in(tmp_path / "x.zip")


# --- what is no file


SPECIAL: dict[str, Callable[[Path], object]] = {
    "a named pipe": os.mkfifo,
    "a socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ["x.csv", "x.zip", "x.csv.gz"])
@pytest.mark.filterwarnings("ignore:unclosed <socket")
def test_what_is_no_file_is_refused_and_not_waited_for(
    kind: str, inside: bool, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    folder = Path("set")
    folder.mkdir()
    SPECIAL[kind](folder / name)
    path = folder if inside else folder / name
    with pytest.raises(DataError, match=f"set/{name}: {kind}"):
        Raw(path)


def test_links_in_a_circle_are_refused_or_passed_over(tmp_path: Path) -> None:
    folder = packed(tmp_path / "set", {"a.csv": b"x"})
    (folder / "b.csv").symlink_to("c.csv")
    (folder / "c.csv").symlink_to("b.csv")
    (folder / "again").symlink_to(folder)
    assert list(content(folder)) == ["a.csv"]
    with pytest.raises(DataError, match="a link to nothing, or a circle of links"):
        Raw(folder / "b.csv")
