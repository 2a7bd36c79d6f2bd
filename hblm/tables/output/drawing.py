"""Style of all figures, labels that the font can show, and figures as SVG and PNG bytes.

Colours are Okabe and Ito's (2008), which colour-blind readers can distinguish; markers and dashes distinguish
the series in black and white. The same figure gives the same bytes each time.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
_DPI = 200  # of the PNG
_LABEL = 40  # characters of a label that are shown
_MISSING = "\N{REPLACEMENT CHARACTER}"

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
    """One figure in both formats."""

    svg: bytes
    png: bytes


def style_of(number: int) -> dict[str, Any]:
    """Return colour, marker and dashes of a series; 7 colours, 9 markers and 4 dashes repeat."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
    }


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Use the style of all figures, whatever the user's own matplotlib settings are."""
    import matplotlib

    style: Any = {**matplotlib.rcParamsDefault, **_STYLE, "backend": "agg"}
    with matplotlib.rc_context(style):
        yield


def drawing_of(figure: Any) -> Drawing:
    """Return a matplotlib figure as SVG and PNG, without the time and the version of matplotlib."""
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": "hblm"})
    figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    return Drawing(svg.getvalue(), png.getvalue())


def label_text(text: str) -> str:
    """Return a label on one line, at most 40 characters long, of characters that the font has."""
    from matplotlib import font_manager, ft2font

    font = ft2font.FT2Font(font_manager.findfont("DejaVu Sans"))
    known = font.get_charmap()
    plain = "".join(
        character if ord(character) in known and character.isprintable() else _MISSING
        for character in re.sub(r"\s+", " ", text)
    )
    return plain if len(plain) <= _LABEL else f"{plain[: _LABEL - 1]}…"
