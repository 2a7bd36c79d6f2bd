"""The configuration of `python -m hblm.evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hblm.config.schema import group, key, plain
from hblm.config.train import EVAL_VIEWS, FUSE_KEYS, TUNES


@dataclass
class StoredDataset:
    """The folder of the documents, if it is not the one in the checkpoint."""

    path: str | None = key(None, "the prepared folder; null: the one of training")


@dataclass
class EvaluateConfig:
    """One run of `python -m hblm.evaluate`; all other settings come from the checkpoint."""

    checkpoint: list[str] = key(
        "???",
        "folder of a trained model, or owner/name of one on the hub; [A,B]: of a top-down and a bottom-up "
        "one, an ensemble",
        one=True,
    )
    split: str = key("test", "which documents to score", choices=("train", "val", "test"))
    threshold: float | None = key(None, "null: the checkpoint's", low=0, high=1)
    consistency: str | None = key(
        None,
        "scores shown beside the raw ones: raise: of predictions closed under ancestors; cap: of predicted "
        "nodes whose ancestors are all predicted; null: none",
        choices=("raise", "cap", "none"),
    )
    posthoc_repath: bool = key(False, "the original's name for consistency=raise")
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
    tune: str = key(
        "none",
        "also score predictions at thresholds that the validation split chooses, closed under ancestors: one "
        "for all nodes, of each level or of each node",
        choices=TUNES,
    )
    calibrated: bool = key(
        False,
        "also the calibration errors before and after the temperatures that the validation split chooses",
    )
    confidence: float | None = key(
        None,
        "also the risk of paths that are cut back so far that this share of documents has no wrong node",
        low=0.01,
        high=0.999,
    )
    calibrate: str | None = key(
        None,
        "confidence: a prepared folder whose test split training never saw; null: the documents that "
        "trainer.calibration_share kept",
    )
    figures: bool = key(False, "draw a reliability diagram of each level beside the result, as SVG and PNG")
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
    other_data: bool = key(
        False,
        "score the labelled documents of dataset.path, whose taxonomy is the checkpoint's or a part of it",
    )

    @property
    def given_fuse_weights(self) -> dict[str, float]:
        """The given weights that fuse the views of a model with a mix head."""
        return {name: getattr(self, name) for name in FUSE_KEYS if getattr(self, name) is not None}

    @property
    def weight(self) -> float | None:
        """The ensemble's weight; None where it is to be searched."""
        return None if self.ensemble_weight == "auto" else float(self.ensemble_weight or 0.5)

    @property
    def splits(self) -> list[str]:
        """The splits that are scored: `split`, and the one by which an ensemble's weight is chosen."""
        searched = ["val"] if self.weight is None else []
        return list(dict.fromkeys([self.split, *searched]))

    @property
    def shown_consistency(self) -> str:
        """The consistency whose scores are shown beside the raw ones: raise, cap or none."""
        return "raise" if self.posthoc_repath else self.consistency or "none"

    @property
    def by_decisions(self) -> dict[str, Any]:
        """The given keys whose scores depend on what the validation split chooses, with their values."""
        names = ("tune", "calibrated", "confidence", "calibrate", "figures")
        return {name: value for name in names if (value := getattr(self, name)) not in (None, False, "none")}

    def _conflicts_of_decisions(self) -> list[str]:
        keys = " ".join(f"{name}={plain(value)}" for name, value in self.by_decisions.items())
        if not keys:
            return []
        messages = []
        if isinstance(self.checkpoint, list) and len(self.checkpoint) > 1:
            messages.append(f"{keys} acts on one checkpoint, and checkpoint= names {len(self.checkpoint)}")
        if weights := self.given_fuse_weights:
            messages.append(
                f"{keys} depends on what was chosen for the checkpoint's own weights; leave out "
                f"{' and '.join(weights)}"
            )
        if self.calibrate is not None and self.confidence is None:
            messages.append(f"calibrate={self.calibrate} acts with confidence=")
        if self.threshold is not None and self.tune != "none":
            messages.append(
                f"threshold={self.threshold} contradicts tune={self.tune}, which has thresholds of its own; "
                "leave one of them out"
            )
        return messages

    def conflicts(self) -> list[str]:
        """Return a message for each combination of valid values that is invalid."""
        messages = self._conflicts_of_decisions()
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
        if self.posthoc_repath and self.consistency not in (None, "raise"):
            messages.append(
                f"posthoc_repath=true is consistency=raise and contradicts consistency={self.consistency}; "
                "write one of the two"
            )
        if self.other_data and self.dataset.path is None:
            messages.append("other_data=true scores the documents of dataset.path=DIR, and there is none")
        if self.predictions_floor is not None and not self.predictions:
            messages.append(f"predictions_floor={self.predictions_floor} acts with predictions=true")
        return messages
