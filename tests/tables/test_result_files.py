"""Result files: which are read, which are passed over, and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import made_results
import pytest
from made_results import reasons, small_result, small_view

import hblm
from hblm.errors import DataError
from hblm.tables.pivot import tabulate
from hblm.tables.query import TableQuery

Write = Callable[..., Path]


def test_files_that_are_no_results_are_named_and_never_fatal(write: Write, tmp_path: Path) -> None:
    write("results/good.json", small_result())
    write("results/cut.json", json.dumps(small_result("single", "b" * 64))[:-40])
    write("results/list.json", [1])
    write("results/other.json", {"a": 1})
    write("results/running.json", small_result(run_id="d" * 64, status="running"))
    write("results/newer.json", {**small_result(), "schema_version": 2})
    write("results/strange.json", small_result("poem"))
    write("results/bare.json", {"schema_version": 1, "kind": "single", "run_id": "x", "status": "done"})
    write("results/empty.json", small_result(run_id="e" * 64, val=None, test={}))
    write("results/text.json", small_result(run_id="9" * 64, test={"single": small_view(), "x": "no"}))
    frame = hblm.results(tmp_path)
    assert set(frame["file"]) == {str(tmp_path / "outputs/results/good.json")}
    assert {name: reason.partition(":")[0] for name, reason in reasons(frame).items()} == {
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
        write(f"{folder}/a.json", small_result())
    write("results/.a.json.tmp", small_result())
    write("results/.a.json", small_result())
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
def test_files_of_checkpoints_datasets_and_ledgers_are_not_listed(
    write: Write, tmp_path: Path, name: str
) -> None:
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
    write("results/good.json", small_result())
    write("config.json", "{}")  # of whatever else lies there
    frame = hblm.results(tmp_path)
    assert (set(frame["kind"]), frame.attrs["passed_over"]) == ({"single"}, [])
    write("results/cut.json", "{")
    assert [*reasons(hblm.results(tmp_path))] == ["cut.json"]


def test_a_single_file_is_a_place(write: Write) -> None:
    assert len(hblm.results(write("results/a.json", small_result()))) == 4


def test_a_place_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file or folder of results"):
        hblm.results(tmp_path / "nowhere")


def test_a_result_with_an_invalid_time_is_passed_over(tmp_path: Path) -> None:
    made_results.write(tmp_path, "a", made_results.result(finished="yesterday"))
    assert "yesterday" in reasons(hblm.results(tmp_path))["a.json"]


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
    table, _ = tabulate(frame, TableQuery())
    assert table.rows
    assert len(reasons(frame)) > len(PLACES)
    assert all(3 < len(text) < 400 for text in reasons(frame).values())


@pytest.mark.parametrize(
    "name", ["file", "run_id", "split", "view", "closed", "consistency", "kind", "trained_on"]
)
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
    assert f"a setting has the name of the column {name}" in reasons(frame)["setting.json"]
