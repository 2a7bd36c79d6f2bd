"""Links against plain loops over groups of siblings, in float64, and their limits."""

import pytest
import torch

from hblm.nn.link import Link, PathLink, Reading, SiblingSoftmax, SigmoidLink, TruncatedSigmoid
from hblm.taxonomy import Node, Taxonomy

# c, a2 and b1x are leaves above the last level; b1 and a1x are only children; siblings are not neighbours
PARENTS = {"a": None, "b": None, "c": None, "a1": "a", "b1": "b", "a2": "a", "a3": "a"}
PARENTS |= {"b1x": "b1", "a1x": "a1", "b1y": "b1", "b1y1": "b1y", "b1y2": "b1y"}
TAXONOMY = Taxonomy(Node(node, node, parent) for node, parent in PARENTS.items())
N, BATCH = len(TAXONOMY), 5
STOPS = torch.tensor([float(node.id in ("b", "a1", "b1y")) for node in TAXONOMY.nodes])
KINDS = {"softmax": SiblingSoftmax, "truncated": TruncatedSigmoid}

every_kind = pytest.mark.parametrize("kind", KINDS)
every_offset = pytest.mark.parametrize("offset", [-60.0, -16.0, 0.0, 60.0])


def draw(offset=0.0):
    return offset + 3 * torch.randn(BATCH, N, generator=torch.Generator().manual_seed(0))


def groups():
    """Return the positions of siblings by their parent's."""
    found = {}
    for node, parent in enumerate(TAXONOMY.parents):
        found.setdefault(parent, []).append(node)
    return found


def conditional(kind, logits):
    """Return P(node | parent), group by group."""
    found = torch.empty_like(logits)
    for parent, group in groups().items():
        z = logits[:, group]
        stopping = parent >= 0 and bool(STOPS[parent])
        if kind == "softmax":
            z = torch.cat([z, torch.zeros_like(z[:, :1])], dim=1) if stopping else z
            found[:, group] = z.softmax(dim=1)[:, : len(group)]
        else:
            found[:, group] = z.sigmoid()
            if not stopping:
                found[:, group] /= -torch.nn.functional.logsigmoid(-z).sum(1, keepdim=True).expm1()
    return found


def test_the_sigmoid_link_is_the_sigmoid_to_the_bit():
    link, logits = SigmoidLink(), draw()
    assert torch.equal(link(logits), torch.sigmoid(logits))
    assert torch.equal(link.level(1)(logits), torch.sigmoid(logits))
    assert link.level(1).evidence(logits) is logits
    assert not link.state_dict()


@every_kind
@every_offset
def test_a_level_given_the_one_above_is_the_formula(kind, offset):
    link, logits = PathLink(TAXONOMY, KINDS[kind], STOPS), draw(offset)
    expected = conditional(kind, logits.double())
    torch.testing.assert_close(link.siblings(logits).double(), expected, rtol=2e-5, atol=1e-30)
    for level, nodes in enumerate(TAXONOMY.levels):
        places, reading = slice(nodes.start, nodes.stop), link.level(level)
        assert isinstance(reading, Reading)
        found = reading(logits[:, places])
        torch.testing.assert_close(found.double(), expected[:, places], rtol=2e-5, atol=1e-30)
        found = reading.evidence(logits[:, places]).double()
        torch.testing.assert_close(found, expected[:, places].log(), rtol=1e-5, atol=1e-5)


@every_kind
@every_offset
def test_the_probability_of_a_node_is_the_product_along_its_path(kind, offset):
    link, logits = PathLink(TAXONOMY, KINDS[kind], STOPS), draw(offset)
    assert isinstance(link, Link)
    of_parent, expected = conditional(kind, logits.double()), torch.ones(BATCH, N).double()
    for position, node in enumerate(TAXONOMY.nodes):
        for on_path in (node.id, *TAXONOMY.ancestors(node.id)):
            expected[:, position] *= of_parent[:, TAXONOMY.index[on_path]]
    scores = link(logits)
    torch.testing.assert_close(scores.double(), expected, rtol=1e-4, atol=1e-30)
    below = [node for node, parent in enumerate(TAXONOMY.parents) if parent >= 0]
    assert (scores[:, below] <= scores[:, [TAXONOMY.parents[node] for node in below]]).all()


@every_kind
@pytest.mark.parametrize("factor", [1, 20, 1e4, 1e30])
def test_gradients_are_finite_at_any_logit(kind, factor):
    logits = (factor * draw()).requires_grad_()
    link = PathLink(TAXONOMY, KINDS[kind], STOPS)
    (link(logits).sum() + link.siblings.evidence(logits).clamp(min=-1e4).sum()).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("offset", [-60.0, 0.0, 60.0])
def test_gradients_of_truncated_sigmoids_are_those_of_the_formula(offset):
    """Only their logarithms have gradients that a float32 holds at such logits."""
    logits = draw(offset).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    TruncatedSigmoid(TAXONOMY, range(N), STOPS).evidence(logits)[0].sum().backward()
    conditional("truncated", exact)[0].log().sum().backward()
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


def test_siblings_share_their_parent_with_the_stop():
    siblings, logits = SiblingSoftmax(TAXONOMY, range(N), STOPS), draw()
    shares = siblings.total(siblings(logits))
    go = siblings.log_total(logits).sigmoid()
    torch.testing.assert_close(shares, torch.where(siblings.stopping, go, torch.ones(())))
    assert siblings.stopping.sum() == 3
    torch.testing.assert_close(
        siblings.total(siblings.log_among(logits).exp()), torch.ones(BATCH, len(groups()))
    )


def test_truncated_sigmoids_tend_to_the_softmax_where_nothing_stops():
    nowhere = torch.zeros(N)
    truncated, softmax = (
        kind(TAXONOMY, range(N), nowhere)(draw(-30.0)) for kind in (TruncatedSigmoid, SiblingSoftmax)
    )
    torch.testing.assert_close(truncated, softmax, rtol=1e-5, atol=1e-7)


@every_kind
def test_autocast_changes_nothing(kind):
    link = PathLink(TAXONOMY, KINDS[kind], STOPS)
    with torch.autocast("cpu", torch.bfloat16):
        found = link(draw())
    assert torch.equal(found, link(draw()))


@every_kind
def test_never_waits_for_a_value(kind):
    """On the meta device there are no values: reading one (a host sync on a GPU) would raise."""
    link = PathLink(TAXONOMY, KINDS[kind], STOPS).to("meta")
    assert link(draw().to("meta")).is_meta


@every_kind
def test_what_the_training_split_decides_is_in_the_state_and_no_parameter(kind):
    link = PathLink(TAXONOMY, KINDS[kind], STOPS)
    assert [*link.state_dict()] == ["siblings.stopping"]
    assert [*link.level(1).state_dict()] == ["stopping"]
    assert not [*link.parameters()]


@every_kind
@pytest.mark.parametrize("scale", [1.0, 10.0, 30.0])
def test_log_odds_keep_their_digits_near_0_and_near_1(kind, scale):
    link = PathLink(TAXONOMY, KINDS[kind], STOPS)
    logits = scale * torch.randn(200, N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = link(logits)
    inner = (scores > 1e-9) & (scores < 1 - 1e-9)
    expected = torch.log(scores) - torch.log1p(-scores)
    odds = link.log_odds(logits)
    torch.testing.assert_close(odds[inner], expected[inner], atol=1e-5, rtol=1e-6)
    assert odds.isfinite().all()  # only children without stops have P = 1
    torch.testing.assert_close(link.log_odds(logits.float()).double(), odds, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(odds.sigmoid(), scores, atol=1e-6, rtol=0)


def test_log_odds_of_a_node_near_1_are_not_those_of_its_rounded_score():
    forest = Taxonomy([Node("a", "a", None), Node("b", "b", None)])
    link = PathLink(forest, SiblingSoftmax, torch.zeros(2))
    odds = link.log_odds(torch.tensor([[40.0, 0.0]]))
    torch.testing.assert_close(odds, torch.tensor([[40.0, -40.0]]))


def test_log_odds_of_sigmoids_are_the_logits():
    logits = draw()
    assert SigmoidLink().log_odds(logits) is logits
