"""What the texts of nodes do in whole runs: where output layers start, and as documents to train on."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from programs import TINY, checkpoint_of, compose, evaluation, numbers, run

from hblm.config.train import TrainConfig
from hblm.data.batches import JoinedSplit
from hblm.data.dataset import open_prepared
from hblm.encoders.pretrained import locate
from hblm.engine import session
from hblm.nn.heads import HEADS, label_rows
from hblm.taxonomy import read_taxonomy

LABEL_TEXT = "head.output_init=label_text"
LABEL_DOCUMENTS = "trainer.label_documents=true"
METHODS = {
    "flat": ("single",),
    "independent": ("single",),
    "top_down": ("single",),
    "bottom_up": ("single",),
    "dual": ("td", "bu"),
    "tri_head_diffcat": ("td", "bu", "mix"),
}
# each method with the default head, each head in the method with most views
CASES = [(method, "mlp", "true" if at % 2 else "false") for at, method in enumerate(METHODS)]
CASES += [("tri_head_diffcat", head, "true" if at % 2 else "false") for at, head in enumerate(HEADS)]


def job(data, *overrides):
    config = compose("train", TrainConfig, *TINY, f"dataset.path={data}", *overrides)
    return session.from_config(config, open_prepared(data), locate("tiny"), "run")


def heads_of(model, view):
    branches = model.branches
    return branches.mix if view == "mix" else getattr(branches, view).heads


@pytest.mark.parametrize(("method", "head", "trainable"), CASES)
@pytest.mark.slow
def test_rows_start_at_what_the_output_layer_reads_of_the_text(learnable, method, head, trainable):
    require_rows_of_the_text(learnable, method, head, trainable)


@pytest.mark.long
def test_rows_start_so_in_every_combination(learnable):
    for case in itertools.product(METHODS, HEADS, ("true", "false")):
        require_rows_of_the_text(learnable, *case)


def require_rows_of_the_text(data, method, head, trainable):
    """In every view of every method: the difference to a start at the prior alone is the row of the text."""
    overrides = [f"method={method}", "pooling=mean", f"encoder.trainable={trainable}", "device=cpu"]
    overrides += [] if method == "flat" else [f"head={head}", "encoder.projection_dim=24"]
    overrides.append("trainer.precision=fp32")
    before, started = job(data, *overrides), job(data, *overrides, LABEL_TEXT).model
    plain = before.model.eval()
    words = [node.words for node in read_taxonomy(data / "taxonomy.json").nodes]
    tokens = before.tokenizer(words, padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        e = plain.projection(plain.pool(tokens["input_ids"], tokens["attention_mask"]))
        for view in METHODS[method]:
            inputs = torch.cat([e, e, 0 * e], dim=1) if view == "mix" else e
            heads = heads_of(plain, view)
            sizes = [each.output.out_features for each in heads]
            parts = torch.split(inputs, sizes)
            rows = label_rows([each.features(part) for each, part in zip(heads, parts, strict=True)], 6.0)
            groups = zip(heads, heads_of(started, view), torch.split(rows, sizes), strict=True)
            for old, new, expected in groups:
                difference = new.output.weight - old.output.weight
                torch.testing.assert_close(difference, expected, rtol=1e-3, atol=1e-5)
                assert torch.equal(old.output.bias, new.output.bias)


def test_only_the_start_differs(learnable):
    """The gain reaches the rows; without dropout, and no random number more is drawn."""
    plain, started, twice = (
        job(learnable, *more) for more in ((), (LABEL_TEXT,), (LABEL_TEXT, "head.label_text_gain=12"))
    )
    states = [each.model.state_dict() for each in (plain, started, twice)]
    for name, tensor in states[0].items():
        if name.endswith("output.weight"):
            once = states[1][name] - tensor
            torch.testing.assert_close(states[2][name] - tensor, 2 * once, rtol=1e-3, atol=1e-6)
        else:
            assert torch.equal(tensor, states[1][name])


@pytest.mark.precision
@pytest.mark.slow
def test_it_trains_is_identified_and_can_be_had_again(learnable):
    plain, first = run(learnable), run(learnable, LABEL_TEXT)
    assert numbers(first)["run_id"] != numbers(plain)["run_id"]
    assert numbers(first)["history"] != numbers(plain)["history"]
    assert numbers(run(learnable, LABEL_TEXT, "output_dir=again")) == numbers(first)
    found = evaluation(checkpoint_of(first))
    assert found["test"]["single"]["overall"] == numbers(first)["test"]["single"]["overall"]


@pytest.mark.precision
@pytest.mark.slow
def test_frozen_runs_from_a_warm_cache_are_the_same(learnable):
    frozen = ("encoder.trainable=false", LABEL_TEXT, LABEL_DOCUMENTS)
    first = run(learnable, *frozen)
    warm = run(learnable, *frozen, "output_dir=again", "cache_dir=outputs/cache")
    shutil.rmtree("outputs/cache")
    cold = run(learnable, *frozen, "output_dir=third")
    assert numbers(first) == numbers(warm) == numbers(cold)


@pytest.mark.parametrize("trainable", ["true", "false"])
def test_label_documents_are_trained_on_and_nothing_else(learnable, trainable):
    options = (f"encoder.trainable={trainable}", LABEL_DOCUMENTS)
    made = job(learnable, *options)
    taxonomy = made.prepared.taxonomy
    assert isinstance(made.trained_on, JoinedSplit)
    assert len(made.trained_on) == len(made.train) + len(taxonomy)
    plain = job(learnable, options[0])
    assert plain.trained_on is plain.train
    assert made.scoring.train_support == plain.scoring.train_support  # the prior counts documents only
    batch = made.scoring.collate(made.trained_on, np.arange(len(made.train), len(made.trained_on)))
    for row, node in zip(batch.targets, taxonomy.nodes, strict=True):
        marked = {taxonomy.nodes[position].id for position in row.nonzero().flatten()}
        assert marked == {node.id, *taxonomy.ancestors(node.id)}
    assert [len(split) for split in (made.val, made.test)] == [len(plain.val), len(plain.test)]


@pytest.mark.slow
def test_runs_with_label_documents_count_documents_only(learnable):
    plain, more = run(learnable), run(learnable, LABEL_DOCUMENTS)
    before, after = (json.loads(result.read_text()) for result in (plain, more))
    assert before["run_id"] != after["run_id"]
    assert before["dataset"]["documents"] == after["dataset"]["documents"]
    assert before["history"][0]["train_loss"] != after["history"][0]["train_loss"]
