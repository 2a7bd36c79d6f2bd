"""Links: from logits to probabilities of all nodes, and of one level's nodes given the level above.

    SigmoidLink   P(node) = sigmoid(z): each node by itself, whatever the level above
    PathLink      P(node) = Π P(v | parent of v) over the node's path, so a child's is at most its parent's

A SiblingLink is P(v | parent of v), from the logits of v and its siblings alone. Its kinds:

    SiblingSoftmax    exp(z_j) / Σ_k exp(z_k); one document, one child
    TruncatedSigmoid  s_j / (1 - Π_k (1 - s_k)), s = sigmoid(z): independent children, given that there is one

If documents stop at a parent, its children need not share all of its probability. The softmax then has one
more class, with logit 0 (a softmax does not change when all logits shift, so this loses no generality), and
the truncated sigmoids become plain ones. The state of each FiLM layer has which parents these are; the loss's
own link is built from the training split.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from hblm.taxonomy import Taxonomy

_LOWEST = -87.0  # near the logarithm of the smallest float32
_SMALL = -15.0  # below it exp(z) is so small that two terms of a series are exact in float32


@runtime_checkable
class Reading(Protocol):
    """How FiLM reads a level's logits."""

    def __call__(self, logits: Float[Tensor, "batch source"]) -> Float[Tensor, "batch source"]:
        """Return probabilities."""

    def evidence(self, logits: Float[Tensor, "batch source"]) -> Float[Tensor, "batch source"]:
        """Return the probabilities on an unbounded scale, such as logits."""


@runtime_checkable
class Link(Protocol):
    """How the logits of all nodes become probabilities."""

    def __call__(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        """Return the probability of each node."""

    def log_odds(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        """Return log P - log(1 - P) of each node: the logit whose sigmoid is the probability."""

    def level(self, level: int) -> Reading:
        """Return the reading of one level's logits: probabilities given the level above."""


class SigmoidLink(nn.Module):
    """The sigmoid of each logit; the same for a level, with the logit as evidence."""

    def forward(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        return logits.sigmoid()

    def evidence(self, logits: Float[Tensor, "batch source"]) -> Float[Tensor, "batch source"]:
        """Return the logits."""
        return logits

    def log_odds(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        """Return the logits."""
        return logits

    def level(self, level: int) -> Reading:
        """Return itself: a sigmoid needs no other level."""
        return self


class SiblingLink(nn.Module, ABC):
    """P(node | parent) of some nodes in taxonomy order that include all siblings of each.

    Attributes:
        heads: each group's parent by its position in the taxonomy, -1 for the roots'.
        group: of each node, a position in `heads`.
        stopping: of each group, whether a training document stops at its parent.
    """

    heads: Tensor
    group: Tensor
    stopping: Tensor

    def __init__(self, taxonomy: Taxonomy, nodes: range, stops: Shaped[Tensor, " nodes"]) -> None:
        """Build the groups; `stops` are the training documents with each node and none of its children."""
        super().__init__()
        parents = torch.tensor(taxonomy.parents[nodes.start : nodes.stop])
        heads, group = torch.unique(parents, return_inverse=True)
        self.register_buffer("heads", heads, persistent=False)
        self.register_buffer("group", group, persistent=False)
        self.register_buffer("stopping", (stops[heads] > 0) & (heads >= 0))

    def forward(self, logits: Float[Tensor, "batch some"]) -> Float[Tensor, "batch some"]:
        """Return P(node | parent)."""
        return self.evidence(logits).exp()

    @abstractmethod
    def evidence(self, logits: Float[Tensor, "batch some"]) -> Float[Tensor, "batch some"]:
        """Return log P(node | parent)."""

    @abstractmethod
    def log_not(self, logits: Float[Tensor, "batch some"]) -> Float[Tensor, "batch some"]:
        """Return log(1 - P(node | parent)), with all its digits also where P is near 1."""

    def total(self, values: Float[Tensor, "batch some"]) -> Float[Tensor, "batch groups"]:
        """Return the sum over each group."""
        zeros = values.new_zeros(values.shape[0], len(self.heads))
        return zeros.scatter_add(1, self.group.expand_as(values), values)

    def spread(self, values: Shaped[Tensor, "batch groups"]) -> Shaped[Tensor, "batch some"]:
        """Return for each node the value of its group."""
        return values.gather(1, self.group.expand(values.shape[0], -1))

    def log_sum_exp(
        self, logits: Float[Tensor, "batch some"], more: Float[Tensor, " groups"]
    ) -> tuple[Float[Tensor, "batch groups"], Float[Tensor, "batch groups"]]:
        """Return log Σ exp over each group and its value in `more` (-inf: none), as two summands.

        The first is the highest value, without a gradient: subtracting both in turn loses fewer digits.
        """
        index, more = self.group.expand_as(logits), more.to(logits.dtype)
        highest = more.expand(logits.shape[0], -1).scatter_reduce(1, index, logits.detach(), "amax")
        shifted = (logits - highest.gather(1, index)).exp()
        return highest, (more - highest).exp().scatter_add(1, index, shifted).log()

    def none(self) -> Float[Tensor, " groups"]:
        """Return -inf for each group: nothing beside its nodes."""
        return torch.full((len(self.stopping),), -torch.inf, device=self.stopping.device)

    def log_sum_of_others(
        self, logits: Float[Tensor, "batch some"], more: Float[Tensor, " groups"]
    ) -> Float[Tensor, "batch some"]:
        """Return log Σ exp over the rest of each node's group and its value in `more` (-inf: none).

        The sum minus the node's own summand would lose its digits where that is the highest. So the highest
        ones are counted, and only the lower ones summed.
        """
        index, more = self.group.expand_as(logits), more.to(logits.dtype).expand(logits.shape[0], -1)
        highest = more.scatter_reduce(1, index, logits, "amax")
        of_node = self.spread(highest)
        is_highest, more_is = logits == of_node, more == highest
        lower = (logits - of_node).exp().masked_fill(is_highest, 0)
        total = self.total(lower) + (more - highest).exp().masked_fill(more_is, 0)
        count = self.total(is_highest.to(logits.dtype)) + more_is
        rest = self.spread(total) - lower + (self.spread(count) - is_highest.to(logits.dtype))
        return of_node + rest.log()


class SiblingSoftmax(SiblingLink):
    """A softmax over each group, with one more class of logit 0 if documents stop."""

    def evidence(self, logits: Float[Tensor, "batch some"]) -> Float[Tensor, "batch some"]:
        highest, rest = self.log_sum_exp(logits, self._stop())
        return logits - self.spread(highest) - self.spread(rest)

    def log_not(self, logits: Float[Tensor, "batch some"]) -> Float[Tensor, "batch some"]:
        highest, rest = self.log_sum_exp(logits, self._stop())
        return self.log_sum_of_others(logits, self._stop()) - self.spread(highest) - self.spread(rest)

    def log_among(self, logits: Float[Tensor, "batch some"]) -> Float[Tensor, "batch some"]:
        """Return log of the softmax over each group alone, without a stop."""
        highest, rest = self.log_sum_exp(logits, self.none())
        return logits - self.spread(highest) - self.spread(rest)

    def log_total(self, logits: Float[Tensor, "batch some"]) -> Float[Tensor, "batch groups"]:
        """Return log Σ exp over each group: against a stop, the logit of not stopping."""
        highest, rest = self.log_sum_exp(logits, self.none())
        return highest + rest

    def _stop(self) -> Float[Tensor, " groups"]:
        """Return the logit of a stop, 0; -inf where no document stops."""
        zeros = torch.zeros(len(self.stopping), device=self.stopping.device)
        return zeros.masked_fill(~self.stopping, -torch.inf)


class TruncatedSigmoid(SiblingLink):
    """Independent sigmoids, given that there is at least one child; plain ones if documents stop.

    As all logits of a group fall together this tends to their softmax: Π (1 - s_k) tends to 1 - Σ exp(z_k).
    """

    def evidence(self, logits: Float[Tensor, "batch some"]) -> Float[Tensor, "batch some"]:
        conditional = F.logsigmoid(logits) - self.spread(self.log_any(logits))
        return conditional.clamp(max=0)  # rounding may give an only child more than its parent

    def log_not(self, logits: Float[Tensor, "batch some"]) -> Float[Tensor, "batch some"]:
        """Return log(1 - s_j), and without stops log((1 - s_j) P(any other) / P(any))."""
        others = _log1m_exp_exp(self.log_sum_of_others(_log_softplus(logits), self.none()))
        any_other = others.masked_fill(self.spread(self.stopping.expand(logits.shape[0], -1)), 0)
        return F.logsigmoid(-logits) + any_other - self.spread(self.log_any(logits))

    def log_any(self, logits: Float[Tensor, "batch some"]) -> Float[Tensor, "batch groups"]:
        """Return log(1 - Π (1 - s_k)), or 0 if documents stop."""
        highest, rest = self.log_sum_exp(_log_softplus(logits), self.none())
        return _log1m_exp_exp(highest + rest).masked_fill(self.stopping, 0)


Siblings = TypeVar("Siblings", bound=SiblingLink)


class PathLink(nn.Module, Generic[Siblings]):
    """The product of P(v | parent of v) along each node's path.

    A level's reading is P(node | parent), not the product. On 531 nodes and 1,442 documents, test micro /
    macro-F1 is 69.8 / 22.1 where FiLM reads the former, and 69.4 / 21.6 where it reads the product (with a
    loss that adjusted stops as well).

    Attributes:
        siblings: P(v | parent of v) of all nodes.
    """

    def __init__(self, taxonomy: Taxonomy, kind: type[Siblings], stops: Shaped[Tensor, " nodes"]) -> None:
        """Build a link of a kind of sibling link, with its `stops`."""
        super().__init__()
        self.taxonomy, self.kind, self.stops = taxonomy, kind, stops
        self.siblings = kind(taxonomy, range(len(taxonomy)), stops)
        self.sizes = [len(level) for level in taxonomy.levels]
        for level in range(1, len(self.sizes)):  # a buffer for each, so that they move to a device
            above = torch.tensor(taxonomy.level_parents(level))
            self.register_buffer(f"parents_{level}", above, persistent=False)

    def forward(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        """Return P(node)."""
        levels = [*torch.split(self.siblings.evidence(logits), self.sizes, dim=1)]
        for level in range(1, len(levels)):
            above = levels[level - 1].index_select(1, self.get_buffer(f"parents_{level}"))
            levels[level] = levels[level] + above
        return torch.cat(levels, dim=1).exp()

    def log_odds(self, logits: Float[Tensor, "batch nodes"]) -> Float[Tensor, "batch nodes"]:
        """Return log P(node) - log(1 - P(node)); 87 at most, where only children alone give P = 1.

        1 - P adds up along the path: not the parent, or the parent and not the node. 1 - exp(log P) would
        have no digits where P is near 1.
        """
        yes = torch.split(self.siblings.evidence(logits), self.sizes, dim=1)
        no = torch.split(self.siblings.log_not(logits), self.sizes, dim=1)
        is_node, is_not = [yes[0]], [no[0]]
        for level in range(1, len(self.sizes)):
            above = self.get_buffer(f"parents_{level}")
            parent, not_parent = is_node[-1].index_select(1, above), is_not[-1].index_select(1, above)
            is_node.append(parent + yes[level])
            is_not.append(_log_add_exp(not_parent, parent + no[level]))
        return torch.cat(is_node, dim=1) - torch.cat(is_not, dim=1).clamp(min=_LOWEST)

    def level(self, level: int) -> Reading:
        """Return P(node | parent) of one level."""
        return self.kind(self.taxonomy, self.taxonomy.levels[level], self.stops)


def _log_add_exp(
    a: Float[Tensor, "batch some"], b: Float[Tensor, "batch some"]
) -> Float[Tensor, "batch some"]:
    """Return log(exp(a) + exp(b)), for values down to minus infinity."""
    a, b = a.clamp(min=_LOWEST), b.clamp(min=_LOWEST)
    return torch.maximum(a, b) + torch.log1p(torch.exp(-(a - b).abs()))


def _log_softplus(logits: Float[Tensor, "batch some"]) -> Float[Tensor, "batch some"]:
    """Return log log(1 + exp(z)), computed by a series for very low z.

    Both branches of torch.where get values at which they are finite: in a gradient, infinity times 0 is NaN.
    """
    small = logits.clamp(max=_SMALL)
    return torch.where(logits < _SMALL, small - small.exp() / 2, F.softplus(logits.clamp(min=_SMALL)).log())


def _log1m_exp_exp(values: Float[Tensor, "batch groups"]) -> Float[Tensor, "batch groups"]:
    """Return log(1 - exp(-exp(u))), computed by a series for very low u."""
    small = values.clamp(max=_SMALL)
    large = values.clamp(min=_SMALL).exp()
    return torch.where(values < _SMALL, small - small.exp() / 2, torch.log(-torch.expm1(-large)))
