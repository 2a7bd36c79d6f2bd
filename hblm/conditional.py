"""Losses that decide among siblings: which children of a node a document has, given that it has the node.

The loss of a document is -log P of its labels, divided by the levels of the taxonomy: of a document with one
path the mean over levels. P is a product over groups of siblings: the roots, and the children of each label.
P(node) is the product of P(v | parent of v) along its path (see `hblm.nn.link`). `stops` are, of each node,
the training documents that bear it and none of its children. Where there are any, to stop is an answer that
can be right. Elsewhere it is impossible, and a document that stops there, or has no label at all, adds 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from hblm.nn.link import (
    Link,
    PathLink,
    SiblingDraws,
    SiblingLink,
    SiblingSigmoid,
    SiblingSoftmax,
    TruncatedSigmoid,
)
from hblm.taxonomy import Taxonomy

_LEAST_ANY = 0.01  # the truncated prior's least P(any child): 0 would be logits of minus infinity


class ConditionalSoftmaxLoss(nn.Module):
    """A softmax over the children of each node, and over the roots; for documents with one path.

    Where training documents stop at a node, its children have one more sibling, the stop. Plaud et al. 2024,
    "Revisiting Hierarchical Text Classification: Inference and Metrics": logit adjustment (Menon et al. 2021)
    adds tau log π(node | parent) to the logits in the loss and not in the scores, π being the node's share of
    its siblings' training documents, half a document added to each. What is scored has thus a flat prior
    among siblings, which serves the rare.
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
        can_stop: bool = True,
    ) -> None:
        """Take the training split's documents at each node, all of them, and those that stop at each node.

        Args:
            can_stop: False: no group has a stop; what a path does not reach adds 0, and the children of its
                last node share all of that node's probability.
        """
        super().__init__()
        self.n_levels, self.tau = len(taxonomy.levels), tau
        stops = stops if can_stop else torch.zeros_like(stops)
        self.link = PathLink(taxonomy, functools.partial(SiblingSoftmax, taxonomy, stops=stops))
        adjustment, stop_adjustment = log_shares(self.link.siblings, positives, stops)
        self.register_buffer("adjustment", adjustment, persistent=False)
        self.register_buffer("stop_adjustment", stop_adjustment, persistent=False)

    def forward(
        self, logits: Float[Tensor, "batch nodes"], targets: Shaped[Tensor, "batch nodes"]
    ) -> Float[Tensor, ""]:
        """Return the loss; targets are 0/1 of any dtype, closed, at most one node a level."""
        siblings, targets = self.link.siblings, targets.float()
        adjusted = logits.float() + self.tau * self.adjustment
        stop = siblings.stop_logits() + self.tau * self.stop_adjustment
        return -log_chosen(siblings, adjusted, stop, targets) / self.n_levels

    def to_scores(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        """Return P(node), without adjustment: a child's is at most its parent's."""
        scores: Tensor = self.link(logits.float())
        return scores

    def prior_logits(self) -> Float[Tensor, " nodes"]:
        """Return (1 - tau) log π(node | parent), which the adjustment makes log π(node | parent).

        Beside a stop, whose logit is 0, it is (1 - tau) log(π(node | parent) / π(stop | parent)).
        """
        odds = log_odds(self.link.siblings, self.adjustment, self.stop_adjustment)
        return (1 - self.tau) * odds


class ConditionalLoss(nn.Module):
    """Which children of a node a document has, any number of them; for documents with several paths.

    The form says what P(children | parent) is:

        truncated  independent sigmoids, given that one child is there at least, unless documents stop there
        sigmoid    independent sigmoids: binary cross-entropy of the nodes whose parent is a label
        counts     each of the |y| children a draw from a softmax, the cost being the mean over the draws;
                   P(node | parent) = 1 - (1 - q)^m, m the mean |y| of training documents that have a child
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        positives: Int[Tensor, " nodes"],
        n_documents: int,
        stops: Int[Tensor, " nodes"],
        form: str = "truncated",
    ) -> None:
        """Take the training split's documents at each node, all of them, and those that stop at each node."""
        super().__init__()
        self.n_levels = len(taxonomy.levels)
        self.form = FORMS[form](taxonomy, positives, n_documents, stops)

    @property
    def link(self) -> Link:
        """The form's: products along the path."""
        return self.form.link

    def forward(
        self, logits: Float[Tensor, "batch nodes"], targets: Shaped[Tensor, "batch nodes"]
    ) -> Float[Tensor, ""]:
        """Return the loss; targets are 0/1 of any dtype, with all their ancestors."""
        cost: Tensor = self.form(logits.float(), targets.float())
        return cost / self.n_levels

    def to_scores(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        """Return P(node): a child's is at most its parent's."""
        scores: Tensor = self.link(logits.float())
        return scores

    def prior_logits(self) -> Float[Tensor, " nodes"]:
        """Return the logits that say of every document what the training split says on average."""
        return self.form.prior_logits()


class Form(nn.Module):
    """One meaning of P(children | parent), with its link."""

    def __init__(
        self,
        taxonomy: Taxonomy,
        positives: Int[Tensor, " nodes"],
        n_documents: int,
        stops: Int[Tensor, " nodes"],
    ) -> None:
        super().__init__()
        self.parents = torch.tensor(taxonomy.parents)
        self.positives, self.n_documents, self.stops = positives, n_documents, stops

    def frequencies(self) -> Float[Tensor, " nodes"]:
        """Return (n + 1/2) / (m + 1), n of the m documents at the parent bearing the node, in float64."""
        above = F.pad(self.positives, (1, 0), value=self.n_documents)[self.parents + 1]
        return (self.positives.double() + 0.5) / (above + 1)


class SigmoidForm(Form):
    """Independent sigmoids."""

    def __init__(
        self,
        taxonomy: Taxonomy,
        positives: Int[Tensor, " nodes"],
        n_documents: int,
        stops: Int[Tensor, " nodes"],
    ) -> None:
        super().__init__(taxonomy, positives, n_documents, stops)
        self.link = PathLink(taxonomy, functools.partial(SiblingSigmoid, taxonomy))

    def forward(
        self, logits: Float[Tensor, "batch nodes"], targets: Float[Tensor, "batch nodes"]
    ) -> Float[Tensor, ""]:
        """Return -log P(children | parent), summed over the groups that count and over documents."""
        siblings = self.link.siblings
        entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (entropy * siblings.spread(borne(siblings, targets))).sum()

    def prior_logits(self) -> Float[Tensor, " nodes"]:
        """Return the logits of the frequencies."""
        return self.frequencies().logit().float()


class TruncatedForm(Form):
    """Independent sigmoids; where no training document stops, given that one child is there at least.

    log P(y | parent) = Σ_j [y_j log s_j + (1 - y_j) log(1 - s_j)] - log(1 - Π_j (1 - s_j)), s = sigmoid(z).
    Its gradient by z_j is y_j - P(j | parent).
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        positives: Int[Tensor, " nodes"],
        n_documents: int,
        stops: Int[Tensor, " nodes"],
    ) -> None:
        super().__init__(taxonomy, positives, n_documents, stops)
        self.link = PathLink(taxonomy, functools.partial(TruncatedSigmoid, taxonomy, stops=stops))

    def forward(
        self, logits: Float[Tensor, "batch nodes"], targets: Float[Tensor, "batch nodes"]
    ) -> Float[Tensor, ""]:
        """Return -log P(children | parent), summed over the groups that count and over documents."""
        siblings = self.link.siblings
        counts = borne(siblings, targets) & (siblings.stopping | (siblings.total(targets) > 0))
        entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (entropy * siblings.spread(counts)).sum() + (siblings.log_any(logits) * counts).sum()

    def prior_logits(self) -> Float[Tensor, " nodes"]:
        """Return the logits of s = d f, at which P(node | parent) is the frequency f.

        d = P(any child) solves d = 1 - Π (1 - d f) by bisection. Where each document has one child, 0 alone
        does; d stays at its least, and P(node | parent) is f within a hundredth.
        """
        siblings, frequencies = self.link.siblings, self.frequencies()
        low = torch.full((1, len(siblings.heads)), _LEAST_ANY, dtype=torch.float64)
        high = torch.ones_like(low)
        for _ in range(50):
            middle = (low + high) / 2
            higher = -siblings.total(torch.log1p(-siblings.spread(middle) * frequencies)).expm1() > middle
            low, high = torch.where(higher, middle, low), torch.where(higher, high, middle)
        d = low.masked_fill(siblings.stopping, 1)
        return (siblings.spread(d)[0] * frequencies).logit().float()


class CountsForm(Form):
    """Draws from a softmax, as many as a document has children; a stop is one draw."""

    def __init__(
        self,
        taxonomy: Taxonomy,
        positives: Int[Tensor, " nodes"],
        n_documents: int,
        stops: Int[Tensor, " nodes"],
    ) -> None:
        super().__init__(taxonomy, positives, n_documents, stops)
        make = functools.partial(SiblingDraws, taxonomy, stops=stops, mean_children=self.mean_children())
        self.link = PathLink(taxonomy, make)

    def mean_children(self) -> Float[Tensor, " heads"]:
        """Return the mean number of children, at least 1, in the training documents that have any.

        By the parent's position + 1, the roots' number in front.
        """
        below = torch.zeros(len(self.parents) + 1).index_add(0, self.parents + 1, self.positives.float())
        bearing = F.pad(self.positives - self.stops, (1, 0), value=self.n_documents)
        return (below / bearing.clamp(min=1)).clamp(min=1)

    def forward(
        self, logits: Float[Tensor, "batch nodes"], targets: Float[Tensor, "batch nodes"]
    ) -> Float[Tensor, ""]:
        """Return -log q, the mean over a group's children, summed over groups that count and documents."""
        siblings = self.link.siblings
        shares = targets / siblings.spread(siblings.total(targets)).clamp(min=1)
        return -log_chosen(siblings, logits, siblings.stop_logits(), shares)

    def prior_logits(self) -> Float[Tensor, " nodes"]:
        """Return log π(node | parent), beside a stop log(π(node | parent) / π(stop | parent))."""
        return log_odds(self.link.siblings, *log_shares(self.link.siblings, self.positives, self.stops))


FORMS: dict[str, Callable[..., SigmoidForm | TruncatedForm | CountsForm]] = {
    "truncated": TruncatedForm,
    "sigmoid": SigmoidForm,
    "counts": CountsForm,
}


def borne(siblings: SiblingLink, targets: Float[Tensor, "batch nodes"]) -> Bool[Tensor, "batch groups"]:
    """Return whether each group's parent is a label; the roots' counts as one."""
    return F.pad(targets, (1, 0), value=1).index_select(1, siblings.heads + 1) > 0


def log_chosen(
    siblings: SiblingSoftmax,
    logits: Float[Tensor, "batch nodes"],
    stop_logits: Float[Tensor, " groups"],
    targets: Float[Tensor, "batch nodes"],
) -> Float[Tensor, ""]:
    """Return log P(node | parent) of the targets, and log P(stop | parent) where a document can and does.

    It is summed over nodes, times their targets, over groups and documents.
    """
    nodes, stop = siblings.log_softmax(logits, stop_logits)
    stopped = siblings.stopping & borne(siblings, targets) & (siblings.total(targets) == 0)
    return (nodes * targets).sum() + stop.masked_fill(~stopped, 0).sum()


def log_odds(
    siblings: SiblingSoftmax, nodes: Float[Tensor, " nodes"], stop: Float[Tensor, " groups"]
) -> Float[Tensor, " nodes"]:
    """Return the logits of log shares: less the stop's where there is one, whose logit is 0."""
    return nodes - stop.masked_fill(~siblings.stopping, 0)[siblings.group]


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
