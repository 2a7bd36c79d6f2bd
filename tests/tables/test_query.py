"""Queries: the measurements that they select, and keys that the results do not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_results
import pytest
from made_tables import MACRO, cell, table_from

from hblm.errors import ConfigError, DataError
from hblm.tables.collect import collect
from hblm.tables.pivot import tabulate
from hblm.tables.query import TableQuery


def test_an_evaluation_that_repeats_the_training_counts_once(tmp_path: Path, add: Any) -> None:
    of = add("a", seed=1, macro=0.5)
    again = made_results.evaluation(of, view="all")
    again["test"]["single"]["overall"]["macro_f1"] = 0.51
    made_results.write(tmp_path, "eval_1", again)
    table = table_from(tmp_path)
    assert [run.value for run in cell(table, "top_down").runs] == [0.51]
    made_results.write(tmp_path, "eval_2", made_results.evaluation(of, threshold=0.3))
    table = table_from(tmp_path)
    assert [row.text for row in table.rows] == ["top_down, 0.3", "top_down, 0.5"]
    assert table.row_names == ("method", "threshold")


def test_an_evaluation_of_an_earlier_model_never_beats_the_run(tmp_path: Path, add: Any) -> None:
    of = add("a", seed=1, macro=0.5)
    # made of an earlier training's checkpoint, and written after the later training
    stale = made_results.evaluation(of, finished="2026-11-30T00:00:00Z") | {"training": "earlier"}
    stale["test"]["single"]["overall"]["macro_f1"] = 0.9
    stale["predictions"] = {"path": "/x"}
    made_results.write(tmp_path, "eval_9", stale)
    assert [run.value for run in cell(table_from(tmp_path), "top_down").runs] == [0.5]
    # two ways to show one measurement: of these the later one counts, whatever their names
    for name, view, finished, macro in (
        ("eval_1", "all", "2026-11-28T00:00:00Z", 0.51),
        ("eval_2", "single", "2026-11-27T00:00:00Z", 0.52),
    ):
        again = made_results.evaluation(of, view=view, finished=finished)
        again["test"]["single"]["overall"]["macro_f1"] = macro
        made_results.write(tmp_path, name, again)
    assert [run.value for run in cell(table_from(tmp_path), "top_down").runs] == [0.51]
    made_results.write(tmp_path, "eval_2", {**again, "predictions": {"path": "/x"}})
    assert [run.value for run in cell(table_from(tmp_path), "top_down").runs] == [0.52]


def test_a_metric_without_results_leaves_the_others(tmp_path: Path, add: Any) -> None:
    add("a")
    table = table_from(tmp_path, rows=[], columns=[], metrics=["test.mix.macro_f1", *MACRO])
    assert [column.metric for column in table.columns] == list(MACRO)


def tuned(tune: str, macro: float) -> dict[str, Any]:
    """Return a result's entry of scores at tuned thresholds."""
    scores = made_results.scores(0.6, macro, [7, 134], closed=True)
    return {"tuned": {"tune": tune, "view": "single", "test": {"single": scores}}}


def test_tuned_scores_are_rows_of_their_own_and_the_raw_ones_count_once(tmp_path: Path, add: Any) -> None:
    of = add("a", seed=1, macro=0.5)
    metric = ["test.tuned.macro_f1"]
    with pytest.raises(DataError, match=r"none of 1 result has test\.tuned"):
        table_from(tmp_path, metrics=metric)
    for number, (tune, macro) in enumerate((("global", 0.52), ("node", 0.53)), 1):
        made = made_results.evaluation(of) | tuned(tune, macro)
        made["settings"] = {**made["settings"], "tune": tune}
        made_results.write(tmp_path, f"eval_{number}", made)
    table = table_from(tmp_path, metrics=metric)
    assert table.row_names == ("method", "tune")
    for row, macro in (("top_down, global", 0.52), ("top_down, node", 0.53)):
        assert [run.value for run in cell(table, row).runs] == pytest.approx([macro])
    assert [column.name for column in table.columns] == ["test macro-F1 tuned"]
    assert [row.text for row in table_from(tmp_path).rows] == ["top_down"]
    frame = collect([tmp_path], repeats=False)
    assert sorted(frame["consistency"]) == ["none", "none", "raise", "raise", "tuned", "tuned"]


def test_a_metric_of_capped_predictions_leaves_out_results_without_them(tmp_path: Path) -> None:
    new, old = made_results.result("flat"), made_results.result("top_down")
    capped = made_results.scores(0.79, 0.6, [7, 134], closed=True)
    new["test"]["single"]["cap"] = capped
    for name, made in (("new", new), ("old", old)):
        made_results.write(tmp_path, name, made)
    table, _ = tabulate(
        collect([tmp_path]), TableQuery(metrics=["test.cap.micro_f1", "test.repath.micro_f1"])
    )
    figures = {(row.text, column.name): cell.mean for (row, column), cell in table.cells.items()}
    assert figures == pytest.approx(
        {
            ("flat", "test micro-F1 capped"): 0.79,
            ("flat", "test micro-F1 closed"): 0.81,
            ("top_down", "test micro-F1 closed"): 0.81,
        }
    )
    assert any("top_down: wos test micro-F1 capped" in note.text for note in table.notes)
    assert "Capped: predicted nodes that lack a predicted ancestor" in " ".join(table.caption)


def test_the_fused_view_of_a_single_model_is_its_own(tmp_path: Path, add: Any) -> None:
    add("a", "flat")
    add("b", "dual")
    assert len(table_from(tmp_path).rows) == 2
    assert [row.text for row in table_from(tmp_path, metrics=["test.td.macro_f1"]).rows] == ["dual"]
    assert "the fused view" in " ".join(table_from(tmp_path).caption)


def test_where_keeps_what_it_names(tmp_path: Path, add: Any) -> None:
    for method in ("flat", "dual", "top_down"):
        add(method, method)
    assert [row.text for row in table_from(tmp_path, where={"method": ["flat", "dual"]}).rows] == [
        "flat",
        "dual",
    ]
    with pytest.raises(ConfigError, match=r"where=\[method:duall\].*did you mean dual"):
        table_from(tmp_path, where={"method": ["duall"]})


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
        table_from(tmp_path, **ask)


def test_no_result_for_the_question(tmp_path: Path, add: Any) -> None:
    add("a", "flat")
    with pytest.raises(DataError, match=r"none of 1 result has test\.mix\.macro_f1"):
        table_from(tmp_path, metrics=["test.mix.macro_f1"])
