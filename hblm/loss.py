"""Losses: from logits and targets to a scalar, and from logits to scores (a loss owns how).

A loss is a SUM over documents. The trainer divides by the documents of the optimizer step, so that numbers do
not depend on how a step is split into micro-batches and processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from hblm.taxonomy import Taxonomy

LEVEL_REDUCTIONS = ("levels", "nodes")


@runtime_checkable
class Loss(Protocol):
    """What the trainer asks of a loss."""

    def __call__(
        self, logits: Float[Tensor, "batch nodes"], targets: Shaped[Tensor, "batch nodes"]
    ) -> Float[Tensor, ""]:
        """Return the loss, summed over documents, in float32; targets are 0/1 of any dtype."""

    def to_scores(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        """Return the probability of each node."""

    def prior_logits(self) -> Float[Tensor, " nodes"]:
        """Return the logits that say of every document what the training split says on average."""


def node_weights(taxonomy: Taxonomy, level_reduction: str) -> Float[Tensor, " nodes"]:
    """Return what each node counts; the weights sum to 1.

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

    Its sigmoid is the smoothed frequency (n+ + 1/2) / (n + 1): finite for a node in no document, and in all.
    """
    return torch.log((positives + 0.5) / (n_documents - positives + 0.5))


class BceLoss(nn.Module):
    """Binary cross-entropy with logits, weighted by node, summed over documents, computed in float32."""

    weights: Tensor

    def __init__(
        self, taxonomy: Taxonomy, level_reduction: str, positives: Int[Tensor, " nodes"], n_documents: int
    ) -> None:
        """Take the training split's documents at each node, and all of them, for the prior."""
        super().__init__()
        self.register_buffer("weights", node_weights(taxonomy, level_reduction), persistent=False)
        self.positives, self.n_documents = positives, n_documents

    def forward(
        self, logits: Float[Tensor, "batch nodes"], targets: Shaped[Tensor, "batch nodes"]
    ) -> Float[Tensor, ""]:
        """Return the loss; targets are 0/1 of any dtype."""
        return F.binary_cross_entropy_with_logits(
            logits.float(), targets.float(), weight=self.weights, reduction="sum"
        )

    def to_scores(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        """Return the probability of each node."""
        return logits.float().sigmoid()

    def prior_logits(self) -> Float[Tensor, " nodes"]:
        """Return `node_priors`."""
        return node_priors(self.positives, self.n_documents)


class FocalLoss(BceLoss):
    """Binary cross-entropy times (1 - p)^gamma, p the probability given to what is right.

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
        # log(1 - p) is the log-sigmoid of the logit turned away from what is right. In logarithms, because a
        # power below 1 has an infinite gradient at 0.
        wrong = F.logsigmoid(torch.where(targets > 0, -logits, logits))
        return ((self.gamma * wrong).exp() * entropy * self.weights).sum()


class ConditionalSoftmaxLoss(nn.Module):
    """A softmax over the children of each node, and over the roots; for documents with one path.

    P(node) is the product of P(node | parent) along its path. The loss is -log P(node | parent), averaged
    over the levels: a level that a path does not reach adds 0. Plaud et al. 2024, "Revisiting Hierarchical
    Text Classification: Inference and Metrics": logit adjustment (Menon et al. 2021) adds
    tau log π(node | parent) to the logits in the loss and not in the scores, π being the node's share of its
    siblings' training documents, half a document added to each. What is scored has thus a flat prior among
    siblings, which serves the rare.
    """

    siblings: Tensor
    adjustment: Tensor

    def __init__(
        self, taxonomy: Taxonomy, positives: Int[Tensor, " nodes"], n_documents: int, tau: float
    ) -> None:
        """Take the training split's documents at each node, and all of them."""
        super().__init__()
        self.n_levels, self.tau = len(taxonomy.levels), tau
        self.level_sizes = [len(level) for level in taxonomy.levels]
        parents = torch.tensor(taxonomy.parents)
        # A group of siblings is named by its parent's position + 1; the roots are group 0.
        self.register_buffer("siblings", parents + 1, persistent=False)
        for level in range(1, self.n_levels):  # a buffer for each level, so that they move to a device
            above = torch.tensor(taxonomy.level_parents(level))
            self.register_buffer(f"parents_{level}", above, persistent=False)
        smoothed = positives + 0.5
        among = torch.zeros(len(taxonomy) + 1).index_add(0, parents + 1, smoothed)
        self.register_buffer("adjustment", torch.log(smoothed / among[parents + 1]), persistent=False)

    def forward(
        self, logits: Float[Tensor, "batch nodes"], targets: Shaped[Tensor, "batch nodes"]
    ) -> Float[Tensor, ""]:
        """Return the loss; targets are 0/1 of any dtype, at most one node a level."""
        conditional = self._log_conditional(logits.float() + self.tau * self.adjustment)
        return -(conditional * targets.float()).sum() / self.n_levels

    def to_scores(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        """Return P(node), without adjustment: a child's is at most its parent's."""
        levels = [*torch.split(self._log_conditional(logits.float()), self.level_sizes, dim=1)]
        for level in range(1, self.n_levels):
            levels[level] = levels[level] + levels[level - 1][:, self.get_buffer(f"parents_{level}")]
        return torch.cat(levels, dim=1).exp()

    def prior_logits(self) -> Float[Tensor, " nodes"]:
        """Return (1 - tau) log π(node | parent), which the adjustment makes log π(node | parent)."""
        return (1 - self.tau) * self.adjustment

    def _log_conditional(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        """Return log P(node | parent): the logits less the log-sum-exp of their group."""
        index = self.siblings.expand_as(logits)
        groups = logits.shape[0], len(self.siblings) + 1
        highest = (
            logits.detach()
            .new_zeros(groups)
            .scatter_reduce(1, index, logits.detach(), "amax", include_self=False)
        )
        shifted = logits - highest.gather(1, index)
        total = torch.zeros_like(highest).scatter_add(1, index, shifted.exp())
        return shifted - total.gather(1, index).log()


class Objective(nn.Module):
    """What is minimised: each view's loss times its weight, summed."""

    def __init__(self, loss: Loss, weights: Mapping[str, float]) -> None:
        """Take a weight for each view that is trained; a view of weight 0 or of none is not looked at."""
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
}
