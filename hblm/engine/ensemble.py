"""Ensembles of two models: their logits on disk, averaged. One model at a time is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from hblm.console import no_progress
from hblm.data.batches import Split, targets_of
from hblm.data.tokens import TokenisedSplit
from hblm.engine.metrics import ScoreCounter
from hblm.engine.scoring import Scores, Scoring, Sink, ViewCounters, no_sink, outputs
from hblm.nn.classifier import Classifier
from hblm.nn.joint import weighted_mean

WEIGHTS = tuple(step / 20 for step in range(21))  # that ensemble_weight=auto compares
_AT_ONCE = 1024  # documents averaged at a time


def keep_logits(
    path: Path,
    model: Classifier,
    split: Split,
    scoring: Scoring,
    accelerator: Accelerator,
    advance: Callable[[int], None] = no_progress,
) -> None:
    """Write a single model's float32 logits to `path`, a row a document, in the split's order.

    Not through a memory map: its pages count as memory, and a full disk kills the process by SIGBUS.
    """
    with path.open("wb") as file:
        for positions, batch, output in outputs(model, split, scoring, accelerator):
            for position, row in zip(positions, output.views["single"].cpu().numpy(), strict=True):
                file.seek(int(position) * row.nbytes)
                file.write(row.tobytes())
            advance(len(batch))


def score_fused(
    td: Path,
    bu: Path,
    weight: float,
    split: TokenisedSplit,
    scoring: Scoring,
    advance: Callable[[int], None] = no_progress,
    sink: Sink = no_sink,
) -> dict[str, Scores]:
    """Return the scores of the views fused (w z_td + (1 - w) z_bu), td and bu, from logits on disk."""
    counters = ViewCounters(scoring, "cpu")
    for positions, z_td, z_bu, targets in _stream(td, bu, split, scoring):
        views = {"fused": weighted_mean([z_td, z_bu], (weight, 1 - weight)), "td": z_td, "bu": z_bu}
        sink(positions, counters.add(views, targets), targets)
        advance(len(positions))
    return counters.compute()


def search_weight(
    td: Path, bu: Path, split: TokenisedSplit, scoring: Scoring, monitor: str
) -> tuple[float, dict[str, Any]]:
    """Return the weight with the best `monitor`, and the result's entry of all weights.

    Of equal ones it is the nearest to 0.5.
    """
    counters = {
        weight: ScoreCounter(scoring.taxonomy, scoring.threshold, ranking=False) for weight in WEIGHTS
    }
    for _, z_td, z_bu, targets in _stream(td, bu, split, scoring):
        for weight, counter in counters.items():
            fused = weighted_mean([z_td, z_bu], (weight, 1 - weight))
            counter.update(scoring.scores(fused), targets)
    scores = {weight: counter.compute()["overall"][monitor] for weight, counter in counters.items()}
    best = max(WEIGHTS, key=lambda weight: (scores[weight], -abs(weight - 0.5)))
    tried = [{"weight": weight, monitor: score} for weight, score in scores.items()]
    return best, {"split": split.name, "monitor": monitor, "tried": tried}


def _stream(
    td: Path, bu: Path, split: TokenisedSplit, scoring: Scoring
) -> Iterator[tuple[np.ndarray, Tensor, Tensor, Tensor]]:
    """Yield positions in the split, td's and bu's logits of these documents, and targets."""
    width = td.stat().st_size // (len(split) * np.dtype(np.float32).itemsize)  # all nodes of the models
    with td.open("rb") as td_file, bu.open("rb") as bu_file:
        for start in range(0, len(split), _AT_ONCE):
            positions = np.arange(start, min(start + _AT_ONCE, len(split)))
            rows = (np.fromfile(file, np.float32, len(positions) * width) for file in (td_file, bu_file))
            z_td, z_bu = (torch.from_numpy(each.reshape(-1, width)) for each in rows)
            yield positions, z_td, z_bu, targets_of(split, positions, len(scoring.taxonomy))
