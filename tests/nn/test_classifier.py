"""The whole model on a tiny encoder, each kind of branches on it: gradients, learning, freezing, padding."""

import functools
import itertools
import re
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from pairs import pairs
from torch import nn

from hblm.nn.cascade import SPACES, Cascade
from hblm.nn.classifier import Classifier, Projection
from hblm.nn.conditional import ConditionalLoss, ConditionalSoftmaxLoss
from hblm.nn.film import PROPAGATIONS
from hblm.nn.heads import HEADS, OutputStart
from hblm.nn.joint import Dual, Single, TriHeadDiffcat
from hblm.nn.losses import BceLoss, Objective
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

# kind of branches, weights of the objective
OBJECTIVES = {
    "top_down": ("top_down", {"single": 1.0}),
    "bottom_up": ("bottom_up", {"single": 1.0}),
    "dual, full": ("dual", {"fused": 0.7, "td": 0.5, "bu": 0.5}),
    "dual, aux_only": ("dual", {"td": 0.5, "bu": 0.5}),
    "tri_head_diffcat": ("tri_head_diffcat", {"fused": 0.0, "td": 0.5, "bu": 0.5, "mix": 1.0}),
}
KINDS = ("top_down", "bottom_up", "dual", "tri_head_diffcat")
LOSSES = ("bce", "conditional", "conditional_softmax")
# options of a model that learns: objective, (method, space), head, pooling, loss
LEARNING = (OBJECTIVES, CONDITIONING, HEADS, POOLINGS, LOSSES)
every_kind = pytest.mark.parametrize("kind", KINDS)
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


def branches(kind, head="mlp", dropout=0.0, fuse=(1.0, 1.0, 1.0), link=None, **options):
    """Return what stands on the embedding."""

    def cascade(direction):
        defaults = {"propagation_method": "sigmoid", "propagation_space": "child_space", "film_scale": 0.2}
        return Cascade(
            TAXONOMY,
            direction=direction,
            width=DIM,
            head=head,
            head_dropout=dropout,
            threshold=0.5,
            link=link,
            **defaults | {"detach_parent_signal": True} | options,
        )

    if kind not in ("dual", "tri_head_diffcat"):
        return Single(cascade(kind))
    both = cascade("top_down"), cascade("bottom_up")
    if kind == "dual":
        return Dual(*both)
    return TriHeadDiffcat(*both, taxonomy=TAXONOMY, width=DIM, head=head, head_dropout=dropout, fuse=fuse)


def make(
    kind="top_down",
    method="sigmoid",
    space="child_space",
    head="mlp",
    pooling="mean",
    *,
    detach=True,
    project=True,
    trainable=True,
    dropout=0.0,
    link=None,
):
    torch.manual_seed(1)
    conditioning = {"propagation_method": method, "propagation_space": space, "detach_parent_signal": detach}
    parts = branches(kind, head, dropout, link=link, **conditioning)
    projection = Projection(DIM, DIM, dropout) if project else nn.Identity()
    return Classifier(TinyEncoder(dropout), POOLINGS[pooling](), projection, parts, trainable=trainable)


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


def bce(targets, level_reduction="levels"):
    return BceLoss(TAXONOMY, level_reduction, targets.sum(0).long(), len(targets))


def loss_of(name, targets):
    """Return a loss for documents like these; only `conditional` takes documents with several paths."""
    if name == "bce":
        return bce(targets)
    below = torch.zeros_like(targets)
    for node, parent in enumerate(TAXONOMY.parents):
        if parent >= 0:
            below[:, parent] += targets[:, node]
    stops = ((targets > 0) & (below == 0)).sum(0)
    counts = TAXONOMY, targets.sum(0).long(), len(targets), stops
    return ConditionalLoss(*counts) if name == "conditional" else ConditionalSoftmaxLoss(*counts, tau=1.0)


def train(model, steps, optimizer, n_documents=8, weights=None, loss=None):
    """Take steps on the documents; return the loss of each."""
    ids, mask, targets = batch(n_documents)
    # without weights, every view there is
    objective = Objective(loss or bce(targets), weights or dict.fromkeys(model(ids, mask).views, 0.5))
    losses = []
    for _ in range(steps):
        loss = objective(model(ids, mask).views, targets) / n_documents
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def adam(model, learning_rate=0.02):
    return torch.optim.Adam((p for p in model.parameters() if p.requires_grad), learning_rate, fused=True)


@pytest.mark.parametrize(("objective", "conditioning", "head", "pooling", "loss"), pairs(*LEARNING))
def test_every_parameter_learns(objective, conditioning, head, pooling, loss):
    require_learning(objective, conditioning, head, pooling, loss)


@pytest.mark.long
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_parameter_learns_in_every_combination(objective):
    for case in itertools.product(*LEARNING[1:]):
        require_learning(objective, *case)


def require_learning(objective, conditioning, head, pooling, loss):
    """Require a gradient of each row of each weight, two steps after PyTorch's initialisation.

    `multi_hot` and `none` have no gradient to detach.
    """
    kind, weights = OBJECTIVES[objective]
    made = loss_of(loss, batch(40)[2])
    for detach in (True, False) if conditioning[0] in ("sigmoid", "logit") else (True,):
        model = make(kind, *conditioning, head, pooling, detach=detach, link=made.link)
        # The gradients are those of the third step. With few documents multi_hot may say the same of all.
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        train(model, 3, optimizer, n_documents=40, weights=weights, loss=made)
        require_gradients(model)


def require_gradients(model):
    """Require a finite gradient of each parameter, in each row but those of the encoder's words not zero."""
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        rows = parameter.grad.flatten(1).any(1) if parameter.dim() > 1 else parameter.grad != 0
        assert rows.any() if name.startswith("encoder.") else rows.all(), name


@pytest.mark.parametrize("method", ["sigmoid", "none"])
@every_head
def test_the_difference_trains_nothing_where_the_branches_read_the_same(method, head):
    """With a linear head alone: the others have a norm over the concatenation, whose shift is learnt."""
    model = make("tri_head_diffcat", method, head=head)
    train(model, 3, torch.optim.SGD(model.parameters(), lr=0.01), n_documents=40)
    for mix in model.branches.mix:
        first = mix.output if head == "linear" else mix.hidden
        td, bu, difference = first.weight.grad.abs().sum(0).split(DIM)
        assert (td > 0).all()
        assert (bu > 0).all()
        assert difference.any() == (head != "linear" or method != "none")


@pytest.mark.parametrize(("kind", "method", "loss"), pairs(KINDS, PROPAGATIONS, LOSSES))
def test_eight_documents_are_learnt_by_heart(kind, method, loss):
    require_learnt_by_heart(kind, method, loss)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_eight_documents_are_learnt_by_heart_in_every_combination(kind):
    for method, loss in itertools.product(PROPAGATIONS, LOSSES):
        require_learnt_by_heart(kind, method, loss)


def require_learnt_by_heart(kind, method, loss):
    """Require every view to learn the documents in 60 steps, and a conditional loss to respect the tree."""
    ids, mask, targets = batch()
    made = loss_of(loss, targets)
    model = make(kind, method, trainable=False, link=made.link)
    model.branches.initialise_output(OutputStart(made.prior_logits()))
    optimizer, parents = adam(model), torch.tensor(TAXONOMY.parents)
    for _ in range(4):
        train(model.train(), 15, optimizer, loss=made)
        scores = {view: made.to_scores(logits) for view, logits in model.eval()(ids, mask).views.items()}
        if all(torch.equal(each > 0.5, targets > 0.5) for each in scores.values()):
            break
    else:
        pytest.fail("not learnt in 60 steps")
    for view, each in scores.items():
        if loss != "bce":  # no child has more than its parent
            assert (each[:, parents >= 0] <= each[:, parents[parents >= 0]]).all(), view


@every_kind
def test_heads_start_at_the_priors_in_every_view(kind):
    ids, mask, targets = batch()
    model = make(kind)
    priors = bce(targets).prior_logits()
    before = model(ids, mask).views
    model.branches.initialise_output(OutputStart(priors))
    for view, logits in model(ids, mask).views.items():
        assert (logits - priors).abs().mean() < 0.2 * before[view].abs().mean(), view


@every_kind
def test_modulation_grows_in_training(kind):
    ids, mask, _ = batch()
    model = make(kind)
    assert not any(found.any() for found in model(ids, mask).modulation.values())
    train(model, 5, adam(model))
    found = model(ids, mask).modulation
    assert list(found) == (["single"] if kind in ("top_down", "bottom_up") else ["td", "bu"])
    for branch, modulation in found.items():
        first = 2 if "bottom_up" in kind or branch == "bu" else 0
        assert [bool(value) for value in modulation] == [level != first for level in range(3)]


@every_kind
def test_encoder_and_projection_run_once(kind):
    ids, mask, _ = batch()
    model, calls = make(kind), []
    for part in (model.encoder, model.pooling, model.projection):
        part.register_forward_hook(lambda module, *_: calls.append(module))
    model(ids, mask)
    assert calls == [model.encoder, model.pooling, model.projection]


@every_kind
def test_same_seed_same_numbers(kind):
    models = (make(kind, dropout=0.2, detach=False) for _ in range(2))
    first, second = (train(model, 5, adam(model)) for model in models)
    assert first == second
    assert len(set(first)) == 5


@every_pooling
@pytest.mark.parametrize("side", ["left", "right"])
@every_kind
def test_a_document_alone_is_the_same_document_padded(kind, pooling, side):
    model = make(kind, pooling=pooling).eval()
    ids, _, _ = batch()
    short, other = ids[:1, :3], ids[1:2]
    padding = torch.zeros(1, 2, dtype=torch.long)
    ones = torch.ones_like(short)
    parts = [(padding, padding), (short, ones)]
    parts = parts if side == "left" else parts[::-1]
    padded, mask = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    together = model(torch.cat([padded, other]), torch.cat([mask, torch.ones_like(other)])).views
    for view, alone in model(short, ones).views.items():
        torch.testing.assert_close(together[view][:1], alone, rtol=0, atol=1e-6)
        assert not torch.allclose(together[view][1:], alone, atol=1e-3)


@pytest.mark.parametrize("width", [DIM, 5])
def test_projection_formula(width):
    torch.manual_seed(0)
    projection, pooled = Projection(DIM, width, 0.5), torch.randn(7, DIM)
    with torch.no_grad():
        for parameter in projection.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    assert not torch.equal(projection(pooled), projection(pooled))
    projection.eval()
    skip = torch.eye(DIM) if width == DIM else projection.skip.weight
    inner = pooled @ projection.linear.weight.T + projection.linear.bias
    x = pooled @ skip.T + inner * torch.special.ndtr(inner)  # GELU(x) = x Φ(x)
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(projection(pooled), projection.norm.weight * x + projection.norm.bias)
    assert projection(pooled).shape == (7, width)


def test_a_new_projection_is_a_layer_norm():
    projection, pooled = Projection(DIM, DIM, 0.5), torch.randn(7, DIM)
    assert torch.equal(projection(pooled), F.layer_norm(pooled, (DIM,)))
    narrow = Projection(DIM, 5, 0.5)
    assert torch.equal(narrow(pooled), F.layer_norm(narrow.skip(pooled), (5,)))


def test_without_projection_the_branches_read_what_was_pooled():
    ids, mask, _ = batch()
    model = make(project=False)
    hidden = model.encoder(ids, mask).last_hidden_state
    pooled = model.pooling(hidden, mask.bool())
    assert torch.equal(model.pool(ids, mask), pooled)
    assert torch.equal(model(ids, mask).views["single"], model.branches(pooled).views["single"])


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
    assert model.branches.training
    assert model.projection.dropout.training
    train(model, 2, adam(model, 0.1))
    assert torch.equal(model.encoder.words.weight, before)
    assert not any(p.requires_grad for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.branches.parameters())
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
        flat.weight.copy_(torch.cat([head.output.weight for head in model.branches.single.heads]))
        flat.bias.copy_(torch.cat([head.output.bias for head in model.branches.single.heads]))
    n_flat = sum(p.numel() for p in flat.parameters())
    assert sum(p.numel() for p in model.branches.parameters()) == n_flat
    words = model.encoder.words.weight

    loss = bce(targets, "nodes")(model(ids, mask).views["single"], targets) / len(ids)
    loss.backward()
    ours, words.grad = words.grad, None
    pooled = (words[ids] * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
    expected = F.binary_cross_entropy_with_logits(flat(pooled), targets)
    expected.backward()

    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours, words.grad)
    heads = model.branches.single.heads
    torch.testing.assert_close(torch.cat([head.output.weight.grad for head in heads]), flat.weight.grad)
    torch.testing.assert_close(torch.cat([head.output.bias.grad for head in heads]), flat.bias.grad)


@every_kind
@every_method
def test_logits_are_float32_in_mixed_precision(kind, method):
    ids, mask, _ = batch()
    model = make(kind, method)
    train(model, 3, adam(model))
    with torch.autocast("cpu", torch.bfloat16):
        output = model(ids, mask)
    found = [*output.views.values(), *output.modulation.values()]
    assert {tensor.dtype for tensor in found} == {torch.float32}
    torch.testing.assert_close(output.views, model(ids, mask).views, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("kind", "pooling"), [*((kind, "mean") for kind in KINDS), *(("top_down", name) for name in POOLINGS)]
)
def test_never_waits_for_a_value(kind, pooling):
    """On the meta device there are no values: reading one (a host sync on a GPU) would raise."""
    model = make(kind, pooling=pooling).to("meta")
    ids, mask, _ = (part.to("meta") for part in batch())
    for logits in model(ids, mask).views.values():
        assert logits.shape == (8, len(TAXONOMY))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("top_down", {"single.heads.012", "single.films.12"}),
        ("dual", {"td.heads.012", "td.films.12", "bu.heads.012", "bu.films.01"}),
        ("tri_head_diffcat", {"td.heads.012", "td.films.12", "bu.heads.012", "bu.films.01", "mix.012"}),
    ],
)
def test_names_in_the_state_are_readable(kind, expected):
    found: dict[str, set[str]] = {}
    for name in make(kind).state_dict():
        if name.startswith("branches."):
            before, level = re.match(r"branches\.(.*?)\.(\d)", name).groups()
            found.setdefault(before, set()).add(level)
        else:
            assert name.startswith(("encoder.words", "projection.linear", "projection.norm"))
    assert {f"{part}.{''.join(sorted(levels))}" for part, levels in found.items()} == expected
