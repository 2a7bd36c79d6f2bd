"""Evaluations of other data than that of training: never averaged with the run's own, or taken for them."""

from __future__ import annotations

from pathlib import Path

import made_results
import pandas as pd
import pytest
from made_results import evaluation, on_other_data, result
from made_tables import MACRO

import hblm
from hblm.config.aggregate import AggregateConfig
from hblm.tables import report
from hblm.tables.collect import collect
from hblm.tables.comparisons import compare_rows
from hblm.tables.pivot import tabulate
from hblm.tables.query import TableQuery
from hblm.tables.rankings import rank_over_datasets
from hblm.tables.references import published
from hblm.tables.table import Table

KEYS = ["file", "dataset", "trained_on"]


def write(folder: Path, **results: dict) -> None:
    for name, made in results.items():
        made_results.write(folder, name, made)


def table_of(folder: Path, **query: list[str]) -> tuple[Table, pd.DataFrame]:
    return tabulate(collect([folder]), TableQuery(metrics=MACRO, **query))


def means(table: Table) -> dict[tuple[str, str], float]:
    return {(row.text, column.text): cell.mean for (row, column), cell in table.cells.items()}


def test_both_evaluations_of_a_run_count_with_the_same_settings(tmp_path: Path) -> None:
    run = result(macro=0.7)
    elsewhere, again = (
        on_other_data(evaluation(run, threshold=0.4), name, -0.2) for name in ("mail", "chats")
    )
    write(tmp_path, run=run, own=evaluation(run, threshold=0.4), mail=elsewhere, chats=again)
    frame = hblm.results(tmp_path)
    rows = frame[(frame["split"] == "test") & ~frame["closed"]]
    trained_on = f"wos (data {run['dataset']['fingerprint'][:8]})"
    found = {Path(row.file).stem: (row.dataset, row.trained_on) for row in rows[KEYS].fillna("").itertuples()}
    assert found == {
        "run": ("wos", ""),
        "own": ("wos", ""),
        "mail": ("mail", trained_on),
        "chats": ("chats", trained_on),
    }


def test_other_data_has_columns_of_its_own_and_a_note(tmp_path: Path) -> None:
    runs = {seed: result(seed=seed, macro=0.7) for seed in (1, 2)}
    others = {f"other{seed}": on_other_data(evaluation(run), "mail", -0.2) for seed, run in runs.items()}
    write(tmp_path, **{f"run{seed}": run for seed, run in runs.items()}, **others)
    table, _ = table_of(tmp_path)
    ((_, of_mail), (_, of_wos)) = sorted(means(table).items())
    assert (of_mail, of_wos) == (pytest.approx(0.5), pytest.approx(0.7))
    (note,) = [note for note in table.notes if "Trained on wos (data " in note.text]
    marked = {column.text for (_, column), cell in table.cells.items() if note.mark in cell.marks}
    assert marked == {"mail test macro-F1"}


def test_a_dataset_that_is_asked_for_by_no_key_still_makes_columns(tmp_path: Path) -> None:
    run = result(macro=0.7)
    write(tmp_path, run=run, other=on_other_data(evaluation(run), "mail", -0.2))
    table, _ = table_of(tmp_path, columns=[])
    assert table.column_names == ("dataset",)


def test_models_trained_on_a_set_and_models_scored_on_it_are_separate_rows(tmp_path: Path) -> None:
    """They have the same method, documents and seeds; only the training differs."""
    elsewhere = {
        f"other{seed}": on_other_data(evaluation(result(seed=seed, macro=0.7)), "nyt", -0.2)
        for seed in (1, 2)
    }
    own = {f"own{seed}": result(seed=seed, dataset="nyt", macro=0.8) for seed in (1, 2)}
    write(tmp_path, **elsewhere, **own)
    table, _ = table_of(tmp_path)
    assert table.row_names == ("method", "trained_on")
    assert sorted(means(table).values()) == [pytest.approx(0.5), pytest.approx(0.8)]


def test_the_same_name_keeps_both_sets_apart(tmp_path: Path) -> None:
    run = result(macro=0.7)
    other = on_other_data(evaluation(run), "wos", -0.2)
    other["dataset"] = result(data="new documents")["dataset"]
    write(tmp_path, run=run, other=other)
    table, _ = table_of(tmp_path)
    assert sorted(means(table).values()) == [pytest.approx(0.5), pytest.approx(0.7)]
    compare_rows(table)
    assert table.comparisons == []


def test_no_published_figure_beside_other_data(tmp_path: Path) -> None:
    """Published models were trained on the dataset whose name the column has."""
    write(tmp_path, other=on_other_data(evaluation(result(dataset="mail")), "wos"))
    table, _ = table_of(tmp_path)
    assert published(table, {"wos": 141})  # by name and label set they would be there
    report.run(AggregateConfig(results=[str(tmp_path)], output_dir="out"))
    assert "true" in Path("out/tables/table.csv").read_text()
    assert "false" not in Path("out/tables/table.csv").read_text()  # in the column `ours`


def test_ranks_over_datasets_leave_other_data_out(tmp_path: Path) -> None:
    datasets = ("wos", "nyt", "rcv1v2", "aapd", "bgc")
    for dataset in datasets:
        for ahead, method in enumerate(("flat", "top_down", "dual")):
            run = result(method, dataset=dataset, macro=0.6 + ahead / 20)
            made_results.write(tmp_path, f"{dataset}_{method}", run)
            if dataset == "wos":
                other = on_other_data(evaluation(run), "mail", -0.2 * ahead)
                made_results.write(tmp_path, f"eval_{method}", other)
    table, _ = table_of(tmp_path)
    (ranking,) = rank_over_datasets(table)
    assert sorted(ranking.datasets) == sorted(datasets)
    assert ranking.ranks.mean_ranks.tolist() == [3, 2, 1]
