"""Logits on disk: written in any order, averaged in the split's, and the weight that suits them best."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from hblm.data.dataset import open_prepared
from hblm.data.tokens import tokenise
from hblm.encoders.pretrained import locate
from hblm.encoders.tokenizer import load_tokenizer
from hblm.engine import ensemble
from hblm.engine.scoring import Scoring
from hblm.nn.joint import BranchesOutput
from hblm.nn.losses import BceLoss, Objective


@pytest.fixture(scope="module")
def given(learnable, tmp_path_factory):
    """Return a split, its targets, how it is scored, and two sets of logits that know one half of it each."""
    prepared = open_prepared(learnable)
    splits = tokenise(
        prepared, load_tokenizer(locate("tiny")), max_length=16, cache_dir=tmp_path_factory.mktemp("c")
    )
    split, taxonomy = splits["test"], prepared.taxonomy
    targets = np.zeros((len(split), len(taxonomy)), np.float32)
    targets[split.labels(np.arange(len(split)))] = 1
    loss = BceLoss(taxonomy, "levels", torch.ones(len(taxonomy)).long(), 2)
    scoring = Scoring(taxonomy, Objective(loss, {"single": 1.0}), 0.5, 4, 0, lambda *_: None, [1] * 7)
    draw = np.random.default_rng(0)
    noise = [draw.normal(size=targets.shape).astype(np.float32) for _ in range(2)]
    sure = 8 * (targets - 0.5)
    half = np.arange(len(split))[:, None] % 2
    logits = sure * half + noise[0], sure * (1 - half) + noise[1]
    return split, targets, scoring, tuple(each.astype(np.float32) for each in logits)


@pytest.fixture
def paths(given, tmp_path, monkeypatch):
    """Return the two files, written a few documents at a time and in no order."""
    split, _, scoring, logits = given
    found = []
    for name, values in zip(("td", "bu"), logits, strict=True):

        def outputs(*_, values=values):
            for positions in np.array_split(np.random.default_rng(1).permutation(len(split)), 6):
                yield (
                    positions,
                    positions,
                    BranchesOutput({"single": torch.from_numpy(values[positions])}, {}),
                )

        monkeypatch.setattr(ensemble, "outputs", outputs)
        ensemble.keep_logits(tmp_path / name, SimpleNamespace(), split, scoring, SimpleNamespace())
        found.append(tmp_path / name)
    return found


def test_files_hold_the_logits_in_the_order_of_the_split(given, paths):
    for path, values in zip(paths, given[3], strict=True):
        assert path.read_bytes() == values.tobytes()


@pytest.mark.parametrize("at_once", [1, 5, 1024])
def test_fused_is_the_weighted_mean(given, paths, monkeypatch, at_once):
    split, targets, scoring, (z_td, z_bu) = given
    monkeypatch.setattr(ensemble, "_AT_ONCE", at_once)
    seen = []

    def sink(positions, scores, gold):
        assert torch.equal(gold, torch.from_numpy(targets[positions]))
        seen.append(scores)

    found = ensemble.score_fused(*paths, 0.25, split, scoring, sink=sink)
    fused = torch.cat([scores["fused"] for scores in seen])
    torch.testing.assert_close(fused, torch.from_numpy(0.25 * z_td + 0.75 * z_bu).sigmoid())
    for view, logits in {"fused": 0.25 * z_td + 0.75 * z_bu, "td": z_td, "bu": z_bu}.items():
        expected = f1_score(targets, logits >= 0, average="micro")
        assert found[view]["overall"]["micro_f1"] == pytest.approx(expected)


def test_the_best_weight_is_found_and_a_tie_goes_to_the_middle(given, paths):
    split, targets, scoring, (z_td, z_bu) = given
    weight, search = ensemble.search_weight(*paths, split, scoring, "macro_f1")
    scores = {
        each: f1_score(targets, each * z_td + (1 - each) * z_bu >= 0, average="macro", zero_division=0)
        for each in ensemble.WEIGHTS
    }
    assert [entry["macro_f1"] for entry in search["tried"]] == pytest.approx(list(scores.values()))
    assert scores[weight] == max(scores.values())
    assert 0 < weight < 1  # each model knows one half
    assert ensemble.search_weight(paths[0], paths[0], split, scoring, "micro_f1")[0] == 0.5
