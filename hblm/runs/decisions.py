"""`decisions.json` of a checkpoint: thresholds, temperatures and critical scores from validation.

The file is made after training, or by an evaluation later. It has a seal of its own and is not in the list of
files of hblm.json: a checkpoint is the same with and without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hblm.errors import CheckpointError
from hblm.json_files import is_as_sealed, read_object, sealed, write_json
from hblm.runs.checkpoint import DECISIONS, Checkpoint
from hblm.taxonomy import Taxonomy

SCHEMA_VERSION = 1
EXPORT_AGAIN = "run hblm evaluate tune=node on the checkpoint that it was made from, and export that again"


@dataclass(frozen=True)
class Conformal:
    """Critical scores of the calibration documents (see engine/risk.py).

    Attributes:
        documents: how many there are.
        critical: those that are finite, the highest first.
        settings: of prediction, for which they hold: threshold, tune, consistency, calibrated, precision.
    """

    documents: int
    critical: Sequence[float]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Decisions:
    """What was chosen for one view on the validation split.

    Attributes:
        documents: of the validation split that it was chosen on.
        monitor: the score that the thresholds maximise: micro_f1 or macro_f1.
        everywhere, level, node: the thresholds: for all nodes, of each level, of each node in taxonomy order.
        prior: how strongly the nodes' thresholds are shrunk to the one for all, in documents; None: fully.
        tried: the priors that cross-validation compared, each with its score and standard error.
        temperatures: of each level.
        errors: under `before` and `after` the temperatures: each level's calibration errors.
        conformal: of the documents that trainer.calibration_share keeps; None without them.
    """

    documents: int
    monitor: str
    everywhere: float
    level: Sequence[float]
    node: Sequence[float]
    prior: float | None
    tried: Sequence[Mapping[str, float | None]]
    temperatures: Sequence[float]
    errors: Mapping[str, Sequence[Mapping[str, float]]]
    conformal: Conformal | None = None

    def thresholds(self, tune: str, taxonomy: Taxonomy) -> list[float]:
        """Return the threshold of each node, in taxonomy order, for tune=global, level or node."""
        if tune == "node":
            return list(self.node)
        by_level = self.level if tune == "level" else [self.everywhere] * len(taxonomy.levels)
        sizes = map(len, taxonomy.levels)
        return [each for each, size in zip(by_level, sizes, strict=True) for _ in range(size)]


def write_decisions(folder: Path, training: str, views: Mapping[str, Decisions]) -> None:
    """Write the file into a checkpoint's folder, in one step.

    Args:
        folder: the checkpoint.
        training: its `training`, by which the file of another checkpoint is recognised.
        views: the decisions by view.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "training": training,
        "views": {view: dataclasses.asdict(each) for view, each in views.items()},
    }
    write_json(folder / DECISIONS, sealed(content))


def read_decisions(checkpoint: Checkpoint) -> dict[str, Decisions]:
    """Return a checkpoint's decisions by view; none where there is no file.

    Raises:
        CheckpointError: the file is damaged, or of another checkpoint or version.
    """
    file = checkpoint.folder / DECISIONS
    try:
        content = read_object(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}; {_way_out(checkpoint)}") from None
    if not is_as_sealed(content):
        raise CheckpointError(f"{file}: not as it was written, damaged or edited; {_way_out(checkpoint)}")
    if content.get("schema_version") != SCHEMA_VERSION:
        version = content.get("schema_version")
        raise CheckpointError(
            f"{file}: version {version!r:.40}; this program reads {SCHEMA_VERSION}; {_way_out(checkpoint)}"
        )
    if content.get("training") != checkpoint.meta["training"]:
        raise CheckpointError(f"{file} belongs to another checkpoint; {_way_out(checkpoint)}")
    try:
        return {view: _decisions(each) for view, each in content["views"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__} {error!s:.100}"
        raise CheckpointError(f"{file}: damaged ({why}); {_way_out(checkpoint)}") from None


def _decisions(entry: Mapping[str, Any]) -> Decisions:
    conformal = entry["conformal"]
    return Decisions(**{**entry, "conformal": None if conformal is None else Conformal(**conformal)})


def _way_out(checkpoint: Checkpoint) -> str:
    if checkpoint.is_onnx:
        return EXPORT_AGAIN
    return f"delete it, and make it again: hblm evaluate checkpoint={checkpoint.folder} tune=global"
