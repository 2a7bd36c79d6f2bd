"""Inputs of an evaluation: opened checkpoints, their dataset and the settings in force. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hblm.config.evaluate import EvaluateConfig
from hblm.config.train import FUSE_KEYS, SINGLE_VIEW, TrainConfig
from hblm.console import log
from hblm.data.dataset import Prepared
from hblm.errors import ConfigError
from hblm.inference.exports.hub import local_folder
from hblm.inference.pair import pair_of
from hblm.runs.checkpoint import Checkpoint, open_checkpoint, open_data, open_other_data

ENSEMBLE_VIEWS = ("fused", "td", "bu")


@dataclass(frozen=True)
class EvaluationInputs:
    """Opened checkpoints and the dataset of an evaluation, checked.

    Attributes:
        config: the evaluation's configuration.
        checkpoints: an ensemble's by the names td and bu; one checkpoint by the name `model`.
        trained: each checkpoint's configuration, with this evaluation's weights to fuse views by.
        prepared: the dataset that they were trained on, or other data whose taxonomy is theirs or a part.
        threshold: the score from which on a node is predicted.
        view: the view to print, or `all`.
        output_dir, cache_dir: where results and caches go.
    """

    config: EvaluateConfig
    checkpoints: Mapping[str, Checkpoint]
    trained: Mapping[str, TrainConfig]
    prepared: Prepared
    threshold: float
    view: str
    output_dir: Path
    cache_dir: Path

    @property
    def main(self) -> Checkpoint:
        """The only checkpoint, or an ensemble's top-down one."""
        return next(iter(self.checkpoints.values()))

    @property
    def fuse_weights(self) -> dict[str, float]:
        """The weights that fuse the views of a model with a mix head; empty for other models."""
        joint = next(iter(self.trained.values())).joint_variant
        if joint.joint_variant != "tri_head_diffcat":
            return {}
        return dict(zip(FUSE_KEYS, joint.fuse_weights, strict=True))

    @property
    def is_ensemble(self) -> bool:
        """Whether two checkpoints are averaged."""
        return len(self.checkpoints) > 1

    @property
    def is_other_data(self) -> bool:
        """Whether the documents are of another dataset than that of training."""
        own: str = self.main.meta["dataset"]["fingerprint"]
        return self.prepared.fingerprint != own

    @property
    def other_name(self) -> str | None:
        """The name of the other data; None for the dataset of training."""
        return self.prepared.name if self.is_other_data else None


def open_inputs(config: EvaluateConfig) -> EvaluationInputs:
    """Open the checkpoints and their dataset, and check them against the configuration.

    Raises:
        CheckpointError: a checkpoint is damaged, its dataset is missing or changed, or two do not match.
        ConfigError: a key does not apply to these checkpoints, or the weights to fuse by are all 0.
        DataError: the other data is damaged, or has another taxonomy.
    """
    opened = [open_checkpoint(local_folder(place)) for place in config.checkpoint]
    _require_fit(config, opened)
    checkpoints = {"model": opened[0]} if len(opened) == 1 else pair_of(opened, config.threshold)
    first = next(iter(checkpoints.values()))
    joint = first.config.joint_variant
    output_dir = Path(config.output_dir) if config.output_dir else home_of(first.folder)
    if len(opened) == 1 and not joint.is_joint:
        view = SINGLE_VIEW
    else:
        view = config.joint_eval_view or (joint.joint_eval_view if joint.is_joint else "fused")
    return EvaluationInputs(
        config=config,
        checkpoints=checkpoints,
        trained={
            branch: with_fuse_weights(each.config, config.given_fuse_weights)
            for branch, each in checkpoints.items()
        },
        prepared=_open_data(config, first),
        threshold=first.config.threshold if config.threshold is None else config.threshold,
        view=view,
        output_dir=output_dir,
        cache_dir=Path(config.cache_dir) if config.cache_dir else output_dir / "cache",
    )


def _open_data(config: EvaluateConfig, checkpoint: Checkpoint) -> Prepared:
    """Return the dataset of training or, with other_data=true, the data of dataset.path.

    Raises:
        CheckpointError: the dataset of training is missing or changed.
        DataError: the other data is damaged, or has another taxonomy.
    """
    if not config.other_data or config.dataset.path is None:
        return open_data(checkpoint, config.dataset.path)
    prepared = open_other_data(checkpoint, Path(config.dataset.path), config.splits)
    if prepared.fingerprint == checkpoint.meta["dataset"]["fingerprint"]:
        log.info("%s is the dataset of training: other_data=true changes nothing", prepared.folder)
        return open_data(checkpoint, config.dataset.path)
    return prepared


def _require_fit(config: EvaluateConfig, opened: Sequence[Checkpoint]) -> None:
    """Refuse keys that do not apply to these checkpoints.

    Raises:
        ConfigError: with all of them.
    """
    joint = opened[0].config.joint_variant
    faults = []
    ensemble = len(opened) > 1
    what = "an ensemble" if ensemble else f"a model with joint_variant={joint.joint_variant}"
    views = ENSEMBLE_VIEWS if ensemble else joint.views
    if "mix" not in views:
        given = config.given_fuse_weights
        faults += [f"{key}={value} acts on tri_head_diffcat, not on {what}" for key, value in given.items()]
    shown = config.joint_eval_view
    if shown is not None and (len(views) == 1 or shown not in (*views, "all")):
        has = f"the views {', '.join(views)}, or all" if len(views) > 1 else f"one view, {views[0]}"
        faults.append(f"joint_eval_view={shown}: {what} has {has}")
    if faults:
        raise ConfigError("\n".join(faults))


def with_fuse_weights(trained: TrainConfig, given: Mapping[str, Any]) -> TrainConfig:
    """Return a checkpoint's configuration with other weights to fuse views by.

    Raises:
        ConfigError: the weights contradict each other.
    """
    changed = replace(trained, joint_variant=replace(trained.joint_variant, **given))
    if changed.conflicts():
        # without the group, as the keys are written where checkpoints are used
        raise ConfigError("\n".join(changed.conflicts()).replace("joint_variant.tri_fuse", "tri_fuse"))
    return changed


def home_of(folder: Path) -> Path:
    """Return the output folder of a checkpoint: OUT for OUT/checkpoints/NAME, else ./outputs."""
    parents = folder.resolve().parents
    return parents[1] if parents[0].name == "checkpoints" else Path("outputs")
