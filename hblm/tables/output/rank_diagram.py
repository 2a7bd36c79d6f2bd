"""The critical difference diagram: mean ranks on an axis (Demšar 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

from hblm.tables.output.drawing import Drawing, drawing_of, label_text, styled

# in units of the vertical axis
_LABEL_GAP = 0.22  # between labels
_BAR_GAP = 0.12  # between the bars of groups
_BELOW_AXIS = 0.25  # from the axis to the first label, if there are no groups


def critical_difference(
    labels: Sequence[str], mean_ranks: Sequence[float], difference: float, *, title: str
) -> Drawing:
    """Draw mean ranks on an axis; a bar joins those that differ by less than the critical difference."""
    with styled():
        return drawing_of(_rank_figure(labels, mean_ranks, difference, title))


def cliques(mean_ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Return the largest groups of methods whose mean ranks differ by less than `difference`.

    A group is its first and last place in order of rank.
    """
    ordered = sorted(mean_ranks)
    groups: list[tuple[int, int]] = []
    for first, rank in enumerate(ordered):
        last = max(at for at, other in enumerate(ordered) if other - rank < difference)
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return groups


def _rank_figure(labels: Sequence[str], mean_ranks: Sequence[float], difference: float, title: str) -> Any:
    """Return the figure: an axis of ranks, a bar for each group below it, then the labels on both sides."""
    from matplotlib.figure import Figure

    order = sorted(range(len(labels)), key=lambda at: (mean_ranks[at], at))
    ranks = [mean_ranks[at] for at in order]
    groups = cliques(ranks, difference)
    n_lines = ceil(len(labels) / 2)
    top = -_BELOW_AXIS - _BAR_GAP * len(groups)  # of the labels; the axis is at 0
    margin = max(1.0, 0.45 * (len(labels) - 1))
    height = 1.1 + _LABEL_GAP * (n_lines + 1) + _BAR_GAP * len(groups)
    figure = Figure(figsize=(7.0, height), layout="constrained")
    axis = figure.add_subplot()
    axis.axis("off")
    axis.set_title(label_text(title))
    axis.set_xlim(1 - margin, len(labels) + margin)
    axis.set_ylim(top - _LABEL_GAP * n_lines, 0.75)
    _draw_axis(axis, len(labels), difference, margin)
    _draw_labels(axis, [labels[at] for at in order], ranks, top, margin)
    for level, (first, last) in enumerate(groups):
        ends = [ranks[first] - 0.03, ranks[last] + 0.03]
        axis.plot(ends, [-_BAR_GAP * (level + 1)] * 2, color="black", linewidth=3, solid_capstyle="butt")
    return figure


def _draw_axis(axis: Any, n_labels: int, difference: float, margin: float) -> None:
    """Draw the ranks from 1, and the critical difference as a bar above, cut where the figure ends."""
    axis.plot([1, n_labels], [0, 0], color="black", linewidth=0.8)
    for tick in range(1, n_labels + 1):
        axis.plot([tick] * 2, [0, 0.07], color="black", linewidth=0.8)
        axis.text(tick, 0.1, str(tick), ha="center", va="bottom")
    axis.plot([1, min(1 + difference, n_labels + margin)], [0.5] * 2, color="black", linewidth=1.4)
    axis.text(1, 0.55, f"critical difference {difference:.2f}", ha="left", va="bottom")


def _draw_labels(axis: Any, labels: Sequence[str], ranks: Sequence[float], top: float, margin: float) -> None:
    """Draw a line from each rank to its label: the better half on the left, the others on the right."""
    half = ceil(len(labels) / 2)
    for place, (label, rank) in enumerate(zip(labels, ranks, strict=True)):
        left = place < half
        y = top - _LABEL_GAP * (place if left else len(labels) - 1 - place)
        x = 1 - 0.08 * margin if left else len(labels) + 0.08 * margin
        axis.plot([rank, rank, x], [0, y, y], color="black", linewidth=0.7)
        text = f"{label_text(label)} ({rank:.2f})"
        axis.text(x, y, f"{text} " if left else f" {text}", ha="right" if left else "left", va="center")
