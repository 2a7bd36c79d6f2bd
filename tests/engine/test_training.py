"""Training runs: what they write, that it can be had again, and what is refused."""

from __future__ import annotations

import json
import shutil
import time
import weakref
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers
from programs import TINY, checkpoint_of, compose, edit, evaluation, numbers, run

from hblm.cli import main, programs
from hblm.config.train import TrainConfig
from hblm.encoders.pretrained import Pretrained, locate
from hblm.encoders.tokenizer import load_tokenizer
from hblm.engine import build, device, outcome, session, training
from hblm.errors import ConfigError, DataError, TrainingError
from hblm.version import FORMULAS


@pytest.mark.precision
def test_a_result_holds_what_the_tables_need(trained, learnable):
    record = json.loads(trained.read_text())
    assert (record["schema_version"], record["formulas"]) == (1, FORMULAS)
    assert abs(datetime.fromisoformat(record["finished"][:-1] + "+00:00").timestamp() - time.time()) < 3600
    assert record["environment"]["device_kind"] == "cpu"
    assert record["encoder"] == {"model_name": "tiny", "revision": None, "commit": None}
    assert [entry["skipped_steps"] for entry in record["history"]] == [0] * 12
    assert (record["status"], record["kind"], record["seed"]) == ("done", "single", 1)
    assert record["choices"]["film"] == "sigmoid"
    assert record["config"]["trainer"]["epochs"] == 12
    assert record["dataset"]["documents"] == {"train": 60, "val": 20, "test": 23}
    assert record["dataset"]["levels"] == [2, 3, 2]
    assert len(record["history"]) == 12
    assert record["history"][-1]["modulation"]["single"][0] == 0.0  # the first level visited
    assert record["history"][-1]["modulation"]["single"][1] > 0.0
    assert record["environment"]["precision"] in ("fp32", "bf16")
    assert {"overall", "per_level", "hierarchical", "repath"} <= record["test"]["single"].keys()
    assert record["test"]["single"]["overall"]["micro_f1"] > 0.8


@pytest.mark.precision
def test_the_best_epoch_is_what_is_kept(trained):
    record = json.loads(trained.read_text())
    best = record["history"][record["best_epoch"] - 1]
    assert best["val_macro_f1"] == max(entry["val_macro_f1"] for entry in record["history"])
    assert record["val"]["single"]["overall"]["macro_f1"] == best["val_macro_f1"]


def test_nodes_csv_has_a_row_for_each_node(trained):
    nodes = pd.read_csv(trained.with_suffix(".nodes.csv"))
    assert list(nodes["id"]) == ["a", "b", "a1", "a2", "b1", "a1x", "a1y"]
    assert list(nodes["level"]) == [0, 0, 1, 1, 1, 2, 2]
    record = json.loads(trained.read_text())["test"]["single"]["overall"]
    assert nodes["f1"].mean() == pytest.approx(record["macro_f1"])
    assert nodes["support"].sum() == record["support"]


@pytest.mark.parametrize("part", ["documents", "encoder"])
def test_what_is_replaced_while_a_run_starts_ends_it(part, learnable, tmp_path, monkeypatch):
    data = Path(shutil.copytree(learnable, tmp_path / "data"))
    from_config = session.from_config

    def replace_and_load(*arguments):
        if part == "encoder":
            monkeypatch.setattr(Pretrained, "identity", lambda source: {"weights": "of the new files"})
        else:
            (data / "val.jsonl").write_bytes((data / "train.jsonl").read_bytes())
        return from_config(*arguments)

    monkeypatch.setattr(session, "from_config", replace_and_load)
    with pytest.raises(DataError, match=r"start (it )?again"):
        run(data)
    assert not list(Path("outputs/results").glob("*"))
    assert not list(Path("outputs/cache/tokens").glob("*/meta.json")) or part == "encoder"


def test_nothing_but_the_named_files_is_written(trained):
    root = trained.parent.parent
    assert {path.name for path in root.iterdir()} == {"results", "checkpoints", "cache", ".locks"}
    assert {path.name for path in checkpoint_of(trained).iterdir()} == {
        *("hblm.json", "model.safetensors", "taxonomy.json", "encoder")
    }
    assert not [path for path in root.rglob("*") if path.suffix in (".tmp", ".pt", ".bin", ".pkl")]


@pytest.mark.precision
def test_the_same_command_gives_the_same_numbers(learnable):
    first, again = (run(learnable, f"output_dir=out{i}") for i in range(2))
    assert numbers(first) == numbers(again)
    weights = [(checkpoint_of(result) / "model.safetensors").read_bytes() for result in (first, again)]
    assert weights[0] == weights[1]
    other = run(learnable, "output_dir=out2", "seed=2")
    assert numbers(other)["history"] != numbers(first)["history"]


@pytest.mark.slow
def test_splitting_a_step_changes_nothing_but_rounding(learnable):
    still = ("encoder.dropout=0", "encoder.projection_dropout=0", "head.dropout=0", "trainer.precision=fp32")
    whole = run(learnable, *still, "output_dir=out0")
    split = run(learnable, *still, "output_dir=out1", "trainer.gradient_accumulation=5")
    losses = [[entry["train_loss"] for entry in numbers(result)["history"]] for result in (whole, split)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_finished_run_is_not_run_again(learnable, capsys, monkeypatch):
    result = run(learnable)
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("it was run again"))
    training.run(compose("train", TrainConfig, *TINY, f"dataset.path={learnable}"))
    shown = capsys.readouterr().out
    assert "done before" in shown
    assert str(result) in shown


def test_notes_are_logged_stored_and_logged_again(learnable, capsys, caplog):
    low = ("trainer.epochs=1", "trainer.learning_rate=1e-7", "trainer.head_learning_rate=null")
    with caplog.at_level("INFO", logger="hblm"):
        result = run(learnable, *low)
    noted = json.loads(result.read_text())["notes"]
    assert "precision_above_recall" in [note["what"] for note in noted]
    texts = [note["text"] for note in noted]
    assert [message for message in caplog.messages if message in texts] == texts
    caplog.clear()
    again = compose("train", TrainConfig, *TINY, f"dataset.path={learnable}", *low)
    with caplog.at_level("INFO", logger="hblm"):
        training.run(again)
        assert [message for message in caplog.messages if message in texts] == texts
        record = json.loads(result.read_text())
        del record["notes"], record["sha256"]  # as results of earlier versions are
        result.write_text(json.dumps(record))
        caplog.clear()
        training.run(again)
    assert not [message for message in caplog.messages if message in texts]
    assert capsys.readouterr().out.count("done before") == 2


@pytest.mark.slow
def test_the_threshold_advised_gives_what_it_promises(learnable):
    """The command of the note, on the validation split that the note is about."""
    result = run(learnable, "threshold=0.9", "trainer.epochs=4", "trainer.batch_size=6")
    (note,) = [
        note for note in json.loads(result.read_text())["notes"] if note["what"] == "precision_above_recall"
    ]
    command = f"python -m hblm.evaluate checkpoint={checkpoint_of(result)}"
    assert note["text"].endswith(f"{command} threshold={note['best']['threshold']:g}")
    found = evaluation(checkpoint_of(result), "split=val", f"threshold={note['best']['threshold']:g}")
    overall = found["val"]["single"]["overall"]
    assert {name: overall[name] for name in ("micro_f1", "macro_f1")} == pytest.approx(
        {name: note["best"][name] for name in ("micro_f1", "macro_f1")}
    )
    assert note["best"]["macro_f1"] > note["macro_f1"]


def test_a_damaged_result_is_neither_trusted_nor_touched(learnable):
    result = run(learnable)
    result.write_text("")
    again = run(learnable)
    assert again.stem.startswith(result.stem)
    assert again != result
    assert result.read_text() == ""


def test_a_name_that_no_file_can_bear_is_refused_before_training(learnable):
    with pytest.raises(ConfigError, match="too long"):
        run(learnable, f"dataset.name={'long' * 60}")


def test_a_validation_loss_that_is_no_number_ends_the_run(learnable):
    once = ("trainer.epochs=1", "trainer.batch_size=64", "trainer.warmup_ratio=0", "trainer.precision=fp32")
    with pytest.raises(TrainingError, match="logits that are not finite"):
        run(learnable, *once, "trainer.learning_rate=1e30", "trainer.head_learning_rate=1e30")
    assert not list(Path("outputs").glob("checkpoints/*"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("keep", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_force_moves_all_that_the_older_run_left(learnable, keep):
    """Its evaluations and its checkpoint, also where the new run keeps none: they are not the new run's."""
    result = run(learnable)
    checkpoint = checkpoint_of(result)
    evaluation(checkpoint, "threshold=0.3", "predictions=true")
    other = run(learnable, "direction=bottom_up")
    evaluation((checkpoint, checkpoint_of(other)))
    kept = evaluation(checkpoint_of(other))["made"]
    mine = {
        path.name for path in result.parent.iterdir() if not path.name.startswith((other.stem, kept.stem))
    }
    before = files(Path("outputs"))
    again = ("force=true", f"trainer.keep_checkpoint={str(keep).lower()}")
    training.run(compose("train", TrainConfig, *TINY, f"dataset.path={learnable}", *again))
    (home,) = Path("outputs/superseded").iterdir()
    assert {path.name for path in (home / "results").iterdir()} == mine
    assert len(list(home.glob("results/eval_*.json"))) == 2
    assert {name: before[name] for name in files(home)} == files(home)
    assert (home / "checkpoints" / checkpoint.name / "hblm.json").exists()
    left = {path.name for path in result.parent.iterdir()}
    assert left == {
        *(path.name for path in result.parent.glob(f"{other.stem}.*")),
        *(path.name for path in result.parent.glob(f"{kept.stem}.*")),
        *(result.name, result.with_suffix(".nodes.csv").name),
    }
    assert checkpoint.exists() == keep
    assert numbers(result)["test"] == json.loads(before[f"results/{result.name}"])["test"]
    old = evaluation(home / "checkpoints" / checkpoint.name)  # still of use
    assert old["training"] == json.loads(before[f"results/{result.name}"])["training"]
    assert old["training"] != json.loads(result.read_text())["training"]
    assert old["made"].parent == home / "results"
    assert old["test"] == numbers(result)["test"]


def small_bert(folder: Path) -> None:
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(**size, vocab_size=300)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    load_tokenizer(locate("tiny", None)).save_pretrained(folder)


@pytest.mark.parametrize("change", ["edited", "moved away"])
@pytest.mark.slow
def test_a_run_is_of_the_encoder_that_was_loaded(learnable, monkeypatch, change):
    """Whatever happens to its folder while the run trains."""
    folder = Path("bert")
    small_bert(folder)
    given = (f"encoder.model_name={folder}", "trainer.epochs=1")
    right = outcome.fit_and_test

    def fit_and_test(*parts):
        outcome = right(*parts)
        if change == "edited":
            edit(folder / "config.json", hidden_act="relu")
        else:
            folder.rename("elsewhere")
        return outcome

    monkeypatch.setattr(outcome, "fit_and_test", fit_and_test)
    result = run(learnable, *given)
    record = json.loads(result.read_text())
    monkeypatch.setattr(outcome, "fit_and_test", right)
    if change == "edited":
        other = json.loads(run(learnable, *given).read_text())  # another encoder: not done before
        assert record["run_id"] != other["run_id"]
        assert record["encoder"]["config"] != other["encoder"]["config"]
    assert json.loads((checkpoint_of(result) / "encoder/config.json").read_text())["hidden_act"] == "gelu"
    assert json.loads((checkpoint_of(result) / "hblm.json").read_text())["run_id"] == record["run_id"]


@pytest.mark.parametrize("broken", ["write_checkpoint", "write_result"])
@pytest.mark.slow
def test_a_forced_run_that_fails_to_write_leaves_the_older_one(learnable, monkeypatch, broken):
    run(learnable)
    before = files(Path("outputs"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outcome, broken, full)
    with pytest.raises(OSError, match="No space"):
        training.run(compose("train", TrainConfig, *TINY, f"dataset.path={learnable}", "force=true"))
    assert files(Path("outputs")) == before


def test_a_loss_that_is_no_number_ends_the_run(learnable):
    with pytest.raises(TrainingError, match=r"epoch \d+, step \d+: lower trainer.learning_rate"):
        run(learnable, "trainer.learning_rate=1e30", "trainer.warmup_ratio=0", "trainer.precision=fp32")
    assert not list(Path("outputs/results").iterdir())


def test_a_broken_split_is_found_before_training(learnable, tmp_path):
    copy = tmp_path / "broken"
    shutil.copytree(learnable, copy)
    (copy / "manifest.json").unlink()
    with (copy / "test.jsonl").open("a") as stream:
        stream.write('{"id": "new", "text": "apple", "labels": ["a1x"]}\n')
    with pytest.raises(DataError, match=r"test\.jsonl:24.*'new'.*'a1x'"):
        run(copy)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_the_machine_does_not_have_is_refused(learnable):
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        run(learnable, "trainer.precision=fp16", "device=auto")
    with pytest.raises(ConfigError, match="device=cuda is not available"):
        run(learnable, "device=cuda")


def test_too_many_tokens_are_refused(learnable):
    with pytest.raises(ConfigError, match=r"max_length=1000.*512"):
        run(learnable, "encoder.max_length=1000")


@pytest.mark.parametrize("method", [pytest.param("top_down", marks=pytest.mark.slow), "dual"])
@pytest.mark.slow
def test_tensorboard_has_a_folder_a_run_and_scores_by_view(learnable, method):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = run(learnable, "trackers=[tensorboard]", f"method={method}")
    run(learnable, "trackers=[tensorboard]", f"method={method}", "seed=2")
    names = {path.stem for path in result.parent.glob("*.json")}
    assert {path.name for path in Path("outputs/trackers").iterdir()} == names
    folder = Path("outputs/trackers") / result.stem
    assert all(path.is_file() for path in folder.iterdir())
    events = accumulator.EventAccumulator(str(folder)).Reload()
    views = ("single",) if method == "top_down" else ("fused", "td", "bu")
    record = json.loads(result.read_text())
    for view in views:
        shown = [event.value for event in events.Scalars(f"val/{view}/macro_f1")]
        assert shown == pytest.approx([entry["views"][view]["macro_f1"] for entry in record["history"]])
        (test,) = events.Scalars(f"test/{view}/micro_f1")
        assert test.value == pytest.approx(record["test"][view]["overall"]["micro_f1"])
    assert len(events.Scalars("train_loss")) == len(record["history"])
    # forced again, the run's curve is another folder's, not more points of the first
    again = ("trackers=[tensorboard]", f"method={method}", "force=true")
    training.run(compose("train", TrainConfig, *TINY, f"dataset.path={learnable}", *again))
    assert {path.name for path in Path("outputs/trackers").iterdir()} == {*names, f"{result.stem}_2"}


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"trackers=\[wandb\] is not installed: pip install wandb"):
        device.accelerator("cpu", "fp32", trackers=["wandb"])


def test_without_a_checkpoint_only_the_result_is_kept(learnable):
    result = run(learnable, "trainer.keep_checkpoint=false")
    assert not checkpoint_of(result).exists()


def test_a_dataset_without_converter_says_what_to_do():
    with pytest.raises(DataError, match=r"data/wos.*dataset\.path=DIR"):
        training.run(compose("train", TrainConfig, "dataset=wos", "encoder=tiny"))


@pytest.mark.slow
def test_a_grid_frees_each_runs_model(learnable, monkeypatch):
    """Also one that fails: Hydra keeps its exception, and with it all frames that it passed through."""
    kept, alive = [], []
    right = build.classifier

    def classifier(*parts):
        alive.append([each() is not None for each in kept])
        model = right(*parts)
        kept.append(weakref.ref(model))
        return model

    monkeypatch.setattr(build, "classifier", classifier)
    words = [*TINY, f"dataset.path={learnable}", "trainer.precision=bf16", "trainer.warmup_ratio=0"]
    with pytest.raises(SystemExit) as end:
        main.run_program(programs.TRAIN, training.run, ["-m", *words, "trainer.learning_rate=1e-4,1e30,2e-4"])
    assert end.value.code == 2
    assert alive == [[False] * number for number in range(3)]
