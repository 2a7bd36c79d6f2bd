"""A branch against a plain loop over the tree, and the properties that every option of it has."""

import itertools

import pytest
import torch
from pairs import pairs

from hblm.nn.cascade import DIRECTIONS, SPACES, Cascade
from hblm.nn.film import PROPAGATIONS
from hblm.nn.heads import HEADS, OutputStart
from hblm.nn.link import PathLink, SiblingSoftmax, TruncatedSigmoid
from hblm.taxonomy import Node, Taxonomy

DIM, BATCH, SCALE, THRESHOLD = 16, 3, 0.7, 0.45
FORESTS = {
    # c, a2 and b1x end early; siblings are not neighbours in the order
    "uneven": {"a": None, "b": None, "c": None, "a1": "a", "b1": "b", "a2": "a"}
    | {"b1x": "b1", "a1x": "a1", "b1y": "b1", "b1y1": "b1y", "a1x1": "a1x"},
    "one_leaf": {"r": None, "s": None, "r1": "r", "s1": "s", "r2": "r", "r2x": "r2"},
    "one_root": {"r": None, "r1": "r", "r2": "r", "r3": "r"},
    "one_level": {"a": None, "b": None, "c": None},
}

every_forest = pytest.mark.parametrize("forest", FORESTS)
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)
every_method = pytest.mark.parametrize("method", PROPAGATIONS)
every_space = pytest.mark.parametrize("space", SPACES)
CONDITIONING = tuple(name for name in PROPAGATIONS if name != "none")
STARTS = (True, False)  # at the prior, or as it was built


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plant(forest):
    return Taxonomy(Node(node, node, parent) for node, parent in FORESTS[forest].items())


def grow(
    taxonomy, direction="top_down", method="sigmoid", space="child_space", head="linear", detach=True, **link
):
    torch.manual_seed(1)
    return Cascade(
        taxonomy,
        direction=direction,
        width=DIM,
        head=head,
        head_dropout=0.0,
        propagation_method=method,
        propagation_space=space,
        film_scale=SCALE,
        detach_parent_signal=detach,
        threshold=THRESHOLD,
        **link,
    )


def priors(taxonomy):
    return torch.linspace(-5, 1, len(taxonomy))


def stir(cascade, *parts):
    """Move the parameters whose name holds one of the parts (default: all), as training would."""
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(cascade.named_parameters()):
            if not parts or any(part in name for part in parts):
                parameter.add_(0.5 * draw(*parameter.shape, seed=seed))
    return cascade


def loop(taxonomy, cascade, start, direction, method, space, embedding):
    """Recompute a cascade from its weights and its heads' initial biases, one document and node at a time."""

    def signal(logit):
        score = 1 / (1 + torch.exp(-logit))
        return {"sigmoid": score, "logit": logit, "multi_hot": (score >= THRESHOLD).float()}[method]

    def value(source, target, of):
        nodes, start = taxonomy.levels, taxonomy.levels[source].start
        if space == "parent_space":
            return [of[i] for i in range(len(nodes[source]))]
        if direction == "top_down":
            return [of[taxonomy.parents[node] - start] for node in nodes[target]]
        children = [
            [k - start for k in nodes[source] if taxonomy.parents[k] == node] for node in nodes[target]
        ]
        return [max(of[k] for k in found) if found else torch.tensor(0.0) for found in children]

    n_levels = len(taxonomy.levels)
    order = list(range(n_levels)) if direction == "top_down" else list(range(n_levels))[::-1]
    logits, embeddings, modulation = {}, {}, dict.fromkeys(order, torch.tensor(0.0))
    for source, level in zip([None, *order], order, strict=False):
        rows = []
        for document in range(len(embedding)):
            row = embedding[document]
            if source is not None and method != "none":
                now = value(source, level, [signal(z) for z in logits[source][document]])
                then = value(source, level, [signal(z) for z in start[source]])
                c = torch.stack([n - t for n, t in zip(now, then, strict=True)])
                generator = cascade.films[str(level)].generator
                gamma, beta = (generator.weight @ c + generator.bias).split(DIM)
                row = row * (1 + SCALE * gamma) + SCALE * beta
                modulation[level] = modulation[level] + (SCALE * gamma).abs().mean() / len(embedding)
            rows.append(row)
        embeddings[level] = torch.stack(rows)
        logits[level] = cascade.heads[level](embeddings[level])
    by_level = [[values[level] for level in range(n_levels)] for values in (logits, embeddings, modulation)]
    return torch.cat(by_level[0], dim=1), by_level[1], torch.stack(by_level[2])


@every_forest
@every_direction
@every_method
@every_space
@pytest.mark.parametrize("prior", STARTS)
def test_equals_a_loop_over_the_tree(forest, direction, method, space, prior):
    taxonomy = plant(forest)
    cascade = grow(taxonomy, direction, method, space)
    if prior:
        cascade.initialise_output(OutputStart(priors(taxonomy)))
    start = [head.output.bias.detach().clone() for head in cascade.heads]
    stir(cascade)
    embedding = draw(BATCH, DIM)
    output = cascade(embedding)
    logits, embeddings, modulation = loop(taxonomy, cascade, start, direction, method, space, embedding)
    torch.testing.assert_close(output.logits, logits)
    assert len(output.embeddings) == len(taxonomy.levels)
    torch.testing.assert_close(list(output.embeddings), embeddings)
    torch.testing.assert_close(output.modulation, modulation)


@pytest.mark.parametrize(
    ("forest", "direction", "method", "kind"),
    pairs(FORESTS, DIRECTIONS, CONDITIONING, [SiblingSoftmax, TruncatedSigmoid]),
)
def test_films_read_a_level_through_the_link(forest, direction, method, kind):
    """P(source | its parent), of the source level alone."""
    taxonomy, embedding = plant(forest), draw(BATCH, DIM)
    stops = torch.tensor([position % 2 for position in range(len(taxonomy))])
    link = PathLink(taxonomy, kind, stops)
    cascade = grow(taxonomy, direction, method, "parent_space", link=link)
    cascade.initialise_output(OutputStart(priors(taxonomy)))
    stir(cascade)
    read = {}
    for level, film in cascade.films.items():
        film.generator.register_forward_pre_hook(
            lambda _, inputs, level=int(level): read.update({level: inputs[0]})
        )
    logits = cascade(embedding).logits
    step = 1 if direction == "top_down" else -1
    assert len(read) == len(taxonomy.levels) - 1

    def signal(logits, nodes):
        score = link.siblings(logits)[:, nodes]
        return {"sigmoid": score, "logit": score.log(), "multi_hot": (score >= THRESHOLD).float()}[method]

    for target, found in read.items():
        nodes = list(taxonomy.levels[target - step])
        expected = signal(logits, nodes) - signal(priors(taxonomy)[None], nodes)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("direction", "method", "space", "head"), pairs(DIRECTIONS, PROPAGATIONS, SPACES, HEADS)
)
def test_logits_are_in_taxonomy_order_and_embeddings_in_level_order(direction, method, space, head):
    taxonomy = plant("uneven")
    cascade = stir(grow(taxonomy, direction, method, space, head))
    output = cascade(draw(BATCH, DIM))
    for level, nodes in enumerate(taxonomy.levels):
        expected = cascade.heads[level](output.embeddings[level])
        assert torch.equal(output.logits[:, nodes.start : nodes.stop], expected)


@pytest.mark.parametrize(
    ("forest", "direction", "method", "space", "prior"),
    pairs(FORESTS, DIRECTIONS, PROPAGATIONS, SPACES, STARTS),
)
def test_new_cascades_are_independent_heads(forest, direction, method, space, prior):
    """Direction, method and space change nothing yet: the same seed gives the same heads and logits."""
    taxonomy, embedding = plant(forest), draw(BATCH, DIM)
    cascade, plain = grow(taxonomy, direction, method, space), grow(taxonomy, method="none")
    for each in (cascade, plain):
        each.initialise_output(OutputStart(priors(taxonomy)) if prior else None)
    output = cascade(embedding)
    assert torch.equal(output.logits, plain(embedding).logits)
    assert all(torch.equal(modulated, embedding) for modulated in output.embeddings)
    assert torch.equal(output.modulation, torch.zeros(len(taxonomy.levels)))


@pytest.mark.parametrize(
    ("forest", "direction", "method", "space", "prior"),
    pairs(FORESTS, DIRECTIONS, CONDITIONING, SPACES, STARTS),
)
def test_initial_biases_do_not_drive_the_generators(forest, direction, method, space, prior):
    """Where every logit is its initial bias, c is zero: whatever the generators' weights, nothing happens."""
    taxonomy, embedding = plant(forest), draw(BATCH, DIM)
    cascade = grow(taxonomy, direction, method, space)
    cascade.initialise_output(OutputStart(priors(taxonomy)) if prior else None)
    with torch.no_grad():
        for head in cascade.heads:
            head.output.weight.zero_()
    stir(cascade, "generator.weight")
    output = cascade(embedding)
    for modulated in output.embeddings:
        torch.testing.assert_close(modulated, embedding, rtol=0, atol=1e-5)
    stir(cascade, "output.bias")
    if method != "multi_hot":  # whose decisions need not change
        assert bool((cascade(embedding).modulation > 1e-5).any()) == (len(taxonomy.levels) > 1)


def test_none_is_independent_heads():
    taxonomy, embedding = plant("uneven"), draw(BATCH, DIM)
    cascade = stir(grow(taxonomy, method="none", head="mlp"))
    assert not cascade.films
    before = cascade(embedding).logits
    expected = torch.cat([head(embedding) for head in cascade.heads], dim=1)
    assert torch.equal(before, expected)
    for level, nodes in enumerate(taxonomy.levels):
        same = torch.ones(len(taxonomy), dtype=torch.bool)
        same[nodes.start : nodes.stop] = False
        stir(cascade, f"heads.{level}.")
        after = cascade(embedding).logits
        assert torch.equal((after == before).all(0), same)
        before = after


@every_direction
@every_space
@pytest.mark.parametrize("method", ["sigmoid", "logit"])
def test_a_head_reaches_the_levels_visited_after_it_only(direction, space, method):
    taxonomy, embedding = plant("uneven"), draw(BATCH, DIM)
    levels = range(len(taxonomy.levels))
    cascade = stir(grow(taxonomy, direction, method, space))
    before = cascade(embedding).logits
    for changed in levels:
        stir(cascade, f"heads.{changed}.")
        after = cascade(embedding).logits
        for level in levels:
            nodes = taxonomy.levels[level]
            same = torch.equal(after[:, nodes.start : nodes.stop], before[:, nodes.start : nodes.stop])
            assert same == (level < changed if direction == "top_down" else level > changed)
        before = after


@every_direction
@every_method
@pytest.mark.parametrize("detach", [True, False])
def test_detach_decides_whether_a_level_teaches_the_one_before(direction, method, detach):
    taxonomy = plant("uneven")
    cascade = stir(grow(taxonomy, direction, method, detach=detach))
    levels = list(range(len(taxonomy.levels)))
    order = levels if direction == "top_down" else levels[::-1]
    for source, target in itertools.pairwise(order):
        cascade.zero_grad()
        nodes = taxonomy.levels[target]
        cascade(draw(BATCH, DIM)).logits[:, nodes.start : nodes.stop].sum().backward()
        weight = cascade.heads[source].output.weight
        flows = weight.grad is not None and bool((weight.grad != 0).any())
        assert flows == (not detach and method in ("sigmoid", "logit"))
        assert (cascade.heads[target].output.weight.grad != 0).all()


@every_direction
def test_modulation_is_zero_at_the_first_visited_level_only(direction):
    taxonomy = plant("uneven")
    cascade = stir(grow(taxonomy, direction))
    modulation = cascade(draw(BATCH, DIM)).modulation
    first = 0 if direction == "top_down" else len(taxonomy.levels) - 1
    assert [bool(value == 0) for value in modulation] == [level == first for level in range(len(modulation))]
    assert not modulation.requires_grad


@every_direction
@every_method
@pytest.mark.parametrize("head", HEADS)
def test_prior_reaches_every_node_in_taxonomy_order(direction, method, head):
    taxonomy = plant("uneven")
    cascade, default = (grow(taxonomy, direction, method, head=head) for _ in range(2))
    cascade.initialise_output(OutputStart(priors(taxonomy)))
    assert torch.equal(torch.cat([h.output.bias for h in cascade.heads]), priors(taxonomy))
    for ours, theirs in zip(cascade.heads, default.heads, strict=True):
        torch.testing.assert_close(ours.output.weight, 0.1 * theirs.output.weight)


def test_priors_of_another_taxonomy_are_refused():
    with pytest.raises(RuntimeError):
        grow(plant("uneven")).initialise_output(OutputStart(torch.zeros(3)))


@every_direction
@every_method
@every_space
def test_state_is_readable_and_complete(direction, method, space):
    taxonomy, embedding = plant("uneven"), draw(BATCH, DIM)
    cascade, other = (grow(taxonomy, direction, method, space) for _ in range(2))
    cascade.initialise_output(OutputStart(priors(taxonomy)))
    state = stir(cascade).state_dict()
    first = 0 if direction == "top_down" else 3
    conditioned = [level for level in range(4) if level != first and method != "none"]
    films = [f"films.{level}.{name}" for level in conditioned for name in ("c0", "generator.weight")]
    films += [f"films.{level}.generator.bias" for level in conditioned]
    heads = [f"heads.{level}.output.{name}" for level in range(4) for name in ("weight", "bias")]
    assert sorted(state) == sorted(films + heads)
    other.load_state_dict(state)
    assert torch.equal(other(embedding).logits, cascade(embedding).logits)


@every_direction
@every_method
@every_space
def test_never_waits_for_a_value(direction, method, space):
    """On the meta device there are no values: reading one (a host sync on a GPU) would raise."""
    taxonomy = plant("uneven")
    output = grow(taxonomy, direction, method, space).to("meta")(torch.empty(BATCH, DIM, device="meta"))
    assert output.logits.shape == (BATCH, len(taxonomy))
    assert output.modulation.is_meta


@pytest.mark.parametrize("wrong", ["direction", "method", "space", "head"])
def test_unknown_options_are_refused(wrong):
    with pytest.raises(KeyError, match="sideways"):
        grow(plant("uneven"), **{wrong: "sideways"})
