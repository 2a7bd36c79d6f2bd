"""Conditional losses as distributions: over all label sets there are, their probabilities sum to 1."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from hblm.nn.conditional import ConditionalLoss, ConditionalSoftmaxLoss
from hblm.taxonomy import Node, Taxonomy

PARENTS = {"a": None, "b": None, "a1": "a", "b1": "b", "a2": "a", "b2": "b", "b2x": "b2", "a1x": "a1"}
PARENTS |= {"b2y": "b2"}
TAXONOMY = Taxonomy(Node(node, node, parent) for node, parent in PARENTS.items())
N, LEVELS, BATCH = len(TAXONOMY), 3, 4
NOWHERE = torch.zeros(N, dtype=torch.int64)
SOMEWHERE = torch.tensor([2 * (node.id in ("a", "a1")) for node in TAXONOMY.nodes])

every_stops = pytest.mark.parametrize("stops", [NOWHERE, SOMEWHERE], ids=["nowhere", "somewhere"])
every_tau = pytest.mark.parametrize("tau", [0.0, 0.4, 1.0, 2.0])


def draw(offset=0.0, seed=0):
    return offset + 3 * torch.randn(BATCH, N, generator=torch.Generator().manual_seed(seed))


def rows(sets):
    return torch.tensor([[float(node.id in each) for node in TAXONOMY.nodes] for each in sets])


def closed_sets():
    """Return all sets of nodes that hold the parent of each."""
    nodes = [node.id for node in TAXONOMY.nodes]
    sets = ({*chosen} for size in range(len(nodes) + 1) for chosen in itertools.combinations(nodes, size))
    return [each for each in sets if TAXONOMY.close(each) == each]


def stops_at(labels):
    """Return the labels none of whose children, of those there are, is a label."""
    inner = {parent for parent in PARENTS.values() if parent}
    return {label for label in labels & inner if not any(PARENTS[other] == label for other in labels)}


def possible(sets, stops):
    """Return the sets that have a label and stop only where documents stop."""
    allowed = {node.id for node, count in zip(TAXONOMY.nodes, stops, strict=True) if count}
    return [each for each in sets if each and stops_at(each) <= allowed]


def paths(sets):
    return [each for each in sets if len(each & {"a", "b"}) <= 1 and len(each) == 1 + max(map(depth, each))]


def depth(node):
    return len(TAXONOMY.ancestors(node))


def counts_of(targets):
    """Return what a training split of these targets has: documents at each node, all, those that stop."""
    children = torch.zeros_like(targets)
    for node, parent in enumerate(TAXONOMY.parents):
        if parent >= 0:
            children[:, parent] += targets[:, node]
    stops = targets * (children == 0)
    return targets.sum(0).long(), len(targets), stops.sum(0).long()


def siblings():
    found = {}
    for node, parent in enumerate(TAXONOMY.parents):
        found.setdefault(parent, []).append(node)
    return found


def losses_of_each(loss, logits, targets):
    """Return the loss of every set for one document's logits."""
    return torch.stack([loss(logits[None], each[None]) for each in targets]).double()


@every_stops
@pytest.mark.parametrize("kind", ["softmax", "truncated"])
def test_probabilities_of_all_label_sets_sum_to_1_and_those_with_a_node_to_its_score(kind, stops):
    positives = torch.full((N,), 7)
    sets = possible(closed_sets(), stops)
    if kind == "softmax":
        loss = ConditionalSoftmaxLoss(TAXONOMY, positives, 20, stops, tau=0.0)
        sets = paths(sets)
    else:
        loss = ConditionalLoss(TAXONOMY, positives, 20, stops)
    assert len(sets) > 4
    targets, logits = rows(sets), draw()
    for row in logits:
        probabilities = (-LEVELS * losses_of_each(loss, row, targets)).exp()
        assert probabilities.sum().item() == pytest.approx(1, rel=1e-5)
        expected = (probabilities[:, None] * targets.double()).sum(0)
        torch.testing.assert_close(loss.to_scores(row[None])[0].double(), expected, rtol=1e-4, atol=1e-7)


def before(positives, tau, logits, targets):
    """Return loss and scores as they were while no group had a stop."""
    parents = torch.tensor(TAXONOMY.parents)
    smoothed = positives + 0.5
    among = torch.zeros(N + 1).index_add(0, parents + 1, smoothed)
    adjustment = torch.log(smoothed / among[parents + 1])

    def log_conditional(logits):
        index = (parents + 1).expand_as(logits)
        highest = logits.new_zeros(len(logits), N + 1)
        highest = highest.scatter_reduce(1, index, logits.detach(), "amax", include_self=False)
        shifted = logits - highest.gather(1, index)
        total = torch.zeros_like(highest).scatter_add(1, index, shifted.exp())
        return shifted - total.gather(1, index).log()

    levels = [*torch.split(log_conditional(logits), [len(level) for level in TAXONOMY.levels], dim=1)]
    for level in range(1, LEVELS):
        levels[level] = levels[level] + levels[level - 1][:, TAXONOMY.level_parents(level)]
    loss = -(log_conditional(logits + tau * adjustment) * targets).sum() / LEVELS
    return loss, torch.cat(levels, dim=1).exp(), (1 - tau) * adjustment


@every_tau
def test_softmax_where_no_document_stops_is_what_it_was_to_the_bit(tau):
    targets = rows(paths(possible(closed_sets(), NOWHERE)))
    logits = torch.randn(len(targets), N, generator=torch.Generator().manual_seed(1)).mul(3)
    positives, n_documents, stops = counts_of(targets)
    loss_of = ConditionalSoftmaxLoss(TAXONOMY, positives, n_documents, stops, tau)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, (expected, scores, prior) = loss_of(ours, targets), before(positives, tau, theirs, targets)
    loss.backward()
    expected.backward()
    assert torch.equal(loss, expected)
    assert torch.equal(ours.grad, theirs.grad)
    assert torch.equal(loss_of.to_scores(logits), scores)
    assert torch.equal(loss_of.prior_logits(), prior)


@every_tau
def test_beside_a_stop_the_adjustment_is_among_the_children(tau):
    """Against a loop over the groups, in float64; whether to go on is not adjusted."""
    targets = rows([{"a"}, {"a", "a1"}, {"a", "a1", "a1x"}, {"b", "b2", "b2y"}, {"b"}, set()])
    positives, stops = torch.tensor([9, 4, 6, 1, 1, 3, 1, 4, 2]), SOMEWHERE
    logits = 3 * torch.randn(len(targets), N, generator=torch.Generator().manual_seed(2))

    def formula(logits, prior=False):
        total = 0.0
        found = torch.zeros(N).double()
        for parent, group in siblings().items():
            smoothed, z, chosen = positives[group].double() + 0.5, logits[:, group], targets[:, group]
            share = (smoothed / smoothed.sum()).log()
            among = share.expand_as(z) if prior else (z + tau * share).log_softmax(dim=1)
            total -= (among * chosen).sum() / LEVELS
            found[group] = (1 - tau) * share
            if parent >= 0 and stops[parent]:
                odds = smoothed.sum() / (stops[parent].double() + 0.5)
                go = z.exp().sum(1) if not prior else odds.expand(len(z))
                is_chosen = chosen.sum(1)
                stopped = targets[:, parent] * (is_chosen == 0)
                decided = is_chosen * (go / (1 + go)).log() + stopped * (1 / (1 + go)).log()
                total -= decided.sum() / LEVELS
                found[group] += odds.log() - found[group].logsumexp(0)
        return total, found

    loss_of = ConditionalSoftmaxLoss(TAXONOMY, positives, 20, stops, tau)
    ours, theirs = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss, (expected, prior) = loss_of(ours, targets), formula(theirs)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss_of.prior_logits().double(), prior, rtol=1e-5, atol=1e-6)
    at_prior = loss_of(loss_of.prior_logits().expand_as(logits), targets).double()
    torch.testing.assert_close(at_prior, formula(logits, prior=True)[0], rtol=1e-5, atol=0)


@every_stops
@pytest.mark.parametrize("offset", [-60.0, 0.0, 60.0])
def test_truncated_is_exact_at_any_logit(stops, offset):
    """Against the formula in float64; a gradient is P(node | parent) - target of the groups that count."""
    sets = possible(closed_sets(), stops)
    targets = rows(sets)
    logits = (offset + draw().repeat(len(sets), 1)[: len(sets)]).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    expected = 0.0
    for parent, group in siblings().items():
        z, y = exact[:, group], targets[:, group].double()
        counts = targets[:, parent].double() if parent >= 0 else torch.ones(len(sets)).double()
        cost = F.binary_cross_entropy_with_logits(z, y, reduction="none").sum(1)
        if parent < 0 or not stops[parent]:
            cost = cost + (-F.logsigmoid(-z).sum(1).expm1()).log()
        expected = expected + (cost * counts).sum() / LEVELS
    loss = ConditionalLoss(TAXONOMY, NOWHERE, 1, stops)(logits, targets)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


def test_the_prior_says_the_frequencies_of_the_training_split():
    """Half a document for and against each node; of documents with one path nearly so."""
    parents = torch.tensor(TAXONOMY.parents)
    positives, n_documents, stops = counts_of(rows(possible(closed_sets(), SOMEWHERE)))
    found, expected = frequencies(positives, n_documents, stops)
    # an only child is certain, unless documents stop
    only = torch.tensor([len(siblings()[int(parent)]) == 1 for parent in parents])
    stopping = torch.cat([torch.tensor([0]), stops])[parents + 1] > 0
    expected = torch.where(only & ~stopping, 1.0, expected)
    used = torch.cat([torch.tensor([n_documents]), positives])[parents + 1] > 0
    # elsewhere the halves alone speak, and may sum to less than one child
    torch.testing.assert_close(found[used], expected[used], rtol=1e-5, atol=0)


def test_the_prior_of_documents_with_one_path_says_nearly_their_frequencies():
    counts = counts_of(rows([{"a", "a1"}, {"a", "a2"}, {"b", "b1"}]))
    found, expected = frequencies(*counts)
    torch.testing.assert_close(found[:2], expected[:2], rtol=0.03, atol=0)


def frequencies(positives, n_documents, stops):
    """Return P(node | parent) at the prior, and (n + 1/2) / (m + 1) of each node."""
    loss = ConditionalLoss(TAXONOMY, positives, n_documents, stops)
    above = torch.cat([torch.tensor([n_documents]), positives])[torch.tensor(TAXONOMY.parents) + 1]
    return loss.link.siblings(loss.prior_logits()[None])[0], (positives + 0.5) / (above + 1)


@every_stops
def test_documents_without_labels_are_0(stops):
    logits = draw().requires_grad_()
    loss = ConditionalLoss(TAXONOMY, torch.full((N,), 3), 9, stops)(logits, torch.zeros(BATCH, N))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


@every_stops
def test_a_document_that_stops_where_none_did_adds_nothing_there(stops):
    logits = draw()[:1].requires_grad_()
    ConditionalLoss(TAXONOMY, torch.full((N,), 3), 9, stops)(logits, rows([{"b"}])).backward()
    assert logits.grad[0, [TAXONOMY.index["a"], TAXONOMY.index["b"]]].all()
    assert not logits.grad[0, [TAXONOMY.index["b1"], TAXONOMY.index["b2"]]].any()
