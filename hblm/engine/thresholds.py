"""One view's F1 at every threshold of a grid, counted batch by batch in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from hblm.taxonomy import Taxonomy

GRID = tuple(step / 20 for step in range(1, 20))  # 0.05 to 0.95


class ThresholdCounter:
    """Count how many scores of each node reach each threshold.

    Memory is O(nodes x thresholds), whatever the number of documents. Counts are on the CPU. A node is
    predicted when its score is at least the threshold, as in metrics.py.
    """

    def __init__(self, taxonomy: Taxonomy, thresholds: Sequence[float] = GRID) -> None:
        """Start at zero documents; `thresholds` are in rising order."""
        self.thresholds = tuple(thresholds)
        self._level_sizes = [len(level) for level in taxonomy.levels]
        # axes: gold (0 or 1), node, number of thresholds that the score reaches
        self._counts = torch.zeros(2, len(taxonomy), len(self.thresholds) + 1, dtype=torch.int64)

    def update(self, scores: Float[Tensor, "batch nodes"], targets: Shaped[Tensor, "batch nodes"]) -> None:
        """Count a batch; targets are 0/1 of any dtype."""
        _, n_nodes, n_bins = self._counts.shape
        scores, gold = scores.cpu(), targets.cpu().long()
        reached = torch.bucketize(scores, torch.tensor(self.thresholds, dtype=scores.dtype), right=True)
        cells = (gold * n_nodes + torch.arange(n_nodes)) * n_bins + reached
        self._counts += torch.bincount(cells.flatten(), minlength=self._counts.numel()).view_as(self._counts)

    def counted(self) -> Int[Tensor, "gold nodes bins"]:
        """Return the counts, which another counter can add."""
        return self._counts

    def add(self, counted: Int[Tensor, "gold nodes bins"]) -> None:
        """Add the counts of another counter, of other documents."""
        self._counts = self._counts + counted

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each threshold, as plain numbers.

        `micro_f1` and `macro_f1` are over all nodes, by the formulas of metrics.py; `predicted` are the
        numbers of labels predicted on each level.
        """
        reaching = self._counts.flip(2).cumsum(2).flip(2)[:, :, 1:]  # gold, node, threshold
        hits, predicted = reaching[1], reaching.sum(0)
        support = self._counts[1].sum(1, keepdim=True)
        macro = _f1(hits, predicted, support).mean(0)
        micro = _f1(hits.sum(0), predicted.sum(0), support.sum(0))
        levels = torch.stack([level.sum(0) for level in torch.split(predicted, self._level_sizes)], 1)
        columns = (self.thresholds, micro.tolist(), macro.tolist(), levels.tolist())
        return [
            {"threshold": threshold, "micro_f1": micro_f1, "macro_f1": macro_f1, "predicted": labels}
            for threshold, micro_f1, macro_f1, labels in zip(*columns, strict=True)
        ]


def _f1(
    hits: Int[Tensor, "*shape"], predicted: Int[Tensor, "*shape"], support: Int[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """Return 2 TP / (2 TP + FP + FN); 0/0 is 0, because the denominator is at least 1."""
    return 2 * hits / (predicted + support).clamp(min=1).double()
