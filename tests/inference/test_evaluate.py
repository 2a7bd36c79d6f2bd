"""Evaluations of single and joint models and of ensembles: equal to the runs' own, or refused."""

from __future__ import annotations

import errno
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from programs import LEARNING, TINY, checkpoint_of, compose, evaluation, reseal, run
from safetensors.torch import load_file
from sklearn.metrics import f1_score

from hblm import evaluate
from hblm.cli import check, programs
from hblm.config.train import TrainConfig
from hblm.engine import predictions, training
from hblm.errors import CheckpointError, ConfigError
from hblm.files import temporary_beside
from hblm.inference.arguments import without_stored
from hblm.runs.checkpoint import open_checkpoint
from hblm.version import FORMULAS

TRI = ("joint_variant=tri_head_diffcat", *LEARNING)


@pytest.mark.precision
def test_evaluation_gives_the_runs_own_scores(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # from any folder
    record = json.loads(trained.read_text())
    found = evaluation(checkpoint_of(trained))
    assert found["test"] == record["test"]
    assert (found["kind"], found["run_id"]) == ("evaluation", record["run_id"])
    assert evaluation(checkpoint_of(trained), "split=val")["val"] == record["val"]
    assert not list(tmp_path.iterdir())  # it writes beside its checkpoint


RESTORED = [
    ("direction=bottom_up", "film=logit", "film.propagation_space=parent_space", "head=residual_mlp"),
    ("method=tri_head_diffcat", "joint_variant.tri_fuse_mix=3", "encoder.trainable=false", "loss=focal"),
    ("method=dual", "loss=conditional", "dataset_fraction=0.5"),
]
RESTORED_TOO = [
    ("method=flat", "head.output_init=default", "pooling=max", "loss=focal"),
    ("method=dual", "joint_variant.joint_loss_fused=0.5", "joint_variant.joint_eval_view=td"),
    ("direction=bottom_up", "film=multi_hot", "pooling=mean", "head=wide_mlp", "threshold=0.4"),
    ("film=none", "pooling=last", "encoder.projection_dim=24", "encoder.trainable=false"),
    ("trainer.precision=bf16", "film.detach_parent_signal=false", "dataset_fraction=0.5"),
    ("trainer.precision=fp32", "encoder.gradient_checkpointing=true", "loss.level_reduction=nodes"),
    ("method=dual", "joint_variant.joint_objective=aux_only", "film=none", "head=linear"),
    ("method=tri_head_diffcat", "joint_variant.joint_eval_view=all", "trainer.precision=bf16"),
]


@pytest.mark.precision
@pytest.mark.parametrize(
    "variant", [*RESTORED, *(pytest.param(variant, marks=pytest.mark.slow) for variant in RESTORED_TOO)]
)
@pytest.mark.slow
def test_every_kind_of_run_is_restored_from_its_checkpoint(learnable, variant):
    result = run(learnable, *variant, "output_dir=out")
    record = json.loads(result.read_text())
    found = evaluation(checkpoint_of(result), "output_dir=out")
    assert found["test"] == record["test"]
    assert evaluation(checkpoint_of(result), "split=val")["val"] == record["val"]


CONDITIONAL = [
    ("loss=conditional_softmax", "method=tri_head_diffcat", "film=logit"),
    ("loss=conditional", "direction=bottom_up"),
    pytest.param(("loss=conditional_softmax", "film=none"), marks=pytest.mark.long),
    pytest.param(("loss=conditional", "method=dual", "film=multi_hot"), marks=pytest.mark.long),
]


@pytest.mark.slow
@pytest.mark.precision
@pytest.mark.parametrize("variant", CONDITIONAL)
def test_a_conditional_loss_is_restored_and_its_scores_respect_the_tree(learnable, one_path, variant):
    data = one_path if "loss=conditional_softmax" in variant else learnable
    result = run(data, *variant, *LEARNING)
    record = json.loads(result.read_text())
    found = evaluation(checkpoint_of(result), "predictions=true", "predictions_floor=0")
    assert found["test"] == record["test"]
    for scores in record["test"].values():
        assert scores["overall"]["violation_rate"] == 0
        assert scores["overall"]["micro_f1"] > 0.8
    scores = pd.read_parquet(found["predictions"]["path"]).pivot(
        index="document", columns="node", values="score"
    )
    for child, parent in {"a1": "a", "a2": "a", "b1": "b", "a1x": "a1", "a1y": "a1"}.items():
        assert (scores[child] <= scores[parent]).all()
    if data == one_path:
        np.testing.assert_allclose(scores[["a", "b"]].sum(axis=1), 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.long
def test_an_ensemble_of_conditional_models_respects_the_tree(learnable):
    short = ("loss=conditional", *LEARNING)
    td, bu = run(learnable, *short), run(learnable, *short, "direction=bottom_up")
    found = evaluation((checkpoint_of(td), checkpoint_of(bu)), "joint_eval_view=all")["test"]
    assert found["fused"]["overall"]["violation_rate"] == 0
    assert found["fused"]["overall"]["micro_f1"] > 0.8
    for view, result in (("td", td), ("bu", bu)):
        alone = json.loads(result.read_text())["test"]["single"]["overall"]
        assert found[view]["overall"]["micro_f1"] == pytest.approx(alone["micro_f1"])


@pytest.mark.slow
def test_an_ensemble_has_one_kind_of_logits(learnable, pair):
    result = run(learnable, "loss=conditional", "direction=bottom_up", "trainer.epochs=1")
    with pytest.raises(CheckpointError, match=r"trained with loss=bce and loss=conditional, whose logits"):
        evaluation((pair[0], checkpoint_of(result)))


def test_conditional_softmax_refuses_documents_of_two_paths(learnable):
    with pytest.raises(
        ConfigError, match=r"takes documents with one path.*'train0'.*write loss=conditional, which"
    ):
        run(learnable, "loss=conditional_softmax")


@pytest.mark.slow
def test_moved_data_is_named_and_can_be_given(trained, learnable, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(learnable, copy)
    result = run(copy, "output_dir=out")
    moved = copy.rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match=r"not at its recorded path.*dataset\.path=DIR"):
        evaluation(checkpoint_of(result))
    found = evaluation(checkpoint_of(result), f"dataset.path={moved}")
    assert found["test"] == json.loads(result.read_text())["test"]
    with (moved / "test.jsonl").open("a") as stream:
        stream.write('{"id": "new", "text": "apple", "labels": ["a"]}\n')
    (moved / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"has the hash .* was trained on .* dataset\.path=DIR"):
        evaluation(checkpoint_of(result), f"dataset.path={moved}")


def test_arguments_that_contradict_the_checkpoint_are_named_with_both_values(trained):
    given = f"checkpoint={checkpoint_of(trained)}"
    _, faults = without_stored(
        [given, "film=logit", "trainer.epochs=3", "encoder=minilm", "seed=x", "method=flat"]
    )
    film, epochs, encoder, seed, method = faults
    assert film.startswith("film=logit contradicts the checkpoint, which has film=sigmoid")
    assert "trainer.epochs=12" in epochs
    assert "encoder.model_name=sentence-transformers/all-MiniLM-L6-v2, the checkpoint has tiny" in encoder
    assert "seed=1" in seed
    assert "was decided at training" in method
    kept, faults = without_stored([given, "film=sigmoid", "trainer.epochs=12", "threshold=0.3", "-m"])
    assert (kept, faults) == ([given, "threshold=0.3", "-m"], [])


def test_faults_of_an_evaluation_come_at_once(trained):
    argv = [f"checkpoint={checkpoint_of(trained)}", "film=logit", "sede=3", "split=dev"]
    kept, found = without_stored(argv)
    with pytest.raises(ConfigError) as caught:
        check.check(programs.EVALUATE, kept, found)
    assert [line.split("=")[0] for line in str(caught.value).splitlines()] == ["film", "sede", "split"]
    kept, found = without_stored(["checkpoint=nowhere", "film=logit"])
    assert "checkpoint=nowhere is not a folder" in found[0]


def test_a_threshold_of_ones_own_is_recorded(trained):
    found = evaluation(checkpoint_of(trained), "threshold=0.9")
    assert found["settings"]["threshold"] == found["test"]["single"]["threshold"] == 0.9
    assert found["test"] != json.loads(trained.read_text())["test"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "hblm.json").unlink(), "has no hblm.json"),
        (lambda folder: (folder / "hblm.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "hblm.json").write_text('{"schema_version": 99}'), "version 99"),
        (lambda folder: reseal(folder, config=[]), "no valid value of config"),
        (lambda folder: reseal(folder, dataset={"name": "d"}), "no valid value of dataset"),
        (lambda folder: reseal(folder, eval_batch_size="x"), "no valid value of eval_batch_size"),
        (lambda folder: (folder / "taxonomy.json").write_text("[]"), "is damaged"),
        (lambda folder: shutil.rmtree(folder / "encoder"), "has no encoder"),
    ],
)
def test_a_damaged_checkpoint_is_refused(trained, tmp_path, damage, message):
    folder = tmp_path / "checkpoints" / "copy"
    shutil.copytree(checkpoint_of(trained), folder)
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        evaluation(folder)


def test_a_checkpoint_that_is_not_there_names_those_that_are(trained):
    with pytest.raises(CheckpointError, match=checkpoint_of(trained).name):
        open_checkpoint(checkpoint_of(trained).with_name("other"))


@pytest.mark.slow
def test_a_joint_result_tells_every_view(tri):
    record = json.loads(tri.read_text())
    assert record["kind"] == "joint"
    assert record["choices"]["joint_variant"] == "tri_head_diffcat"
    assert list(record["test"]) == list(record["val"]) == ["fused", "td", "bu", "mix"]
    assert record["history"][0]["modulation"].keys() == {"td", "bu"}
    best = record["history"][record["best_epoch"] - 1]
    assert record["val"]["fused"]["overall"]["macro_f1"] == best["val_macro_f1"]
    views = pd.read_csv(tri.with_suffix(".csv"))
    assert list(views.columns) == ["view", "macro_f1", "micro_f1"]
    for row in views.itertuples():
        overall = record["test"][row.view]["overall"]
        assert (row.macro_f1, row.micro_f1) == pytest.approx((overall["macro_f1"], overall["micro_f1"]))
    nodes = pd.read_csv(tri.with_suffix(".nodes.csv"))
    assert list(nodes["view"].unique()) == list(record["test"])
    assert len(nodes) == 4 * 7


@pytest.mark.slow
def test_the_view_that_is_monitored_decides_the_epoch(learnable):
    record = json.loads(run(learnable, *TRI, "joint_variant.joint_eval_view=bu").read_text())
    best = record["history"][record["best_epoch"] - 1]
    assert record["val"]["bu"]["overall"]["macro_f1"] == best["val_macro_f1"]
    assert best["val_macro_f1"] == max(entry["val_macro_f1"] for entry in record["history"])


def test_dual_full_without_the_fused_loss_is_not_run_twice(learnable, capsys, caplog, monkeypatch):
    first = run(learnable, "joint_variant=dual", "joint_variant.joint_objective=aux_only")
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("it was run again"))
    with caplog.at_level("INFO", logger="hblm"):
        training.run(compose("train", TrainConfig, *TINY, f"dataset.path={learnable}", "joint_variant=dual"))
    shown = capsys.readouterr().out
    assert "done before" in shown
    assert str(first) in shown
    assert (
        "joint_objective=full with joint_loss_fused=0 and joint_objective=aux_only are one run" in caplog.text
    )


@pytest.mark.slow
def test_a_loss_of_no_weight_trains_nothing(learnable):
    """The mix heads of a run without the mix loss stay where the seed put them: no decay either."""
    once = ("trainer.epochs=1", "method=tri_head_diffcat")
    stored = [
        load_file(checkpoint_of(run(learnable, *once, *more)) / "model.safetensors")
        for more in (
            ["joint_variant.joint_loss_mix=0"],
            ["joint_variant.joint_loss_mix=0", "joint_variant.joint_loss_td=2"],
            [],
        )
    ]
    untrained, other, trained = (
        {name: state[name] for name in state if name.startswith("branches.mix.")} for state in stored
    )
    assert len(trained) == 24
    for name, value in untrained.items():
        assert torch.equal(other[name], value), name
        assert not torch.equal(trained[name], value), name


@pytest.mark.slow
def test_fuse_weights_can_be_given_anew_and_are_recorded(tri):
    record = json.loads(tri.read_text())
    found = evaluation(checkpoint_of(tri), "tri_fuse_td=0", "tri_fuse_mix=0")
    assert found["settings"]["tri_fuse_td"] == found["settings"]["tri_fuse_mix"] == 0.0
    assert found["settings"]["tri_fuse_bu"] == 1.0
    for view in ("td", "bu", "mix"):
        assert found["test"][view] == record["test"][view]
    bu = dict(found["test"]["bu"])
    del bu["modulation"]
    assert found["test"]["fused"] == bu
    assert found["made"].name.startswith("eval_joint_fruit_tri_head_diffcat_tiny_")
    again = evaluation(checkpoint_of(tri))
    assert again["test"] == record["test"]
    assert again["settings"]["tri_fuse_td"] == 1.0
    with pytest.raises(ConfigError, match="nothing to fuse"):
        evaluation(checkpoint_of(tri), "tri_fuse_td=0", "tri_fuse_mix=0", "tri_fuse_bu=0")


def test_a_checkpoint_of_other_formulas_is_refused_in_one_line(trained, tmp_path, capsys):
    folder = tmp_path / "old"
    shutil.copytree(checkpoint_of(trained), folder)
    meta = json.loads((folder / "hblm.json").read_text())
    assert meta.pop("formulas") == FORMULAS
    (folder / "hblm.json").write_text(json.dumps(meta))  # as 0.1 wrote it
    with pytest.raises(SystemExit) as end:
        evaluate.main([f"checkpoint={folder}"])
    assert end.value.code == 2
    (printed,) = capsys.readouterr().err.splitlines()
    assert "made by hblm 0.1" in printed
    assert "evaluate it with hblm 0.1" in printed


@pytest.mark.parametrize(("given", "shown"), [((), "fused"), (("joint_eval_view=mix",), "mix")])
def test_the_view_asked_for_is_shown(tri, capsys, given, shown):
    found = evaluation(checkpoint_of(tri), *given)
    assert f"test, view {shown}" in capsys.readouterr().out
    assert found["settings"]["view"] == shown


def test_all_views_are_shown_as_a_row_each(tri, capsys):
    evaluation(checkpoint_of(tri), "joint_eval_view=all", "posthoc_repath=true")
    shown = capsys.readouterr().out
    assert "all views, predictions closed under ancestors" in shown
    assert [line.split()[1] for line in shown.splitlines() if "│" in line] == ["fused", "td", "bu", "mix"]


def test_keys_that_do_not_act_are_refused(trained, tri, pair):
    with pytest.raises(
        ConfigError, match=r"tri_fuse_td=1\.0 acts on tri_head_diffcat, not on .*=none"
    ) as caught:
        evaluation(checkpoint_of(trained), "tri_fuse_td=1", "joint_eval_view=td")
    assert "has one view, single" in str(caught.value)
    with pytest.raises(ConfigError, match="an ensemble has the views fused, td, bu, or all"):
        evaluation(pair, "joint_eval_view=mix")
    _, faults = without_stored([f"checkpoint={checkpoint_of(tri)}", "joint_variant.tri_fuse_td=0.5"])
    assert faults == ["joint_variant.tri_fuse_td=0.5 is written tri_fuse_td=0.5 in an evaluation"]
    _, faults = without_stored([f"checkpoint={checkpoint_of(tri)}", "trainer.num_workers=2"])
    assert faults == ["trainer.num_workers=2 is written num_workers=2 in an evaluation"]


def test_the_set_a_checkpoint_was_trained_on_may_be_named(trained, learnable):
    given = [f"checkpoint={checkpoint_of(trained)}", "dataset=custom", f"dataset.path={learnable}"]
    assert without_stored(given) == ([given[0], given[2]], [])
    with pytest.raises(ConfigError) as caught:
        check.check(programs.EVALUATE, ["checkpoint=a,b"])
    assert str(caught.value).endswith("or write 'checkpoint=[a,b]' for all at once")
    assert len(str(caught.value).splitlines()) == 1


def close(one, other):
    """Check that two sets of scores are equal but for the last digits of sums of another order."""
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, dict):
            close(value, other[key])
        elif isinstance(value, float):
            assert value == pytest.approx(other[key], abs=1e-12), key
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for left, right in zip(value, other[key], strict=True):
                close(left, right)
        else:
            assert value == other[key], key


@pytest.mark.precision
@pytest.mark.parametrize("turned", [False, True])
def test_an_ensemble_is_the_weighted_mean_of_logits(pair, turned):
    both = pair[::-1] if turned else pair
    alone = {branch: evaluation(folder) for branch, folder in zip(("td", "bu"), pair, strict=True)}
    for weight, same in (("1", "td"), ("0", "bu")):
        found = evaluation(both, f"ensemble_weight={weight}")
        assert list(found["test"]) == ["fused", "td", "bu"]
        for view, branch in (("fused", same), ("td", "td"), ("bu", "bu")):
            expected = dict(alone[branch]["test"]["single"])
            del expected["modulation"]
            close(found["test"][view], expected)
    assert (found["kind"], found["settings"]["ensemble_weight"]) == ("ensemble", 0.0)
    assert found["members"]["td"]["checkpoint"] == str(pair[0])
    assert found["members"]["bu"]["run_id"] == alone["bu"]["run_id"]
    assert found["made"].name.startswith("eval_ensemble_fruit_")
    assert found["made"].with_suffix(".csv").exists()


def scores_of(found, view):
    table = pd.read_parquet(found["predictions"]["path"])
    return table[table["view"] == view].pivot(index="document", columns="node", values="score")


@pytest.mark.precision
def test_the_fused_scores_of_an_ensemble(pair):
    every = ("predictions=true", "predictions_floor=0", "joint_eval_view=all")
    found = evaluation(pair, "ensemble_weight=0.3", *every)
    # float32 scores close to 1 tell their logits to a few digits only
    td, bu = (np.log(scores / (1 - scores)) for view in ("td", "bu") for scores in [scores_of(found, view)])
    expected = 1 / (1 + np.exp(-(0.3 * td + 0.7 * bu)))
    np.testing.assert_allclose(scores_of(found, "fused"), expected, atol=2e-3)
    assert np.abs(scores_of(found, "fused") - scores_of(found, "td")).max().max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("split", ["test", "val"])
def test_the_weight_is_searched_on_validation_only(pair, split, capsys, caplog):
    with caplog.at_level("INFO", logger="hblm"):
        found = evaluation(pair, "ensemble_weight=auto", f"split={split}")
    search = found["settings"]["ensemble_weight_search"]
    assert (search["split"], search["monitor"]) == ("val", "macro_f1")
    tried = {entry["weight"]: entry["macro_f1"] for entry in search["tried"]}
    assert list(tried) == [pytest.approx(step / 20) for step in range(21)]
    chosen = found["settings"]["ensemble_weight"]
    assert tried[chosen] == max(tried.values())
    assert all(
        abs(chosen - 0.5) <= abs(weight - 0.5) for weight, score in tried.items() if score == tried[chosen]
    )
    assert f"ensemble_weight=auto chose {chosen:g}" in caplog.text
    assert ("optimistic" in caplog.text) == (split == "val")
    fixed = evaluation(pair, f"ensemble_weight={chosen}", f"split={split}")
    assert fixed[split] == found[split]
    fixed = evaluation(pair, "ensemble_weight=0.25", "split=val")
    assert fixed["val"]["fused"]["overall"]["macro_f1"] == tried[0.25]


@pytest.mark.slow
def test_one_model_is_in_memory_at_a_time(pair, monkeypatch):
    import gc
    import weakref

    from hblm.engine import session

    alive, made = [], []
    load = session.stored_model

    def watched(*given):
        gc.collect()
        alive.append(sum(model() is not None for model in made))
        model, tokenizer = load(*given)
        made.append(weakref.ref(model))
        return model, tokenizer

    monkeypatch.setattr(session, "stored_model", watched)
    evaluation(pair, "ensemble_weight=auto")
    assert alive == [0, 0]
    root = pair[0].parent.parent
    assert not list(root.rglob("*.tmp"))
    assert not list(root.rglob("td.*"))


def changed(folder, target, config):
    """Copy a checkpoint with some keys of its configuration changed."""
    shutil.copytree(folder, target)
    meta = json.loads((target / "hblm.json").read_text())
    for key, value in config.items():
        *groups, last = key.split(".")
        node = meta["config"]
        for group in groups:
            node = node[group]
        node[last] = value
    reseal(target, **meta)
    return target


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"direction.cascade_direction": "top_down"}, "both have direction=top_down"),
        ({"film.propagation_method": "none"}, "trained with film=none: it has no direction"),
        ({"joint_variant.joint_variant": "dual"}, r"is a joint model \(dual\)"),
        ({"threshold": 0.4}, r"one has threshold=0.5, the other threshold=0.4; give threshold="),
        ({"dataset_fraction": 0.5}, "one has dataset_fraction=1.0, the other dataset_fraction=0.5"),
    ],
)
def test_two_that_make_no_ensemble_are_refused(pair, tmp_path, config, reason):
    with pytest.raises(CheckpointError, match=reason):
        evaluation((pair[0], changed(pair[1], tmp_path / "other", config)), f"output_dir={tmp_path}")
    assert not (tmp_path / "results").exists()


def test_an_ensemble_needs_one_dataset_and_one_taxonomy(pair, one_path):
    other = checkpoint_of(run(one_path, "direction=bottom_up"))
    with pytest.raises(CheckpointError, match=r"different documents: fruit with the hash .* and berries"):
        evaluation((pair[0], other))
    taxonomy = json.loads((other / "taxonomy.json").read_text())
    taxonomy["nodes"].pop()
    (other / "taxonomy.json").write_text(json.dumps(taxonomy))
    reseal(other)
    with pytest.raises(CheckpointError, match=r"taxonomies differ \(7 and 6 nodes\)"):
        evaluation((pair[0], other))


def test_arguments_are_compared_with_both_checkpoints(pair):
    given = f"checkpoint=[{pair[0]},{pair[1]}]"
    assert without_stored([given, "trainer.epochs=5"]) == ([given], [])
    _, faults = without_stored([given, "pooling=max", "trainer.epochs=3"])
    assert [fault.split(", which has ")[1] for fault in faults] == [
        "pooling=mean; leave it out",
        "trainer.epochs=5; leave it out",
    ]
    _, faults = without_stored([f"checkpoint=[{pair[0]},nowhere]"])
    assert "checkpoint=nowhere is not a folder" in faults[0]


@pytest.mark.parametrize("floor", [0, 0.2, 1])
def test_predictions_give_the_scores_again(tri, floor, monkeypatch):
    monkeypatch.setattr(predictions, "ROWS_PER_SHARD", 50)  # several shards
    found = evaluation(
        checkpoint_of(tri), "predictions=true", f"predictions_floor={floor}", "joint_eval_view=all"
    )
    folder = Path(found["predictions"]["path"])
    assert folder == found["made"].with_suffix(".predictions")
    assert found["predictions"]["floor"] == floor
    table = pd.read_parquet(folder)
    assert list(table.columns) == ["document", "node", "score", "predicted", "target", "view"]
    assert ((table["score"] >= floor) | table["predicted"] | table["target"]).all()
    assert (table["predicted"] == (table["score"] >= 0.5)).all()
    for view in ("fused", "td", "bu", "mix"):
        rows = table[table["view"] == view]
        assert len(rows) == found["predictions"]["rows"][view]
        assert not rows.duplicated(["document", "node"]).any()
        shards = list((folder / f"view={view}").glob("part-*.parquet"))
        assert len(shards) == found["predictions"]["shards"][view]
        if floor == 0:
            assert len(rows) == 23 * 7
            assert len(shards) > 1
        overall = found["test"][view]["overall"]
        assert f1_score(rows["target"], rows["predicted"]) == pytest.approx(overall["micro_f1"])
        assert rows["target"].sum() == overall["support"]
    assert set(table["document"]) == {f"test{number}" for number in range(23)}


def test_predictions_hold_the_view_that_is_shown(tri, trained):
    found = evaluation(checkpoint_of(tri), "predictions=true")
    assert found["predictions"]["rows"].keys() == {"fused"}
    found = evaluation(checkpoint_of(trained), "predictions=true", "split=val")
    assert found["settings"]["view"] == "single"
    assert found["predictions"]["rows"].keys() == {"single"}
    assert evaluation(checkpoint_of(trained))["predictions"] is None


def test_a_fault_leaves_no_predictions(tri, monkeypatch, tmp_path):
    monkeypatch.setattr("hblm.runs.result.write_result", lambda *_: pytest.fail("on purpose"))
    with pytest.raises(pytest.fail.Exception):
        evaluation(checkpoint_of(tri), "predictions=true", f"output_dir={tmp_path / 'out'}")
    assert not list((tmp_path / "out" / "results").iterdir())


def test_a_full_disk_leaves_nothing_of_an_ensemble(pair, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hblm.inference.scores.score_fused", full)
    with pytest.raises(OSError, match="No space left"):
        evaluation(pair, f"output_dir={tmp_path / 'out'}")
    left = [path for path in (tmp_path / "out").rglob("*") if "tokens" not in path.parts and path.is_file()]
    assert not [path for path in left if path.parent.name != ".locks"]


def test_a_checkpoint_caught_between_two_renames_is_put_back(trained, tmp_path):
    folder = tmp_path / "checkpoints" / "copy"
    aside = temporary_beside(folder.with_name("copy.old"))
    shutil.copytree(checkpoint_of(trained), aside)
    dead = aside.with_name(re.sub(r"\.\d+\.tmp$", ".999999.tmp", aside.name))
    aside.rename(dead)
    assert without_stored([f"checkpoint={folder}"])[1] == []
    assert folder.is_dir()


@pytest.mark.precision
def test_logits_on_disk_are_in_the_order_of_the_split(pair):
    """Batches are made by length; the ensemble's rows must not be."""
    found = evaluation(pair, "ensemble_weight=1", "predictions=true", "predictions_floor=0")
    alone = evaluation(pair[0], "predictions=true", "predictions_floor=0")
    np.testing.assert_allclose(scores_of(found, "fused"), scores_of(alone, "single"), atol=1e-6)


def test_several_evaluations_are_checked_against_each_checkpoint(trained, tri):
    places = f"checkpoint={checkpoint_of(trained)},{checkpoint_of(tri)}"
    assert without_stored([places, "-m", "pooling=max"]) == ([places, "-m"], [])
    _, faults = without_stored([places, "-m", "joint_variant=none"])
    assert len(faults) == 1
    assert "the checkpoint, which has joint_variant=tri_head_diffcat" in faults[0]
