"""Keys that are added to rows, so that nothing but seeds is averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_results
import pytest
from made_tables import cell, notes, table_from


def test_what_differs_besides_the_seed_splits_the_row(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, macro=0.6)
    add("b", seed=1, macro=0.8, trainer__learning_rate=1e-4)
    table = table_from(tmp_path)
    assert table.row_names == ("method", "trainer.learning_rate")
    assert [row.text for row in table.rows] == ["top_down, 3e-05", "top_down, 0.0001"]
    assert [len(one.runs) for one in table.cells.values()] == [1, 1]
    assert any("split by trainer.learning_rate" in text for text in notes(table))


def test_what_does_nothing_in_a_run_does_not_split(tmp_path: Path, add: Any) -> None:
    add("a", "flat", 1, film__film_scale=0.2)
    add("b", "flat", 2, film__film_scale=0.9, direction__cascade_direction="bottom_up")
    table = table_from(tmp_path, rows=["method", "direction"])
    assert [(row.labels, len(table.cells[row, table.columns[0]].runs)) for row in table.rows] == [
        (("flat", "–"), 2)
    ]


def test_what_cannot_change_numbers_does_not_split(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, device="cpu")
    add("b", seed=2, device="cuda", output_dir="elsewhere")
    assert table_from(tmp_path).row_names == ("method",)


def test_a_dataset_that_is_no_key_becomes_one(tmp_path: Path, add: Any) -> None:
    add("a", dataset="wos")
    add("b", dataset="aapd")
    table = table_from(tmp_path, columns=[])
    assert table.column_names == ("dataset",)
    assert len(table.cells) == 2


def test_scores_of_other_formulas_are_never_averaged(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, macro=0.6)
    add("b", seed=2, macro=0.7)
    assert table_from(tmp_path).row_names == ("method",)
    old = made_results.of_first_version(made_results.result(seed=3, macro=0.1))
    made_results.write(tmp_path, "c", old)
    table = table_from(tmp_path)
    assert table.row_names == ("method", "formulas")
    means = {row.text: table.cells[row, table.columns[0]].mean for row in table.rows}
    assert means == pytest.approx({"top_down, 1": 0.1, "top_down, 2": 0.65})


def test_formulas_split_rows_before_keys_whose_defaults_changed(tmp_path: Path, add: Any) -> None:
    """The default of loss.level_reduction is another one since 0.2: the gap is not the loss's alone."""
    add("new", seed=1)
    old = made_results.result(seed=1, loss__level_reduction="levels")
    made_results.write(tmp_path, "old", made_results.of_first_version(old))
    table = table_from(tmp_path)
    assert table.row_names == ("method", "formulas")
    assert any("rows were split by formulas:" in note for note in notes(table))


def encoder(commit: str | None, **more: Any) -> dict[str, Any]:
    return {**made_results.ENCODER, "commit": commit, **more}


def test_runs_of_two_commits_of_a_hub_model_are_never_averaged(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, macro=0.5, encoder=encoder("a" * 40))
    add("b", seed=2, macro=0.7, encoder=encoder("a" * 40))
    assert table_from(tmp_path).row_names == ("method",)
    add("c", seed=3, macro=0.9, encoder=encoder("b" * 40))
    table = table_from(tmp_path)
    assert table.row_names == ("method", "encoder_commit")
    means = {row.text: table.cells[row, table.columns[0]].mean for row in table.rows}
    assert means == pytest.approx({f"top_down, {'a' * 10}": 0.6, f"top_down, {'b' * 10}": 0.9})


def test_runs_of_other_weights_in_one_folder_are_never_averaged(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, run_id="1" * 64, macro=0.5, encoder=encoder(None, weights="a"))
    add("b", seed=1, run_id="2" * 64, macro=0.9, encoder=encoder(None, weights="b"))
    table = table_from(tmp_path)
    assert table.row_names == ("method", "encoder_id")
    assert sorted(one.mean for one in table.cells.values()) == pytest.approx([0.5, 0.9])
    assert not [note for note in table.notes if note.mark]


def test_an_evaluation_is_in_the_row_of_its_encoder(tmp_path: Path, add: Any) -> None:
    of = add("a", seed=1, encoder=encoder("a" * 40))
    made_results.write(tmp_path, "eval_a", made_results.evaluation(of))
    add("b", seed=2, encoder=encoder("a" * 40))
    lone = made_results.result(seed=3, encoder=encoder("a" * 40))
    made_results.write(tmp_path, "eval_b", made_results.evaluation(lone))
    table = table_from(tmp_path)
    assert table.row_names == ("method",)
    assert len(cell(table, "top_down").runs) == 3
    evaluated = made_results.evaluation(add("c", seed=4, encoder=encoder("b" * 40)))
    made_results.write(tmp_path, "eval_c", evaluated)
    texts = [row.text for row in table_from(tmp_path).rows]
    assert texts == [f"top_down, {'a' * 10}", f"top_down, {'b' * 10}"]


def test_runs_trained_at_other_thresholds_are_never_averaged(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, macro=0.5)
    of = made_results.result(seed=2, macro=0.9, threshold=0.4)
    made_results.write(tmp_path, "eval_b", made_results.evaluation(of, threshold=0.5))
    table = table_from(tmp_path)
    assert table.row_names == ("method", "training_threshold")
    means = {row.text: table.cells[row, table.columns[0]].mean for row in table.rows}
    assert means == pytest.approx({"top_down, 0.4": 0.9, "top_down, 0.5": 0.5})


def test_a_threshold_of_training_and_scoring_is_one_key(tmp_path: Path, add: Any) -> None:
    add("a", seed=1)
    made = add("b", seed=2, threshold=0.4)
    for view in made["test"].values():
        view["threshold"] = 0.4
    made_results.write(tmp_path, "b", made)
    assert table_from(tmp_path).row_names == ("method", "threshold")
    assert table_from(tmp_path, rows=["method", "training_threshold"]).row_names == (
        "method",
        "training_threshold",
    )
