"""Preparation of datasets: run a converter, write data/<name>/, verify it and describe it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hblm.config import overrides
from hblm.config.groups import OptionGroups
from hblm.config.prepare import PrepareConfig
from hblm.config.schema import plain
from hblm.config.train import Dataset, Encoder
from hblm.console import log, progress
from hblm.data.converters import Converter, load_converter, load_script
from hblm.data.dataset import Prepared, open_prepared
from hblm.data.expected_counts import compare, mismatch_table, require_expectable
from hblm.data.raw.many_files import count_loose
from hblm.data.report import Description
from hblm.data.statistics import DatasetStatistics, collect_statistics
from hblm.data.token_counter import counter_of
from hblm.data.writer import REPORT, write_dataset
from hblm.document import SPLITS
from hblm.encoders.pretrained import locate
from hblm.errors import ConfigError, DataError
from hblm.files import remove_stale, scratch_folder, sha256_file, write_text
from hblm.locks import lock_of
from hblm.process import as_started


def open_or_prepare(dataset: Dataset, encoder: Encoder) -> Prepared:
    """Open a prepared dataset; a dataset that needs no download is prepared on first use.

    Args:
        dataset: the name, folder, converter and options.
        encoder: whose tokens the report counts.

    Raises:
        DataError: the folder is missing and cannot be made, or its files are invalid.
    """
    folder = dataset.folder
    if not folder.exists() and dataset.converter and not dataset.source:
        log.info("%s is not there yet: preparing it", folder)
        prepare(dataset, None, encoder)
    prepared = open_prepared(folder, dataset.name, _command(dataset))
    for difference in _ignored_options(prepared, dataset):
        log.warning("%s, and is used as it is", difference)
    if (prepared.manifest or {}).get("expected", {}).get("met") is False:
        log.warning(
            "%s has not the counts of %s: it was prepared with allow_mismatch=true", folder, dataset.name
        )
    return prepared


def _ignored_options(prepared: Prepared, dataset: Dataset) -> list[str]:
    """Return a message for each given option without effect: the folder was made with another value."""
    messages = []
    folder, made_with = prepared.folder, (prepared.manifest or {}).get("options", {})
    if dataset.converter and isinstance(made_with, Mapping):
        defaults = load_script(dataset.converter).Options._field_defaults
        for name in sorted(dataset.prepare.keys() & (made_with.keys() | defaults.keys())):
            made = made_with.get(name, defaults.get(name))  # the folder may be older than the option
            if dataset.prepare[name] not in (None, defaults.get(name), made):
                messages.append(
                    f"{folder} was made with {name}={plain(made)}; "
                    f"dataset.prepare.{name}={plain(dataset.prepare[name])} takes effect with "
                    f"python -m hblm.prepare ... force=true, or under another dataset.name"
                )
    return messages


def _command(dataset: Dataset) -> str | None:
    """Return the command that prepares a dataset; None without a converter."""
    if not dataset.converter:
        return None
    named = "custom" if dataset.converter == "custom" else dataset.name
    return f"python -m hblm.prepare dataset={named}" + (
        f"{f' dataset.path={dataset.path}' * (named == 'custom')} raw=PATH" if dataset.source else ""
    )


def prepare(
    dataset: Dataset,
    raw: Path | None,
    encoder: Encoder,
    *,
    force: bool = False,
    allow_mismatch: bool = False,
) -> Description | None:
    """Run the dataset's converter and write its folder atomically, with a report.

    Args:
        dataset: the name, folder, converter and options.
        raw: the raw download; None for a dataset that needs none.
        encoder: whose tokens the report counts.
        force: replace an existing folder.
        allow_mismatch: write the folder if the counts differ from the expected ones.

    Returns:
        The description of the new folder; None if the folder exists already.

    Raises:
        ConfigError: the dataset has no converter, or `raw` is missing or not needed.
        DataError: the raw data is not what the converter expects, or the folder is made of other files.
    """
    converter = _require_converter(dataset)
    folder = dataset.folder
    _require_places(dataset, raw)
    for place in (folder.parent, folder):
        remove_stale(place)
    if folder.exists() and not force:
        if raw is not None:
            _require_same_sources(folder, raw, dataset.prepare)
        return None
    if dataset.source and raw is None:
        raise ConfigError(
            f"{dataset.name} is prepared from a download; write raw=PATH, {dataset.source} (DATA.md)"
        )
    convert = load_converter(converter)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder.parent}: cannot be made: {error.strerror}") from None
    with lock_of(folder.with_name(f".{folder.name}.lock")):
        if folder.exists() and not force:
            return None  # another process made it while this one waited for the lock
        _convert(dataset, raw, convert, allow_mismatch)
        description = describe(open_prepared(folder, dataset.name), encoder)
        write_text(folder / REPORT, description.markdown())
    return description


def _require_converter(dataset: Dataset) -> str:
    """Return the name of the dataset's converter; refuse a dataset without one."""
    if not dataset.converter:
        raise ConfigError(
            f"dataset={dataset.name} has no converter in this version; put taxonomy.json and "
            f"train/val/test.jsonl into {dataset.path} (DATA.md gives the format)"
        )
    return dataset.converter


def _require_places(dataset: Dataset, raw: Path | None) -> None:
    """Refuse a download that is not needed, and folders that would overwrite each other."""
    folder = dataset.folder
    if raw is not None and not dataset.source:
        raise ConfigError(f"raw={raw}: {dataset.name} needs no download; leave raw out")
    if raw is not None and _overlap(raw.resolve(), folder.resolve()):
        raise DataError(
            f"raw={raw} and the folder to be written, {folder}, lie in each other; write dataset.path=DIR "
            f"with another one"
        )
    if not folder.name:
        raise ConfigError(
            f"dataset.path={dataset.path} is no folder of the dataset's own; write dataset.path=data/NAME"
        )


def _convert(dataset: Dataset, raw: Path | None, convert: Converter, allow_mismatch: bool) -> None:
    """Convert the raw data in a scratch folder and write the dataset's folder."""
    folder = dataset.folder
    with scratch_folder(folder.with_name(f"{folder.name}.scratch")) as scratch, progress() as start:
        try:
            conversion = convert(raw, dataset.prepare, scratch, start)
            advance = start("writing documents", conversion.documents)
            write_dataset(
                folder,
                conversion,
                converter=str(dataset.converter),
                on_document=lambda: advance(1),
                expect=dataset.expect,
                allow_mismatch=allow_mismatch,
            )
        except MemoryError:
            raise DataError(
                f"raw={raw}: needs more memory than this machine gives, or is damaged; nothing was written"
            ) from None


def _overlap(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents


def _require_same_sources(folder: Path, raw: Path, options: Mapping[str, Any]) -> None:
    """Refuse a download other than that of the folder; of loose files only the number is compared.

    Raises:
        DataError: a source in the manifest is missing in `raw`, or has another content.
    """
    manifest = open_prepared(folder).manifest or {}
    for source in manifest.get("sources") or []:
        if "matching" in source:
            if not raw.is_dir() or count_loose(raw, source["matching"]) != source["files"]:
                raise DataError(
                    f"{folder} is there already, made of {source['files']:,} files {source['matching']}, "
                    f"and raw={raw} has another number of them; force=true prepares it again, "
                    f"dataset.name=NAME or dataset.path=DIR beside it"
                )
            continue
        if "option" in source and not options.get(source["option"]):
            continue  # the option that named another place is not given again
        place = Path(options[source["option"]]) if "option" in source else raw
        file = place / source["name"] if place.is_dir() else place
        if "bytes" in source and (
            file.name != Path(source["name"]).name
            or not file.is_file()
            or (file.stat().st_size != source["bytes"])
            or sha256_file(file) != source["sha256"]
        ):
            raise DataError(
                f"{folder} is there already, made of another {source['name']} than {place} has; force=true "
                f"prepares it again, dataset.name=NAME or dataset.path=DIR beside it"
            )


def describe(prepared: Prepared, encoder: Encoder) -> Description:
    """Verify every document of a dataset and return its description.

    Raises:
        DataError: the first fault in the documents.
    """
    with progress() as start:
        tokens = counter_of(encoder)
        advance = start("verifying documents", _n_documents(prepared.manifest or {}))
        return Description(collect_statistics(prepared, tokens.count, advance), tokens)


def _n_documents(manifest: Mapping[str, Any]) -> int | None:
    """Return the number of documents in a manifest; None if it has no counts."""
    try:
        return sum(int(manifest["counts"][split]["documents"]) for split in SPLITS)
    except (KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class Preparation:
    """A dataset that is prepared and verified; `is_new` is False if its folder existed already."""

    description: Description
    is_new: bool


def run(config: PrepareConfig) -> None:
    """Prepare or verify one dataset and print its description; errors are those of `complete`."""
    dataset, folder = config.dataset, config.dataset.folder
    preparation = complete(config)
    if not (preparation.is_new or config.check):
        print(f"{folder} is there already; force=true prepares it again")
    preparation.description.show()
    if preparation.is_new:
        print(f"report  {folder / REPORT}")
        arguments = _dataset_arguments(dataset)
        print(as_started(f"next    python -m hblm.train experiment=recommended encoder=minilm {arguments}"))
        print("        (on a CPU experiment=quickstart in place of both: a frozen MiniLM, minutes)")


def complete(config: PrepareConfig) -> Preparation:
    """Prepare a dataset unless its folder exists, and verify it; with check=true only verify it.

    Raises:
        ConfigError: the dataset has no converter, or raw= is missing or not needed.
        DataError: the raw data or the folder is not what it should be.
    """
    dataset, folder = config.dataset, config.dataset.folder
    locate(config.encoder.model_name, config.encoder.revision)  # fails before hours are spent
    require_expectable(dataset.expect)
    made = None if config.check else _prepare_from(config)
    if made:
        description = made
    else:
        prepared = open_prepared(folder, dataset.name, _command(dataset))
        ignored = [] if config.check else _ignored_options(prepared, dataset)
        if ignored:
            raise DataError("\n".join(ignored))
        description = describe(prepared, config.encoder)
    _require_expected(description.statistics, dataset.expect)
    absent = not config.check and not (folder / REPORT).exists()
    if absent and description.statistics.prepared.manifest and os.access(folder, os.W_OK):
        # the preparation was stopped before it wrote the report, or was done by an older version
        write_text(folder / REPORT, description.markdown())
    return Preparation(description, is_new=made is not None)


def _prepare_from(config: PrepareConfig) -> Description | None:
    """Prepare the configured dataset; return None if its folder exists already."""
    raw = Path(config.raw) if config.raw else None
    if raw is not None and not raw.exists():
        raise DataError(f"raw={raw} is not there")
    dataset, force, allow_mismatch = config.dataset, config.force, config.allow_mismatch
    return prepare(dataset, raw, config.encoder, force=force, allow_mismatch=allow_mismatch)


def _dataset_arguments(dataset: Dataset) -> str:
    """Return the arguments that select the dataset for training, quoted for a shell."""
    options = OptionGroups().groups["dataset"]
    if dataset.name in options and str(dataset.folder) == f"data/{dataset.name}":
        return f"dataset={dataset.name}"
    return f"dataset=custom {overrides.argument('dataset.path', str(dataset.folder))}"


def _require_expected(statistics: DatasetStatistics, expect: Mapping[str, Any]) -> None:
    """Refuse counts that differ from the expected ones, unless allow_mismatch was given for the folder."""
    prepared = statistics.prepared
    allowed = (prepared.manifest or {}).get("expected", {}).get("met") is False
    levels = [len(level) for level in prepared.taxonomy.levels]
    dropped = (prepared.manifest or {}).get("dropped", {})
    mismatch = mismatch_table(compare(expect, statistics.counts(), levels, dropped))
    if mismatch and not allowed:
        raise DataError(f"{prepared.folder}: not the set that is expected:\n{mismatch}")
