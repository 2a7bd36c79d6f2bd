"""Properties that every head option has, what each one computes, and where its output starts."""

import math

import pytest
import torch
import torch.nn.functional as F

from hblm.nn.heads import HEADS, OutputStart, label_rows, start_output

DIM, N_OUT = 16, 5
SIZES = {  # parameters for I inputs, P hidden, n outputs
    "mlp": lambda i, p, n: 2 * i + (i * p + p) + 2 * p + (p * n + n),
    "wide_mlp": lambda i, p, n: 2 * i + (i * 4 * p + 4 * p) + 2 * 4 * p + (4 * p * n + n),
    "residual_mlp": lambda i, p, n: 2 * i + (i * p + p) + (p * i + i) + (i * n + n),
    "linear": lambda i, p, n: i * n + n,
}

every_head = pytest.mark.parametrize("name", HEADS)


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def make(name, inputs=DIM, dropout=0.0):
    torch.manual_seed(0)
    return HEADS[name](inputs, DIM, N_OUT, dropout)


@torch.no_grad()
def stir(head):
    """Give every parameter a value, as training does."""
    generator = torch.Generator().manual_seed(2)
    for parameter in head.parameters():
        parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return head


def normed(x, norm):
    """Return what a LayerNorm gives, by its formula (Ba et al. 2016)."""
    scaled = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    return norm.weight * scaled + norm.bias


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
    head, features = stir(make(name, dropout=0.5)), draw(7, DIM)
    same_in_training = torch.equal(head(features), head(features))
    assert same_in_training == (name == "linear")
    head.eval()
    assert torch.equal(head(features), head(features))
    assert torch.equal(head(features), stir(make(name)).eval()(features))


@pytest.mark.parametrize("name", ["mlp", "wide_mlp"])
@pytest.mark.parametrize("inputs", [DIM, 3 * DIM])
def test_mlp_formula(name, inputs):
    head, x = stir(make(name, inputs)), draw(7, inputs)
    hidden = normed(F.gelu(normed(x, head.norm) @ head.hidden.weight.T + head.hidden.bias), head.hidden_norm)
    torch.testing.assert_close(head(x), hidden @ head.output.weight.T + head.output.bias)


def test_residual_mlp_formula():
    head, x = stir(make("residual_mlp", 3 * DIM)), draw(7, 3 * DIM)
    hidden = F.gelu(normed(x, head.norm) @ head.hidden.weight.T + head.hidden.bias)
    read = x + hidden @ head.residual.weight.T + head.residual.bias
    torch.testing.assert_close(head(x), read @ head.output.weight.T + head.output.bias)


@pytest.mark.parametrize("inputs", [DIM, 3 * DIM])
def test_a_new_residual_mlp_is_a_linear_head(inputs):
    head, x = make("residual_mlp", inputs), draw(7, inputs)
    assert torch.equal(head(x), head.output(x))


@every_head
def test_logits_are_as_fine_as_float32_under_autocast(name):
    """bfloat16 has 8 bits: near -6 its values are 1/32 apart, and scores of many documents are equal."""
    head, features = make(name), draw(512, DIM)
    start_output([head], OutputStart(torch.full((N_OUT,), -6.0)))
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(features)
    assert logits.dtype == torch.float32
    assert len(logits.unique()) > 0.9 * logits.numel()


@every_head
def test_prior_replaces_the_bias_and_scales_the_weights(name):
    head, other = make(name), make(name)
    prior = torch.linspace(-6, 1, N_OUT)
    below = make(name)
    start_output([below, head], OutputStart(torch.cat([-prior, prior])))
    assert torch.equal(below.output.bias, -prior)
    assert torch.equal(head.output.bias, prior)
    torch.testing.assert_close(head.output.weight, 0.1 * other.output.weight)
    assert all(p.requires_grad and p.is_leaf for p in head.parameters())
    features = draw(7, DIM)
    expected = prior + 0.1 * (other(features) - other.output.bias)
    torch.testing.assert_close(head(features), expected)


def test_priors_must_be_those_of_the_heads():
    with pytest.raises(RuntimeError, match="split"):
        start_output([make("mlp")], OutputStart(torch.zeros(N_OUT + 1)))


@every_head
def test_a_row_points_where_the_features_of_its_text_do(name):
    """By the formula, node by node: (g / m) (u_j - mean u) / |u_j - mean u| plus a tenth of PyTorch's."""
    below, head = make(name), make(name)
    stir(head)
    untouched = [0.1 * each.output.weight.detach() for each in (below, head)]
    texts, gain = draw(2 * N_OUT, DIM), 4.0
    start_output([below, head], OutputStart(torch.zeros(2 * N_OUT), texts, gain), texts)
    read = torch.cat([below.features(texts[:N_OUT]), head.features(texts[N_OUT:])]).detach().double()
    mean, size = read.mean(0), sum(vector.norm() for vector in read) / (2 * N_OUT)
    for level, each in enumerate((below, head)):
        for position, row in enumerate(each.output.weight.detach()):
            centred = read[N_OUT * level + position] - mean
            expected = gain / size * centred / centred.norm()
            torch.testing.assert_close(
                (row - untouched[level][position]).double(), expected, rtol=1e-4, atol=1e-6
            )
            assert math.isclose(expected.norm(), gain / size, rel_tol=1e-9)


@every_head
def test_a_text_gets_its_own_node(name):
    head = make(name)
    texts = draw(N_OUT, DIM)
    start_output([head], OutputStart(torch.zeros(N_OUT), texts, gain=6.0), texts)
    assert torch.equal(head(texts).argmax(1), torch.arange(N_OUT))


def test_texts_that_are_all_alike_leave_the_prior():
    same = draw(1, DIM).expand(N_OUT, DIM)
    assert torch.equal(label_rows([same], 6.0), torch.zeros(N_OUT, DIM))
    other = same.clone()
    other[0] += 5.0
    rows = label_rows([other[:2], other[2:]], 6.0)
    torch.testing.assert_close(rows.norm(dim=1), torch.full((N_OUT,), 6.0) / other.norm(dim=1).mean())


def test_a_level_of_one_node_has_a_direction():
    """The mean is over the nodes of all levels."""
    rows = label_rows([draw(1, DIM), draw(N_OUT, DIM)], 6.0)
    assert rows[0].norm() > 0
