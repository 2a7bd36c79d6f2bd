"""What propagation methods, spaces and the FiLM layer compute, and where gradients flow."""

import pytest
import torch

from hblm.nn.film import PROPAGATIONS, Film, GatherSpace, ScatterMaxSpace, SourceSpace

DIM, N_SOURCE, BATCH, SCALE, THRESHOLD = 16, 5, 7, 0.2, 0.3
METHODS = [name for name, propagation in PROPAGATIONS.items() if propagation is not None]
SPACES = {
    "source": lambda: SourceSpace(N_SOURCE),
    "gather": lambda: GatherSpace([4, 0, 0]),
    "scatter": lambda: ScatterMaxSpace([3, 0, 3, 1, 0], 4),
}

every_method = pytest.mark.parametrize("method", METHODS)
every_space = pytest.mark.parametrize("space", SPACES)
both_detach = pytest.mark.parametrize("detach", [True, False])


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(method="sigmoid", space="source", detach=True, new=False):
    """Return a FiLM layer, with random generator weights unless new."""
    film = Film(
        width=DIM,
        propagation=PROPAGATIONS[method](THRESHOLD),
        space=SPACES[space](),
        scale=SCALE,
        detach_parent_signal=detach,
    )
    if not new:
        with torch.no_grad():
            film.generator.weight.copy_(draw(*film.generator.weight.shape, seed=1))
            film.generator.bias.copy_(draw(*film.generator.bias.shape, seed=2))
    return film


def test_the_methods():
    assert METHODS == ["sigmoid", "multi_hot", "logit"]
    assert PROPAGATIONS["none"] is None
    logits = torch.tensor([[-100.0, -1.0, 0.0, 0.5, 100.0]])
    signals = {name: PROPAGATIONS[name](0.5)(logits) for name in METHODS}
    torch.testing.assert_close(signals["sigmoid"], 1 / (1 + (-logits).exp()))
    assert signals["multi_hot"].tolist() == [[0.0, 0.0, 1.0, 1.0, 1.0]]  # a score of exactly 0.5 counts
    assert torch.equal(signals["logit"], logits)


def test_multi_hot_takes_the_training_threshold():
    logits = torch.tensor([[0.2, 0.29, 0.31, 0.6]]).logit()
    assert PROPAGATIONS["multi_hot"](0.3)(logits).tolist() == [[0.0, 0.0, 1.0, 1.0]]
    assert PROPAGATIONS["multi_hot"](0.59)(logits).tolist() == [[0.0, 0.0, 0.0, 1.0]]


def test_the_spaces():
    signal = torch.tensor([[1.0, -2.0, 3.0, -4.0, 5.0], [-1.0, -2.0, -3.0, -4.0, -5.0]])
    assert torch.equal(SPACES["source"]()(signal), signal)
    assert SPACES["gather"]()(signal).tolist() == [[5.0, 1.0, 1.0], [-5.0, -1.0, -1.0]]
    # Nodes 0, 1 and 3 have the children {1, 4}, {3} and {0, 2}; node 2 has none. A maximum may be negative.
    assert SPACES["scatter"]()(signal).tolist() == [[5.0, -4.0, 0.0, 3.0], [-2.0, -4.0, 0.0, -1.0]]


@every_space
def test_n_nodes_is_the_width_of_the_space(space):
    space = SPACES[space]()
    assert space(draw(BATCH, N_SOURCE)).shape == (BATCH, space.n_nodes)
    assert not space.state_dict()  # the taxonomy determines it


@every_method
@every_space
def test_is_the_identity_when_new(method, space):
    film, embedding = make(method, space, new=True), draw(BATCH, DIM)
    modulated, modulation = film(embedding, draw(BATCH, N_SOURCE))
    assert torch.equal(modulated, embedding)
    assert modulation == 0


@every_method
@every_space
def test_formula(method, space):
    film, embedding, logits = make(method, space), draw(BATCH, DIM), draw(BATCH, N_SOURCE, seed=3)
    bias = draw(N_SOURCE, seed=4)
    film.centre(bias)
    signal = {"sigmoid": torch.sigmoid, "logit": lambda z: z}.get(
        method, lambda z: (z.sigmoid() >= THRESHOLD).float()
    )
    c = film.space(signal(logits)) - film.space(signal(bias)[None])
    torch.testing.assert_close(film.condition(logits), c)
    gamma = c @ film.generator.weight[:DIM].T + film.generator.bias[:DIM]
    beta = c @ film.generator.weight[DIM:].T + film.generator.bias[DIM:]
    modulated, modulation = film(embedding, logits)
    torch.testing.assert_close(modulated, embedding * (1 + SCALE * gamma) + SCALE * beta)
    torch.testing.assert_close(modulation, (SCALE * gamma).abs().mean())
    assert not modulation.requires_grad


@every_method
@every_space
def test_no_news_at_the_bias_it_was_centred_at(method, space):
    film, bias = make(method, space), draw(N_SOURCE) - 1
    assert film.condition(bias.expand(BATCH, -1)).any() or space == "scatter"
    film.centre(bias)
    torch.testing.assert_close(
        film.condition(bias.expand(BATCH, -1)), torch.zeros(BATCH, film.space.n_nodes), rtol=0, atol=1e-6
    )


@every_method
def test_a_node_without_children_never_has_news(method):
    film = make(method, "scatter")
    film.centre(draw(N_SOURCE, seed=4))
    c = film.condition(5 * draw(BATCH, N_SOURCE))
    assert (c[:, 2] == 0).all()
    assert (c[:, [0, 1, 3]] != 0).any(0).all()


@every_method
@every_space
@both_detach
def test_detach_stops_gradients_and_nothing_else(method, space, detach):
    film = make(method, space, detach)
    embedding, logits = draw(BATCH, DIM).requires_grad_(), draw(BATCH, N_SOURCE, seed=3).requires_grad_()
    film(embedding, logits)[0].square().sum().backward()
    assert (embedding.grad != 0).all()
    assert (film.generator.weight.grad != 0).any()
    assert (film.generator.bias.grad != 0).all()
    flows = logits.grad is not None and bool((logits.grad != 0).any())
    assert flows == (not detach and method != "multi_hot")


@every_space
def test_the_maximum_and_the_gather_pass_their_gradient_to_the_nodes_they_read(space):
    film, logits = make("logit", space, detach=False), draw(BATCH, N_SOURCE).requires_grad_()
    film.condition(logits).sum().backward()
    if space == "source":
        expected = torch.ones(BATCH, N_SOURCE)
    elif space == "gather":
        expected = torch.tensor([2.0, 0.0, 0.0, 0.0, 1.0]).expand(BATCH, -1)
    else:
        expected = torch.zeros(BATCH, N_SOURCE)
        for children in ([1, 4], [3], [0, 2]):
            winner = torch.tensor(children)[logits[:, children].argmax(1)]
            expected[torch.arange(BATCH), winner] = 1
    assert torch.equal(logits.grad, expected)


@every_method
def test_small_modulations_survive_mixed_precision(method):
    film = make(method)
    embedding, logits = (draw(BATCH, n, seed=n).bfloat16() for n in (DIM, N_SOURCE))
    film.centre(draw(N_SOURCE, seed=4))
    assert torch.equal(film.condition(logits), film.condition(logits.float()))
    with torch.no_grad():
        film.generator.weight.mul_(1e-4)
        film.generator.bias.mul_(1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        modulated, modulation = film(embedding, logits)
    assert modulated.dtype == modulation.dtype == torch.float32
    change = film(embedding.float(), logits)[0] - embedding.float()
    assert 0 < change.abs().max() < 1 / 256  # where 1 + a γ would be 1 in bfloat16
    torch.testing.assert_close(modulated - embedding.float(), change, rtol=0.05, atol=1e-6)


def test_c0_is_kept_and_is_no_parameter():
    film, other = make(), make(new=True)
    film.centre(draw(N_SOURCE))
    assert "c0" in film.state_dict()
    assert "c0" not in dict(film.named_parameters())
    other.load_state_dict(film.state_dict())
    embedding, logits = draw(BATCH, DIM), draw(BATCH, N_SOURCE)
    assert torch.equal(other(embedding, logits)[0], film(embedding, logits)[0])
