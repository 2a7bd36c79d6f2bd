"""CSV: its content, and names as they are."""

from __future__ import annotations

import csv
import io

import pytest
from made_tables import HOSTILE, made

from hblm.files import cell_text
from hblm.tables.output.csv_text import comparisons_csv, table_csv


def test_csv_has_everything_of_a_cell() -> None:
    table = made()
    first, *_, hole, reference = csv.DictReader(io.StringIO(table_csv(table)))
    assert first["method"] == "flat"
    assert (first["dataset"], first["metric"], first["ours"]) == ("wos", "test.fused.macro_f1", "true")
    assert (first["n"], float(first["mean"]), first["standing"]) == ("2", 0.71, "tied")
    assert (first["seeds"], first["notes"]) == ("1 2", "Seeds of flat are missing.")
    assert first["run_ids"] == " ".join(
        run.run_id for run in table.cells[table.rows[0], table.columns[0]].runs
    )
    assert (hole["n"], hole["mean"], hole["run_ids"]) == ("0", "", "")
    assert (reference["ours"], float(reference["mean"]), reference["std"]) == ("false", 0.8193, "")
    assert "BERT-base" in reference["source"]


@pytest.mark.parametrize("name", HOSTILE)
def test_csv_keeps_names_as_they_are_but_for_the_apostrophe_before_a_formula(name: str) -> None:
    rows = list(csv.DictReader(io.StringIO(table_csv(made((name, "dual"))), newline="")))
    assert rows[0]["method"] == cell_text(name)
    (test,) = csv.DictReader(io.StringIO(comparisons_csv(made((name, "dual")).comparisons), newline=""))
    assert (test["b"], test["p"], test["n"]) == (cell_text(name), "0.0625", "5")
