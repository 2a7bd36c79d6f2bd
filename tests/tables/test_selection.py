"""Which of several results of one run count."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import made_results
from made_results import file_names, reasons, small_result

import hblm
from hblm.tables.collect import collect

Write = Callable[..., Path]
NOON = datetime(2026, 11, 26, 12, tzinfo=timezone.utc).timestamp()


def evaluation(**settings: Any) -> dict[str, Any]:
    """Return the result of an evaluation of the run `record` is of."""
    return {
        **small_result("evaluation", settings={"split": "test", "threshold": 0.5, **settings}),
        "val": None,
    }


def test_of_evaluations_with_the_same_settings_the_newest_counts(write: Write, tmp_path: Path) -> None:
    write("results/run.json", small_result(), age=50)
    write("results/eval_1.json", evaluation(), age=30)
    newest = write("results/eval_2.json", evaluation(), age=20)
    other = write("results/eval_3.json", evaluation(threshold=0.4), age=40)
    frame = hblm.results(tmp_path, repeats=True)
    assert set(frame["file"]) == {str(tmp_path / "outputs/results/run.json"), str(newest), str(other)}
    assert set(frame["settings.threshold"].dropna()) == {0.4, 0.5}
    assert reasons(frame) == {"eval_1.json": f"an older result of the same run and settings as {newest}"}


def test_one_run_in_two_places_is_one_result(write: Write, tmp_path: Path) -> None:
    write("a/results/run.json", small_result(), age=9)
    write("b/results/run.json", small_result())
    write("b/results/twin.json", small_result(run_id="b" * 64, seed=2))
    frame = hblm.results(tmp_path / "outputs/a", tmp_path / "outputs/b", tmp_path / "outputs/b")
    assert sorted({Path(file).parent.parent.name for file in frame["file"]}) == ["b"]
    assert set(frame["seed"]) == {1, 2}
    assert list(reasons(frame)) == ["run.json"]


def test_of_two_results_of_a_run_the_later_one_counts_whenever_its_file_was_copied(tmp_path: Path) -> None:
    later = made_results.result(finished="2026-11-26T18:20:31Z")
    earlier = made_results.result(finished="2026-11-26T18:20:30Z")
    made_results.write(tmp_path / "a", "later", later, changed=NOON)
    made_results.write(tmp_path / "b", "earlier", earlier, changed=NOON + 86400)
    frame = hblm.results(tmp_path)
    assert file_names(frame) == {"later"}
    assert reasons(frame)["earlier.json"].startswith("an older result of the same run and settings as")


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
    assert file_names(frame) == {"run", "eval_fresh", "eval_same_training", "eval_without_run"}
    assert reasons(frame) == {"eval_stale.json": f"of another training than {tmp_path / 'results/run.json'}"}


def test_an_evaluation_of_the_first_version_is_as_old_as_its_file(tmp_path: Path) -> None:
    run = made_results.result()
    for name, of, changed in (
        ("old", made_results.of_first_version(run), NOON - 2),
        ("new", made_results.of_first_version(run), NOON + 2),
    ):
        evaluation = made_results.evaluation(of, threshold=0.3 if name == "old" else 0.4)
        made_results.write(tmp_path, f"eval_{name}", evaluation, changed=changed)
    made_results.write(tmp_path, "run", made_results.of_first_version(run), changed=NOON)
    assert file_names(collect([tmp_path])) == {"run", "eval_new"}
    # the run made again by this version, at 18:20:31
    made_results.write(tmp_path, "run", run, changed=NOON - 86400)
    assert file_names(collect([tmp_path])) == {"run"}


def test_an_ensemble_is_of_both_models_trainings(tmp_path: Path) -> None:
    td, bu = made_results.result("top_down"), made_results.result("bottom_up")
    for name, run in (("td", td), ("bu", bu)):
        made_results.write(tmp_path, name, run)
    made_results.write(tmp_path, "ensemble", made_results.ensemble(td, bu | {"training": "earlier"}))
    frame = collect([tmp_path])
    assert file_names(frame) == {"td", "bu"}
    assert reasons(frame)["ensemble.json"] == f"of another training than {tmp_path / 'results/bu.json'}"
    made_results.write(tmp_path, "ensemble", made_results.ensemble(td, bu))
    assert file_names(collect([tmp_path])) == {"td", "bu", "ensemble"}


def test_an_ensemble_of_the_first_version_is_as_old_as_either_model(tmp_path: Path) -> None:
    td, bu = (made_results.of_first_version(made_results.result(way)) for way in ("top_down", "bottom_up"))
    made_results.write(tmp_path, "td", td, changed=NOON)
    made_results.write(tmp_path, "bu", bu, changed=NOON + 10)
    for changed, counts in ((NOON + 5, False), (NOON + 15, True)):
        made_results.write(tmp_path, "ensemble", made_results.ensemble(td, bu), changed=changed)
        assert ("ensemble" in file_names(collect([tmp_path]))) == counts


def test_of_evaluations_with_the_same_settings_those_with_predictions_count(tmp_path: Path) -> None:
    run = made_results.result()
    made_results.write(tmp_path, "run", run)
    for day, predictions in ((27, {"path": "/x"}), (28, {"path": "/x"}), (29, None)):
        evaluation = made_results.evaluation(run, finished=f"2026-11-{day}T00:00:00Z")
        made_results.write(tmp_path, f"eval_{day}", {**evaluation, "predictions": predictions})
    frame = collect([tmp_path])
    assert file_names(frame) == {"run", "eval_28"}
    assert dict(zip(frame["kind"], frame["predictions"], strict=True)) == {
        "single": False,
        "evaluation": True,
    }
    why = reasons(frame)
    assert why["eval_27.json"].startswith("an older result of the same run")
    assert why["eval_29.json"].startswith("a result without predictions of the same run")


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
    assert file_names(frame) == {"flat", "strict", "tri", "old", *others}
    assert reasons(frame) == {
        f"again_{name}.json": f"repeats {tmp_path / 'results' / name}.json; repeats=True keeps it"
        for name in repeats
    }
    everything = hblm.results(tmp_path, repeats=True)
    assert len(file_names(everything)) == 13
    assert reasons(everything) == {}
