"""Tables worked out by hand, and what must never be averaged over in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_results
import pytest

from hblm.errors import ConfigError, DataError
from hblm.tables.collect import collect
from hblm.tables.comparisons import judge, rank_over_datasets
from hblm.tables.metric import metric_of
from hblm.tables.pivot import Ask, tabulate
from hblm.tables.table import Cell, Table

MACRO = ("test.fused.macro_f1",)


@pytest.fixture
def add(tmp_path: Path):
    """Return a function that writes one run."""

    def write(name: str, method: str = "top_down", seed: int = 1, dataset: str = "wos", **more: Any) -> dict:
        made = made_results.result(method, seed, dataset, **more)
        made_results.write(tmp_path, name, made)
        return made

    return write


def table(folder: Path, **ask: Any) -> Table:
    return tabulate(collect([folder]), Ask(**{"metrics": MACRO, **ask}))[0]


def cell(found: Table, row: str, column: str = "wos") -> Cell | None:
    (at_row,) = [one for one in found.rows if one.text == row]
    (at_column,) = [one for one in found.columns if " ".join(one.labels) == column]
    return found.cells.get((at_row, at_column))


def notes(found: Table, one: Cell | None = None) -> list[str]:
    """Return the texts of notes, of a cell or on the whole table."""
    marks = [""] if one is None else one.marks
    return [note.text for note in found.notes if note.mark in marks]


def test_a_table_by_hand(tmp_path: Path, add: Any) -> None:
    for seed, macro in ((1, 0.70), (2, 0.72), (3, 0.77)):
        add(f"a{seed}", "flat", seed, macro=macro)
        add(f"b{seed}", "dual", seed, macro=macro + 0.01)
    found = table(tmp_path)
    assert [row.text for row in found.rows] == ["flat", "dual"]
    flat = cell(found, "flat")
    assert flat is not None
    # mean 0.73, deviations -0.03, -0.01, 0.04: s = sqrt(0.0026 / 2); t_2 = 4.30265
    assert (flat.mean, flat.std) == pytest.approx((0.73, 0.0360555))
    assert (flat.low, flat.high) == pytest.approx((0.73 - 0.0895672, 0.73 + 0.0895672), abs=1e-6)
    assert flat.seeds == ["1", "2", "3"]
    assert found.figure(found.columns[0], flat.mean, flat.std) == "73.00 ± 3.61"
    assert "mean over all nodes of a node's F1" in " ".join(found.caption)
    assert "n = 3" in found.caption[0]
    assert found.notes == []


def test_any_key_makes_rows_and_columns(tmp_path: Path, add: Any) -> None:
    for scale in (0.1, 0.25):
        for dataset in ("wos", "aapd"):
            add(f"{dataset}{scale}", dataset=dataset, film__film_scale=scale, macro=scale, epochs=4)
    found = table(
        tmp_path, rows=["dataset"], columns=["film.film_scale"], metrics=["val.macro_f1", "best_epoch"]
    )
    assert [row.labels for row in found.rows] == [("wos",), ("aapd",)]
    assert [(column.labels, column.metric) for column in found.columns] == [
        (("0.1",), "val.macro_f1"),
        (("0.1",), "best_epoch"),
        (("0.25",), "val.macro_f1"),
        (("0.25",), "best_epoch"),
    ]
    means = [found.cells[found.rows[1], column].mean for column in found.columns]
    assert means == pytest.approx([0.09, 4, 0.24, 4])
    assert [column.percent for column in found.columns] == [True, False, True, False]


def test_what_differs_besides_the_seed_splits_the_row(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, macro=0.6)
    add("b", seed=1, macro=0.8, trainer__learning_rate=1e-4)
    found = table(tmp_path)
    assert found.row_names == ("method", "trainer.learning_rate")
    assert [row.text for row in found.rows] == ["top_down, 3e-05", "top_down, 0.0001"]
    assert [len(one.runs) for one in found.cells.values()] == [1, 1]
    assert any("split by trainer.learning_rate" in text for text in notes(found))


def test_what_does_nothing_in_a_run_does_not_split(tmp_path: Path, add: Any) -> None:
    add("a", "flat", 1, film__film_scale=0.2)
    add("b", "flat", 2, film__film_scale=0.9, direction__cascade_direction="bottom_up")
    found = table(tmp_path, rows=["method", "direction"])
    assert [(row.labels, len(found.cells[row, found.columns[0]].runs)) for row in found.rows] == [
        (("flat", "–"), 2)
    ]


def test_what_cannot_change_numbers_does_not_split(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, device="cpu")
    add("b", seed=2, device="cuda", output_dir="elsewhere")
    assert table(tmp_path).row_names == ("method",)


def test_versions_of_a_dataset_are_never_averaged(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, data="one", macro=0.5)
    add("b", seed=2, data="two", macro=0.9)
    add("c", seed=3, data="three", levels=[7, 138])
    found = table(tmp_path)
    assert len(found.columns) == 3
    assert all(column.labels[0].startswith("wos (data ") for column in found.columns)
    assert sorted(one.mean for one in found.cells.values()) == pytest.approx([0.5, 0.7, 0.9])
    (text,) = {text for one in found.cells.values() for text in notes(found, one) if "versions" in text}
    assert "3 versions" in text
    assert "2 with nodes 7/134" in text
    assert "1 with nodes 7/138" in text


def test_a_dataset_that_is_no_key_becomes_one(tmp_path: Path, add: Any) -> None:
    add("a", dataset="wos")
    add("b", dataset="aapd")
    found = table(tmp_path, columns=[])
    assert found.column_names == ("dataset",)
    assert len(found.cells) == 2


def test_holes_and_missing_seeds_are_told(tmp_path: Path, add: Any) -> None:
    for seed in (1, 2, 3):
        add(f"a{seed}", "flat", seed)
    add("b1", "dual", 1)
    add("c1", "dual", 1, "aapd")
    found = table(tmp_path)
    assert cell(found, "flat", "aapd") is None
    assert any(text.startswith("1 hole") and "flat: aapd" in text for text in notes(found))
    dual = cell(found, "dual")
    assert dual is not None
    assert notes(found, dual) == ["Unequal seeds: seeds 2, 3 of other rows of the column are missing here."]
    flat = cell(found, "flat")
    assert flat is not None
    assert flat.marks == []


def test_commits_and_uncommitted_changes_are_told(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, commit="a" * 40)
    add("b", seed=2, commit="b" * 40, dirty=True)
    add("c", "flat", seed=1, commit=None)
    add("d", "flat", seed=2, commit=None)
    found = table(tmp_path)
    assert notes(found, cell(found, "top_down")) == [
        "Runs of 2 commits: aaaaaaaaaa: seed 1; bbbbbbbbbb: seed 2.",
        "Made with uncommitted changes to the code.",
    ]
    assert notes(found, cell(found, "flat")) == []
    assert any("come from 3 commits: aaaaaaaaaa, bbbbbbbbbb, hblm 0.1.0" in text for text in notes(found))


def test_two_runs_of_one_seed_are_told(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, run_id="1" * 64)
    add("b", seed=1, run_id="2" * 64)
    found = table(tmp_path)
    assert len(cell(found, "top_down").runs) == 2
    assert notes(found, cell(found, "top_down"))[0].startswith("Several runs of seed 1, alike in all keys")


def test_an_evaluation_that_repeats_the_training_counts_once(tmp_path: Path, add: Any) -> None:
    of = add("a", seed=1, macro=0.5)
    again = made_results.evaluation(of, view="all")
    again["test"]["single"]["overall"]["macro_f1"] = 0.51
    made_results.write(tmp_path, "eval_1", again)
    found = table(tmp_path)
    assert [run.value for run in cell(found, "top_down").runs] == [0.51]
    made_results.write(tmp_path, "eval_2", made_results.evaluation(of, threshold=0.3))
    found = table(tmp_path)
    assert [row.text for row in found.rows] == ["top_down, 0.3", "top_down, 0.5"]
    assert found.row_names == ("method", "threshold")


def test_scores_of_other_formulas_are_never_averaged(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, macro=0.6)
    add("b", seed=2, macro=0.7)
    assert table(tmp_path).row_names == ("method",)
    old = made_results.of_first_version(made_results.result(seed=3, macro=0.1))
    made_results.write(tmp_path, "c", old)
    found = table(tmp_path)
    assert found.row_names == ("method", "formulas")
    means = {row.text: found.cells[row, found.columns[0]].mean for row in found.rows}
    assert means == pytest.approx({"top_down, 1": 0.1, "top_down, 2": 0.65})


def test_formulas_split_rows_before_keys_whose_defaults_changed(tmp_path: Path, add: Any) -> None:
    """The default of loss.level_reduction is another one since 0.2: the gap is not the loss's alone."""
    add("new", seed=1)
    old = made_results.result(seed=1, loss__level_reduction="levels")
    made_results.write(tmp_path, "old", made_results.of_first_version(old))
    found = table(tmp_path)
    assert found.row_names == ("method", "formulas")
    assert any("rows were split by formulas:" in note for note in notes(found))


def test_rows_of_other_formulas_have_a_note(tmp_path: Path, add: Any) -> None:
    add("a", "dual")
    made_results.write(tmp_path, "b", made_results.of_first_version(made_results.result("flat")))
    assert "Rows differ in formulas: 1 (flat), 2 (dual)." in notes(table(tmp_path))
    made_results.write(tmp_path, "b", made_results.result("flat"))
    assert notes(table(tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "values"),
    [("precision", ("bf16", "fp32")), ("processes", (1, 2)), ("device_kind", ("cpu", "cuda"))],
)
def test_a_cell_whose_runs_were_made_in_several_ways_has_a_note(
    tmp_path: Path, add: Any, name: str, values: tuple[Any, Any]
) -> None:
    first, second = values
    for seed, value in ((1, first), (2, first), (3, second)):
        add(f"mixed{seed}", "flat", seed, made_with={name: value})
        add(f"even{seed}", "dual", seed, made_with={name: first})
    found = table(tmp_path)
    assert found.row_names == ("method",)
    assert notes(found, cell(found, "flat")) == [
        f"Runs of this cell differ in {name}: {first}: seeds 1, 2; {second}: seed 3."
    ]
    assert notes(found, cell(found, "dual")) == []
    assert notes(found) == [f"Rows differ in {name}: {first} (dual), {first} and {second} (flat)."]
    apart = table(tmp_path, rows=["method", name])
    assert {(row.text, len(apart.cells[row, apart.columns[0]].runs)) for row in apart.rows} == {
        (f"flat, {first}", 2),
        (f"flat, {second}", 1),
        (f"dual, {first}", 3),
    }
    assert not [text for text in notes(apart) if "differ" in text]


def test_a_note_names_the_column_in_which_rows_differ(tmp_path: Path, add: Any) -> None:
    for dataset, precision in (("wos", "fp32"), ("aapd", "bf16")):
        add(f"{dataset}1", "flat", 1, dataset, made_with={"precision": "fp32"})
        add(f"{dataset}2", "dual", 1, dataset, made_with={"precision": precision})
        add(f"{dataset}3", "top_down", 1, dataset, made_with={"precision": "fp32"})
    found = table(tmp_path, metrics=[*MACRO, "test.micro_f1"])
    assert notes(found) == ["Rows differ in precision (aapd): bf16 (dual), fp32 (flat; top_down)."]
    columns_apart = table(tmp_path, where={"method": ["flat", "top_down"]})
    assert notes(columns_apart) == []


def test_what_results_do_not_record_is_not_a_difference(tmp_path: Path) -> None:
    for seed, told in ((1, {}), (2, {"processes": 1})):
        old = made_results.of_first_version(made_results.result(seed=seed), **told)
        made_results.write(tmp_path, f"r{seed}", old)
    found = table(tmp_path)
    assert notes(found) == notes(found, cell(found, "top_down")) == []


def encoder(commit: str | None, **more: Any) -> dict[str, Any]:
    return {**made_results.ENCODER, "commit": commit, **more}


def test_runs_of_two_commits_of_a_hub_model_are_never_averaged(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, macro=0.5, encoder=encoder("a" * 40))
    add("b", seed=2, macro=0.7, encoder=encoder("a" * 40))
    assert table(tmp_path).row_names == ("method",)
    add("c", seed=3, macro=0.9, encoder=encoder("b" * 40))
    found = table(tmp_path)
    assert found.row_names == ("method", "encoder_commit")
    means = {row.text: found.cells[row, found.columns[0]].mean for row in found.rows}
    assert means == pytest.approx({f"top_down, {'a' * 10}": 0.6, f"top_down, {'b' * 10}": 0.9})


def test_runs_of_other_weights_in_one_folder_are_never_averaged(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, run_id="1" * 64, macro=0.5, encoder=encoder(None, weights="a"))
    add("b", seed=1, run_id="2" * 64, macro=0.9, encoder=encoder(None, weights="b"))
    found = table(tmp_path)
    assert found.row_names == ("method", "encoder_id")
    assert sorted(one.mean for one in found.cells.values()) == pytest.approx([0.5, 0.9])
    assert not [note for note in found.notes if note.mark]


def test_an_evaluation_stands_with_the_runs_of_its_encoder(tmp_path: Path, add: Any) -> None:
    of = add("a", seed=1, encoder=encoder("a" * 40))
    made_results.write(tmp_path, "eval_a", made_results.evaluation(of))
    add("b", seed=2, encoder=encoder("a" * 40))
    lone = made_results.result(seed=3, encoder=encoder("a" * 40))
    made_results.write(tmp_path, "eval_b", made_results.evaluation(lone))
    found = table(tmp_path)
    assert found.row_names == ("method",)
    assert len(cell(found, "top_down").runs) == 3
    evaluated = made_results.evaluation(add("c", seed=4, encoder=encoder("b" * 40)))
    made_results.write(tmp_path, "eval_c", evaluated)
    texts = [row.text for row in table(tmp_path).rows]
    assert texts == [f"top_down, {'a' * 10}", f"top_down, {'b' * 10}"]


def test_an_evaluation_of_an_earlier_model_never_beats_the_run(tmp_path: Path, add: Any) -> None:
    of = add("a", seed=1, macro=0.5)
    # made of an earlier training's checkpoint, and written after the later training
    stale = made_results.evaluation(of, finished="2026-11-30T00:00:00Z") | {"training": "earlier"}
    stale["test"]["single"]["overall"]["macro_f1"] = 0.9
    stale["predictions"] = {"path": "/x"}
    made_results.write(tmp_path, "eval_9", stale)
    assert [run.value for run in cell(table(tmp_path), "top_down").runs] == [0.5]
    # two ways to show one measurement: of these the later one counts, whatever their names
    for name, view, finished, macro in (
        ("eval_1", "all", "2026-11-28T00:00:00Z", 0.51),
        ("eval_2", "single", "2026-11-27T00:00:00Z", 0.52),
    ):
        again = made_results.evaluation(of, view=view, finished=finished)
        again["test"]["single"]["overall"]["macro_f1"] = macro
        made_results.write(tmp_path, name, again)
    assert [run.value for run in cell(table(tmp_path), "top_down").runs] == [0.51]
    made_results.write(tmp_path, "eval_2", {**again, "predictions": {"path": "/x"}})
    assert [run.value for run in cell(table(tmp_path), "top_down").runs] == [0.52]


def test_runs_trained_at_other_thresholds_are_never_averaged(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, macro=0.5)
    of = made_results.result(seed=2, macro=0.9, threshold=0.4)
    made_results.write(tmp_path, "eval_b", made_results.evaluation(of, threshold=0.5))
    found = table(tmp_path)
    assert found.row_names == ("method", "training_threshold")
    means = {row.text: found.cells[row, found.columns[0]].mean for row in found.rows}
    assert means == pytest.approx({"top_down, 0.4": 0.9, "top_down, 0.5": 0.5})


def test_a_threshold_of_training_and_scoring_is_one_key(tmp_path: Path, add: Any) -> None:
    add("a", seed=1)
    made = add("b", seed=2, threshold=0.4)
    for view in made["test"].values():
        view["threshold"] = 0.4
    made_results.write(tmp_path, "b", made)
    assert table(tmp_path).row_names == ("method", "threshold")
    assert table(tmp_path, rows=["method", "training_threshold"]).row_names == (
        "method",
        "training_threshold",
    )


def test_a_metric_without_results_leaves_the_others(tmp_path: Path, add: Any) -> None:
    add("a")
    found = table(tmp_path, rows=[], columns=[], metrics=["test.mix.macro_f1", *MACRO])
    assert [column.metric for column in found.columns] == list(MACRO)


def test_the_fused_view_of_a_single_model_is_its_own(tmp_path: Path, add: Any) -> None:
    add("a", "flat")
    add("b", "dual")
    assert len(table(tmp_path).rows) == 2
    assert [row.text for row in table(tmp_path, metrics=["test.td.macro_f1"]).rows] == ["dual"]
    assert "the fused view" in " ".join(table(tmp_path).caption)


def test_where_keeps_what_it_names(tmp_path: Path, add: Any) -> None:
    for method in ("flat", "dual", "top_down"):
        add(method, method)
    assert [row.text for row in table(tmp_path, where={"method": ["flat", "dual"]}).rows] == ["flat", "dual"]
    with pytest.raises(ConfigError, match=r"where=\[method:duall\].*did you mean dual"):
        table(tmp_path, where={"method": ["duall"]})


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        ({"rows": ["metod"]}, r"rows=\[metod\].*did you mean method"),
        ({"metrics": ["test.fused.makro_f1"]}, "no makro_f1; did you mean macro_f1"),
        ({"columns": ["method"]}, "method makes both rows and columns"),
    ],
)
def test_what_the_results_do_not_have_is_named(tmp_path: Path, add: Any, ask: Any, why: str) -> None:
    add("a")
    with pytest.raises(ConfigError, match=why):
        table(tmp_path, **ask)


def test_no_result_for_the_question(tmp_path: Path, add: Any) -> None:
    add("a", "flat")
    with pytest.raises(DataError, match=r"none of 1 result has test\.mix\.macro_f1"):
        table(tmp_path, metrics=["test.mix.macro_f1"])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("test.fused.macro_f1", ("test", "fused", False, "macro_f1")),
        ("val.micro_f1", ("val", "fused", False, "micro_f1")),
        ("test.mix.repath.level_0.macro_f1", ("test", "mix", True, "level_0.macro_f1")),
        ("test.overall.macro_f1", ("test", "fused", False, "macro_f1")),
        ("seconds.train", (None, "", False, "seconds.train")),
    ],
)
def test_metrics_are_understood(text: str, parts: tuple[Any, ...]) -> None:
    assert metric_of(text)[1:] == parts


def grid(folder: Path, ahead: dict[str, float], seeds: int, datasets: tuple[str, ...] = ("wos",)) -> Table:
    made_results.write_grid(folder, ahead, datasets, tuple(range(1, seeds + 1)))
    return table(folder)


def test_the_best_is_bold_where_the_test_says_so(tmp_path: Path) -> None:
    found = grid(tmp_path, {"flat": 0.0, "dual": 0.03}, 6)
    judge(found)
    assert cell(found, "dual").standing == "best"
    assert cell(found, "flat").standing == ""
    (one,) = found.comparisons
    assert (one.a, one.b, one.n) == ("dual", "flat", 6)
    assert (one.p, one.p_adjusted, one.smallest_p) == (0.03125, 0.03125, 0.03125)
    assert one.difference == pytest.approx(0.03, abs=0.002)
    assert "Bold: significantly better than every other row" in found.caption[-1]


def test_ties_are_underlined(tmp_path: Path) -> None:
    found = grid(tmp_path, {"flat": 0.0, "dual": 0.03, "tri_head_diffcat": 0.0301}, 8)
    judge(found)
    standings = {row.text: cell(found, row.text).standing for row in found.rows}
    assert standings == {"flat": "", "dual": "tied", "tri_head_diffcat": "tied"}


def test_five_seeds_cannot_decide_and_the_caption_says_so(tmp_path: Path) -> None:
    found = grid(tmp_path, {"flat": 0.0, "top_down": 0.1, "dual": 0.3}, 5)
    judge(found)
    assert {one.standing for one in found.cells.values()} == {""}
    assert found.caption[0] == (
        "No difference in this table can be significant (p ≤ 0.05): with 5 seeds p is at least 0.0625 "
        "(adjusted 0.188), and 3 rows (3 pairs) need 7 shared seeds."
    )
    assert "Bold" not in " ".join(found.caption)


def test_where_less_is_better_the_least_is_best(tmp_path: Path, add: Any) -> None:
    for seed in range(1, 7):
        made = made_results.result("flat", seed)
        made["test"]["single"]["overall"]["violation_rate"] = 0.5 + seed / 1000
        made_results.write(tmp_path, f"f{seed}", made)
        add(f"t{seed}", "top_down", seed)
    found = table(tmp_path, metrics=["test.violation_rate"])
    judge(found)
    assert cell(found, "top_down").standing == "best"


def test_rows_of_different_datasets_are_not_compared(tmp_path: Path) -> None:
    made_results.write_grid(tmp_path, {"flat": 0.0, "dual": 0.05}, ("wos", "aapd"), (1, 2, 3, 4, 5, 6))
    found = table(tmp_path, rows=["dataset", "method"], columns=[])
    judge(found)
    assert {(one.dataset, one.a, one.b) for one in found.comparisons} == {
        ("wos", "wos, dual", "wos, flat"),
        ("aapd", "aapd, dual", "aapd, flat"),
    }


def test_rows_are_ranked_over_datasets_where_there_are_enough(tmp_path: Path) -> None:
    sets = ("wos", "rcv1v2", "nyt", "aapd", "bgc")
    found = grid(tmp_path, {"flat": 0.0, "top_down": 0.1, "dual": 0.2}, 2, sets)
    (ranking,) = rank_over_datasets(found)
    assert ranking.ranks.mean_ranks.tolist() == [3, 2, 1]
    # 12 N / k(k+1) (sum of squared mean ranks - k(k+1)^2/4) = 5 (14 - 12)
    assert ranking.ranks.statistic == pytest.approx(10)
    assert "mean ranks (1 is best) dual 1.00, top_down 2.00, flat 3.00" in found.over_datasets[0]
    assert "dual and flat" in found.over_datasets[1]
    few = table(tmp_path, where={"dataset": ["wos", "nyt"]})
    assert rank_over_datasets(few) == []
    assert "needs 3 rows and 5 datasets" in few.over_datasets[0]
