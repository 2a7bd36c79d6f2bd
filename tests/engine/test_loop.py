"""Which epoch is kept and when training stops, with scripted validation scores."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hblm.config.train import TrainConfig
from hblm.data.dataset import open_prepared
from hblm.data.tokens import tokenise
from hblm.encoders.encoder import load_encoder
from hblm.encoders.pretrained import locate
from hblm.encoders.tokenizer import load_tokenizer
from hblm.engine import build, device, loop
from hblm.engine.optimizer import adamw, linear_schedule, take_step


def run(learnable, monkeypatch, script, *, epochs=20, patience=2):
    """Fit a tiny model; validation says what `script` says, as (score, loss) an epoch."""
    config = TrainConfig()
    prepared = open_prepared(learnable)
    source = locate("tiny")
    accelerator = device.accelerator("cpu", "fp32")
    torch.manual_seed(0)
    encoder = load_encoder(source, dropout=None, gradient_checkpointing=False)
    tokenizer = load_tokenizer(source)
    splits = tokenise(prepared, tokenizer, max_length=16, cache_dir=learnable.parent / "cache")
    model = build.classifier(config, prepared.taxonomy, encoder)
    counts = build.TrainingCounts.of(splits["train"], prepared.taxonomy)
    scoring = build.scoring(
        config, prepared.taxonomy, tokenizer, counts, threshold=0.5, batch_size=64, num_workers=0
    )
    states, steps = [], []
    outcomes = iter(script)

    def scripted(model, split, scoring, accelerator):
        states.append(copy.deepcopy(model.state_dict()))
        score, loss = next(outcomes)
        overall = {"micro_f1": score, "macro_f1": score}
        return {"single": {"overall": overall, "modulation": [0.0]}}, loss

    monkeypatch.setattr(loop, "score", scripted)
    schedule = build.schedule(config)
    schedule = loop.Schedule(**{**vars(schedule), "epochs": epochs, "patience": patience})
    fitted = loop.fit(
        model,
        splits["train"],
        splits["val"],
        schedule=schedule,
        scoring=scoring,
        monitor=("single", "macro_f1"),
        accelerator=accelerator,
        watch=loop.Watch(step=lambda documents, loss: steps.append(documents), epoch=lambda entry: None),
    )
    kept = model.state_dict()
    (same,) = [
        number
        for number, state in enumerate(states, 1)
        if all(torch.equal(state[key], kept[key]) for key in kept)
    ]
    assert same == fitted.best_epoch
    assert sum(steps) == fitted.documents == len(states) * len(splits["train"])
    return fitted.best_epoch, len(states)


@pytest.mark.parametrize(
    ("script", "best", "epochs"),
    [
        ([(0.1, 1), (0.5, 1), (0.4, 0.1), (0.3, 0.1), (0.9, 0)], 2, 4),  # patience 2, then it stops
        ([(0.5, 1.0), (0.5, 0.9), (0.5, 0.95), (0.4, 0.1)], 2, 4),  # a tie goes to the lower loss
        (
            [(0, 9), (0, 8), (0, 8.5), (0, 7), (0, 8), (0.2, 8), (0.1, 1), (0.1, 1)],
            6,
            8,
        ),  # waits for more than 0
        ([(0, 3), (0, 1), (0, 2), (0, 2)], 2, 4),  # never more than 0: the lowest loss
    ],
)
def test_the_best_epoch_is_kept_and_patience_ends_training(learnable, monkeypatch, script, best, epochs):
    assert run(learnable, monkeypatch, script, epochs=len(script)) == (best, epochs)


def test_weight_decay_spares_biases_and_norms_and_heads_learn_at_their_own_rate():
    model = nn.ModuleDict(
        {"encoder": nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), "head": nn.Linear(3, 2)}
    )
    optimizer = adamw(model, model["encoder"], learning_rate=1.0, head_learning_rate=2.0, weight_decay=0.5)
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    expected = {
        "encoder.0.weight": (1.0, 0.5),
        "encoder.0.bias": (1.0, 0.0),
        "encoder.1.weight": (1.0, 0.0),
        "encoder.1.bias": (1.0, 0.0),
        "head.weight": (2.0, 0.5),
        "head.bias": (2.0, 0.0),
    }
    assert {name: found[id(parameter)] for name, parameter in model.named_parameters()} == expected
    same = adamw(model, model["encoder"], learning_rate=1.0, head_learning_rate=None, weight_decay=0.5)
    assert {group["lr"] for group in same.param_groups} == {1.0}


def test_the_learning_rate_rises_for_6_percent_and_falls_to_zero():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = linear_schedule(optimizer, steps=100, warmup_ratio=0.06)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:7] == pytest.approx([step / 6 for step in range(7)])
    assert rates[6] == max(rates)
    assert rates[-1] == pytest.approx(1 / 94)
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_frozen_parameters_get_no_optimizer():
    model = nn.ModuleDict({"encoder": nn.Linear(2, 2).requires_grad_(False), "head": nn.Linear(2, 2)})
    optimizer = adamw(model, model["encoder"], learning_rate=1.0, head_learning_rate=None, weight_decay=0.0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


def test_the_schedule_stands_still_in_a_step_that_fp16_skips():
    """A fused AdamW is called all the same and skips inside its kernel, so that accelerate sees a step."""
    accelerator = device.accelerator("cpu", "fp32")
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=100)  # as on a GPU
    model = nn.Linear(2, 1)
    optimizer = adamw(model, model, learning_rate=1.0, head_learning_rate=None, weight_decay=0.0)
    rates = linear_schedule(optimizer, steps=100, warmup_ratio=0.0)
    model, optimizer = accelerator.prepare(model, optimizer)
    taken = []
    for _ in range(10):
        before = model.weight.detach().clone()
        accelerator.backward(model(torch.full((8, 2), 8.0)).sum())
        taken.append(take_step(accelerator, optimizer))
        assert torch.equal(before, model.weight) == (not taken[-1])
        if taken[-1]:
            rates.step()
        optimizer.zero_grad()
    assert taken == [False] * 6 + [True] * 4  # until 64 times the scale is a float32
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.96)
