"""The scores at every threshold are those that a count at each of them gives."""

from __future__ import annotations

import pytest
import torch

from hblm.engine.metrics import ScoreCounter
from hblm.engine.thresholds import GRID, ThresholdCounter
from hblm.taxonomy import Node, Taxonomy

TAXONOMY = Taxonomy(
    Node(name, name, parent)
    for name, parent in [("a", None), ("b", None), ("a1", "a"), ("a2", "a"), ("b1", "b")]
)


def documents(seed: int, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores, many of them on a threshold to the bit, and targets; the last node is in neither."""
    draw = torch.Generator().manual_seed(seed)
    scores = torch.rand(count, 5, generator=draw)
    scores[::2] = torch.tensor(GRID)[(19 * scores[::2]).long()]
    targets = torch.rand(count, 5, generator=draw) < 0.3
    scores[:, 4], targets[:, 4] = 0.0, False
    return scores, targets


@pytest.mark.parametrize("seed", range(5))
def test_each_row_is_what_a_counter_at_that_threshold_gives(seed):
    scores, targets = documents(seed)
    counter = ThresholdCounter(TAXONOMY)
    counter.update(scores, targets)
    rows = counter.table()
    assert [found["threshold"] for found in rows] == list(GRID)
    for found in rows:
        expected = ScoreCounter(TAXONOMY, found["threshold"])
        expected.update(scores, targets)
        overall = expected.compute()["overall"]
        assert found["micro_f1"] == overall["micro_f1"]
        assert found["macro_f1"] == pytest.approx(overall["macro_f1"], rel=1e-12)
        nodes = [node["predicted"] for node in expected.node_table()]
        assert found["predicted"] == [sum(nodes[:2]), sum(nodes[2:])]


def test_batches_and_counters_of_several_processes_add_up():
    scores, targets = documents(0)
    whole, first, second = (ThresholdCounter(TAXONOMY) for _ in range(3))
    whole.update(scores, targets)
    for part in (slice(0, 7), slice(7, 7), slice(7, 20)):
        first.update(scores[part], targets[part].float())
    second.update(scores[20:], targets[20:])
    total = ThresholdCounter(TAXONOMY)
    for part in (first, second):
        total.add(part.counted())
    assert total.table() == whole.table()


def test_the_state_does_not_grow_with_documents():
    counter = ThresholdCounter(TAXONOMY)
    before = counter.counted().shape
    for seed in range(3):
        counter.update(*documents(seed))
    assert counter.counted().shape == before == (2, 5, 20)


def test_of_no_document_every_score_is_0():
    assert {row["micro_f1"] for row in ThresholdCounter(TAXONOMY).table()} == {0.0}
