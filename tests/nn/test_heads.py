"""Properties that every head option has, what each one computes, and where its output starts."""

import pytest
import torch
import torch.nn.functional as F

from hblm.nn.heads import HEADS, set_priors

DIM, N_OUT = 16, 5
SIZES = {  # parameters for I inputs, P hidden, n outputs
    "mlp": lambda i, p, n: (i * p + p) + (p * n + n),
    "wide_mlp": lambda i, p, n: (i * 4 * p + 4 * p) + (4 * p * n + n),
    "residual_mlp": lambda i, p, n: 2 * i + (i * p + p) + (p * i + i) + (i * n + n),
    "linear": lambda i, p, n: i * n + n,
}

every_head = pytest.mark.parametrize("name", HEADS)


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def make(name, inputs=DIM, dropout=0.0):
    torch.manual_seed(0)
    return HEADS[name](inputs, DIM, N_OUT, dropout)


def test_every_option_has_a_size_here():
    assert HEADS.keys() == SIZES.keys()


@every_head
@pytest.mark.parametrize("inputs", [DIM, 3 * DIM])
def test_maps_inputs_to_one_logit_a_node(name, inputs):
    head = make(name, inputs)
    assert head(draw(7, inputs)).shape == (7, N_OUT)
    assert sum(p.numel() for p in head.parameters()) == SIZES[name](inputs, DIM, N_OUT)


@every_head
def test_documents_do_not_see_one_another(name):
    head, features = make(name), draw(7, DIM)
    alone = torch.cat([head(features[i : i + 1]) for i in range(7)])
    torch.testing.assert_close(head(features), alone)


@every_head
def test_output_is_the_last_layer(name):
    head = make(name)
    with torch.no_grad():
        head.output.weight.zero_()
        head.output.bias.copy_(torch.arange(N_OUT))
    assert torch.equal(head(draw(7, DIM)), torch.arange(N_OUT).float().expand(7, N_OUT))


@every_head
def test_dropout_acts_inside_and_only_in_training(name):
    head, features = make(name, dropout=0.5), draw(7, DIM)
    same_in_training = torch.equal(head(features), head(features))
    assert same_in_training == (name == "linear")
    head.eval()
    assert torch.equal(head(features), head(features))
    assert torch.equal(head(features), make(name).eval()(features))


@pytest.mark.parametrize("name", ["mlp", "wide_mlp"])
def test_mlp_formula(name):
    head, x = make(name), draw(7, DIM)
    torch.testing.assert_close(head(x), head.output(F.gelu(head.hidden(x))))


def test_residual_mlp_formula():
    head, x = make("residual_mlp", 3 * DIM), draw(7, 3 * DIM)
    normal = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    expected = head.output(x + head.residual(F.gelu(head.hidden(normal))))
    torch.testing.assert_close(head(x), expected)


@every_head
def test_prior_replaces_the_bias_and_scales_the_weights(name):
    head, other = make(name), make(name)
    prior = torch.linspace(-6, 1, N_OUT)
    below = make(name)
    set_priors([below, head], torch.cat([-prior, prior]))
    assert torch.equal(below.output.bias, -prior)
    assert torch.equal(head.output.bias, prior)
    torch.testing.assert_close(head.output.weight, 0.1 * other.output.weight)
    assert all(p.requires_grad and p.is_leaf for p in head.parameters())
    features = draw(7, DIM)
    expected = prior + 0.1 * (other(features) - other.output.bias)
    torch.testing.assert_close(head(features), expected)


def test_priors_must_be_those_of_the_heads():
    with pytest.raises(RuntimeError, match="split"):
        set_priors([make("mlp")], torch.zeros(N_OUT + 1))
