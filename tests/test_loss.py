"""Losses against PyTorch's own, and what the trainer relies on."""

import pytest
import torch
import torch.nn.functional as F

from hblm.loss import LEVEL_REDUCTIONS, LOSSES, BceLoss, node_weights
from hblm.taxonomy import Node, Taxonomy

BATCH = 7
PARENTS = {"a": None, "b": None, "a1": "a", "b1": "b", "a2": "a", "b1x": "b1"}
TAXONOMY = Taxonomy(Node(node, node, parent) for node, parent in PARENTS.items())

every_loss = pytest.mark.parametrize("name", LOSSES)
every_reduction = pytest.mark.parametrize("level_reduction", LEVEL_REDUCTIONS)


def draw():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(BATCH, len(TAXONOMY), generator=generator)
    targets = torch.randint(0, 2, (BATCH, len(TAXONOMY)), generator=generator).float()
    return logits, targets


def test_node_weights():
    assert node_weights(TAXONOMY, "nodes").tolist() == pytest.approx([1 / 6] * 6)
    assert node_weights(TAXONOMY, "levels").tolist() == pytest.approx([1 / 6] * 2 + [1 / 9] * 3 + [1 / 3])
    with pytest.raises(ValueError, match="level_reduction='level' is not one of levels, nodes"):
        node_weights(TAXONOMY, "level")


def test_bce_over_nodes_is_the_mean_over_everything():
    logits, targets = draw()
    loss = BceLoss(TAXONOMY, "nodes")(logits, targets) / BATCH
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, targets))


def test_bce_over_levels_is_the_mean_of_level_means():
    logits, targets = draw()
    means = [
        F.binary_cross_entropy_with_logits(
            logits[:, level.start : level.stop], targets[:, level.start : level.stop]
        )
        for level in TAXONOMY.levels
    ]
    loss = BceLoss(TAXONOMY, "levels")(logits, targets) / BATCH
    torch.testing.assert_close(loss, torch.stack(means).mean())


@every_reduction
def test_bce_gradient_is_score_minus_target(level_reduction):
    logits, targets = draw()
    logits.requires_grad_()
    BceLoss(TAXONOMY, level_reduction)(logits, targets).backward()
    expected = (logits.detach().sigmoid() - targets) * node_weights(TAXONOMY, level_reduction)
    torch.testing.assert_close(logits.grad, expected)


@every_loss
@every_reduction
def test_is_a_sum_over_documents(name, level_reduction):
    """So micro-batches add up, however a step is split."""
    logits, targets = draw()
    loss_of = LOSSES[name](TAXONOMY, level_reduction)
    parts = [loss_of(logits[part], targets[part]) for part in (slice(0, 1), slice(1, 4), slice(4, None))]
    assert loss_of(logits, targets).shape == ()
    torch.testing.assert_close(torch.stack(parts).sum(), loss_of(logits, targets))


@every_loss
def test_is_computed_in_float32(name):
    logits, targets = draw()
    loss_of = LOSSES[name](TAXONOMY, "levels")
    half = loss_of(logits.bfloat16(), targets)
    assert half.dtype == torch.float32
    assert torch.equal(half, loss_of(logits.bfloat16().float(), targets))
    assert loss_of.to_scores(logits.bfloat16()).dtype == torch.float32
    assert torch.equal(loss_of.to_scores(logits.bfloat16()), loss_of.to_scores(logits.bfloat16().float()))


@every_loss
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.bfloat16])
def test_targets_may_have_any_dtype(name, dtype):
    logits, targets = draw()
    loss_of = LOSSES[name](TAXONOMY, "levels")
    assert torch.equal(loss_of(logits, targets.to(dtype)), loss_of(logits, targets))


@every_loss
def test_extreme_logits_give_finite_losses_and_gradients(name):
    logits, targets = draw()
    logits = (1e4 * logits).requires_grad_()
    loss = LOSSES[name](TAXONOMY, "levels")(logits, targets)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@every_loss
def test_scores_are_probabilities_in_the_order_of_logits(name):
    logits, _ = draw()
    scores = LOSSES[name](TAXONOMY, "levels").to_scores(logits)
    assert scores.shape == logits.shape
    assert ((scores > 0) & (scores < 1)).all()


def test_bce_scores_are_sigmoids():
    logits = torch.tensor([[0.0, 1.0, -1.0, 100.0, -100.0, 2.0]])
    torch.testing.assert_close(BceLoss(TAXONOMY, "nodes").to_scores(logits), 1 / (1 + (-logits).exp()))


@every_loss
def test_moves_to_a_device_and_leaves_nothing_in_a_checkpoint(name):
    loss_of = LOSSES[name](TAXONOMY, "levels")
    assert not loss_of.state_dict()
    logits, targets = (part.to("meta") for part in draw())
    assert loss_of.to("meta")(logits, targets).is_meta
