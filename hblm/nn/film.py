"""Feature-wise linear modulation (FiLM: Perez et al. 2018) of a level's embedding by another level's logits.

    s    = propagation(z_p)           the source level's logits as a signal, through the loss's link
    c    = space(s) - c0              on the source's or the target's nodes, centred
    γ, β = split(W c + bias)          W and bias start at zero: a new layer is the identity
    e_l  = e * (1 + a γ) + a β        a = film_scale

The formulas are ours where the original HBLM's manual is silent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hblm.nn.link import Reading, SigmoidLink


class Propagation(nn.Module):
    """What the propagation methods share: the training threshold, and how logits are read as scores."""

    def __init__(self, threshold: float, reading: Reading | None = None) -> None:
        """Take the reading of the source level; None: sigmoids."""
        super().__init__()
        self.threshold = threshold
        self.reading: Reading = SigmoidLink() if reading is None else reading


class SigmoidPropagation(Propagation):
    """Pass scores on, each given the level above; the threshold does not act."""

    def forward(self, logits: Float[Tensor, "batch source"]) -> Float[Tensor, "batch source"]:
        return self.reading(logits)


class MultiHotPropagation(Propagation):
    """Pass decisions on: 1 where the score reaches the threshold, else 0; no gradient flows through."""

    def forward(self, logits: Float[Tensor, "batch source"]) -> Float[Tensor, "batch source"]:
        return (self.reading(logits) >= self.threshold).to(logits.dtype)


class LogitPropagation(Propagation):
    """Pass logits on as they are, or what stands for them (see `Reading`); the threshold does not act."""

    def forward(self, logits: Float[Tensor, "batch source"]) -> Float[Tensor, "batch source"]:
        return self.reading.evidence(logits)


PROPAGATIONS: dict[str, type[Propagation] | None] = {
    "sigmoid": SigmoidPropagation,
    "multi_hot": MultiHotPropagation,
    "logit": LogitPropagation,
    "none": None,  # no layer at all: independent level heads
}


class Space(nn.Module):
    """Where a signal lives: on the source level's nodes, or carried along tree edges to the target's.

    Attributes:
        n_nodes: nodes it lives on.
    """

    def __init__(self, n_nodes: int) -> None:
        super().__init__()
        self.n_nodes = n_nodes


class SourceSpace(Space):
    """Leave the signal on the source level's nodes."""

    def forward(self, signal: Float[Tensor, "batch source"]) -> Float[Tensor, "batch source"]:
        return signal


class GatherSpace(Space):
    """Give each target node the value of the one source node at its `index` (its tree parent)."""

    index: Tensor

    def __init__(self, index: Sequence[int]) -> None:
        super().__init__(len(index))
        self.register_buffer("index", torch.tensor(index), persistent=False)

    def forward(self, signal: Float[Tensor, "batch source"]) -> Float[Tensor, "batch target"]:
        return signal.index_select(1, self.index)


class ScatterMaxSpace(Space):
    """Give each target node the maximum of the source nodes whose `index` names it (its tree children).

    A node that none names gets 0, whatever the signal, and so exactly 0 after centring: no news.
    """

    index: Tensor

    def __init__(self, index: Sequence[int], n_nodes: int) -> None:
        super().__init__(n_nodes)
        self.register_buffer("index", torch.tensor(index), persistent=False)

    def forward(self, signal: Float[Tensor, "batch source"]) -> Float[Tensor, "batch target"]:
        empty = signal.new_zeros(signal.shape[0], self.n_nodes)
        return empty.scatter_reduce(1, self.index.expand_as(signal), signal, "amax", include_self=False)


class Film(nn.Module):
    """Condition an embedding on the source level's logits.

    Attributes:
        c0: what `space` makes of the source head's initial output bias; see `centre`.
    """

    c0: Tensor

    def __init__(
        self, *, width: int, propagation: Propagation, space: Space, scale: float, detach_parent_signal: bool
    ) -> None:
        super().__init__()
        self.propagation = propagation
        self.space = space
        self.scale = scale
        self.detach_parent_signal = detach_parent_signal
        self.generator = nn.Linear(space.n_nodes, 2 * width)
        nn.init.zeros_(self.generator.weight)
        nn.init.zeros_(self.generator.bias)
        self.register_buffer("c0", torch.zeros(space.n_nodes))

    @torch.no_grad()
    def centre(self, bias: Float[Tensor, " source"]) -> None:
        """Let the source head's output bias, as it is at the start, mean "no news" (c = 0).

        This shifts the generator's bias and changes no function class; but a common offset of all logits
        (about -6 at prior initialisation) no longer drives the generator.
        """
        self.c0.copy_(self.space(self.propagation(bias[None]))[0])

    def condition(self, source_logits: Float[Tensor, "batch source"]) -> Float[Tensor, "batch signal"]:
        """Return c, in the precision of the parameters also where autocast has lowered that of the logits."""
        if self.detach_parent_signal:
            source_logits = source_logits.detach()
        signal: Tensor = self.space(self.propagation(source_logits.to(self.c0.dtype)))
        return signal - self.c0

    def forward(
        self, embedding: Float[Tensor, "batch dim"], source_logits: Float[Tensor, "batch source"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, ""]]:
        """Return the modulated embedding and the mean of |a γ|, detached."""
        c = self.condition(source_logits)
        # In c's precision: in bfloat16 1 + a γ is 1 for every |a γ| below 1/256.
        scaled = self.scale * self.generator(c).to(c.dtype)
        gamma, beta = scaled.chunk(2, dim=1)
        return embedding * (1 + gamma) + beta, gamma.detach().abs().mean(dtype=torch.float32)
