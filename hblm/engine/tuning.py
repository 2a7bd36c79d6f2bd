"""Thresholds chosen on validation scores: one for all nodes, one a level, or one a node. No torch.

The scores are those of consistency=raise: a parent's is the maximum of its own and its children's. So the
documents that reach one threshold for all nodes are those for which the node is in the predicted set closed
under ancestors. With thresholds that differ between a parent and its child this is close, not exact: closing
compares each node's own score with its own threshold. Candidates are the steps of a fixed grid, evenly spaced
in log-odds.

- global: the step with the best monitored score, micro-F1 or macro-F1 over all nodes.
- level: for each level the step with the best monitored score of its nodes.
- node: for each node v the step t that maximises n_v u_v(t) + k u(t), where n_v is the number of validation
  documents with the label, u_v(t) the node's usefulness, u(t) that of all nodes, and k the prior.

Usefulness is a node's part in the monitored score. For macro-F1, u_v is the node's F1 and u the macro-F1.
For micro-F1, u_v = (2 TP_v(t) - F (P_v(t) + n_v)) / n_v, where F is the micro-F1 at the global threshold,
P_v(t) the number of predictions, and u the same of the sums over nodes. Thresholds for which the sum of
n_v u_v is positive have a micro-F1 above F (Dinkelbach's method for a ratio); for calibrated scores its
solution is one threshold of F/2 for all nodes (Lipton, Elkan and Naryanaswamy 2014, "Optimal thresholding of
classifiers to maximize F1 measure").

The prior k counts as so many documents with the label that behave as the average of all nodes: a node with
few documents keeps the global threshold, one with many gets its own. With k infinite every node has the
global threshold, with k = 0 none is shrunk. k is chosen by cross-validation inside the validation split: the
largest k whose score is not below the best one's with a confidence of 95 %, by the standard error of the
difference. The best of several noisy scores is too good; this is the one-standard-error rule (Breiman,
Friedman, Olshen and Stone 1984, "Classification and Regression Trees") with the error bound of few folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hblm.taxonomy import Taxonomy

_STEPS, _PER_UNIT = 49, 8  # on each side of the middle; steps in one unit of log-odds
# float32, as scores are: a score on a threshold is on the same side of it here and at prediction
GRID: npt.NDArray[np.float32] = (
    1 / (1 + np.exp(-np.arange(-_STEPS, _STEPS + 1, dtype=np.float64) / _PER_UNIT))
).astype(np.float32)
PRIORS = (inf, 1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.0)
FOLDS = 5
_QUANTILE = 2.132  # the 95 % quantile of Student's t with FOLDS - 1 degrees of freedom
_FOLD_SEED = 20_261_128

Scores = npt.NDArray[np.float32]
Whole = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]  # axes: gold (0 or 1), node, number of thresholds that the score reaches


class Tried(NamedTuple):
    """A prior, in documents, and what cross-validation gives for it.

    Attributes:
        score: of all folds' true positives and predictions together.
        error: the standard error of its difference from the best prior's score.
    """

    prior: float
    score: float
    error: float


@dataclass(frozen=True)
class Tuned:
    """Thresholds chosen on validation scores.

    Attributes:
        monitor: the score that they maximise: micro_f1 or macro_f1.
        everywhere: the threshold for all nodes.
        level: one for each level.
        node: one for each node, in taxonomy order.
        prior: k, in documents; infinite where cross-validation keeps the global threshold.
        tried: every prior, the largest first.
    """

    monitor: str
    everywhere: float
    level: tuple[float, ...]
    node: tuple[float, ...]
    prior: float
    tried: tuple[Tried, ...]


class TuningCounter:
    """Count, for each fold, how many raised scores of each node reach each threshold.

    Memory is O(folds x nodes x thresholds), whatever the number of documents.
    """

    def __init__(self, taxonomy: Taxonomy, documents: int) -> None:
        """Start at none of so many documents; each belongs to a fold, by its position in the split."""
        self._levels = taxonomy.levels
        self._fold = np.argsort(np.random.PCG64(_FOLD_SEED).random_raw(documents), kind="stable") % FOLDS
        self._counts = np.zeros((FOLDS, 2, len(taxonomy), len(GRID) + 1), np.int32)

    def update(self, positions: npt.NDArray[np.int64], scores: Scores, gold: npt.NDArray[np.bool_]) -> None:
        """Count a batch: positions in the split, raised scores and labels, both (documents, nodes)."""
        rows, nodes = np.nonzero((scores >= GRID[0]) | gold)  # all others are in no count that is read
        reached = np.searchsorted(GRID, scores[rows, nodes], side="right")
        cells = self._fold[positions[rows]], gold[rows, nodes].astype(np.int64), nodes, reached
        np.add.at(self._counts, cells, 1)

    def counted(self) -> npt.NDArray[np.int32]:
        """Return the counts, which another counter can add."""
        return self._counts

    def add(self, counted: npt.NDArray[np.int32]) -> None:
        """Add the counts of another counter, of other documents."""
        self._counts = self._counts + counted

    def tuned(self, monitor: str) -> Tuned:
        """Return the thresholds with the best `monitor`, micro_f1 or macro_f1."""
        total = self._counts.sum(0, dtype=np.int64)
        tried = _cross_validated(self._counts, total, monitor)
        best = max(each.score for each in tried)
        prior = next(each.prior for each in tried if each.score >= best - _QUANTILE * each.error)
        curves = _Curves(total)
        middle = curves.best_step(monitor)
        levels = [_Curves(total[:, level.start : level.stop]).best_step(monitor) for level in self._levels]
        return Tuned(
            monitor=monitor,
            everywhere=float(GRID[middle]),
            level=tuple(GRID[levels].tolist()),
            node=tuple(GRID[curves.node_steps(monitor, middle, prior)].tolist()),
            prior=prior,
            tried=tuple(tried),
        )


def _cross_validated(counts: npt.NDArray[np.int32], total: Counts, monitor: str) -> list[Tried]:
    """Score each fold's documents at the thresholds that all other folds choose, for each prior."""
    n_nodes = total.shape[1]
    hits, predicted = (np.zeros((FOLDS, len(PRIORS), n_nodes), np.int64) for _ in range(2))
    for fold, held_out in enumerate(counts):
        chosen_on, scored = _Curves(total - held_out), _Curves(held_out.astype(np.int64))
        middle = chosen_on.best_step(monitor)
        for number, prior in enumerate(PRIORS):
            steps = chosen_on.node_steps(monitor, middle, prior)
            hits[fold, number] = scored.hits[np.arange(n_nodes), steps]
            predicted[fold, number] = scored.predicted[np.arange(n_nodes), steps]
    support = counts[:, 1].sum(2, dtype=np.int64)

    def score(folds: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        return _monitored(hits[folds].sum(0).T, predicted[folds].sum(0).T, support[folds].sum(0), monitor)

    scores = score(np.ones(FOLDS, np.bool_))
    left_out = np.array([score(np.arange(FOLDS) != fold) for fold in range(FOLDS)])
    behind = left_out[:, [int(np.argmax(scores))]] - left_out
    errors = np.sqrt((FOLDS - 1) * behind.var(0))  # the jackknife's
    return [Tried(*each) for each in zip(PRIORS, scores.tolist(), errors.tolist(), strict=True)]


class _Curves:
    """True positives, predictions and labels of some nodes at each step of the grid."""

    def __init__(self, counts: Counts) -> None:
        reaching = np.flip(np.flip(counts, 2).cumsum(2), 2)[:, :, 1:]
        self.hits, self.predicted = reaching[1], reaching.sum(0)
        self.support = counts[1].sum(1)

    def best_step(self, monitor: str) -> int:
        """Return the step with the best score of all these nodes; of equal ones the nearest to 0.5."""
        score = _monitored(self.hits, self.predicted, self.support, monitor)
        return int(_nearest_maximum(score[None], _STEPS)[0])

    def node_steps(self, monitor: str, middle: int, prior: float) -> npt.NDArray[np.int64]:
        """Return each node's step; `middle` is the global one, `prior` is k of the module's docstring."""
        if prior == inf:
            return np.full(len(self.support), middle)
        if monitor == "micro_f1":
            f1 = _monitored(self.hits, self.predicted, self.support, monitor)[middle]
            own = 2 * self.hits - f1 * (self.predicted + self.support[:, None])
            of_all = own.sum(0) / max(self.support.sum(), 1)
        else:
            node_f1 = _f1(self.hits, self.predicted, self.support[:, None])
            own, of_all = self.support[:, None] * node_f1, node_f1.mean(0)
        return _nearest_maximum(own + prior * of_all, middle)


def _nearest_maximum(curves: npt.NDArray[np.float64], middle: int) -> npt.NDArray[np.int64]:
    """Return the step of each curve's maximum; of equal ones the nearest to `middle`."""
    steps = np.arange(curves.shape[1])
    order = np.argsort(np.abs(steps - middle), kind="stable")
    chosen: Whole = order[np.argmax(curves[:, order], axis=1)]
    return chosen


def _monitored(hits: Whole, predicted: Whole, support: Whole, monitor: str) -> npt.NDArray[np.float64]:
    """Return micro- or macro-F1 over nodes, the first axis, at each step."""
    if monitor == "micro_f1":
        return _f1(hits.sum(0), predicted.sum(0), support.sum())
    macro: npt.NDArray[np.float64] = _f1(hits, predicted, support[:, None]).mean(0)
    return macro


def _f1(hits: Whole, predicted: Whole, support: Whole) -> npt.NDArray[np.float64]:
    """Return 2 TP / (2 TP + FP + FN); 0/0 is 0, because the denominator is at least 1."""
    f1: npt.NDArray[np.float64] = 2 * hits / np.maximum(predicted + support, 1)
    return f1


def raised(values: npt.NDArray[Any], taxonomy: Taxonomy) -> npt.NDArray[Any]:
    """Return scores in which a parent's is at least each of its children's, or sets with all ancestors.

    `values` are (documents, nodes) in taxonomy order, numbers or booleans; they are not changed.
    """
    values, parents = values.copy(), np.asarray(taxonomy.parents)
    for level in reversed(taxonomy.levels[1:]):
        order = np.argsort(parents[level.start : level.stop], kind="stable")
        above, starts = np.unique(parents[level.start : level.stop][order], return_index=True)
        highest = np.maximum.reduceat(values[:, level.start : level.stop][:, order], starts, axis=1)
        values[:, above] = np.maximum(values[:, above], highest)
    return values
