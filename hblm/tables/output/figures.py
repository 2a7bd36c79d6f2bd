"""The pictures of a table, as SVG and PNG: plain data in, bytes out, the same bytes each time.

Colours are Okabe and Ito's (2008), told apart by colour-blind readers; markers and dashes tell the series
apart in black and white.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from math import ceil, isfinite, nan
from typing import Any, NamedTuple

import numpy as np

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))


_WIDTH, _HEIGHT = 3.4, 2.5  # inches of a panel alone: a column of a paper


_DPI = 200


_LABEL = 40  # signs of a label that are shown


_STYLE: dict[str, Any] = {
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "svg.hashsalt": "hblm",
    "svg.fonttype": "path",
    "figure.facecolor": "white",
}


class Drawing(NamedTuple):
    """One picture in both formats; the PNG has 200 dots an inch."""

    svg: bytes
    png: bytes


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
    with _styled():
        return _drawing(_lines(panels, x_label, y_label))


def points(panels: Sequence[tuple[str, Sequence[Group]]], *, x_label: str) -> Drawing:
    """Draw every seed as a point, the mean as a bar, its interval as a whisker; a line a row."""
    with _styled():
        return _drawing(_points(panels, x_label))


def critical_difference(
    labels: Sequence[str], mean_ranks: Sequence[float], difference: float, *, title: str
) -> Drawing:
    """Draw mean ranks on an axis, joined by a bar where they are closer than that (Demšar 2006)."""
    with _styled():
        return _drawing(_critical_difference(labels, mean_ranks, difference, title))


def cliques(mean_ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Return the largest groups that no difference tells apart, as first and last place in order of rank."""
    ordered = sorted(mean_ranks)
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ordered):
        last = max(at for at, other in enumerate(ordered) if other - rank < difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def style_of(number: int) -> dict[str, Any]:
    """Return a series' look; 7 colours, 9 markers and 4 dashes repeat at different steps."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
    }


@contextlib.contextmanager
def _styled() -> Iterator[None]:
    import matplotlib

    style: Any = {**matplotlib.rcParamsDefault, **_STYLE, "backend": "agg"}
    with matplotlib.rc_context(style):
        yield


def _grid(n_panels: int, height: float, below: float) -> tuple[Any, list[Any]]:
    """Return a figure and its panels, up to three a row; `below` inches are for a legend."""
    from matplotlib.figure import Figure

    across = min(3, max(1, n_panels))
    down = ceil(max(1, n_panels) / across)
    width = _WIDTH if across == 1 else 7.0
    figure = Figure(figsize=(width, down * height + below), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for spare in axes[max(1, n_panels) :]:
        spare.set_visible(False)
    return figure, list(axes[: max(1, n_panels)])


def _lines(panels: Sequence[Panel], x_label: str, y_label: str) -> Any:
    names = list(dict.fromkeys(series.label for panel in panels for series in panel.series))
    across = 1 if len(panels) == 1 else 3
    below = 0.2 * ceil(len(names) / across) + 0.1
    figure, axes = _grid(len(panels), _HEIGHT, below)
    shown: dict[str, Any] = {}
    for axis, panel in zip(axes, panels, strict=False):
        axis.set_title(_text(panel.title))
        places, is_text = np.arange(len(panel.x)), any(isinstance(x, str) for x in panel.x)
        along = places if is_text else np.array(panel.x, float)
        wide = len(panel.series)
        for series in panel.series:
            means, spreads = _summary(series.points)
            number = names.index(series.label)
            # neighbours step aside, so that their bars can be told apart
            aside = (number - wide / 2) * 0.25 / max(wide, 1) if is_text else 0.0
            drawn = axis.errorbar(
                along + aside,
                100 * means,
                yerr=100 * spreads if is_text else None,
                markersize=3.5,
                markevery=1 if is_text else max(1, len(panel.x) // 8),
                elinewidth=0.8,
                capsize=1.5,
                **style_of(number),
            )
            if not is_text:
                axis.fill_between(
                    along,
                    100 * (means - spreads),
                    100 * (means + spreads),
                    color=style_of(number)["color"],
                    alpha=0.15,
                    linewidth=0,
                )
            shown.setdefault(series.label, drawn[0])
        if is_text:
            axis.set_xticks(places, [_text(str(x)) for x in panel.x])
        else:
            axis.xaxis.get_major_locator().set_params(integer=True)
        if not panel.series:
            _say_empty(axis)
        axis.grid(axis="y", color="#dddddd", linewidth=0.5)
    _label_outer(axes, x_label, y_label)
    if shown:
        figure.legend(
            list(shown.values()), [_text(name) for name in shown], loc="outside lower center", ncols=across
        )
    return figure


def _summary(values: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation at each place; nan and 0 for a gap, 0 for one run."""
    kept = [[value for value in place if value is not None and isfinite(value)] for place in values]
    means = np.array([np.mean(place) if place else nan for place in kept])
    spreads = np.array([np.std(place, ddof=1) if len(place) > 1 else 0.0 for place in kept])
    return means, spreads


def _points(panels: Sequence[tuple[str, Sequence[Group]]], x_label: str) -> Any:
    names = list(dict.fromkeys(group.label for _, groups in panels for group in groups))
    figure, axes = _grid(len(panels), 0.9 + 0.24 * max(1, len(names)), 0)
    for at, (axis, (title, groups)) in enumerate(zip(axes, panels, strict=False)):
        axis.set_title(_text(title))
        for group in groups:
            number = names.index(group.label)
            look = style_of(number)
            values = 100 * np.array(group.values, float)
            # seeds in turn above and below the line, so that equal ones are seen
            heights = number + 0.12 * ((np.arange(len(values)) % 3) - 1)
            axis.plot(values, heights, linestyle="none", marker=look["marker"], color=look["color"], **_PALE)
            if len(values):
                axis.plot([values.mean()] * 2, [number - 0.32, number + 0.32], color="black", linewidth=1.4)
            if isfinite(group.low) and isfinite(group.high):
                axis.plot([100 * group.low, 100 * group.high], [number] * 2, color="black", linewidth=0.8)
        if not groups:
            _say_empty(axis)
        axis.set_yticks(
            range(len(names)), [_text(name) for name in names] if at % 3 == 0 else [""] * len(names)
        )
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.grid(axis="x", color="#dddddd", linewidth=0.5)
    _label_outer(axes, x_label, "")
    return figure


_MISSING = "\N{REPLACEMENT CHARACTER}"


_PALE: dict[str, Any] = {"markersize": 4, "alpha": 0.75, "markeredgewidth": 0}


def _critical_difference(
    labels: Sequence[str], mean_ranks: Sequence[float], difference: float, title: str
) -> Any:
    from matplotlib.figure import Figure

    order = sorted(range(len(labels)), key=lambda at: (mean_ranks[at], at))
    count, half = len(order), ceil(len(order) / 2)
    groups = cliques(mean_ranks, difference)
    axis_at, gap = 0.0, 0.22
    first_leader = axis_at - 0.25 - 0.12 * len(groups)
    figure = Figure(figsize=(7.0, 1.1 + gap * (half + 1) + 0.12 * len(groups)), layout="constrained")
    axis = figure.add_subplot()
    axis.axis("off")
    axis.set_title(_text(title))
    margin = max(1.0, 0.45 * (count - 1))
    axis.set_xlim(1 - margin, count + margin)
    axis.set_ylim(first_leader - gap * half, 0.75)
    axis.plot([1, count], [axis_at] * 2, color="black", linewidth=0.8)
    for tick in range(1, count + 1):
        axis.plot([tick] * 2, [axis_at, axis_at + 0.07], color="black", linewidth=0.8)
        axis.text(tick, axis_at + 0.1, str(tick), ha="center", va="bottom")
    # as long as it is, but not beyond the picture
    axis.plot([1, min(1 + difference, count + margin)], [0.5] * 2, color="black", linewidth=1.4)
    axis.text(1, 0.55, f"critical difference {difference:.2f}", ha="left", va="bottom")
    for place, at in enumerate(order):
        rank, left = mean_ranks[at], place < half
        y = first_leader - gap * (place if left else count - 1 - place)
        x = 1 - 0.08 * margin if left else count + 0.08 * margin
        axis.plot([rank, rank, x], [axis_at, y, y], color="black", linewidth=0.7)
        text = f"{_text(labels[at])} ({rank:.2f})"
        axis.text(x, y, f"{text} " if left else f" {text}", ha="right" if left else "left", va="center")
    for level, (first, last) in enumerate(groups):
        y = axis_at - 0.12 * (level + 1)
        ends = [mean_ranks[order[first]] - 0.03, mean_ranks[order[last]] + 0.03]
        axis.plot(ends, [y] * 2, color="black", linewidth=3, solid_capstyle="butt")
    return figure


def _label_outer(axes: Sequence[Any], x_label: str, y_label: str) -> None:
    for at, axis in enumerate(axes):
        if at % 3 == 0:
            axis.set_ylabel(_text(y_label))
        if at + 3 >= len(axes):  # the lowest panel of its column
            axis.set_xlabel(_text(x_label))


def _say_empty(axis: Any) -> None:
    axis.text(0.5, 0.5, "no results", ha="center", va="center", transform=axis.transAxes)


def _text(text: str) -> str:
    """Return a label on one line, short enough, of signs that the font has."""
    from matplotlib import font_manager, ft2font

    font = ft2font.FT2Font(font_manager.findfont("DejaVu Sans"))
    known = font.get_charmap()
    plain = re.sub(r"\s+", " ", text)
    shown = (sign if ord(sign) in known and sign.isprintable() else _MISSING for sign in plain)
    plain = "".join(shown)
    return plain if len(plain) <= _LABEL else f"{plain[: _LABEL - 1]}…"


def _drawing(figure: Any) -> Drawing:
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": "hblm"})
    figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    return Drawing(svg.getvalue(), png.getvalue())
