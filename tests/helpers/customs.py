"""Own data in tests: written in many formats, prepared by the program, and read back."""

from __future__ import annotations

import csv
import functools
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from programs import compose

from hblm.config.prepare import PrepareConfig
from hblm.data import preparation
from hblm.data.dataset import Prepared, open_prepared
from hblm.document import SPLITS

Record = dict[str, Any]
Files = Mapping[str, bytes]


@functools.cache
def composed(*overrides: str) -> PrepareConfig:
    found: PrepareConfig = compose("prepare", PrepareConfig, "dataset=custom", "encoder=tiny", *overrides)
    return found


def config(raw: Path | str, name: str | None = None, *, force: bool = False, **options: Any) -> PrepareConfig:
    """Return the configuration with some options of the converter; it is composed once, as that is slow."""
    base = composed("raw=x")
    dataset = replace(base.dataset, name=name, path=None, prepare=base.dataset.prepare | options)
    return replace(base, raw=str(raw), force=force, dataset=dataset)


def prepared_by(cfg: PrepareConfig) -> Prepared:
    """Prepare by the program, and open the dataset."""
    preparation.run(cfg)
    return open_prepared(cfg.dataset.folder)


def prepared(raw: Path | str, name: str | None = None, *, force: bool = False, **options: Any) -> Prepared:
    return prepared_by(config(raw, name, force=force, **options))


def write(files: Files, folder: str = "raw") -> Path:
    """Write raw files; return the only file, or the folder of several."""
    for name, content in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Path(folder, *files) if len(files) == 1 else Path(folder)


def jsonl(records: Sequence[Record]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def delimited(records: Sequence[Record], sign: str = ",") -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(records[0]), delimiter=sign, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue().encode()


def tabbed(records: Sequence[Record]) -> bytes:
    return delimited(records, "\t")


def parquet(records: Sequence[Record]) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(records)), sink)
    return sink.getvalue()


def zipped(files: Files) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue()


Documents = dict[str, tuple[str, str, frozenset[tuple[str, ...]]]]


def documents(found: Prepared) -> Documents:
    """Return split, text and paths of names of every document, by id."""
    taxonomy = found.taxonomy
    names = {node.id: node.name for node in taxonomy.nodes}
    paths = {
        node: tuple(names[above] for above in [*reversed(taxonomy.ancestors(node)), node]) for node in names
    }
    return {
        document.id: (split, document.text, frozenset(paths[label] for label in document.labels))
        for split in SPLITS
        for document in found.documents(split)
    }


def sizes(found: Prepared) -> list[int]:
    return [sum(1 for _ in found.documents(split)) for split in SPLITS]
