"""Cache entries: folders named by a hash of their inputs, written atomically, verified when opened.

`meta.json` in an entry holds the inputs, and the size and sha256 of each file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import filelock

from hblm.console import log
from hblm.files import new_folder, remove_stale, sha256_file, sha256_text
from hblm.json_files import canonical_json, write_json
from hblm.locks import lock_of

META = "meta.json"


class Entry:
    """A folder `kind/<sha256 of its inputs>`, which may not exist yet.

    A process that needs a missing or damaged entry writes it while it holds the lock:

        if not entry.is_whole():
            with entry.locked():
                if not entry.is_whole():
                    with entry.renewed() as folder:
                        ...  # fill the folder

    Attributes:
        folder: its path.
        made_from: the inputs, as JSON values.
        files: the names of all its files.
    """

    def __init__(self, kind: Path, made_from: dict[str, Any], files: Iterable[str]) -> None:
        self.folder = kind / sha256_text(canonical_json(made_from))
        self.made_from = made_from
        self.files = frozenset(files)

    def is_whole(self) -> bool:
        """Return whether every file is as it was written; all files are read and hashed."""
        try:
            meta = json.loads((self.folder / META).read_text(encoding="utf-8"))
            # an unexpected name is not opened
            return (meta["made_from"], meta["files"].keys()) == (self.made_from, self.files) and all(
                (self.folder / name).is_file()
                and (self.folder / name).stat().st_size == file["size"]
                and sha256_file(self.folder / name) == file["sha256"]
                for name, file in meta["files"].items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False

    def require_whole(self) -> None:
        """Check an entry that was just written.

        Raises:
            OSError: a file is not as it was written.
        """
        if not self.is_whole():
            raise OSError(
                f"{self.folder}: written, but not there as written; does something else clean up this "
                "folder, or do the machines of a run not share it?"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the entry; wait for a process that writes the same entry.

        Raises:
            SharingError: this user may not write the cache.
        """
        lock = lock_of(self.folder.with_name(f"{self.folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log.info("another process fills %s: waiting for it", self.folder)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def renewed(self) -> Iterator[Path]:
        """Yield an empty folder to fill, which then becomes the entry."""
        remove_stale(self.folder.parent)
        with new_folder(self.folder) as temporary:
            yield temporary
            files = {
                path.name: {"size": path.stat().st_size, "sha256": sha256_file(path)}
                for path in sorted(temporary.iterdir())
            }
            write_json(temporary / META, {"made_from": self.made_from, "files": files})
        self.require_whole()


def checksums(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of an entry, from its meta.json."""
    files = json.loads((folder / META).read_text(encoding="utf-8"))["files"]
    return {name: file["sha256"] for name, file in files.items()}
