"""Corpora of many small files in folders and archives, parsed by worker processes, in a fixed order.

Nothing is unpacked to disk. Loose files go to the workers in batches. An archive goes to one worker, so that
a folder of archives is read on all cores. A large archive is read here as a stream, and the workers parse.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from hblm.data.raw.archives import (
    DEEPEST,
    RawFile,
    archived,
    is_archive,
    name_inside,
    read_up_to,
    reading,
    source_of,
    walk,
    whole,
)
from hblm.data.raw.parallel import in_order
from hblm.errors import DataError
from hblm.files import reason_not_a_file

LONGEST = 16 << 20  # bytes of a file; only a damaged one has more
_AT_ONCE = 400  # files in a batch
_STREAMED = 64 << 20  # bytes; a larger archive is read as a stream


class ParsedFile(NamedTuple):
    """One file of the corpus.

    Attributes:
        key: the group of the pattern in its name.
        place: its name in messages.
        value: the result of the parser.
        fault: why it cannot be parsed; "" if it was.
    """

    key: str
    place: str
    value: Any
    fault: str

    @property
    def folder(self) -> str:
        """The place without the name of the file: a folder, or an archive."""
        return self.place[: max(map(self.place.rfind, ("/", ":", os.sep))) + 1]


@dataclass
class Corpus:
    """The small files of a download.

    Attributes:
        path: a folder or an archive.
        pattern: of the names without folders; its only group is the key.
        parse: turns the bytes of a file into a value, or raises ValueError; a module-level function.
        wanted: the keys to read; None: all.
        sources: the entries of the manifest; complete after the last file.
    """

    path: Path
    pattern: str
    parse: Callable[[bytes], Any]
    wanted: frozenset[str] | None = None
    sources: list[dict[str, Any]] = field(default_factory=list)

    def files(self) -> Iterator[ParsedFile]:
        """Yield every file, in the order of folders and names, in archives in their own order.

        Raises:
            DataError: an archive cannot be read; the fault of a single file is in its `fault`.
        """
        selection = _Selection(self.pattern, self.parse, self.wanted)
        loose, archives = _LooseCounts(), []
        for result in in_order(_read, selection, self._tasks(selection, loose)):
            if result.source:
                archives.append(result.source)
            loose.add(result)
            yield from result.files
        self.sources = [*loose.sources(self.pattern), *archives]

    def _tasks(self, selection: _Selection, loose: _LooseCounts) -> Iterator[_Task]:
        if not self.path.is_dir():
            with reading(str(self.path)):
                self.path.stat()
            if not is_archive(self.path.name):
                raise DataError(f"{self.path}: neither a folder nor an archive")
            yield from self._archive(self.path, selection)
            return
        for above, names in walk(self.path):
            there = [name for name in names if selection.fits(name)]
            loose.files += len(there)
            wanted = [name for name in there if selection.key(name)]
            for start in range(0, len(wanted), _AT_ONCE):
                yield _LooseFiles(above, wanted[start : start + _AT_ONCE])
            for path in (above / name for name in names if is_archive(name)):
                if path.is_file():  # not a dangling link, nor a pipe
                    yield from self._archive(path, selection)

    def _archive(self, path: Path, selection: _Selection) -> Iterator[_Task]:
        """Yield an archive as one task, or the members of a large one."""
        name = name_inside(self.path, path)
        with reading(str(path)):
            size = path.stat().st_size
        if size < _STREAMED:
            yield _Archive(path, name)
            return
        ready: list[tuple[str, str, bytes]] = []
        held = 0
        with ExitStack() as opened, reading(str(path)):
            for file in archived(path, path.name, str(path), path, opened):
                key = selection.key(file.base)
                if key:
                    ready.append((key, file.place, _content(file)))
                    held += len(ready[-1][2])
                full = len(ready) == _AT_ONCE or held > LONGEST
                if full or (ready and not key and file.is_archive):
                    yield _ReadMembers(ready)
                    ready, held = [], 0
                if not key and file.is_archive:
                    with reading(file.place):
                        yield _InnerArchive(whole(file), file.name, file.place)
        yield _ReadMembers(ready, source_of(path, name))


def contents(path: Path) -> str:
    """Return the names in a folder, for the end of a message; "" for a file."""
    names = sorted(inside.name for inside in path.iterdir()) if path.is_dir() else []
    more = f" and {len(names) - 8:,} more" if names[8:] else ""
    return f"; it holds {', '.join(names[:8])}{more}" if names else ""


def count_loose(path: Path, pattern: str) -> int:
    """Return how many files of a folder match the pattern, without those in archives."""
    fits = re.compile(pattern, re.IGNORECASE).fullmatch
    return sum(fits(name) is not None for _, names in walk(path) for name in names)


@dataclass(frozen=True)
class _Selection:
    """Which files are read, and how they are parsed."""

    pattern: str
    parse: Callable[[bytes], Any]
    wanted: frozenset[str] | None

    def fits(self, name: str) -> bool:
        return re.fullmatch(self.pattern, name, re.IGNORECASE) is not None

    def key(self, name: str) -> str:
        """Return the key of a wanted file; "" for any other file."""
        match = re.fullmatch(self.pattern, name, re.IGNORECASE)
        if match is None or (self.wanted is not None and match[1] not in self.wanted):
            return ""
        return match[1]


class _Result(NamedTuple):
    """The result of a task: the parsed files; the source, if an archive is done; hashes of loose files."""

    files: list[ParsedFile]
    source: dict[str, Any] | None = None
    digests: bytes = b""
    bytes_read: int = 0


class _Task(Protocol):
    """A task for a worker."""

    def read(self, selection: _Selection) -> _Result:
        """Read and parse."""


@dataclass(frozen=True)
class _LooseFiles:
    """Loose files of a folder."""

    folder: Path
    names: list[str]

    def read(self, selection: _Selection) -> _Result:
        files, digests, size = [], [], 0
        for name in self.names:
            path = self.folder / name
            with reading(str(path)):
                if kind := reason_not_a_file(path.stat().st_mode):  # reading a pipe would block
                    files.append(ParsedFile(selection.key(name), str(path), None, kind))
                    continue
                with path.open("rb") as stream:
                    data = stream.read(LONGEST + 1)
            digests.append(hashlib.sha256(data).digest())
            size += len(data)
            files.append(_parsed(selection, selection.key(name), str(path), data))
        return _Result(files, None, b"".join(digests), size)


@dataclass(frozen=True)
class _Archive:
    """An archive on disk, and its name in the download."""

    path: Path
    name: str

    def read(self, selection: _Selection) -> _Result:
        with reading(str(self.path)):
            files = list(_inside(selection, self.path, self.path.name, str(self.path)))
            return _Result(files, source_of(self.path, self.name))


@dataclass(frozen=True)
class _InnerArchive:
    """An archive that lay in another one."""

    content: bytes
    name: str
    place: str

    def read(self, selection: _Selection) -> _Result:
        with reading(self.place):
            return _Result(list(_inside(selection, io.BytesIO(self.content), self.name, self.place)))


@dataclass(frozen=True)
class _ReadMembers:
    """Files (key, place, bytes) of an archive; the last task of an archive has its source."""

    items: list[tuple[str, str, bytes]]
    source: dict[str, Any] | None = None

    def read(self, selection: _Selection) -> _Result:
        return _Result([_parsed(selection, *item) for item in self.items], self.source)


def _read(selection: _Selection, task: _Task) -> _Result:
    return task.read(selection)


@dataclass
class _LooseCounts:
    """The number of loose files, and a hash over those that were read."""

    files: int = 0
    read: int = 0
    bytes_read: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, result: _Result) -> None:
        self.read += len(result.digests) // 32
        self.bytes_read += result.bytes_read
        self.digest.update(result.digests)

    def sources(self, pattern: str) -> list[dict[str, Any]]:
        """Return their entry in the manifest; the sha256 is over the sha256 of each file, in order."""
        if not self.read:
            return []
        name = f"{self.read:,} files" + (f" of {self.files:,}" if self.read < self.files else "")
        entry = {"name": name, "matching": pattern, "files": self.files}
        return [entry | {"bytes": self.bytes_read, "sha256": self.digest.hexdigest()}]


def _inside(
    selection: _Selection, source: Path | io.BytesIO, name: str, place: str, depth: int = 1
) -> Iterator[ParsedFile]:
    """Yield the files in an archive and in its inner archives."""
    if depth > DEEPEST:
        raise DataError(f"{place}: archives in archives, more than {DEEPEST} deep")
    with ExitStack() as opened:
        for file in archived(source, name, place, Path(name), opened):
            key = selection.key(file.base)
            if key:
                yield _parsed(selection, key, file.place, _content(file))
            elif file.is_archive:
                with reading(file.place):
                    yield from _inside(selection, io.BytesIO(whole(file)), file.name, file.place, depth + 1)


def _content(file: RawFile) -> bytes:
    with reading(file.place):
        return read_up_to(file, LONGEST + 1)


def _parsed(selection: _Selection, key: str, place: str, data: bytes) -> ParsedFile:
    if len(data) > LONGEST:
        return ParsedFile(key, place, None, f"more than {LONGEST:,} bytes; no document is that long")
    try:
        return ParsedFile(key, place, selection.parse(data), "")
    except ValueError as error:
        return ParsedFile(key, place, None, str(error))
