"""The program `aggregate`: from result files to the files of a table."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import made_results
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score

from hblm import aggregate
from hblm.config.aggregate import AggregateConfig
from hblm.errors import HblmError
from hblm.tables import report
from hblm.tables.documents import predictions_of

FORMATS = (".md", ".csv", ".tex", ".html", ".comparisons.csv")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(**options: Any) -> None:
    """Run the body of the program; the command line takes longer than all the rest."""
    report.run(AggregateConfig(**{"results": ["in"], "output_dir": "out", **options}))


def refusal(**options: Any) -> str:
    """Return the error of a run, which writes nothing."""
    with pytest.raises(HblmError) as error:
        run(**options)
    assert not Path("out").exists()
    return str(error.value)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


EVERYTHING = ["figures=all", "frame=[parquet,csv]", "interval=bootstrap", "compare=[flat,dual]"]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the results of a grid, `in`, and the files that another process makes, `out`."""
    folder = tmp_path_factory.mktemp("everything")
    made_results.write_grid(folder / "in", {"flat": 0, "dual": 0.02}, ("wos",), (1, 2, 3, 4, 5, 6))
    before = bytes_below(folder / "in/results")
    argv = [f"results={folder / 'in'}", f"output_dir={folder / 'out'}", "metric=test.macro_f1", *EVERYTHING]
    subprocess.run([sys.executable, "-m", "hblm.aggregate", *argv], check=True, capture_output=True)
    assert bytes_below(folder / "in/results") == before, "results are left as they were"
    return folder


def test_a_grid_to_every_format(everything: Path) -> None:
    folder = everything / "out/tables"
    assert all((folder / f"table{suffix}").is_file() for suffix in FORMATS)
    pictures = {path.name.split(".")[1] for path in folder.glob("table.*.svg")}
    assert pictures == {"seeds", "levels", "frequency", "curves"}, "too few datasets for ranks"
    assert {path.stem for path in folder.glob("*.svg")} == {path.stem for path in folder.glob("*.png")}
    dual = next(row for row in rows_of(folder / "table.csv") if row["method"] == "dual")
    assert (dual["dataset"], dual["n"], dual["standing"]) == ("wos", "6", "best")
    frame = pd.read_parquet(folder / "table.results.parquet")
    assert len(frame) == len(pd.read_csv(folder / "table.results.csv")) == 6 * (4 + 12)
    assert {"val", "test"} == set(frame["split"])


@pytest.mark.slow
def test_the_same_scores_make_the_same_bytes_in_another_process(everything: Path) -> None:
    """Whatever results have besides: notes, and keys of a later version."""
    before = bytes_below(everything / "out/tables")
    assert len(before) > 12
    more = {"notes": [{"what": "stopped_early", "epoch": 2, "text": "stopped"}], "later": {"of": [None]}}
    for path in (everything / "in/results").iterdir():
        path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    run(
        results=[str(everything / "in")],
        output_dir=str(everything / "again"),
        metric=["test.macro_f1"],
        figures=["all"],
        frame=["parquet", "csv"],
        interval="bootstrap",
        compare=["flat", "dual"],
    )
    assert bytes_below(everything / "again/tables") == before


def test_the_terminal_shows_the_table_and_what_was_passed_over(
    here: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    made_results.write(here / "in", "a", made_results.result("flat"))
    (here / "in/results/cut.json").write_text("{")
    run()
    assert "passed over in/results/cut.json: not valid JSON" in caplog.text
    assert "flat" in capsys.readouterr().out


def test_published_figures_are_added_where_the_labels_are_the_same(here: Path) -> None:
    made_results.write_grid(here / "in", {"flat": 0}, ("wos", "aapd"), (1, 2))
    run()
    theirs = [row for row in rows_of(here / "out/tables/table.csv") if row["ours"] == "false"]
    hpt = next(row for row in theirs if row["method"] == "HPT" and row["metric"].endswith("micro_f1"))
    assert (float(hpt["mean"]), hpt["dataset"]) == (pytest.approx(0.8716), "wos")
    assert hpt["source"] == "HPT Table 1; encoder: BERT-base"
    assert {row["dataset"] for row in theirs} == {"wos"}
    assert any("not comparable with" in row["source"] for row in theirs)
    run(published=False, name="bare")
    assert all(row["ours"] == "true" for row in rows_of(here / "out/tables/bare.csv"))
    run(metric=["val.macro_f1"], name="val")
    assert all(row["ours"] == "true" for row in rows_of(here / "out/tables/val.csv")), "published is test"


def test_no_published_figure_beside_another_label_set(here: Path) -> None:
    made_results.write(here / "in", "a", made_results.result(levels=[7, 145]))
    run()
    assert all(row["ours"] == "true" for row in rows_of(here / "out/tables/table.csv"))


SWEEP = """
sweep:
  table: {rows: [method], columns: [dataset], metric: [test.fused.macro_f1]}
  expect:
    - {dataset: wos, method: flat, metric: test.fused.macro_f1, mean: 79.07, std: 0.3, runs: 5,
       encoder: BERT-base, source: a paper}
"""


def test_a_sweep_file_gives_table_and_expectations(here: Path) -> None:
    made_results.write_grid(here / "in", {"flat": 0}, ("wos",), (1, 2))
    (here / "main.yaml").write_text(SWEEP)
    run(sweep="main.yaml", published=False, metric=["test.macro_f1"])  # the same metric in other words
    ours, theirs = rows_of(here / "out/tables/main.csv")
    assert (ours["metric"], ours["method"]) == ("test.macro_f1", "flat")
    assert (theirs["method"], float(theirs["mean"]), theirs["n"]) == ("expected of flat", 0.7907, "5")
    assert float(theirs["std"]) == pytest.approx(0.003)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: 1", "has neither axes"),
        ("sweep: {table: {row: [a]}}", "is not a key; did you mean sweep.table.rows?"),
        ("sweep: {table: {rows: a}}", "sweep.table.rows=a is not a list"),
        ("sweep: {expect: 3}", "sweep.expect=3 is not a list"),
        ("sweep: {expect: [{mean: 3, source: x}]}", "sweep.expect, entry 1 has no metric"),
        ("sweep: {expect: [{metric: test.macro_f1, mean: x, source: x}]}", "mean=x is not a number"),
        (
            "sweep: {expect: [{metric: test.macro_f1, mean: 1, source: x, metod: y}]}",
            "has no key metod; did you mean method",
        ),
        ("sweep: [", "cannot be read"),
    ],
)
def test_a_sweep_file_with_something_else(here: Path, text: str, why: str) -> None:
    made_results.write(here / "in", "a", made_results.result())
    (here / "s.yaml").write_text(text)
    assert why in refusal(sweep="s.yaml")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"rows": ["metod"]}, "did you mean method"),
        ({"compare": ["flat", "dual"]}, "compare=dual: no row has that label"),
        ({"sweep": "none_such"}, "sweep=none_such is no sweep file"),
        ({"results": ["nowhere"]}, "nowhere: no such file or folder"),
    ],
)
def test_what_the_results_do_not_have_is_refused(here: Path, options: dict[str, Any], why: str) -> None:
    made_results.write(here / "in", "a", made_results.result("flat"))
    assert why in refusal(**options)


@pytest.mark.parametrize(
    ("argv", "messages"),
    [
        (
            ["where=[method]", "compare=[flat]", "name=a/b"],
            ["where=[method] is not of the form key:value", "compare= names 1 rows", "cannot name a file"],
        ),
        (
            ["figures=pies", "alpha=0", "metrics=test.macro_f1"],
            ["figures=pies holds pies, which is not one of", "alpha=0", "did you mean metric"],
        ),
        (["results=nowhere"], ["nowhere: no such file or folder"]),
    ],
)
def test_the_program_prints_all_faults_and_exits_with_2(
    here: Path, capsys: pytest.CaptureFixture[str], argv: list[str], messages: list[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        aggregate.main(["output_dir=out", *argv])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert all(message in error for message in messages)
    assert "Traceback" not in error
    assert not (here / "out").exists()


def test_a_folder_without_results(here: Path) -> None:
    (here / "in").mkdir()
    assert refusal() == "no results in in"


def test_results_without_the_metric(here: Path) -> None:
    made_results.write(here / "in", "a", made_results.result("flat"))
    assert refusal(metric=["test.mix.macro_f1"]) == "none of 1 result in in has test.mix.macro_f1"


def explained(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_one_difference_in_words_and_numbers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, macro in enumerate((0.70, 0.71, 0.72, 0.73, 0.75), start=1):
        made_results.write(here / "in", f"f{seed}", made_results.result("flat", seed, macro=macro))
        better = made_results.result("top_down", seed, macro=macro + 0.01 * seed, commit="d" * 40)
        made_results.write(here / "in", f"t{seed}", better)
    run(compare=["flat", "top_down"], metric=["test.macro_f1"])
    output = explained(capsys)
    assert "Over 5 shared seeds the difference is +3.00 points [95 % interval +1.04, +4.96]" in output
    assert "top_down is better with 5 of 5" in output
    assert "p = 0.0625, the smallest that 5 seeds can give; 6 seeds could reach 0.05" in output
    assert "Cohen's d_z 1.90" in output
    assert "Over documents: not all of these runs have predictions of these views" in output
    assert "Difference of test macro-F1 by level: 0: +3.00; 1: +3.00." in output
    assert "method flat / top_down" in output
    assert "film none / sigmoid" in output
    assert "loss." not in output, "flat has the loss of the others"
    assert "encoder.project_embedding false / true" in output
    assert "commit cccccccccc / dddddddddd" in output


@pytest.mark.parametrize(
    ("seeds", "test"),
    [
        (14, "Exact paired permutation test over seeds: p < 0.001, the smallest that 14 seeds can give. "),
        (
            15,
            "Paired permutation test over seeds with 20,000 drawn permutations: p < 0.001, the smallest that "
            "20,000 permutations can give. ",
        ),
    ],
)
def test_a_difference_of_many_seeds_is_not_called_exact(
    here: Path, capsys: pytest.CaptureFixture[str], seeds: int, test: str
) -> None:
    for seed in range(1, seeds + 1):
        for method, micro in (("flat", 0.7), ("top_down", 0.6 + seed / 1000)):
            made_results.write(here / "in", f"{method}{seed}", made_results.result(method, seed, micro=micro))
    run(compare=["flat", "top_down"], metric=["test.micro_f1"])
    output = explained(capsys)
    assert f"top_down is better with 0 of {seeds}. {test}" in output


def test_every_caption_starts_with_the_lack_of_seeds(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_results.write_grid(here / "in", {"flat": 0, "top_down": 0.1, "dual": 0.2}, ("wos",), (1, 2, 3, 4, 5))
    run(published=False)
    output = explained(capsys)
    assert 0 < output.index("No difference in this table can be significant") < output.index("Mean ±")
    folder = here / "out/tables"
    assert "**Results**\n\nNo difference in this table" in (folder / "table.md").read_text()
    assert r"\caption{Results. No difference in this table" in (folder / "table.tex").read_text()
    assert '<p class="caption">No difference in this table' in (folder / "table.html").read_text()
    run(published=False, test="none", name="untested")
    assert "can be significant" not in explained(capsys)
    assert not (folder / "untested.comparisons.csv").exists()


def write_predictions(result: Path, right: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Write an evaluation's predictions for 40 documents and 4 nodes; return targets and predictions."""
    target = np.random.default_rng(0).random((40, 4)) < 0.5
    target[~target.any(axis=1), 0] = True
    predicted = np.where(np.random.default_rng(seed).random(target.shape) < right, target, ~target)
    documents, nodes = np.nonzero(target | predicted)
    folder = predictions_of(result) / "view=single"
    folder.mkdir(parents=True)
    ids = pa.array([f"n{at}" for at in range(4)])
    table = {
        "document": pa.array([f"d{at}" for at in documents]),
        "node": pa.DictionaryArray.from_arrays(pa.array(nodes, pa.int32()), ids),
        "score": np.ones(len(nodes), np.float32),
        "predicted": predicted[documents, nodes],
        "target": target[documents, nodes],
    }
    pq.write_table(pa.table(table), folder / "part-00000.parquet")
    return target, predicted


def test_a_difference_over_documents(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    means = {}
    for method, right in (("flat", 0.6), ("top_down", 0.95)):
        scores = []
        for seed in (1, 2):
            of = made_results.result(method, seed, "wos", levels=[1, 3])
            made_results.write(here / "in", f"{method}{seed}", of)
            name = f"eval_{method}{seed}"
            path = made_results.write(here / "in", name, made_results.evaluation(of))
            scores.append(f1_score(*write_predictions(path, right, seed), average="macro"))
        means[method] = np.mean(scores)
    run(compare=["flat", "top_down"], metric=["test.macro_f1"], test="documents")
    output = explained(capsys)
    difference = 100 * (means["top_down"] - means["flat"])
    assert f"Over 40 documents, mean of 2 seeds: {difference:+.2f} points" in output
    assert "paired bootstrap p < 0.001, approximate randomisation p < 0.001" in output
    assert "(approximate randomisation over documents, p ≤ 0.05, adjusted over all pairs" in output
    (test,) = rows_of(here / "out/tables/table.comparisons.csv")
    assert (test["test"], test["n"]) == ("approximate randomisation over documents", "40")


@pytest.mark.parametrize(
    ("metric", "seed", "why"),
    [
        ("test.macro_f1", 1, "not all of these runs have predictions (predictions=true)"),
        ("test.macro_f1", 2, "no seed is shared"),
        ("test.repath.macro_f1", 1, "test.repath.macro_f1 cannot be computed from predictions"),
        ("test.exact_match", 1, "test.exact_match cannot be computed from predictions"),
        ("seconds.train", 1, "seconds.train cannot be computed from predictions"),
    ],
)
def test_why_there_is_no_test_over_documents(
    here: Path, capsys: pytest.CaptureFixture[str], metric: str, seed: int, why: str
) -> None:
    made_results.write(here / "in", "flat", made_results.result("flat", 1))
    made_results.write(here / "in", "dual", made_results.result("dual", seed))
    run(test="documents", metric=[f"{metric}"])
    assert f"Pairs of rows without a test over documents: {why}." in explained(capsys)
    (test,) = rows_of(here / "out/tables/table.comparisons.csv")
    assert (test["p"], test["n"], test["why"]) == ("", "0", why)
    assert f"no test: {why}" in (here / "out/tables/table.html").read_text()


def test_what_the_runs_were_made_with_is_compared(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu = {"precision": "bf16", "processes": 2, "device_kind": "cuda", "device": "NVIDIA H100"}
    other = {"model_name": "a", "revision": None, "commit": "f" * 40}
    flat, dual = made_results.result("flat"), made_results.result("dual", encoder=other, made_with=gpu)
    made_results.write(here / "in", "flat", flat)
    made_results.write(here / "in", "dual", dual)
    run(compare=["flat", "dual"])
    output = explained(capsys)
    assert "; precision fp32 / bf16; processes 1 / 2; device_kind cpu / cuda." in output
    assert f"encoder_commit {'e' * 40} / {'f' * 40}" in output
    # version 0.1 recorded neither processes nor the encoder: these are not known to differ
    made_results.write(here / "in", "flat", made_results.of_first_version(flat))
    run(compare=["flat", "dual"])
    output = explained(capsys)
    assert "formulas 1 / 2; " in output
    assert "; precision fp32 / bf16; device_kind cpu / cuda." in output
    assert "encoder_commit" not in output


def test_predictions_for_other_documents_are_refused(here: Path) -> None:
    for method in ("flat", "top_down"):
        of = made_results.result(method, 1, levels=[1, 3])
        path = made_results.write(here / "in", f"eval_{method}", made_results.evaluation(of))
        write_predictions(path, 0.9, 1)
    part = next(predictions_of(path).rglob("*.parquet"))
    table = pq.read_table(part, partitioning=None)
    pq.write_table(table.slice(5), part)
    error = refusal(compare=["flat", "top_down"], metric=["test.macro_f1"])
    assert "other documents or labels than" in error


@pytest.mark.slow
def test_two_thousand_results_with_every_fault(here: Path) -> None:
    """Nothing is averaged but seeds of one setting, on one version of one dataset; every fault has a note."""
    chance = random.Random(3)
    names = ("wos", "<script>x</script>", r"\input{a}_%&", "a|b\n# c", "\x1b[31m")
    expected: dict[tuple[str, ...], dict[str, float]] = {}
    data_of: dict[str, set[str]] = {}
    n_written = 0
    while n_written < 2000:
        for method in ("flat", "top_down", "bottom_up", "dual", "tri_head_diffcat"):
            for seed in range(1, 16):
                dataset, data = chance.choice(names), chance.choice("aaaab")
                scale, commit = chance.choice((0.1, 0.2)), chance.choice("xy") * 40
                made = made_results.result(
                    *(method, seed, dataset),
                    macro=chance.random(),
                    data=data,
                    levels=[2, 3],
                    commit=commit,
                    film__film_scale=0.2 if method == "flat" else scale,
                )
                n_written += 1
                made_results.write(here / "in", f"r{n_written:05}", made)
                at = "–" if method == "flat" else f"{scale:g}"
                key = (method, at, dataset, made["dataset"]["fingerprint"])
                expected.setdefault(key, {})[str(seed)] = made["test"][next(iter(made["test"]))]["overall"][
                    "macro_f1"
                ]
                data_of.setdefault(dataset, set()).add(made["dataset"]["fingerprint"])
    (here / "in/results/broken.json").write_text('{"schema_version": 1')
    run(metric=["test.macro_f1"])
    rows = {}
    for row in rows_of(here / "out/tables/table.csv"):
        if row["ours"] == "true" and row["n"] != "0":
            name, _, version = row["dataset"].partition(" (data ")
            (full,) = [data for data in data_of[name] if data.startswith(version.rstrip(")"))]
            rows[row["method"], row["film.film_scale"], name, full] = row
    assert rows.keys() == expected.keys()
    for key, values in expected.items():
        row = rows[key]
        assert set(row["seeds"].split()) == values.keys()
        assert float(row["mean"]) == pytest.approx(np.mean(list(values.values())))
        assert "2 versions of the prepared files" in row["notes"]
    html = (here / "out/tables/table.html").read_text()
    assert html.count("<script>") == 1
    assert "\x1b" not in html


def test_settings_of_any_type_go_into_the_frame(here: Path) -> None:
    made: list[dict[str, Any]] = [
        made_results.result("top_down", 1),
        made_results.result("top_down", 2, trainer__head_learning_rate=0.1, encoder__revision="v1"),
    ]
    together = made_results.ensemble(*made, ensemble_weight_search={"tried": [1]})
    for at, one in enumerate((*made, together)):
        made_results.write(here / "in", f"r{at}", one)
    run(frame=["parquet", "csv"])
    frame = pd.read_parquet(here / "out/tables/table.results.parquet")
    assert {"1", "2", "1+2"} == set(frame["seed"])
