"""What the options of the configuration build, from YAML to modules."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from programs import compose
from torch import nn

from hblm.config.train import TrainConfig
from hblm.data.dataset import open_prepared
from hblm.data.tokens import tokenise
from hblm.encoders.encoder import load_encoder
from hblm.encoders.pretrained import locate
from hblm.encoders.tokenizer import load_tokenizer
from hblm.engine import build, device
from hblm.errors import ConfigError
from hblm.nn.conditional import ConditionalLoss, ConditionalSoftmaxLoss
from hblm.nn.joint import Dual, Single, TriHeadDiffcat
from hblm.nn.losses import BceLoss, FocalLoss


@pytest.mark.parametrize(("variable", "precision"), [("0", "fp32"), ("1", "bf16")])
def test_auto_takes_bf16_where_it_is_fast(monkeypatch, variable, precision):
    monkeypatch.setenv("HBLM_BF16", variable)
    assert device.resolved_precision(device.accelerator("cpu", "auto")) == precision


def config(*overrides: str) -> TrainConfig:
    return compose("train", TrainConfig, "dataset=wos", "encoder=tiny", *overrides)


@pytest.fixture(scope="module")
def parts(learnable, tmp_path_factory):
    """Return taxonomy, an encoder and the tokenised training split."""
    prepared, source = open_prepared(learnable), locate("tiny")
    encoder = load_encoder(source, dropout=None, gradient_checkpointing=False)
    cache = tmp_path_factory.mktemp("cache")
    splits = tokenise(prepared, load_tokenizer(source), max_length=16, cache_dir=cache)
    return prepared.taxonomy, encoder, splits["train"]


@pytest.mark.parametrize(
    ("option", "kind"), [("none", Single), ("dual", Dual), ("tri_head_diffcat", TriHeadDiffcat)]
)
def test_each_joint_variant_is_a_class(parts, option, kind):
    taxonomy, *_ = parts
    by_group, by_preset = (
        config(f"joint_variant={option}"),
        config(f"method={option.replace('none', 'top_down')}"),
    )
    assert type(build.branches(by_group, taxonomy, 8)) is kind
    model = build.branches(by_preset, taxonomy, 8)
    assert type(model) is kind
    assert tuple(model(torch.ones(1, 8)).views) == by_preset.joint_variant.views


def test_directions_of_the_branches(parts):
    taxonomy, *_ = parts
    single = build.branches(config("direction=bottom_up"), taxonomy, 8)
    assert [*single.single.order] == [2, 1, 0]
    joint = build.branches(config("joint_variant=dual", "direction=bottom_up"), taxonomy, 8)
    assert ([*joint.td.order], [*joint.bu.order]) == ([0, 1, 2], [2, 1, 0])


def test_fuse_weights_and_head_options_reach_the_mix_head(parts):
    taxonomy, *_ = parts
    given = ("joint_variant.tri_fuse_td=0.2", "joint_variant.tri_fuse_mix=3", "head=linear")
    model = build.branches(config("joint_variant=tri_head_diffcat", *given), taxonomy, 8)
    assert model.fuse == (0.2, 1.0, 3.0)
    assert [head.output.in_features for head in model.mix] == [24, 24, 24]


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        (("loss=bce",), BceLoss),
        (("loss=focal", "loss.gamma=1.5"), FocalLoss),
        (("loss=conditional_softmax", "loss.tau=0.5"), ConditionalSoftmaxLoss),
        (("loss=conditional",), ConditionalLoss),
    ],
)
def test_each_loss_is_a_class_with_its_keys(parts, overrides, kind):
    taxonomy, _, train = parts
    made = build.loss(config(*overrides), taxonomy, build.TrainingCounts.of(train, taxonomy))
    assert type(made) is kind
    assert getattr(made, "gamma", 1.5) == 1.5
    assert getattr(made, "tau", 0.5) == 0.5
    assert made.prior_logits().shape == (len(taxonomy),)


@pytest.mark.parametrize("variant", ["none", "dual", "tri_head_diffcat"])
@pytest.mark.parametrize("loss", ["conditional_softmax", "conditional"])
@pytest.mark.slow
def test_what_the_films_read_is_in_the_state(parts, loss, variant):
    """A model without the training split, as an evaluation makes it, gets it from the checkpoint."""
    taxonomy, _, train = parts
    given = config(f"loss={loss}", f"joint_variant={variant}")
    made = build.loss(given, taxonomy, build.TrainingCounts.of(train, taxonomy))
    model = build.branches(given, taxonomy, 8, made.link).eval()
    stored = build.branches(given, taxonomy, 8).eval()
    embedding = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(len(parameter)))
        before = model(embedding).views
        stored.load_state_dict(dict(model.named_parameters()), strict=False)
        incomplete = stored(embedding).views
        stored.load_state_dict(model.state_dict())
        after = stored(embedding).views
    for view, logits in before.items():
        assert torch.equal(after[view], logits)
        assert not torch.equal(incomplete[view], logits)


def test_method_flat_is_one_linear_layer(parts):
    """The preset as the command line composes it: logits, loss and gradients of one Linear(D, N)."""
    taxonomy, encoder, train = parts
    flat = config("method=flat", "pooling=mean", "head.output_init=default")
    model = build.classifier(flat, taxonomy, encoder).eval()
    heads = [head.output for head in model.branches.single.heads]
    above = [name for name, _ in model.named_parameters() if not name.startswith("encoder.")]
    assert len(above) == 2 * len(heads)  # a weight and a bias for each level, and nothing else
    linear = nn.Linear(heads[0].in_features, len(taxonomy))
    with torch.no_grad():
        linear.weight.copy_(torch.cat([head.weight for head in heads]))
        linear.bias.copy_(torch.cat([head.bias for head in heads]))
    ids = torch.randint(5, 90, (6, 9), generator=torch.Generator().manual_seed(0))
    targets = torch.randint(0, 2, (6, len(taxonomy)), generator=torch.Generator().manual_seed(1)).float()
    mask = torch.ones_like(ids)
    views = model(ids, mask).views
    expected = linear(encoder(input_ids=ids, attention_mask=mask).last_hidden_state.mean(1))
    torch.testing.assert_close(views["single"], expected)
    loss = build.loss(flat, taxonomy, build.TrainingCounts.of(train, taxonomy))(
        views["single"], targets
    ) / len(ids)
    loss.backward()
    wanted = F.binary_cross_entropy_with_logits(expected, targets)
    wanted.backward()
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(torch.cat([head.weight.grad for head in heads]), linear.weight.grad)


@pytest.mark.parametrize("where", ["test", "nodes", "padding"])
def test_ids_without_a_row_are_refused(where, learnable, parts):
    """Of a document of any split, of a node's text, or of the padding token."""
    encoder, tokenizer = parts[1], load_tokenizer(locate("tiny"))
    prepared = open_prepared(learnable)
    splits = tokenise(prepared, tokenizer, max_length=16, cache_dir=Path("cache"))
    build.require_rows(encoder, tokenizer, splits, "x")
    if where in splits:
        splits = {where: splits[where]}
    highest = max(int(split.tokens(np.arange(len(split)))[1].max()) for split in splits.values())
    rows = encoder.get_input_embeddings().weight
    fewer = SimpleNamespace(get_input_embeddings=lambda: SimpleNamespace(weight=rows[:highest]))
    if where == "padding":
        fewer = SimpleNamespace(get_input_embeddings=lambda: SimpleNamespace(weight=rows[: highest + 1]))
        tokenizer.add_tokens("[new]")
        tokenizer.pad_token, tokenizer.eos_token = "[new]", "[SEP]"
        message = (
            rf"'\[new\]' with the id 259 .*padding token.* {highest + 1} rows, .* \"pad_token\": \"\[SEP\]\""
        )
    else:
        message = rf"with the id {highest} \({where} has it in '.+'\), .* {highest} rows"
    with pytest.raises(ConfigError, match=message):
        build.require_rows(fewer, tokenizer, splits, "x")
