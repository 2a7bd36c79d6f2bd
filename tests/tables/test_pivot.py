"""Tables worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_tables import cell, table_from


def test_a_table_by_hand(tmp_path: Path, add: Any) -> None:
    for seed, macro in ((1, 0.70), (2, 0.72), (3, 0.77)):
        add(f"a{seed}", "flat", seed, macro=macro)
        add(f"b{seed}", "dual", seed, macro=macro + 0.01)
    table = table_from(tmp_path)
    assert [row.text for row in table.rows] == ["flat", "dual"]
    flat = cell(table, "flat")
    assert flat is not None
    # mean 0.73, deviations -0.03, -0.01, 0.04: s = sqrt(0.0026 / 2); t_2 = 4.30265
    assert (flat.mean, flat.std) == pytest.approx((0.73, 0.0360555))
    assert (flat.low, flat.high) == pytest.approx((0.73 - 0.0895672, 0.73 + 0.0895672), abs=1e-6)
    assert flat.seeds == ["1", "2", "3"]
    assert table.figure(table.columns[0], flat.mean, flat.std) == "73.00 ± 3.61"
    assert "mean over all nodes of a node's F1" in " ".join(table.caption)
    assert "n = 3" in table.caption[0]
    assert table.notes == []


def test_any_key_makes_rows_and_columns(tmp_path: Path, add: Any) -> None:
    for scale in (0.1, 0.25):
        for dataset in ("wos", "aapd"):
            add(f"{dataset}{scale}", dataset=dataset, film__film_scale=scale, macro=scale, epochs=4)
    table = table_from(
        tmp_path, rows=["dataset"], columns=["film.film_scale"], metrics=["val.macro_f1", "best_epoch"]
    )
    assert [row.labels for row in table.rows] == [("wos",), ("aapd",)]
    assert [(column.labels, column.metric) for column in table.columns] == [
        (("0.1",), "val.macro_f1"),
        (("0.1",), "best_epoch"),
        (("0.25",), "val.macro_f1"),
        (("0.25",), "best_epoch"),
    ]
    means = [table.cells[table.rows[1], column].mean for column in table.columns]
    assert means == pytest.approx([0.09, 4, 0.24, 4])
    assert [column.percent for column in table.columns] == [True, False, True, False]
