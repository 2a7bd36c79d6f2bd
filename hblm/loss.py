"""Losses: from logits and targets to a scalar, and from logits to scores (a loss owns how).

A loss is a SUM over documents. The trainer divides by the documents of the optimizer step, so that numbers do
not depend on how a step is split into micro-batches and processes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from hblm.taxonomy import Taxonomy

LEVEL_REDUCTIONS = ("levels", "nodes")


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


class BceLoss(nn.Module):
    """Binary cross-entropy with logits, weighted by node, summed over documents, computed in float32."""

    weights: Tensor

    def __init__(self, taxonomy: Taxonomy, level_reduction: str) -> None:
        super().__init__()
        self.register_buffer("weights", node_weights(taxonomy, level_reduction), persistent=False)

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


LOSSES: dict[str, type[BceLoss]] = {"bce": BceLoss}
