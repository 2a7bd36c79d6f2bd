"""A checkpoint: a folder of JSON and safetensors that holds all an evaluation needs. No pickle."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hblm.artifacts import new_folder
from hblm.config import TrainConfig, typed
from hblm.errors import CheckpointError, ConfigError, DataError
from hblm.taxonomy import Taxonomy, read_taxonomy

if TYPE_CHECKING:
    from torch import nn

SCHEMA_VERSION = 1
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
        meta: all of hblm.json: run_id, name, tag, dataset {name, path, fingerprint}, node_priors, precision,
            eval_batch_size.
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
        content = {"schema_version": SCHEMA_VERSION, **meta, "config": asdict(config)}
        (temporary / META).write_text(
            json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint without its weights.

    Raises:
        CheckpointError: the folder or a file of it is missing, damaged, or of another version.
    """
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint={folder} is not a folder{_beside(folder)}")
    missing = [name for name in (META, WEIGHTS, TAXONOMY, ENCODER) if not (folder / name).exists()]
    if missing:
        raise CheckpointError(f"checkpoint={folder} is not a checkpoint: it has no {', no '.join(missing)}")
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / META}: cannot be read: {error}") from None
    if not isinstance(meta, dict) or meta.get("schema_version") != SCHEMA_VERSION:
        found = meta.get("schema_version") if isinstance(meta, dict) else None
        raise CheckpointError(f"{folder / META}: version {found!r}; this program reads {SCHEMA_VERSION}")
    odd = [key for key, sound in _SOUND.items() if not sound(meta.get(key))]
    if odd:
        raise CheckpointError(f"{folder / META} is damaged: no sound value of {', '.join(odd)}")
    try:
        config = typed(meta["config"], TrainConfig)
        taxonomy = read_taxonomy(folder / TAXONOMY)
    except (ConfigError, DataError) as error:
        raise CheckpointError(f"checkpoint={folder} is damaged: {error}") from None
    return Checkpoint(folder, config, taxonomy, meta)


def load_weights(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Put the stored tensors into a model of the same shape.

    Raises:
        CheckpointError: the file is damaged, or does not fit the model that hblm.json describes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = checkpoint.folder / WEIGHTS
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise CheckpointError(f"{path}: does not fit the model in {META}: {' '.join(lines[1:3])}") from None


def _beside(folder: Path) -> str:
    """Name the checkpoints that lie in the same place."""
    if not folder.parent.is_dir():
        return ""
    names = sorted(path.name for path in folder.parent.iterdir() if (path / META).is_file())
    return f"; {folder.parent} holds {', '.join(names[:5])}" if names else ""
