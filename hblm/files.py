"""Files and folders: atomic writes, content hashes, bounded reads, temporary names and their removal."""

from __future__ import annotations

import codecs
import contextlib
import functools
import hashlib
import os
import re
import shutil
import socket
import stat
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hblm.errors import DataError

HOST = socket.gethostname().replace(".", "_")  # a dot separates the parts of a temporary name
LONGEST_NAME = 255  # bytes, on the usual file systems
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # first characters of a formula in a spreadsheet
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]+)\.(?P<pid>\d+)\.tmp")
_OLD = ".old"

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

LARGEST_JSON = 64 << 20  # bytes of a result or manifest; parsed, it takes twenty times that in memory
_STALE_SECONDS = 7 * 24 * 3600.0  # age of a temporary name of another host, whose processes are not visible


def sha256_text(text: str) -> str:
    """Return the hex sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def require_file(path: Path) -> None:
    """Refuse a path that is not a regular file: reading a pipe or a device may block or never end.

    Raises:
        DataError: the path is a folder, a pipe, a socket or a device.
        OSError: the path does not exist, or its status cannot be read.
    """
    if kind := reason_not_a_file(path.stat().st_mode):
        raise DataError(f"{path}: {kind}")


def reason_not_a_file(mode: int) -> str:
    """Return what a path with this mode is instead of a regular file; "" for a regular file."""
    if stat.S_ISREG(mode):
        return ""
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "of an unknown kind")
    return f"{kind}, not a file; write its content to a file"


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file, read in blocks.

    Raises:
        DataError: the path is not a regular file.
        OSError: the file cannot be read.
    """
    require_file(path)
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_once(path: Path) -> str:
    """Return the hex sha256 of a file; it is computed once per process while size, times and inode stay."""
    status = path.stat()
    state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
    return _sha256_in_state(path.absolute(), state)


@functools.lru_cache(maxsize=256)
def _sha256_in_state(path: Path, state: tuple[int, ...]) -> str:
    return sha256_file(path)


def unfit_as_name(text: str) -> str:
    """Return why a text cannot be the name of a file or folder, or part of one; "" if it can."""
    if not text.strip() or text in (".", ".."):
        return "names no file"
    for sign in text:
        if sign in "/\\":
            return f"holds the separator {sign}"
        category = unicodedata.category(sign)
        if category == "Cs":
            return "holds a lone surrogate"
        if category in ("Cc", "Zl", "Zp"):
            return f"holds the control character {sign!a}"
    size = len(text.encode())
    return f"is too long: {size} bytes, a file's name has at most {LONGEST_NAME}" * (size > LONGEST_NAME)


def temporary_beside(target: Path) -> Path:
    """Return the temporary name of a file or folder: `.{name}.{host}.{pid}.tmp`, in the same folder."""
    return target.with_name(f".{target.name}.{HOST}.{os.getpid()}.tmp")


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path to write; on success it is flushed and renamed to `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(target)
        flush(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty temporary folder to fill; on success it becomes `target` and replaces an older one."""
    with scratch_folder(target) as temporary:
        yield temporary
        adopt_folder(temporary, target)


@contextlib.contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """Yield an empty folder with the temporary name of `beside`; it is removed at the end."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(beside)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def adopt_folder(temporary: Path, target: Path) -> None:
    """Flush a temporary folder and make it `target` on the same disk, replacing an older one."""
    mode = temporary.stat().st_mode
    for path in [*temporary.rglob("*"), temporary]:
        if path.is_file():  # some libraries write mode 0600; the folder has the mode of the umask
            path.chmod(mode & 0o666)
        flush(path)
    if target.exists():  # a folder cannot be replaced in one rename: the old one is renamed first
        aside = temporary_beside(target.with_name(target.name + _OLD))
        target.rename(aside)
        temporary.rename(target)
        shutil.rmtree(aside, ignore_errors=True)  # the next start removes what is left
    else:
        temporary.rename(target)
    flush(target.parent)


def write_text(target: Path, text: str) -> None:
    """Write a text file atomically."""
    with new_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def cell_text(value: Any) -> Any:
    """Return a value as a cell of a CSV file: a text that a spreadsheet reads as a formula is quoted by '.

    Numbers are unchanged, also those written as text, such as -0.5.
    """
    if not isinstance(value, str) or value[:1] not in _FORMULA_STARTS:
        return value
    return value if _NUMBER.fullmatch(value) else f"'{value}"


def read_bytes(file: Path, largest: int = LARGEST_JSON) -> bytes:
    """Return the content of a file without a byte order mark.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the path is not a regular file, has more than `largest` bytes or cannot be read; the
            message gives the reason without the path.
    """
    try:
        with open(file, "rb", buffering=0, opener=_without_blocking) as stream:
            status = os.fstat(stream.fileno())
            if kind := reason_not_a_file(status.st_mode):
                raise ValueError(kind)
            if status.st_size > largest:
                raise ValueError(f"{status.st_size:,} bytes; at most {largest:,} are read")
            content = stream.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    return content.removeprefix(codecs.BOM_UTF8)


def _without_blocking(file: str, flags: int) -> int:
    """Open a path without waiting for a writer, if it is a pipe."""
    return os.open(file, flags | getattr(os, "O_NONBLOCK", 0))


def remove_stale(folder: Path) -> None:
    """Remove temporary files and folders of dead processes; restore a folder that was renamed for a swap."""
    for path in list(folder.glob(".*.tmp")):
        match = _TEMPORARY.fullmatch(path.name)
        # another process may clean up at the same time; another user may own the path; it may be read-only
        with contextlib.suppress(OSError):
            if not match or not _stale(path, match["host"], int(match["pid"])):
                continue
            original = path.with_name(match["name"].removesuffix(_OLD))
            if match["name"].endswith(_OLD) and not original.exists():
                path.rename(original)  # the process was killed between the two renames of adopt_folder
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _stale(path: Path, host: str, pid: int) -> bool:
    if host == HOST:
        return not _alive(pid)
    return time.time() - path.stat().st_mtime > _STALE_SECONDS


def flush(path: Path) -> None:
    """Flush a file or folder entry to the disk, so that it survives a crash after the rename."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
