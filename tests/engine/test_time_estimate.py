"""The estimate before a training: made only where it matters, and without a trace."""

from __future__ import annotations

import copy

import pytest
import torch
from programs import TINY, compose, numbers, run

from hblm.config.train import TrainConfig
from hblm.data.batches import training_steps
from hblm.data.dataset import open_prepared
from hblm.encoders.pretrained import locate
from hblm.engine import build, session, time_estimate


@pytest.fixture
def job(learnable, request):
    config = compose("train", TrainConfig, *TINY, f"dataset.path={learnable}", *getattr(request, "param", ()))
    return config, session.from_config(config, open_prepared(learnable), locate("tiny"), "probed")


def tokens(split):
    """Return the tokens of documents that a frozen encoder has been through."""
    return getattr(split, "split", split)


def expected(config, job):
    return time_estimate.expected_seconds(
        job.model,
        [tokens(job.train), tokens(job.val)],
        schedule=build.schedule(config),
        scoring=job.scoring,
        accelerator=job.accelerator,
    )


FROZEN = ("encoder.trainable=false",)


CHECKPOINTING = ("encoder.gradient_checkpointing=true",)


@pytest.mark.parametrize(
    ("job", "mode"), [((), True), ((), False), (FROZEN, True), (CHECKPOINTING, True)], indirect=["job"]
)
@pytest.mark.slow
def test_it_leaves_nothing_changed(job, monkeypatch, mode):
    config, job = job
    monkeypatch.setattr(time_estimate, "SLOW", {"cpu": 1e-9})
    job.model.train(mode)
    some = next(job.model.branches.parameters())
    some.grad = torch.ones_like(some)
    state, random = copy.deepcopy(job.model.state_dict()), torch.get_rng_state()
    modes = [module.training for module in job.model.modules()]
    assert expected(config, job) > 0
    assert all(torch.equal(value, state[name]) for name, value in job.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in job.model.modules()] == modes
    grads = [parameter.grad for parameter in job.model.parameters() if parameter.grad is not None]
    assert len(grads) == 1
    assert torch.equal(grads[0], torch.ones_like(some))


def test_a_short_training_is_not_timed(job, monkeypatch):
    config, job = job
    monkeypatch.setattr(time_estimate, "_work", lambda *_: pytest.fail("it was timed"))
    assert expected(config, job) is None


@pytest.mark.parametrize("job", [(), FROZEN], indirect=True)
def test_the_time_of_a_pass_is_multiplied_to_the_whole_training(job, monkeypatch):
    """With a clock by which every token of the documents timed takes a second."""
    config, job = job
    monkeypatch.setattr(time_estimate, "SLOW", {"cpu": 1e-9})
    now, sizes = [0.0], []

    def work(model, batch, scoring, accelerator):
        slow = 1e9 if not sizes else 1.5 if sizes[-1] < len(batch) else 1  # the first, and of each size
        now[0] += slow * batch.inputs["input_ids"].numel()
        sizes.append(len(batch))

    monkeypatch.setattr(time_estimate, "_work", work)
    monkeypatch.setattr(time_estimate, "_ENOUGH", 5000.0)
    monkeypatch.setattr(time_estimate.time, "perf_counter", lambda: now[0])
    found = expected(config, job)
    # two steps of 32 and 28 documents; one batch of all is what evaluation takes at a time
    assert len(job.train) == 60
    steps = training_steps(job.train.lengths, batch_size=32, seed=1, epoch=1)
    in_steps = sum(len(step) * max(job.train.lengths[step]) for step in steps)
    in_one = 60 * max(job.train.lengths), 20 * max(job.val.lengths)
    if job.model.trainable:
        assert found == pytest.approx(config.trainer.epochs * (in_steps + in_one[1] / 3))
        assert sizes[:7] == [1, 1, 2, 4, 8, 16, 32]
        assert set(sizes[7:]) == {32}  # a real micro-batch, again
    else:
        assert found == pytest.approx(sum(in_one))
        assert sizes[:8] == [1, 1, 2, 4, 8, 16, 32, 60]


def test_no_more_documents_than_a_second_takes_are_timed(job, monkeypatch):
    config, job = job
    sizes = []
    monkeypatch.setattr(time_estimate, "SLOW", {"cpu": 1e-9})
    monkeypatch.setattr(time_estimate, "_ENOUGH", -1.0)
    monkeypatch.setattr(time_estimate, "_work", lambda model, batch, *_: sizes.append(len(batch)))
    expected(config, job)
    assert sizes == [1, 1]


@pytest.mark.precision
@pytest.mark.parametrize("options", [(), pytest.param(FROZEN, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_run_that_was_timed_has_the_same_numbers_to_the_bit(learnable, monkeypatch, caplog, options):
    plain = run(learnable, *options, "output_dir=plain")
    assert " hours on cpu" not in caplog.text
    monkeypatch.setattr(time_estimate, "SLOW", {"cpu": 1e-9})
    monkeypatch.setattr("hblm.engine.notes.LONG", 0.0)
    with caplog.at_level("INFO", logger="hblm"):
        timed = run(learnable, *options, "output_dir=timed")
    assert " hours on cpu" in caplog.text
    assert numbers(timed) == numbers(plain)
