"""A checkpoint: a folder of JSON and safetensors that holds all an evaluation needs. No pickle."""

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
from hblm.files import new_folder, remove_stale, require_file, sha256_file, sha256_once, unfit_as_name
from hblm.json_files import SEAL, is_as_sealed, read_object, sealed
from hblm.runs import paths
from hblm.taxonomy import Taxonomy, read_taxonomy
from hblm.version import COMPUTED_BY, FORMULAS, __version__

if TYPE_CHECKING:
    from torch import Tensor, nn


SCHEMA_VERSION = 2  # 1 named the tensors of a single model otherwise


META, WEIGHTS, TAXONOMY, ENCODER = "hblm.json", "model.safetensors", "taxonomy.json", "encoder"


SUMS = "files"  # in META: the sha256 of every other file; META itself has a seal (see json_files.py)


_AGAIN = "copy the checkpoint again, or train it again with force=true"


_FAULTS_SHOWN = 3


_SOUND: dict[str, Callable[[Any], bool]] = {
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
    """A checkpoint folder, opened but for its weights: this much needs no torch.

    Attributes:
        folder: where it lies.
        config: the configuration it was trained under.
        taxonomy: the label forest.
        meta: all of hblm.json: run_id, name, tag, dataset {name, path, fingerprint}, encoder (what identified
            it), training (a mark that its result has, too), node_priors, precision, eval_batch_size, files
            (the sha256 of every other file; not in checkpoints that were made before there were any).
    """

    folder: Path
    config: TrainConfig
    taxonomy: Taxonomy
    meta: dict[str, Any]

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
    """Write a checkpoint whole or not at all; `save_encoder` fills the encoder's folder."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with new_folder(folder) as temporary:
        tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
        try:
            save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:  # a full disk, for one
            raise CheckpointError(f"{folder}: cannot be written: {error}") from None
        (temporary / TAXONOMY).write_text(taxonomy.to_json(), encoding="utf-8")
        save_encoder(temporary / ENCODER)
        sums = {name: sha256_file(path) for name, path in sorted(_files_of(temporary).items())}
        content = {"schema_version": SCHEMA_VERSION, "formulas": FORMULAS, **meta, "config": asdict(config)}
        (temporary / META).write_text(
            json.dumps(sealed({**content, SUMS: sums}), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )


def open_checkpoint(folder: Path, key: str = "checkpoint") -> Checkpoint:
    """Open a checkpoint without its weights; `key` is what messages say that the folder was given as.

    Every file is compared with its sha256 in hblm.json, the weights when they are read: that takes a second a
    gigabyte. A checkpoint made before there were any opens with a warning.

    Raises:
        CheckpointError: the folder or a file of it is missing, too much, changed, damaged, or of another
            version.
    """
    remove_stale(folder.parent)  # a folder caught between two renames is put back
    if not folder.is_dir():
        raise CheckpointError(f"{key}={folder} is not a folder{_meant(folder, key)}")
    missing = [name for name in (META, WEIGHTS, TAXONOMY) if not (folder / name).exists()]
    missing += [] if (folder / ENCODER).is_dir() else [ENCODER]
    if missing:
        raise CheckpointError(f"{key}={folder} is not a checkpoint: it has no {', no '.join(missing)}")
    try:
        for name in (META, WEIGHTS, TAXONOMY):
            require_file(folder / name)
    except DataError as error:
        raise CheckpointError(str(error)) from None
    try:
        meta = read_object(folder / META)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / META}: cannot be read: {error}; {_AGAIN}") from None
    if meta.get("schema_version") != SCHEMA_VERSION:
        found = meta.get("schema_version")
        raise CheckpointError(
            f"{folder / META}: version {found!r:.40}; this program reads {SCHEMA_VERSION}: "
            "train it again with force=true"
        )
    formulas = meta.get("formulas", 1)
    if formulas != FORMULAS:
        maker = COMPUTED_BY.get(formulas if isinstance(formulas, int) else 0, f"of formulas {formulas!r:.40}")
        raise CheckpointError(
            f"{key}={folder} was made by hblm {maker}, whose formulas are not those of {__version__}: "
            f"evaluate it with hblm {maker}, or train it again"
        )
    has_sums = _compare_sums(folder, meta, key)
    odd = [key for key, sound in _SOUND.items() if not sound(meta.get(key))]
    if odd:
        raise CheckpointError(f"{folder / META} is damaged: no sound value of {', '.join(odd)}")
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


def _files_of(folder: Path) -> dict[str, Path]:
    """Return all files of a checkpoint but hblm.json, by their names within; hidden ones are nobody's."""
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path
        for name, path in names.items()
        if name != META and not any(part.startswith(".") for part in name.split("/"))
    }


def _compare_sums(folder: Path, meta: Mapping[str, Any], key: str) -> bool:
    """Compare all but the weights with their sums; return whether there are any.

    Raises:
        CheckpointError: hblm.json or another file is not as it was written, or one is missing or too much.
    """
    if SEAL not in meta and SUMS not in meta:
        return False
    sums = meta.get(SUMS)
    if not is_as_sealed(meta) or not isinstance(sums, dict):
        raise CheckpointError(f"{folder / META}: not as it was written, damaged or edited; {_AGAIN}")
    files = _files_of(folder)
    faults = [f"it has no {name}" for name in sorted(sums.keys() - files.keys())]
    faults += [f"{name} is none of its files: move it away" for name in sorted(files.keys() - sums.keys())]
    for name in sorted(sums.keys() & files.keys() - {WEIGHTS}):
        try:
            if sha256_file(files[name]) != sums[name]:
                faults.append(f"{name} is not the file that was written")
        except OSError as error:
            faults.append(f"{name} cannot be read: {error.strerror}")
    if faults:
        raise CheckpointError(f"{key}={folder} is damaged: {_some(faults)}; {_AGAIN}")
    return True


def _require_own_id(folder: Path, config: TrainConfig, meta: Mapping[str, Any]) -> None:
    """Refuse an hblm.json without a seal whose run id is not that of its own values."""
    encoder = identity_of_entry(meta["encoder"])
    try:
        run_id = paths.id_of(config, data=meta["dataset"]["fingerprint"], encoder=encoder)
    except (ValueError, RecursionError):  # NaN and the like, which no run id was made of
        run_id = ""
    if run_id != meta["run_id"]:
        raise CheckpointError(
            f"{folder / META}: config, dataset and encoder are those of the run {run_id[:8]}, run_id says "
            f"{meta['run_id'][:8]!r}; was it edited? {_AGAIN}"
        )


@functools.cache
def _warn_of_no_sums(folder: Path) -> None:
    """Say once that nothing tells whether files changed."""
    log.warning(
        "%s has no sha256 of its files (it was made before hblm wrote them): whether they are as they were "
        "written cannot be checked",
        folder,
    )


def _some(faults: Sequence[str]) -> str:
    more = f" and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
    return ", ".join(faults[:_FAULTS_SHOWN]) + more


def open_data(checkpoint: Checkpoint, given: str | None) -> Prepared:
    """Open the documents a checkpoint was trained on, where they lay or where they are said to lie now.

    Raises:
        CheckpointError: they are not there, or are not the same, or have another taxonomy.
    """
    stored = checkpoint.meta["dataset"]
    folder = Path(given or stored["path"])
    way_out = f"give dataset.path=DIR of the {stored['name']} that has the hash {stored['fingerprint'][:12]}"
    try:
        prepared = open_prepared(folder, stored["name"])
    except DataError as error:
        where = "" if given else f"the data of {checkpoint.folder} is not where it lay: "
        raise CheckpointError(f"{where}{error}; {way_out}") from None
    if prepared.fingerprint != stored["fingerprint"]:
        raise CheckpointError(
            f"{folder} has the hash {prepared.fingerprint[:12]}, {checkpoint.folder} was trained on "
            f"{stored['fingerprint'][:12]}; {way_out}"
        )
    if prepared.taxonomy != checkpoint.taxonomy:
        raise CheckpointError(
            f"{checkpoint.folder / TAXONOMY}: not the taxonomy of {folder}, on which it was trained; {_AGAIN}"
        )
    return prepared


def pair_of(opened: Sequence[Checkpoint], threshold: float | None) -> dict[str, Checkpoint]:
    """Return the top-down and the bottom-up checkpoint of an ensemble as td and bu, whatever their order.

    Args:
        opened: the two.
        threshold: the one to score with; None for theirs.

    Raises:
        CheckpointError: why they make no ensemble, all reasons in one message.
    """
    found: dict[str, Checkpoint] = {}
    faults = []
    for checkpoint in opened:
        config = checkpoint.config
        if config.joint_variant.is_joint:
            variant = config.joint_variant.joint_variant
            faults.append(f"{checkpoint.folder} is a joint model ({variant}): it has both directions already")
        elif config.film.propagation_method == "none":
            faults.append(f"{checkpoint.folder} was trained with film=none: it has no direction")
        else:
            found[{"top_down": "td", "bottom_up": "bu"}[config.direction.cascade_direction]] = checkpoint
    first, second = opened
    if not faults and len(found) < 2:
        direction = first.config.direction.cascade_direction
        faults.append(f"both have direction={direction}; an ensemble takes a top_down and a bottom_up one")
    if first.taxonomy != second.taxonomy:
        faults.append(f"their taxonomies differ ({len(first.taxonomy)} and {len(second.taxonomy)} nodes)")
    if len({each.config.loss.loss if each.config.loss.is_conditional else "" for each in opened}) > 1:
        told = " and ".join(f"loss={checkpoint.config.loss.loss}" for checkpoint in opened)
        faults.append(f"they were trained with {told}, whose logits mean different things")
    data = [checkpoint.meta["dataset"] for checkpoint in opened]
    if data[0]["fingerprint"] != data[1]["fingerprint"]:
        told = " and ".join(f"{each['name']} with the hash {each['fingerprint'][:12]}" for each in data)
        faults.append(f"they were trained on different documents: {told}")
    keys = ("dataset_fraction", *(["threshold"] if threshold is None else []))
    for key in keys:
        values = [getattr(checkpoint.config, key) for checkpoint in opened]
        if values[0] != values[1]:
            way_out = "; give threshold=" if key == "threshold" else ": they saw different documents"
            faults.append(f"one has {key}={values[0]}, the other {key}={values[1]}{way_out}")
    if faults:
        raise CheckpointError(
            "\n".join(f"checkpoint=[{first.folder},{second.folder}]: {fault}" for fault in faults)
        )
    return {"td": found["td"], "bu": found["bu"]}


def load_weights(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Put the stored tensors into a model of the same shape.

    Raises:
        CheckpointError: the file is damaged, or does not fit the model that hblm.json describes.
    """
    put_tensors(checkpoint, read_tensors(checkpoint), model)


def read_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return all stored tensors by their names in the model, on the CPU.

    Raises:
        CheckpointError: the file is damaged or not the one that was written, or a number in it is not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = checkpoint.folder / WEIGHTS
    try:
        if SUMS in checkpoint.meta and sha256_once(path) != checkpoint.meta[SUMS][WEIGHTS]:
            raise CheckpointError(f"{path}: not the file that was written, damaged or replaced; {_AGAIN}")
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:  # KeyError: a type torch has not
        raise CheckpointError(f"{path}: cannot be read: {error}; {_AGAIN}") from None
    if odd := not_finite(tensors):
        raise CheckpointError(f"{path}: {_some(odd)} holds numbers that are not finite; {_AGAIN}")
    return tensors


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or an infinity."""
    return [
        name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()
    ]


def require_fit(
    checkpoint: Checkpoint, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Check names, shapes and types of a checkpoint's tensors against those of a module.

    Raises:
        CheckpointError: they differ.
    """
    faults = [f"{name} is not there" for name in expected if name not in tensors]
    faults += [f"{name} is none of the model's" for name in tensors if name not in expected]
    for name, wanted in expected.items():
        found = tensors.get(name, wanted)
        if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            faults.append(f"{name} is {_written(found)}, expected {_written(wanted)}")
    if faults:
        raise CheckpointError(
            f"{checkpoint.folder / WEIGHTS}: does not fit the model in {META}: {_some(faults)}; {_AGAIN}"
        )


def _written(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def put_tensors(checkpoint: Checkpoint, tensors: Mapping[str, Tensor], module: nn.Module) -> None:
    """Put tensors of a checkpoint into the module that they describe whole.

    Raises:
        CheckpointError: names, shapes or types are not the module's.
    """
    require_fit(checkpoint, tensors, module.state_dict())
    module.load_state_dict(tensors)


def _meant(folder: Path, key: str) -> str:
    """Name the checkpoint that a file is of, else those that lie in the same place."""
    meant = checkpoint_meant(folder)
    if meant:
        return did_you_mean([argument(key, str(meant))])
    if not folder.parent.is_dir():
        return ""
    names = sorted(
        path.name for path in folder.parent.iterdir() if (path / META).is_file() and path.name[:1] != "."
    )
    return f"; {folder.parent} holds {', '.join(names[:5])}" if names else ""
