"""What an evaluation shows of tuned thresholds, calibration and confidence: lines and a figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hblm.console import tuned_line
from hblm.engine.calibration import Bin, Reliability
from hblm.files import new_file

_INCHES = 2.6  # of a level's panel


def lines(views: Mapping[str, Mapping[str, Any]], decided: Mapping[str, Any], split: str) -> Iterator[str]:
    """Yield the lines to print on the entries that a result has: tuned, calibration, confidence."""
    if "tuned" in decided:
        yield tuned_line(views, decided["tuned"], split)
    if "calibration" in decided:
        errors = decided["calibration"]["errors"]
        for level, temperature in enumerate(decided["calibration"]["temperatures"]):
            before, after = (100 * errors[when][level]["all"] for when in ("before", "after"))
            yield f"level {level}: temperature {temperature:.2f}, ECE {before:.2f}, after it {after:.2f}"
    if "confidence" in decided:
        entry = decided["confidence"]
        yield (
            f"confidence {entry['confidence']:g}: {100 * entry['risk']:.1f} % of {entry['documents']:,} "
            f"documents have a wrong node ({100 * entry['risk_before']:.1f} % before the cut), "
            f"{100 * entry['shortened']:.1f} % have a shortened path; mean depth {entry['depth']:.2f} of "
            f"{entry['depth_before']:.2f} levels"
        )


def draw(reliability: Mapping[str, Sequence[Reliability]], path: Path) -> None:
    """Write `path`.svg and `path`.png: for each level mean score and share of labels of each bin.

    Args:
        reliability: of each level, under `before` and `after` its temperature.
        path: without suffix.
    """
    from matplotlib.figure import Figure  # half a second to load

    levels = len(reliability["before"])
    figure = Figure(figsize=(_INCHES * levels, _INCHES + 0.5), layout="constrained")
    axes = figure.subplots(1, levels, squeeze=False, sharey=True)[0]
    for number, axis in enumerate(axes):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        for when, marker in (("before", "o"), ("after", "s")):
            of_level = reliability[when][number]
            label = f"{when}: ECE {100 * of_level.error.all:.2f}"
            axis.plot(*_points(of_level.bins), marker=marker, markersize=3, linewidth=1, label=label)
        axis.set(title=f"level {number}", xlabel="mean score", xlim=(0, 1), ylim=(0, 1))
        axis.legend(fontsize="x-small", title="temperature", title_fontsize="x-small", loc="upper left")
    axes[0].set_ylabel("share of labels")
    for suffix in (".svg", ".png"):
        target = path.with_name(path.name + suffix)
        with new_file(target) as temporary:
            figure.savefig(temporary, format=suffix[1:], dpi=200)


def _points(bins: Sequence[Bin]) -> tuple[list[float], list[float]]:
    return [each.score for each in bins], [each.share for each in bins]
