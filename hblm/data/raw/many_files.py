"""Corpora of many small files: each story in folders and archives, parsed on all cores, in a fixed order.

Nothing is unpacked to disk. Loose files go to the processes in batches; an archive as a whole, so that a
folder of archives is read on all cores; a large archive is read here as a stream, and the processes parse.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
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

LONGEST = 16 << 20  # bytes of a story: none is longer, a damaged file may be


_AT_ONCE = 400  # stories given to a process together


_STREAMED = 64 << 20  # bytes of an archive from which it is read as a stream


class ParsedFile(NamedTuple):
    """One file of the corpus.

    Attributes:
        key: what the group of the pattern caught.
        place: how messages call it.
        value: what the parser returned.
        fault: why it did not; "" where it did.
    """

    key: str
    place: str
    value: Any
    fault: str

    @property
    def folder(self) -> str:
        """The place without the file's name: a folder, or an archive."""
        return self.place[: max(map(self.place.rfind, ("/", ":", os.sep))) + 1]


@dataclass
class Corpus:
    """The stories of a download.

    Attributes:
        path: a folder or an archive.
        pattern: of a story's name without folders; its one group is the key.
        parse: makes a value of a file's bytes, or raises ValueError; a function that other processes find.
        wanted: the keys to read; None: all.
        sources: what a manifest says was read; known after the last story.
    """

    path: Path
    pattern: str
    parse: Callable[[bytes], Any]
    wanted: frozenset[str] | None = None
    sources: list[dict[str, Any]] = field(default_factory=list)

    def stories(self) -> Iterator[ParsedFile]:
        """Yield every story, in the order of folders and names, of archives as they are.

        Raises:
            DataError: an archive that cannot be read; what is wrong with a story is in its `fault`.
        """
        choice = _Choice(self.pattern, self.parse, self.wanted)
        loose, archives = _Loose(), []
        for batch in in_order(_read, choice, self._work(choice, loose)):
            if batch.source:
                archives.append(batch.source)
            loose.add(batch)
            yield from batch.stories
        self.sources = [*loose.sources(self.pattern), *archives]

    def _work(self, choice: _Choice, loose: _Loose) -> Iterator[_Work]:
        if not self.path.is_dir():
            with reading(str(self.path)):
                self.path.stat()
            if not is_archive(self.path.name):
                raise DataError(f"{self.path}: neither a folder nor an archive")
            yield from self._archive(self.path, choice)
            return
        for above, names in walk(self.path):
            there = [name for name in names if choice.fits(name)]
            loose.files += len(there)
            wanted = [name for name in there if choice.key(name)]
            for start in range(0, len(wanted), _AT_ONCE):
                yield _Files(above, wanted[start : start + _AT_ONCE])
            for path in (above / name for name in names if is_archive(name)):
                if path.is_file():  # and no link to nothing, nor a pipe
                    yield from self._archive(path, choice)

    def _archive(self, path: Path, choice: _Choice) -> Iterator[_Work]:
        """Yield an archive, or what it holds where it is large."""
        name = name_inside(self.path, path)
        with reading(str(path)):
            size = path.stat().st_size
        if size < _STREAMED:
            yield _Stored(path, name)
            return
        ready: list[tuple[str, str, bytes]] = []
        held = 0
        with ExitStack() as opened, reading(str(path)):
            for file in archived(path, path.name, str(path), path, opened):
                key = choice.key(file.base)
                if key:
                    ready.append((key, file.place, _content(file)))
                    held += len(ready[-1][2])
                full = len(ready) == _AT_ONCE or held > LONGEST
                if full or (ready and not key and file.is_archive):
                    yield _Ready(ready)
                    ready, held = [], 0
                if not key and file.is_archive:
                    with reading(file.place):
                        yield _Inner(whole(file), file.name, file.place)
        yield _Ready(ready, source_of(path, name))


def contents(path: Path) -> str:
    """Return what lies in a folder, for messages; "" for a file."""
    names = sorted(found.name for found in path.iterdir()) if path.is_dir() else []
    more = f" and {len(names) - 8:,} more" if names[8:] else ""
    return f"; it holds {', '.join(names[:8])}{more}" if names else ""


def count_loose(path: Path, pattern: str) -> int:
    """Return how many files that fit the pattern lie in a folder, those in archives left out."""
    fits = re.compile(pattern, re.IGNORECASE).fullmatch
    return sum(fits(name) is not None for _, names in walk(path) for name in names)


@dataclass(frozen=True)
class _Choice:
    """Which files are stories, and how they are parsed."""

    pattern: str
    parse: Callable[[bytes], Any]
    wanted: frozenset[str] | None

    def fits(self, name: str) -> bool:
        return re.fullmatch(self.pattern, name, re.IGNORECASE) is not None

    def key(self, name: str) -> str:
        """Return the key of a story that is wanted, "" for any other file."""
        found = re.fullmatch(self.pattern, name, re.IGNORECASE)
        if found is None or (self.wanted is not None and found[1] not in self.wanted):
            return ""
        return found[1]


class _Batch(NamedTuple):
    """What a process found: the stories; the archive on disk, if it is done; the hashes of loose files."""

    stories: list[ParsedFile]
    source: dict[str, Any] | None = None
    digests: bytes = b""
    bytes_read: int = 0


class _Work(Protocol):
    """Work for a process."""

    def read(self, choice: _Choice) -> _Batch:
        """Read and parse."""


@dataclass(frozen=True)
class _Files:
    """Loose files of a folder."""

    folder: Path
    names: list[str]

    def read(self, choice: _Choice) -> _Batch:
        stories, digests, size = [], [], 0
        for name in self.names:
            path = self.folder / name
            with reading(str(path)):
                if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
                    stories.append(ParsedFile(choice.key(name), str(path), None, "not a file"))
                    continue
                with path.open("rb") as stream:
                    data = stream.read(LONGEST + 1)
            digests.append(hashlib.sha256(data).digest())
            size += len(data)
            stories.append(_story(choice, choice.key(name), str(path), data))
        return _Batch(stories, None, b"".join(digests), size)


@dataclass(frozen=True)
class _Stored:
    """An archive on disk, and its name in the download."""

    path: Path
    name: str

    def read(self, choice: _Choice) -> _Batch:
        with reading(str(self.path)):
            stories = list(_inside(choice, self.path, self.path.name, str(self.path)))
            return _Batch(stories, source_of(self.path, self.name))


@dataclass(frozen=True)
class _Inner:
    """An archive that lay in another one."""

    content: bytes
    name: str
    place: str

    def read(self, choice: _Choice) -> _Batch:
        with reading(self.place):
            return _Batch(list(_inside(choice, io.BytesIO(self.content), self.name, self.place)))


@dataclass(frozen=True)
class _Ready:
    """Stories (key, place, bytes) of an archive; the last of it bring its source."""

    items: list[tuple[str, str, bytes]]
    source: dict[str, Any] | None = None

    def read(self, choice: _Choice) -> _Batch:
        return _Batch([_story(choice, *item) for item in self.items], self.source)


def _read(choice: _Choice, work: _Work) -> _Batch:
    return work.read(choice)


@dataclass
class _Loose:
    """What is known of loose files: how many lie there, and a hash over those that were read."""

    files: int = 0
    read: int = 0
    bytes_read: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, batch: _Batch) -> None:
        self.read += len(batch.digests) // 32
        self.bytes_read += batch.bytes_read
        self.digest.update(batch.digests)

    def sources(self, pattern: str) -> list[dict[str, Any]]:
        """Return what a manifest says of them; the sha256 is over the sha256 of each, in order."""
        if not self.read:
            return []
        name = f"{self.read:,} files" + (f" of {self.files:,}" if self.read < self.files else "")
        found = {"name": name, "matching": pattern, "files": self.files}
        return [found | {"bytes": self.bytes_read, "sha256": self.digest.hexdigest()}]


def _inside(
    choice: _Choice, source: Path | io.BytesIO, name: str, place: str, depth: int = 1
) -> Iterator[ParsedFile]:
    """Yield the stories in an archive and in those that it holds."""
    if depth > DEEPEST:
        raise DataError(f"{place}: archives in archives, more than {DEEPEST} deep")
    with ExitStack() as opened:
        for file in archived(source, name, place, Path(name), opened):
            key = choice.key(file.base)
            if key:
                yield _story(choice, key, file.place, _content(file))
            elif file.is_archive:
                with reading(file.place):
                    yield from _inside(choice, io.BytesIO(whole(file)), file.name, file.place, depth + 1)


def _content(file: RawFile) -> bytes:
    with reading(file.place):
        return read_up_to(file, LONGEST + 1)


def _story(choice: _Choice, key: str, place: str, data: bytes) -> ParsedFile:
    if len(data) > LONGEST:
        return ParsedFile(key, place, None, f"more than {LONGEST:,} bytes; no story is that long")
    try:
        return ParsedFile(key, place, choice.parse(data), "")
    except ValueError as error:
        return ParsedFile(key, place, None, str(error))
