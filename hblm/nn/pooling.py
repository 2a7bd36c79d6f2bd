"""Pooling: from token states to one vector for each document.

In all options masked tokens have no effect (even if they are NaN), a document without tokens is pooled to
zeros, and the dtype of the hidden states is kept.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class ClsPooling(nn.Module):
    """Take the first unmasked token."""

    def forward(
        self, hidden: Float[Tensor, "batch tokens width"], mask: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch width"]:
        return _take(hidden, mask, mask.int().argmax(dim=1))  # argmax: the first among equals


class MeanPooling(nn.Module):
    """Average the unmasked tokens; the sum is at least float32."""

    def forward(
        self, hidden: Float[Tensor, "batch tokens width"], mask: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch width"]:
        precise = torch.promote_types(hidden.dtype, torch.float32)
        total = hidden.masked_fill(~mask[:, :, None], 0).sum(dim=1, dtype=precise)
        return (total / mask.sum(dim=1, keepdim=True).clamp(min=1)).to(hidden.dtype)


class LastPooling(nn.Module):
    """Take the last unmasked token, whichever side is padded."""

    def forward(
        self, hidden: Float[Tensor, "batch tokens width"], mask: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch width"]:
        return _take(hidden, mask, mask.shape[1] - 1 - mask.int().flip(1).argmax(dim=1))


class MaxPooling(nn.Module):
    """Take each feature's maximum over the unmasked tokens."""

    def forward(
        self, hidden: Float[Tensor, "batch tokens width"], mask: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch width"]:
        highest = hidden.masked_fill(~mask[:, :, None], float("-inf")).amax(dim=1)
        return highest.masked_fill(~mask.any(dim=1, keepdim=True), 0)


POOLINGS: dict[str, type[nn.Module]] = {
    "cls": ClsPooling,
    "mean": MeanPooling,
    "last": LastPooling,
    "max": MaxPooling,
}


def _take(
    hidden: Float[Tensor, "batch tokens width"],
    mask: Bool[Tensor, "batch tokens"],
    position: Int[Tensor, " batch"],
) -> Float[Tensor, "batch width"]:
    """Return one token of each document, or zeros for a document without tokens."""
    index = position[:, None, None].expand(-1, 1, hidden.shape[2])
    taken = hidden.gather(1, index).squeeze(1)  # take_along_dim would fix the batch of an exported graph
    return taken.masked_fill(~mask.any(dim=1, keepdim=True), 0)
