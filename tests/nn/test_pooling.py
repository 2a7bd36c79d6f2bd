"""Properties that every pooling option has, and what each one computes."""

import pytest
import torch

from hblm.nn.pooling import POOLINGS

WIDTH = 16
FORMULAS = {
    "cls": lambda tokens: tokens[0],
    "last": lambda tokens: tokens[-1],
    "mean": lambda tokens: tokens.mean(0),
    "max": lambda tokens: tokens.max(0).values,
}
# A whole document, padding right, left and on both sides, holes, one token, no token at all.
MASK = torch.tensor(
    [
        [1, 1, 1, 1, 1],
        [1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1],
        [0, 1, 1, 1, 0],
        [0, 1, 0, 1, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0],
    ],
    dtype=torch.bool,
)
EMPTY = 6

every_pooling = pytest.mark.parametrize("name", POOLINGS)


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_every_option_has_a_formula_here():
    assert POOLINGS.keys() == FORMULAS.keys()


@every_pooling
def test_pools_the_unmasked_tokens(name):
    hidden = draw(*MASK.shape, WIDTH)
    pooled = POOLINGS[name]()(hidden, MASK)
    for document in range(EMPTY):
        expected = FORMULAS[name](hidden[document][MASK[document]])
        torch.testing.assert_close(pooled[document], expected)


@every_pooling
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(name, side):
    pooling, document = POOLINGS[name](), draw(1, 4, WIDTH)
    rest = torch.full((1, 3, WIDTH), 9.0)
    padded = torch.cat([rest, document] if side == "left" else [document, rest], dim=1)
    mask = torch.tensor([[side == "right"] * 3 + [True] + [side == "left"] * 3])
    alone = pooling(document, torch.ones(1, 4, dtype=torch.bool))
    torch.testing.assert_close(pooling(padded, mask), alone, rtol=0, atol=1e-6)


@every_pooling
def test_a_document_without_tokens_pools_to_zeros(name):
    pooled = POOLINGS[name]()(draw(*MASK.shape, WIDTH), MASK)
    assert torch.equal(pooled[EMPTY], torch.zeros(WIDTH))


@every_pooling
@pytest.mark.parametrize("masked", [float("nan"), float("inf"), -float("inf")])
def test_masked_tokens_are_read_neither_forward_nor_backward(name, masked):
    hidden = draw(*MASK.shape, WIDTH)
    hidden[~MASK] = masked
    hidden.requires_grad_()
    pooled = POOLINGS[name]()(hidden, MASK)
    assert pooled.isfinite().all()
    pooled.square().sum().backward()
    assert hidden.grad.isfinite().all()
    assert (hidden.grad[~MASK] == 0).all()
    assert all((hidden.grad[document] != 0).any() for document in range(EMPTY))


@every_pooling
def test_half_precision_is_pooled_as_exactly_as_it_can_be(name):
    """The result is rounded once: the same as pooling in float32 and rounding then."""
    hidden = draw(*MASK.shape, WIDTH).bfloat16()
    pooled = POOLINGS[name]()(hidden, MASK)
    assert pooled.dtype == torch.bfloat16
    assert torch.equal(pooled, POOLINGS[name]()(hidden.float(), MASK).bfloat16())


@every_pooling
def test_has_no_state(name):
    assert not POOLINGS[name]().state_dict()
