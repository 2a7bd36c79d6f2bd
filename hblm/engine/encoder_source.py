"""The files of a run's encoder: its own, or with `init_from` those of a checkpoint. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hblm.config.schema import plain
from hblm.config.train import TrainConfig
from hblm.encoders.pretrained import Pretrained, locate
from hblm.errors import ConfigError
from hblm.files import sha256_text
from hblm.json_files import canonical_json
from hblm.runs.checkpoint import WEIGHTS, open_checkpoint

KEY = "init_from"


def source_of(config: TrainConfig) -> Pretrained:
    """Return the files of a run's encoder.

    With init_from they are the checkpoint's: the original files of its encoder are not needed.

    Raises:
        ConfigError: there is no such encoder, or the checkpoint has another one.
        CheckpointError: the checkpoint is missing or damaged.
    """
    wanted = config.encoder
    if config.init_from is None:
        return locate(wanted.model_name, wanted.revision)
    checkpoint = open_checkpoint(Path(config.init_from), KEY)
    stored = checkpoint.config.encoder
    if (stored.model_name, stored.revision) != (wanted.model_name, wanted.revision):
        raise ConfigError(
            f"{KEY}={config.init_from} has the encoder {_arguments(stored)}, and this run "
            f"{_arguments(wanted)}; a run starts from one with the same encoder: write {_arguments(stored)}, "
            f"or another {KEY}="
        )
    weights = checkpoint.folder / WEIGHTS
    # which weights are copied depends on the ids of the nodes and on the configuration of that run
    nodes = [[node.id, node.parent] for node in checkpoint.taxonomy.nodes]
    origin = sha256_text(canonical_json({"run_id": checkpoint.meta["run_id"], "nodes": nodes}))
    return Pretrained(wanted.model_name, wanted.revision, checkpoint.encoder, weights, origin)


def _arguments(encoder: Any) -> str:
    return f"encoder.model_name={encoder.model_name} encoder.revision={plain(encoder.revision)}"
