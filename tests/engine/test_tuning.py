"""Thresholds: what they maximise, on which documents, and what shrinking is worth."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
import torch

from hblm.engine import tuning
from hblm.engine.metrics import ScoreCounter
from hblm.engine.tuning import GRID, TuningCounter, raised
from hblm.taxonomy import Node, Taxonomy

TAXONOMY = Taxonomy(
    Node(name, name, parent)
    for name, parent in [("a", None), ("b", None), ("a1", "a"), ("b1", "b"), ("a2", "a"), ("a11", "a1")]
)
FLAT = Taxonomy(Node(f"n{number}", f"n{number}", None) for number in range(60))


def documents(count: int, seed: int = 0, taxonomy: Taxonomy = TAXONOMY, rarest: float = 0.02):
    """Draw labels, each node more frequent than the next, and scores whose best threshold differs by node."""
    draw = np.random.default_rng(seed)
    n_nodes = len(taxonomy)
    gold = draw.random((count, n_nodes)) < np.geomspace(0.4, rarest, n_nodes)
    shift = np.linspace(-1, 1, n_nodes)
    odds = draw.normal(np.where(gold, 1.0, -1.5) + shift, 1.3)
    return (1 / (1 + np.exp(-odds))).astype(np.float32), gold


def counter_of(scores, gold, taxonomy=TAXONOMY):
    counter = TuningCounter(taxonomy, len(gold))
    counter.update(np.arange(len(gold)), raised(scores, taxonomy), gold)
    return counter


def f1(predicted, gold, monitor):
    hits, total = (predicted & gold).sum(0), predicted.sum(0) + gold.sum(0)
    return 2 * hits.sum() / total.sum() if monitor == "micro_f1" else (2 * hits / np.maximum(total, 1)).mean()


def test_a_parents_raised_score_is_the_highest_below_it():
    scores, _ = documents(50)
    expected = scores.copy()
    for node in range(len(TAXONOMY) - 1, -1, -1):
        parent = TAXONOMY.parents[node]
        if parent >= 0:
            expected[:, parent] = np.maximum(expected[:, parent], expected[:, node])
    np.testing.assert_array_equal(raised(scores, TAXONOMY), expected)
    assert (expected != scores).any()


@pytest.mark.parametrize("threshold", [GRID[20], GRID[49], GRID[70]])
def test_raised_scores_reach_a_threshold_where_the_closed_set_has_the_node(threshold):
    scores, gold = documents(200)
    scores[::3] = threshold  # ties, to the bit
    counter = ScoreCounter(TAXONOMY, float(threshold))
    counter.update(torch.from_numpy(scores), torch.from_numpy(gold))
    predicted = raised(scores, TAXONOMY) >= threshold
    assert counter.compute()["repath"]["overall"]["micro_f1"] == pytest.approx(
        f1(predicted, gold, "micro_f1")
    )


@pytest.mark.parametrize("monitor", ["micro_f1", "macro_f1"])
def test_the_thresholds_for_all_and_of_levels_are_the_best_of_the_grid(monitor):
    scores, gold = documents(400)
    best = counter_of(scores, gold).tuned(monitor)
    above = raised(scores, TAXONOMY)
    of_all = [f1(above >= step, gold, monitor) for step in GRID]
    assert f1(above >= np.float32(best.everywhere), gold, monitor) == max(of_all)
    for level, threshold in zip(TAXONOMY.levels, best.level, strict=True):
        part = slice(level.start, level.stop)
        of_level = [f1(above[:, part] >= step, gold[:, part], monitor) for step in GRID]
        assert f1(above[:, part] >= np.float32(threshold), gold[:, part], monitor) == max(of_level)
    assert len(set(best.level)) > 1


@pytest.mark.parametrize("monitor", ["micro_f1", "macro_f1"])
def test_priors_reach_from_each_nodes_own_threshold_to_the_one_for_all(monitor):
    scores, gold = documents(400)
    counts = counter_of(scores, gold).counted().sum(0, dtype=np.int64)
    curves = tuning._Curves(counts)
    middle = curves.best_step(monitor)
    assert set(curves.node_steps(monitor, middle, inf)) == {middle}
    near, far = (np.abs(curves.node_steps(monitor, middle, k) - middle).sum() for k in (1000, 0))
    assert near < far
    above = raised(scores, TAXONOMY)
    own = GRID[curves.node_steps(monitor, middle, 0)]
    if monitor == "macro_f1":
        for node in range(len(TAXONOMY)):
            every = [f1(above[:, [node]] >= step, gold[:, [node]], monitor) for step in GRID]
            assert f1(above[:, [node]] >= own[node], gold[:, [node]], monitor) == max(every)
    assert f1(above >= own, gold, monitor) > f1(above >= GRID[middle], gold, monitor)


@pytest.mark.parametrize("monitor", ["micro_f1", "macro_f1"])
def test_a_node_without_labels_keeps_the_threshold_for_all(monitor):
    scores, gold = documents(300)
    gold[:, 4] = False
    scores[:, 4] = 0.0
    best = counter_of(scores, gold).tuned(monitor)
    assert best.node[4] == best.everywhere


def test_nodes_of_their_own_scale_get_thresholds_of_their_own():
    """With many documents a node each, cross-validation shrinks little."""
    best = counter_of(*documents(6000, rarest=0.2)).tuned("macro_f1")
    assert best.prior < inf
    assert best.node[-1] > best.everywhere > best.node[0]


@pytest.mark.parametrize("monitor", ["micro_f1", "macro_f1"])
def test_shrunk_thresholds_do_not_lose_on_other_documents_and_others_do(monitor):
    """Rare nodes that behave alike: nothing is to be gained, and a node's own best step is noise."""
    shrunk, unshrunk = [], []
    for seed in range(12):
        draw = np.random.default_rng(seed)
        gold = draw.random((1500, len(FLAT))) < 0.015
        scores = (1 / (1 + np.exp(-draw.normal(np.where(gold, 1.0, -3.0), 1.4)))).astype(np.float32)
        counter = counter_of(scores[:300], gold[:300], FLAT)
        best = counter.tuned(monitor)
        curves = tuning._Curves(counter.counted().sum(0, dtype=np.int64))
        own = GRID[curves.node_steps(monitor, curves.best_step(monitor), 0)]
        held_out = raised(scores[300:], FLAT), gold[300:]
        of_all, of_nodes, of_own = (
            f1(held_out[0] >= np.array(each, np.float32), held_out[1], monitor)
            for each in (best.everywhere, best.node, own)
        )
        shrunk.append(of_nodes - of_all)
        unshrunk.append(of_own - of_all)
    assert np.mean(shrunk) > -0.005
    assert np.mean(unshrunk) < -0.02


def test_batches_and_processes_add_up():
    scores, gold = documents(100)
    whole = counter_of(scores, gold)
    above = raised(scores, TAXONOMY)
    first, second, total = (TuningCounter(TAXONOMY, 100) for _ in range(3))
    order = np.random.default_rng(1).permutation(100)  # the longest come first
    for part, counter in ((order[:30], first), (order[30:30], first), (order[30:], second)):
        counter.update(part, above[part], gold[part])
    for counter in (first, second):
        total.add(counter.counted())
    assert total.tuned("macro_f1") == whole.tuned("macro_f1")


def test_the_state_does_not_grow_with_documents():
    assert counter_of(*documents(10)).counted().shape == counter_of(*documents(500)).counted().shape
