"""Keys of programs that predict with stored models: which models, where they run, what is predicted."""

from __future__ import annotations

from dataclasses import dataclass

from hblm.config.schema import key
from hblm.config.train import FUSE_KEYS, TUNES

CONSISTENCIES = ("raise", "cap", "none")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
PREDICTION_VIEWS = ("fused", "td", "bu", "mix")


@dataclass
class Views:
    """The view of a joint model, and the weights of views and models in a mean."""

    joint_eval_view: str | None = key(
        None, "joint models: the view; null: the checkpoint's", choices=PREDICTION_VIEWS
    )
    tri_fuse_td: float | None = key(None, "tri_head_diffcat: another weight; null: the checkpoint's", low=0)
    tri_fuse_bu: float | None = key(None, "tri_head_diffcat: another weight; null: the checkpoint's", low=0)
    tri_fuse_mix: float | None = key(None, "tri_head_diffcat: another weight; null: the checkpoint's", low=0)
    ensemble_weight: float | None = key(
        None,
        "of a top-down and a bottom-up checkpoint: w in w z_td + (1 - w) z_bu; null: 0.5",
        low=0,
        high=1,
    )

    @property
    def given_fuse_weights(self) -> dict[str, float]:
        """The given weights that fuse the views of a model with a mix head."""
        return {name: getattr(self, name) for name in FUSE_KEYS if getattr(self, name) is not None}


@dataclass
class Confidence:
    """How sure the paths of a document are to have no wrong node."""

    confidence: float | None = key(
        None,
        "cut paths back so that at most 1 - confidence of the documents have a wrong node; see calibrate",
        low=0.01,
        high=0.999,
    )
    calibrate: str | None = key(
        None,
        "confidence= from the test split of this prepared folder, which training never saw; null: from the "
        "documents that trainer.calibration_share kept",
    )


@dataclass
class StoredModel(Views):
    """One stored model, or several whose logits are averaged, and how scores become predicted paths."""

    checkpoint: list[str] = key(
        "???",
        "folder of a trained or exported model, or owner/name of one on the hub; [A,B,...]: several, whose "
        "logits are averaged",
        one=True,
    )
    device: str = key("auto", "where to run", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = key("auto", "auto: bf16 where the device multiplies it natively", choices=PRECISIONS)
    backend: str = key(
        "auto",
        "torch runs checkpoints, onnx exported folders; auto: by what the folder is",
        choices=("auto", "torch", "onnx"),
    )
    threshold: float | None = key(
        None, "the score from which on a node is predicted; null: the checkpoint's", low=0, high=1
    )
    tune: str = key(
        "none", "thresholds that were chosen on validation documents, in place of one", choices=TUNES
    )
    consistency: str = key(
        "raise",
        "raise: a predicted node brings its ancestors; cap: it needs them; none: each node by itself",
        choices=CONSISTENCIES,
    )
    calibrated: bool = key(False, "scores after the temperatures that were fitted on validation documents")

    def conflicts(self) -> list[str]:
        """Return a message for each combination of valid values that is invalid."""
        given = self.checkpoint if isinstance(self.checkpoint, list) else []  # empty where it is missing
        messages = []
        if self.checkpoint == []:
            messages.append("checkpoint=[] names no folder; write checkpoint=DIR")
        if len(given) != 2 and self.ensemble_weight is not None:
            messages.append(
                f"ensemble_weight={self.ensemble_weight} acts between two checkpoints; "
                "write checkpoint=[TOP_DOWN,BOTTOM_UP]"
            )
        if self.threshold is not None and self.tune != "none":
            messages.append(
                f"threshold={self.threshold} contradicts tune={self.tune}, which has thresholds of its own; "
                "leave one of them out"
            )
        return messages
