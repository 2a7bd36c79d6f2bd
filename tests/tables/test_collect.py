"""Results as a table: what is taken, what is passed over, and what each column tells."""

from __future__ import annotations

import json
import math
import os
import re
import textwrap
from collections.abc import Callable
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import made_results
import pytest

import hblm
from hblm.errors import DataError
from hblm.tables.collect import collect
from hblm.tables.pivot import Ask, tabulate

README = Path(__file__).parents[2] / "README.md"
SCORES = {"micro_f1": 0.8, "macro_f1": 0.5, "support": 12}


def view(micro: float = 0.8, **more: Any) -> dict[str, Any]:
    """Return the scores of one view."""
    return {
        "documents": 9,
        "threshold": 0.5,
        "overall": {**SCORES, "micro_f1": micro},
        "per_level": [{"level": 0, "nodes": 2, "micro_f1": 0.9}, {"level": 1, "nodes": 5, "micro_f1": None}],
        "hierarchical": {"f1": 0.81},
        "ranking": {"precision_at_1": 1.0},
        "by_frequency": [{"train_documents": "10-99", "nodes": 7, "macro_f1": 0.4}],
        "repath": {"overall": {**SCORES, "micro_f1": micro + 0.01}, "per_level": []},
        **more,
    }


def record(kind: str = "single", run_id: str = "a" * 64, seed: int = 1, **more: Any) -> dict[str, Any]:
    """Return a result as training and evaluation write it."""
    return {
        "schema_version": 1,
        "kind": kind,
        "run_id": run_id,
        "status": "done",
        "choices": {"dataset": "wos", "film": "sigmoid", "direction": "top_down", "joint_variant": "none"},
        "config": {
            "seed": seed,
            "threshold": 0.5,
            "trackers": [],
            "film": {"film_scale": 0.2},
            "dataset": {"name": "wos", "prepare": {"seed": 13}},
        },
        "dataset": {
            "name": "wos",
            "fingerprint": "f" * 64,
            "files": {"taxonomy.json": "7" * 64},
            "levels": [7, 134],
        },
        "seed": seed,
        "val": {"single": view(0.7)},
        "test": {"single": view()},
        "environment": {"git_commit": "c0ffee", "git_dirty": False, "device": "cpu"},
        **more,
    }


def evaluation(**settings: Any) -> dict[str, Any]:
    """Return the result of an evaluation of the run `record` is of."""
    return {**record("evaluation", settings={"split": "test", "threshold": 0.5, **settings}), "val": None}


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a file below outputs/."""

    def written(name: str, content: Any, *, age: int = 0) -> Path:
        path = tmp_path / "outputs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
        return path

    return written


def why(frame: Any) -> dict[str, str]:
    return {passed.file.name: passed.why for passed in frame.attrs["passed_over"]}


def test_a_result_has_a_row_for_each_split_and_way_of_scoring(write: Write, tmp_path: Path) -> None:
    path = write("results/a.json", record())
    frame = hblm.results(tmp_path / "outputs")
    assert frame[["split", "view", "closed", "micro_f1"]].values.tolist() == [
        ["val", "single", False, 0.7],
        ["val", "single", True, 0.71],
        ["test", "single", False, 0.8],
        ["test", "single", True, 0.81],
    ]
    first = frame.iloc[2]
    assert first["file"] == str(path)
    assert first["kind"] == "single"
    assert (first["dataset"], first["levels"], first["seed"]) == ("wos", "7/134", 1)
    assert (first["data"], first["taxonomy"]) == ("f" * 64, "7" * 64)
    assert (first["film"], first["film.film_scale"]) == ("sigmoid", 0.2)
    assert (first["git_commit"], first["git_dirty"]) == ("c0ffee", False)
    assert (first["documents"], first["threshold"]) == (9, 0.5)
    assert first["level_0.micro_f1"] == 0.9
    assert math.isnan(first["level_1.micro_f1"])
    assert (first["level_1.nodes"], first["frequency_10-99.macro_f1"]) == (5, 0.4)
    assert (first["hierarchical.f1"], first["ranking.precision_at_1"]) == (0.81, 1.0)
    assert not any("prepare" in column or column == "trackers" for column in frame)
    assert frame.attrs["passed_over"] == []


def test_methods_and_keys_are_told(tmp_path: Path) -> None:
    methods = ("flat", "top_down", "bottom_up", "dual", "tri_head_diffcat")
    for method in methods:
        made_results.write(tmp_path, method, made_results.result(method))
    apart = made_results.result("top_down", film__propagation_method="none")
    made_results.write(tmp_path, "independent", apart)
    frame = hblm.results(tmp_path)
    told = {Path(file).stem: method for file, method in zip(frame["file"], frame["method"], strict=True)}
    assert told == {**{method: method for method in methods}, "independent": "independent"}
    assert not frame.columns.duplicated().any()
    assert set(frame.attrs["keys"]) <= set(frame.columns)
    assert {"method", "film", "film.film_scale", "trainer.epochs", "seed"} <= set(frame.attrs["keys"])


def test_a_joint_result_has_rows_for_its_views(write: Write, tmp_path: Path) -> None:
    write("results/a.json", record("joint", test={"fused": view(0.9), "td": view(0.6)}, val=None))
    frame = hblm.results(tmp_path)
    rows = frame[~frame["closed"]]
    assert dict(zip(rows["view"], rows["micro_f1"], strict=True)) == {"fused": 0.9, "td": 0.6}


def test_an_ensemble_tells_what_its_members_share(write: Write, tmp_path: Path) -> None:
    members = {"td": record(run_id="1" * 64), "bu": record(run_id="2" * 64)}
    members["bu"]["choices"] = {**members["bu"]["choices"], "direction": "bottom_up"}
    made = {**record("ensemble", settings={"split": "test"}), "members": members, "val": None}
    del made["choices"], made["config"], made["seed"]
    write("results/e.json", made)
    row = hblm.results(tmp_path).iloc[0]
    assert (row["film"], row["direction"], row["seed"]) == ("sigmoid", "top_down+bottom_up", 1)
    assert row["run_id"] == f"{'1' * 64}+{'2' * 64}"


def test_files_that_are_no_results_are_named_and_never_fatal(write: Write, tmp_path: Path) -> None:
    write("results/good.json", record())
    write("results/cut.json", json.dumps(record("single", "b" * 64))[:-40])
    write("results/list.json", [1])
    write("results/other.json", {"a": 1})
    write("results/running.json", record(run_id="d" * 64, status="running"))
    write("results/newer.json", {**record(), "schema_version": 2})
    write("results/strange.json", record("poem"))
    write("results/bare.json", {"schema_version": 1, "kind": "single", "run_id": "x", "status": "done"})
    write("results/empty.json", record(run_id="e" * 64, val=None, test={}))
    write("results/text.json", record(run_id="9" * 64, test={"single": view(), "x": "no"}))
    frame = hblm.results(tmp_path)
    assert set(frame["file"]) == {str(tmp_path / "outputs/results/good.json")}
    assert {name: reason.partition(":")[0] for name, reason in why(frame).items()} == {
        "cut.json": "not valid JSON",
        "list.json": "expected an object, found [1]",
        "other.json": "not a result",
        "running.json": "unfinished",
        "newer.json": "schema_version 2, not 1",
        "strange.json": "a result of the unknown kind 'poem'",
        "bare.json": "not in the format of a result",
        "empty.json": "not in the format of a result",
        "text.json": "not in the format of a result",
    }


def test_superseded_results_and_what_lies_in_checkpoints_do_not_count(write: Write, tmp_path: Path) -> None:
    for folder in ("superseded", "checkpoints/x", "cache", "state/x", ".hidden"):
        write(f"{folder}/a.json", record())
    write("results/.a.json.tmp", record())
    write("results/.a.json", record())
    frame = hblm.results(tmp_path)
    assert (len(frame), frame.attrs["passed_over"]) == (0, [])


@pytest.mark.parametrize(
    "name",
    [
        *("sweeps/main/sweep.json", "sweeps/main/cells/a.json", "sweeps/main/attempts/a.1.json"),
        *("hydra/2026-01-01/job.json", "trackers/x/a.json", "cache/tokens/a/meta.json"),
        *("copy/hblm.json", "copy/encoder/tokenizer.json", "minilm/config.json", "data/wos/taxonomy.json"),
        *("data/wos/manifest.json", "ledgers/main/cells/a.json"),
    ],
)
def test_what_is_no_result_by_its_place_is_not_told(write: Write, tmp_path: Path, name: str) -> None:
    markers = {
        "copy": "hblm.json",
        "minilm": "config.json",
        "data": "wos/taxonomy.json",
        "ledgers": "main/sweep.json",
    }
    top = name.partition("/")[0]
    if top in markers:
        write(f"{top}/{markers[top]}", "{}")
    write(name, {"a": 1})
    write("results/good.json", record())
    write("config.json", "{}")  # of whatever else lies there
    frame = hblm.results(tmp_path)
    assert (set(frame["kind"]), frame.attrs["passed_over"]) == ({"single"}, [])
    write("results/cut.json", "{")
    assert [*why(hblm.results(tmp_path))] == ["cut.json"]


def test_of_evaluations_with_the_same_settings_the_newest_counts(write: Write, tmp_path: Path) -> None:
    write("results/run.json", record(), age=50)
    write("results/eval_1.json", evaluation(), age=30)
    newest = write("results/eval_2.json", evaluation(), age=20)
    other = write("results/eval_3.json", evaluation(threshold=0.4), age=40)
    frame = hblm.results(tmp_path, repeats=True)
    assert set(frame["file"]) == {str(tmp_path / "outputs/results/run.json"), str(newest), str(other)}
    assert set(frame["settings.threshold"].dropna()) == {0.4, 0.5}
    assert why(frame) == {"eval_1.json": f"an older result of the same run and settings as {newest}"}


def test_one_run_in_two_places_is_one_result(write: Write, tmp_path: Path) -> None:
    write("a/results/run.json", record(), age=9)
    write("b/results/run.json", record())
    write("b/results/twin.json", record(run_id="b" * 64, seed=2))
    frame = hblm.results(tmp_path / "outputs/a", tmp_path / "outputs/b", tmp_path / "outputs/b")
    assert sorted({Path(file).parent.parent.name for file in frame["file"]}) == ["b"]
    assert set(frame["seed"]) == {1, 2}
    assert list(why(frame)) == ["run.json"]


def test_a_single_file_is_a_place(write: Write) -> None:
    assert len(hblm.results(write("results/a.json", record()))) == 4


def test_a_place_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file or folder of results"):
        hblm.results(tmp_path / "nowhere")


def test_the_order_of_rows_is_that_of_the_files(write: Write, tmp_path: Path) -> None:
    for name, seed in (("c", 3), ("a", 1), ("b", 2)):
        write(f"results/{name}.json", record(run_id=name * 64, seed=seed))
    assert hblm.results(tmp_path)["seed"].drop_duplicates().tolist() == [1, 2, 3]


def test_the_package_has_nothing_else_of_that_kind() -> None:
    with pytest.raises(AttributeError, match="no attribute 'reslts'"):
        hblm.reslts  # noqa: B018 (the name is what is tried)


NOON = datetime(2026, 11, 26, 12, tzinfo=timezone.utc).timestamp()


def names(frame: Any) -> set[str]:
    return {Path(file).stem for file in frame["file"]}


def test_a_result_has_columns_for_how_it_was_made(tmp_path: Path) -> None:
    made_with = {"device": "NVIDIA H100", "device_kind": "cuda", "processes": 2, "precision": "bf16"}
    made_results.write(tmp_path, "a", made_results.result(made_with=made_with))
    row = hblm.results(tmp_path).iloc[0]
    assert (row["formulas"], row["finished"]) == (2, made_results.FINISHED)
    assert {name: row[name] for name in made_with} == made_with
    told = json.dumps(made_results.ENCODER, sort_keys=True, separators=(",", ":"))
    assert (row["encoder_commit"], row["encoder_id"]) == ("e" * 40, sha256(told.encode()).hexdigest()[:8])


@pytest.mark.parametrize(
    ("device", "kind"), [("cpu", "cpu"), ("mps", "mps"), ("NVIDIA A100-SXM4-40GB", "cuda"), (None, None)]
)
def test_a_result_of_the_first_version_is_read(tmp_path: Path, device: str | None, kind: str | None) -> None:
    made = made_results.of_first_version(made_results.result(), device=device)
    made_results.write(tmp_path, "a", made, changed=NOON)
    row = hblm.results(tmp_path).iloc[0]
    assert (row["formulas"], row["finished"]) == (1, "2026-11-26T12:00:00Z")
    assert (row["device_kind"], row["processes"], row["precision"]) == (kind, None, "fp32")
    assert (row["encoder_commit"], row["encoder_id"]) == (None, None)


def test_of_two_results_of_a_run_the_later_one_counts_whenever_its_file_was_copied(tmp_path: Path) -> None:
    later = made_results.result(finished="2026-11-26T18:20:31Z")
    earlier = made_results.result(finished="2026-11-26T18:20:30Z")
    made_results.write(tmp_path / "a", "later", later, changed=NOON)
    made_results.write(tmp_path / "b", "earlier", earlier, changed=NOON + 86400)
    frame = hblm.results(tmp_path)
    assert names(frame) == {"later"}
    assert why(frame)["earlier.json"].startswith("an older result of the same run and settings as")


def test_a_result_with_an_invalid_time_is_passed_over(tmp_path: Path) -> None:
    made_results.write(tmp_path, "a", made_results.result(finished="yesterday"))
    assert "yesterday" in why(hblm.results(tmp_path))["a.json"]


def test_an_evaluation_of_an_earlier_model_does_not_count(tmp_path: Path) -> None:
    """Whatever the times say: an earlier training's checkpoint can be evaluated later."""
    run, kept = made_results.result(), made_results.result(seed=2)
    stale = made_results.evaluation(run, threshold=0.3, finished="2026-12-01T00:00:00Z")
    stale |= {"training": "earlier", "predictions": {"path": "/x"}}
    made_results.write(tmp_path, "run", run, changed=NOON)
    made_results.write(tmp_path, "eval_stale", stale, changed=NOON + 86400)
    same_training = made_results.evaluation(run, threshold=0.4, finished="2020-01-01T00:00:00Z")
    made_results.write(tmp_path, "eval_same_training", same_training)
    fresh = made_results.evaluation(run, threshold=0.3)
    made_results.write(tmp_path, "eval_fresh", fresh, changed=NOON - 86400)
    alone = made_results.evaluation(kept)
    made_results.write(tmp_path, "eval_without_run", alone)
    frame = collect([tmp_path])
    assert names(frame) == {"run", "eval_fresh", "eval_same_training", "eval_without_run"}
    assert why(frame) == {"eval_stale.json": f"of another training than {tmp_path / 'results/run.json'}"}


def test_an_evaluation_of_the_first_version_is_as_old_as_its_file(tmp_path: Path) -> None:
    run = made_results.result()
    for name, of, changed in (
        ("old", made_results.of_first_version(run), NOON - 2),
        ("new", made_results.of_first_version(run), NOON + 2),
    ):
        evaluation = made_results.evaluation(of, threshold=0.3 if name == "old" else 0.4)
        made_results.write(tmp_path, f"eval_{name}", evaluation, changed=changed)
    made_results.write(tmp_path, "run", made_results.of_first_version(run), changed=NOON)
    assert names(collect([tmp_path])) == {"run", "eval_new"}
    # the run made again by this version, at 18:20:31
    made_results.write(tmp_path, "run", run, changed=NOON - 86400)
    assert names(collect([tmp_path])) == {"run"}


def test_an_ensemble_is_of_both_models_trainings(tmp_path: Path) -> None:
    td, bu = made_results.result("top_down"), made_results.result("bottom_up")
    for name, run in (("td", td), ("bu", bu)):
        made_results.write(tmp_path, name, run)
    made_results.write(tmp_path, "ensemble", made_results.ensemble(td, bu | {"training": "earlier"}))
    frame = collect([tmp_path])
    assert names(frame) == {"td", "bu"}
    assert why(frame)["ensemble.json"] == f"of another training than {tmp_path / 'results/bu.json'}"
    made_results.write(tmp_path, "ensemble", made_results.ensemble(td, bu))
    assert names(collect([tmp_path])) == {"td", "bu", "ensemble"}


def test_an_ensemble_of_the_first_version_is_as_old_as_either_model(tmp_path: Path) -> None:
    td, bu = (made_results.of_first_version(made_results.result(way)) for way in ("top_down", "bottom_up"))
    made_results.write(tmp_path, "td", td, changed=NOON)
    made_results.write(tmp_path, "bu", bu, changed=NOON + 10)
    for changed, counts in ((NOON + 5, False), (NOON + 15, True)):
        made_results.write(tmp_path, "ensemble", made_results.ensemble(td, bu), changed=changed)
        assert ("ensemble" in names(collect([tmp_path]))) == counts


def test_of_evaluations_with_the_same_settings_those_with_predictions_count(tmp_path: Path) -> None:
    run = made_results.result()
    made_results.write(tmp_path, "run", run)
    for day, predictions in ((27, {"path": "/x"}), (28, {"path": "/x"}), (29, None)):
        evaluation = made_results.evaluation(run, finished=f"2026-11-{day}T00:00:00Z")
        made_results.write(tmp_path, f"eval_{day}", {**evaluation, "predictions": predictions})
    frame = collect([tmp_path])
    assert names(frame) == {"run", "eval_28"}
    assert dict(zip(frame["kind"], frame["predictions"], strict=True)) == {
        "single": False,
        "evaluation": True,
    }
    reasons = why(frame)
    assert reasons["eval_27.json"].startswith("an older result of the same run")
    assert reasons["eval_29.json"].startswith("a result without predictions of the same run")


def test_evaluations_that_repeat_a_run_are_left_out(tmp_path: Path) -> None:
    flat, lone = made_results.result("flat"), made_results.result("flat", seed=2)
    strict = made_results.result("flat", seed=3, threshold=0.4)
    tri = made_results.result("tri_head_diffcat", joint_variant__tri_fuse_td=2.0)
    weights = {"tri_fuse_td": 2.0, "tri_fuse_bu": 1.0, "tri_fuse_mix": 1.0}
    old = made_results.of_first_version(made_results.result("flat", seed=4))
    for name, run in {"flat": flat, "strict": strict, "tri": tri, "old": old}.items():
        made_results.write(tmp_path, name, run)
    repeats = {
        "flat": made_results.evaluation(flat),
        "strict": made_results.evaluation(strict, threshold=0.4),
        "tri": made_results.evaluation(tri, **weights),
    }
    others = {
        "threshold": made_results.evaluation(flat, threshold=0.4),
        "training_threshold": made_results.evaluation(strict, threshold=0.5),
        "weights": made_results.evaluation(tri, **{**weights, "tri_fuse_mix": 3.0}),
        "without_run": made_results.evaluation(lone),
        "formulas": {**made_results.evaluation(old), "formulas": 2},
        "ensemble": made_results.ensemble(flat, strict),
    }
    for name, evaluation in {**{f"again_{name}": one for name, one in repeats.items()}, **others}.items():
        made_results.write(tmp_path, name, evaluation)
    frame = hblm.results(tmp_path)
    assert names(frame) == {"flat", "strict", "tri", "old", *others}
    assert why(frame) == {
        f"again_{name}.json": f"repeats {tmp_path / 'results' / name}.json; repeats=True keeps it"
        for name in repeats
    }
    everything = hblm.results(tmp_path, repeats=True)
    assert len(names(everything)) == 13
    assert why(everything) == {}


def test_the_readmes_means_are_over_runs(tmp_path: Path) -> None:
    for seed, macro in ((1, 0.5), (2, 0.7)):
        run = made_results.result("flat", seed, macro=macro)
        made_results.write(tmp_path, f"run{seed}", run)
        if seed == 2:  # three times as heavy as the other, were it counted each time
            for view in ("single", "all"):
                made_results.write(tmp_path, f"eval_{view}", made_results.evaluation(run, view=view))
    text = README.read_text(encoding="utf-8")
    (snippet,) = re.findall(r"\n(    import hblm\n(?:    .*\n)+)", text)
    found: dict[str, Any] = {}
    exec(textwrap.dedent(snippet).replace('"outputs"', repr(str(tmp_path))), found)
    (row,) = found["frame"].groupby("method")["macro_f1"].agg(["mean", "count"]).values.tolist()
    assert row == [pytest.approx(0.6), 2]


def test_the_training_threshold_is_a_key_of_its_own(tmp_path: Path) -> None:
    run = made_results.result(threshold=0.4)
    made_results.write(tmp_path, "run", run)
    made_results.write(tmp_path, "eval", made_results.evaluation(run, threshold=0.3))
    frame = hblm.results(tmp_path)
    told = frame[["kind", "threshold", "training_threshold"]].drop_duplicates().values.tolist()
    assert ["evaluation", 0.3, 0.4] in told
    assert set(frame["training_threshold"]) == {0.4}
    assert "training_threshold" in frame.attrs["keys"]
    assert "threshold" not in frame.attrs["keys"]


def test_evaluations_record_their_encoders(tmp_path: Path) -> None:
    other = {"model_name": "a", "revision": None, "commit": "f" * 40}
    td, bu = made_results.result("top_down"), made_results.result("bottom_up", encoder=other)
    for name, made in (("td", td), ("bu", bu)):
        made_results.write(tmp_path, name, made)
    made_results.write(tmp_path, "eval", made_results.evaluation(td, threshold=0.3))
    made_results.write(tmp_path, "ensemble", made_results.ensemble(td, bu))
    lone = made_results.result(seed=2)
    made_results.write(tmp_path, "lone", made_results.evaluation(lone))
    made_results.write(tmp_path, "half", made_results.ensemble(td, lone))
    old = made_results.of_first_version(made_results.result(seed=3))
    made_results.write(tmp_path, "old", old, changed=0)
    made_results.write(tmp_path, "with_old", made_results.ensemble(td, old))
    frame = collect([tmp_path]).drop_duplicates("file")
    commits = frame["encoder_commit"].fillna("unknown")
    told = {Path(file).stem: commit for file, commit in zip(frame["file"], commits, strict=True)}
    assert told == {
        "td": "e" * 40,
        "bu": "f" * 40,
        "eval": "e" * 40,
        "ensemble": f"{'e' * 40}+{'f' * 40}",
        "lone": "e" * 40,
        "half": "e" * 40,
        "old": "unknown",
        "with_old": "unknown",
    }
    assert frame["encoder_id"].notna().tolist() == frame["encoder_commit"].notna().tolist()


ODD = [[1], {"a": []}, "x" * 10_000, 10**300, True, "../x"]
PLACES = [
    "run_id",
    "seed",
    "choices",
    "config",
    "dataset",
    "val",
    "test",
    "settings",
    "parameters",
    "seconds",
]
PLACES += ["environment", "finished", "formulas", "encoder", "history", "members", "dataset.levels"]
PLACES += ["dataset.name", "dataset.files", "choices.film", "config.film", "config.seed", "test.single"]
PLACES += ["test.single.overall", "test.single.per_level", "test.single.overall.micro_f1", "seconds.train"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "ensemble"])
def test_results_with_odd_values_never_spoil_the_others(kind: str, tmp_path: Path) -> None:
    made_results.write(tmp_path, "good", made_results.result(seed=1))
    td, bu = (made_results.result(method, seed=2) for method in ("top_down", "bottom_up"))
    sound = json.dumps(td if kind == "run" else made_results.ensemble(td, bu))
    for place in PLACES:
        *above, last = place.split(".")
        for number, value in enumerate([*ODD, None]):
            odd = json.loads(sound)
            inner = odd
            for name in above:
                inner = inner.get(name, {})
            inner[last] = value
            made_results.write(tmp_path, f"{place}_{number}", odd)
    frame = hblm.results(tmp_path, repeats=True)
    assert str(tmp_path / "results/good.json") in set(frame["file"])
    assert all(isinstance(run_id, str) for run_id in frame["run_id"])
    table, _ = tabulate(frame, Ask())
    assert table.rows
    assert len(why(frame)) > len(PLACES)
    assert all(3 < len(text) < 400 for text in why(frame).values())


@pytest.mark.parametrize("name", ["file", "run_id", "split", "view", "closed", "kind"])
def test_a_setting_or_score_cannot_take_the_place_of_a_column(name: str, tmp_path: Path) -> None:
    good = made_results.result(seed=1)
    made_results.write(tmp_path, "good", good)
    scored = made_results.result(seed=2)
    scored["test"]["single"]["overall"][name] = 0.5
    made_results.write(tmp_path, "scored", scored)
    setting = made_results.result(seed=3)
    setting["config"][name] = "x"
    made_results.write(tmp_path, "setting", setting)
    frame = hblm.results(tmp_path)
    assert frame.columns.is_unique
    assert set(frame["file"].map(lambda file: Path(file).stem)) == {"good", "scored"}
    assert f"a setting has the name of the column {name}" in why(frame)["setting.json"]
