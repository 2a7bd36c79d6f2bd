"""`python -m hblm.prepare`: from a raw download, or from nothing, to a prepared dataset in data/<name>/."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from hblm.config import overrides
from hblm.config.groups import OptionGroups
from hblm.config.prepare import PrepareConfig
from hblm.config.schema import plain
from hblm.config.train import Dataset, Encoder
from hblm.console import log, progress
from hblm.data.converters import converter, load_converter
from hblm.data.dataset import Prepared, open_prepared
from hblm.data.expected_counts import compare, mismatch_table, require_expectable
from hblm.data.raw.many_files import count_loose
from hblm.data.report import Description, Tokens
from hblm.data.statistics import DatasetStatistics, Measure, collect_statistics
from hblm.data.writer import REPORT, write_dataset
from hblm.document import SPLITS
from hblm.encoders.pretrained import MINILM, Pretrained, locate, tokenizer_file
from hblm.errors import ConfigError, DataError
from hblm.files import remove_stale, sha256_file, temporary_beside, write_text
from hblm.locks import lock_of


def open_or_prepare(dataset: Dataset, encoder: Encoder) -> Prepared:
    """Open a prepared dataset; one that needs no download is prepared on first use.

    Args:
        dataset: which, and where.
        encoder: whose tokens the report counts.

    Raises:
        DataError: it is not there and cannot be made, or its files are not what they should be.
    """
    folder = dataset.folder
    if not folder.exists() and dataset.converter and not dataset.source:
        log.info("%s is not there yet: preparing it", folder)
        prepare(dataset, None, encoder)
    prepared = open_prepared(folder, dataset.name, _command(dataset))
    for difference in _other_options(prepared, dataset):
        log.warning("%s, and is used as it is", difference)
    if (prepared.manifest or {}).get("expected", {}).get("met") is False:
        log.warning(
            "%s has not the counts of %s: it was prepared with allow_mismatch=true", folder, dataset.name
        )
    return prepared


def _other_options(prepared: Prepared, dataset: Dataset) -> list[str]:
    """Say which options that were given have no effect, as the folder was made with others."""
    found = []
    folder, made_with = prepared.folder, (prepared.manifest or {}).get("options", {})
    if dataset.converter and isinstance(made_with, Mapping):
        defaults = converter(dataset.converter).Options._field_defaults
        for name in sorted(dataset.prepare.keys() & (made_with.keys() | defaults.keys())):
            made = made_with.get(name, defaults.get(name))  # a set that is older than an option
            if dataset.prepare[name] not in (None, defaults.get(name), made):
                found.append(
                    f"{folder} was made with {name}={plain(made)}; "
                    f"dataset.prepare.{name}={plain(dataset.prepare[name])} takes effect with "
                    f"python -m hblm.prepare ... force=true, or under another dataset.name"
                )
    return found


def _command(dataset: Dataset) -> str | None:
    """Return the command that prepares a dataset, None where nothing does."""
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
    """Run the dataset's converter and write its folder, whole or not at all, and its report.

    Returns:
        What was made; None where the folder was there already.

    Raises:
        ConfigError: the dataset has no converter, or `raw` is missing or too much.
        DataError: the raw data is not what the converter expects.
    """
    if not dataset.converter:
        raise ConfigError(
            f"dataset={dataset.name} has no converter in this version; put taxonomy.json and "
            f"train/val/test.jsonl into {dataset.path} (DATA.md gives the format)"
        )
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
    convert = load_converter(dataset.converter)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder.parent}: cannot be made: {error.strerror}") from None
    with lock_of(folder.with_name(f".{folder.name}.lock")):
        if folder.exists() and not force:
            return None  # another process made it while this one waited
        scratch = temporary_beside(folder.with_name(f"{folder.name}.scratch"))
        scratch.mkdir()
        try:
            with progress() as start:
                conversion = convert(raw, dataset.prepare, scratch, start)
                advance = start("writing documents", conversion.documents)
                write_dataset(
                    folder,
                    conversion,
                    converter=dataset.converter,
                    on_document=lambda: advance(1),
                    expect=dataset.expect,
                    allow_mismatch=allow_mismatch,
                )
        except MemoryError:
            raise DataError(
                f"raw={raw}: needs more memory than this machine gives, or is damaged; nothing was written"
            ) from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        description = describe(open_prepared(folder, dataset.name), encoder)
        write_text(folder / REPORT, description.markdown())
    return description


def _overlap(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents


def _require_same_sources(folder: Path, raw: Path, options: Mapping[str, Any]) -> None:
    """Refuse to pass off a folder as made of other files than it was; of loose stories the number must agree.

    Raises:
        DataError: the folder's manifest names files that `raw` has not, or not as they are.
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
            continue  # the lists that lay elsewhere are not given again
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
    """Verify every document of a dataset and tell what it holds.

    Raises:
        DataError: the first fault in the documents.
    """
    with progress() as start:
        tokens = _tokens(encoder)
        advance = start("verifying documents", _documents(prepared.manifest or {}))
        return Description(collect_statistics(prepared, tokens.measure, advance), tokens)


def _documents(manifest: Mapping[str, Any]) -> int | None:
    """Return how many documents a manifest counts, None where it does not."""
    try:
        return sum(int(manifest["counts"][split]["documents"]) for split in SPLITS)
    except (KeyError, TypeError, ValueError):
        return None


def _tokens(encoder: Encoder) -> Tokens:
    """Return how to count the encoder's tokens; nothing is downloaded for that, another one stands in."""
    wanted = locate(encoder.model_name, encoder.revision)
    count = _counter(wanted)
    if count is not None:
        return Tokens(encoder.model_name, encoder.max_length, count)
    why = "is not on this machine" if wanted.folder is None else "cannot be loaded"
    stand_in = locate(MINILM)
    count = _counter(stand_in)
    if count is None:
        return Tokens(encoder.model_name, encoder.max_length, None, f"it {why}; encoder=minilm may be")
    name = f"{stand_in.tag}, in place of {encoder.model_name}, which {why}"
    return Tokens(name, encoder.max_length, count)


def _counter(source: Pretrained) -> Measure | None:
    """Return what counts the tokens of texts, special ones included; None: not to be had on this machine.

    A tokenizer.json is read by the tokenizers library alone, without the seconds that torch takes to load.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    file = tokenizer_file(source)
    try:
        if file is not None:
            backend = Tokenizer.from_file(str(file))
        elif source.is_tiny or source.folder is not None:
            from hblm.encoders.tokenizer import load_tokenizer

            backend = load_tokenizer(source).backend_tokenizer
        else:
            return None
    except Exception:  # of a damaged file, the library raises nothing narrower
        return None
    backend.no_truncation()
    backend.no_padding()
    return lambda texts: [len(encoding.ids) for encoding in backend.encode_batch_fast(list(texts))]


def run(config: PrepareConfig) -> None:
    """Prepare or verify one dataset and print what it holds."""
    dataset, folder = config.dataset, config.dataset.folder
    locate(config.encoder.model_name, config.encoder.revision)  # what is wrong is told before hours are spent
    require_expectable(dataset.expect)
    made = None
    if not config.check:
        raw = Path(config.raw) if config.raw else None
        if raw is not None and not raw.exists():
            raise DataError(f"raw={raw} is not there")
        made = prepare(dataset, raw, config.encoder, force=config.force, allow_mismatch=config.allow_mismatch)
        if not made:
            print(f"{folder} is there already; force=true prepares it again")
    if made:
        description = made
    else:
        prepared = open_prepared(folder, dataset.name, _command(dataset))
        different = [] if config.check else _other_options(prepared, dataset)
        if different:
            raise DataError("\n".join(different))
        description = describe(prepared, config.encoder)
    _require_expected(description.statistics, dataset.expect)
    absent = not config.check and not (folder / REPORT).exists()
    if absent and description.statistics.prepared.manifest and os.access(folder, os.W_OK):
        # the preparation was stopped before it was written, or was an older version's
        write_text(folder / REPORT, description.markdown())
    description.show()
    if made:
        print(f"report  {folder / REPORT}")
        arguments = _dataset_arguments(dataset)
        print(f"next    python -m hblm.train experiment=recommended encoder=minilm {arguments}")
        print("        (on a CPU experiment=quickstart in place of both: a frozen MiniLM, minutes)")


def _dataset_arguments(dataset: Dataset) -> str:
    """Return the arguments, safe to paste, by which training finds the dataset."""
    options = OptionGroups().groups["dataset"]
    if dataset.name in options and str(dataset.folder) == f"data/{dataset.name}":
        return f"dataset={dataset.name}"
    return f"dataset=custom {overrides.argument('dataset.path', str(dataset.folder))}"


def _require_expected(found: DatasetStatistics, expect: Mapping[str, Any]) -> None:
    """Refuse other counts than the expected ones, unless they were allowed when the folder was made."""
    prepared = found.prepared
    allowed = (prepared.manifest or {}).get("expected", {}).get("met") is False
    levels = [len(level) for level in prepared.taxonomy.levels]
    dropped = (prepared.manifest or {}).get("dropped", {})
    mismatch = mismatch_table(compare(expect, found.counts(), levels, dropped))
    if mismatch and not allowed:
        raise DataError(f"{prepared.folder}: not the set that is expected:\n{mismatch}")
