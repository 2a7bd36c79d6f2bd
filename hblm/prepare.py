"""`python -m hblm.prepare`: from a raw download, or from nothing, to a prepared dataset in data/<name>/."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.console import Console
from rich.table import Table

import hblm
from hblm import cli
from hblm.artifacts import remove_stale, temporary_beside
from hblm.config import Dataset, PrepareConfig
from hblm.corpus.prepared import Prepared, open_prepared, verify
from hblm.corpus.write import Conversion, write_dataset
from hblm.errors import ConfigError, DataError
from hblm.schema import plain
from hblm.terminal import StartTask, log, progress

PROGRAM = cli.Program(
    name="prepare",
    schema=PrepareConfig,
    summary="Prepare a dataset: data/<name>/ with taxonomy.json, train/val/test.jsonl and manifest.json.",
    examples=(
        "python -m hblm.prepare dataset=docstrings",
        "python -m hblm.prepare dataset=docstrings check=true",
        "python -m hblm.prepare dataset=custom dataset.path=DIR check=true",
    ),
)


def open_or_prepare(dataset: Dataset) -> Prepared:
    """Open a prepared dataset; one that needs no download is prepared on first use.

    Raises:
        DataError: it is not there and cannot be made, or its files are not what they should be.
    """
    folder = Path(dataset.path)
    if not folder.exists() and dataset.converter:
        log.info("%s is not there yet: preparing it", folder)
        prepare(dataset, raw=None)
    prepared = open_prepared(folder, dataset.name, _command(dataset))
    made_with = (prepared.manifest or {}).get("options", {})
    if dataset.converter and isinstance(made_with, Mapping):
        for name in sorted(dataset.prepare.keys() & made_with.keys()):
            if made_with[name] != dataset.prepare[name]:
                log.warning(
                    "%s was prepared with %s=%s and is used as it is; dataset.prepare.%s=%s takes effect "
                    "with python -m hblm.prepare ... force=true, or under another dataset.name",
                    *(folder, name, plain(made_with[name]), name, plain(dataset.prepare[name])),
                )
    return prepared


def _command(dataset: Dataset) -> str | None:
    return f"python -m hblm.prepare dataset={dataset.name}" if dataset.converter else None


def prepare(dataset: Dataset, raw: Path | None, *, force: bool = False) -> bool:
    """Run the dataset's converter and write its folder whole or not at all; say whether it was needed.

    Raises:
        ConfigError: the dataset has no converter.
        DataError: the raw data is not what the converter expects.
    """
    if not dataset.converter:
        raise ConfigError(
            f"dataset={dataset.name or 'custom'} has no converter in this version; put taxonomy.json and "
            f"train/val/test.jsonl into {dataset.path} (DATA.md gives the format)"
        )
    folder = Path(dataset.path)
    convert = load_converter(dataset.converter)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if folder.exists() and not force:
            return False  # another process made it while this one waited
        remove_stale(folder.parent)
        scratch = temporary_beside(folder.with_name(f"{folder.name}.scratch"))
        scratch.mkdir()
        try:
            with progress() as start:
                conversion = convert(raw, dataset.prepare, scratch, start)
                advance = start("writing documents", None)
                write_dataset(folder, conversion, converter=dataset.converter, on_document=lambda: advance(1))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return True


Converter = Callable[["Path | None", Mapping[str, Any], Path, StartTask], Conversion]


def load_converter(name: str) -> Converter:
    """Load datasets/<name>.py by its path: that folder must never be a package (Hugging Face's is one).

    Raises:
        ConfigError: there is no such script.
    """
    package = Path(hblm.__file__).resolve().parent
    candidates = (package / "datasets" / f"{name}.py", package.parent / "datasets" / f"{name}.py")
    script = next((path for path in candidates if path.is_file()), None)
    if script is None:
        raise ConfigError(f"dataset.converter={name}: there is no datasets/{name}.py")
    spec = importlib.util.spec_from_file_location(f"hblm_converter_{name}", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    convert: Converter = module.convert
    return convert


def run(config: PrepareConfig) -> None:
    """Prepare or verify one dataset and print what it holds."""
    folder = Path(config.dataset.path)
    if not config.check:
        raw = Path(config.raw) if config.raw else None
        if raw is not None and not raw.exists():
            raise DataError(f"raw={raw} is not there")
        if not prepare(config.dataset, raw, force=config.force):
            print(f"{folder} is there already; force=true prepares it again")
    prepared = open_prepared(folder, config.dataset.name, _command(config.dataset))
    _print_counts(prepared, verify(prepared))


def _print_counts(prepared: Prepared, counts: Mapping[str, Any]) -> None:
    table = Table(title=f"{prepared.folder}: {len(prepared.taxonomy)} nodes", title_justify="left")
    for column in ("split", "level", "nodes", "nodes with documents", "labels"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, found in counts.items():
        for level, (nodes, row) in enumerate(zip(prepared.taxonomy.levels, found["levels"], strict=True)):
            cells = (level, len(nodes), row["nodes"], row["labels"])
            table.add_row("" if level else split, *(f"{cell:,}" for cell in cells))
        table.add_row("", "documents", "", "", f"{found['documents']:,}", end_section=True)
    Console().print(table)
    for warning in (prepared.manifest or {}).get("warnings") or []:
        print(f"note: {warning}")


def main_for(name: str) -> None:
    """Prepare dataset `name` from the command line: what datasets/<name>.py does when run as a script."""
    cli.main(PROGRAM, run, [f"dataset={name}", *sys.argv[1:]])


if __name__ == "__main__":
    cli.main(PROGRAM, run)
