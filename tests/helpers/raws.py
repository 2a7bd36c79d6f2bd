"""Raw downloads for tests: files in memory, folders and archives of them."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from hblm.data.raw.archives import Raw, RawFile
from hblm.data.raw.text import read_lines
from hblm.errors import DataError

TEXT = "".join(random.Random(3).choices("abcdef ghij\n", k=4000)).encode()


def file_of(data: bytes, name: str = "x.txt") -> RawFile:
    """Return a raw file in memory."""
    return RawFile(name, name, Path(name), lambda: io.BytesIO(data))


def packed(path: Path, members: dict[str, bytes]) -> Path:
    """Write members into a folder or an archive, by the suffix of the path."""
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    elif path.suffix:
        modes = {"gz": "w:gz", "tgz": "w:gz", "xz": "w:xz", "txz": "w:xz", "bz2": "w:bz2", "tbz2": "w:bz2"}
        with tarfile.open(path, modes.get(path.suffix[1:], "w")) as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    else:
        for name, data in members.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return path


def content(path: Path) -> dict[str, list[str]]:
    """Return the lines of every file of a download."""
    with Raw(path) as raw:
        return {file.name: list(read_lines(file)) for file in raw.files}


def fault_in(path: Path) -> str:
    """Return the error message of reading a whole download."""
    with pytest.raises(DataError) as caught:
        content(path)
    return str(caught.value)
