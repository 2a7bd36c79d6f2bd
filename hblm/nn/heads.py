"""Classification heads: from an embedding to the logits of some nodes; and where their output starts.

Every head is built from (in_features I, hidden P, out_features, dropout) and names its last layer `output`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Head(nn.Module):
    """What the heads share: `output`, the linear layer that makes the logits."""

    output: nn.Linear


class MlpHead(Head):
    """Linear, GELU, Dropout, Linear."""

    def __init__(self, in_features: int, hidden: int, out_features: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_features, hidden)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, out_features)

    def forward(self, features: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        logits: Tensor = self.output(self.dropout(F.gelu(self.hidden(features))))
        return logits


class WideMlpHead(MlpHead):
    """An MLP head whose hidden layer is four times as wide."""

    def __init__(self, in_features: int, hidden: int, out_features: int, dropout: float) -> None:
        super().__init__(in_features, 4 * hidden, out_features, dropout)


class ResidualMlpHead(Head):
    """A linear layer over x + Linear(Dropout(GELU(Linear(LayerNorm(x)))))."""

    def __init__(self, in_features: int, hidden: int, out_features: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_features)
        self.hidden = nn.Linear(in_features, hidden)
        self.dropout = nn.Dropout(dropout)
        self.residual = nn.Linear(hidden, in_features)
        self.output = nn.Linear(in_features, out_features)

    def forward(self, features: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        update = self.residual(self.dropout(F.gelu(self.hidden(self.norm(features)))))
        logits: Tensor = self.output(features + update)
        return logits


class LinearHead(Head):
    """One linear layer; `hidden` and `dropout` do not act."""

    def __init__(self, in_features: int, hidden: int, out_features: int, dropout: float) -> None:
        super().__init__()
        self.output = nn.Linear(in_features, out_features)

    def forward(self, features: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        logits: Tensor = self.output(features)
        return logits


HEADS: dict[str, type[Head]] = {
    "mlp": MlpHead,
    "wide_mlp": WideMlpHead,
    "residual_mlp": ResidualMlpHead,
    "linear": LinearHead,
}


@torch.no_grad()
def set_priors(heads: Iterable[nn.Module], prior_logits: Float[Tensor, " nodes"]) -> None:
    """Let the heads, by level, start at the prior logits: their last biases; last weights shrink to a tenth.

    Without it a sigmoid head spends its first epochs on moving N biases from 0 to about -6.
    """
    outputs = [cast("Head", head).output for head in heads]
    sizes = [output.out_features for output in outputs]
    for output, prior in zip(outputs, torch.split(prior_logits, sizes), strict=True):
        output.bias.copy_(prior)
        output.weight.mul_(0.1)
