"""The whole model: encoder, pooling, projection, cascade."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hblm.nn.cascade import Cascade


class Projection(nn.Module):
    """Linear, GELU, Dropout; `nn.Identity` stands in where there is none."""

    def __init__(self, in_features: int, out_features: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, pooled: Float[Tensor, "batch width"]) -> Float[Tensor, "batch dim"]:
        embedding: Tensor = self.dropout(F.gelu(self.linear(pooled)))
        return embedding


@dataclass(frozen=True)
class ClassifierOutput:
    """What a classifier makes of a batch.

    Attributes:
        views: float32 logits in taxonomy order by the name of the view.
        modulation: mean |a γ| of each level by the name of the branch, detached.
    """

    views: dict[str, Float[Tensor, "batch nodes"]]
    modulation: dict[str, Float[Tensor, " levels"]]


class Classifier(nn.Module):
    """A model with one branch and one view, `single`.

    `encoder` is called with input_ids and attention_mask and returns an object with `last_hidden_state`. With
    `trainable=False` its parameters need no gradient and it stays in eval mode, also after `train()`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        pooling: nn.Module,
        projection: nn.Module,
        cascade: Cascade,
        *,
        trainable: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.projection = projection
        self.cascade = cascade
        self.trainable = trainable
        if not trainable:
            self.encoder.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        """Set the mode of every part but a frozen encoder's."""
        super().train(mode)
        if not self.trainable:
            self.encoder.eval()
        return self

    def forward(
        self,
        input_ids: Int[Tensor, "batch tokens"] | None = None,
        attention_mask: Int[Tensor, "batch tokens"] | None = None,
        pooled: Float[Tensor, "batch width"] | None = None,
    ) -> ClassifierOutput:
        """Return the logits of documents, given as tokens or as what `pool` made of them."""
        if pooled is None:
            assert input_ids is not None
            assert attention_mask is not None
            pooled = self.pool(input_ids, attention_mask)
        output = self.cascade(self.projection(pooled))
        return ClassifierOutput(
            views={"single": output.logits.float()}, modulation={"single": output.modulation}
        )

    def pool(
        self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch width"]:
        """Return the encoder's part of the work, in float32: one vector a document."""
        with torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()):
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        pooled: Tensor = self.pooling(hidden, attention_mask.bool())
        return pooled.float()
