"""Files of a raw download, a folder or an archive, read safely and without unpacking to disk.

Members are read inside their archive. A fault of an archive (truncated, damaged, encrypted, a path outside
its folder, an implausible unpacked size) is a DataError with file and place.
"""

from __future__ import annotations

import bz2
import contextlib
import dataclasses
import gzip
import io
import lzma
import os
import re
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from fnmatch import fnmatchcase, translate
from itertools import islice
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any, cast

from hblm.errors import DataError
from hblm.files import require_file, sha256_file

LARGEST = 1 << 29  # bytes of all inner archives together, which are read into memory
DEEPEST = 4  # levels of nested archives; a zip may contain itself
MOST_FILES = 1 << 18  # listed in one download; each takes a kilobyte of memory
_ALWAYS = 1 << 28  # bytes that any file may unpack to
_RATIO, _RATIO_INSIDE = 100, 10  # of unpacked bytes to those on disk, or to those of an archive in memory
_HEADER = 1 << 20  # bytes of the headers of one member of a tar; tarfile reads all of them into memory
_BLOCK = 1 << 20
_LOCAL_HEADER = 30  # bytes before a name and the content of a member in a zip
_ZIP, _TAR = (".zip",), (".tar", ".tgz", ".txz", ".tbz2", ".tar.gz", ".tar.xz", ".tar.bz2")
_COMPRESSED: Mapping[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}

_MAGIC: Mapping[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x5d\0\0": lzma.open,
}

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


@dataclasses.dataclass(frozen=True)
class RawFile:
    """One file of a download.

    Attributes:
        name: the path inside the download, with `/`, without .gz, .bz2 or .xz.
        place: the name in messages.
        stored: the file on disk; for a member, the archive.
        open: returns a context manager that yields the decompressed bytes.
    """

    name: str
    place: str
    stored: Path
    open: Callable[[], AbstractContextManager[IO[bytes]]]

    @property
    def base(self) -> str:
        """The name without folders."""
        return self.name.rpartition("/")[2]

    @property
    def is_archive(self) -> bool:
        """Whether the file is an archive, by its name."""
        return is_archive(self.name)


class Raw:
    """A raw download as a context manager: a folder, a .zip, a .tar (.gz, .xz, .bz2), or a single file.

    Hidden files, links inside archives and __MACOSX are left out.

    Attributes:
        files: its files, sorted by name.

    Raises:
        DataError: the path does not exist or is not a file or folder; the archive is damaged, encrypted, has
            a path outside its folder or an implausible unpacked size; there are more than MOST_FILES files.
    """

    def __init__(self, path: Path, *only: str) -> None:
        """List the files; with patterns in `only`, those that match one: a download may have a million."""
        self.path = path
        self._used: dict[Path, None] = {}
        self._held = 0  # bytes of archives in archives
        with reading(str(path)), ExitStack() as opened:
            if not path.exists():
                link = " (a link to nothing, or a circle of links)" if path.is_symlink() else ""
                raise DataError(f"raw={path} is not there{link}")
            files: Iterable[RawFile]
            if path.is_dir():
                files = _plain(path, _only(only))
            elif is_archive(path.name):
                require_file(path)
                files = archived(path, path.name, str(path), path, opened, only)
            else:
                files = [_on_disk(path, path.name)]
            self.files = self._sorted(files)
            if not self.files and not only:
                raise DataError(f"{path}: holds no files")
            self._opened = opened.pop_all()  # until this is left

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def open_archives(self) -> None:
        """Replace the archives among the files by their members.

        An inner archive, or a compressed one, is read into memory.

        Raises:
            DataError: an archive is damaged, they exceed LARGEST together, or are nested too deeply.
        """
        depth = 0
        while archives := [file for file in self.files if file.is_archive]:
            depth += 1
            if depth > DEEPEST:
                raise DataError(f"{archives[0].place}: archives in archives, more than {DEEPEST} deep")
            files = [file for file in self.files if not file.is_archive]
            for file in archives:
                if len(files) > MOST_FILES:
                    break  # _sorted refuses them
                with reading(file.place):
                    is_plain = file.place == str(file.stored) and is_archive(file.stored.name)
                    source = file.stored if is_plain else io.BytesIO(self._inner(file))
                    name = file.stored.name if is_plain else file.name
                    files += archived(source, name, file.place, file.stored, self._opened)
            self.files = self._sorted(files)

    def matching(self, *patterns: str) -> list[RawFile]:
        """Return the files whose name without folders matches one of the patterns, in any case."""
        return [file for file in self.files if _matches(file.base, patterns)]

    def find(self, *patterns: str) -> RawFile:
        """Return the only file that matches.

        Raises:
            DataError: no file matches, or several do.
        """
        matches = self.matching(*patterns)
        if len(matches) == 1:
            return matches[0]
        wanted = " or ".join(patterns)
        if matches:
            names = ", ".join(file.place for file in matches[:5])
            raise DataError(
                f"{self.path}: {wanted} is there {len(matches)} times ({names}); keep one of them"
            )
        raise DataError(f"{self.path}: no {wanted}; it holds {self.listing()}")

    def listing(self) -> str:
        """Return the first names, for messages."""
        names = ", ".join(file.name for file in self.files[:8])
        return f"{names} and {len(self.files) - 8:,} more" if len(self.files) > 8 else names

    def sources(self, option: str | None = None) -> list[dict[str, Any]]:
        """Return name, size and sha256 of the files on disk that were opened.

        Args:
            option: the option that names their place; None: they are in the raw download.
        """
        named_by = {"option": option} if option else {}
        return [source_of(path, name_inside(self.path, path)) | named_by for path in sorted(self._used)]

    def _inner(self, file: RawFile) -> bytes:
        content = whole(file, LARGEST - self._held)
        self._held += len(content)
        return content

    def _sorted(self, files: Iterable[RawFile]) -> list[RawFile]:
        noted = [dataclasses.replace(file, open=self._noting(file)) for file in islice(files, MOST_FILES + 1)]
        if len(noted) > MOST_FILES:
            raise DataError(
                f"{self.path}: holds more than {MOST_FILES:,} files; give the data files alone, or "
                f"an archive of them"
            )
        return sorted(noted, key=lambda file: file.name)

    def _noting(self, file: RawFile) -> Callable[[], AbstractContextManager[IO[bytes]]]:
        def opened() -> AbstractContextManager[IO[bytes]]:
            self._used[file.stored] = None
            return file.open()

        return opened


def is_archive(name: str) -> bool:
    """Return whether a file is an archive, by its name."""
    return name.lower().endswith(_ZIP + _TAR)


def is_hidden(name: str) -> bool:
    """Return whether a path has a hidden part, or one that macOS adds to archives."""
    parts = name.replace("\\", "/").removeprefix("./").split("/")
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts)


def name_inside(download: Path, path: Path) -> str:
    """Return the name of a file inside a download; its own name if it is the download."""
    return path.relative_to(download).as_posix() if download.is_dir() else path.name


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder and the names of its files, all sorted, hidden ones left out, links followed.

    Raises:
        DataError: a folder that may not be read.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}")

    seen = set()
    for above, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        status = os.stat(above)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder that was read
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield Path(above), sorted(name for name in names if not is_hidden(name))


def archived(
    source: Path | IO[bytes],
    name: str,
    place: str,
    stored: Path,
    opened: ExitStack,
    only: tuple[str, ...] = (),
) -> Iterator[RawFile]:
    """Yield the files in an archive in their order; if each is read at once, a tar is decompressed only once.

    Args:
        source: the archive, on disk or in memory.
        name: its name; the suffix decides the format.
        place: its name in messages.
        stored: the file on disk.
        opened: closes the archive.
        only: patterns of the names without folders; empty: all files.

    Raises:
        DataError: encrypted, a path outside the archive, or an implausible unpacked size.
        zipfile.BadZipFile, tarfile.TarError and others: damaged; see `reading`.
    """
    if name.lower().endswith(_ZIP):
        if isinstance(source, io.BytesIO) and source.getvalue().count(b"PK\1\2") > MOST_FILES:
            raise DataError(f"{place}: more than {MOST_FILES:,} files in an inner archive; unpack it first")
        archive = opened.enter_context(open_zip(source))
        yield from _zipped(archive, place, stored, _only(only), _most(source))
    else:
        yield from _tarred(_open_tar(source, place, opened), place, stored, _only(only), _most(source))


def _most(source: Path | IO[bytes]) -> int:
    """Return how many bytes a file may unpack to: texts compress to a tenth, not to a thousandth."""
    if isinstance(source, Path):
        return max(_ALWAYS, _RATIO * source.stat().st_size)
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    return max(_ALWAYS, _RATIO_INSIDE * size)


def _too_much(place: str, most: int) -> DataError:
    return DataError(
        f"{place}: unpacks to more than {most:,} bytes, which is far more than files of its size hold; if it "
        f"is meant to, unpack it first"
    )


class _Limited(io.BufferedIOBase):
    """An unpacked stream that raises a DataError after a number of bytes.

    Attributes:
        room: bytes that may be read before it is set again; None: no limit.
    """

    def __init__(self, stream: IO[bytes], place: str, most: int) -> None:
        super().__init__()
        self._stream, self._place, self._most = stream, place, most
        self.room: int | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def tell(self) -> int:
        return self._stream.tell()

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(_BLOCK), b""))
        if self.room is not None:
            if size > self.room:
                raise tarfile.ReadError(f"more than {_HEADER:,} bytes in the headers of one member")
            self.room -= size
        block = self._stream.read(size)
        if len(block) and self._stream.tell() > self._most:
            raise _too_much(self._place, self._most)
        return block

    def read1(self, size: int = -1) -> bytes:
        return self.read(_BLOCK if size < 0 else min(size, _BLOCK))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            while self.read(_BLOCK):  # to seek to the end, all must be unpacked
                pass
        elif offset + (self._stream.tell() if whence == os.SEEK_CUR else 0) > self._most:
            raise _too_much(self._place, self._most)
        return self._stream.seek(offset, whence)


def _open_tar(source: Path | IO[bytes], place: str, opened: ExitStack) -> tarfile.TarFile:
    """Open a tar, compressed or not, with a limit on the headers of a member; tarfile accepts any size."""
    stream = opened.enter_context(source.open("rb")) if isinstance(source, Path) else source
    head = stream.read(6)
    stream.seek(0)
    unwrap = next((opener for magic, opener in _MAGIC.items() if head.startswith(magic)), None)
    unpacked = opened.enter_context(unwrap(stream)) if unwrap else stream
    limited = _Limited(unpacked, place, _most(source) if unwrap else sys.maxsize)
    limited.room = _HEADER
    return opened.enter_context(tarfile.TarFile(fileobj=limited))


def open_zip(source: Path | IO[bytes]) -> zipfile.ZipFile:
    """Open a zip on disk or in memory.

    Raises:
        zipfile.BadZipFile: damaged.
    """
    with inside_zip():
        return zipfile.ZipFile(source)


@contextlib.contextmanager
def inside_zip() -> Iterator[None]:
    """Turn the ValueError of a damaged zip in memory, for a negative offset, into BadZipFile."""
    try:
        yield
    except ValueError as error:
        raise zipfile.BadZipFile(str(error)) from None


def whole(file: RawFile, most: int = LARGEST) -> bytes:
    """Return the bytes of an inner archive.

    Raises:
        DataError: it has more than `most` bytes.
    """
    content = read_up_to(file, most + 1)
    if len(content) > most:
        raise DataError(
            f"{file.place}: archives of more than {LARGEST >> 20} MiB in others, all together; "
            f"unpack the outer one first"
        )
    return content


def read_up_to(file: RawFile, most: int) -> bytes:
    """Return the first bytes of a file, at most `most`; they are read in blocks, with one copy in memory."""
    content = io.BytesIO()
    with file.open() as stream:
        while block := stream.read(min(_BLOCK, most - content.tell())):
            content.write(block)
    return content.getvalue()


def _matches(base: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(base.lower(), pattern.lower()) for pattern in patterns)


def _only(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    """Return a pattern of the names without folders, with or without the suffix of a compressed file."""
    expressions = [translate(pattern + ending) for pattern in patterns for ending in ("", *_COMPRESSED)]
    return re.compile("|".join(expressions), re.IGNORECASE) if expressions else None


def _is_left_out(name: str, only: re.Pattern[str] | None) -> bool:
    return (only is not None and not only.match(name.rpartition("/")[2])) or is_hidden(name)


def _plain(folder: Path, only: re.Pattern[str] | None) -> Iterator[RawFile]:
    for above, names in walk(folder):
        for path in (above / name for name in names if not _is_left_out(name, only)):
            if path.exists():  # not a dangling link
                yield _on_disk(path, path.relative_to(folder).as_posix())


def _on_disk(path: Path, name: str) -> RawFile:
    require_file(path)
    return _file(name, str(path), path, lambda: path.open("rb"), _most(path))


def _zipped(
    archive: zipfile.ZipFile, place: str, stored: Path, only: re.Pattern[str] | None, most: int
) -> Iterator[RawFile]:
    _require_plausible(archive, place, most)
    for info in archive.infolist():
        _refuse_climbing(place, info.filename)
        if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
            continue
        name = info.filename.replace("\\", "/")  # as some programs on Windows write it
        if _is_left_out(name, only):
            continue
        if info.flag_bits & 1:
            raise DataError(f"{place}: {info.filename} is encrypted; unpack the archive first")

        def opener(info: zipfile.ZipInfo = info, name: str = name) -> IO[bytes]:
            if info.compress_type == zipfile.ZIP_BZIP2:  # zipfile unpacks it without a limit
                raise DataError(
                    f"{place}: {name}: cannot be unpacked here (compressed by bzip2); unpack it first"
                )
            with inside_zip():
                return archive.open(info)

        yield _file(name, f"{place}:{name}", stored, opener, most)


def _require_plausible(archive: zipfile.ZipFile, place: str, most: int) -> None:
    """Refuse a zip with an implausible unpacked size in its headers, or with overlapping members."""
    if sum(info.file_size for info in archive.infolist()) > most:
        raise _too_much(place, most)
    end = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise DataError(f"{place}: damaged, or a zip bomb: {info.filename} overlaps another member")
        end = info.header_offset + _LOCAL_HEADER + info.compress_size


def _tarred(
    archive: tarfile.TarFile, place: str, stored: Path, only: re.Pattern[str] | None, most: int
) -> Iterator[RawFile]:
    limited = archive.fileobj
    assert isinstance(limited, _Limited)
    while (info := archive.next()) is not None:
        limited.room = None
        archive.members = []  # type: ignore[attr-defined]  # else it keeps a gigabyte for a million files
        _refuse_climbing(place, info.name)
        if not info.isfile() or _is_left_out(info.name, only):
            limited.room = _HEADER
            continue

        def opener(info: tarfile.TarInfo = info) -> IO[bytes]:
            stream = archive.extractfile(info)
            assert stream is not None  # a plain file
            return stream

        yield _file(info.name, f"{place}:{info.name}", stored, opener, most)
        limited.room = _HEADER
    limited.room = None
    _require_whole(archive)


def _refuse_climbing(place: str, name: str) -> None:
    if name[:1] in "/\\" or ".." in name or ":" in name:  # other names stay inside
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if ".." in parts or name[:1] in "/\\" or re.match("[A-Za-z]:", name):
            raise DataError(
                f"{place}: holds {name!r}, a path that leaves the folder it would be unpacked to; "
                f"it is not read"
            )


def _file(name: str, place: str, stored: Path, source: Callable[[], IO[bytes]], most: int) -> RawFile:
    """Return a file that `source` opens, compressed or not, with at most `most` unpacked bytes."""
    name = name.removeprefix("./")
    stem, dot, suffix = name.rpartition(".")
    unwrap = _COMPRESSED.get(dot + suffix.lower())
    if unwrap is None:
        return RawFile(name, place, stored, source)

    @contextlib.contextmanager
    def unwrapped() -> Iterator[IO[bytes]]:
        with source() as stream, unwrap(stream) as content, _Limited(content, place, most) as limited:
            yield cast(IO[bytes], limited)

    return RawFile(stem, place, stored, unwrapped)


def _require_whole(archive: tarfile.TarFile) -> None:
    """Refuse an archive without its end mark, or with a wrong checksum; tarfile checks neither.

    Raises:
        tarfile.TarError, or what the decompression raises.
    """
    stream = archive.fileobj
    assert stream is not None
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError("no end mark where the last file ends")
    while stream.read(1 << 20):
        pass


def source_of(path: Path, name: str) -> dict[str, Any]:
    """Return the entry of a file in `sources` of a manifest: name, size and sha256."""
    shown = name.encode("utf-8", "backslashreplace").decode()  # a name on disk may not be UTF-8
    return {"name": shown, "bytes": path.stat().st_size, "sha256": sha256_file(path)}


@contextlib.contextmanager
def reading(place: str) -> Iterator[None]:
    """Turn the exceptions of damaged or unreadable files into a DataError with the place."""
    try:
        yield
    except _DAMAGED as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{place}: damaged or cut short ({why}); download or copy it again") from None
    except NotImplementedError as error:  # a compression method of zip files
        raise DataError(f"{place}: cannot be unpacked here ({error}); unpack it first") from None
    except UnicodeError as error:  # the name of a member
        raise DataError(f"{place}: damaged, or a name in it is not UTF-8 ({error})") from None
    except OSError as error:
        raise DataError(f"{place}: cannot be read: {error.strerror or error}") from None
