"""Checkpoints: folders of JSON and safetensors with all that an evaluation needs. No pickle, no torch."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hblm.config.hints import checkpoint_meant
from hblm.config.overrides import argument
from hblm.config.schema import typed
from hblm.config.train import TrainConfig
from hblm.console import log
from hblm.data.dataset import Prepared, open_prepared
from hblm.encoders.pretrained import identity_of_entry
from hblm.errors import CheckpointError, ConfigError, DataError, did_you_mean
from hblm.files import new_folder, remove_stale, require_file, sha256_file, unfit_as_name
from hblm.json_files import SEAL, is_as_sealed, read_object, sealed
from hblm.runs import paths
from hblm.taxonomy import Taxonomy, faults_of_part, read_taxonomy
from hblm.version import COMPUTED_BY, FORMULAS, __version__

if TYPE_CHECKING:
    from torch import nn


SCHEMA_VERSION = 2  # 1 had other names for the tensors of a single model
META, WEIGHTS, TAXONOMY, ENCODER = "hblm.json", "model.safetensors", "taxonomy.json", "encoder"
DECISIONS = "decisions.json"  # has a seal of its own (see decisions.py)
ONNX = "model.onnx"  # in place of WEIGHTS and ENCODER in an exported folder (see inference/onnx.py)
ONNX_DATA = "model.onnx.data"  # beside it where the weights have more than 2 GB
_AT_USE = {WEIGHTS, ONNX, ONNX_DATA}  # files that are compared with their sha256 when they are read
_OF_A_HUB = {"README.md", "LICENSE"}  # files that people edit on a model hub; they change no score
SUMS = "files"  # key in META: the sha256 of every other file; META itself has a seal (see json_files.py)
COPY_AGAIN = "copy the checkpoint again, or train it again with force=true"
_SHOWN = 3  # names in a message

_IS_VALID: dict[str, Callable[[Any], bool]] = {
    "config": lambda value: isinstance(value, dict),
    "run_id": lambda value: isinstance(value, str),
    "name": lambda value: isinstance(value, str) and not unfit_as_name(value),  # names become file names
    "tag": lambda value: isinstance(value, str) and not unfit_as_name(value),
    "dataset": lambda value: (
        isinstance(value, dict)
        and all(isinstance(value.get(key), str) for key in ("name", "path", "fingerprint"))
        and not unfit_as_name(value["name"])
        and "\0" not in value["path"]
    ),
    "encoder": lambda value: isinstance(value, dict),
    "training": lambda value: isinstance(value, str),
    "precision": lambda value: value in ("fp32", "bf16", "fp16"),
    "eval_batch_size": lambda value: isinstance(value, int) and value > 0,
}


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint, without its weights (see weights.py).

    Attributes:
        folder: the checkpoint.
        config: the configuration of its run.
        taxonomy: the label forest.
        meta: the content of hblm.json: run_id, name, tag, dataset {name, path, fingerprint}, encoder (name
            and hashes), training (a random text, also in the result), node_priors,
            training_counts (see build.TrainingCounts; missing in early checkpoints), precision,
            eval_batch_size, files (the sha256 of every other file; missing in early checkpoints).
    """

    folder: Path
    config: TrainConfig
    taxonomy: Taxonomy
    meta: dict[str, Any]

    @property
    def is_onnx(self) -> bool:
        """Whether this is an exported folder, with a graph in place of weights."""
        return bool(self.meta.get("export", {}).get("to") == "onnx")

    @property
    def encoder(self) -> Path:
        """The folder with the encoder's configuration and tokenizer."""
        return self.folder / ENCODER


def save_checkpoint(
    folder: Path,
    *,
    model: nn.Module,
    save_encoder: Callable[[Path], None],
    config: TrainConfig,
    taxonomy: Taxonomy,
    meta: dict[str, Any],
) -> None:
    """Write a checkpoint in one step: other processes see all of it or nothing.

    Args:
        folder: the checkpoint; an older one is replaced.
        model: the trained model.
        save_encoder: writes the encoder's configuration and tokenizer to the folder given.
        config: the run's configuration.
        taxonomy: the label forest.
        meta: the other entries of hblm.json.

    Raises:
        CheckpointError: the weights cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with new_folder(folder) as temporary:
        tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
        try:
            save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:  # such as a full disk
            raise CheckpointError(f"{folder}: cannot be written: {error}") from None
        (temporary / TAXONOMY).write_text(taxonomy.to_json(), encoding="utf-8")
        save_encoder(temporary / ENCODER)
        sums = {name: sha256_file(path) for name, path in sorted(_files_of(temporary).items())}
        content = {"schema_version": SCHEMA_VERSION, "formulas": FORMULAS, **meta, "config": asdict(config)}
        (temporary / META).write_text(
            json.dumps(sealed({**content, SUMS: sums}), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )


def open_checkpoint(folder: Path, key: str = "checkpoint", *, or_exported: bool = False) -> Checkpoint:
    """Open a checkpoint without its weights.

    Every file is compared with its sha256 in hblm.json; the weights are compared when they are read, which
    takes a second a gigabyte. A checkpoint without hashes, of an early version, opens with a warning.

    Args:
        folder: the checkpoint.
        key: the key of the configuration that names the folder, for messages.
        or_exported: whether it may be an exported folder, which has a graph in place of weights.

    Raises:
        CheckpointError: the folder or a file is missing, changed, damaged or of another version, or there is
            a file that does not belong to it.
    """
    remove_stale(folder.parent)  # moves a folder back that a killed process was about to replace
    _require_files(folder, key, or_exported)
    meta = _read_meta(folder, key)
    has_sums = _compare_sums(folder, meta, key)
    invalid = [key for key, is_valid in _IS_VALID.items() if not is_valid(meta.get(key))]
    if invalid:
        raise CheckpointError(f"{folder / META} is damaged: no valid value of {', '.join(invalid)}")
    try:
        config = typed(meta["config"], TrainConfig)
        taxonomy = read_taxonomy(folder / TAXONOMY)
    except (ConfigError, DataError) as error:
        raise CheckpointError(f"{key}={folder} is damaged: {error}") from None
    if config.left_open:
        raise CheckpointError(f"{folder / META} is damaged: its config has no {', '.join(config.left_open)}")
    if not has_sums:
        _require_own_id(folder, config, meta)
        _warn_of_no_sums(folder.resolve())
    return Checkpoint(folder, config, taxonomy, meta)


def _require_files(folder: Path, key: str, or_exported: bool) -> None:
    """Refuse a folder that lacks a file of a checkpoint.

    Raises:
        CheckpointError: one is missing, or is not a file.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{key}={folder} is not a folder{_meant(folder, key)}")
    is_onnx = (folder / ONNX).exists()
    if is_onnx and not or_exported:
        raise CheckpointError(
            f"{key}={folder} is an exported model, which predicts and nothing else; give the checkpoint that "
            "it was made from"
        )
    weights = ONNX if is_onnx else WEIGHTS
    missing = [name for name in (META, weights, TAXONOMY) if not (folder / name).exists()]
    missing += [] if is_onnx or (folder / ENCODER).is_dir() else [ENCODER]
    if missing:
        raise CheckpointError(f"{key}={folder} is not a checkpoint: it has no {', no '.join(missing)}")
    try:
        for name in (META, weights, TAXONOMY):
            require_file(folder / name)
    except DataError as error:
        raise CheckpointError(str(error)) from None


def _read_meta(folder: Path, key: str) -> dict[str, Any]:
    """Return the content of hblm.json.

    Raises:
        CheckpointError: it cannot be read, or was written by a version with other names or formulas.
    """
    try:
        meta = read_object(folder / META)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / META}: cannot be read: {error}; {COPY_AGAIN}") from None
    if meta.get("schema_version") != SCHEMA_VERSION:
        version = meta.get("schema_version")
        raise CheckpointError(
            f"{folder / META}: version {version!r:.40}; this program reads {SCHEMA_VERSION}: "
            "train it again with force=true"
        )
    formulas = meta.get("formulas", 1)
    if formulas != FORMULAS:
        maker = COMPUTED_BY.get(formulas if isinstance(formulas, int) else 0, f"of formulas {formulas!r:.40}")
        raise CheckpointError(
            f"{key}={folder} was made by hblm {maker}, whose formulas are not those of {__version__}: "
            f"evaluate it with hblm {maker}, or train it again"
        )
    return meta


def _files_of(folder: Path) -> dict[str, Path]:
    """Return a checkpoint's files by their paths in it, without sealed JSON, hidden files and a hub's."""
    apart = {META, DECISIONS, *_OF_A_HUB}
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path
        for name, path in names.items()
        if name not in apart and not any(part.startswith(".") for part in name.split("/"))
    }


def _compare_sums(folder: Path, meta: Mapping[str, Any], key: str) -> bool:
    """Compare all files but the weights with their sha256; return False where hblm.json has none.

    Raises:
        CheckpointError: hblm.json or another file was changed, is missing or does not belong there.
    """
    if SEAL not in meta and SUMS not in meta:
        return False
    sums = meta.get(SUMS)
    if not is_as_sealed(meta) or not isinstance(sums, dict):
        raise CheckpointError(f"{folder / META}: not as it was written, damaged or edited; {COPY_AGAIN}")
    files = _files_of(folder)
    faults = [f"it has no {name}" for name in sorted(sums.keys() - files.keys())]
    faults += [f"{name} does not belong to it: move it away" for name in sorted(files.keys() - sums.keys())]
    for name in sorted(sums.keys() & files.keys() - _AT_USE):
        try:
            if sha256_file(files[name]) != sums[name]:
                faults.append(f"{name} is not the file that was written")
        except OSError as error:
            faults.append(f"{name} cannot be read: {error.strerror}")
    if faults:
        raise CheckpointError(f"{key}={folder} is damaged: {shortened(faults)}; {COPY_AGAIN}")
    return True


def _require_own_id(folder: Path, config: TrainConfig, meta: Mapping[str, Any]) -> None:
    """Refuse an hblm.json without a seal if its run id is not that of its config, dataset and encoder.

    Raises:
        CheckpointError: it is not.
    """
    encoder = identity_of_entry(meta["encoder"])
    try:
        run_id = paths.id_of(config, data=meta["dataset"]["fingerprint"], encoder=encoder)
    except (ValueError, RecursionError):  # values that no run can have, such as NaN
        run_id = ""
    if run_id != meta["run_id"]:
        raise CheckpointError(
            f"{folder / META}: config, dataset and encoder are those of the run {run_id[:8]}, run_id says "
            f"{meta['run_id'][:8]!r}; was it edited? {COPY_AGAIN}"
        )


@functools.cache
def _warn_of_no_sums(folder: Path) -> None:
    """Log a warning, once a folder, that changes of its files cannot be detected."""
    log.warning(
        "%s has no sha256 of its files (it was made before hblm wrote them): whether they are as they were "
        "written cannot be checked",
        folder,
    )


def shortened(names: Sequence[str]) -> str:
    """Return some names for a message: the first ones, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def open_data(checkpoint: Checkpoint, given: str | None) -> Prepared:
    """Open the dataset that a checkpoint was trained on.

    Args:
        checkpoint: the checkpoint.
        given: the dataset's folder; None for the one that the checkpoint names.

    Raises:
        CheckpointError: the dataset is missing, or differs from the one of the training.
    """
    stored = checkpoint.meta["dataset"]
    folder = Path(given or stored["path"])
    way_out = f"give dataset.path=DIR of the {stored['name']} that has the hash {stored['fingerprint'][:12]}"
    try:
        prepared = open_prepared(folder, stored["name"])
    except DataError as error:
        where = "" if given else f"the dataset of {checkpoint.folder} is not at its recorded path: "
        raise CheckpointError(f"{where}{error}; {way_out}{_or_other_data(checkpoint, folder)}") from None
    if prepared.fingerprint != stored["fingerprint"]:
        raise CheckpointError(
            f"{folder} has the hash {prepared.fingerprint[:12]}, {checkpoint.folder} was trained on "
            f"{stored['fingerprint'][:12]}; {way_out}{_or_other_data(checkpoint, folder)}"
        )
    if prepared.taxonomy != checkpoint.taxonomy:
        raise CheckpointError(
            f"{checkpoint.folder / TAXONOMY}: not the taxonomy of {folder}, on which it was trained; "
            f"{COPY_AGAIN}"
        )
    return prepared


def open_other_data(checkpoint: Checkpoint, folder: Path, splits: Sequence[str]) -> Prepared:
    """Open labelled documents that a checkpoint was not trained on; their dataset has the folder's name.

    Args:
        checkpoint: the checkpoint.
        folder: a prepared folder; splits that are not needed may be missing.
        splits: those that are needed.

    Raises:
        DataError: a file is missing or damaged, or the taxonomy is neither the checkpoint's nor a part of it.
    """
    prepared = open_prepared(folder, splits=splits)
    if faults := faults_of_part(prepared.taxonomy, checkpoint.taxonomy):
        raise DataError(
            f"{folder / TAXONOMY}: neither the taxonomy of {checkpoint.folder} nor a part of it: "
            f"{shortened(faults)}"
        )
    return prepared


def _or_other_data(checkpoint: Checkpoint, folder: Path) -> str:
    """Return the end of a message: how to score a folder as other data; "" where its nodes do not fit."""
    try:
        open_other_data(checkpoint, folder, splits=())
    except DataError:
        return ""
    return f", or score it as other labelled data: {argument('dataset.path', str(folder))} other_data=true"


def _meant(folder: Path, key: str) -> str:
    """Return the end of a message: the checkpoint that was probably meant, or those in the same folder."""
    meant = checkpoint_meant(folder)
    if meant:
        return did_you_mean([argument(key, str(meant))])
    if not folder.parent.is_dir():
        return ""
    names = sorted(
        path.name for path in folder.parent.iterdir() if (path / META).is_file() and path.name[:1] != "."
    )
    return f"; {folder.parent} has {', '.join(names[:5])}" if names else ""
