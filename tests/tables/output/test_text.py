"""Markdown, CSV, LaTeX and the terminal: their content, and names that are escaped."""

from __future__ import annotations

import csv
import io
import re

import pytest
from made_tables import HOSTILE, made
from rich.console import Console

from hblm.files import cell_text
from hblm.tables.output.csv_text import comparisons_csv, table_csv
from hblm.tables.output.latex import latex
from hblm.tables.output.markdown import markdown
from hblm.tables.output.terminal import terminal


def test_markdown_by_hand() -> None:
    lines = markdown(made()).splitlines()
    assert lines[:2] == ["**Results of flat**", ""]
    at = lines.index("| method | wos test macro-F1 | flat test macro-F1 |")
    assert lines[at + 1 : at + 4] == [
        "| --- | ---: | ---: |",
        "| flat | <u>71.00 ± 1.41</u> (n=2)<sup>a</sup> | 71.00 ± 1.41 (n=2) |",
        "| dual | **81.00 ± 1.41** (n=2) | – |",
    ]
    assert "Reference figures, published or expected by the sweep:" in lines
    assert "| *HPT* | *BERT-base* | *1* | *Table 1 of flat* | 81.93 | – |" in lines
    assert "(a) Seeds of flat are missing." in lines
    assert "HPT: theirs." in lines


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_markdown_or_html(name: str) -> None:
    text = markdown(made((name, "dual")))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert bars == {4, 7}, "a name makes cells"
    bare = re.sub(r"\\.", "", text)
    assert re.findall(r"</?[^u/s][^>]*>", bare) == []
    assert set(re.findall(r"<[^>]*>", bare)) == {"<u>", "</u>", "<sup>", "</sup>"}
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", text)


def test_latex_by_hand() -> None:
    lines = latex(made()).splitlines()
    assert lines[1] == r"\begin{table}"
    assert r"method & wos test macro-F1 & flat test macro-F1 \\" in lines
    assert r"flat & \underline{71.00 $\pm$ 1.41}\textsuperscript{a} & 71.00 $\pm$ 1.41 \\" in lines
    assert r"dual & \textbf{81.00 $\pm$ 1.41} & -- \\" in lines
    order = [lines.index(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}")]
    assert order == sorted(order)
    assert any("Reference figures" in line for line in lines)
    assert lines[-1] == r"\end{table}"


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_latex(name: str) -> None:
    text = latex(made((name, "dual")))
    ours = {
        *("usepackage", "begin", "end", "centering", "caption", "toprule", "midrule", "bottomrule", "par"),
        *("smallskip", "footnotesize", "textbf", "underline", "textsuperscript", "pm", "leq", "multicolumn"),
        *("itshape", "textbackslash", "textasciicircum", "textasciitilde", "textless", "textgreater"),
        *("textbar", "textquotedbl", "textasciigrave", "textquotesingle"),
    }
    assert set(re.findall(r"\\([a-zA-Z]+)", text)) <= ours
    plain = re.sub(r"\\.", "", text.partition("\n")[2].replace(r"\\", ""))
    assert plain.count("{") == plain.count("}")
    assert "#" not in plain
    assert "%" not in plain
    assert "~" not in plain
    assert "---" not in plain
    assert plain.count("$") % 2 == 0
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in body.split("\\\\\n") if "&" in row} == {2}


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


@pytest.mark.parametrize("name", [*HOSTILE, "[bold]markup[/bold]"])
def test_the_terminal_gets_no_commands(name: str) -> None:
    stream = io.StringIO()
    Console(file=stream, width=200).print(terminal(made((name, "dual"))))
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "\x00" not in text
    assert "81.00 ± 1.41" in text
    assert "HPT (BERT-base), reference" in text
    if name.startswith("[bold]"):
        assert name in text
