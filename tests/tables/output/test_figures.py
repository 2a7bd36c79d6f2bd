"""Figures: what is drawn, and series that can be distinguished."""

from __future__ import annotations

from math import nan
from xml.etree import ElementTree

import pytest
from made_tables import HOSTILE
from matplotlib.colors import to_hex

from hblm.tables.output.drawing import style_of, styled
from hblm.tables.output.figures import Group, Panel, Series, line_figure, lines, point_figure, points
from hblm.tables.output.rank_diagram import critical_difference

SERIES = [Series("flat", [[0.5, 0.6], [], [0.7]]), Series("_dual", [[0.6], [nan, 0.7], [0.8]])]


def test_lines_show_means_in_percent_and_gaps() -> None:
    with styled():
        figure = line_figure([Panel("wos", [1, 2, 3], SERIES)], "epoch", "F1 (%)")
    (axis,) = figure.axes
    first, second = (line.get_ydata().tolist() for line in axis.lines)
    assert first[0] == pytest.approx(55)
    assert first[1] != first[1], "a gap"
    assert second == pytest.approx([60, 70, 80])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["flat", "_dual"]
    assert (axis.get_title(), axis.get_xlabel(), axis.get_ylabel()) == ("wos", "epoch", "F1 (%)")


def test_a_series_keeps_its_look_over_panels() -> None:
    panels = [Panel("a", ["0", "1", "2"], SERIES[:1]), Panel("b", ["0", "1", "2"], SERIES[::-1])]
    with styled():
        figure = line_figure(panels, "", "")
    colours = [
        [to_hex(line.get_color()) for line in axis.lines if len(line.get_xdata())] for axis in figure.axes
    ]
    assert colours[0][0] == style_of(0)["color"].lower()
    assert style_of(0)["color"].lower() in colours[1]


def test_thirty_series_look_different() -> None:
    looks = [tuple(map(str, style_of(number).values())) for number in range(30)]
    assert len(set(looks)) == 30
    in_print = [look[1:] for look in looks]
    assert len(set(in_print)) == 30, "marker and dashes distinguish them without colour"


def test_points_show_every_seed() -> None:
    groups = [Group("flat", [0.7, 0.7, 0.8], 0.6, 0.9), Group("dual", [0.75], nan, nan)]
    with styled():
        figure = point_figure([("wos", groups)], "F1 (%)")
    (axis,) = figure.axes
    drawn = [line.get_xdata().tolist() for line in axis.lines]
    assert drawn[0] == pytest.approx([70, 70, 80])
    assert drawn[2] == pytest.approx([60, 90])
    assert len(drawn) == 5, "no interval of one run"
    heights = axis.lines[0].get_ydata()
    assert heights[0] != heights[1], "equal seeds are both seen"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["flat", "dual"]


@pytest.mark.slow
def test_any_name_can_be_drawn() -> None:
    names = [*HOSTILE, "", "$", "_", "\N{GRINNING FACE}", "x" * 300]
    series = [Series(name, [[0.5 + at / 100] for _ in names]) for at, name in enumerate(names)]
    for drawing in (
        lines([Panel(names[0], names, series)], x_label=names[1], y_label=names[2]),
        points([(names[0], [Group(name, [0.5, 0.6], 0.4, 0.7) for name in names])], x_label=names[1]),
        critical_difference(names, [*range(1, len(names) + 1)], 1.0, title=names[2]),
    ):
        ElementTree.fromstring(drawing.svg)
        assert drawing.png.startswith(b"\x89PNG")
        assert b"Matplotlib v" not in drawing.svg + drawing.png, "another version, other bytes"


def test_an_empty_panel_has_a_text() -> None:
    with styled():
        figure = line_figure([Panel("wos", [], [])], "", "")
    assert [text.get_text() for text in figure.axes[0].texts] == ["no results"]
