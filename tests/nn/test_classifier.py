"""The whole model on a tiny encoder: gradients, learning, freezing, padding, and the flat baseline."""

import functools
import itertools
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hblm.loss import BceLoss
from hblm.nn.cascade import DIRECTIONS, SPACES, Cascade
from hblm.nn.classifier import Classifier, Projection
from hblm.nn.film import PROPAGATIONS
from hblm.nn.heads import HEADS, prior_logits
from hblm.nn.pooling import POOLINGS
from hblm.taxonomy import Node, Taxonomy

DIM, N_WORDS = 16, 200
PARENTS = {
    "a": None,
    "b": None,
    "c": None,
    "a1": "a",
    "b1": "b",
    "a2": "a",
    "b1x": "b1",
    "a1x": "a1",
    "b1y": "b1",
}
TAXONOMY = Taxonomy(Node(node, node, parent) for node, parent in PARENTS.items())
LABELS = ["a", "b", "c", "a1", "a2", "b1x", "a1x", "b1y"]  # one document each

# `none` has no space
CONDITIONING = [
    *itertools.product([name for name in PROPAGATIONS if name != "none"], SPACES),
    ("none", "child_space"),
]

every_direction = pytest.mark.parametrize("direction", DIRECTIONS)
every_method = pytest.mark.parametrize("method", PROPAGATIONS)
every_head = pytest.mark.parametrize("head", HEADS)
every_pooling = pytest.mark.parametrize("pooling", POOLINGS)


class TinyEncoder(nn.Module):
    """One vector a word, and dropout.

    The vectors are long, so that first decisions differ between documents (or multi_hot has no news to tell).
    """

    def __init__(self, dropout):
        super().__init__()
        self.words = nn.Embedding(N_WORDS, DIM)
        nn.init.normal_(self.words.weight, std=4)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids, attention_mask):
        assert input_ids.shape == attention_mask.shape
        return SimpleNamespace(last_hidden_state=self.dropout(self.words(input_ids)))


def make(
    direction="top_down",
    method="sigmoid",
    space="child_space",
    head="mlp",
    pooling="mean",
    *,
    detach=True,
    project=True,
    trainable=True,
    dropout=0.0,
):
    torch.manual_seed(1)
    cascade = Cascade(
        TAXONOMY,
        direction=direction,
        width=DIM,
        head=head,
        head_dropout=dropout,
        propagation_method=method,
        propagation_space=space,
        film_scale=0.2,
        detach_parent_signal=detach,
        threshold=0.5,
    )
    projection = Projection(DIM, DIM, dropout) if project else nn.Identity()
    return Classifier(TinyEncoder(dropout), POOLINGS[pooling](), projection, cascade, trainable=trainable)


@functools.cache
def batch(n_documents=8):
    """Return documents of up to five words of their own (half of them of one), and targets."""
    ids = torch.randperm(N_WORDS, generator=torch.Generator().manual_seed(0)).view(-1, 5)[:n_documents]
    lengths = torch.tensor([5, 1, 4, 1, 3, 1, 2, 1]).repeat(n_documents // 8)
    mask = (torch.arange(5) < lengths[:, None]).long()
    targets = torch.zeros(n_documents, len(TAXONOMY))
    for document in range(n_documents):
        for node in TAXONOMY.close([LABELS[document % 8]]):
            targets[document, TAXONOMY.index[node]] = 1
    return ids, mask, targets


def train(model, steps, optimizer, n_documents=8):
    """Take steps on the documents; return the loss of each."""
    ids, mask, targets = batch(n_documents)
    loss_of = BceLoss(TAXONOMY, "levels")
    losses = []
    for _ in range(steps):
        loss = loss_of(model(ids, mask).views["single"], targets) / n_documents
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def adam(model, learning_rate=0.02):
    return torch.optim.Adam((p for p in model.parameters() if p.requires_grad), learning_rate, fused=True)


@every_direction
@pytest.mark.parametrize(("method", "space"), CONDITIONING)
@every_head
@every_pooling
def test_every_parameter_learns(direction, method, space, head, pooling):
    """After two steps from PyTorch's initialisation each row of each weight has a finite, non-zero gradient.

    `multi_hot` and `none` have no gradient to detach.
    """
    for detach in (True, False) if method in ("sigmoid", "logit") else (True,):
        model = make(direction, method, space, head, pooling, detach=detach)
        # The gradients are those of the third step. With few documents multi_hot may say the same of all.
        train(model, 3, torch.optim.SGD(model.parameters(), lr=0.01), n_documents=40)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            rows = parameter.grad.flatten(1).any(1) if parameter.dim() > 1 else parameter.grad != 0
            assert rows.any() if name.startswith("encoder.") else rows.all(), name


@every_direction
@every_method
def test_eight_documents_are_learnt_by_heart(direction, method):
    ids, mask, targets = batch()
    model = make(direction, method, trainable=False)
    model.cascade.initialise_output(prior_logits(targets.sum(0).long(), len(ids)))
    train(model, 60, adam(model))
    assert torch.equal(model.eval()(ids, mask).views["single"] > 0, targets > 0.5)


def test_modulation_grows_in_training():
    ids, mask, _ = batch()
    model = make()
    assert not model(ids, mask).modulation["single"].any()
    train(model, 5, adam(model))
    modulation = model(ids, mask).modulation["single"]
    assert modulation[0] == 0
    assert (modulation[1:] > 0).all()


def test_same_seed_same_numbers():
    models = (make(dropout=0.2, detach=False) for _ in range(2))
    first, second = (train(model, 5, adam(model)) for model in models)
    assert first == second
    assert len(set(first)) == 5


@every_pooling
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_document_alone_is_the_same_document_padded(pooling, side):
    model = make(pooling=pooling).eval()
    ids, _, _ = batch()
    short, other = ids[:1, :3], ids[1:2]
    padding = torch.zeros(1, 2, dtype=torch.long)
    ones = torch.ones_like(short)
    parts = [(padding, padding), (short, ones)]
    parts = parts if side == "left" else parts[::-1]
    padded, mask = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    together = model(torch.cat([padded, other]), torch.cat([mask, torch.ones_like(other)])).views["single"]
    alone = model(short, ones).views["single"]
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-6)
    assert not torch.allclose(together[1:], alone, atol=1e-3)


def test_projection_formula():
    torch.manual_seed(0)
    projection, pooled = Projection(DIM, 5, 0.5), torch.randn(7, DIM)
    assert not torch.equal(projection(pooled), projection(pooled))
    assert torch.equal(projection.eval()(pooled), F.gelu(projection.linear(pooled)))
    assert projection(pooled).shape == (7, 5)


def test_without_projection_the_cascade_reads_what_was_pooled():
    ids, mask, _ = batch()
    model = make(project=False)
    hidden = model.encoder(ids, mask).last_hidden_state
    pooled = model.pooling(hidden, mask.bool())
    assert torch.equal(model.pool(ids, mask), pooled)
    assert torch.equal(model(ids, mask).views["single"], model.cascade(pooled).logits)


def test_a_frozen_encoder_stays_as_it_is():
    ids, mask, _ = batch()
    model = make(trainable=False, dropout=0.5)
    before = model.encoder.words.weight.clone()
    states = []
    model.encoder.register_forward_hook(lambda *call: states.append(call[-1].last_hidden_state))
    for step in (lambda: model, model.train, lambda: model.train(False), lambda: model.eval().train()):
        step()
        assert not model.encoder.training
        assert not model.encoder.dropout.training
    assert model.training
    assert model.cascade.training
    assert model.projection.dropout.training
    train(model, 2, adam(model, 0.1))
    assert torch.equal(model.encoder.words.weight, before)
    assert not any(p.requires_grad for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.cascade.parameters())
    assert torch.equal(states[0], states[1])  # no dropout
    model.encoder.requires_grad_(True)  # even then nothing is recorded for a backward pass
    assert model(ids, mask).views["single"].requires_grad
    assert not states[-1].requires_grad


def test_a_trainable_encoder_trains():
    model = make(trainable=True, dropout=0.5)
    before = model.encoder.words.weight.clone()
    assert model.encoder.dropout.training
    assert not model.eval().encoder.dropout.training
    assert model.train().encoder.dropout.training
    train(model, 2, adam(model, 0.1))
    assert not torch.equal(model.encoder.words.weight, before)
    states = []
    model.encoder.register_forward_hook(lambda *call: states.append(call[-1].last_hidden_state))
    ids, mask, _ = batch()
    assert model(ids, mask).views["single"].requires_grad
    with torch.no_grad():
        assert not model(ids, mask).views["single"].requires_grad
    assert [state.requires_grad for state in states] == [True, False]


def test_flat_is_one_linear_layer_with_mean_bce():
    ids, mask, targets = batch()
    model = make(method="none", head="linear", project=False)
    flat = nn.Linear(DIM, len(TAXONOMY))
    with torch.no_grad():
        flat.weight.copy_(torch.cat([head.output.weight for head in model.cascade.heads]))
        flat.bias.copy_(torch.cat([head.output.bias for head in model.cascade.heads]))
    n_flat = sum(p.numel() for p in flat.parameters())
    assert sum(p.numel() for p in model.cascade.parameters()) == n_flat
    words = model.encoder.words.weight

    loss = BceLoss(TAXONOMY, "nodes")(model(ids, mask).views["single"], targets) / len(ids)
    loss.backward()
    ours, words.grad = words.grad, None
    pooled = (words[ids] * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
    expected = F.binary_cross_entropy_with_logits(flat(pooled), targets)
    expected.backward()

    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours, words.grad)
    heads = model.cascade.heads
    torch.testing.assert_close(torch.cat([head.output.weight.grad for head in heads]), flat.weight.grad)
    torch.testing.assert_close(torch.cat([head.output.bias.grad for head in heads]), flat.bias.grad)


@every_direction
@every_method
def test_logits_are_float32_in_mixed_precision(direction, method):
    ids, mask, _ = batch()
    model = make(direction, method)
    train(model, 3, adam(model))
    with torch.autocast("cpu", torch.bfloat16):
        output = model(ids, mask)
    assert output.views["single"].dtype == torch.float32
    assert output.modulation["single"].dtype == torch.float32
    torch.testing.assert_close(output.views, model(ids, mask).views, rtol=0, atol=0.05)


@every_direction
@every_pooling
def test_never_waits_for_a_value(direction, pooling):
    """On the meta device there are no values: reading one (a host sync on a GPU) would raise."""
    model = make(direction, pooling=pooling).to("meta")
    ids, mask, _ = (part.to("meta") for part in batch())
    assert model(ids, mask).views["single"].shape == (8, len(TAXONOMY))


def test_names_in_the_state_are_readable():
    names = {".".join(name.split(".")[:2]) for name in make().state_dict()}
    parts = itertools.product(["heads", "films"], "012")
    assert names == {"encoder.words", "projection.linear", "cascade.heads", "cascade.films"}
    state = make().state_dict()
    found = {f"{part}.{level}" for part, level in parts if any(f"{part}.{level}." in name for name in state)}
    assert found == {"heads.0", "heads.1", "heads.2", "films.1", "films.2"}
