"""Dropout with masks that are cheap to draw on a CPU.

PyTorch draws a CPU dropout mask with one Bernoulli variate per element, on one core. In a step of MiniLM with
32 documents of 128 tokens that is 58 million variates, two thirds of them for attention weights. Here one
64-bit draw of the same generator gives four 16-bit lanes, and an element is kept iff its lane is at least
p * 2^16, rounded. The variates are independent, p is exact to 2^-17, and rescaling uses the rounded p. The
same seed gives the same mask. On other devices this is PyTorch's dropout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

_LANES = 1 << 16


def dropout(inputs: Float[Tensor, "*shape"], p: float) -> Float[Tensor, "*shape"]:
    """Zero each element with probability `p` and rescale the others, as in training."""
    dropped = round(p * _LANES)
    if inputs.device.type != "cpu" or dropped == _LANES:
        return F.dropout(inputs, p)
    if dropped == 0:
        return inputs
    count = inputs.numel()
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
    lanes = draws.view(torch.int16)[:count].view(inputs.shape)
    keep = (lanes >= dropped - _LANES // 2).to(inputs.dtype)
    return inputs * keep.mul_(_LANES / (_LANES - dropped))


class LaneDropout(nn.Dropout):
    """`nn.Dropout` with cheap masks on a CPU."""

    def forward(self, inputs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return dropout(inputs, self.p) if self.training else inputs


def replace_dropout(model: nn.Module) -> None:
    """Replace every `nn.Dropout` in `model` by a `LaneDropout`."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, LaneDropout(child.p).train(child.training))


def attend(
    query: Float[Tensor, "batch heads tokens width"],
    key: Float[Tensor, "batch heads tokens width"],
    value: Float[Tensor, "batch heads tokens width"],
    mask: Bool[Tensor, "#batch #heads #tokens tokens"] | None,
    *,
    p: float,
    scale: float,
) -> Float[Tensor, "batch heads tokens width"]:
    """Compute attention with dropout on its weights, the softmax in float32.

    Fused attention on a CPU has no dropout: PyTorch's `scaled_dot_product_attention` then computes the
    same as here, with Bernoulli masks, and bfloat16 in float32 throughout.
    """
    logits = torch.matmul(query, key.transpose(-2, -1)) * scale
    if mask is not None:
        logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    weights = logits.softmax(-1, dtype=torch.float32).to(value.dtype)
    return torch.matmul(dropout(weights, p), value)
