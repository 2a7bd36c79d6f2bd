"""Conditional losses: which children of a node a document has, given that it has the node.

The loss of a document is -log P of its labels, divided by the levels of the taxonomy: for a document with one
path the mean over levels. P is a product over groups of siblings: the roots, and the children of each label.
P(node) is the product of P(v | parent of v) along its path (see `hblm.nn.link`). `stops` are for each node
the training documents with it and none of its children. If there are any, stopping has a probability.
Otherwise it is impossible, and a document that stops there, or has no label at all, adds 0 to the loss.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from hblm.nn.link import PathLink, SiblingLink, SiblingSoftmax, TruncatedSigmoid
from hblm.taxonomy import Taxonomy

_LEAST_ANY = 0.01  # least P(any child) of the truncated prior: 0 would give logits of minus infinity


class ConditionalSoftmaxLoss(nn.Module):
    """A softmax over the children of each node, and over the roots; for documents with one path.

    Plaud et al. 2024, "Revisiting Hierarchical Text Classification: Inference and Metrics": logit adjustment
    (Menon et al. 2021) adds tau log π_j to the logits in the loss and not in the scores, π_j being the node's
    share of its siblings' training documents, half a document added to each. So the scores have a flat prior
    among siblings, which favours rare nodes.

    If training documents stop at a node, its children have a stop beside them, of logit 0. Going on is not
    adjusted, so that P(go) = Σ exp(z_j) / (1 + Σ exp(z_j)) remains a frequency: the loss of child j is
    -log P(go) - log softmax(z + tau log π)_j, that of a stop -log(1 - P(go)). The stop is ours.

    On 531 nodes and 1,442 documents, of which 9 % stop, test micro / macro-F1 is 68.9 / 21.5 with stops and
    69.1 / 21.5 without: no gain, but without stops every document of a node with children gets a child.
    """

    adjustment: Tensor
    prior: Tensor

    def __init__(
        self,
        taxonomy: Taxonomy,
        positives: Int[Tensor, " nodes"],
        n_documents: int,
        stops: Int[Tensor, " nodes"],
        tau: float,
    ) -> None:
        """Build link and prior; `positives` and `stops` are training documents at each node."""
        super().__init__()
        self.n_levels, self.tau = len(taxonomy.levels), tau
        self.link = PathLink(taxonomy, SiblingSoftmax, stops)
        siblings, smoothed = self.link.siblings, positives + 0.5
        among = torch.zeros(len(siblings.heads)).index_add(0, siblings.group, smoothed)
        adjustment = torch.log(smoothed / among[siblings.group])
        self.register_buffer("adjustment", adjustment, persistent=False)
        odds = torch.log(among / (stops[siblings.heads] + 0.5))
        raise_to = odds - siblings.log_total(((1 - tau) * adjustment)[None])[0]
        prior = (1 - tau) * adjustment + raise_to.masked_fill(~siblings.stopping, 0)[siblings.group]
        self.register_buffer("prior", prior, persistent=False)

    def forward(
        self, logits: Float[Tensor, "batch nodes"], targets: Shaped[Tensor, "batch nodes"]
    ) -> Float[Tensor, ""]:
        """Return the loss; targets are 0/1 of any dtype, closed, at most one node a level."""
        siblings, logits, targets = self.link.siblings, logits.float(), targets.float()
        nodes = siblings.log_among(logits + self.tau * self.adjustment)
        chosen = siblings.total(targets)
        # log P(go) where a child is chosen, log P(stop) where the parent is and no child
        total = siblings.log_total(logits)
        stopped = borne(siblings, targets) & (chosen == 0)
        decided = chosen * F.logsigmoid(total) + stopped * F.logsigmoid(-total)
        return -((nodes * targets).sum() + (decided * siblings.stopping).sum()) / self.n_levels

    def to_scores(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        """Return P(node), without adjustment; it is at most P(parent)."""
        scores: Tensor = self.link(logits.float())
        return scores

    def prior_logits(self) -> Float[Tensor, " nodes"]:
        """Return (1 - tau) log π, which the adjustment makes log π; with a stop, shifted to P(go)."""
        return self.prior


class ConditionalLoss(nn.Module):
    """Sigmoids over the children of each node; for documents with several paths.

    They are independent; if no training document stops, given that there is at least one child:
    log P(y | parent) = Σ_j [y_j log s_j + (1 - y_j) log(1 - s_j)] - log(1 - Π_j (1 - s_j)), s = sigmoid(z).
    The gradient of -log P by z_j is P(j | parent) - y_j. The formula is ours.

    On frozen MiniLM embeddings, two seeds, test micro / macro-F1 against plain sigmoids given the parent and
    a softmax with a mean count: AAPD (800 documents) 73.5 / 40.3 against 73.6 / 39.7 and 68.5 / 29.2;
    Amazon-531 75.3 / 23.8 against 75.4 / 23.2 and 75.4 / 25.0.
    """

    prior: Tensor

    def __init__(
        self,
        taxonomy: Taxonomy,
        positives: Int[Tensor, " nodes"],
        n_documents: int,
        stops: Int[Tensor, " nodes"],
    ) -> None:
        """Build link and prior; `positives` and `stops` are training documents at each node."""
        super().__init__()
        self.n_levels = len(taxonomy.levels)
        self.link = PathLink(taxonomy, TruncatedSigmoid, stops)
        prior = truncated_prior(self.link.siblings, positives, n_documents)
        self.register_buffer("prior", prior, persistent=False)

    def forward(
        self, logits: Float[Tensor, "batch nodes"], targets: Shaped[Tensor, "batch nodes"]
    ) -> Float[Tensor, ""]:
        """Return the loss; targets are 0/1 of any dtype, with all their ancestors."""
        siblings, logits, targets = self.link.siblings, logits.float(), targets.float()
        counts = borne(siblings, targets) & (siblings.stopping | (siblings.total(targets) > 0))
        entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        cost = (entropy * siblings.spread(counts)).sum() + (siblings.log_any(logits) * counts).sum()
        return cost / self.n_levels

    def to_scores(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        """Return P(node); it is at most P(parent)."""
        scores: Tensor = self.link(logits.float())
        return scores

    def prior_logits(self) -> Float[Tensor, " nodes"]:
        """Return `truncated_prior`."""
        return self.prior


def borne(siblings: SiblingLink, targets: Float[Tensor, "batch nodes"]) -> Bool[Tensor, "batch groups"]:
    """Return whether each group's parent is a label; True for the group of roots."""
    return F.pad(targets, (1, 0), value=1).index_select(1, siblings.heads + 1) > 0


def truncated_prior(
    siblings: TruncatedSigmoid, positives: Int[Tensor, " nodes"], n_documents: int
) -> Float[Tensor, " nodes"]:
    """Return the logits of s = d f, at which P(node | parent) is the frequency f.

    f is (n + 1/2) / (m + 1), where n of the m documents at the parent have the node. d = P(any child) is 1 if
    documents stop. Otherwise it solves d = 1 - Π (1 - d f), by bisection in float64. If each document has one
    child, only 0 solves it; d is then its least value, and P(node | parent) differs from f by at most 1 %.
    """
    above = F.pad(positives, (1, 0), value=n_documents)[siblings.heads[siblings.group] + 1]
    frequencies = (positives.double() + 0.5) / (above + 1)
    low = torch.full((1, len(siblings.heads)), _LEAST_ANY, dtype=torch.float64)
    high = torch.ones_like(low)
    for _ in range(50):
        middle = (low + high) / 2
        higher = -siblings.total(torch.log1p(-siblings.spread(middle) * frequencies)).expm1() > middle
        low, high = torch.where(higher, middle, low), torch.where(higher, high, middle)
    d = low.masked_fill(siblings.stopping, 1)
    return (siblings.spread(d)[0] * frequencies).logit().float()
