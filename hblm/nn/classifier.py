"""The classifier: encoder, pooling, projection, branches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hblm.nn.joint import BranchesOutput, Dual, Single


class Projection(nn.Module):
    """LayerNorm(S h + Dropout(GELU(W h + b))); a model without projection has `nn.Identity`.

    S is the identity if the widths are equal, else a linear layer without bias. W and b start at zero, so
    that a new projection is a LayerNorm of S h: without skip and norm the heads would get no useful input
    before the projection is learnt. The formula is ours; the original's manual has only the key.
    """

    def __init__(self, in_features: int, out_features: int, dropout: float) -> None:
        super().__init__()
        self.skip: nn.Module = (
            nn.Identity() if in_features == out_features else nn.Linear(in_features, out_features, bias=False)
        )
        self.linear = nn.Linear(in_features, out_features)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(out_features)

    def forward(self, pooled: Float[Tensor, "batch width"]) -> Float[Tensor, "batch dim"]:
        update = self.dropout(F.gelu(self.linear(pooled)))
        embedding: Tensor = self.norm(self.skip(pooled) + update)
        return embedding


class Classifier(nn.Module):
    """An embedding of each document, and branches that read it (see joint.py).

    Encoder and projection run once a batch, whatever the number of branches and heads. `encoder` is called
    with input_ids and attention_mask and returns an object with `last_hidden_state`. With `trainable=False`
    its parameters need no gradient, and it is in eval mode even after `train()`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        pooling: nn.Module,
        projection: nn.Module,
        branches: Single | Dual,
        *,
        trainable: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.projection = projection
        self.branches: Single | Dual = branches
        self.trainable = trainable
        if not trainable:
            self.encoder.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        """Set the mode of every part except a frozen encoder."""
        super().train(mode)
        if not self.trainable:
            self.encoder.eval()
        return self

    def forward(
        self,
        input_ids: Int[Tensor, "batch tokens"] | None = None,
        attention_mask: Int[Tensor, "batch tokens"] | None = None,
        pooled: Float[Tensor, "batch width"] | None = None,
    ) -> BranchesOutput:
        """Return all views in float32, for documents as tokens or as the output of `pool`."""
        if pooled is None:
            assert input_ids is not None
            assert attention_mask is not None
            pooled = self.pool(input_ids, attention_mask)
        output: BranchesOutput = self.branches(self.projection(pooled))
        views = {view: logits.float() for view, logits in output.views.items()}
        return BranchesOutput(views, output.modulation)

    def pool(
        self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch width"]:
        """Return the pooled states of the encoder in float32: one vector for each document."""
        with torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()):
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        pooled: Tensor = self.pooling(hidden, attention_mask.bool())
        return pooled.float()
