"""What an evaluation is asked for, understood: checkpoints opened, data found, keys that act. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hblm.config.evaluate import EvaluateConfig
from hblm.config.train import FUSE_KEYS, SINGLE_VIEW, TrainConfig
from hblm.data.dataset import Prepared
from hblm.errors import ConfigError
from hblm.runs.checkpoint import Checkpoint, open_checkpoint, open_data, pair_of

ENSEMBLE_VIEWS = ("fused", "td", "bu")


@dataclass(frozen=True)
class Request:
    """An evaluation that can be done: its checkpoints opened, its data found.

    Attributes:
        checkpoints: td and bu of an ensemble; under the name `model` where there is one.
        trained: each checkpoint's configuration, with the weights that this evaluation fuses by.
        view: the view to show, or `all`.
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
        """The one checkpoint, or an ensemble's top-down one."""
        return next(iter(self.checkpoints.values()))

    @property
    def fuse_weights(self) -> dict[str, float]:
        """The weights that a mix head's model is fused by; nothing of other models."""
        joint = next(iter(self.trained.values())).joint_variant
        if joint.joint_variant != "tri_head_diffcat":
            return {}
        return dict(zip(FUSE_KEYS, joint.fuse_weights, strict=True))

    @property
    def is_ensemble(self) -> bool:
        """Whether two checkpoints are averaged."""
        return len(self.checkpoints) > 1


def understand(config: EvaluateConfig) -> Request:
    """Open the checkpoints and find the data, so that whatever is wrong is said before torch is loaded.

    Raises:
        CheckpointError: a checkpoint is damaged, or the data is not where it lay, or two do not go together.
        ConfigError: a key that does not act on what the checkpoint holds; no weight to fuse by.
    """
    opened = [open_checkpoint(Path(place)) for place in config.checkpoint]
    _require_fit(config, opened)
    checkpoints = {"model": opened[0]} if len(opened) == 1 else pair_of(opened, config.threshold)
    first = next(iter(checkpoints.values()))
    joint = first.config.joint_variant
    output_dir = Path(config.output_dir) if config.output_dir else _home_of(first.folder)
    if len(opened) == 1 and not joint.is_joint:
        view = SINGLE_VIEW
    else:
        view = config.joint_eval_view or (joint.joint_eval_view if joint.is_joint else "fused")
    return Request(
        config=config,
        checkpoints=checkpoints,
        trained={branch: _fused_otherwise(config, each.config) for branch, each in checkpoints.items()},
        prepared=open_data(first, config.dataset.path),
        threshold=first.config.threshold if config.threshold is None else config.threshold,
        view=view,
        output_dir=output_dir,
        cache_dir=Path(config.cache_dir) if config.cache_dir else output_dir / "cache",
    )


def _require_fit(config: EvaluateConfig, opened: Sequence[Checkpoint]) -> None:
    """Refuse keys that do not act on these checkpoints.

    Raises:
        ConfigError: all of them, in one message.
    """
    joint = opened[0].config.joint_variant
    faults = []
    ensemble = len(opened) > 1
    what = "an ensemble" if ensemble else f"a model with joint_variant={joint.joint_variant}"
    views = ENSEMBLE_VIEWS if ensemble else joint.views
    if "mix" not in views:
        given = {key: getattr(config, key) for key in FUSE_KEYS if getattr(config, key) is not None}
        faults += [f"{key}={value} acts on tri_head_diffcat, not on {what}" for key, value in given.items()]
    shown = config.joint_eval_view
    if shown is not None and (len(views) == 1 or shown not in (*views, "all")):
        has = f"the views {', '.join(views)}, or all" if len(views) > 1 else f"one view, {views[0]}"
        faults.append(f"joint_eval_view={shown}: {what} has {has}")
    if faults:
        raise ConfigError("\n".join(faults))


def _fused_otherwise(config: EvaluateConfig, trained: TrainConfig) -> TrainConfig:
    """Return a checkpoint's configuration with the weights that this evaluation fuses by."""
    given = {key: getattr(config, key) for key in FUSE_KEYS if getattr(config, key) is not None}
    changed = replace(trained, joint_variant=replace(trained.joint_variant, **given))
    if changed.conflicts():
        # named as they are written here
        raise ConfigError("\n".join(changed.conflicts()).replace("joint_variant.tri_fuse", "tri_fuse"))
    return changed


def _home_of(folder: Path) -> Path:
    """Return the output folder a checkpoint lies in: OUT for OUT/checkpoints/NAME, else ./outputs."""
    parents = folder.resolve().parents
    return parents[1] if parents[0].name == "checkpoints" else Path("outputs")
