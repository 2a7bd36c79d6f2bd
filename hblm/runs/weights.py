"""The tensors of a checkpoint: reading them, checking them, and putting them into a model."""

from __future__ import annotations

from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hblm.errors import CheckpointError
from hblm.files import sha256_once
from hblm.runs.checkpoint import COPY_AGAIN, META, SUMS, WEIGHTS, Checkpoint, shortened


def load_weights(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Load all tensors of a checkpoint into its model.

    Raises:
        CheckpointError: the file is damaged, or its tensors are not those of the model.
    """
    put_tensors(checkpoint, read_tensors(checkpoint), model)


def read_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return all tensors by their names in the model, on the CPU.

    Raises:
        CheckpointError: the file is damaged or was changed, or a number in it is not finite.
    """
    path = checkpoint.folder / WEIGHTS
    try:
        if SUMS in checkpoint.meta and sha256_once(path) != checkpoint.meta[SUMS][WEIGHTS]:
            raise CheckpointError(f"{path}: not the file that was written, damaged or replaced; {COPY_AGAIN}")
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:  # KeyError: an unknown type of numbers
        raise CheckpointError(f"{path}: cannot be read: {error}; {COPY_AGAIN}") from None
    if names := _not_finite(tensors):
        raise CheckpointError(f"{path}: {shortened(names)} holds numbers that are not finite; {COPY_AGAIN}")
    return tensors


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors with NaN or an infinity."""
    return [
        name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()
    ]


def require_fit(
    checkpoint: Checkpoint, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Check names, shapes and types of a checkpoint's tensors against those of a module.

    Raises:
        CheckpointError: they differ.
    """
    faults = [f"{name} is not there" for name in expected if name not in tensors]
    faults += [f"{name} is not in the model" for name in tensors if name not in expected]
    for name, wanted in expected.items():
        stored = tensors.get(name, wanted)
        if (stored.shape, stored.dtype) != (wanted.shape, wanted.dtype):
            faults.append(f"{name} is {_description(stored)}, expected {_description(wanted)}")
    if faults:
        raise CheckpointError(
            f"{checkpoint.folder / WEIGHTS}: does not fit the model in {META}: {shortened(faults)}; "
            f"{COPY_AGAIN}"
        )


def put_tensors(checkpoint: Checkpoint, tensors: Mapping[str, Tensor], module: nn.Module) -> None:
    """Put tensors of a checkpoint into a module that has the same names, shapes and types.

    Raises:
        CheckpointError: they differ.
    """
    require_fit(checkpoint, tensors, module.state_dict())
    module.load_state_dict(tensors)


def _description(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
