"""Locks that processes share through files; a lock ends with the process that holds it, however that ends.

A lock file has the mode that the umask gives, so that several users of one group can share a folder. A
process that only checks whether a lock is held needs no permission to write it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from filelock import FileLock, Timeout

from hblm.errors import SharingError

_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def lock_of(file: Path) -> FileLock:
    """Return the lock of a file; create file and folder if they are missing.

    Raises:
        SharingError: another user created the file and this one may not write it, or the folder may not
            be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # created here: versions of filelock that make it themselves give it a mode of their own
        if not file.exists():
            os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o666))
        mode = file.stat().st_mode & 0o777
    except OSError as error:
        if error.errno in _DENIED:
            raise SharingError(Path(error.filename or file)) from None
        raise
    if not os.access(file, os.W_OK):
        raise SharingError(file)
    return FileLock(file, mode=mode)


def is_held(file: Path) -> bool:
    """Return whether a process holds the lock of a file now; do not create a missing file."""
    if not file.exists():
        return False
    if not os.access(file, os.W_OK):
        return _is_held_by_another_user(file)
    lock = lock_of(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _is_held_by_another_user(file: Path) -> bool:
    """Check a lock file without permission to write it; without permission to read it counts as free."""
    import fcntl  # not on Windows, where a file that may be read only cannot be locked at all

    with contextlib.suppress(PermissionError, FileNotFoundError):
        handle = os.open(file, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
    return False
