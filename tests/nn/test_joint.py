"""Two branches over one embedding: what each view is, and what the mix head reads."""

import pytest
import torch

from hblm.nn.cascade import Cascade
from hblm.nn.heads import HEADS
from hblm.nn.joint import Dual, Single, TriHeadDiffcat, weighted_mean
from hblm.taxonomy import Node, Taxonomy

DIM, BATCH = 16, 5
PARENTS = {"a": None, "b": None, "a1": "a", "b1": "b", "a2": "a", "b1x": "b1"}
TAXONOMY = Taxonomy(Node(node, node, parent) for node, parent in PARENTS.items())
EMBEDDING = torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(0))

every_head = pytest.mark.parametrize("head", HEADS)


def cascade(direction, head="mlp", method="sigmoid"):
    return Cascade(
        TAXONOMY,
        direction=direction,
        width=DIM,
        head=head,
        head_dropout=0.0,
        propagation_method=method,
        propagation_space="child_space",
        film_scale=0.7,
        detach_parent_signal=True,
        threshold=0.5,
    )


@torch.no_grad()
def stir(model):
    """Give every parameter a value, so that FiLM acts."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return model


def tri(head="mlp", fuse=(1.0, 1.0, 1.0), method="sigmoid"):
    torch.manual_seed(1)
    td, bu = cascade("top_down", head, method), cascade("bottom_up", head, method)
    return stir(TriHeadDiffcat(td, bu, taxonomy=TAXONOMY, width=DIM, head=head, head_dropout=0.0, fuse=fuse))


def test_a_single_model_is_its_branch():
    branch = stir(cascade("bottom_up"))
    output = Single(branch)(EMBEDDING)
    assert output.views.keys() == output.modulation.keys() == {"single"}
    assert torch.equal(output.views["single"], branch(EMBEDDING).logits)


@every_head
def test_the_fused_view_of_dual_is_the_mean_of_td_and_bu(head):
    model = stir(Dual(cascade("top_down", head), cascade("bottom_up", head)))
    output = model(EMBEDDING)
    assert list(output.views) == ["fused", "td", "bu"]
    td, bu = model.td(EMBEDDING), model.bu(EMBEDDING)
    assert torch.equal(output.views["td"], td.logits)
    assert torch.equal(output.views["bu"], bu.logits)
    assert torch.equal(output.views["fused"], (td.logits + bu.logits) / 2)
    assert not torch.allclose(td.logits, bu.logits)
    assert torch.equal(output.modulation["td"], td.modulation)
    assert torch.equal(output.modulation["bu"], bu.modulation)


@every_head
def test_the_mix_head_reads_both_embeddings_and_their_difference(head):
    model = tri(head)
    output = model(EMBEDDING)
    assert list(output.views) == ["fused", "td", "bu", "mix"]
    td, bu = model.td(EMBEDDING), model.bu(EMBEDDING)
    for level, places in enumerate(TAXONOMY.levels):
        e_td, e_bu = td.embeddings[level], bu.embeddings[level]
        assert not torch.allclose(e_td, e_bu)
        expected = model.mix[level](torch.cat([e_td, e_bu, e_td - e_bu], dim=1))
        assert torch.equal(output.views["mix"][:, places.start : places.stop], expected)
    mean = (td.logits + bu.logits + output.views["mix"]) / 3
    torch.testing.assert_close(output.views["fused"], mean)


@pytest.mark.parametrize(
    ("fuse", "view"),
    [((1.0, 0.0, 0.0), "td"), ((0.0, 1.0, 0.0), "bu"), ((0.0, 0.0, 1.0), "mix"), ((0.3, 0.0, 0.0), "td")],
)
def test_one_fuse_weight_gives_that_view_to_the_bit(fuse, view):
    views = tri(fuse=fuse)(EMBEDDING).views
    assert torch.equal(views["fused"], views[view])


def test_fuse_weights_are_relative():
    views = tri(fuse=(1.0, 2.0, 5.0))(EMBEDDING).views
    expected = (views["td"] + 2 * views["bu"] + 5 * views["mix"]) / 8
    torch.testing.assert_close(views["fused"], expected)
    torch.testing.assert_close(tri(fuse=(10.0, 20.0, 50.0))(EMBEDDING).views["fused"], expected)


def test_fuse_weights_change_no_other_view_and_are_not_in_the_state():
    one, other = tri(fuse=(1.0, 1.0, 1.0)), tri(fuse=(3.0, 0.0, 1.0))
    assert one.state_dict().keys() == other.state_dict().keys()
    views = [model(EMBEDDING).views for model in (one, other)]
    for view in ("td", "bu", "mix"):
        assert torch.equal(views[0][view], views[1][view])
    assert not torch.equal(views[0]["fused"], views[1]["fused"])


def test_gradients_of_the_mix_head_flow_into_both_branches():
    model = tri()
    model(EMBEDDING).views["mix"].sum().backward()
    for branch in (model.td, model.bu):
        assert all(film.generator.weight.grad.any() for film in branch.films.values())


def test_without_conditioning_the_branches_read_the_same():
    model = tri(method="none")
    td, bu = model.td(EMBEDDING), model.bu(EMBEDDING)
    for e_td, e_bu in zip(td.embeddings, bu.embeddings, strict=True):
        assert torch.equal(e_td, EMBEDDING)
        assert torch.equal(e_bu, EMBEDDING)


def test_in_bfloat16_the_difference_keeps_what_the_films_say():
    """In bfloat16 e_td - e_bu of a small modulation would be 0: 1 + a γ rounds to 1."""
    model = tri()
    with torch.no_grad():
        for branch in (model.td, model.bu):
            for film in branch.films.values():
                film.generator.weight.mul_(1e-4)
                film.generator.bias.mul_(1e-4)
    read = []
    for head in model.mix:
        head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        model(EMBEDDING)
    for features in read:
        *_, difference = features.split(DIM, dim=1)
        assert difference.dtype == torch.float32
        assert (difference != 0).float().mean() > 0.9


@pytest.mark.parametrize("weight", [1e-46, 1e-42, 1e38, 3e38])
def test_weights_of_any_size_are_relative(weight):
    parts = [torch.full((2, 3), 3.0), torch.full((2, 3), 5.0)]
    assert torch.equal(weighted_mean(parts, (weight, weight)), torch.full((2, 3), 4.0))


def test_weighted_mean_is_float32_and_leaves_out_what_weighs_nothing():
    nan = torch.full((2, 3), torch.nan)
    one, two = torch.ones(2, 3).bfloat16(), torch.full((2, 3), 4.0)
    found = weighted_mean([nan, one, two], (0.0, 1.0, 2.0))
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.full((2, 3), 3.0))
