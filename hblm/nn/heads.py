"""Classification heads: from an embedding to the logits of some nodes; and where their output starts.

Every head is built from (in_features I, hidden P, out_features, dropout) and names its last layer `output`.
The original's manual names the heads; their formulas are ours. As a mix head (I = 3P) each but `linear` has
one LayerNorm over the whole concatenation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class OutputLayer(nn.Linear):
    """A linear layer in the precision of its weights, also under autocast.

    In bfloat16 logits near -6 are 1/32 apart: 2.4 million scores took 2,172 values, and ranks were ties.
    """

    def forward(self, input: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        kind = input.device.type
        known = torch.amp.is_autocast_available(kind)  # the meta device, on which shapes are tested, has none
        with torch.autocast(kind, enabled=False) if known else contextlib.nullcontext():
            return F.linear(input.to(self.weight.dtype), self.weight, self.bias)


class Head(nn.Module):
    """What the heads share: `output`, the linear layer that makes the logits."""

    output: OutputLayer


class MlpHead(Head):
    """LayerNorm, Linear, GELU, LayerNorm, Dropout, Linear."""

    def __init__(self, in_features: int, hidden: int, out_features: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_features)
        self.hidden = nn.Linear(in_features, hidden)
        self.hidden_norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        self.output = OutputLayer(hidden, out_features)

    def forward(self, features: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        hidden = self.hidden_norm(F.gelu(self.hidden(self.norm(features))))
        logits: Tensor = self.output(self.dropout(hidden))
        return logits


class WideMlpHead(MlpHead):
    """An MLP head whose hidden layer is four times as wide."""

    def __init__(self, in_features: int, hidden: int, out_features: int, dropout: float) -> None:
        super().__init__(in_features, 4 * hidden, out_features, dropout)


class ResidualMlpHead(Head):
    """A linear layer over x + Linear(Dropout(GELU(Linear(LayerNorm(x))))).

    The inner last layer, `residual`, starts at zero: a new head is a linear head.
    """

    def __init__(self, in_features: int, hidden: int, out_features: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_features)
        self.hidden = nn.Linear(in_features, hidden)
        self.dropout = nn.Dropout(dropout)
        self.residual = nn.Linear(hidden, in_features)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)
        self.output = OutputLayer(in_features, out_features)

    def forward(self, features: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        update = self.residual(self.dropout(F.gelu(self.hidden(self.norm(features)))))
        logits: Tensor = self.output(features + update)
        return logits


class LinearHead(Head):
    """One linear layer; `hidden` and `dropout` do not act."""

    def __init__(self, in_features: int, hidden: int, out_features: int, dropout: float) -> None:
        super().__init__()
        self.output = OutputLayer(in_features, out_features)

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
