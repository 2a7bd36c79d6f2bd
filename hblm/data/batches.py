"""Batches of tokenised or pooled documents: subsamples, shuffles, padding and targets.

Shuffles and subsamples are sorted draws of PCG64, whose stream numpy guarantees, so that they stay the same
with later versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32
from torch import Tensor

from hblm.data.dataset import n_subsampled
from hblm.data.tokens import Array, TokenisedSplit, mapped_array
from hblm.errors import ConfigError

_SUBSAMPLE_SEED = 20_240_229  # not the seed of the run: every run has the same documents
_CALIBRATION_SEED = 20_261_127  # not the seed of the run either
_STEPS_SORTED_TOGETHER = 32


@dataclass(frozen=True)
class Batch:
    """Some documents as the model takes them, under the names of its arguments; targets are 0 or 1."""

    inputs: dict[str, Tensor]
    targets: Float32[Tensor, "batch nodes"]

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        return Batch(inputs, self.targets.to(device, non_blocking=True))


class PooledSplit:
    """A split that has been through a frozen encoder: a float32 vector a document, mapped into memory.

    It is pickled as the place of its files, so that it may go to the worker processes of a loader.

    Attributes:
        split: the documents.
        file: their vectors, a row each, in the order of the split.
    """

    def __init__(self, split: TokenisedSplit, file: Path) -> None:
        self.split, self.file = split, file
        self._vectors = mapped_array(file, "float32").reshape(len(split), -1)

    def __len__(self) -> int:
        return len(self.split)

    def __reduce__(self) -> tuple[type[PooledSplit], tuple[TokenisedSplit, Path]]:
        return PooledSplit, (self.split, self.file)

    @property
    def lengths(self) -> Array:
        """Tokens of each document, so that batches are those of the split itself."""
        return self.split.lengths

    def labels(self, indices: Array) -> tuple[npt.NDArray[np.int64], Array]:
        """Return the row and the node of every label of some documents."""
        return self.split.labels(indices)

    def vectors(self, indices: Array) -> Float32[Tensor, "batch width"]:
        """Return the vectors of some documents."""
        return torch.from_numpy(self._vectors[indices])


class JoinedSplit:
    """The documents of one split, then those of another of the same kind.

    Attributes:
        parts: the two splits.
        lengths: tokens of each document.
    """

    def __init__(self, first: Split, second: Split) -> None:
        self.parts = first, second
        self.lengths: npt.NDArray[np.int64] = np.concatenate([first.lengths, second.lengths])

    def __len__(self) -> int:
        return len(self.lengths)

    def divide(self, indices: Array) -> list[tuple[Any, Array, Array]]:
        """Return, for each part that has some of the documents: the part, their rows, their indices in it."""
        first = indices < len(self.parts[0])
        rows = np.flatnonzero(first), np.flatnonzero(~first)
        starts = 0, len(self.parts[0])
        return [
            (part, chosen, indices[chosen] - start)
            for part, chosen, start in zip(self.parts, rows, starts, strict=True)
            if len(chosen)
        ]


Split = TokenisedSplit | PooledSplit | JoinedSplit


def subsample(split: TokenisedSplit, fraction: float) -> TokenisedSplit:
    """Return a fixed part of a split: whatever the run's seed, and contained in every larger part.

    Raises:
        ConfigError: `fraction` is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"dataset_fraction={fraction}: write a number above 0 and up to 1")
    chosen = subsample_positions(len(split), fraction)
    return split if len(chosen) == len(split) else _part(split, chosen)


def subsample_positions(documents: int, fraction: float) -> npt.NDArray[np.int64]:
    """Return the positions of the documents of a split that `dataset_fraction` keeps, in rising order."""
    return np.sort(_shuffled(documents, _SUBSAMPLE_SEED)[: n_subsampled(documents, fraction)])


def calibration_positions(documents: int, share: float) -> npt.NDArray[np.int64]:
    """Return the positions of the documents of a split that `calibration_share` keeps, in rising order."""
    return np.sort(_shuffled(documents, _CALIBRATION_SEED)[: round(share * documents)])


def hold_back(split: TokenisedSplit, share: float) -> tuple[TokenisedSplit, TokenisedSplit]:
    """Return a split without the fixed share of its documents that is for calibration alone, and that share.

    Raises:
        ConfigError: one of the two has no documents.
    """
    kept = calibration_positions(len(split), share)
    if not 0 < len(kept) < len(split):
        raise ConfigError(
            f"trainer.calibration_share={share} keeps {len(kept)} of the {len(split)} documents of "
            f"{split.name}; it must keep at least one, and leave one"
        )
    return _part(split, np.setdiff1d(np.arange(len(split)), kept)), _part(split, kept)


def _part(split: TokenisedSplit, positions: Array) -> TokenisedSplit:
    return TokenisedSplit(split.folder, split.name, split.positions_in_file(positions))


def training_steps(lengths: Array, *, batch_size: int, seed: int, epoch: int) -> list[npt.NDArray[np.int64]]:
    """Return the documents of each optimizer step of an epoch: each document once, similar lengths together.

    The shuffled documents are sorted by length within chunks of several steps, and the steps are shuffled; a
    chunk is at most an eighth of the epoch, so that a small dataset meets itself in new company every time.
    The last step has what is left over, drawn before any sorting; within a step the longest comes first.
    """
    order = _shuffled(len(lengths), seed, epoch)
    n_full = len(order) // batch_size
    full, rest = np.split(order, [n_full * batch_size])
    chunk = batch_size * max(1, min(_STEPS_SORTED_TOGETHER, n_full // 8))
    pieces = [_longest_first(lengths, full[start : start + chunk]) for start in range(0, len(full), chunk)]
    steps = np.concatenate([*pieces, full[:0]]).reshape(n_full, batch_size)
    shuffled = [steps[position] for position in _shuffled(n_full, seed, epoch, 1)]
    return [*shuffled, _longest_first(lengths, rest)] if len(rest) else shuffled


def evaluation_batches(lengths: Array, *, batch_size: int) -> list[npt.NDArray[np.int64]]:
    """Return all documents, the longest first, so that too large a batch shows at once."""
    order = _longest_first(lengths, np.arange(len(lengths)))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def collate(
    split: Split,
    indices: Array,
    *,
    n_nodes: int,
    pad_id: int,
    multiple_of: int = 1,
) -> Batch:
    """Pad some documents to the longest of them, and set a 1 for each of their labels.

    Padding goes to the right, whatever the tokenizer prefers: a document keeps its positions in every batch,
    also in models that count positions from the first column.

    Args:
        split, indices: which documents, as positions in the split.
        n_nodes: N, all nodes of the taxonomy.
        pad_id: the token to pad with.
        multiple_of: round the width up to it; 8 suits tensor cores, 1 a CPU.
    """
    if isinstance(split, JoinedSplit):
        parts = split.divide(indices)
    else:
        parts = [(split, np.arange(len(indices)), indices)]
    targets = torch.zeros(len(indices), n_nodes)
    for part, rows, within in parts:
        targets[rows] = targets_of(part, within, n_nodes)
    if isinstance(parts[0][0], PooledSplit):
        blocks = [part.vectors(within) for part, _, within in parts]
        pooled = torch.empty(len(indices), blocks[0].shape[1])
        for (_, rows, _), block in zip(parts, blocks, strict=True):
            pooled[rows] = block
        return Batch({"pooled": pooled}, targets)
    lengths = split.lengths[indices]
    longest = int(lengths.max(initial=1))
    width = longest + -longest % multiple_of
    mask = np.arange(width) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    for part, rows, within in parts:
        block = np.full((len(rows), width), pad_id, dtype=np.int64)
        block[mask[rows]] = part.tokens(within)[1]  # both run row by row
        ids[rows] = block
    inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
    return Batch(inputs, targets)


def targets_of(
    split: TokenisedSplit | PooledSplit, indices: Array, n_nodes: int
) -> Float32[Tensor, "batch nodes"]:
    """Return a 1 for each label of some documents, else 0."""
    targets = np.zeros((len(indices), n_nodes), dtype=np.float32)
    targets[split.labels(indices)] = 1.0
    return torch.from_numpy(targets)


def _shuffled(count: int, *seed: int) -> npt.NDArray[np.int64]:
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")


def _longest_first(lengths: Array, documents: Array) -> npt.NDArray[np.int64]:
    return documents[np.argsort(-lengths[documents], kind="stable")]
