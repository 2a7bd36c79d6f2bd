"""Results as a tidy table: its rows and columns."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Callable
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import made_results
import pytest
from made_results import small_result, small_view

import hblm
from hblm.tables.collect import collect

README = Path(__file__).parents[2] / "README.md"
Write = Callable[..., Path]


def test_a_result_has_a_row_for_each_split_and_way_of_scoring(write: Write, tmp_path: Path) -> None:
    path = write("results/a.json", small_result())
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


def test_capped_predictions_have_rows_where_a_result_has_their_scores(write: Write, tmp_path: Path) -> None:
    cap = {"overall": {**made_results.SCORES, "micro_f1": 0.79}, "per_level": []}
    write("results/new.json", small_result(val=None, test={"single": small_view(cap=cap)}))
    write("results/old.json", small_result(run_id="b" * 64, val=None))
    frame = hblm.results(tmp_path)
    assert [
        (Path(row.file).stem, row.consistency, row.closed, row.micro_f1) for row in frame.itertuples()
    ] == [
        ("new", "none", False, 0.8),
        ("new", "raise", True, 0.81),
        ("new", "cap", True, 0.79),
        ("old", "none", False, 0.8),
        ("old", "raise", True, 0.81),
    ]


def test_methods_and_keys_are_columns(tmp_path: Path) -> None:
    methods = ("flat", "top_down", "bottom_up", "dual", "tri_head_diffcat")
    for method in methods:
        made_results.write(tmp_path, method, made_results.result(method))
    apart = made_results.result("top_down", film__propagation_method="none")
    made_results.write(tmp_path, "independent", apart)
    frame = hblm.results(tmp_path)
    methods_of = {
        Path(file).stem: method for file, method in zip(frame["file"], frame["method"], strict=True)
    }
    assert methods_of == {**{method: method for method in methods}, "independent": "independent"}
    assert not frame.columns.duplicated().any()
    assert set(frame.attrs["keys"]) <= set(frame.columns)
    assert {"method", "film", "film.film_scale", "trainer.epochs", "seed"} <= set(frame.attrs["keys"])


def test_a_joint_result_has_rows_for_its_views(write: Write, tmp_path: Path) -> None:
    write(
        "results/a.json",
        small_result("joint", test={"fused": small_view(0.9), "td": small_view(0.6)}, val=None),
    )
    frame = hblm.results(tmp_path)
    rows = frame[~frame["closed"]]
    assert dict(zip(rows["view"], rows["micro_f1"], strict=True)) == {"fused": 0.9, "td": 0.6}


def test_an_ensemble_has_the_options_that_its_members_share(write: Write, tmp_path: Path) -> None:
    members = {"td": small_result(run_id="1" * 64), "bu": small_result(run_id="2" * 64)}
    members["bu"]["choices"] = {**members["bu"]["choices"], "direction": "bottom_up"}
    made = {**small_result("ensemble", settings={"split": "test"}), "members": members, "val": None}
    del made["choices"], made["config"], made["seed"]
    write("results/e.json", made)
    row = hblm.results(tmp_path).iloc[0]
    assert (row["film"], row["direction"], row["seed"]) == ("sigmoid", "top_down+bottom_up", 1)
    assert row["run_id"] == f"{'1' * 64}+{'2' * 64}"


def test_the_order_of_rows_is_that_of_the_files(write: Write, tmp_path: Path) -> None:
    for name, seed in (("c", 3), ("a", 1), ("b", 2)):
        write(f"results/{name}.json", small_result(run_id=name * 64, seed=seed))
    assert hblm.results(tmp_path)["seed"].drop_duplicates().tolist() == [1, 2, 3]


def test_the_package_has_nothing_else_of_that_kind() -> None:
    with pytest.raises(AttributeError, match="no attribute 'reslts'"):
        hblm.reslts  # noqa: B018 (the name is what is tried)


NOON = datetime(2026, 11, 26, 12, tzinfo=timezone.utc).timestamp()


def test_a_result_has_columns_for_how_it_was_made(tmp_path: Path) -> None:
    made_with = {"device": "NVIDIA H100", "device_kind": "cuda", "processes": 2, "precision": "bf16"}
    made_results.write(tmp_path, "a", made_results.result(made_with=made_with))
    row = hblm.results(tmp_path).iloc[0]
    assert (row["formulas"], row["finished"]) == (2, made_results.FINISHED)
    assert {name: row[name] for name in made_with} == made_with
    text = json.dumps(made_results.ENCODER, sort_keys=True, separators=(",", ":"))
    assert (row["encoder_commit"], row["encoder_id"]) == ("e" * 40, sha256(text.encode()).hexdigest()[:8])


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


def test_the_readmes_means_are_over_runs(tmp_path: Path) -> None:
    for seed, macro in ((1, 0.5), (2, 0.7)):
        run = made_results.result("flat", seed, macro=macro)
        made_results.write(tmp_path, f"run{seed}", run)
        if seed == 2:  # three times as heavy as the other, were it counted each time
            for view in ("single", "all"):
                made_results.write(tmp_path, f"eval_{view}", made_results.evaluation(run, view=view))
    text = README.read_text(encoding="utf-8")
    (snippet,) = re.findall(r"\n(    import hblm\n(?:    .*\n)+)", text)
    names: dict[str, Any] = {}
    exec(textwrap.dedent(snippet).replace('"outputs"', repr(str(tmp_path))), names)
    (row,) = names["frame"].groupby("method")["macro_f1"].agg(["mean", "count"]).values.tolist()
    assert row == [pytest.approx(0.6), 2]


def test_the_training_threshold_is_a_key_of_its_own(tmp_path: Path) -> None:
    run = made_results.result(threshold=0.4)
    made_results.write(tmp_path, "run", run)
    made_results.write(tmp_path, "eval", made_results.evaluation(run, threshold=0.3))
    frame = hblm.results(tmp_path)
    rows = frame[["kind", "threshold", "training_threshold"]].drop_duplicates().values.tolist()
    assert ["evaluation", 0.3, 0.4] in rows
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
    commit_of = {Path(file).stem: commit for file, commit in zip(frame["file"], commits, strict=True)}
    assert commit_of == {
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
