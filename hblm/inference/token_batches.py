"""Batches of token ids for prediction: texts of similar length together, padded to the right."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


def batches(lengths: Sequence[int], *, tokens: int, texts: int, padding: int | None = None) -> Iterator[Ids]:
    """Yield the positions of each batch, the longest texts first.

    Args:
        lengths: tokens of each text.
        tokens: the most tokens of a batch, padding included; a longer text is a batch of its own.
        texts: the most texts of a batch.
        padding: the most tokens of padding in a batch; None: any number.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    falling = np.asarray(lengths, dtype=np.int64)[order]
    start = 0
    while start < len(order):
        longest = max(1, lengths[order[start]])
        stop = start + min(texts, max(1, tokens // longest))
        if padding is not None:
            padded_by = np.cumsum(falling[start] - falling[start:stop])
            stop = start + int(np.searchsorted(padded_by, padding, side="right"))
        yield order[start:stop]
        start = stop


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Ids, Ids]:
    """Return token ids and attention mask, (texts, tokens), of some texts."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(max(1, lengths.max())) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum()))
    return ids, mask.astype(np.int64)


def gathered(parts: Sequence[tuple[Ids, npt.NDArray[Any]]], shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Return the rows of all batches, given as (positions, rows), in the order of the texts."""
    whole = np.empty(shape, dtype=np.float32)
    for positions, rows in parts:
        whole[positions] = rows
    return whole
