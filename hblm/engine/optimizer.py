"""AdamW with its parameter groups, the schedule of learning rates, one optimizer step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


def adamw(
    model: nn.Module,
    encoder: nn.Module,
    *,
    learning_rate: float,
    head_learning_rate: float | None,
    weight_decay: float,
) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters, biases and norms without weight decay.

    Args:
        model: all parameters.
        encoder: the part that gets `learning_rate`; the rest gets `head_learning_rate`, if given.
        learning_rate, head_learning_rate: peak rates.
        weight_decay: for every parameter with two or more axes.
    """
    below = {id(parameter) for parameter in encoder.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            rate = learning_rate if id(parameter) in below or not head_learning_rate else head_learning_rate
            decay = weight_decay if parameter.ndim > 1 else 0.0  # biases and norms have one axis
            groups.setdefault((rate, decay), []).append(parameter)
    device = next(model.parameters()).device.type
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        fused=device in ("cpu", "cuda"),
    )


def linear_schedule(optimizer: torch.optim.Optimizer, *, steps: int, warmup_ratio: float) -> LambdaLR:
    """Return a linear rise over `warmup_ratio` of the steps, then a linear fall to zero."""
    warmup = round(steps * warmup_ratio)

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        return max(0.0, (steps - step) / max(1, steps - warmup))

    return LambdaLR(optimizer, factor)


def take_step(accelerator: Accelerator, optimizer: torch.optim.Optimizer) -> bool:
    """Take an optimizer step; return False where fp16 skipped it because a gradient overflowed.

    A skipped step lowers the loss scale. Accelerate's `optimizer_step_was_skipped` stays False with a fused
    AdamW, which skips the step inside its kernel.
    """
    scaler = accelerator.scaler
    before = scaler.get_scale() if scaler is not None else 0.0
    optimizer.step()
    return scaler is None or scaler.get_scale() >= before


def trainable(model: nn.Module) -> Iterable[nn.Parameter]:
    """Return the parameters that get gradients."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
