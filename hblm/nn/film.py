"""Feature-wise linear modulation (FiLM: Perez et al. 2018) of a level's embedding by another level's logits.

    s    = propagation(z_p)           the source level's logits as a signal, through the loss's link
    c    = space(s) - c0              on the source's or the target's nodes, centred
    γ, β = split(W c + bias)          W and bias start at zero: a new layer is the identity
    e_l  = e * (1 + a γ) + a β        a = film_scale

Formulas that are not in the original HBLM's manual are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hblm.nn.link import Reading, SigmoidLink


class Propagation(nn.Module):
    """Base of the propagation methods: the training threshold, and how logits become scores."""

    def __init__(self, threshold: float, reading: Reading | None = None) -> None:
        """Set the threshold, and the reading of the source level's logits (None: sigmoids)."""
        super().__init__()
        self.threshold = threshold
        self.reading: Reading = SigmoidLink() if reading is None else reading


class SigmoidPropagation(Propagation):
    """Propagate scores, conditional on the parent; the threshold is not used."""

    def forward(self, logits: Float[Tensor, "batch source"]) -> Float[Tensor, "batch source"]:
        return self.reading(logits)


class MultiHotPropagation(Propagation):
    """Propagate decisions: 1 where the score is at least the threshold, else 0; without gradient."""

    def forward(self, logits: Float[Tensor, "batch source"]) -> Float[Tensor, "batch source"]:
        return (self.reading(logits) >= self.threshold).to(logits.dtype)


class LogitPropagation(Propagation):
    """Propagate logits, or the evidence of the link (see `Reading`); the threshold is not used."""

    def forward(self, logits: Float[Tensor, "batch source"]) -> Float[Tensor, "batch source"]:
        return self.reading.evidence(logits)


PROPAGATIONS: dict[str, type[Propagation] | None] = {
    "sigmoid": SigmoidPropagation,
    "multi_hot": MultiHotPropagation,
    "logit": LogitPropagation,
    "none": None,  # no FiLM layer: the heads are independent
}


class Space(nn.Module):
    """The nodes of a signal: the source level's, or along tree edges the target level's.

    Attributes:
        n_nodes: number of nodes.
    """

    def __init__(self, n_nodes: int) -> None:
        super().__init__()
        self.n_nodes = n_nodes


class SourceSpace(Space):
    """Keep the signal on the source level's nodes."""

    def forward(self, signal: Float[Tensor, "batch source"]) -> Float[Tensor, "batch source"]:
        return signal


class GatherSpace(Space):
    """Give each target node the value of the source node at its `index`, its tree parent."""

    index: Tensor

    def __init__(self, index: Sequence[int]) -> None:
        super().__init__(len(index))
        self.register_buffer("index", torch.tensor(index), persistent=False)

    def forward(self, signal: Float[Tensor, "batch source"]) -> Float[Tensor, "batch target"]:
        return signal.index_select(1, self.index)


class ScatterMaxSpace(Space):
    """Give each target node the maximum of the source nodes with its `index`, its tree children.

    A node without children gets 0, whatever the signal, and so exactly 0 after centring.
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
        c0: the signal of the source head's initial output bias, which is subtracted (see `centre`).
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
        """Subtract the initial bias of the source head from now on, so that the signal starts at 0.

        The same functions can be learnt, because the generator has a bias. But a common offset of all logits
        (about -6 with prior initialisation) no longer drives the generator.
        """
        self.c0.copy_(self.space(self.propagation(bias[None]))[0])

    def condition(self, source_logits: Float[Tensor, "batch source"]) -> Float[Tensor, "batch signal"]:
        """Return c in the precision of the parameters, even if autocast has lowered that of the logits."""
        if self.detach_parent_signal:
            source_logits = source_logits.detach()
        signal: Tensor = self.space(self.propagation(source_logits.to(self.c0.dtype)))
        return signal - self.c0

    def forward(
        self, embedding: Float[Tensor, "batch dim"], source_logits: Float[Tensor, "batch source"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, ""]]:
        """Return the modulated embedding and the mean of |a γ|, detached."""
        c = self.condition(source_logits)
        # in the precision of c: in bfloat16 1 + a γ is 1 for every |a γ| below 1/256
        scaled = self.scale * self.generator(c).to(c.dtype)
        gamma, beta = scaled.chunk(2, dim=1)
        return embedding * (1 + gamma) + beta, gamma.detach().abs().mean(dtype=torch.float32)
