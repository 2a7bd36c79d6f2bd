"""The configuration of `python -m hblm.export`."""

from __future__ import annotations

from dataclasses import dataclass

from hblm.config.evaluate import StoredDataset
from hblm.config.schema import group, key
from hblm.config.stored_model import StoredModel, Views
from hblm.config.train import FUSE_KEYS

FORMATS = ("onnx", "hub_folder")
_ONNX_ONLY = ("joint_eval_view", *FUSE_KEYS, "ensemble_weight", "threshold")


@dataclass
class ExportConfig(Views):
    """One run of `python -m hblm.export`; all other settings come from the checkpoint."""

    checkpoint: list[str] = key(
        "???",
        "folder of a trained model; to=onnx takes [A,B,...]: several, whose logits are averaged",
        one=True,
    )
    to: str = key(
        "???",
        "onnx: a folder that any ONNX program reads; hub_folder: the checkpoint with a model card, to upload",
        choices=FORMATS,
    )
    output: str | None = key(
        None, "the new folder; null: exports/NAME-onnx or exports/NAME-hub beside checkpoints/"
    )
    force: bool = key(False, "replace an output folder that is there")
    int8: bool = key(
        False, "to=onnx: the encoder's products in 8-bit integers; the loss is measured on validation"
    )
    threshold: float | None = key(
        None, "to=onnx: the threshold in the folder's record; null: the checkpoint's", low=0, high=1
    )
    result: str | None = key(
        None, "to=hub_folder: the run's result, for the model card; null: the one beside the checkpoint"
    )
    dataset: StoredDataset = group(StoredDataset, "the folder of the documents, for int8=true")

    @property
    def models(self) -> StoredModel:
        """The models as a program that predicts takes them."""
        names = ("checkpoint", *_ONNX_ONLY)
        return StoredModel(**{name: getattr(self, name) for name in names})

    def conflicts(self) -> list[str]:
        """Return a message for each combination of valid values that is invalid."""
        given = self.checkpoint if isinstance(self.checkpoint, list) else []  # empty where it is missing
        if self.to == "onnx":
            messages = self.models.conflicts()
            if self.result is not None:
                messages.append(f"result={self.result} acts with to=hub_folder; leave it out")
            if self.dataset.path is not None and not self.int8:
                messages.append(f"dataset.path={self.dataset.path} acts with int8=true; leave it out")
            return messages
        if self.to != "hub_folder":
            return []
        keys = [name for name in _ONNX_ONLY if getattr(self, name) is not None]
        keys += ["int8"] * self.int8 + ["dataset.path"] * (self.dataset.path is not None)
        messages = [
            f"{name}= acts with to=onnx; to=hub_folder copies the checkpoint as it is" for name in keys
        ]
        if len(given) != 1:
            messages.append(f"to=hub_folder takes one checkpoint; checkpoint= names {len(given)} folders")
        return messages
