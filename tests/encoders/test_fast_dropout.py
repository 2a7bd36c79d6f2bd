"""Cheap dropout is dropout."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from hblm.encoders.fast_dropout import LaneDropout, attend, dropout, replace_dropout

COUNT = 400_003  # not a multiple of four lanes


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_rate_mean_and_variance(p):
    torch.manual_seed(0)
    found = dropout(torch.ones(COUNT), p)
    dropped = (found == 0).float().mean().item()
    assert abs(dropped - p) < 5 * math.sqrt(p * (1 - p) / COUNT)
    assert abs(found.mean().item() - 1) < 5 * math.sqrt(p / (1 - p) / COUNT)
    assert found.var().item() == pytest.approx(p / (1 - p), rel=0.03)
    assert found.max().item() == pytest.approx(1 / (1 - p), rel=1e-3)


def test_lanes_are_independent():
    torch.manual_seed(0)
    drops = (dropout(torch.ones(4 * 100_000), 0.1) == 0).float().view(-1, 4)
    correlation = torch.corrcoef(torch.cat([drops[:-1], drops[1:]], dim=1).T)
    assert (correlation - torch.eye(8)).abs().max() < 5 / math.sqrt(100_000)
    assert (drops.mean(0) - 0.1).abs().max() < 5 * math.sqrt(0.09 / 100_000)


def test_the_rescaling_is_exact_for_the_rounded_rate():
    """A rate that 16 bits cannot hold is rounded, and the others are rescaled by the rounded one."""
    kept = dropout(torch.ones(1000, dtype=torch.float64), 0.1).max().item()
    assert kept == 65536 / (65536 - 6554)


def test_the_seed_decides():
    values = torch.randn(1000)
    torch.manual_seed(5)
    one, other = dropout(values, 0.3), dropout(values, 0.3)
    torch.manual_seed(5)
    assert torch.equal(dropout(values, 0.3), one)
    assert not torch.equal(one, other)


def test_the_gradient_is_the_mask():
    values = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    found = dropout(values, 0.4)
    found.sum().backward()
    torch.testing.assert_close(values.grad * values, found)


@pytest.mark.parametrize("p", [0.0, 1.0, 1e-7, 1 - 1e-7])
def test_the_ends(p):
    expected = torch.ones(100) * (p < 0.5)
    assert torch.equal(dropout(torch.ones(100), p), expected)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2, 3, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_shape_and_type(shape, dtype):
    found = dropout(torch.ones(shape, dtype=dtype), 0.5)
    assert found.shape == shape
    assert found.dtype == dtype


def test_a_layout_does_not_matter():
    values = torch.randn(6, 4)
    torch.manual_seed(0)
    one = dropout(values.T, 0.5)
    torch.manual_seed(0)
    assert torch.equal(one, dropout(values.T.contiguous(), 0.5))


def test_modules_are_replaced_and_keep_their_settings():
    model = nn.Sequential(nn.Dropout(0.2), nn.Sequential(nn.Dropout(0.3), nn.Dropout1d(0.4))).eval()
    replace_dropout(model)
    assert [type(module) for module in (model[0], *model[1])] == [LaneDropout, LaneDropout, nn.Dropout1d]
    assert (model[0].p, model[1][0].p) == (0.2, 0.3)
    values = torch.ones(8, 100)
    assert torch.equal(model(values), values)
    assert not torch.equal(model.train()(values), values)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_without_drops_is_attention(masked):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 6, 8)
    mask = (
        (torch.arange(6) < torch.tensor([[6], [3]]))[:, None, None, :].expand(2, 1, 6, 6) if masked else None
    )
    found = attend(query, key, value, mask, p=0.0, scale=8**-0.5)
    torch.testing.assert_close(found, scaled_dot_product_attention(query, key, value, mask))


def test_attention_with_drops_has_the_same_mean():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 5, 8).expand(3, 4000, 2, 5, 8)
    found = attend(query, key, value, None, p=0.2, scale=0.3)
    expected = scaled_dot_product_attention(query[0], key[0], value[0], scale=0.3)
    assert (found.mean(0) - expected).abs().max() < 0.05
    reference = scaled_dot_product_attention(query, key, value, dropout_p=0.2, scale=0.3)
    torch.testing.assert_close(found.std(0), reference.std(0), rtol=0.1, atol=0.01)
