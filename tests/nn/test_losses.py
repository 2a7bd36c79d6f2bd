"""Losses against PyTorch's own and against formulas written plainly, and what the trainer relies on."""

import math

import pytest
import torch
import torch.nn.functional as F

from hblm.nn.conditional import ConditionalSoftmaxLoss
from hblm.nn.losses import LEVEL_REDUCTIONS, LOSSES, BceLoss, FocalLoss, Objective, node_weights
from hblm.taxonomy import Node, Taxonomy


def forest(parents):
    return Taxonomy(Node(node, node, parent) for node, parent in parents.items())


# Three levels; one root is a leaf, as is one node below; b1, a2x and a3x have no siblings; the children of a
# are not next to each other, nor are those of b1.
PARENTS = {"a": None, "b": None, "c": None, "a1": "a", "b1": "b", "a2": "a", "a3": "a"}
PARENTS |= {"b1x": "b1", "a2x": "a2", "b1y": "b1", "a3x": "a3", "b1z": "b1"}
TAXONOMY = forest(PARENTS)
FLAT = forest(dict.fromkeys("abcde"))
ENDS = ["b1z", "a1", None, "c", "a2x", "b", "b1x"]  # of each document's path; None: it has no label
BATCH = len(ENDS)
N_DOCUMENTS = 40  # no path goes to a3 or b1y; one stops at b1, four at a2
POSITIVES = torch.tensor([23, 12, 5, 9, 12, 14, 0, 3, 10, 0, 0, 8])
STOPS = torch.tensor([0, 0, 5, 9, 1, 4, 0, 3, 10, 0, 0, 8])  # those of leaves act on nothing
NOWHERE = torch.zeros_like(STOPS)

SETTINGS = {
    "bce": [{"level_reduction": reduction} for reduction in LEVEL_REDUCTIONS],
    "focal": [
        {"level_reduction": reduction, "gamma": gamma}
        for reduction, gamma in zip(LEVEL_REDUCTIONS, (0.5, 2.0), strict=True)
    ],
    "conditional_softmax": [{"tau": 0.0, "stops": NOWHERE}, {"tau": 1.0, "stops": STOPS}],
    "conditional": [{"stops": NOWHERE}, {"stops": STOPS}],
}

every_loss = pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param(name, settings, id=f"{name}-{number}")
        for name in LOSSES
        for number, settings in enumerate(SETTINGS[name])
    ],
)
every_reduction = pytest.mark.parametrize("level_reduction", LEVEL_REDUCTIONS)
every_tau = pytest.mark.parametrize("tau", [0.0, 0.4, 1.0, 2.0])


def make(name, settings, positives=POSITIVES):
    return LOSSES[name](TAXONOMY, positives=positives, n_documents=N_DOCUMENTS, **settings)


def bce(level_reduction, taxonomy=TAXONOMY):
    return BceLoss(taxonomy, level_reduction, torch.zeros(len(taxonomy), dtype=torch.int64), 0)


def focal(level_reduction, gamma, taxonomy=TAXONOMY):
    return FocalLoss(taxonomy, level_reduction, torch.zeros(len(taxonomy), dtype=torch.int64), 0, gamma)


def conditional_softmax(tau, taxonomy=TAXONOMY, positives=POSITIVES, stops=None):
    stops = torch.zeros(len(taxonomy), dtype=torch.int64) if stops is None else stops
    return ConditionalSoftmaxLoss(taxonomy, positives, N_DOCUMENTS, stops, tau)


def draw():
    """Return logits, and any set of nodes for each document."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(BATCH, len(TAXONOMY), generator=generator)
    targets = torch.randint(0, 2, (BATCH, len(TAXONOMY)), generator=generator).float()
    return logits, targets


def draw_paths():
    """Return the same logits, and one path for each document, which may stop early."""
    labels = [TAXONOMY.close([] if end is None else [end]) for end in ENDS]
    return draw()[0], torch.tensor([[float(node.id in path) for node in TAXONOMY.nodes] for path in labels])


def draw_closed():
    """Return the same logits, and several paths for each document but the third."""
    ends = [["b1z", "a1"], ["a1", "a2x"], [], ["c", "b1x", "b1y"], ["a2x"], ["b", "a"], ["b1x", "b1y", "b1z"]]
    labels = [TAXONOMY.close(each) for each in ends]
    return draw()[0], torch.tensor([[float(node.id in path) for node in TAXONOMY.nodes] for path in labels])


def draw_for(name):
    return {"conditional_softmax": draw_paths, "conditional": draw_closed}.get(name, draw)()


def siblings():
    """Return the positions of the nodes of each group of siblings, by the position of their parent."""
    groups = {}
    for position, parent in enumerate(TAXONOMY.parents):
        groups.setdefault(parent, []).append(position)
    return groups


def shares():
    """Return the smoothed share of its siblings' documents that each node has."""
    found = torch.empty(len(TAXONOMY), dtype=torch.float64)
    for group in siblings().values():
        smoothed = POSITIVES[group].double() + 0.5
        found[group] = smoothed / smoothed.sum()
    return found


def gradient(loss_of, logits, targets):
    logits = logits.clone().requires_grad_()
    loss_of(logits, targets).backward()
    return logits.grad


def test_node_weights():
    assert node_weights(TAXONOMY, "nodes").tolist() == pytest.approx([1 / 12] * 12)
    by_level = [1 / 9] * 3 + [1 / 12] * 4 + [1 / 15] * 5
    assert node_weights(TAXONOMY, "levels").tolist() == pytest.approx(by_level)
    with pytest.raises(ValueError, match="level_reduction='level' is not one of levels, nodes"):
        node_weights(TAXONOMY, "level")


@every_loss
def test_is_a_sum_over_documents(name, settings):
    """So micro-batches add up, however a step is split."""
    logits, targets = draw_for(name)
    loss_of = make(name, settings)
    parts = [loss_of(logits[part], targets[part]) for part in (slice(0, 1), slice(1, 4), slice(4, None))]
    assert loss_of(logits, targets).shape == ()
    torch.testing.assert_close(torch.stack(parts).sum(), loss_of(logits, targets))


@every_loss
def test_is_computed_in_float32(name, settings):
    logits, targets = draw_for(name)
    loss_of = make(name, settings)
    half = loss_of(logits.bfloat16(), targets)
    assert half.dtype == torch.float32
    assert torch.equal(half, loss_of(logits.bfloat16().float(), targets))
    assert loss_of.to_scores(logits.bfloat16()).dtype == torch.float32
    assert torch.equal(loss_of.to_scores(logits.bfloat16()), loss_of.to_scores(logits.bfloat16().float()))


@every_loss
def test_autocast_changes_nothing(name, settings):
    logits, targets = draw_for(name)
    loss_of = make(name, settings)
    logits = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_of(logits, targets), loss_of.to_scores(logits)
    assert [each.dtype for each in found] == [torch.float32] * 2
    assert torch.equal(found[0], loss_of(logits.float(), targets))
    assert torch.equal(found[1], loss_of.to_scores(logits.float()))


@every_loss
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.bfloat16])
def test_targets_may_have_any_dtype(name, settings, dtype):
    logits, targets = draw_for(name)
    loss_of = make(name, settings)
    assert torch.equal(loss_of(logits, targets.to(dtype)), loss_of(logits, targets))


@every_loss
def test_extreme_logits_give_finite_losses_and_gradients(name, settings):
    logits, targets = draw_for(name)
    logits = (1e4 * logits).requires_grad_()
    loss = make(name, settings)(logits, targets)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@every_loss
def test_is_less_for_logits_that_are_right(name, settings):
    logits, targets = draw_for(name)
    loss_of = make(name, settings)
    assert loss_of(20 * (2 * targets - 1), targets) < 1e-4 < loss_of(logits, targets)


@every_loss
@pytest.mark.parametrize("factor", [1, 1e4])
def test_scores_are_probabilities(name, settings, factor):
    logits = factor * draw()[0]
    scores = make(name, settings).to_scores(logits)
    assert scores.shape == logits.shape
    assert ((scores >= 0) & (scores <= 1)).all()


@every_loss
def test_documents_do_not_see_one_another(name, settings):
    logits, _ = draw()
    loss_of = make(name, settings)
    alone = torch.cat([loss_of.to_scores(logits[i : i + 1]) for i in range(BATCH)])
    torch.testing.assert_close(loss_of.to_scores(logits), alone)


@every_loss
@pytest.mark.parametrize("bearing", [0, N_DOCUMENTS])
def test_prior_is_a_finite_logit_for_each_node(name, settings, bearing):
    prior = make(name, settings, torch.full((len(TAXONOMY),), bearing)).prior_logits()
    assert prior.shape == (len(TAXONOMY),)
    assert prior.dtype == torch.float32
    assert prior.isfinite().all()


@every_loss
def test_moves_to_a_device_and_has_no_parameters(name, settings):
    loss_of = make(name, settings)
    assert not [*loss_of.parameters()]
    logits, targets = (part.to("meta") for part in draw_for(name))
    assert loss_of.to("meta")(logits, targets).is_meta
    assert loss_of.to_scores(logits).is_meta
    assert loss_of.prior_logits().shape == (len(TAXONOMY),)  # training asks for it on the device


def test_bce_over_nodes_is_the_mean_over_everything():
    logits, targets = draw()
    loss = bce("nodes")(logits, targets) / BATCH
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, targets))


def test_bce_over_levels_is_the_mean_of_level_means():
    logits, targets = draw()
    means = [
        F.binary_cross_entropy_with_logits(
            logits[:, level.start : level.stop], targets[:, level.start : level.stop]
        )
        for level in TAXONOMY.levels
    ]
    loss = bce("levels")(logits, targets) / BATCH
    torch.testing.assert_close(loss, torch.stack(means).mean())


@every_reduction
def test_bce_gradient_is_score_minus_target(level_reduction):
    logits, targets = draw()
    expected = (logits.sigmoid() - targets) * node_weights(TAXONOMY, level_reduction)
    torch.testing.assert_close(gradient(bce(level_reduction), logits, targets), expected)


@pytest.mark.parametrize("loss_of", [bce("nodes", FLAT), focal("nodes", 2.0, FLAT)], ids=["bce", "focal"])
def test_scores_of_bce_and_focal_are_sigmoids(loss_of):
    logits = torch.tensor([[0.0, 1.0, -1.0, 100.0, -80.0]])
    torch.testing.assert_close(loss_of.to_scores(logits), 1 / (1 + (-logits).exp()))


@pytest.mark.parametrize("name", ["bce", "focal"])
def test_prior_of_bce_and_focal_is_the_smoothed_frequency(name):
    positives = torch.tensor([0, 1, 5, 9, 10])
    prior = LOSSES[name](FLAT, positives=positives, n_documents=10, **SETTINGS[name][0]).prior_logits()
    torch.testing.assert_close(prior.sigmoid(), torch.tensor([0.5, 1.5, 5.5, 9.5, 10.5]) / 11)
    assert prior[2] == 0


@every_reduction
def test_focal_with_gamma_0_is_bce(level_reduction):
    logits, targets = draw()
    ours, expected = focal(level_reduction, 0.0), bce(level_reduction)
    torch.testing.assert_close(ours(logits, targets), expected(logits, targets))
    torch.testing.assert_close(gradient(ours, logits, targets), gradient(expected, logits, targets))


@every_reduction
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_and_its_gradient_are_those_of_the_formula(level_reduction, gamma):
    """The formula with probabilities, in float64."""
    logits, targets = draw()

    def formula(logits, targets):
        score = logits.sigmoid()
        right = torch.where(targets > 0, score, 1 - score)
        return (-((1 - right) ** gamma) * right.log() * node_weights(TAXONOMY, level_reduction)).sum()

    ours = focal(level_reduction, gamma)
    expected = formula(logits.double(), targets)
    torch.testing.assert_close(ours(logits, targets).double(), expected, rtol=1e-5, atol=0)
    expected = gradient(formula, logits.double(), targets)
    torch.testing.assert_close(gradient(ours, logits, targets).double(), expected, rtol=1e-4, atol=1e-9)


def test_focal_by_hand():
    """A score of 4/5 for two nodes, one of which is right to have it."""
    logits, targets = torch.full((1, 2), math.log(4)), torch.tensor([[1, 0]])
    loss = focal("nodes", 2.0, forest({"a": None, "b": None}))(logits, targets)
    assert loss.item() == pytest.approx((0.2**2 * math.log(5 / 4) + 0.8**2 * math.log(5)) / 2, rel=1e-5)


@every_tau
def test_conditional_softmax_is_a_softmax_over_each_group_of_siblings(tau):
    """Against a loop over the groups, in float64."""
    logits, targets = draw_paths()

    def formula(logits, targets):
        adjusted = logits + tau * shares().log()
        parts = [
            (torch.log_softmax(adjusted[:, group], dim=1) * targets[:, group]).sum()
            for group in siblings().values()
        ]
        return -torch.stack(parts).sum() / 3

    ours = conditional_softmax(tau)
    expected = formula(logits.double(), targets)
    torch.testing.assert_close(ours(logits, targets).double(), expected, rtol=1e-5, atol=0)
    expected = gradient(formula, logits.double(), targets)
    torch.testing.assert_close(gradient(ours, logits, targets).double(), expected, rtol=1e-5, atol=1e-6)


def test_conditional_softmax_over_roots_alone_is_cross_entropy():
    logits, ends = draw()[0][:, : len(FLAT)], torch.tensor([0, 4, 1, 1, 2, 3, 0])
    loss_of = conditional_softmax(0.0, FLAT, torch.zeros(len(FLAT), dtype=torch.int64))
    expected = F.cross_entropy(logits, ends, reduction="sum")
    torch.testing.assert_close(loss_of(logits, F.one_hot(ends, len(FLAT))), expected)
    torch.testing.assert_close(loss_of.to_scores(logits), logits.softmax(dim=1))


def test_conditional_softmax_by_hand():
    """Roots a and b of 6 and 1 documents; the children of a have 3 and 0, the only child of b has 1."""
    parents = {"a": None, "b": None, "a1": "a", "b1": "b", "a2": "a"}
    positives = torch.tensor([6, 1, 3, 1, 0])
    logits = torch.tensor([[0.0, math.log(3), math.log(2), 7.0, 0.0]])
    targets = torch.tensor([[1, 0, 0, 0, 1]])
    plain, adjusted = (conditional_softmax(tau, forest(parents), positives) for tau in (0.0, 1.0))
    assert plain.to_scores(logits)[0].tolist() == pytest.approx([1 / 4, 3 / 4, 1 / 6, 3 / 4, 1 / 12])
    assert plain(logits, targets).item() == pytest.approx((math.log(4) + math.log(3)) / 2)
    # shares 13/16 and 3/16 of the roots, 7/8 and 1/8 of the children of a
    assert adjusted(logits, targets).item() == pytest.approx((math.log(22 / 13) + math.log(15)) / 2)


@every_tau
def test_conditional_softmax_scores_are_products_along_the_path(tau):
    """The adjustment is not in them."""
    logits, _ = draw()
    conditional = torch.empty_like(logits)
    for group in siblings().values():
        conditional[:, group] = logits[:, group].softmax(dim=1)
    expected = torch.ones_like(logits)
    for position, node in enumerate(TAXONOMY.nodes):
        for on_path in (node.id, *TAXONOMY.ancestors(node.id)):
            expected[:, position] *= conditional[:, TAXONOMY.index[on_path]]
    torch.testing.assert_close(conditional_softmax(tau).to_scores(logits), expected)


@pytest.mark.parametrize("factor", [1, 1e4])
def test_conditional_softmax_scores_of_siblings_sum_to_their_parents(factor):
    scores = conditional_softmax(1.0).to_scores(factor * draw()[0])
    for parent, group in siblings().items():
        above = torch.ones(BATCH) if parent < 0 else scores[:, parent]
        torch.testing.assert_close(scores[:, group].sum(dim=1), above)


@every_tau
def test_conditional_softmax_of_a_path_that_stops_early(tau):
    """The levels it does not reach add 0, and no gradient."""
    logits, targets = (part[[ENDS.index("b")]] for part in draw_paths())
    loss_of, roots = conditional_softmax(tau), list(TAXONOMY.levels[0])
    among_roots = torch.log_softmax(logits[:, roots] + tau * shares()[roots].log().float(), dim=1)
    torch.testing.assert_close(loss_of(logits, targets), -among_roots[0, TAXONOMY.index["b"]] / 3)
    slope = gradient(loss_of, logits, targets)
    assert slope[:, roots].all()
    assert not slope[:, len(roots) :].any()


@every_tau
def test_conditional_softmax_of_a_document_with_no_labels_is_0(tau):
    logits, targets = (part[[ENDS.index(None)]] for part in draw_paths())
    loss_of = conditional_softmax(tau)
    assert loss_of(logits, targets) == 0
    assert not gradient(loss_of, logits, targets).any()


def test_conditional_softmax_without_adjustment_ignores_the_training_split():
    logits, targets = draw_paths()
    others = POSITIVES.flip(0)
    loss, other = (
        conditional_softmax(0.0, positives=given)(logits, targets) for given in (POSITIVES, others)
    )
    assert torch.equal(loss, other)
    loss, other = (
        conditional_softmax(1.0, positives=given)(logits, targets) for given in (POSITIVES, others)
    )
    assert not torch.isclose(loss, other)


@every_tau
def test_conditional_softmax_at_its_prior_says_the_shares_of_the_training_split(tau):
    _, targets = draw_paths()
    loss_of = conditional_softmax(tau)
    prior = loss_of.prior_logits()
    expected = -(targets * shares().log()).sum() / 3
    torch.testing.assert_close(
        loss_of(prior.expand(BATCH, -1), targets).double(), expected, rtol=1e-5, atol=0
    )
    torch.testing.assert_close(prior.double(), (1 - tau) * shares().log(), rtol=1e-5, atol=1e-6)


@every_tau
def test_conditional_softmax_does_not_change_when_siblings_shift_together(tau):
    logits, targets = draw_paths()
    loss_of, shifted = conditional_softmax(tau), logits.clone()
    for number, group in enumerate(siblings().values()):
        shifted[:, group] += 5 * number - 8 + torch.arange(BATCH)[:, None]
    torch.testing.assert_close(loss_of(shifted, targets), loss_of(logits, targets))
    torch.testing.assert_close(loss_of.to_scores(shifted), loss_of.to_scores(logits), rtol=1e-4, atol=1e-6)


@every_loss
def test_objective_is_the_weighted_sum_of_its_views(name, settings):
    logits, targets = draw_for(name)
    views = {"single": logits, "td": -logits, "bu": logits.flip(0)}
    loss_of = make(name, settings)
    objective = Objective(loss_of, {"td": 0.25, "single": 1.0, "bu": 3.0})
    single, td, bu = (loss_of(view, targets) for view in views.values())
    assert objective(views, targets).shape == ()
    torch.testing.assert_close(objective(views, targets), single + 0.25 * td + 3 * bu)


@every_loss
def test_objective_is_a_sum_over_documents(name, settings):
    logits, targets = draw_for(name)
    objective = Objective(make(name, settings), {"td": 0.25, "bu": 3.0})
    parts = [
        objective({"td": logits[part], "bu": -logits[part]}, targets[part])
        for part in (slice(0, 2), slice(2, None))
    ]
    whole = objective({"td": logits, "bu": -logits}, targets)
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


def test_objective_does_not_look_at_views_without_weight():
    logits, targets = draw()
    objective = Objective(bce("nodes"), {"td": 2.0, "bu": 0.0})
    expected = 2 * bce("nodes")(logits, targets)
    assert torch.equal(objective({"td": logits}, targets), expected)
    nothing = torch.full_like(logits, torch.nan)
    assert torch.equal(objective({"td": logits, "bu": nothing, "joint": nothing}, targets), expected)
    with pytest.raises(KeyError, match="td"):
        objective({"bu": logits}, targets)


def test_objective_moves_to_a_device_and_leaves_nothing_in_a_checkpoint():
    logits, targets = (part.to("meta") for part in draw())
    objective = Objective(bce("nodes"), {"td": 1.0})
    assert not objective.state_dict()
    assert objective.to("meta")({"td": logits}, targets).is_meta
