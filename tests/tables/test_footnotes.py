"""Notes: versions of data, seeds, commits, empty cells, and the cells that they mark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_results
import pytest
from made_tables import MACRO, cell, notes, table_from


def test_versions_of_a_dataset_are_never_averaged(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, data="one", macro=0.5)
    add("b", seed=2, data="two", macro=0.9)
    add("c", seed=3, data="three", levels=[7, 138])
    table = table_from(tmp_path)
    assert len(table.columns) == 3
    assert all(column.labels[0].startswith("wos (data ") for column in table.columns)
    assert sorted(one.mean for one in table.cells.values()) == pytest.approx([0.5, 0.7, 0.9])
    (text,) = {text for one in table.cells.values() for text in notes(table, one) if "versions" in text}
    assert "3 versions" in text
    assert "2 with nodes 7/134" in text
    assert "1 with nodes 7/138" in text


def test_empty_cells_and_missing_seeds_have_notes(tmp_path: Path, add: Any) -> None:
    for seed in (1, 2, 3):
        add(f"a{seed}", "flat", seed)
    add("b1", "dual", 1)
    add("c1", "dual", 1, "aapd")
    table = table_from(tmp_path)
    assert cell(table, "flat", "aapd") is None
    assert any(text.startswith("1 cell without a result") and "flat: aapd" in text for text in notes(table))
    dual = cell(table, "dual")
    assert dual is not None
    assert notes(table, dual) == ["Unequal seeds: seeds 2, 3 of other rows of the column are missing here."]
    flat = cell(table, "flat")
    assert flat is not None
    assert flat.marks == []


def test_commits_and_uncommitted_changes_have_notes(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, commit="a" * 40)
    add("b", seed=2, commit="b" * 40, dirty=True)
    add("c", "flat", seed=1, commit=None)
    add("d", "flat", seed=2, commit=None)
    table = table_from(tmp_path)
    assert notes(table, cell(table, "top_down")) == [
        "Runs of 2 commits: aaaaaaaaaa: seed 1; bbbbbbbbbb: seed 2.",
        "Made with uncommitted changes to the code.",
    ]
    assert notes(table, cell(table, "flat")) == []
    assert any("come from 3 commits: aaaaaaaaaa, bbbbbbbbbb, hblm 0.1.0" in text for text in notes(table))


def test_two_runs_of_one_seed_have_a_note(tmp_path: Path, add: Any) -> None:
    add("a", seed=1, run_id="1" * 64)
    add("b", seed=1, run_id="2" * 64)
    table = table_from(tmp_path)
    assert len(cell(table, "top_down").runs) == 2
    assert notes(table, cell(table, "top_down"))[0].startswith(
        "Several runs of seed 1, with equal recorded keys"
    )


def test_rows_of_other_formulas_have_a_note(tmp_path: Path, add: Any) -> None:
    add("a", "dual")
    made_results.write(tmp_path, "b", made_results.of_first_version(made_results.result("flat")))
    assert "Rows differ in formulas: 1 (flat), 2 (dual)." in notes(table_from(tmp_path))
    made_results.write(tmp_path, "b", made_results.result("flat"))
    assert notes(table_from(tmp_path)) == []


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
    table = table_from(tmp_path)
    assert table.row_names == ("method",)
    assert notes(table, cell(table, "flat")) == [
        f"Runs of this cell differ in {name}: {first}: seeds 1, 2; {second}: seed 3."
    ]
    assert notes(table, cell(table, "dual")) == []
    assert notes(table) == [f"Rows differ in {name}: {first} (dual), {first} and {second} (flat)."]
    apart = table_from(tmp_path, rows=["method", name])
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
    table = table_from(tmp_path, metrics=[*MACRO, "test.micro_f1"])
    assert notes(table) == ["Rows differ in precision (aapd): bf16 (dual), fp32 (flat; top_down)."]
    columns_apart = table_from(tmp_path, where={"method": ["flat", "top_down"]})
    assert notes(columns_apart) == []


def test_what_results_do_not_record_is_not_a_difference(tmp_path: Path) -> None:
    for seed, environment in ((1, {}), (2, {"processes": 1})):
        old = made_results.of_first_version(made_results.result(seed=seed), **environment)
        made_results.write(tmp_path, f"r{seed}", old)
    table = table_from(tmp_path)
    assert notes(table) == notes(table, cell(table, "top_down")) == []
