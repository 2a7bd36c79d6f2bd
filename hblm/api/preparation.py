"""`hblm.api.prepare`: a prepared dataset, from files or from tables in memory."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hblm.api.arguments import configuration, words_of
from hblm.api.records import write_records
from hblm.api.results import PrepareResult
from hblm.cli.programs import PREPARE
from hblm.config.prepare import PrepareConfig
from hblm.data import preparation
from hblm.errors import ConfigError, DataError

_OWN = {each.name for each in fields(PrepareConfig)}


def prepare(
    raw: Any = None,
    *overrides: str,
    name: str | None = None,
    path: str | os.PathLike[str] | None = None,
    config_dir: str | Path | None = None,
    **settings: Any,
) -> PrepareResult:
    """Prepare a dataset and return it; a folder that exists already is verified and returned.

    Args:
        raw: the raw data: a file, folder or archive; or a table in memory, which needs a `name` or a `path`:
            a DataFrame, a `datasets.Dataset`, a list of mappings, or a mapping of splits to these. None for
            a dataset that needs no download, such as dataset="docstrings".
        overrides: "key=value" as on the command line of hblm.prepare.
        name: of the dataset, and of its folder in `data_dir`.
        path: the folder to write.
        config_dir: a folder of your own options.
        settings: keys of hblm.prepare, such as force=True, data_dir="data" or encoder="minilm"; every other
            keyword is an option of the converter, such as text="body", labels="topic", separator=" > ".
            In a table in memory a label is a name or a path; a tuple of names is a path, root first.

    Raises:
        ConfigError: all faults of the arguments, a line each; or an option that cannot be detected.
        DataError: a fault in the data, with its place.
    """
    given = {key: value for key, value in settings.items() if key in _OWN or "." in key}
    options = {key: value for key, value in settings.items() if key not in given}
    if "dataset" not in given and not any(text.startswith("dataset=") for text in overrides):
        given = {"dataset": "custom", **given}
    place = {"name": name, "path": path}
    given |= {f"dataset.{key}": value for key, value in place.items() if value is not None}
    given |= {f"dataset.prepare.{key}": value for key, value in options.items()}
    with _as_path(raw, is_named=name is not None or path is not None) as file:
        words = words_of(overrides, given if file is None else {**given, "raw": file})
        config: PrepareConfig = configuration(PREPARE, words, config_dir=config_dir)
        made = preparation.complete(config)
    return _result(config, made)


@contextlib.contextmanager
def _as_path(raw: Any, *, is_named: bool) -> Iterator[Path | None]:
    """Yield the path of the raw data; a table in memory is written to a temporary folder.

    In messages about such a table, its description takes the place of the file.
    """
    if raw is None or isinstance(raw, (str, os.PathLike)):
        yield None if raw is None else Path(os.fspath(raw)).expanduser()
        return
    if not is_named:
        raise ConfigError("a table in memory needs name=NAME, of the dataset and its folder, or path=DIR")
    with tempfile.TemporaryDirectory(prefix="hblm-") as folder:
        files = write_records(raw, Path(folder))
        try:
            yield next(iter(files)) if len(files) == 1 and not isinstance(raw, Mapping) else Path(folder)
        except (ConfigError, DataError) as error:
            message = str(error)
            for file, description in files.items():
                message = re.sub(rf"{re.escape(str(file))}:(?=\d)", f"{description}: row ", message)
                message = message.replace(str(file), description).replace(file.name, description)
            raise type(error)(message.replace(folder, "the given tables")) from None


def _result(config: PrepareConfig, made: preparation.Preparation) -> PrepareResult:
    statistics = made.description.statistics
    prepared = statistics.prepared
    manifest = prepared.manifest or {}
    return PrepareResult(
        path=prepared.folder.absolute(),
        name=prepared.name,
        taxonomy=prepared.taxonomy,
        documents={split: counts["documents"] for split, counts in statistics.counts().items()},
        warnings=tuple(manifest.get("warnings", ())),
        report=made.description.markdown(),
        is_new=made.is_new,
    )
