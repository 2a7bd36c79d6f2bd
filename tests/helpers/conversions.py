"""Runs of converters on raw downloads, what they made, and archives, whole or damaged."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from programs import compose
from raws import packed

from hblm.config.prepare import PrepareConfig
from hblm.config.train import Dataset
from hblm.data.converters import load_converter
from hblm.data.dataset import Prepared, open_prepared
from hblm.data.raw.archives import Raw
from hblm.data.writer import Conversion, write_dataset
from hblm.document import SPLITS, Document

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("HBLM_SHARED_DATA", ROOT.parent / "shared" / "data"))  # published files

Files = Mapping[str, bytes]
Changes = Mapping[str, "bytes | None"]  # None: the file is missing


def own_config(name: str, *overrides: str) -> Dataset:
    """Return the dataset as conf/dataset/<name>.yaml configures it."""
    dataset: Dataset = compose("prepare", PrepareConfig, f"dataset={name}", "raw=x", *overrides).dataset
    return dataset


def dataset_in(folder: Path, name: str, options: Mapping[str, Any] = {}, expect: Any = None) -> Dataset:
    """Return a dataset in data/ of a folder, with these options alone."""
    return Dataset(name, str(folder / "data" / name), name, "a download", dict(options), expect or {})


def conversion_of(name: str, raw: Path | None, scratch: Path, **options: Any) -> Conversion:
    """Run a converter."""
    scratch.mkdir(parents=True, exist_ok=True)
    return load_converter(name)(raw, options, scratch, lambda title, total: lambda steps: None)


def converted(
    name: str,
    raw: Path | Files | None,
    folder: Path,
    target: str = "",
    *,
    expect: Mapping[str, Any] | None = None,
    allow_mismatch: bool = False,
    **options: Any,
) -> Prepared:
    """Run a converter, write the dataset to data/<target> of a folder, and open it.

    Files in place of a raw download are written to a folder first.
    """
    target = target or name
    path = packed(folder / f"raw {target}", dict(raw)) if isinstance(raw, Mapping) else raw
    conversion = conversion_of(name, path, folder / f"scratch {target}", **options)
    write_dataset(
        folder / "data" / target,
        conversion,
        converter=name,
        expect=expect or {},
        allow_mismatch=allow_mismatch,
    )
    return open_prepared(folder / "data" / target)


def documents(prepared: Prepared) -> dict[str, list[Document]]:
    return {split: list(prepared.documents(split)) for split in SPLITS}


def ids(prepared: Prepared) -> dict[str, list[str]]:
    return {split: [document.id for document in found] for split, found in documents(prepared).items()}


def by_id(prepared: Prepared) -> dict[str, Document]:
    return {document.id: document for found in documents(prepared).values() for document in found}


def content(prepared: Prepared) -> dict[str, bytes]:
    """Return the bytes of the four files."""
    return {name: (prepared.folder / name).read_bytes() for name in prepared.files}


def manifest(prepared: Prepared) -> Mapping[str, Any]:
    assert prepared.manifest is not None
    return prepared.manifest


def repaired(prepared: Prepared) -> Counter[str]:
    return Counter(manifest(prepared)["repaired"])


def first_file(path: Path, read: Any) -> Any:
    """Return what a reader of raw files returns for the one file at a path."""
    with Raw(path) as files:
        return read(files.files[0])


def below(folder: str, files: Files) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def changed(files: Files, changes: Changes) -> dict[str, bytes]:
    """Return files with some replaced, added or taken away."""
    return {name: data for name, data in {**files, **changes}.items() if data is not None}


def zip_of(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def tar_of(files: Files, compression: str = "") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{compression}") as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def archive_of(kind: str, files: Files) -> bytes:
    """Return an archive of a kind such as zip, tar or tar.xz."""
    return zip_of(files) if kind == "zip" else tar_of(files, kind.partition(".")[2])


def flipped(data: bytes, at: int | None = None) -> bytes:
    """Return bytes with a bit of one of them changed, by default of the one in the middle."""
    at = len(data) // 2 if at is None else at
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def encrypted(data: bytes) -> bytes:
    """Return a zip whose first member has the mark of encryption."""
    marked = bytearray(data)
    marked[6] |= 1
    marked[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(marked)


def cut_gz(data: bytes) -> bytes:
    """Return compressed bytes without their last ones."""
    return gzip.compress(data)[:-9]
