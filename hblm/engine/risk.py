"""Conformal risk control of predicted paths: how far they are cut back, and what it costs. No torch.

A document's predicted set has no node without its parent, and scores in which no child is above its parent.
For a number lambda the nodes with a score above lambda are returned: paths cut back towards their roots. The
loss of a document is 1 if any returned node is wrong (not among its labels), else 0. It does not rise with
lambda and is right-continuous in it, so that conformal risk control holds (Angelopoulos, Bates, Fisch, Lei
and Schuster 2024, "Conformal Risk Control", ICLR, Theorem 1): for n calibration documents with the mean loss
R(lambda), take the smallest lambda with

    n / (n + 1) R(lambda) + 1 / (n + 1) <= 1 - confidence.

If the calibration documents and a new one are exchangeable, the probability that the new one has a wrong
returned node, over the draw of both, is at most 1 - confidence.

A document's critical score is the highest score of a predicted node that is wrong, -inf without such a node.
Its loss is 1 exactly for lambda below the critical score, so that lambda is an order statistic of the
critical scores: of all but the floor((1 - confidence) (n + 1)) - 1 highest, the highest. Equal critical
scores need nothing of their own.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor, inf
from typing import Any

import numpy as np
import numpy.typing as npt

from hblm.taxonomy import Taxonomy

Sets = npt.NDArray[np.bool_]  # documents, nodes
Scores = npt.NDArray[np.float32]


def critical_scores(scores: Scores, predicted: Sets, gold: Sets) -> npt.NDArray[np.float64]:
    """Return the highest score of a predicted node that is wrong, for each document; -inf without one."""
    critical: npt.NDArray[np.float64] = np.where(predicted & ~gold, scores, -inf).max(1).astype(np.float64)
    return critical


def documents_needed(confidence: float) -> int:
    """Return the smallest number of calibration documents for which a lambda exists."""
    return ceil(1 / _share(confidence)) - 1


def least_score(critical: npt.NDArray[np.float64], confidence: float) -> float:
    """Return the smallest float32 that a returned node's score must reach; above 1 nothing is returned.

    Args:
        critical: of the calibration documents, of which there are at least `documents_needed`.
        confidence: above 0 and below 1.

    Raises:
        ValueError: there are too few calibration documents.
    """
    wrong = floor(_share(confidence) * (len(critical) + 1)) - 1  # documents that may have a wrong node
    if wrong < 0:
        raise ValueError(
            f"{len(critical)} documents; confidence={confidence} needs {documents_needed(confidence)}"
        )
    bound = float(np.sort(critical)[::-1][wrong])
    return 0.0 if bound == -inf else float(np.nextafter(np.float32(bound), np.float32(inf)))


def _share(confidence: float) -> Fraction:
    """Return 1 - confidence exactly: of 0.9 a tenth, which floats are not."""
    return 1 - Fraction(str(confidence))


class RiskCounter:
    """Measure the risk of returned sets, and how much of the predicted ones they keep, batch by batch."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        """Start at zero documents."""
        self._depths = np.repeat(
            np.arange(1, len(taxonomy.levels) + 1), [len(level) for level in taxonomy.levels]
        )
        self._sums = np.zeros(6, np.int64)

    def update(self, predicted: Sets, returned: Sets, gold: Sets) -> None:
        """Count a batch of documents: sets predicted, and sets returned after the cut."""
        self._sums += [
            len(gold),
            (predicted & ~gold).any(1).sum(),
            (returned & ~gold).any(1).sum(),
            (predicted != returned).any(1).sum(),
            (predicted * self._depths).max(1).sum(),
            (returned * self._depths).max(1).sum(),
        ]

    def compute(self) -> dict[str, Any]:
        """Return shares of documents and mean depths, in levels; an empty set has depth 0."""
        documents, *sums = self._sums.tolist()
        names = ("risk_before", "risk", "shortened", "depth_before", "depth")
        return {
            "documents": documents,
            **{name: each / documents for name, each in zip(names, sums, strict=True)},
        }
