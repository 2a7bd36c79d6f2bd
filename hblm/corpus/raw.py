"""Raw downloads, read safely: the files of a folder or an archive; nothing is unpacked to disk.

A member of an archive is opened where it lies. Whatever is wrong with an archive (cut short, damaged,
encrypted, a path that climbs out of it) is a DataError with file and place.
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
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from fnmatch import fnmatchcase, translate
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any

from hblm.artifacts import sha256_file
from hblm.errors import DataError

LARGEST = 1 << 30  # bytes of an archive inside another, which is read into memory
DEEPEST = 4  # archives in one another: a zip that holds itself has no end
_ZIP, _TAR = (".zip",), (".tar", ".tgz", ".txz", ".tbz2", ".tar.gz", ".tar.xz", ".tar.bz2")
_COMPRESSED: Mapping[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


@dataclasses.dataclass(frozen=True)
class RawFile:
    """One file of a download.

    Attributes:
        name: its path inside the download, `/` between folders, without .gz, .bz2 or .xz.
        place: how messages call it.
        stored: the file on disk that holds it, an archive for a member.
        open: gives its bytes, decompressed, in a `with`.
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
        """Whether it holds files itself."""
        return is_archive(self.name)


class Raw:
    """A download: a folder, a .zip, a .tar (.gz, .xz, .bz2), or a single file; to be used in a `with`.

    Hidden files, links inside archives and __MACOSX are left out.

    Attributes:
        files: what it holds, sorted by name.

    Raises:
        DataError: not there, damaged, encrypted, or an archive with a path that climbs out of its folder.
    """

    def __init__(self, path: Path, *only: str) -> None:
        """List the files; `only` those whose name matches a pattern, where a download holds a million."""
        self.path = path
        self._used: dict[Path, None] = {}
        with reading(str(path)), ExitStack() as opened:
            if not path.exists():
                raise DataError(f"raw={path} is not there")
            if path.is_dir():
                found = list(_plain(path, _only(only)))
            elif is_archive(path.name):
                found = list(archived(path, path.name, str(path), path, opened, only))
            else:
                found = [_file(path.name, str(path), path, lambda: path.open("rb"))]
            self.files = self._sorted(found)
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
        """Put in the place of archives among the files what they hold.

        One that lies in another, or is compressed once more, is read into memory.

            Raises:
                DataError: damaged, above LARGEST, or archives in archives without end.
        """
        depth = 0
        while archives := [file for file in self.files if file.is_archive]:
            depth += 1
            if depth > DEEPEST:
                raise DataError(f"{archives[0].place}: archives in archives, more than {DEEPEST} deep")
            found = [file for file in self.files if not file.is_archive]
            for file in archives:
                with reading(file.place):
                    is_plain = file.place == str(file.stored) and is_archive(file.stored.name)
                    source = file.stored if is_plain else io.BytesIO(whole(file))
                    name = file.stored.name if is_plain else file.name
                    found += archived(source, name, file.place, file.stored, self._opened)
            self.files = self._sorted(found)

    def matching(self, *patterns: str) -> list[RawFile]:
        """Return the files whose name without folders matches one of the patterns, whatever the case."""
        return [file for file in self.files if _matches(file.base, patterns)]

    def find(self, *patterns: str) -> RawFile:
        """Return the one file that matches.

        Raises:
            DataError: none does, or several do.
        """
        found = self.matching(*patterns)
        if len(found) == 1:
            return found[0]
        wanted = " or ".join(patterns)
        if found:
            names = ", ".join(file.place for file in found[:5])
            raise DataError(f"{self.path}: {wanted} is there {len(found)} times ({names}); keep one of them")
        raise DataError(f"{self.path}: no {wanted}; it holds {self.listing()}")

    def listing(self) -> str:
        """Return the first names, for messages."""
        names = ", ".join(file.name for file in self.files[:8])
        return f"{names} and {len(self.files) - 8:,} more" if len(self.files) > 8 else names

    def sources(self, option: str | None = None) -> list[dict[str, Any]]:
        """Return name, size and sha256 of the files on disk that were opened.

        Args:
            option: which one said where they lie; None: they lie in the raw download.
        """
        said = {"option": option} if option else {}
        return [source_of(path, name_inside(self.path, path)) | said for path in sorted(self._used)]

    def _sorted(self, files: list[RawFile]) -> list[RawFile]:
        noted = (dataclasses.replace(file, open=self._noting(file)) for file in files)
        return sorted(noted, key=lambda file: file.name)

    def _noting(self, file: RawFile) -> Callable[[], AbstractContextManager[IO[bytes]]]:
        def opened() -> AbstractContextManager[IO[bytes]]:
            self._used[file.stored] = None
            return file.open()

        return opened


def is_archive(name: str) -> bool:
    """Tell by its name whether a file holds files."""
    return name.lower().endswith(_ZIP + _TAR)


def is_hidden(name: str) -> bool:
    """Tell whether a path has a part that is hidden, or that Macs add to archives."""
    parts = name.replace("\\", "/").removeprefix("./").split("/")
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts)


def name_inside(download: Path, path: Path) -> str:
    """Return a file's name inside a download, its own name where it is the download."""
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
        found = os.stat(above)
        if (found.st_dev, found.st_ino) in seen:  # a link to a folder that was read
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
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
    """Yield the files in an archive as they come; read at once, even a compressed tar is read only once.

    Args:
        source: the archive, on disk or in memory.
        name: its name, whose ending says of what kind it is.
        place: how messages call it.
        stored: the file on disk that holds it.
        opened: what will close the archive.
        only: patterns of the names without folders; none: all files.

    Raises:
        DataError: encrypted, or a path that climbs out of the archive.
        zipfile.BadZipFile, tarfile.TarError and others: damaged; see `reading`.
    """
    if name.lower().endswith(_ZIP):
        yield from _zipped(opened.enter_context(open_zip(source)), place, stored, _only(only))
    else:
        tar = tarfile.open(source) if isinstance(source, Path) else tarfile.open(fileobj=source)  # noqa: SIM115
        yield from _tarred(opened.enter_context(tar), place, stored, _only(only))


def open_zip(source: Path | IO[bytes]) -> zipfile.ZipFile:
    """Open a zip on disk or in memory.

    Raises:
        zipfile.BadZipFile: damaged.
    """
    with inside_zip():
        return zipfile.ZipFile(source)


@contextlib.contextmanager
def inside_zip() -> Iterator[None]:
    """Tell damage from what a zip in memory raises for places before its beginning."""
    try:
        yield
    except ValueError as error:
        raise zipfile.BadZipFile(str(error)) from None


def whole(file: RawFile) -> bytes:
    """Return the bytes of an archive in an archive.

    Raises:
        DataError: above LARGEST.
    """
    with file.open() as stream:
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise DataError(
            f"{file.place}: an archive of more than {LARGEST >> 30} GiB in another; unpack it first"
        )
    return content


def _matches(base: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(base.lower(), pattern.lower()) for pattern in patterns)


def _only(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    """Return what the names without folders must match, compressed files with their ending or without."""
    found = [translate(pattern + ending) for pattern in patterns for ending in ("", *_COMPRESSED)]
    return re.compile("|".join(found), re.IGNORECASE) if found else None


def _is_left_out(name: str, only: re.Pattern[str] | None) -> bool:
    return (only is not None and not only.match(name.rpartition("/")[2])) or is_hidden(name)


def _plain(folder: Path, only: re.Pattern[str] | None) -> Iterator[RawFile]:
    for above, names in walk(folder):
        for path in (above / name for name in names if not _is_left_out(name, only)):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                yield _file(name, str(path), path, lambda path=path: path.open("rb"))  # type: ignore[misc]


def _zipped(
    archive: zipfile.ZipFile, place: str, stored: Path, only: re.Pattern[str] | None
) -> Iterator[RawFile]:
    for info in archive.infolist():
        _refuse_climbing(place, info.filename)
        if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
            continue
        name = info.filename.replace("\\", "/")  # as some programs on Windows write it
        if _is_left_out(name, only):
            continue
        if info.flag_bits & 1:
            raise DataError(f"{place}: {info.filename} is encrypted; unpack the archive first")

        def opener(info: zipfile.ZipInfo = info) -> IO[bytes]:
            with inside_zip():
                return archive.open(info)

        yield _file(name, f"{place}:{name}", stored, opener)


def _tarred(
    archive: tarfile.TarFile, place: str, stored: Path, only: re.Pattern[str] | None
) -> Iterator[RawFile]:
    while (info := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # it keeps a gigabyte for a million files
        _refuse_climbing(place, info.name)
        if not info.isfile() or _is_left_out(info.name, only):
            continue

        def opener(info: tarfile.TarInfo = info) -> IO[bytes]:
            stream = archive.extractfile(info)
            assert stream is not None  # a plain file
            return stream

        yield _file(info.name, f"{place}:{info.name}", stored, opener)
    _require_whole(archive)


def _refuse_climbing(place: str, name: str) -> None:
    if name[:1] in "/\\" or ".." in name or ":" in name:  # else it cannot
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if ".." in parts or name[:1] in "/\\" or re.match("[A-Za-z]:", name):
            raise DataError(
                f"{place}: holds {name!r}, a path that leaves the folder it would be unpacked to; "
                f"it is not read"
            )


def _file(name: str, place: str, stored: Path, source: Callable[[], IO[bytes]]) -> RawFile:
    """Return a file whose bytes `source` opens, compressed or not."""
    name = name.removeprefix("./")
    stem, dot, suffix = name.rpartition(".")
    unwrap = _COMPRESSED.get(dot + suffix.lower())
    if unwrap is None:
        return RawFile(name, place, stored, source)

    @contextlib.contextmanager
    def unwrapped() -> Iterator[IO[bytes]]:
        with source() as stream, unwrap(stream) as content:
            yield content

    return RawFile(stem, place, stored, unwrapped)


def _require_whole(archive: tarfile.TarFile) -> None:
    """Refuse an archive that ends before its end mark, or whose checksum is wrong; tarfile asks neither.

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
    """Return what a manifest says of a file that was read: name, size and sha256."""
    shown = name.encode("utf-8", "backslashreplace").decode()  # a name on disk may be no UTF-8
    return {"name": shown, "bytes": path.stat().st_size, "sha256": sha256_file(path)}


@contextlib.contextmanager
def reading(place: str) -> Iterator[None]:
    """Turn what damaged or unreadable files raise into a DataError that names the place."""
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
