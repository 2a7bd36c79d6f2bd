"""Decisions: from the scores of all nodes to predicted nodes and paths that agree with the tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hblm.engine.calibration import tempered
from hblm.inference.consistency import consistent
from hblm.taxonomy import Taxonomy

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class PredictedPath:
    """Predicted nodes, each the child of the one before: ids, names and scores."""

    nodes: tuple[str, ...]
    names: tuple[str, ...]
    scores: tuple[float, ...]

    def to_json(self) -> dict[str, list[Any]]:
        """Return the path as the programs write it."""
        return {"nodes": [*self.nodes], "names": [*self.names], "scores": [*self.scores]}


@dataclass(frozen=True)
class Decided:
    """Scores and predicted nodes of some documents.

    Attributes:
        scores: (documents, nodes), float32; consistent.
        predicted: (documents, nodes), bool; consistent.
    """

    scores: Array
    predicted: Array


@dataclass(frozen=True)
class Decision:
    """How scores become predicted nodes and paths.

    The predicted nodes are those whose score is at least their threshold; the set is then made consistent.
    With one threshold for all nodes this equals a comparison of the consistent scores.

    Attributes:
        taxonomy: the label forest.
        thresholds: one for all nodes, or one a node in taxonomy order.
        consistency: raise, cap or none (see consistency.py).
        top_k: the most paths a document; None for all predicted ones.
        best: with top_k, whether the paths end at any of the tree's leaves, whatever the thresholds; else
            they are the best of the predicted paths.
        least: predicted nodes with a lower score on their path are left out (see confidence.py); None: none.
        temperatures: of each level; scores become sigmoid(logit(score) / T). None: they stay as they are.
    """

    taxonomy: Taxonomy
    thresholds: float | Array
    consistency: str = "raise"
    top_k: int | None = None
    best: bool = False
    least: float | None = None
    temperatures: Sequence[float] | None = None

    def decide(self, raw: Array) -> Decided:
        """Return consistent scores and predicted nodes.

        Args:
            raw: scores of a model, (documents, nodes) in taxonomy order.
        """
        raw = raw if self.temperatures is None else tempered(raw, self.temperatures, self.taxonomy)
        scores = consistent(raw, self.taxonomy, self.consistency)
        # in the scores' own precision: 0.7 as float64 is not reached by the float32 nearest to it
        thresholds = np.asarray(self.thresholds, dtype=raw.dtype)
        predicted = consistent(raw >= thresholds, self.taxonomy, self.consistency)
        if self.least is not None:
            predicted = predicted & (consistent(scores, self.taxonomy, "cap") >= self.least)
        return Decided(scores, predicted)

    def paths(self, decided: Decided, row: int) -> list[PredictedPath]:
        """Return the paths of one document, by falling score of their last node."""
        scores, predicted = decided.scores[row], decided.predicted[row]
        is_best = self.best and self.top_k is not None
        ends = self._leaves if is_best else self._ends(predicted)
        # equal scores in taxonomy order
        order = ends[np.argsort(-scores[ends], kind="stable")][: self.top_k]
        return [self._path(int(end), scores, None if is_best else predicted) for end in order]

    def nodes(self, decided: Decided, row: int) -> list[str]:
        """Return the ids of one document's predicted nodes, in taxonomy order."""
        return [self.taxonomy.nodes[at].id for at in np.flatnonzero(decided.predicted[row])]

    @cached_property
    def _parents(self) -> Array:
        return np.asarray(self.taxonomy.parents)

    @cached_property
    def _leaves(self) -> Array:
        return np.setdiff1d(np.arange(len(self.taxonomy)), self._parents)

    def _ends(self, predicted: Array) -> Array:
        """Return the predicted nodes without a predicted child."""
        nodes = np.flatnonzero(predicted)
        return np.setdiff1d(nodes, self._parents[nodes], assume_unique=False)

    def _path(self, end: int, scores: Array, predicted: Array | None) -> PredictedPath:
        """Return the path that ends at a node; it begins below the first ancestor that is not predicted."""
        positions = []
        at = end
        while at >= 0 and (predicted is None or predicted[at]):
            positions.append(at)
            at = self.taxonomy.parents[at]
        nodes = [self.taxonomy.nodes[position] for position in reversed(positions)]
        return PredictedPath(
            nodes=tuple(node.id for node in nodes),
            names=tuple(node.name for node in nodes),
            scores=tuple(_shortest(scores[position]) for position in reversed(positions)),
        )


def _shortest(score: Any) -> float:
    """Return a float32 as the shortest decimal that is read back as the same float32."""
    return float(str(score))
