"""The configuration of `python -m hblm.evaluate`."""

from __future__ import annotations

from dataclasses import dataclass

from hblm.config.schema import group, key
from hblm.config.train import EVAL_VIEWS, FUSE_KEYS


@dataclass
class StoredDataset:
    """The folder of the documents, if it is not the one in the checkpoint."""

    path: str | None = key(None, "the prepared folder; null: the one of training")


@dataclass
class EvaluateConfig:
    """One run of `python -m hblm.evaluate`; all other settings come from the checkpoint."""

    checkpoint: list[str] = key(
        "???", "folder of a trained model; [A,B]: of a top-down and a bottom-up one, an ensemble", one=True
    )
    split: str = key("test", "which documents to score", choices=("train", "val", "test"))
    threshold: float | None = key(None, "null: the checkpoint's", low=0, high=1)
    posthoc_repath: bool = key(False, "show the scores of predictions closed under ancestors")
    joint_eval_view: str | None = key(
        None,
        "joint models and ensembles: the view shown; null: the checkpoint's, fused of an ensemble",
        choices=EVAL_VIEWS,
    )
    tri_fuse_td: float | None = key(None, "tri_head_diffcat: another weight; null: the checkpoint's", low=0)
    tri_fuse_bu: float | None = key(None, "tri_head_diffcat: another weight; null: the checkpoint's", low=0)
    tri_fuse_mix: float | None = key(None, "tri_head_diffcat: another weight; null: the checkpoint's", low=0)
    ensemble_weight: str | None = key(
        None,
        "of two checkpoints: w in w z_td + (1 - w) z_bu; null: 0.5; auto: the best on the validation split",
    )
    predictions: bool = key(False, "write every document's scores, as Parquet, beside the result")
    predictions_floor: float | None = key(
        None,
        "leave out pairs of a lower score that are neither predicted nor gold; null: 0.01",
        low=0,
        high=1,
    )
    output_dir: str | None = key(
        None, "null: the folder with checkpoints/ around the checkpoint, else outputs"
    )
    cache_dir: str | None = key(None, "null: cache/ in output_dir")
    device: str = key("auto", "where to run", choices=("auto", "cpu", "cuda", "mps"))
    num_workers: int = key(0, "processes that collate batches", low=0, high=256)
    dataset: StoredDataset = group(StoredDataset, "the folder of the documents")

    @property
    def given_fuse_weights(self) -> dict[str, float]:
        """The given weights that fuse the views of a model with a mix head."""
        return {name: getattr(self, name) for name in FUSE_KEYS if getattr(self, name) is not None}

    @property
    def weight(self) -> float | None:
        """The ensemble's weight; None where it is to be searched."""
        return None if self.ensemble_weight == "auto" else float(self.ensemble_weight or 0.5)

    def conflicts(self) -> list[str]:
        """Return a message for each combination of valid values that is invalid."""
        messages: list[str] = []
        given = self.checkpoint if isinstance(self.checkpoint, list) else []  # empty where it is missing
        if self.ensemble_weight not in (None, "auto"):
            try:
                sound = 0 <= float(self.ensemble_weight) <= 1
            except ValueError:
                sound = False
            if not sound:
                messages.append(
                    f"ensemble_weight={self.ensemble_weight} is not a number between 0 and 1, nor auto"
                )
        if self.checkpoint == []:
            messages.append("checkpoint=[] names no folder; write checkpoint=DIR, or [TOP_DOWN,BOTTOM_UP]")
        if len(given) > 2:
            messages.append(f"checkpoint= names {len(given)} folders; an ensemble has two")
        if len(given) == 1 and self.ensemble_weight is not None:
            messages.append(
                f"ensemble_weight={self.ensemble_weight} acts between two checkpoints, and checkpoint= names "
                "one; write checkpoint=[TOP_DOWN,BOTTOM_UP]"
            )
        if self.predictions_floor is not None and not self.predictions:
            messages.append(f"predictions_floor={self.predictions_floor} acts with predictions=true")
        return messages
