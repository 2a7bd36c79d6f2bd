"""The ways of conditioning that the bench compares, and how it resumes, chooses and tests."""

from __future__ import annotations

import functools

import condition
import pytest
import torch
from condition import ALWAYS, Line, Settings, by_variant, choice, holm, main, read_lines
from condition_variants import GOLD, INDEPENDENT, ORACLE, VARIANTS, Built, Gold, ancestors_at
from torch import nn

from hblm.data.batches import Batch
from hblm.encoders.encoder import load_encoder
from hblm.encoders.pretrained import locate
from hblm.engine import build
from hblm.engine.loop import Fitted
from hblm.engine.scoring import Scoring
from hblm.errors import ConfigError
from hblm.nn.losses import BceLoss, Objective
from hblm.nn.pooling import MeanPooling
from hblm.tables.significance import paired_permutation
from hblm.taxonomy import read_taxonomy

DOCUMENTS, WIDTH = 6, 64
KEYS = ("encoder=tiny", "encoder.max_length=32", "device=cpu")
every_variant = pytest.mark.parametrize("name", VARIANTS)
settings_of = functools.cache(lambda *keys: Settings("bce", [*KEYS, *keys]))  # each composes for itself
POOLED = torch.randn(DOCUMENTS, WIDTH, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def fruit(learnable):
    """Return the folder, the taxonomy (levels of 2, 3 and 2 nodes) and an encoder."""
    encoder = load_encoder(locate("tiny"), dropout=None, gradient_checkpointing=False)
    return learnable, read_taxonomy(learnable / "taxonomy.json"), encoder


def make(fruit, name, *keys):
    """Return a new variant in eval mode, its change, and a scoring whose batches are POOLED."""
    folder, taxonomy, encoder = fruit
    config = settings_of(*keys).compose("fruit", str(folder), *VARIANTS[name].overrides)
    torch.manual_seed(1)
    model = build.classifier(config, taxonomy, encoder)
    model.encoder = nn.Identity()
    texts = torch.randn(len(taxonomy), WIDTH, generator=torch.Generator().manual_seed(2))
    change = VARIANTS[name].change(Built(model, config, taxonomy, texts))
    loss = BceLoss(taxonomy, "nodes", torch.arange(1, 8), 20)
    scoring = Scoring(
        taxonomy=taxonomy,
        objective=Objective(loss, change.weights),
        threshold=0.5,
        batch_size=8,
        num_workers=0,
        collate=lambda split, indices: Batch({"pooled": POOLED}, split),
        train_support=[1] * len(taxonomy),
    )
    if change.gold is not None:
        scoring = change.gold.attach(model, scoring)
    label_text = config.head.output_init == "label_text"
    build.initialise_output(model, config, scoring, texts if label_text else None)
    return model.eval(), change, scoring


def targets_of(seed):
    return torch.randint(0, 2, (DOCUMENTS, 7), generator=torch.Generator().manual_seed(seed)).float()


def answer(model, scoring, seed=0):
    """Return the views of POOLED, with the targets of a seed."""
    return model(**scoring.collate(targets_of(seed), None).inputs).views


def stir(module, *parts):
    """Move the parameters whose name holds one of the parts (default: all), as training would."""
    draws = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not parts or any(part in name for part in parts):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=draws))


@every_variant
@pytest.mark.parametrize("start", ["prior", "label_text"])
@pytest.mark.slow
def test_new_variants_are_independent_heads(fruit, name, start):
    model, _, scoring = make(fruit, name, f"head.output_init={start}")
    plain, _, plain_scoring = make(fruit, INDEPENDENT, f"head.output_init={start}")
    views = answer(model, scoring)
    expected = answer(plain, plain_scoring)["single"]
    assert all(torch.equal(logits, expected) for logits in views.values())
    stir(model)
    assert not torch.equal(answer(model, scoring)["single"], expected)


@every_variant
def test_gradients_reach_every_parameter(fruit, name):
    model, _, scoring = make(fruit, name)
    stir(model)  # where a layer is the identity, what comes before it gets no gradient
    scoring.objective(answer(model, scoring), targets_of(0)).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert (parameter.grad != 0).any(), parameter_name


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("learned_scale", ["films.1.scale", "films.2.scale"]),
        ("all_above", ["farther.0_2.generator.weight", "farther.0_2.generator.bias"]),
        ("second_pass", ["branches.films.0.generator.weight", "branches.films.1.generator.weight"]),
        ("encoder", ["film.generator.weight", "film.generator.bias"]),
        ("attention", ["read.1.weight", "read.2.weight", "read.1.bias", "read.2.bias"]),
    ],
)
def test_what_a_variant_adds_is_trained(fruit, name, added):
    model, _, _ = make(fruit, name)
    trained = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
    for part in added:
        assert sum(key.endswith(part) for key in trained) == 1, part
    if name in ("attention", "encoder"):
        assert not any("films." in key for key in trained)


def test_the_oracle_reads_the_targets_and_no_scores(fruit):
    model, _, scoring = make(fruit, ORACLE)
    stir(model)
    one, other = (answer(model, scoring, seed)["single"] for seed in (0, 1))
    assert torch.equal(one[:, :2], other[:, :2])  # the root level has no signal
    assert not torch.equal(one[:, 2:5], other[:, 2:5])
    stir(model, "heads.0.", "heads.1.")
    after = answer(model, scoring)["single"]
    assert torch.equal(after[:, 5:], one[:, 5:])  # whatever the levels above predict
    plain, _, plain_scoring = make(fruit, "top_down")
    stir(plain)
    before = answer(plain, plain_scoring)["single"]
    stir(plain, "heads.1.")
    assert not torch.equal(answer(plain, plain_scoring)["single"][:, 5:], before[:, 5:])


@pytest.mark.parametrize("name", ["gold_half", "gold_anneal"])
def test_gold_labels_are_for_training(fruit, name):
    model, change, scoring = make(fruit, name)
    stir(model)
    plain, _, plain_scoring = make(fruit, "top_down")
    stir(plain)
    expected = answer(plain, plain_scoring)["single"]
    assert torch.equal(answer(model, scoring)["single"], expected)
    change.gold.progress = 0.5
    model.training = True  # of the hook alone: no dropout
    found = answer(model, scoring)["single"]
    given = change.gold.given
    assert torch.equal((found != expected).any(1), given)
    assert 0 < given.sum() < DOCUMENTS


def test_shares_of_gold_labels():
    everywhere = torch.ones(2000, 1)
    for progress, share in ((0.0, 1.0), (0.25, 0.75), (1.0, 0.0)):
        gold = Gold(lambda progress: 1.0 - progress, seed=1)
        gold.progress = progress
        gold.take(everywhere, training=True)
        assert gold.given.float().mean() == pytest.approx(share, abs=0.03 if 0 < share < 1 else 0)
        gold.take(everywhere, training=False)
        assert not gold.given.any()


def test_targets_travel_with_the_batch(fruit):
    model, change, scoring = make(fruit, ORACLE)
    batch = scoring.collate(targets_of(4), None)
    assert set(batch.inputs) == {"pooled", GOLD}
    model(**batch.inputs)
    assert torch.equal(change.gold.targets, targets_of(4))


def test_all_above_reads_levels_that_are_not_next(fruit):
    model, _, scoring = make(fruit, "all_above")
    stir(model, "farther")
    before = answer(model, scoring)["single"]
    stir(model, "heads.0.")
    after = answer(model, scoring)["single"]
    assert torch.equal(after[:, 2:5], before[:, 2:5])
    assert not torch.equal(after[:, 5:], before[:, 5:])
    taxonomy = fruit[1]
    for source, target in ((0, 1), (1, 2), (0, 2)):
        found = ancestors_at(taxonomy, source, target)
        for node, position in zip(taxonomy.levels[target], found, strict=True):
            line = taxonomy.ancestors(taxonomy.nodes[node].id)
            assert taxonomy.nodes[taxonomy.levels[source][position]].id == line[target - source - 1]


def test_the_second_pass_goes_upwards(fruit):
    model, change, scoring = make(fruit, "second_pass")
    assert change.weights == {"single": 0.5, "first": 0.5}
    stir(model)
    plain, _, plain_scoring = make(fruit, "top_down")
    plain.projection.load_state_dict(model.projection.state_dict())
    plain.branches.single.load_state_dict(model.branches.first.state_dict())
    views = answer(model, scoring)
    assert torch.equal(views["first"], answer(plain, plain_scoring)["single"])
    assert torch.equal(views["single"][:, 5:], views["first"][:, 5:])
    assert not torch.equal(views["single"][:, :2], views["first"][:, :2])
    stir(model, "heads.1.")
    after = answer(model, scoring)
    assert torch.equal(after["first"][:, :2], views["first"][:, :2])
    assert not torch.equal(after["single"][:, :2], views["single"][:, :2])


def test_attention_is_its_formula(fruit):
    model, _, scoring = make(fruit, "attention")
    part = model.branches.single
    stir(model)
    logits = answer(model, scoring)["single"]
    embedding, keys = model.projection(POOLED), part.get_buffer("keys_1")
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(2))
    for document in range(DOCUMENTS):
        e, p = embedding[document], logits[document, :2].sigmoid()
        w = torch.stack([p[j] * torch.exp(e @ keys[j]) for j in range(2)])
        read = part.read["1"](sum(w[j] / w.sum() * keys[j] for j in range(2)))
        expected = part.cascade.heads[1]((e + 0.2 * read)[None])[0]
        torch.testing.assert_close(logits[document, 2:5], expected, rtol=1e-4, atol=1e-4)


def test_film_before_the_projection_is_film_of_the_tokens(fruit):
    model, _, _ = make(fruit, "encoder")
    stir(model)
    part = model.branches.single
    hidden = torch.randn(DOCUMENTS, 5, WIDTH, generator=torch.Generator().manual_seed(6))
    mask = torch.arange(5) < torch.tensor([[1], [2], [3], [4], [5], [5]])
    pooled = MeanPooling()(hidden, mask)
    root = part.cascade.heads[0](part.projection(pooled))
    moved = torch.stack([part.film(hidden[:, token], root)[0] for token in range(5)], dim=1)
    below = part.projection(MeanPooling()(moved, mask))
    expected = torch.cat([root, *(head(below) for head in part.cascade.heads[1:])], dim=1)
    torch.testing.assert_close(model(pooled=pooled).views["single"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_the_csv_goes_on(learnable, tmp_path, monkeypatch, capsys):
    path = tmp_path / "runs.csv"
    keys = ["--csv", str(path), "--data", f"fruit={learnable}", *KEYS, "trainer.epochs=1"]
    given = [*keys, "--variants", "second_pass,attention"]
    main(["choose", *given, "--seeds", "1"])
    lines = read_lines(path)
    assert [line.variant for line in lines] == [*ALWAYS, "second_pass", "attention"]
    assert {(line.set, line.seed, line.stage, line.test_micro, line.test_macro) for line in lines} == {
        ("fruit", 1, "choose", None, None)
    }
    assert "oracle (a bound, no model)" in capsys.readouterr().out
    trained = []
    real = condition.train_one

    def spy(frame, config, variant, **more):
        trained.append((config.seed, next(name for name in VARIANTS if VARIANTS[name] is variant)))
        return real(frame, config, variant, **more)

    monkeypatch.setattr(condition, "train_one", spy)
    main(["choose", *given, "--seeds", "1", "cache_dir=elsewhere"])
    assert not trained
    main(["choose", *given, "--seeds", "2"])
    assert trained == [(2, line.variant) for line in lines]
    assert read_lines(path)[:5] == lines
    main(["test", *keys, "--variants", "attention", "--seeds", "1"])
    tested = [line for line in read_lines(path) if line.stage == "test"]
    assert [line.variant for line in tested] == [*ALWAYS, "attention"]
    assert all(line.test_micro is not None for line in tested)
    # a run does not depend on those before it
    assert (tested[-1].val_micro, tested[-1].val_macro) == (lines[4].val_micro, lines[4].val_macro)
    assert "p micro (Holm)" in capsys.readouterr().out
    main(["choose", *given, "--seeds", "1", "trainer.batch_size=7"])
    assert len(trained) == 5 + 4 + 5
    main(["table", "--csv", str(path)])
    shown = capsys.readouterr().out
    assert shown.count("| independent |") == 4  # one is of the stage just run


@pytest.mark.long
def test_runs_of_a_seed_start_alike(learnable, monkeypatch):
    """The first batch gives all variants the same logits, dropout included."""
    plain = ("trainer=small", "trainer.label_documents=false", "head.output_init=prior")
    settings = Settings("bce", [*KEYS, *plain])
    frame = condition.open_frame(settings.compose("fruit", str(learnable), "film=none"))
    found = {}

    def first_batch(model, train, val, *, scoring, **others):
        batch = scoring.collate(train, torch.arange(8).numpy())
        views = model.train()(**batch.inputs).views
        found[name] = views.get("first", views["single"])
        if name == "encoder":  # whose second pass drops anew
            found[name] = torch.cat([views["single"][:, :2], found[INDEPENDENT][:, 2:]], dim=1)
        return Fitted(1, [{"val_micro_f1": 0.0, "val_macro_f1": 0.0}], 0, 0.0)

    monkeypatch.setattr(condition, "fit", first_batch)
    for name in VARIANTS:
        config = settings.compose("fruit", str(learnable), *VARIANTS[name].overrides, "seed=3")
        condition.train_one(frame, config, VARIANTS[name], with_test=False)
    name = "another seed"
    config = settings.compose("fruit", str(learnable), "film=none", "seed=4")
    condition.train_one(frame, config, VARIANTS[INDEPENDENT], with_test=False)
    assert not torch.equal(found.pop(name), found[INDEPENDENT])
    for name, logits in found.items():
        assert torch.equal(logits, found[INDEPENDENT]), name


@pytest.mark.slow
def test_gold_labels_fade_out_over_the_epochs(learnable, tmp_path, monkeypatch):
    shares = []
    real = Gold.take

    def spy(self, targets, *, training):
        real(self, targets, training=training)
        if training:
            shares.append((self.progress, self.given.float().mean().item()))

    monkeypatch.setattr(Gold, "take", spy)
    main(
        [
            *("choose", "--csv", str(tmp_path / "runs.csv"), "--data", f"fruit={learnable}"),
            *("--seeds", "1", "--variants", "gold_anneal", "trainer.epochs=3", "trainer.batch_size=30"),
            *KEYS,
        ]
    )
    faded = shares[6:]  # the oracle's come first: 3 epochs of 2 steps
    assert [share for _, share in shares[:6]] == [1.0] * 6
    assert [progress for progress, _ in faded] == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    assert [share for _, share in faded[:2] + faded[4:]] == [1.0, 1.0, 0.0, 0.0]
    assert all(0.1 < share < 0.9 for _, share in faded[2:4])


def lines_of(name, scores, stage="choose"):
    """Return a variant's runs with these scores, two sets with as many seeds each."""
    return [
        Line(
            name,
            "ab"[at % 2],
            1 + at // 2,
            stage,
            f"{name}{at}",
            "loss=bce",
            *[score] * 4,
            1,
            0.0,
        )
        for at, score in enumerate(scores)
    ]


def test_the_best_four_are_chosen_among_those_better_than_independent_heads():
    scores = {"gold_half": 0.6, "encoder": 0.55, "scale_1": 0.52, "gradient": 0.7, "attention": 0.51}
    scores |= {INDEPENDENT: 0.5, "top_down": 0.9, ORACLE: 0.9, "all_above": 0.4}
    lines = [line for name, score in scores.items() for line in lines_of(name, [score] * 4)]
    lines += lines_of("second_pass", [0.9] * 3)  # which is not finished
    found = by_variant(lines, "choose", "loss=bce")
    assert choice(found) == ["gradient", "gold_half", "encoder", "scale_1"]
    assert choice({name: found[name] for name in (INDEPENDENT, "all_above", ORACLE)}) == []


def test_p_values_are_adjusted_by_holm_over_what_was_tested():
    draws = torch.Generator().manual_seed(0)
    base = torch.rand(16, generator=draws).tolist()
    gaps = {
        name: (shift + 0.1 * torch.randn(16, generator=draws)).tolist()
        for name, shift in (("gold_half", 0.1), ("encoder", 0.05), ("attention", 0.02))
    }
    lines = [*lines_of(INDEPENDENT, base, "test"), *lines_of(ORACLE, [1.0] * 16, "test")]
    for name, differences in gaps.items():
        lines += lines_of(name, [b + d for b, d in zip(base, differences, strict=True)], "test")
    found = holm(by_variant(lines, "test", "loss=bce"), "test_macro")
    p = {name: paired_permutation(torch.tensor([gap]).double().numpy())[0] for name, gap in gaps.items()}
    first, second, third = sorted(p, key=lambda name: p[name])
    expected = [3 * p[first]]
    expected.append(max(expected[-1], 2 * p[second]))
    expected.append(max(expected[-1], p[third]))
    assert found == {
        name: pytest.approx(min(1, value), abs=1e-3)
        for name, value in zip((first, second, third), expected, strict=True)
    }
    assert by_variant(lines, "choose", "loss=bce") == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["choose"], "needs --data"),
        (["choose", "--data", "fruit"], "write NAME=DIR"),
        (["choose", "--data", "a=b", "--variants", "atention"], "did you mean attention"),
        (["test", "--data", "a=b"], "needs --variants"),
        (["test", "--data", "a=b", "--variants", "oracle,top_down"], "needs --variants"),
        (["choose", "--data", "a=b", "film=logit"], "drop film=logit"),
        (["choose", "--data", "a=b", "direction=bottom_up"], "drop direction"),
        (["choose", "--data", "a=b", "method=dual"], "drop direction, method"),
        (["choose", "--data", "a=b", "encoder.trainable=true"], "drop encoder.trainable=true"),
        (["choose", "--data", "a=b", "trainer.epoch=3"], "trainer.epoch"),
        (["choose", "--data", "a=b", "trainer.epochs=0"], "trainer.epochs"),
    ],
)
@pytest.mark.slow
def test_what_makes_no_sense_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        main([*words, "--csv", "runs.csv"])
