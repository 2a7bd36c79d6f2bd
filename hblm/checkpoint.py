"""A checkpoint: a folder of JSON and safetensors that holds all an evaluation needs. No pickle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hblm.artifacts import new_folder, read_object, remove_stale
from hblm.config import TrainConfig
from hblm.corpus.prepared import Prepared, open_prepared
from hblm.errors import CheckpointError, ConfigError, DataError
from hblm.schema import typed
from hblm.taxonomy import Taxonomy, read_taxonomy
from hblm.version import COMPUTED_BY, FORMULAS, __version__

if TYPE_CHECKING:
    from torch import Tensor, nn

SCHEMA_VERSION = 2  # 1 named the tensors of a single model otherwise
META, WEIGHTS, TAXONOMY, ENCODER = "hblm.json", "model.safetensors", "taxonomy.json", "encoder"
_SOUND: dict[str, Callable[[Any], bool]] = {
    "config": lambda value: isinstance(value, dict),
    "run_id": lambda value: isinstance(value, str),
    "name": lambda value: isinstance(value, str),
    "tag": lambda value: isinstance(value, str),
    "dataset": lambda value: (
        isinstance(value, dict)
        and all(isinstance(value.get(key), str) for key in ("name", "path", "fingerprint"))
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
            it), training (a mark that its result has, too), node_priors, precision, eval_batch_size.
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
        content = {"schema_version": SCHEMA_VERSION, "formulas": FORMULAS, **meta, "config": asdict(config)}
        (temporary / META).write_text(
            json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def open_checkpoint(folder: Path, key: str = "checkpoint") -> Checkpoint:
    """Open a checkpoint without its weights; `key` is what messages say that the folder was given as.

    Raises:
        CheckpointError: the folder or a file of it is missing, damaged, or of another version.
    """
    remove_stale(folder.parent)  # a folder caught between two renames is put back
    if not folder.is_dir():
        raise CheckpointError(f"{key}={folder} is not a folder{_beside(folder)}")
    missing = [name for name in (META, WEIGHTS, TAXONOMY, ENCODER) if not (folder / name).exists()]
    if missing:
        raise CheckpointError(f"{key}={folder} is not a checkpoint: it has no {', no '.join(missing)}")
    try:
        meta = read_object(folder / META)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / META}: cannot be read: {error}") from None
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
    odd = [key for key, sound in _SOUND.items() if not sound(meta.get(key))]
    if odd:
        raise CheckpointError(f"{folder / META} is damaged: no sound value of {', '.join(odd)}")
    try:
        config = typed(meta["config"], TrainConfig)
        taxonomy = read_taxonomy(folder / TAXONOMY)
    except (ConfigError, DataError) as error:
        raise CheckpointError(f"{key}={folder} is damaged: {error}") from None
    return Checkpoint(folder, config, taxonomy, meta)


def open_data(checkpoint: Checkpoint, given: str | None) -> Prepared:
    """Open the documents a checkpoint was trained on, where they lay or where they are said to lie now.

    Raises:
        CheckpointError: they are not there, or are not the same.
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
        CheckpointError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = checkpoint.folder / WEIGHTS
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None


def put_tensors(checkpoint: Checkpoint, tensors: Mapping[str, Tensor], module: nn.Module) -> None:
    """Put tensors of a checkpoint into the module that they describe whole.

    Raises:
        CheckpointError: names or shapes are not the module's.
    """
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise CheckpointError(
            f"{checkpoint.folder / WEIGHTS}: does not fit the model in {META}: {' '.join(lines[1:3])}"
        ) from None


def _beside(folder: Path) -> str:
    """Name the checkpoints that lie in the same place."""
    if not folder.parent.is_dir():
        return ""
    names = sorted(
        path.name for path in folder.parent.iterdir() if (path / META).is_file() and path.name[:1] != "."
    )
    return f"; {folder.parent} holds {', '.join(names[:5])}" if names else ""
