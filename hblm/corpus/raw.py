"""Raw downloads, read safely: the files of a folder or an archive; nothing is unpacked to disk.

A member of an archive is opened where it lies. Whatever is wrong with the bytes (cut short, damaged, in
another encoding, a line without an end) is a DataError with file and place.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any

from hblm.artifacts import sha256_file
from hblm.errors import ConfigError, DataError

LONGEST = 16 << 20  # characters of a line, a cell or a record: no document is longer, a damaged file may be
_RETURN = "\ufdd0"  # a character that Unicode keeps for such use, and that no text has
_HEAD = 1 << 20  # bytes looked at for the encoding and the line ends
_ZIP, _TAR = (".zip",), (".tar", ".tgz", ".txz", ".tbz2", ".tar.gz", ".tar.xz", ".tar.bz2")
_COMPRESSED: Mapping[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before that of UTF-16, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
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


class Raw:
    """A download: a folder, a .zip, a .tar (.gz, .xz, .bz2), or a single file; to be used in a `with`.

    Hidden files, links inside archives and __MACOSX are left out.

    Attributes:
        files: what it holds, sorted by name.

    Raises:
        DataError: not there, damaged, encrypted, or an archive with a path that climbs out of its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._used: dict[Path, None] = {}
        with reading(str(path)), contextlib.ExitStack() as opened:
            if not path.exists():
                raise DataError(f"raw={path} is not there")
            if path.is_dir():
                list(os.scandir(path))  # says so where it may not be read; rglob passes over it
                found = [self._plain(file, file.relative_to(path).as_posix()) for file in path.rglob("*")]
            elif path.name.lower().endswith(_ZIP):
                found = list(self._zipped(opened.enter_context(zipfile.ZipFile(path))))
            elif path.name.lower().endswith(_TAR):
                found = list(self._tarred(opened.enter_context(tarfile.open(path))))
            else:
                found = [self._file(path.name, str(path), path, lambda: path.open("rb"))]
            self.files = sorted((file for file in found if file), key=lambda file: file.name)
            if not self.files:
                raise DataError(f"{path}: holds no files")
            self._archives = opened.pop_all()  # open until this is left

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archives.close()

    def matching(self, *patterns: str) -> list[RawFile]:
        """Return the files whose name without folders matches one of the patterns, whatever the case."""
        return [
            file
            for file in self.files
            if any(fnmatchcase(file.base.lower(), pattern.lower()) for pattern in patterns)
        ]

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

    def sources(self) -> list[dict[str, Any]]:
        """Return name, size and sha256 of the files on disk that were opened."""
        inside = self.path.is_dir()
        return [
            source_of(path, path.relative_to(self.path).as_posix() if inside else path.name)
            for path in sorted(self._used)
        ]

    def _plain(self, path: Path, name: str) -> RawFile | None:
        if _is_hidden(name) or not path.is_file():
            return None
        return self._file(name, str(path), path, lambda: path.open("rb"))

    def _zipped(self, archive: zipfile.ZipFile) -> Iterator[RawFile | None]:
        for info in archive.infolist():
            self._refuse_climbing(info.filename)
            if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16) or _is_hidden(info.filename):
                continue
            if info.flag_bits & 1:
                raise DataError(f"{self.path}: {info.filename} is encrypted; unpack the archive first")

            def opener(info: zipfile.ZipInfo = info) -> IO[bytes]:
                return archive.open(info)

            name = info.filename.replace("\\", "/")  # as some programs on Windows write it
            yield self._file(name, f"{self.path}:{name}", self.path, opener)

    def _tarred(self, archive: tarfile.TarFile) -> Iterator[RawFile | None]:
        for info in archive:
            self._refuse_climbing(info.name)
            if not info.isfile() or _is_hidden(info.name):
                continue

            def opener(info: tarfile.TarInfo = info) -> IO[bytes]:
                stream = archive.extractfile(info)
                assert stream is not None  # a plain file
                return stream

            yield self._file(info.name, f"{self.path}:{info.name}", self.path, opener)
        _require_whole(archive)

    def _refuse_climbing(self, name: str) -> None:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if ".." in parts or name[:1] in "/\\" or re.match("[A-Za-z]:", name):
            raise DataError(
                f"{self.path}: holds {name!r}, a path that leaves the folder it would be unpacked to; "
                f"it is not read"
            )

    def _file(self, name: str, place: str, stored: Path, source: Callable[[], IO[bytes]]) -> RawFile:
        """Return a file whose bytes `source` opens, compressed or not."""
        name = name.removeprefix("./")
        stem, dot, suffix = name.rpartition(".")
        unwrap = _COMPRESSED.get(dot + suffix.lower())

        @contextlib.contextmanager
        def opened() -> Iterator[IO[bytes]]:
            self._used[stored] = None
            with source() as stream:
                if unwrap is None:
                    yield stream
                else:
                    with unwrap(stream) as unwrapped:
                        yield unwrapped

        return RawFile(stem if unwrap else name, place, stored, opened)


def _is_hidden(name: str) -> bool:
    parts = name.replace("\\", "/").removeprefix("./").split("/")
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts)


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
    return {"name": name, "bytes": path.stat().st_size, "sha256": sha256_file(path)}


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


def read_text(file: RawFile, encoding: str | None = None) -> Iterator[str]:
    """Yield a text in pieces, all line ends as \\n; the encoding is the byte-order mark's, else UTF-8.

    Raises:
        DataError: damaged, or not in the encoding.
    """
    chosen, ends = _sniff(file, encoding)
    with _text(file, chosen, ends, newline=None) as stream:
        while piece := stream.read(1 << 16):
            yield piece


def read_lines(file: RawFile, encoding: str | None = None, *, ends: bool = False) -> Iterator[str]:
    """Yield the lines of a text, blank ones at its end left out.

    A file with a \\n ends its lines there, and \\r is text but before \\n; one with \\r alone (an old Mac's)
    ends them there. U+2028 and its like end nothing.

    Args:
        file: to be read.
        encoding: None: the byte-order mark's, else UTF-8.
        ends: keep the line ends, and blank lines.

    Raises:
        DataError: damaged, not in the encoding, or a line above LONGEST.
    """
    chosen, newline = _sniff(file, encoding)
    blank = number = 0
    with _text(file, chosen, newline, newline=newline) as stream:
        while line := stream.readline(LONGEST + 2):
            number += 1
            if len(line) > LONGEST and len(line.rstrip("\r\n")) > LONGEST:
                raise DataError(
                    f"{file.place}:{number}: a line of more than {LONGEST:,} characters; no document is that "
                    f"long: are line ends missing, or is it another kind of file?"
                )
            if ends:
                yield line
                continue
            line = line.rstrip("\r\n") if line.endswith(("\n", "\r")) else line
            if not line or line.isspace():
                blank += 1
                continue
            for _ in range(blank):
                yield ""
            blank = 0
            yield line


def read_rows(
    file: RawFile,
    *,
    delimiter: str,
    quote: str | None = '"',
    encoding: str | None = None,
    blank: bool = False,
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line of its first character, cells) for each row of a delimited text; empty rows are left out.

    A carriage return inside a line is text, also without quotes around it.

    Args:
        file: to be read.
        delimiter: between cells.
        quote: around cells that hold it; None: quotes are text.
        encoding: None: the byte-order mark's, else UTF-8.
        blank: leave out a blank after the delimiter.

    Raises:
        DataError: as `read_lines`; also a quote that is out of place or never closed.
    """
    lines = read_lines(file, encoding, ends=True)
    if quote is None:
        require_character("delimiter", delimiter)
        for number, line in enumerate(lines, 1):
            if not line.isspace():
                yield number, line.rstrip("\r\n").split(delimiter)
        return
    rows = delimited(map(_hide_returns, lines), delimiter, quote, blank)
    start = 1
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as error:
            unclosed = "field larger" in str(error) or "unexpected end" in str(error)
            why = "a quote is opened in this row and never closed" if unclosed else str(error)
            raise DataError(
                f"{file.place}:{start}: {why}; where quotes are plain text, write dataset.prepare.quote=none"
            ) from None
        if cells is None:
            return
        if cells:
            yield start, [cell.replace(_RETURN, "\r") if _RETURN in cell else cell for cell in cells]
        start = rows.line_num + 1


def _hide_returns(line: str) -> str:
    """Put a stand-in for carriage returns inside a line, which a csv.reader takes only between quotes."""
    end = "\r\n" if line.endswith("\r\n") else line[-1:]
    body = line[: len(line) - len(end)]
    return body.replace("\r", _RETURN) + end if "\r" in body else line


def delimited(lines: Iterable[str], delimiter: str, quote: str, blank: bool = False) -> Any:
    """Return a csv.reader for cells of up to LONGEST characters.

    Raises:
        ConfigError: a delimiter or quote that is not one character.
    """
    for name, sign in (("delimiter", delimiter), ("quote", quote)):
        require_character(name, sign)
    csv.field_size_limit(LONGEST)
    return csv.reader(lines, delimiter=delimiter, quotechar=quote, strict=True, skipinitialspace=blank)


def require_character(option: str, sign: str) -> None:
    """Refuse a delimiter or quote that is not one character of a line.

    Raises:
        ConfigError: it is not.
    """
    if len(sign) != 1 or sign in "\r\n":
        raise ConfigError(f"dataset.prepare.{option}={sign!r}: expected one character")


def require_encoding(name: str | None) -> None:
    """Refuse an encoding that Python does not know.

    Raises:
        ConfigError: it does not.
    """
    try:
        "a".encode(name or "utf-8")
    except (LookupError, ValueError):  # unknown, or one between bytes such as hex
        raise ConfigError(
            f"dataset.prepare.encoding={name} is no encoding; write utf-8, cp1252, iso-8859-1, utf-16 ..."
        ) from None


@contextlib.contextmanager
def _text(file: RawFile, encoding: str, line_end: str, *, newline: str | None) -> Iterator[io.TextIOWrapper]:
    """Open a text; `newline` as `open` takes it, `line_end` counts the lines to a byte that is no text."""
    with (
        reading(file.place),
        file.open() as raw,
        io.TextIOWrapper(raw, encoding=encoding, newline=newline) as stream,
    ):
        try:
            yield stream
        except UnicodeError:
            raise DataError(_undecodable(file, encoding, line_end)) from None


def _sniff(file: RawFile, encoding: str | None) -> tuple[str, str]:
    """Return a file's encoding, and what ends its lines."""
    with reading(file.place), file.open() as stream:
        head = stream.read(_HEAD)
        head += stream.read(4) if head.endswith((b"\r", b"\r\0")) else b""  # the \n may be the next
    if head.startswith(b"PK\x03\x04"):
        raise DataError(f"{file.place}: a zip or Office file; save the sheet as CSV, or call an archive .zip")
    found = next((name for bom, name in _BOMS if head.startswith(bom)), None)
    chosen = found or encoding or "utf-8"
    if head.count(0) > len(head) // 4 and not _is_wide(chosen):
        raise DataError(
            f"{file.place}: not a text in {chosen}: a quarter of its bytes are NUL; "
            f"UTF-16 without a byte-order mark needs dataset.prepare.encoding=utf-16-le"
        )
    text = head.decode(chosen if _is_wide(chosen) else "latin-1", "ignore")
    return chosen, "\r" if "\r" in text and "\n" not in text else "\n"


def _is_wide(encoding: str) -> bool:
    """Tell whether a character takes more than a byte, so that lines are no runs of bytes up to \\n."""
    return re.sub("[-_]", "", encoding.lower()).startswith(("utf16", "utf32"))


def _undecodable(file: RawFile, encoding: str, line_end: str) -> str:
    """Say where the first byte stands that is not in the encoding; the decoder only knows its own block."""
    way_out = "if it is in another encoding, write dataset.prepare.encoding=cp1252 (or its name)"
    name = {"utf-8": "UTF-8", "utf-8-sig": "UTF-8"}.get(encoding, encoding)
    if _is_wide(encoding):
        return f"{file.place}: not {name}; {way_out}"
    end, line, byte = line_end.encode(), 1, 0
    decoder = codecs.getincrementaldecoder(encoding)()
    with file.open() as stream:
        while block := stream.read(1 << 16):
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                start = error.start - (len(error.object) - len(block))  # below 0: begun in the block before
                block = block[: max(start, 0)]
                line, byte = line + block.count(end), _after(end, byte, block) + min(start, 0)
                break
            line, byte = line + block.count(end), _after(end, byte, block)
        else:  # the file ends inside a character
            byte -= len(decoder.getstate()[0])
    return f"{file.place}:{line}: not {name} at byte {byte + 1} of the line; {way_out}"


def _after(end: bytes, byte: int, block: bytes) -> int:
    """Return how far into its line the byte after a block is, given how far the block's first one is."""
    last = block.rfind(end)
    return byte + len(block) if last < 0 else len(block) - last - 1
