"""Figures of a table's cells: lines over levels or epochs, and a point for each seed."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, isfinite, nan
from typing import Any, NamedTuple

import numpy as np

from hblm.tables.output.drawing import Drawing, drawing_of, label_text, style_of, styled

_WIDTH, _HEIGHT = 3.4, 2.5  # inches of a panel alone: a column of a paper
_LINE: dict[str, Any] = {"markersize": 3.5, "elinewidth": 0.8, "capsize": 1.5}
_POINT: dict[str, Any] = {"linestyle": "none", "markersize": 4, "alpha": 0.75, "markeredgewidth": 0}


class Series(NamedTuple):
    """One row of a table: at each place on the x axis the values of its runs, none for a gap."""

    label: str
    points: Sequence[Sequence[float]]


class Panel(NamedTuple):
    """One column of a table: ticks (texts) or numbers along x, and a series a row."""

    title: str
    x: Sequence[str] | Sequence[int]
    series: Sequence[Series]


class Group(NamedTuple):
    """One cell: a value a seed, and the interval of their mean (nan where there is none)."""

    label: str
    values: Sequence[float]
    low: float
    high: float


def lines(panels: Sequence[Panel], *, x_label: str, y_label: str) -> Drawing:
    """Draw the mean of each series' runs with their standard deviation; values are shares in 0..1."""
    with styled():
        return drawing_of(line_figure(panels, x_label, y_label))


def points(panels: Sequence[tuple[str, Sequence[Group]]], *, x_label: str) -> Drawing:
    """Draw every seed as a point, the mean as a bar, its interval as a line; values are shares in 0..1."""
    with styled():
        return drawing_of(point_figure(panels, x_label))


def line_figure(panels: Sequence[Panel], x_label: str, y_label: str) -> Any:
    """Return the matplotlib figure of `lines`, with a legend of all series below the panels."""
    names = list(dict.fromkeys(series.label for panel in panels for series in panel.series))
    across = 1 if len(panels) == 1 else 3
    figure, axes = _grid(len(panels), _HEIGHT, below=0.2 * ceil(len(names) / across) + 0.1)
    handles: dict[str, Any] = {}
    for axis, panel in zip(axes, panels, strict=False):
        axis.set_title(label_text(panel.title))
        places = np.arange(len(panel.x))
        has_ticks = any(isinstance(x, str) for x in panel.x)
        for series in panel.series:
            number = names.index(series.label)
            means, spreads = _summary(series.points)
            if has_ticks:
                # neighbours are moved aside, so that their error bars do not hide each other
                n_series = len(panel.series)
                aside = (number - n_series / 2) * 0.25 / n_series
                handle = _with_bars(axis, places + aside, 100 * means, 100 * spreads, number)
            else:
                handle = _with_band(axis, np.array(panel.x, float), 100 * means, 100 * spreads, number)
            handles.setdefault(series.label, handle)
        if has_ticks:
            axis.set_xticks(places, [label_text(str(x)) for x in panel.x])
        else:
            axis.xaxis.get_major_locator().set_params(integer=True)
        if not panel.series:
            _note_empty(axis)
        axis.grid(axis="y", color="#dddddd", linewidth=0.5)
    _label_outer(axes, x_label, y_label)
    if handles:
        labels = [label_text(name) for name in handles]
        figure.legend(list(handles.values()), labels, loc="outside lower center", ncols=across)
    return figure


def _with_bars(axis: Any, x: np.ndarray, means: np.ndarray, spreads: np.ndarray, number: int) -> Any:
    """Draw a series with an error bar at each place, and return its line."""
    return axis.errorbar(x, means, yerr=spreads, **_LINE, **style_of(number))[0]


def _with_band(axis: Any, x: np.ndarray, means: np.ndarray, spreads: np.ndarray, number: int) -> Any:
    """Draw a series of many places with a band, and return its line; about 8 places have a marker."""
    style = style_of(number)
    line = axis.errorbar(x, means, markevery=max(1, len(x) // 8), **_LINE, **style)[0]
    band = (means - spreads, means + spreads)
    axis.fill_between(x, *band, color=style["color"], alpha=0.15, linewidth=0)
    return line


def point_figure(panels: Sequence[tuple[str, Sequence[Group]]], x_label: str) -> Any:
    """Return the matplotlib figure of `points`."""
    names = list(dict.fromkeys(group.label for _, groups in panels for group in groups))
    figure, axes = _grid(len(panels), 0.9 + 0.24 * max(1, len(names)), below=0)
    labels = [label_text(name) for name in names]
    for at, (axis, (title, groups)) in enumerate(zip(axes, panels, strict=False)):
        axis.set_title(label_text(title))
        for group in groups:
            _draw_group(axis, group, names.index(group.label))
        if not groups:
            _note_empty(axis)
        axis.set_yticks(range(len(names)), labels if at % 3 == 0 else [""] * len(names))
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.grid(axis="x", color="#dddddd", linewidth=0.5)
    _label_outer(axes, x_label, "")
    return figure


def _draw_group(axis: Any, group: Group, number: int) -> None:
    style = style_of(number)
    values = 100 * np.array(group.values, float)
    # seeds in turn above, on and below the line, so that equal ones are all seen
    heights = number + 0.12 * ((np.arange(len(values)) % 3) - 1)
    axis.plot(values, heights, marker=style["marker"], color=style["color"], **_POINT)
    if len(values):
        axis.plot([values.mean()] * 2, [number - 0.32, number + 0.32], color="black", linewidth=1.4)
    if isfinite(group.low) and isfinite(group.high):
        axis.plot([100 * group.low, 100 * group.high], [number] * 2, color="black", linewidth=0.8)


def _grid(n_panels: int, height: float, below: float) -> tuple[Any, list[Any]]:
    """Return a figure and its panels, up to three side by side; `below` is the legend's height in inches."""
    from matplotlib.figure import Figure

    across = min(3, max(1, n_panels))
    down = ceil(max(1, n_panels) / across)
    width = _WIDTH if across == 1 else 7.0
    figure = Figure(figsize=(width, down * height + below), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for spare in axes[max(1, n_panels) :]:
        spare.set_visible(False)
    return figure, list(axes[: max(1, n_panels)])


def _summary(values: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return means and standard deviations, (places,) each; nan and 0 for a gap, 0 for one run."""
    kept = [[value for value in place if value is not None and isfinite(value)] for place in values]
    means = np.array([np.mean(place) if place else nan for place in kept])
    spreads = np.array([np.std(place, ddof=1) if len(place) > 1 else 0.0 for place in kept])
    return means, spreads


def _label_outer(axes: Sequence[Any], x_label: str, y_label: str) -> None:
    for at, axis in enumerate(axes):
        if at % 3 == 0:
            axis.set_ylabel(label_text(y_label))
        if at + 3 >= len(axes):  # the lowest panel of its column
            axis.set_xlabel(label_text(x_label))


def _note_empty(axis: Any) -> None:
    axis.text(0.5, 0.5, "no results", ha="center", va="center", transform=axis.transAxes)
