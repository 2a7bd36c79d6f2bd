"""Predictors: scores of all nodes for new texts, by one stored model or the mean of several."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hblm.config.stored_model import StoredModel
from hblm.config.train import SINGLE_VIEW, TrainConfig
from hblm.console import Advance, no_progress
from hblm.errors import CheckpointError, ConfigError
from hblm.inference.decision import Decision
from hblm.inference.exports.hub import local_folder
from hblm.inference.inputs import with_fuse_weights
from hblm.runs.checkpoint import Checkpoint, open_checkpoint
from hblm.taxonomy import Taxonomy

_MOST_CELLS = 1 << 24  # scores at a time: 64 MB
_MOST_TEXTS = 4_096

Scores = npt.NDArray[np.float32]


class Backend(Protocol):
    """One stored model that turns texts into logits. Threads can share it.

    Attributes:
        precision: fp32, bf16, fp16 or int8.
    """

    precision: str

    def logits(self, texts: Sequence[str], advance: Advance) -> Scores:
        """Return logits, (texts, nodes) in taxonomy order; `advance` gets the texts of each batch."""

    def scores(self, logits: Scores) -> Scores:
        """Return the probability of each node for logits of this model, or a mean of several models' ones."""


class Predictor:
    """Stored models that share a taxonomy; their logits are averaged. Threads can share it.

    Attributes:
        taxonomy: the label forest.
        threshold: of the training, from which on a node is predicted.
        checkpoints: the models.
        name: of the models, for messages.
        view: of the first model.
        precision: of the first model: fp32, bf16, fp16 or int8.
        as_trained: whether this is one model with its own weights of views, so that decisions.json holds.
        texts_at_once: how many texts `scores` should get at most, so that its result stays small.
    """

    def __init__(
        self,
        members: Sequence[Member],
        backends: Sequence[Backend],
        threshold: float,
    ) -> None:
        """Take the models, each with its backend, and the threshold."""
        self.checkpoints = tuple(member.checkpoint for member in members)
        self._backends, self._weights = tuple(backends), tuple(member.weight for member in members)
        self.view, self.precision = members[0].view, backends[0].precision
        self.as_trained, self.threshold = is_as_trained(members), threshold
        self.taxonomy: Taxonomy = self.checkpoints[0].taxonomy
        self.name = " and ".join(str(checkpoint.meta["name"]) for checkpoint in self.checkpoints)
        self.texts_at_once = max(1, min(_MOST_TEXTS, _MOST_CELLS // len(self.taxonomy)))

    def scores(self, texts: Sequence[str], advance: Advance = no_progress) -> Scores:
        """Return the probability of each node, (texts, nodes) in taxonomy order.

        Args:
            texts: of documents; a text without tokens has scores as well.
            advance: is called with a number of texts after each batch; of several models, those of the last.

        Raises:
            TrainingError: a logit is not finite.
        """
        if not texts:
            return np.empty((0, len(self.taxonomy)), dtype=np.float32)
        total = sum(self._weights)
        mean = np.zeros((len(texts), len(self.taxonomy)), dtype=np.float32)
        for backend, weight in zip(self._backends, self._weights, strict=True):
            last = backend is self._backends[-1]
            mean += np.float32(weight / total) * backend.logits(texts, advance if last else no_progress)
        return self._backends[0].scores(mean)

    def decision(
        self, *, threshold: float | None = None, consistency: str = "raise", top_k: int | None = None
    ) -> Decision:
        """Return how scores become predicted paths.

        Args:
            threshold: the score from which on a node is predicted; None for the models' own.
            consistency: raise, cap or none.
            top_k: the most paths a document. Without a threshold they end at any leaf of the tree; with one
                they are the best of the predicted paths.
        """
        return Decision(
            self.taxonomy,
            self.threshold if threshold is None else threshold,
            consistency=consistency,
            top_k=top_k,
            best=top_k is not None and threshold is None,
        )


@dataclass(frozen=True)
class Member:
    """One of the models whose logits are averaged.

    Attributes:
        checkpoint: the model.
        config: its configuration, whose weights that fuse views may have been changed.
        view: the view to predict with.
        weight: in the mean.
    """

    checkpoint: Checkpoint
    config: TrainConfig
    view: str
    weight: float


def is_as_trained(members: Sequence[Member]) -> bool:
    """Return whether this is one model whose views have the weights of its training."""
    first, *others = members
    own, weights = first.checkpoint.config.joint_variant, [first.config.joint_variant.fuse_weights]
    if first.checkpoint.is_onnx:
        entries = first.checkpoint.meta["export"]["members"]
        weights = [tuple(entry["tri_fuse"] or own.fuse_weights) for entry in entries]
    return not others and weights == [own.fuse_weights]


def open_predictor(config: StoredModel) -> Predictor:
    """Open and load the models of a configuration.

    Raises:
        CheckpointError: a checkpoint is damaged, or two do not belong together.
        ConfigError: the device is not available, or a key does not apply to these models.
    """
    return load_predictor(config, open_members(config))


def open_members(config: StoredModel) -> list[Member]:
    """Open the models of a configuration, without their weights.

    Raises:
        CheckpointError: a checkpoint is damaged, or two do not belong together.
        ConfigError: a key does not apply to these models.
    """
    checkpoints = [open_checkpoint(local_folder(place), or_exported=True) for place in config.checkpoint]
    _require_a_view(checkpoints, config.joint_eval_view)
    _require_alike(checkpoints, config.threshold)
    weights = _weights(checkpoints, config.ensemble_weight)
    return [
        Member(
            checkpoint,
            with_fuse_weights(checkpoint.config, _given_fuse_weights(config, checkpoint)),
            _view(config, checkpoint),
            weight,
        )
        for checkpoint, weight in zip(checkpoints, weights, strict=True)
    ]


def load_predictor(config: StoredModel, members: Sequence[Member]) -> Predictor:
    """Load the models that `open_members` opened.

    Raises:
        CheckpointError: weights are damaged.
        ConfigError: the backend does not run a model, or the device is not available.
    """
    return Predictor(
        members,
        [_backend(config, member) for member in members],
        _threshold(members[0].checkpoint) if config.threshold is None else config.threshold,
    )


def _backend(config: StoredModel, member: Member) -> Backend:
    """Return a model, loaded.

    Raises:
        CheckpointError: its weights are damaged.
        ConfigError: the backend does not run it, or the device is not available.
    """
    checkpoint = member.checkpoint
    given = "onnx" if checkpoint.is_onnx else "torch"
    if config.backend not in ("auto", given):
        way_out = (
            "leave backend= out"
            if checkpoint.is_onnx
            else f"export it: python -m hblm.export to=onnx checkpoint={checkpoint.folder}"
        )
        kind = "an exported folder" if checkpoint.is_onnx else "a checkpoint"
        raise ConfigError(f"backend={config.backend}: {checkpoint.folder} is {kind}; {way_out}")
    # imported here, because torch takes seconds to load: errors in the checkpoints are reported first
    if checkpoint.is_onnx:
        if importlib.util.find_spec("onnxruntime") is None:
            raise ConfigError(f"{checkpoint.folder} needs onnxruntime: pip install onnxruntime")
        from hblm.inference.onnx_backend import OnnxBackend

        if config.precision not in ("auto", "fp32"):
            raise ConfigError(
                f"precision={config.precision} acts with backend=torch; {checkpoint.folder} is exported"
            )
        return OnnxBackend(checkpoint, device_name=config.device)
    from hblm.inference.torch_backend import TorchBackend

    return TorchBackend(
        checkpoint,
        member.config,
        view=member.view,
        device_name=config.device,
        precision=config.precision,
    )


def _require_alike(checkpoints: Sequence[Checkpoint], threshold: float | None) -> None:
    """Refuse models whose logits cannot be averaged.

    Raises:
        CheckpointError: with all reasons.
    """
    first = checkpoints[0]
    faults = []
    inside = [each for each in checkpoints if each.is_onnx and each.config.loss.is_conditional]
    if inside and len(checkpoints) > 1:
        faults.append(
            f"{inside[0].folder} gives log-odds of products along paths (loss={inside[0].config.loss.loss}), "
            "whose mean is not that of the models; export the checkpoints as one: checkpoint=[A,B] to=onnx"
        )
    for other in checkpoints[1:]:
        pair = f"checkpoint=[{first.folder},{other.folder}]"
        if other.taxonomy != first.taxonomy:
            sizes = f"{len(first.taxonomy)} and {len(other.taxonomy)} nodes"
            faults.append(f"{pair}: their taxonomies differ ({sizes})")
        kinds = [each.config.loss.loss if each.config.loss.is_conditional else "" for each in (first, other)]
        if kinds[0] != kinds[1]:
            losses = f"loss={first.config.loss.loss} and loss={other.config.loss.loss}"
            faults.append(f"{pair}: they were trained with {losses}, whose logits mean different things")
        elif kinds[0] and first.meta["dataset"]["fingerprint"] != other.meta["dataset"]["fingerprint"]:
            faults.append(
                f"{pair}: they were trained on different documents, which their loss={kinds[0]} depends on"
            )
        if threshold is None and _threshold(first) != _threshold(other):
            values = f"threshold={_threshold(first)}, the other threshold={_threshold(other)}"
            faults.append(f"{pair}: one has {values}; give threshold=")
    if faults:
        raise CheckpointError("\n".join(faults))


def _require_a_view(checkpoints: Sequence[Checkpoint], wanted: str | None) -> None:
    """Refuse a view to choose where no model has several.

    Raises:
        ConfigError: with the models.
    """
    if wanted is not None and not any(each.config.joint_variant.is_joint for each in checkpoints):
        folders, has = (
            " and ".join(str(each.folder) for each in checkpoints),
            "has" if len(checkpoints) == 1 else "have",
        )
        raise ConfigError(f"joint_eval_view={wanted}: {folders} {has} one view, {SINGLE_VIEW}; leave it out")


def _weights(checkpoints: Sequence[Checkpoint], weight: float | None) -> list[float]:
    """Return each model's weight in the mean.

    Raises:
        ConfigError: a weight is given, and the models are not a top-down and a bottom-up one.
    """
    if weight is None:
        return [1.0] * len(checkpoints)
    of_direction = {"top_down": weight, "bottom_up": 1 - weight}
    directions = [_direction(each) for each in checkpoints]
    if sorted(map(str, directions)) != sorted(of_direction):
        have = " and ".join(str(direction or "no direction") for direction in directions)
        raise ConfigError(
            f"ensemble_weight={weight} acts between a top_down and a bottom_up model; these have {have}"
        )
    return [of_direction[str(direction)] for direction in directions]


def _direction(checkpoint: Checkpoint) -> str | None:
    """Return top_down or bottom_up; None for a model without one, and for several exported as one."""
    config = checkpoint.config
    several = checkpoint.is_onnx and len(checkpoint.meta["export"]["members"]) > 1
    if several or config.joint_variant.is_joint or config.film.propagation_method == "none":
        return None
    return config.direction.cascade_direction


def _given_fuse_weights(config: StoredModel, checkpoint: Checkpoint) -> Mapping[str, float]:
    """Return the weights to fuse views by that the configuration gives.

    Raises:
        ConfigError: the model has no mix head.
    """
    given = config.given_fuse_weights
    if given and checkpoint.is_onnx:
        raise ConfigError(_is_inside(checkpoint, *given))
    variant = checkpoint.config.joint_variant.joint_variant
    if given and variant != "tri_head_diffcat":
        keys = " and ".join(f"{key}={value}" for key, value in given.items())
        raise ConfigError(f"{keys} acts on tri_head_diffcat; {checkpoint.folder} has joint_variant={variant}")
    return given


def _view(config: StoredModel, checkpoint: Checkpoint) -> str:
    """Return the view to predict with.

    Raises:
        ConfigError: the model does not have the view of the configuration.
    """
    joint = checkpoint.config.joint_variant
    wanted = config.joint_eval_view
    if checkpoint.is_onnx:
        view = str(checkpoint.meta["export"]["view"])
        if wanted not in (None, view):
            raise ConfigError(_is_inside(checkpoint, "joint_eval_view"))
        return view
    if not joint.is_joint:
        return SINGLE_VIEW  # an ensemble may have members of both kinds; each joint one has a view to choose
    if wanted is None:
        return joint.monitored
    if wanted not in joint.views:
        raise ConfigError(
            f"joint_eval_view={wanted}: {checkpoint.folder} has the views {', '.join(joint.views)}"
        )
    return wanted


def _threshold(checkpoint: Checkpoint) -> float:
    """Return the threshold of a model's training, or the one that it was exported with."""
    if checkpoint.is_onnx:
        return float(checkpoint.meta["export"]["threshold"])
    return checkpoint.config.threshold


def _is_inside(checkpoint: Checkpoint, *keys: str) -> str:
    """Return the message that an exported folder's graph has these settings inside."""
    named = ", ".join(f"{key}=" for key in keys)
    return (
        f"{named} was decided when {checkpoint.folder} was exported; leave it out, or export it again with it"
    )
