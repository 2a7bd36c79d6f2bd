"""Files that are there whole or not at all, content hashes, and the stamp of where a run was made."""

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

HOST = socket.gethostname().replace(".", "_")  # so that a temporary name can be taken apart again


LONGEST_NAME = 255  # bytes, on the usual file systems


_COMPUTED = ("=", "+", "-", "@", "\t", "\r")  # what a formula begins with in a spreadsheet


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]+)\.(?P<pid>\d+)\.tmp")


_ASIDE = ".old"


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


LARGEST_JSON = 64 << 20  # bytes of a result, a manifest or the like; it takes twenty times that in memory
_STALE_SECONDS = 7 * 24 * 3600.0  # a temporary name of another host, whose processes cannot be asked


def sha256_text(text: str) -> str:
    """Return the hex sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def require_file(path: Path) -> None:
    """Refuse what is no file: a pipe or a device would be waited for, or never end.

    Raises:
        DataError: it is something else.
        OSError: it is not there, or may not be looked at.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "not a file")
        raise DataError(f"{path}: {kind}; only files are read, so write its content to one")


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file, read in blocks.

    Raises:
        DataError: it is no file.
        OSError: it cannot be read.
    """
    require_file(path)
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_once(path: Path) -> str:
    """Return the hex sha256 of a file, computed once a process for each state of it: for gigabytes."""
    stat = path.stat()
    state = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev)
    return _sha256_in_state(path.absolute(), state)


@functools.lru_cache(maxsize=256)
def _sha256_in_state(path: Path, state: tuple[int, ...]) -> str:
    return sha256_file(path)


def unfit_as_name(text: str) -> str:
    """Return why a text cannot be the name of a file or folder, nor part of one; "" where it can."""
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
    """Give a temporary path to write; at the end it is flushed and becomes `target` in one step."""
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
    """Give an empty temporary folder to fill; at the end it becomes `target`, replacing an older one."""
    with scratch_folder(target) as temporary:
        yield temporary
        adopt_folder(temporary, target)


@contextlib.contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """Give an empty folder under the temporary name of `beside`; it goes at the end."""
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
        if path.is_file():  # libraries write some with mode 0600; the folder's own is what the umask gives
            path.chmod(mode & 0o666)
        flush(path)
    if target.exists():  # a folder cannot be replaced in one step: the old one steps aside first
        aside = temporary_beside(target.with_name(target.name + _ASIDE))
        target.rename(aside)
        temporary.rename(target)
        shutil.rmtree(aside, ignore_errors=True)  # what is left of it goes at the next start
    else:
        temporary.rename(target)
    flush(target.parent)


def write_text(target: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with new_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def cell_text(value: Any) -> Any:
    """Return a cell of a CSV file: a text that a spreadsheet would compute gets an apostrophe before it.

    Numbers stay as they are, also those that are texts, as -0.5.
    """
    if not isinstance(value, str) or value[:1] not in _COMPUTED:
        return value
    return value if _NUMBER.fullmatch(value) else f"'{value}"


def read_bytes(file: Path, largest: int = LARGEST_JSON) -> bytes:
    """Return what a file holds, without a byte order mark.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is no file (a folder, a pipe, a device), has more than `largest` bytes or cannot be
            read; which of these, without the file's name.
    """
    try:
        with open(file, "rb", buffering=0, opener=_without_waiting) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("not a file")
            if status.st_size > largest:
                raise ValueError(f"{status.st_size:,} bytes; at most {largest:,} are read")
            content = stream.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    return content.removeprefix(codecs.BOM_UTF8)


def _without_waiting(file: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to as well, which otherwise is waited for."""
    return os.open(file, flags | getattr(os, "O_NONBLOCK", 0))


def remove_stale(folder: Path) -> None:
    """Clear `folder` of the temporary names whose process is gone; put back a folder set aside."""
    for path in list(folder.glob(".*.tmp")):
        match = _TEMPORARY.fullmatch(path.name)
        # another process may clean up at the same time, another user own what lies there, or nobody may write
        with contextlib.suppress(OSError):
            if not match or not _stale(path, match["host"], int(match["pid"])):
                continue
            original = path.with_name(match["name"].removesuffix(_ASIDE))
            if match["name"].endswith(_ASIDE) and not original.exists():
                path.rename(original)  # killed between the two renames of new_folder
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _stale(path: Path, host: str, pid: int) -> bool:
    if host == HOST:
        return not _alive(pid)
    return time.time() - path.stat().st_mtime > _STALE_SECONDS


def flush(path: Path) -> None:
    """Bring a file or folder entry to the disk before its name is trusted."""
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
