"""Losses: from logits and targets to a scalar; and by the loss's link, from logits to scores.

A loss is a SUM over documents. The training loop divides by the documents of the optimizer step, so that
numbers do not depend on how a step is split into micro-batches and ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from hblm.nn.conditional import ConditionalLoss, ConditionalSoftmaxLoss
from hblm.nn.link import Link, SigmoidLink
from hblm.taxonomy import Taxonomy

LEVEL_REDUCTIONS = ("levels", "nodes")


@runtime_checkable
class Loss(Protocol):
    """Interface of a loss."""

    @property
    def link(self) -> Link:
        """How logits become probabilities, for scores and for FiLM."""

    def __call__(
        self, logits: Float[Tensor, "batch nodes"], targets: Shaped[Tensor, "batch nodes"]
    ) -> Float[Tensor, ""]:
        """Return the loss, summed over documents, in float32; targets are 0/1 of any dtype."""

    def to_scores(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        """Return the probability of each node."""

    def prior_logits(self) -> Float[Tensor, " nodes"]:
        """Return the logits of the training split's frequencies, the same for every document."""


def node_weights(taxonomy: Taxonomy, level_reduction: str) -> Float[Tensor, " nodes"]:
    """Return the weight of each node; the weights sum to 1.

    `levels`: a mean over the nodes of a level, then over levels, so 1/(L n_l). `nodes`: one mean, so 1/N.

    Raises:
        ValueError: another `level_reduction`.
    """
    if level_reduction == "levels":
        sizes = [len(level) for level in taxonomy.levels]
        return torch.tensor([1 / (len(sizes) * size) for size in sizes for _ in range(size)])
    if level_reduction == "nodes":
        return torch.full((len(taxonomy),), 1 / len(taxonomy))
    raise ValueError(f"level_reduction={level_reduction!r} is not one of {', '.join(LEVEL_REDUCTIONS)}")


def node_priors(positives: Int[Tensor, " nodes"], n_documents: int) -> Float[Tensor, " nodes"]:
    """Return log((n+ + 1/2) / (n- + 1/2)) of each node.

    Its sigmoid is the smoothed frequency (n+ + 1/2) / (n + 1). It is finite for a node of no document or all.
    """
    return torch.log((positives + 0.5) / (n_documents - positives + 0.5))


class BceLoss(nn.Module):
    """Binary cross-entropy with logits, weighted by node, summed over documents, computed in float32."""

    weights: Tensor

    def __init__(
        self, taxonomy: Taxonomy, level_reduction: str, positives: Int[Tensor, " nodes"], n_documents: int
    ) -> None:
        """Build the weights; for the prior, `positives` are the training documents with each node."""
        super().__init__()
        self.register_buffer("weights", node_weights(taxonomy, level_reduction), persistent=False)
        self.positives, self.n_documents = positives, n_documents
        self.link = SigmoidLink()

    def forward(
        self, logits: Float[Tensor, "batch nodes"], targets: Shaped[Tensor, "batch nodes"]
    ) -> Float[Tensor, ""]:
        """Return the loss; targets are 0/1 of any dtype."""
        return F.binary_cross_entropy_with_logits(
            logits.float(), targets.float(), weight=self.weights, reduction="sum"
        )

    def to_scores(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        """Return the probability of each node."""
        scores: Tensor = self.link(logits.float())
        return scores

    def prior_logits(self) -> Float[Tensor, " nodes"]:
        """Return `node_priors`."""
        return node_priors(self.positives, self.n_documents)


class FocalLoss(BceLoss):
    """Binary cross-entropy times (1 - p)^gamma, where p is the probability of the target.

    Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 4 (without the α of equation 5). With
    gamma 0 it is `BceLoss`.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        level_reduction: str,
        positives: Int[Tensor, " nodes"],
        n_documents: int,
        gamma: float,
    ) -> None:
        super().__init__(taxonomy, level_reduction, positives, n_documents)
        self.gamma = gamma

    def forward(
        self, logits: Float[Tensor, "batch nodes"], targets: Shaped[Tensor, "batch nodes"]
    ) -> Float[Tensor, ""]:
        """Return the loss; targets are 0/1 of any dtype."""
        logits, targets = logits.float(), targets.float()
        entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        # log(1 - p) is the log-sigmoid of the logit with its sign turned for targets of 1. In logarithms,
        # because a power below 1 has an infinite gradient at 0.
        wrong = F.logsigmoid(torch.where(targets > 0, -logits, logits))
        return ((self.gamma * wrong).exp() * entropy * self.weights).sum()


class Objective(nn.Module):
    """The objective of training: the sum of each view's loss times its weight."""

    def __init__(self, loss: Loss, weights: Mapping[str, float]) -> None:
        """Set the weights; views with weight 0 or without a weight are not trained."""
        super().__init__()
        self.loss = loss
        self.weights = {view: weight for view, weight in weights.items() if weight}

    def forward(
        self, views: Mapping[str, Float[Tensor, "batch nodes"]], targets: Shaped[Tensor, "batch nodes"]
    ) -> Float[Tensor, ""]:
        """Return the objective, a sum over documents."""
        parts = [weight * self.loss(views[view], targets) for view, weight in self.weights.items()]
        return torch.stack(parts).sum()


LOSSES: dict[str, Callable[..., Loss]] = {
    "bce": BceLoss,
    "focal": FocalLoss,
    "conditional_softmax": ConditionalSoftmaxLoss,
    "conditional": ConditionalLoss,
}
