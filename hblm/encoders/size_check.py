"""Checks of the size that a config.json describes, before building the model takes its memory."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from hblm.encoders.pretrained import Pretrained
from hblm.errors import ConfigError

Shapes = Mapping[str, tuple[int, ...]]

# How many times as many parameters as stored numbers a model may have: pooler, tied weights, packed integers.
_LARGER = 16


def require_as_many_layers(source: Pretrained, shapes: Shapes | None) -> None:
    """Refuse a config.json with far more layers or labels than the weights have, before it takes memory.

    Each layer has at least one stored tensor, and each label a row of one.

    Raises:
        ConfigError: there are too many.
    """
    if shapes is None or source.folder is None:
        return
    try:
        values = json.loads((source.folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return  # transformers reports what is wrong
    most = _LARGER * (len(shapes) + sum(math.prod(shape[:1]) for shape in shapes.values()))
    for name, value in values.items() if isinstance(values, dict) else ():
        if ("layer" in name or "label" in name) and isinstance(value, int) and value > most:
            raise ConfigError(
                f"encoder.model_name={source.model_name}: {name} in its config.json is {value:.3g}, and its "
                f"weights have {len(shapes)} tensors; copy the model again"
            )


@contextlib.contextmanager
def no_larger(source: Pretrained, shapes: Shapes | None) -> Iterator[None]:
    """Stop building a model in the block that is far larger than its stored weights.

    Raises:
        ConfigError: it gets too many parameters, or too large ones.
    """
    if shapes is None:
        yield
        return
    tensors, numbers_ = len(shapes), sum(math.prod(shape) for shape in shapes.values())
    built = [0, 0]

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        built[0] += 1
        built[1] += 0 if parameter is None else parameter.numel()
        if built[0] > _LARGER * (tensors + 100) or built[1] > _LARGER * (numbers_ + 10_000):
            raise ConfigError(
                f"encoder.model_name={source.model_name}: its config.json describes a model far larger "
                f"than its weights ({tensors} tensors, {numbers_:,} numbers); copy the model again"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
