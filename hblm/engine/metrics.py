"""Scores from streamed counts: the formula and the source of each score.

T_i and P_i are the gold and the predicted nodes of document i; a node is predicted when its score is at
least the threshold. A hat closes a set under ancestors. Every 0/0 is 0. With counts TP, FP, FN, precision is
TP / (TP + FP), recall TP / (TP + FN), and F1 their harmonic mean, 2 TP / (2 TP + FP + FN):

- micro: TP, FP, FN summed over documents and nodes.
- macro: per node over all documents, then the mean over ALL nodes of the taxonomy (or of the level); a node
  with neither support nor prediction counts 0. The published HTC tables do so (HiAGM, HGCLR, HPT), and
  scikit-learn's average="macro", zero_division=0. Elsewhere "macro" is the mean over labels seen in gold or
  prediction (RADAr++), the F1 of mean precision and mean recall (LibMultiLabel's Another-Macro-F1), or the
  mean over documents (hiclass): other numbers, not to be compared.
- macro_f1_supported: the mean over the nodes with at least one gold label, 0 if there is none.
- c_micro, c_macro (C-metrics; Yu et al. 2022, "Constrained Sequence-to-Tree Generation for Hierarchical
  Text Classification"): a hit counts only where all ancestors of its node are predicted as well. Only TP is
  masked: precision TP / |P|, recall TP / |T|, so that an orphan counts against both.
- by_frequency: macro_f1 over the nodes of so many documents of the training split; a bucket without nodes is
  left out. The decades are ours.
- samples: per document over nodes, then the mean over documents; empty gold and empty prediction give 0.
- exact_match: share of documents with P_i = T_i; empty gold and empty prediction give 1.
- support: number of gold labels.
- violation_rate: share of documents with a predicted node whose parent is not predicted.
- hierarchical (Kiritchenko, Matwin and Famili 2005, "Functional annotation of genes using hierarchical text
  categorization"): precision Σ|P̂_i ∩ T̂_i| / Σ|P̂_i|, recall Σ|P̂_i ∩ T̂_i| / Σ|T̂_i|, F1 their harmonic mean.
- ranking, which does not depend on the threshold: nodes by falling score, equals in taxonomy order; means
  over documents. precision_at_k: gold nodes among the first k, divided by k. r_precision (Manning, Raghavan
  and Schütze 2008, "Introduction to Information Retrieval", 8.4): gold nodes among the first |T_i|, divided
  by |T_i|; 0 for a document without labels.
- repath: the same with P̂_i in place of P_i; gold stays as given. Its hierarchical block is the plain one,
  because closing twice changes nothing. It is the set of consistency=raise: a parent's score is at least its
  children's.
- cap: the same with the nodes of P_i whose ancestors are all in P_i; gold stays as given. It is the set of
  consistency=cap: a child's score is at most its parent's.

If gold and predicted sets are closed, micro-F1 is the hierarchical F1 to the bit: equal integers, equal
division.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from hblm.taxonomy import Taxonomy

AS_PREDICTED, CLOSED, CAPPED = 0, 1, 2  # the three predicted sets: positions on every axis of sets
RANKS = (1, 3, 5)  # the k of precision_at_k

_COUNTED = (
    *("n_documents", "_node_counts", "_closed_hits", "_closed_support"),
    *("_violations", "_exact", "_samples", "_ranking"),
)

FREQUENCIES = (0, 1, 10, 100, 1_000)  # where each bucket of by_frequency begins, in training documents


class ScoreCounter:
    """Stream the counts of one view: memory is O(nodes), whatever the number of documents.

    Counts are integers and do not depend on the batches. The sums of samples scores and ranking are float64,
    and their last digits depend on the batches.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        threshold: float,
        device: torch.device | str = "cpu",
        train_support: Sequence[int] | None = None,
        ranking: bool = True,
    ) -> None:
        """Start at zero documents.

        Args:
            taxonomy: the nodes.
            threshold: a node is predicted when its score is at least this.
            device: must have float64 (count on the CPU for mps).
            train_support: each node's documents in the training split; None leaves by_frequency out.
            ranking: False leaves the ranking out, which is most of the work.
        """
        self.taxonomy = taxonomy
        self.train_support = train_support
        self.ranking = ranking
        self.threshold = float(threshold)
        self.device = torch.device(device)
        self.n_documents = 0
        n_scopes = len(taxonomy.levels) + 1  # the levels, and last all of them together
        self._level_sizes = [len(level) for level in taxonomy.levels]
        self._level_parents = [
            torch.tensor(taxonomy.level_parents(level), device=self.device)
            for level in range(1, len(taxonomy.levels))
        ]
        self._node_counts = self._zeros(7, len(taxonomy))  # predicted of each set, hits of each, support
        self._closed_hits = self._zeros(2)  # with gold closed, of the sets CLOSED and CAPPED
        self._closed_support = self._zeros()
        self._violations = self._zeros()  # of AS_PREDICTED: the other sets have none
        self._exact = self._zeros(3, n_scopes)
        self._samples = self._zeros(3, 3, n_scopes).double()  # precision, recall, F1 of each set
        self._ranking = self._zeros(1 + len(RANKS)).double()  # r_precision, precision at each rank

    def update(self, scores: Float[Tensor, "batch nodes"], targets: Shaped[Tensor, "batch nodes"]) -> None:
        """Count a batch; targets are 0/1 of any dtype. This does not wait for a GPU.

        Raises:
            ValueError: the two shapes differ, or their width is not the number of nodes.
        """
        if scores.shape != targets.shape or scores.shape[1:] != (len(self.taxonomy),):
            raise ValueError(
                f"scores {tuple(scores.shape)} and targets {tuple(targets.shape)} must both be "
                f"(batch, {len(self.taxonomy)}): one column per node"
            )
        scores = scores.to(self.device)
        given = torch.stack([scores >= self.threshold, targets.to(self.device, torch.bool)])
        closed = self._close(given)
        predicted, gold = torch.stack([given[0], closed[0], self._anchored(given[0])]), given[1:]
        # One conversion, then sums in the same type: summing bool would convert a copy for each sum.
        counted = torch.cat([predicted, predicted & gold, gold]).to(torch.int32)
        self.n_documents += len(scores)
        self._node_counts += counted.sum(1, dtype=torch.int32)
        self._closed_hits += (predicted[CLOSED:] & closed[1]).sum((1, 2))
        self._closed_support += closed[1].sum()
        self._count_documents(counted)
        if self.ranking:
            self._count_ranks(scores, counted[6])

    def counted(self) -> dict[str, Any]:
        """Return the counts on the CPU, which another counter of the same view can add."""
        counts = {name: getattr(self, name) for name in _COUNTED}
        return {name: each.cpu() if isinstance(each, Tensor) else each for name, each in counts.items()}

    def add(self, counted: Mapping[str, Any]) -> None:
        """Add the counts of another counter, of other documents."""
        for name, each in counted.items():
            more = each.to(self.device) if isinstance(each, Tensor) else each
            setattr(self, name, getattr(self, name) + more)

    def compute(self) -> dict[str, Any]:
        """Return every score as plain numbers, ready for JSON.

        Raises:
            ValueError: no document was counted; scores of 0 would look like those of a bad model.
        """
        self._refuse_nothing()
        return {
            "documents": self.n_documents,
            "threshold": self.threshold,
            **self._blocks(AS_PREDICTED),
            **({"ranking": self._ranks()} if self.ranking else {}),
            "repath": self._blocks(CLOSED),
            "cap": self._blocks(CAPPED),
        }

    def node_table(self) -> list[dict[str, Any]]:
        """Return one row per node in taxonomy order, of the predictions as they are.

        Raises:
            ValueError: no document was counted.
        """
        self._refuse_nothing()
        predicted, hits, support = self._node_counts[[AS_PREDICTED, 3 + AS_PREDICTED, 6]].tolist()
        rows = []
        for level, positions in enumerate(self.taxonomy.levels):
            for at in positions:
                precision, recall, f1 = _precision_recall_f1(hits[at], predicted[at], support[at])
                rows.append(
                    {
                        "id": self.taxonomy.nodes[at].id,
                        "name": self.taxonomy.nodes[at].name,
                        "level": level,
                        "support": support[at],
                        "predicted": predicted[at],
                        "precision": precision,
                        "recall": recall,
                        "f1": f1,
                    }
                )
        return rows

    def _zeros(self, *shape: int) -> Int[Tensor, "..."]:
        return torch.zeros(shape, dtype=torch.int64, device=self.device)

    def _refuse_nothing(self) -> None:
        if not self.n_documents:
            raise ValueError("no document was counted, so there are no scores: is the split empty?")

    def _close(self, sets: Bool[Tensor, "sets batch nodes"]) -> Bool[Tensor, "sets batch nodes"]:
        """Return the sets with all ancestors: from the deepest up, a parent takes its children's maximum."""
        closed = sets.clone()
        # The same bytes as uint8: scatter_reduce takes twice the time on bool.
        levels = torch.split(closed.view(torch.uint8), self._level_sizes, -1)
        for level in range(len(levels) - 1, 0, -1):
            parents = self._level_parents[level - 1].expand(levels[level].shape)
            levels[level - 1].scatter_reduce_(-1, parents, levels[level], "amax")
        return closed

    def _anchored(self, predicted: Bool[Tensor, "batch nodes"]) -> Bool[Tensor, "batch nodes"]:
        """Return the predicted nodes whose ancestors are all predicted: from the roots down."""
        levels = [*torch.split(predicted, self._level_sizes, -1)]
        for level, parents in enumerate(self._level_parents, 1):
            levels[level] = levels[level] & levels[level - 1].index_select(1, parents)
        return torch.cat(levels, 1)

    def _count_ranks(self, scores: Float[Tensor, "batch nodes"], gold: Int[Tensor, "batch nodes"]) -> None:
        """Add each document's r_precision and precision_at_k."""
        support = gold.sum(1, keepdim=True)
        n_nodes = gold.shape[1]
        # Rank only as deep as needed; on a GPU rank all nodes, because reading that number waits for it.
        deepest = max([RANKS[-1], *support.flatten().tolist()]) if self.device.type == "cpu" else n_nodes
        # The bits of floats are in the order of the floats, reversed below 0. With the position in the low
        # bits no two keys are equal: topk keeps equals in order, 20 times faster than a stable sort.
        bits = (scores.float() + 0.0).view(torch.int32)  # -0.0 + 0.0 is 0.0
        bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
        keys = (bits.long() << 32) | torch.arange(n_nodes - 1, -1, -1, device=self.device)
        order = keys.topk(min(deepest, n_nodes), dim=1).indices
        hits = gold.gather(1, order).cumsum(1)
        ranking = [hits.gather(1, (support - 1).clamp(min=0)) / support.clamp(min=1).double()]
        ranking += [hits[:, min(rank, n_nodes) - 1, None].double() / rank for rank in RANKS]
        self._ranking += torch.cat(ranking, 1).sum(0)

    def _ranks(self) -> dict[str, float]:
        names = ["r_precision", *(f"precision_at_{rank}" for rank in RANKS)]
        return dict(zip(names, (self._ranking / self.n_documents).tolist(), strict=True))

    def _count_documents(self, counted: Int[Tensor, "rows batch nodes"]) -> None:
        """Add the counts of each document: samples scores, exact matches, violations."""
        levels = torch.split(counted, self._level_sizes, -1)
        per_level = [level.sum(-1, dtype=torch.int32) for level in levels]
        counts = torch.stack([*per_level, torch.stack(per_level).sum(0)], -1)
        predicted, hits, support = counts[:3], counts[3:6], counts[6:]
        self._exact += ((hits == predicted) & (hits == support)).sum(1)
        # A parent is missing exactly where closing adds a node.
        self._violations += (predicted[AS_PREDICTED, :, -1] < predicted[CLOSED, :, -1]).sum()
        # Where a denominator is 0 there is no hit either: with a denominator of 1, 0/0 is 0.
        ratios = [hits / predicted.clamp(min=1).double(), hits / support.clamp(min=1).double()]
        ratios.append(2 * hits / (predicted + support).clamp(min=1).double())
        self._samples += torch.stack(ratios).sum(2)

    def _blocks(self, which: int) -> dict[str, Any]:
        """Return overall, per_level and hierarchical of one of the three predicted sets."""
        overall = self._scope(which, -1, range(len(self.taxonomy)))
        n_violations = int(self._violations) if which == AS_PREDICTED else 0
        overall["violation_rate"] = n_violations / self.n_documents
        closed = CAPPED if which == CAPPED else CLOSED  # the set closed under ancestors
        n_closed, n_hits = int(self._node_counts[closed].sum()), int(self._closed_hits[closed - CLOSED])
        hierarchical = _precision_recall_f1(n_hits, n_closed, int(self._closed_support))
        return {
            "overall": overall,
            "per_level": [
                {"level": level, "nodes": len(positions), **self._scope(which, level, positions)}
                for level, positions in enumerate(self.taxonomy.levels)
            ],
            "hierarchical": dict(zip(("precision", "recall", "f1"), hierarchical, strict=True)),
            **({} if self.train_support is None else {"by_frequency": self._by_frequency(which)}),
        }

    def _by_frequency(self, which: int) -> list[dict[str, Any]]:
        """Return the macro-F1 of each bucket of nodes, the rarest first."""
        assert self.train_support is not None
        rows = zip(self.train_support, *self._node_counts[[3 + which, which, 6]].tolist(), strict=True)
        f1 = [(seen, _precision_recall_f1(*counts)[2]) for seen, *counts in rows]
        buckets = []
        for low, above in itertools.zip_longest(FREQUENCIES, FREQUENCIES[1:]):
            inside = [score for seen, score in f1 if seen >= low and (above is None or seen < above)]
            if inside:
                name = f"{low}+" if above is None else f"{low}" if above == low + 1 else f"{low}-{above - 1}"
                buckets.append({"train_documents": name, "nodes": len(inside), "macro_f1": fmean(inside)})
        return buckets

    def _scope(self, which: int, scope: int, nodes: range) -> dict[str, Any]:
        """Return the scores over some nodes: one level, or (scope -1) all."""
        anchored = CLOSED if which == CLOSED else CAPPED  # its hits are those below predicted ancestors
        rows = self._node_counts[[3 + which, which, 6, 3 + anchored], nodes.start : nodes.stop]
        hits, predicted, support, anchored_hits = rows.tolist()
        per_node = [_precision_recall_f1(*counts) for counts in zip(hits, predicted, support, strict=True)]
        precision, recall, f1 = zip(*per_node, strict=True)
        micro = _precision_recall_f1(sum(hits), sum(predicted), sum(support))
        c_micro = _precision_recall_f1(sum(anchored_hits), sum(predicted), sum(support))
        c_nodes = zip(anchored_hits, predicted, support, strict=True)
        samples = (self._samples[:, which, scope] / self.n_documents).tolist()
        supported = [score for score, n_gold in zip(f1, support, strict=True) if n_gold]
        return {
            "micro_precision": micro[0],
            "micro_recall": micro[1],
            "micro_f1": micro[2],
            "macro_precision": fmean(precision),
            "macro_recall": fmean(recall),
            "macro_f1": fmean(f1),
            "macro_f1_supported": fmean(supported) if supported else 0.0,
            "c_micro_precision": c_micro[0],
            "c_micro_recall": c_micro[1],
            "c_micro_f1": c_micro[2],
            "c_macro_f1": fmean(_precision_recall_f1(*counts)[2] for counts in c_nodes),
            "samples_precision": samples[0],
            "samples_recall": samples[1],
            "samples_f1": samples[2],
            "exact_match": int(self._exact[which, scope]) / self.n_documents,
            "support": sum(support),
        }


def _precision_recall_f1(hits: int, predicted: int, support: int) -> tuple[float, float, float]:
    """Return the three scores from integer counts: for micro, macro and hierarchical scores alike."""
    return _ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, predicted + support)


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else 0.0
