"""Settings that nobody gave: what they are chosen by, that a value given stays, and what runs hold."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from programs import checkpoint_of, compose, run

from hblm.config.compose import Composer
from hblm.config.groups import OptionGroups
from hblm.config.train import CHOSEN_BY_AUTO, TrainConfig
from hblm.data.dataset import Prepared, open_prepared
from hblm.encoders.pretrained import locate
from hblm.engine import auto, launch, training
from hblm.engine.auto import Facts
from hblm.errors import ConfigError, DataError
from hblm.inference.arguments import without_stored
from hblm.runs import paths

LARGE = 1024
EXPECTED = {
    name: yaml.safe_load(file.read_text()).get("expect") or {}
    for name, file in OptionGroups().groups["dataset"].items()
}
BENCHMARKS = {name: counts for name, counts in EXPECTED.items() if counts}
TINY = ("dataset=custom", "encoder=tiny", "encoder.max_length=32", "device=cpu")


def config(*overrides: str) -> TrainConfig:
    return compose("train", TrainConfig, "dataset=wos", *overrides)


def resolved(*overrides: str, known: Facts | None = None, **changed: Any) -> TrainConfig:
    known = dataclasses.replace(known or Facts(800, True, 384, True, True, 61), **changed)
    return auto.resolve(config(*overrides), known)[0]


def identify(made: TrainConfig) -> paths.Run:
    return paths.identify(made, data="0" * 64, encoder={"model_name": "x"}, tag="roberta-large")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_on_the_benchmark_sets_the_originals_encoder_gets_the_originals_values(name):
    expected = BENCHMARKS[name]
    known = Facts(expected["documents"]["train"], True, LARGE)
    chosen = identify(resolved(known=known))
    assert chosen == identify(config("trainer=original"))
    assert chosen.name == "wos_single_top_down_roberta-large_seed1"
    values = ("learning_rate=3e-5", "epochs=65", "batch_size=32", "patience=10")
    assert identify(config(*(f"trainer.{value}" for value in values))) == chosen


def test_there_are_five_benchmark_sets():
    assert sorted(BENCHMARKS) == ["aapd", "bgc", "nyt", "rcv1v2", "wos"]


def test_other_values_are_another_run_of_another_name():
    few = identify(resolved())
    assert few.id != identify(config("trainer=original")).id
    assert few.name == f"wos_single_top_down_roberta-large_seed1-{few.id[:8]}"
    trainer = resolved().trainer
    given = [f"trainer.{name}={getattr(trainer, name)}" for name in CHOSEN_BY_AUTO]
    assert identify(config(*given)) == few


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("width", [16, 384, 768, 1024, 4096])
@pytest.mark.parametrize("documents", [1, 800, 19_999, 20_000, 800_000])
def test_whatever_the_facts_nothing_stays_open_and_values_are_in_range(documents, width, trainable):
    known = Facts(documents, trainable, width, False, False)
    made, chosen = auto.resolve(config("loss=auto", "head.output_init=auto"), known)
    assert made.left_open == ()
    assert list(chosen) == [*(f"trainer.{name}" for name in CHOSEN_BY_AUTO), "loss.loss", "head.output_init"]
    again = compose(
        "train",
        TrainConfig,
        "dataset=wos",
        *(
            f"trainer.{k}={v or 'null'}"
            for k, v in ((name, getattr(made.trainer, name)) for name in CHOSEN_BY_AUTO)
        ),
    )
    assert again.trainer == made.trainer


GIVEN = {"learning_rate": 7e-5, "head_learning_rate": 7e-4, "epochs": 7, "batch_size": 7, "patience": 7}


@pytest.mark.parametrize("name", CHOSEN_BY_AUTO)
def test_a_value_that_is_given_stays(name):
    made, chosen = auto.resolve(config(f"trainer.{name}={GIVEN[name]}"), Facts(800, True, 384))
    assert getattr(made.trainer, name) == GIVEN[name]
    assert f"trainer.{name}" not in chosen
    assert made.left_open == ()


def test_a_value_of_an_experiment_or_an_option_stays(tmp_path):
    for group in ("experiment", "trainer"):
        (tmp_path / group).mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\ntrainer:\n  epochs: 7\n")
    (tmp_path / "trainer/patient.yaml").write_text("defaults: [auto, _self_]\npatience: 7\n")
    composer = Composer("train", TrainConfig, OptionGroups(str(tmp_path)).search_path)
    made = composer.compose(["dataset=wos", "experiment=mine", "trainer=patient"]).config
    made, chosen = auto.resolve(made, Facts(800, True, 384))
    assert (made.trainer.epochs, made.trainer.patience) == (7, 7)
    assert set(chosen) == {
        f"trainer.{name}" for name in ("learning_rate", "head_learning_rate", "batch_size")
    }


@pytest.mark.parametrize("option", ["original", "default", "small", "smoke"])
def test_the_other_trainers_leave_nothing_open(option):
    assert config(f"trainer={option}").left_open == ()


def test_the_head_has_the_rate_of_the_encoder_where_only_that_is_given():
    assert resolved("trainer.learning_rate=7e-5").trainer.head_learning_rate is None
    assert (
        resolved("trainer.head_learning_rate=7e-5").trainer.learning_rate == resolved().trainer.learning_rate
    )


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_the_device_decides_nothing(device):
    assert resolved(f"device={device}", "trainer.num_workers=2").trainer.epochs == resolved().trainer.epochs
    assert identify(resolved(f"device={device}")) == identify(resolved())


@pytest.mark.parametrize("method", ["flat", "independent", "dual"])
def test_the_method_decides_nothing_of_the_training(method, one_path):
    prepared, source = open_prepared(one_path), locate("tiny")
    made = config("encoder=tiny", f"method={method}")
    assert (
        auto.settle(made, prepared, source)[0].trainer
        == auto.settle(config("encoder=tiny"), prepared, source)[0].trainer
    )


def test_the_loss_is_that_of_the_documents(learnable, one_path):
    def loss(data: Path, *overrides: str) -> str:
        made = config("encoder=tiny", "film=none", "loss=auto", *overrides)
        settled, chosen = auto.settle(made, open_prepared(data), locate("tiny"))
        assert chosen["loss.loss"]["value"] == settled.choices()["loss"]
        return settled.loss.loss

    assert loss(one_path) == "conditional_softmax"
    assert loss(learnable) == "conditional"
    for data in (one_path, learnable):
        assert loss(data, "method=flat") == "bce"  # and the method stays what it is
    assert resolved("loss=auto", "method=flat").method == "flat"


def test_nothing_is_chosen_by_documents_that_were_replaced(learnable, one_path, tmp_path):
    """Where the first document of two paths ends the reading, too."""
    folder = Path(shutil.copytree(one_path, tmp_path / "data"))
    prepared = open_prepared(folder)
    shutil.copy(learnable / "train.jsonl", folder)
    with pytest.raises(DataError, match=r"train\.jsonl: changed while it was read"):
        auto._has_one_path(prepared)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_one_document_of_two_paths_in_any_split_is_enough(one_path, tmp_path, split):
    data = tmp_path / "copy"
    data.mkdir()
    for file in one_path.iterdir():
        if file.name != "manifest.json":
            (data / file.name).write_bytes(file.read_bytes())
    assert auto._has_one_path(open_prepared(data))
    with (data / f"{split}.jsonl").open("a") as stream:
        stream.write(json.dumps({"id": "new", "text": "x", "labels": ["a", "b"]}) + "\n")
    assert not auto._has_one_path(open_prepared(data))  # other hashes: what was known is not theirs


def test_a_document_without_labels_has_no_second_path(one_path, tmp_path):
    data = tmp_path / "copy"
    data.mkdir()
    for file in one_path.iterdir():
        if file.name != "manifest.json":
            (data / file.name).write_bytes(file.read_bytes())
    with (data / "test.jsonl").open("a") as stream:
        stream.write('{"id": "new", "text": "x", "labels": []}\n')
    assert auto._has_one_path(open_prepared(data))


def test_the_start_of_the_output_follows_the_names():
    assert resolved("head.output_init=auto", words=True).head.output_init == "label_text"
    assert resolved("head.output_init=auto", words=False).head.output_init == "prior"
    assert resolved("head.output_init=default", words=True).head.output_init == "default"


def test_the_facts_are_those_of_the_documents_used(learnable):
    prepared, source = open_prepared(learnable), locate("tiny")
    known = auto.facts(prepared, config("dataset_fraction=0.1", "encoder.trainable=false"), source)
    assert known == Facts(documents=6, trainable=False, width=64)
    assert auto.facts(prepared, config("dataset_fraction=0.001"), source).documents == 1


def test_documents_are_read_once_and_only_where_the_loss_is_open(learnable, monkeypatch):
    read = []
    right = Prepared.documents
    monkeypatch.setattr(Prepared, "documents", lambda self, split: read.append(split) or right(self, split))
    auto._has_one_path.cache_clear()
    for _ in range(3):  # opened anew, as for each run of a grid
        auto.settle(config("encoder=tiny"), open_prepared(learnable), locate("tiny"))
    assert read == []
    for seed in range(3):
        made = config("encoder=tiny", "film=none", "loss=auto", f"seed={seed}")
        auto.settle(made, open_prepared(learnable), locate("tiny"))
    assert read == ["train"]  # its first document with two paths tells enough


def test_an_encoder_of_unknown_size_is_no_matter_where_nothing_is_open(learnable):
    source = locate("nobody/unknown")
    prepared = open_prepared(learnable)
    made, chosen = auto.settle(config("trainer=original"), prepared, source)
    assert (made, chosen) == (config("trainer=original"), {})
    auto.settle(config("trainer=original", "head.output_init=auto"), prepared, source)
    with pytest.raises(ConfigError, match="nobody/unknown: the hub cannot be reached"):
        auto.settle(config(), prepared, source)


def test_lines_are_a_line_for_each_reason(monkeypatch):
    values = {"epochs": 20, "batch_size": 32, "patience": 10}
    monkeypatch.setattr(auto, "training", lambda known: values)
    known = Facts(180, False, 384, True, False, 61)
    made = config("loss=auto", "film=none", "head.output_init=auto", "trainer.learning_rate=1e-4")
    _, chosen = auto.resolve(made, known)
    assert auto.lines(chosen) == [
        "trainer.epochs=20 trainer.batch_size=32 trainer.patience=10: 180 documents, frozen encoder",
        "loss=conditional_softmax: one path a document and 3.0 documents a node",
        "head.output_init=prior: nodes are named by codes",
    ]


def test_keys_that_do_not_go_with_what_was_chosen_are_refused(learnable):
    message = r"^trainer.gradient_accumulation=4000 .* \(trainer.batch_size=\d+ was chosen: 60 documents"
    with pytest.raises(ConfigError, match=message) as caught:
        training.run(
            compose(
                "train", TrainConfig, *TINY, f"dataset.path={learnable}", "trainer.gradient_accumulation=4000"
            )
        )
    assert len(str(caught.value).splitlines()) == 1
    assert not list(Path().glob("outputs/results/*"))


def test_choosing_loads_no_torch(learnable):
    code = f"""
import sys
from pathlib import Path
from hblm.engine import auto
from hblm.config.train import TrainConfig, Trainer
from hblm.data.dataset import open_prepared
from hblm.encoders.pretrained import locate
config = TrainConfig(trainer=Trainer(None, None, None, None, patience=None)).having({{"loss.loss": "auto"}})
config = config.having({{"dataset.path": "x", "head.output_init": "auto", "film.propagation_method": "none"}})
settled, chosen = auto.settle(config, open_prepared(Path({str(learnable)!r})), locate("tiny"))
assert len(chosen) == 7 and not settled.left_open
sys.exit(bool({{"torch", "transformers"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_processes_of_a_run_get_what_was_chosen(learnable, monkeypatch):
    launched, done = [], []
    monkeypatch.setattr(launch, "launch", lambda run, *_: launched.append(json.loads(json.dumps(run))))
    monkeypatch.setattr(training, "_read", lambda *_: {})  # no process has written a result
    monkeypatch.setattr(training, "show", lambda finished: None)
    made = compose("train", TrainConfig, *TINY, f"dataset.path={learnable}", "trainer.processes=2")
    training.run(made)
    (one,) = launched
    trainer = TrainConfig(**{**vars(made), "trainer": type(made.trainer)(**one["config"]["trainer"])})
    assert trainer.left_open == ()
    assert one["config"]["trainer"]["epochs"] == one["chosen"]["trainer.epochs"]["value"]
    monkeypatch.setattr(training, "train", lambda *parts: done.append(parts))
    alone = dataclasses.replace(made, trainer=dataclasses.replace(made.trainer, processes=1))
    training.run(alone)
    training.join(alone, one["expected"], 0.0)  # as the other processes of a launcher do, each by itself
    assert done[0][0].trainer == done[1][0].trainer
    assert done[0][-1] == done[1][-1] == one["chosen"]
    assert done[0][3].id == one["expected"]


@pytest.mark.slow
def test_a_run_holds_what_was_chosen_and_why(learnable, capsys, caplog):
    caplog.set_level(logging.INFO, logger="hblm")
    result = run(learnable, "trainer=auto", "trainer.epochs=2")
    record = json.loads(result.read_text())
    reason = "60 documents, tuned encoder of width 64"
    values = auto.training(Facts(60, trainable=True, width=64))
    del values["epochs"]  # which is given
    assert record["auto"] == {f"trainer.{k}": {"value": v, "reason": reason} for k, v in values.items()}
    assert record["config"]["trainer"].items() >= {**values, "epochs": 2}.items()
    checkpoint = checkpoint_of(result)
    stored = json.loads((checkpoint / "hblm.json").read_text())
    assert stored["config"] == record["config"]
    assert f"trainer.patience=10: {reason}" in caplog.text

    # the same values in words are the same run
    capsys.readouterr()
    words = [f"trainer.{name}={value}" for name, value in {**values, "epochs": 2}.items()]
    again = compose("train", TrainConfig, *TINY, f"dataset.path={learnable}", *words)
    training.run(again)
    assert "done before; force=true runs it again" in capsys.readouterr().out

    # and an evaluation is not contradicted by what leaves the choice open
    given = f"checkpoint={checkpoint}"
    for text in ("trainer=auto", "trainer.epochs=null", "loss=auto", "head.output_init=auto"):
        assert without_stored([given, text]) == ([given], []), text
    for text in ("trainer=original", "trainer.head_learning_rate=null"):
        assert "contradicts the checkpoint" in without_stored([given, text])[1][0]


@pytest.mark.slow
def test_a_result_of_given_values_says_that_nothing_was_chosen(trained):
    assert json.loads(trained.read_text())["auto"] == {}


def test_many_documents_a_node_take_the_loss_without_a_flat_prior():
    chosen = {documents: resolved("loss=auto", documents=documents) for documents in (609, 610)}
    assert [made.loss.loss for made in chosen.values()] == ["conditional_softmax", "conditional"]
