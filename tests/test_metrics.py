"""Scores against scikit-learn, hiclass and plain sets, on random forests with random gold and predictions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import torch
from hiclass import metrics as hiclass
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from hblm.metrics import ScoreCounter
from hblm.taxonomy import Node, Taxonomy

patient = settings(deadline=None, max_examples=50)  # a deadline would measure who else uses the machine

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

    def counted(self) -> ScoreCounter:
        counter = ScoreCounter(self.taxonomy, 0.5)
        counter.update(self.scores(), self.targets())
        return counter

    def computed(self) -> dict[str, Any]:
        return self.counted().compute()

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


# --- against independent implementations


@patient
@given(cases())
def test_precision_recall_and_f1_are_scikit_learns(case: Case) -> None:
    computed = case.computed()
    for variant, block in ((case, computed), (case.repathed(), computed["repath"])):
        for scores, gold, predicted in scopes(variant, block):
            for average in ("micro", "macro", "samples"):
                # Without the padding: its node would count in a mean over nodes.
                labels = list(range(gold.shape[1])) if average == "macro" else None
                *expected, _ = precision_recall_fscore_support(
                    padded(gold), padded(predicted), average=average, labels=labels, zero_division=0
                )
                found = [scores[f"{average}_{name}"] for name in ("precision", "recall", "f1")]
                assert found == pytest.approx(expected, abs=1e-12)


@patient
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


@patient
@given(cases())
def test_exact_match_is_scikit_learns_subset_accuracy(case: Case) -> None:
    computed = case.computed()
    for variant, block in ((case, computed), (case.repathed(), computed["repath"])):
        for scores, gold, predicted in scopes(variant, block):
            assert scores["exact_match"] == accuracy_score(padded(gold), padded(predicted))


@patient
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


@patient
@given(cases())
def test_violation_rate_counts_documents_with_a_missing_parent(case: Case) -> None:
    n_broken = sum(
        any(case.parents[node] >= 0 and case.parents[node] not in nodes for node in nodes)
        for nodes in case.predicted
    )
    assert case.computed()["overall"]["violation_rate"] == n_broken / len(case.predicted)


@patient
@given(cases())
def test_repath_scores_the_closed_prediction_against_the_gold_as_given(case: Case) -> None:
    expected = case.repathed().computed()
    for block in ("overall", "per_level", "hierarchical"):
        assert case.computed()["repath"][block] == expected[block]


@patient
@given(cases())
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


# --- identities


@patient
@given(cases())
def test_closed_sets_make_micro_f1_the_hierarchical_f1_to_the_bit(case: Case) -> None:
    computed = case.closed().computed()
    overall, hierarchical = computed["overall"], computed["hierarchical"]
    for name in ("precision", "recall", "f1"):
        assert overall[f"micro_{name}"] == hierarchical[name]
    assert overall["violation_rate"] == 0
    repath = computed.pop("repath")
    assert {name: computed[name] for name in repath} == repath


@patient
@given(cases())
def test_closing_twice_changes_nothing(case: Case) -> None:
    computed = case.computed()
    assert computed["repath"]["hierarchical"] == computed["hierarchical"]
    assert computed["repath"]["overall"]["violation_rate"] == 0
    assert case.closed().computed()["hierarchical"] == computed["hierarchical"]


# --- the stream


@patient
@given(cases(), st.data())
def test_any_split_into_batches_gives_the_scores_of_one_batch(case: Case, data: st.DataObject) -> None:
    n_documents = len(case.gold)
    cuts = sorted(data.draw(st.lists(st.integers(0, n_documents), max_size=5)))  # equal cuts: an empty batch
    counter = ScoreCounter(case.taxonomy, 0.5)
    for start, stop in zip([0, *cuts], [*cuts, n_documents], strict=True):
        counter.update(case.scores()[start:stop], case.targets()[start:stop])
    once = case.counted()
    assert counter.node_table() == once.node_table()
    streamed, whole = leaves(counter.compute()), leaves(once.compute())
    assert streamed == pytest.approx(whole, rel=1e-12)
    for name in whole:
        assert "samples_" in name or streamed[name] == whole[name]  # only the float64 sums may differ


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
    counter = BY_HAND.counted()
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
