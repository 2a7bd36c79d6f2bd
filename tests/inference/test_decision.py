"""Consistent scores and sets, and paths: against definitions written out, on drawn forests."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from hblm.inference.consistency import consistent
from hblm.inference.decision import Decision
from hblm.taxonomy import Node, Taxonomy


@st.composite
def drawn(draw):
    size = draw(st.integers(1, 12))
    parents = [None, *(draw(st.sampled_from([None, *map(str, range(at))])) for at in range(1, size))]
    taxonomy = Taxonomy(Node(str(at), f"name {at}", parent) for at, parent in enumerate(parents))
    cells = st.lists(st.integers(0, 20), min_size=size, max_size=size)
    scores = np.array(draw(st.lists(cells, min_size=1, max_size=4)), dtype=np.float32) / np.float32(20)
    return taxonomy, scores, np.float32(draw(st.integers(0, 20)) / 20)


def ancestors(taxonomy: Taxonomy, at: int) -> list[int]:
    return [taxonomy.index[above] for above in taxonomy.ancestors(taxonomy.nodes[at].id)]


def descendants(taxonomy: Taxonomy, at: int) -> list[int]:
    return [other for other in range(len(taxonomy)) if at in ancestors(taxonomy, other)]


@given(drawn())
def test_consistent_scores_are_extremes_over_subtree_and_path(case):
    taxonomy, scores, _ = case
    raised, capped = (consistent(scores, taxonomy, how) for how in ("raise", "cap"))
    for at in range(len(taxonomy)):
        np.testing.assert_array_equal(raised[:, at], scores[:, [at, *descendants(taxonomy, at)]].max(1))
        np.testing.assert_array_equal(capped[:, at], scores[:, [at, *ancestors(taxonomy, at)]].min(1))
    np.testing.assert_array_equal(consistent(scores, taxonomy, "none"), scores)
    with pytest.raises(ValueError, match="'rise' is not one of raise, cap, none"):
        consistent(scores, taxonomy, "rise")


@given(drawn(), st.sampled_from(["raise", "cap", "none"]))
def test_a_threshold_on_consistent_scores_gives_the_consistent_set(case, how):
    taxonomy, scores, threshold = case
    decided = Decision(taxonomy, float(threshold), consistency=how).decide(scores)
    np.testing.assert_array_equal(decided.scores >= threshold, decided.predicted)


@given(drawn(), st.sampled_from(["raise", "cap"]))
def test_no_node_is_predicted_without_its_ancestors(case, how):
    taxonomy, scores, _ = case
    each = np.linspace(0, 1, len(taxonomy))
    predicted = Decision(taxonomy, each, consistency=how).decide(scores).predicted
    for at in range(len(taxonomy)):
        for above in ancestors(taxonomy, at):
            assert not (predicted[:, at] & ~predicted[:, above]).any()


@given(drawn(), st.sampled_from(["raise", "cap", "none"]))
def test_paths_have_the_predicted_nodes_and_fall_in_score(case, how):
    taxonomy, scores, threshold = case
    decision = Decision(taxonomy, float(threshold), consistency=how)
    decided = decision.decide(scores)
    for row in range(len(scores)):
        paths = decision.paths(decided, row)
        assert {node for path in paths for node in path.nodes} == set(decision.nodes(decided, row))
        last = [path.scores[-1] for path in paths]
        assert last == sorted(last, reverse=True)
        for path in paths:
            positions = [taxonomy.index[node] for node in path.nodes]
            assert [taxonomy.parents[at] for at in positions[1:]] == positions[:-1]
            assert path.names == tuple(taxonomy.nodes[at].name for at in positions)
            assert [np.float32(each) for each in path.scores] == decided.scores[row, positions].tolist()


@given(drawn(), st.integers(1, 5))
def test_the_best_paths_end_at_the_best_leaves(case, count):
    taxonomy, scores, _ = case
    decision = Decision(taxonomy, 2.0, top_k=count, best=True)
    decided = decision.decide(scores)
    leaves = [at for at in range(len(taxonomy)) if at not in taxonomy.parents]
    for row in range(len(scores)):
        paths = decision.paths(decided, row)
        ranked = sorted(leaves, key=lambda at: (-decided.scores[row, at], at))[:count]
        assert [path.nodes[-1] for path in paths] == [taxonomy.nodes[at].id for at in ranked]
        assert all(taxonomy.nodes[taxonomy.index[path.nodes[0]]].parent is None for path in paths)


@pytest.fixture
def tree() -> Taxonomy:
    return Taxonomy([Node("a", "A", None), Node("b", "B", "a"), Node("c", "C", "b")])


def test_a_gap_divides_a_path_without_consistency(tree):
    decision = Decision(tree, 0.5, consistency="none")
    decided = decision.decide(np.array([[0.9, 0.1, 0.8]], dtype=np.float32))
    assert [path.nodes for path in decision.paths(decided, 0)] == [("a",), ("c",)]


def test_a_path_is_cut_at_its_least_score(tree):
    scores = np.array([[0.9, 0.7, 0.8]], dtype=np.float32)
    decided = Decision(tree, 0.5, consistency="none", least=0.75).decide(scores)
    assert decided.predicted.tolist() == [[True, False, False]]


def test_temperatures_leave_one_half_and_the_ends_where_they_are(tree):
    scores = np.array([[0.5, 0.0, 1.0], [0.9, 0.9, 0.9]], dtype=np.float32)
    decided = Decision(tree, 0.5, consistency="none", temperatures=[1.0, 2.0, 0.5]).decide(scores)
    np.testing.assert_allclose(decided.scores, [[0.5, 0, 1], [0.9, 0.75, 81 / 82]], atol=1e-6)


def test_a_threshold_is_compared_in_the_precision_of_scores(tree):
    decided = Decision(tree, 0.7, consistency="none").decide(np.full((1, 3), 0.7, dtype=np.float32))
    assert decided.predicted.all()
