"""Scores against scikit-learn, hiclass and plain sets, on random forests with random gold and predictions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import torch
from hiclass import metrics as hiclass
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, ndcg_score, precision_recall_fscore_support

from hblm.engine.metrics import ScoreCounter
from hblm.inference.consistency import consistent
from hblm.taxonomy import Node, Taxonomy

Sets = list[set[int]]


@dataclass(frozen=True)
class Case:
    """A forest by the position of each node's parent (-1: a root), and each document's nodes as positions."""

    parents: list[int]
    gold: Sets
    predicted: Sets

    # Not made in a strategy: hypothesis forbids `random` there, and a runtime type checker may use it.
    @cached_property
    def taxonomy(self) -> Taxonomy:
        return Taxonomy(
            Node(f"n{node}", f"name {node % 3}", None if parent < 0 else f"n{parent}")
            for node, parent in enumerate(self.parents)
        )

    def counted(self, train_support: Sequence[int] | None = None) -> ScoreCounter:
        counter = ScoreCounter(self.taxonomy, 0.5, train_support=train_support)
        counter.update(self.scores(), self.targets())
        return counter

    def computed(self, train_support: Sequence[int] | None = None) -> dict[str, Any]:
        return self.counted(train_support).compute()

    def ranking(self, scores: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
        """Return the ranking block of these scores; only the gold of the case counts."""
        return counted(self, scores, threshold)["ranking"]

    def targets(self) -> torch.Tensor:
        return torch.from_numpy(self.matrix(self.gold))

    def scores(self) -> torch.Tensor:
        return torch.from_numpy(np.where(self.matrix(self.predicted), 0.7, 0.3))

    def matrix(self, sets: Sets) -> np.ndarray:
        return np.array([[node in nodes for node in range(len(self.parents))] for nodes in sets])

    def path(self, node: int) -> list[int]:
        """Return the positions from a root down to the node."""
        parent = self.parents[node]
        return [node] if parent < 0 else [*self.path(parent), node]

    def close(self, sets: Sets) -> Sets:
        return [{above for node in nodes for above in self.path(node)} for nodes in sets]

    def closed(self) -> Case:
        return Case(self.parents, self.close(self.gold), self.close(self.predicted))

    def repathed(self) -> Case:
        return Case(self.parents, self.gold, self.close(self.predicted))

    def capped(self) -> Case:
        """Keep the predicted nodes whose ancestors are all predicted."""
        kept = [{node for node in nodes if {*self.path(node)} <= nodes} for nodes in self.predicted]
        return Case(self.parents, self.gold, kept)

    def blocks(self, train_support: Sequence[int] | None = None) -> list[tuple[Case, dict[str, Any]]]:
        """Return each predicted set as a case of its own, with the scores that are computed of it."""
        computed = self.computed(train_support)
        return [(self, computed), (self.repathed(), computed["repath"]), (self.capped(), computed["cap"])]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw an uneven forest of 1-6 levels and 1-8 documents; gold and predictions closed or not."""
    parents: list[int] = []
    above = range(0)
    for _ in range(draw(st.integers(1, 6))):
        n_nodes = draw(st.integers(1, 4))
        parents += [draw(st.sampled_from(above)) if above else -1 for _ in range(n_nodes)]
        above = range(len(parents) - n_nodes, len(parents))
    nodes = range(len(parents))
    gold = draw(st.lists(st.sets(st.sampled_from(nodes), max_size=6), min_size=1, max_size=8))
    # Every other choice is a gold node: otherwise hits are rare.
    predicted = [
        draw(st.sets(st.sampled_from(sorted(expected)) | st.sampled_from(nodes), max_size=6))
        if expected
        else draw(st.sets(st.sampled_from(nodes), max_size=2))
        for expected in gold
    ]
    case = Case(parents, gold, predicted)
    return Case(
        parents,
        case.close(gold) if draw(st.booleans()) else gold,
        case.close(predicted) if draw(st.booleans()) else predicted,
    )


def scopes(case: Case, block: dict[str, Any]) -> Iterator[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    """Yield the scores of overall and of each level, each with its columns of gold and prediction."""
    gold, predicted = case.matrix(case.gold), case.matrix(case.predicted)
    yield block["overall"], gold, predicted
    assert len(block["per_level"]) == len(case.taxonomy.levels)
    for level, scores in enumerate(block["per_level"]):
        positions = case.taxonomy.levels[level]
        assert (scores["level"], scores["nodes"]) == (level, len(positions))
        yield scores, gold[:, positions], predicted[:, positions]


def padded(columns: np.ndarray) -> np.ndarray:
    """Add a column without labels: scikit-learn takes a single column for a binary task."""
    return np.pad(columns, ((0, 0), (0, 1)))


def f1(hits: int, predicted: int, support: int) -> float:
    return 2 * hits / (predicted + support) if predicted + support else 0.0


def mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


BUCKETS = {
    "0": range(1),
    "1-9": range(1, 10),
    "10-99": range(10, 100),
    "100-999": range(100, 1_000),
    "1000+": range(1_000, 1_000_000),
}


def draw_train_support(data: st.DataObject, case: Case) -> list[int]:
    """Draw how many training documents bear each node, mostly at the edge of a bucket."""
    edges = st.sampled_from([0, 1, 9, 10, 99, 100, 999, 1_000, 999_999])
    n_nodes = len(case.parents)
    return data.draw(st.lists(edges | st.integers(0, 2_000), min_size=n_nodes, max_size=n_nodes))


def counted(case: Case, scores: np.ndarray, threshold: float) -> dict[str, Any]:
    """Return what is computed of these scores; only the gold of the case counts."""
    counter = ScoreCounter(case.taxonomy, threshold)
    counter.update(torch.from_numpy(scores), case.targets())
    return counter.compute()


def draw_scores(data: st.DataObject, case: Case) -> np.ndarray:
    """Draw scores with few distinct values: many ties, down to documents whose scores are all equal."""
    n_values = data.draw(st.sampled_from([1, 2, 3, 6]))
    shuffled = np.random.default_rng(data.draw(st.integers(0, 99)))
    return shuffled.integers(0, n_values, (len(case.gold), len(case.parents))) / n_values


def leaves(tree: Any, at: str = "") -> dict[str, float]:
    """Return each number of nested dicts and lists under its path."""
    if isinstance(tree, dict):
        return {key: leaf for name in tree for key, leaf in leaves(tree[name], f"{at}/{name}").items()}
    if isinstance(tree, list):
        return leaves(dict(enumerate(tree)), at)
    return {at: tree}


# --- a case computed by hand

SCIENCE, ARTS, LAW, PHYSICS, CHEMISTRY, QUANTA = range(6)
BY_HAND = Case(
    parents=[-1, -1, -1, SCIENCE, SCIENCE, PHYSICS],
    gold=[{SCIENCE, PHYSICS, QUANTA}, {SCIENCE, CHEMISTRY, ARTS}, {ARTS}, set()],
    predicted=[{SCIENCE, PHYSICS}, {SCIENCE, PHYSICS, QUANTA}, {QUANTA}, set()],
)
# node        support  predicted  hits      F1   predicted when closed  F1 then
# science           2          2     2       1                       3      4/5
# arts              2          0     0       0                       0        0
# law               0          0     0       0                       0        0
# physics           1          2     1     2/3                       3      1/2
# chemistry         1          0     0       0                       0        0
# quanta            1          2     0       0                       2        0
# together          7          6     3    6/13                       8     6/15


def test_scores_computed_by_hand() -> None:
    computed = BY_HAND.computed()
    assert (computed["documents"], computed["threshold"]) == (4, 0.5)
    assert computed["overall"] == pytest.approx(
        {
            "micro_precision": 3 / 6,
            "micro_recall": 3 / 7,
            "micro_f1": 6 / 13,
            "macro_precision": (1 + 1 / 2) / 6,
            "macro_recall": (1 + 1) / 6,
            "macro_f1": (1 + 2 / 3) / 6,
            "macro_f1_supported": (1 + 2 / 3) / 5,  # nobody writes about law
            "c_micro_precision": 3 / 6,  # no hit lacks an ancestor
            "c_micro_recall": 3 / 7,
            "c_micro_f1": 6 / 13,
            "c_macro_f1": (1 + 2 / 3) / 6,
            "samples_precision": (2 / 2 + 1 / 3 + 0 + 0) / 4,
            "samples_recall": (2 / 3 + 1 / 3 + 0 + 0) / 4,
            "samples_f1": (4 / 5 + 2 / 6 + 0 + 0) / 4,
            "exact_match": 1 / 4,  # the last document: nothing expected, nothing predicted
            "support": 7,
            "violation_rate": 1 / 4,  # the third document: quanta without physics
        }
    )
    assert computed["per_level"][0] == pytest.approx(
        {
            "level": 0,
            "nodes": 3,
            "micro_precision": 2 / 2,
            "micro_recall": 2 / 4,
            "micro_f1": 4 / 6,
            "macro_precision": 1 / 3,
            "macro_recall": 1 / 3,
            "macro_f1": 1 / 3,
            "macro_f1_supported": 1 / 2,
            "c_micro_precision": 2 / 2,
            "c_micro_recall": 2 / 4,
            "c_micro_f1": 4 / 6,
            "c_macro_f1": 1 / 3,
            "samples_precision": (1 + 1 + 0 + 0) / 4,
            "samples_recall": (1 + 1 / 2 + 0 + 0) / 4,
            "samples_f1": (1 + 2 / 3 + 0 + 0) / 4,
            "exact_match": 2 / 4,
            "support": 4,
        }
    )
    assert computed["hierarchical"] == pytest.approx({"precision": 3 / 8, "recall": 3 / 7, "f1": 6 / 15})
    repath = computed["repath"]
    assert repath["overall"]["macro_f1"] == pytest.approx((4 / 5 + 1 / 2) / 6)
    assert repath["overall"]["micro_f1"] == repath["hierarchical"]["f1"] == 6 / 15
    cap = computed["cap"]  # without quanta in the third document
    assert cap["overall"]["micro_f1"] == cap["hierarchical"]["f1"] == 6 / 12
    assert cap["overall"]["macro_f1"] == computed["overall"]["macro_f1"]  # quanta is hit nowhere


def test_c_metrics_computed_by_hand() -> None:
    case = Case(
        BY_HAND.parents,
        gold=[{SCIENCE, PHYSICS, QUANTA}, {SCIENCE, PHYSICS}, {SCIENCE, CHEMISTRY}, {ARTS}, {QUANTA}],
        predicted=[
            {SCIENCE, QUANTA},
            {PHYSICS},
            {SCIENCE, CHEMISTRY},
            {ARTS, PHYSICS},
            {SCIENCE, PHYSICS, QUANTA},
        ],
    )
    # Of the hits, quanta in the first document lacks physics, and physics in the second lacks science. Quanta
    # in the last document counts: its ancestors are predicted, if not expected.
    #
    # node        support  predicted  hits  C-hits  C-F1   closed: predicted  hits    F1
    # science           3          3     2       2   4/6                   5     3   6/8
    # arts              1          1     1       1     1                   1     1     1
    # law               0          0     0       0     0                   0     0     0
    # physics           2          3     1       0     0                   4     2   4/6
    # chemistry         1          1     1       1     1                   1     1     1
    # quanta            2          2     2       1   1/2                   2     2     1
    # together          9         10     7       5                        13     9
    expected = [
        # precision, recall, F1, macro-F1: all nodes, then each level
        (5 / 10, 5 / 9, 10 / 19, (4 / 6 + 1 + 0 + 0 + 1 + 1 / 2) / 6),
        (3 / 4, 3 / 4, 6 / 8, (4 / 6 + 1 + 0) / 3),
        (1 / 4, 1 / 3, 2 / 7, (0 + 1) / 2),
        (1 / 2, 1 / 2, 2 / 4, 1 / 2),
    ]
    computed = case.computed()
    found = [computed["overall"], *computed["per_level"]]
    names = ("c_micro_precision", "c_micro_recall", "c_micro_f1", "c_macro_f1")
    assert [[scores[name] for name in names] for scores in found] == [pytest.approx(row) for row in expected]
    assert computed["overall"]["micro_f1"] == pytest.approx(14 / 19)
    repath = computed["repath"]["overall"]
    assert [repath[name] for name in names] == pytest.approx(
        [9 / 13, 9 / 9, 18 / 22, (6 / 8 + 1 + 0 + 4 / 6 + 1 + 1) / 6]
    )


def test_ranking_computed_by_hand() -> None:
    gold: Sets = [{SCIENCE, PHYSICS, QUANTA}, {ARTS, QUANTA}, {LAW}, set()]
    scores = np.array(
        [
            [0.9, 0.1, 0.2, 0.8, 0.3, 0.7],  # science, physics, quanta, chemistry, law, arts
            [0.5, 0.5, 0.5, 0.5, 0.5, 0.5],  # all equal: taxonomy order, so that arts is second, quanta last
            [0.2, 0.6, 0.6, 0.1, 0.6, 0.0],  # arts, law, chemistry (equal), science, physics, quanta
            [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],  # nothing expected: 0 everywhere
        ]
    )
    assert Case(BY_HAND.parents, gold, gold).ranking(scores) == pytest.approx(
        {
            "r_precision": (3 / 3 + 1 / 2 + 0 / 1 + 0) / 4,
            "precision_at_1": (1 + 0 + 0 + 0) / 4,
            "precision_at_3": (3 / 3 + 1 / 3 + 1 / 3 + 0) / 4,
            "precision_at_5": (3 / 5 + 1 / 5 + 1 / 5 + 0) / 4,
        },
        rel=1e-12,
    )


def test_ranks_beyond_the_last_node_hold_no_gold() -> None:
    both = Case([-1, -1], [{0, 1}, {1}], [{0}, {0}])
    # Both nodes are all there is; divided by k all the same. The second document puts the wrong one first.
    assert both.ranking(np.array([[0.1, 0.9], [0.9, 0.1]])) == pytest.approx(
        {
            "r_precision": (2 / 2 + 0 / 1) / 2,
            "precision_at_1": (1 + 0) / 2,
            "precision_at_3": (2 / 3 + 1 / 3) / 2,
            "precision_at_5": (2 / 5 + 1 / 5) / 2,
        },
        rel=1e-12,
    )


def test_by_frequency_computed_by_hand() -> None:
    # F1 as in the table above: science 1, arts 0, law 0, physics 2/3, chemistry 0, quanta 0;
    # closed, science has 4/5 and physics 1/2. No node has 10 to 99 training documents.
    computed = BY_HAND.computed([1_000, 999, 0, 9, 100, 1])
    assert computed["by_frequency"] == [
        {"train_documents": "0", "nodes": 1, "macro_f1": 0.0},
        {"train_documents": "1-9", "nodes": 2, "macro_f1": pytest.approx((2 / 3 + 0) / 2)},
        {"train_documents": "100-999", "nodes": 2, "macro_f1": (0 + 0) / 2},
        {"train_documents": "1000+", "nodes": 1, "macro_f1": 1.0},
    ]
    repath = computed["repath"]["by_frequency"]
    assert [bucket["macro_f1"] for bucket in repath] == pytest.approx([0, (1 / 2 + 0) / 2, 0, 4 / 5])


@pytest.mark.parametrize(
    ("seen", "bucket"),
    [
        *[(0, "0"), (1, "1-9"), (9, "1-9"), (10, "10-99"), (99, "10-99")],
        *[(100, "100-999"), (999, "100-999"), (1_000, "1000+"), (1_000_000, "1000+")],
    ],
)
def test_each_bucket_begins_and_ends_at_a_power_of_ten(seen: int, bucket: str) -> None:
    computed = BY_HAND.computed([seen] * 6)
    assert computed["by_frequency"] == [
        {"train_documents": bucket, "nodes": 6, "macro_f1": computed["overall"]["macro_f1"]}
    ]


# --- against independent implementations


@given(cases())
@pytest.mark.slow
def test_precision_recall_and_f1_are_scikit_learns(case: Case) -> None:
    for variant, block in case.blocks():
        for scores, gold, predicted in scopes(variant, block):
            for average in ("micro", "macro", "samples"):
                # Without the padding: its node would count in a mean over nodes.
                labels = list(range(gold.shape[1])) if average == "macro" else None
                *expected, _ = precision_recall_fscore_support(
                    padded(gold), padded(predicted), average=average, labels=labels, zero_division=0
                )
                found = [scores[f"{average}_{name}"] for name in ("precision", "recall", "f1")]
                assert found == pytest.approx(expected, abs=1e-12)


@given(cases())
def test_supported_macro_f1_leaves_out_nodes_without_gold_labels(case: Case) -> None:
    for scores, gold, predicted in scopes(case, case.computed()):
        assert scores["support"] == gold.sum()
        if not gold.any():
            assert scores["macro_f1_supported"] == 0
            continue
        _, _, expected, _ = precision_recall_fscore_support(
            padded(gold),
            padded(predicted),
            average="macro",
            labels=np.flatnonzero(gold.any(0)),
            zero_division=0,
        )
        assert scores["macro_f1_supported"] == pytest.approx(expected, abs=1e-12)


@given(cases())
def test_exact_match_is_scikit_learns_subset_accuracy(case: Case) -> None:
    for variant, block in case.blocks():
        for scores, gold, predicted in scopes(variant, block):
            assert scores["exact_match"] == accuracy_score(padded(gold), padded(predicted))


@given(cases())
def test_hierarchical_scores_are_hiclasss(case: Case) -> None:
    found = case.computed()["hierarchical"]
    if not any(case.gold) or not any(case.predicted):  # there hiclass divides by zero
        assert found["f1"] == 0
        return
    # hiclass takes documents x paths x levels, "" for nothing: here one path per node, down to that node.
    n_paths = max(map(len, [*case.gold, *case.predicted]))
    n_levels = len(case.taxonomy.levels)

    def paths(nodes: set[int]) -> list[list[str]]:
        filled = [[f"n{at}" for at in case.path(node)] for node in sorted(nodes)]
        filled += [[] for _ in range(n_paths - len(nodes))]
        return [down + [""] * (n_levels - len(down)) for down in filled]

    gold, predicted = list(map(paths, case.gold)), list(map(paths, case.predicted))
    assert found["precision"] == pytest.approx(hiclass.precision(gold, predicted))
    assert found["recall"] == pytest.approx(hiclass.recall(gold, predicted))
    assert found["f1"] == pytest.approx(hiclass.f1(gold, predicted, zero_division=0))


@given(cases())
def test_c_metrics_count_hits_whose_whole_path_is_predicted(case: Case) -> None:
    for variant, block in case.blocks():
        pairs = list(zip(variant.gold, variant.predicted, strict=True))
        blocks = [(block["overall"], range(len(case.parents)))]
        blocks += zip(block["per_level"], case.taxonomy.levels, strict=True)
        for scores, nodes in blocks:
            hits = [
                sum(node in gold and {*case.path(node)} <= found for gold, found in pairs) for node in nodes
            ]
            predicted = [sum(node in found for _, found in pairs) for node in nodes]
            support = [sum(node in gold for gold, _ in pairs) for node in nodes]
            n_hits, n_predicted, n_gold = sum(hits), sum(predicted), sum(support)
            assert scores["c_micro_precision"] == (n_hits / n_predicted if n_predicted else 0)
            assert scores["c_micro_recall"] == (n_hits / n_gold if n_gold else 0)
            assert scores["c_micro_f1"] == f1(n_hits, n_predicted, n_gold)
            per_node = [f1(*counts) for counts in zip(hits, predicted, support, strict=True)]
            assert scores["c_macro_f1"] == pytest.approx(mean(per_node), abs=1e-12)


@given(cases(), st.data())
def test_ranking_is_that_of_sorted_lists(case: Case, data: st.DataObject) -> None:
    scores = draw_scores(data, case)
    r_precision, at = [], {1: [], 3: [], 5: []}
    for gold, row in zip(case.gold, scores.tolist(), strict=True):
        ranked = sorted(range(len(row)), key=lambda node: (-row[node], node))
        r_precision.append(len(gold & {*ranked[: len(gold)]}) / len(gold) if gold else 0.0)
        for rank, precisions in at.items():
            precisions.append(len(gold & {*ranked[:rank]}) / rank)
    expected = {f"precision_at_{rank}": mean(precisions) for rank, precisions in at.items()}
    assert case.ranking(scores) == pytest.approx(expected | {"r_precision": mean(r_precision)}, abs=1e-12)


@given(cases(), st.integers(0, 99))
def test_ranking_without_ties_is_scikit_learns(case: Case, seed: int) -> None:
    n_documents, n_nodes = len(case.gold), len(case.parents)
    ranks = np.random.default_rng(seed).permuted(np.tile(np.arange(n_nodes), (n_documents, 1)), axis=1)
    found = case.ranking(1 - ranks / n_nodes)
    gold = case.matrix(case.gold)

    # With k predicted nodes in each document, precision is precision at k, as long as there are k nodes.
    def samples(predicted: np.ndarray) -> list[float]:
        return precision_recall_fscore_support(
            padded(gold), padded(predicted), average="samples", zero_division=0
        )

    for k in (1, 3, 5):
        if k <= n_nodes:
            assert found[f"precision_at_{k}"] == pytest.approx(samples(ranks < k)[0], abs=1e-12)
    # With as many predicted as gold nodes, precision and recall are R-precision, the break-even point.
    even = pytest.approx(found["r_precision"], abs=1e-12)
    assert [*samples(ranks < gold.sum(1, keepdims=True))[:3]] == [even] * 3
    # The gain of the first node is all that counts at k = 1. The padding ranks last: every score is above 0.
    first = ndcg_score(padded(gold).astype(int), padded(1 - ranks / n_nodes), k=1)
    assert found["precision_at_1"] == pytest.approx(first, abs=1e-12)


@given(cases(), st.data())
def test_by_frequency_is_the_mean_f1_of_each_bucket(case: Case, data: st.DataObject) -> None:
    seen = draw_train_support(data, case)
    for variant, block in case.blocks(seen):
        per_node = []
        for node in range(len(case.parents)):
            gold = [node in nodes for nodes in variant.gold]
            predicted = [node in nodes for nodes in variant.predicted]
            hits = sum(both for both in map(min, gold, predicted))
            per_node.append(f1(hits, sum(predicted), sum(gold)))
        expected = []
        for name, documents in BUCKETS.items():
            inside = [score for score, n in zip(per_node, seen, strict=True) if n in documents]
            if inside:
                score = pytest.approx(mean(inside), abs=1e-12)
                expected.append({"train_documents": name, "nodes": len(inside), "macro_f1": score})
        assert block["by_frequency"] == expected


@given(cases())
def test_violation_rate_counts_documents_with_a_missing_parent(case: Case) -> None:
    n_broken = sum(
        any(case.parents[node] >= 0 and case.parents[node] not in nodes for node in nodes)
        for nodes in case.predicted
    )
    assert case.computed()["overall"]["violation_rate"] == n_broken / len(case.predicted)


@given(cases())
def test_repath_scores_the_closed_prediction_and_cap_the_capped_one(case: Case) -> None:
    """Gold stays as given."""
    for variant, found in case.blocks()[1:]:
        expected = variant.computed()
        for block in ("overall", "per_level", "hierarchical"):
            assert found[block] == expected[block]


@given(cases())
@pytest.mark.slow
def test_node_table_is_scikit_learns_per_class_report(case: Case) -> None:
    gold, predicted = case.matrix(case.gold), case.matrix(case.predicted)
    expected = precision_recall_fscore_support(padded(gold), padded(predicted), average=None, zero_division=0)
    rows = case.counted().node_table()
    assert [row["id"] for row in rows] == [node.id for node in case.taxonomy.nodes]
    for at, (row, node) in enumerate(zip(rows, case.taxonomy.nodes, strict=True)):
        assert row == pytest.approx(
            {
                "id": node.id,
                "name": node.name,
                "level": len(case.path(at)) - 1,
                "support": expected[3][at],
                "predicted": predicted[:, at].sum(),
                "precision": expected[0][at],
                "recall": expected[1][at],
                "f1": expected[2][at],
            }
        )


@given(cases(), st.data())
def test_a_threshold_on_consistent_scores_gives_repath_and_cap(case: Case, data: st.DataObject) -> None:
    scores = draw_scores(data, case)
    threshold = data.draw(st.sampled_from([*np.unique(scores), 2.0]))
    computed = counted(case, scores, threshold)
    for key, how in (("repath", "raise"), ("cap", "cap")):
        expected = counted(case, consistent(scores, case.taxonomy, how), threshold)
        assert computed[key] == {block: expected[block] for block in computed[key]}


# --- identities


@given(cases())
def test_closed_sets_make_micro_f1_the_hierarchical_f1_to_the_bit(case: Case) -> None:
    computed = case.closed().computed()
    overall, hierarchical = computed["overall"], computed["hierarchical"]
    for name in ("precision", "recall", "f1"):
        assert overall[f"micro_{name}"] == hierarchical[name]
    assert overall["violation_rate"] == 0
    repath = computed.pop("repath")
    assert {name: computed[name] for name in repath} == repath == computed["cap"]


@given(cases())
def test_closing_twice_changes_nothing(case: Case) -> None:
    computed = case.computed()
    assert computed["repath"]["hierarchical"] == computed["hierarchical"]
    assert computed["repath"]["overall"]["violation_rate"] == 0
    assert computed["cap"]["overall"]["violation_rate"] == 0
    assert case.closed().computed()["hierarchical"] == computed["hierarchical"]


@given(cases())
def test_c_metrics_differ_from_plain_ones_only_by_orphans(case: Case) -> None:
    computed = case.computed()
    pairs = [(f"micro_{name}", f"c_micro_{name}") for name in ("precision", "recall", "f1")]
    pairs.append(("macro_f1", "c_macro_f1"))
    for block in (computed, computed["repath"], computed["cap"]):
        for scores in (block["overall"], *block["per_level"]):
            assert all(scores[constrained] <= scores[plain] for plain, constrained in pairs)
            if block["overall"]["violation_rate"] == 0:  # a closed prediction; repath and cap always are
                assert all(scores[constrained] == scores[plain] for plain, constrained in pairs)


def test_a_root_predicted_below_nothing_is_no_orphan() -> None:
    # A forest of roots, and then a chain predicted without its root: each hit counts, then none.
    roots = Case([-1, -1, -1], [{0, 2}], [{0, 2}]).computed()["overall"]
    assert roots["c_micro_f1"] == roots["micro_f1"] == 1
    chain = Case([-1, 0, 1, 2], [{0, 1, 2, 3}], [{1, 2, 3}]).computed()["overall"]
    assert (chain["micro_precision"], chain["c_micro_precision"], chain["c_macro_f1"]) == (1, 0, 0)


@given(cases(), st.data())
def test_ranking_depends_on_the_order_of_scores_alone(case: Case, data: st.DataObject) -> None:
    scores = draw_scores(data, case)
    found = case.ranking(scores)
    for threshold in (0.0, 2.0):  # every node is predicted, and none
        assert case.ranking(scores, threshold) == found
    assert case.ranking(3 * scores - 7) == found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_thousand_equal_scores_keep_taxonomy_order(dtype: torch.dtype) -> None:
    n_nodes = 1_000  # a sort that is not stable mixes this many, if not a handful
    counter = ScoreCounter(Taxonomy(Node(f"n{node}", "", None) for node in range(n_nodes)), 0.5)
    targets = torch.zeros(2, n_nodes)
    targets[0, [0, 2, 4, 998]] = 1
    targets[1, 500:510] = 1
    scores = torch.full((2, n_nodes), 0.5, dtype=dtype)
    scores[1, 498:] = 0.75  # two blocks of equals: node 498 is first, and the gold third to twelfth
    counter.update(scores, targets)
    assert counter.compute()["ranking"] == pytest.approx(
        {
            "r_precision": (2 / 4 + 8 / 10) / 2,
            "precision_at_1": (1 + 0) / 2,
            "precision_at_3": (2 / 3 + 1 / 3) / 2,
            "precision_at_5": (3 / 5 + 3 / 5) / 2,
        },
        rel=1e-12,
    )


def test_ranking_is_not_rounded_to_float32() -> None:
    ranking = Case([-1, -1, -1], [{0}], [{0}]).ranking(np.array([[0.9, 0.2, 0.1]]))
    assert (ranking["precision_at_3"], ranking["precision_at_5"]) == (1 / 3, 1 / 5)


@given(cases(), st.data())
def test_buckets_weighted_by_their_nodes_give_macro_f1(case: Case, data: st.DataObject) -> None:
    computed = case.computed(draw_train_support(data, case))
    for block in (computed, computed["repath"], computed["cap"]):
        buckets = block["by_frequency"]
        assert sum(bucket["nodes"] for bucket in buckets) == len(case.parents)
        total = sum(bucket["nodes"] * bucket["macro_f1"] for bucket in buckets)
        expected = pytest.approx(block["overall"]["macro_f1"], abs=1e-12)
        assert total / len(case.parents) == expected


def test_without_training_documents_there_is_no_by_frequency() -> None:
    computed, plain = BY_HAND.computed([0] * 6), BY_HAND.computed()
    assert "by_frequency" not in plain | plain["repath"] | plain["cap"]
    for block in (computed, computed["repath"], computed["cap"]):
        del block["by_frequency"]
    assert computed == plain  # and nothing else changes
    assert "ranking" not in plain["repath"] | plain["cap"]  # it is of scores, not of sets


# --- the stream


@given(cases(), st.data())
def test_any_split_into_batches_gives_the_scores_of_one_batch(case: Case, data: st.DataObject) -> None:
    n_documents = len(case.gold)
    cuts = sorted(data.draw(st.lists(st.integers(0, n_documents), max_size=5)))  # equal cuts: an empty batch
    train_support = draw_train_support(data, case)
    scores = torch.from_numpy(draw_scores(data, case))
    counter, once = (ScoreCounter(case.taxonomy, 0.5, train_support=train_support) for _ in range(2))
    once.update(scores, case.targets())
    for start, stop in zip([0, *cuts], [*cuts, n_documents], strict=True):
        counter.update(scores[start:stop], case.targets()[start:stop])
    assert counter.node_table() == once.node_table()
    streamed, whole = leaves(counter.compute()), leaves(once.compute())
    assert streamed.keys() == whole.keys()
    for name in whole:
        of_documents = "samples_" in name or name.startswith("/ranking/")  # only the float64 sums may differ
        expected = pytest.approx(whole[name], rel=1e-12) if of_documents else whole[name]
        assert streamed[name] == expected


def test_computing_leaves_the_stream_open() -> None:
    counter = BY_HAND.counted()
    first = counter.compute()
    assert counter.compute() == first
    counter.update(BY_HAND.scores(), BY_HAND.targets())
    again = counter.compute()
    assert again["overall"]["support"] == 2 * first["overall"]["support"]
    assert again["overall"]["macro_f1"] == first["overall"]["macro_f1"]


def test_the_state_does_not_grow_with_documents() -> None:
    def size(value: object) -> int:
        if isinstance(value, torch.Tensor):
            return value.untyped_storage().nbytes()
        return sum(map(size, value)) if isinstance(value, list) else 1

    counter = ScoreCounter(BY_HAND.taxonomy, 0.5)
    before = {name: size(value) for name, value in vars(counter).items()}
    for _ in range(3):
        counter.update(BY_HAND.scores(), BY_HAND.targets())
    assert {name: size(value) for name, value in vars(counter).items()} == before


def test_updating_never_waits_for_the_device() -> None:
    # A meta tensor has no values: whatever reads one back, or mixes devices, raises.
    counter = ScoreCounter(BY_HAND.taxonomy, 0.5, device="meta")
    counter.update(BY_HAND.scores().to("meta"), BY_HAND.targets().to("meta"))
    assert counter.n_documents == 4


def test_the_callers_tensors_are_neither_changed_nor_kept() -> None:
    scores, targets = BY_HAND.scores(), BY_HAND.targets()
    targets[:] = torch.eye(6, dtype=torch.bool)[[QUANTA, PHYSICS, CHEMISTRY, QUANTA]]  # not closed
    copies = scores.clone(), targets.clone()
    counter = ScoreCounter(BY_HAND.taxonomy, 0.5)
    counter.update(scores, targets)
    assert torch.equal(scores, copies[0])
    assert torch.equal(targets, copies[1])
    before = counter.compute()
    scores.fill_(1.0)
    targets.fill_(True)
    assert counter.compute() == before


def test_gradients_and_inference_mode_do_not_matter() -> None:
    counter = ScoreCounter(BY_HAND.taxonomy, 0.5)
    counter.update(BY_HAND.scores().requires_grad_(), BY_HAND.targets())
    with torch.inference_mode():
        counter.update(BY_HAND.scores(), BY_HAND.targets())
    counter.update(BY_HAND.scores(), BY_HAND.targets())
    assert counter.compute()["overall"] == pytest.approx(BY_HAND.computed()["overall"] | {"support": 21})
    tensors = [value for value in vars(counter).values() if isinstance(value, torch.Tensor)]
    assert not any(tensor.requires_grad for tensor in tensors)


# --- inputs


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_targets_may_be_zeros_and_ones_of_any_dtype(dtype: torch.dtype) -> None:
    counter = ScoreCounter(BY_HAND.taxonomy, 0.5)
    counter.update(BY_HAND.scores(), BY_HAND.targets().to(dtype))
    assert counter.compute() == BY_HAND.computed()


@pytest.mark.parametrize("threshold", [0.5, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_score_at_the_threshold_is_predicted(threshold: float, dtype: torch.dtype) -> None:
    at = torch.tensor(threshold, dtype=dtype)
    below = torch.nextafter(at, at.new_zeros(()))
    counter = ScoreCounter(Taxonomy([Node("a", "a", None), Node("b", "b", None)]), threshold)
    counter.update(torch.stack([at, below])[None], torch.tensor([[True, True]]))
    assert [row["predicted"] for row in counter.node_table()] == [1, 0]
    assert counter.compute()["threshold"] == threshold


def test_many_children_and_many_documents_do_not_overflow() -> None:
    # Neither count of this one batch fits a byte, and 512 children would be none there.
    n_children, n_documents = 512, 300
    children = [set(range(1, n_children + 1))] * n_documents
    computed = Case([-1] + [0] * n_children, children, children).computed()
    assert computed["overall"]["support"] == n_children * n_documents
    assert computed["overall"]["micro_f1"] == computed["overall"]["samples_f1"] == 1
    assert computed["overall"]["exact_match"] == computed["overall"]["violation_rate"] == 1
    expected = pytest.approx(n_children / (n_children + 1))
    assert computed["repath"]["overall"]["samples_precision"] == expected
    assert computed["repath"]["overall"]["micro_precision"] == expected


def test_scores_are_plain_numbers_ready_for_json() -> None:
    counter = BY_HAND.counted(train_support=[0, 1, 10, 100, 1_000, 10_000])
    for tree in (counter.compute(), counter.node_table()):
        assert json.loads(json.dumps(tree)) == tree
        assert {type(leaf) for leaf in leaves(tree).values()} <= {int, float, str}


def test_no_document_is_refused() -> None:
    counter = ScoreCounter(BY_HAND.taxonomy, 0.5)
    counter.update(BY_HAND.scores()[:0], BY_HAND.targets()[:0])
    for ask in (counter.compute, counter.node_table):
        with pytest.raises(ValueError, match="no document"):
            ask()


@pytest.mark.parametrize("shapes", [((2, 7), (2, 7)), ((2, 6), (1, 6)), ((2, 6), (2, 7)), ((6,), (6,))])
def test_a_wrong_shape_is_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    counter = ScoreCounter(BY_HAND.taxonomy, 0.5)
    # TypeError where signatures are checked as well.
    with pytest.raises((ValueError, TypeError)):
        counter.update(torch.zeros(shapes[0]), torch.zeros(shapes[1], dtype=torch.bool))
