"""Classification heads, from an embedding to the logits of some nodes, and their initialisation.

Every head is built from (in_features I, hidden P, out_features, dropout): `features` computes the input of
its last layer, `output`. The names of the heads are from the original's manual; their formulas are ours. As a
mix head (I = 3P) each but `linear` has one LayerNorm over the whole concatenation.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class OutputLayer(nn.Linear):
    """A linear layer in the precision of its weights, also under autocast.

    In bfloat16 logits near -6 differ by at least 1/32: 2.4 million scores had 2,172 values, with tied ranks.
    """

    def forward(self, input: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        kind = input.device.type
        known = torch.amp.is_autocast_available(kind)  # the meta device, on which shapes are tested, has none
        with torch.autocast(kind, enabled=False) if known else contextlib.nullcontext():
            return F.linear(input.to(self.weight.dtype), self.weight, self.bias)


class Head(nn.Module, ABC):
    """Base of the heads: `features`, then `output`, the linear layer of the logits."""

    output: OutputLayer

    @abstractmethod
    def features(self, embedding: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch hidden"]:
        """Return the input of `output`."""

    def forward(self, embedding: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """Return the logits."""
        logits: Tensor = self.output(self.features(embedding))
        return logits


class MlpHead(Head):
    """LayerNorm, Linear, GELU, LayerNorm, Dropout, Linear."""

    def __init__(self, in_features: int, hidden: int, out_features: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_features)
        self.hidden = nn.Linear(in_features, hidden)
        self.hidden_norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        self.output = OutputLayer(hidden, out_features)

    def features(self, embedding: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch hidden"]:
        hidden = self.hidden_norm(F.gelu(self.hidden(self.norm(embedding))))
        features: Tensor = self.dropout(hidden)
        return features


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

    def features(self, embedding: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch hidden"]:
        update: Tensor = self.residual(self.dropout(F.gelu(self.hidden(self.norm(embedding)))))
        return embedding + update


class LinearHead(Head):
    """One linear layer; `hidden` and `dropout` are not used."""

    def __init__(self, in_features: int, hidden: int, out_features: int, dropout: float) -> None:
        super().__init__()
        self.output = OutputLayer(in_features, out_features)

    def features(self, embedding: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch hidden"]:
        return embedding


HEADS: dict[str, type[Head]] = {
    "mlp": MlpHead,
    "wide_mlp": WideMlpHead,
    "residual_mlp": ResidualMlpHead,
    "linear": LinearHead,
}


@dataclass(frozen=True)
class OutputStart:
    """Initial values of the output layers of a model's heads.

    Attributes:
        prior_logits: their biases; the weights are scaled to a tenth of PyTorch's. Otherwise a sigmoid head
            needs its first epochs to move N biases from 0 to about -6.
        label_embeddings: e of each node's text, in taxonomy order; None: weights do not depend on texts.
        gain: the length of a row made from a text, in units of 1 / mean |u| (see `label_rows`).
    """

    prior_logits: Float[Tensor, " nodes"]
    label_embeddings: Float[Tensor, "nodes dim"] | None = None
    gain: float = 6.0


@torch.no_grad()
def start_output(
    heads: Iterable[nn.Module], start: OutputStart, inputs: Float[Tensor, "nodes inputs"] | None = None
) -> None:
    """Initialise the output layers of some heads, one a level.

    Args:
        heads: by level; in eval mode where `inputs` are given, so that no dropout acts.
        start: biases, and the gain of rows made from texts.
        inputs: the input of node j's head for the text of node j; None: no row is made from a text.
    """
    by_level = [cast("Head", head) for head in heads]
    sizes = [head.output.out_features for head in by_level]
    for head, prior in zip(by_level, torch.split(start.prior_logits, sizes), strict=True):
        head.output.bias.copy_(prior)
        head.output.weight.mul_(0.1)
    if inputs is None:
        return
    read = [head.features(part) for head, part in zip(by_level, torch.split(inputs, sizes), strict=True)]
    rows = torch.split(label_rows(read, start.gain), sizes)
    for head, part in zip(by_level, rows, strict=True):
        head.output.weight.add_(part)


def label_rows(features: Sequence[Float[Tensor, "_ hidden"]], gain: float) -> Float[Tensor, "nodes hidden"]:
    """Return (g / m) (u_j - mean u) / |u_j - mean u| for each node j.

    u_j is the input of the output layer of node j's head for the node's text, g the gain, and m the mean
    |u_j|. A document whose features have the direction of the text's gets a logit that is about g higher. The
    mean is over all N nodes, so that a level of one node has a direction, too. A centred vector shorter than
    m / 1000 (all texts are alike) gives a row of zeros. The formula is ours; NGAME (Dahiya et al. 2023) and
    LP++ (Huang et al. 2024) also initialise or complete classifiers from texts of labels.

    Args:
        features: u, by level.
        gain: g.
    """
    texts = torch.cat([part.float() for part in features])
    centred = texts - texts.mean(0)
    lengths = centred.norm(dim=1, keepdim=True)
    mean_length = texts.norm(dim=1).mean()
    known = lengths > mean_length / 1000
    return torch.where(known, gain / mean_length * F.normalize(centred, dim=1), 0.0)
