"""Losses that decide among siblings: which children of a node a document has, given that it has the node.

The loss of a document is -log P of its labels, divided by the levels of the taxonomy: of a document with one
path the mean over levels. P is a product over groups of siblings: the roots, and the children of each label.
P(node) is the product of P(v | parent of v) along its path (see `hblm.nn.link`). `stops` are, of each node,
the training documents that bear it and none of its children. Where there are any, to stop is an answer that
can be right. Elsewhere it is impossible, and a document that stops there, or has no label at all, adds 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from hblm.nn.link import PathLink, SiblingLink, SiblingSoftmax, TruncatedSigmoid
from hblm.taxonomy import Taxonomy

_LEAST_ANY = 0.01  # the truncated prior's least P(any child): 0 would be logits of minus infinity


class ConditionalSoftmaxLoss(nn.Module):
    """A softmax over the children of each node, and over the roots; for documents with one path.

    Where training documents stop at a node, its children have one more sibling, the stop. Plaud et al. 2024,
    "Revisiting Hierarchical Text Classification: Inference and Metrics": logit adjustment (Menon et al. 2021)
    adds tau log π(node | parent) to the logits in the loss and not in the scores, π being the node's share of
    its siblings' training documents, half a document added to each. What is scored has thus a flat prior
    among siblings, which serves the rare.

    On 531 nodes and 1,442 documents, test micro / macro-F1 is 69.3 / 21.9 with stops and 69.1 / 21.5 without.
    """

    adjustment: Tensor
    stop_adjustment: Tensor

    def __init__(
        self,
        taxonomy: Taxonomy,
        positives: Int[Tensor, " nodes"],
        n_documents: int,
        stops: Int[Tensor, " nodes"],
        tau: float,
    ) -> None:
        """Take the training split's documents at each node, all of them, and those that stop at each node."""
        super().__init__()
        self.n_levels, self.tau = len(taxonomy.levels), tau
        self.link = PathLink(taxonomy, SiblingSoftmax, stops)
        adjustment, stop_adjustment = log_shares(self.link.siblings, positives, stops)
        self.register_buffer("adjustment", adjustment, persistent=False)
        self.register_buffer("stop_adjustment", stop_adjustment, persistent=False)

    def forward(
        self, logits: Float[Tensor, "batch nodes"], targets: Shaped[Tensor, "batch nodes"]
    ) -> Float[Tensor, ""]:
        """Return the loss; targets are 0/1 of any dtype, closed, at most one node a level."""
        siblings, targets = self.link.siblings, targets.float()
        nodes, stop = siblings.log_softmax(
            logits.float() + self.tau * self.adjustment,
            siblings.stop_logits() + self.tau * self.stop_adjustment,
        )
        stopped = siblings.stopping & borne(siblings, targets) & (siblings.total(targets) == 0)
        return -((nodes * targets).sum() + stop.masked_fill(~stopped, 0).sum()) / self.n_levels

    def to_scores(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        """Return P(node), without adjustment: a child's is at most its parent's."""
        scores: Tensor = self.link(logits.float())
        return scores

    def prior_logits(self) -> Float[Tensor, " nodes"]:
        """Return (1 - tau) log π(node | parent), which the adjustment makes log π(node | parent).

        Beside a stop, whose logit is 0, it is (1 - tau) log(π(node | parent) / π(stop | parent)).
        """
        siblings = self.link.siblings
        stop = self.stop_adjustment.masked_fill(~siblings.stopping, 0)[siblings.group]
        return (1 - self.tau) * (self.adjustment - stop)


class ConditionalLoss(nn.Module):
    """Which children of a node a document has, any number of them; for documents with several paths.

    Independent sigmoids; where no training document stops, given that one child is there at least:
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
        """Take the training split's documents at each node, all of them, and those that stop at each node."""
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
        """Return P(node): a child's is at most its parent's."""
        scores: Tensor = self.link(logits.float())
        return scores

    def prior_logits(self) -> Float[Tensor, " nodes"]:
        """Return `truncated_prior`."""
        return self.prior


def borne(siblings: SiblingLink, targets: Float[Tensor, "batch nodes"]) -> Bool[Tensor, "batch groups"]:
    """Return whether each group's parent is a label; the roots' counts as one."""
    return F.pad(targets, (1, 0), value=1).index_select(1, siblings.heads + 1) > 0


def log_shares(
    siblings: SiblingSoftmax, positives: Int[Tensor, " nodes"], stops: Int[Tensor, " nodes"]
) -> tuple[Float[Tensor, " nodes"], Float[Tensor, " groups"]]:
    """Return log π of each node and of each group's stop, half a document added to each there is.

    A group without a stop has that of 0 documents, which is not in the sum and acts on nothing.
    """
    smoothed = positives + 0.5
    among = torch.zeros(len(siblings.heads)).index_add(0, siblings.group, smoothed)
    stopped = stops[siblings.heads] + 0.5
    among = torch.where(siblings.stopping, among + stopped, among)
    return torch.log(smoothed / among[siblings.group]), torch.log(stopped / among)


def truncated_prior(
    siblings: TruncatedSigmoid, positives: Int[Tensor, " nodes"], n_documents: int
) -> Float[Tensor, " nodes"]:
    """Return the logits of s = d f, at which P(node | parent) is the frequency f.

    f is (n + 1/2) / (m + 1), n of the m documents at the parent bearing the node. d = P(any child) is 1 where
    documents stop. Elsewhere it solves d = 1 - Π (1 - d f) by bisection, in float64. Where each document has
    one child, 0 alone does; d stays at its least, and P(node | parent) is f within a hundredth.
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
