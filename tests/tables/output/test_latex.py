"""LaTeX: its content, and names that are escaped."""

from __future__ import annotations

import re

import pytest
from made_tables import HOSTILE, made

from hblm.tables.output.latex import latex


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
