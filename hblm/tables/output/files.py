"""Files of a table: one for each format, the tests, the figures, and all results as one frame."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hblm.config.aggregate import FIGURES
from hblm.files import cell_text, new_file, write_text
from hblm.tables.metric import Metric
from hblm.tables.output.csv_text import comparisons_csv, table_csv
from hblm.tables.output.latex import latex
from hblm.tables.output.markdown import markdown
from hblm.tables.rankings import Ranking
from hblm.tables.table import Table, plural

_SUFFIXES = {"markdown": ".md", "csv": ".csv", "latex": ".tex", "html": ".html"}


def write_table(table: Table, formats: Sequence[str], target: Path, figures: Mapping[str, bytes]) -> None:
    """Write a table and its tests, and print the paths.

    Args:
        table: what is written.
        formats: of TABLE_FORMATS.
        target: folder and name, without a suffix.
        figures: SVG by caption, for the HTML page.
    """
    from hblm.tables.output.html import page

    makers: dict[str, Callable[[Table], str]] = {
        "markdown": markdown,
        "csv": table_csv,
        "latex": latex,
        "html": lambda table: page(table, figures),
    }
    for form in formats:
        _write_text(form, _with_suffix(target, _SUFFIXES[form]), makers[form](table))
    if table.comparisons:
        _write_text("tests", _with_suffix(target, ".comparisons.csv"), comparisons_csv(table.comparisons))
    if figures:
        print(f"{'figures':<9} {plural(len(figures), 'figure')}, {target}.*.svg and .png")


def write_figures(
    names: Sequence[str],
    target: Path,
    table: Table,
    shown: pd.DataFrame,
    frame: pd.DataFrame,
    metrics: Sequence[Metric],
    rankings: Sequence[Ranking],
) -> dict[str, bytes]:
    """Write figures as SVG and PNG, and return the SVG by caption.

    Args:
        names: of FIGURES, or all.
        target: folder and name, without a suffix.
        table, shown, frame, metrics, rankings: as `draw` takes them.
    """
    if not names:
        return {}
    from hblm.tables.output.panels import draw  # matplotlib takes a second to load

    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    figures = {}
    chosen = FIGURES if "all" in names else names
    for name, caption, drawing in draw(chosen, table, shown, frame, metrics, rankings):
        for suffix, content in ((".svg", drawing.svg), (".png", drawing.png)):
            with new_file(_with_suffix(target, f".{name}{suffix}")) as temporary:
                temporary.write_bytes(content)
        figures[caption] = drawing.svg
    return figures


def write_frame(frame: pd.DataFrame, formats: Sequence[str], target: Path) -> None:
    """Write all results as parquet or csv; a column of several types becomes text.

    Args:
        frame: of `collect`.
        formats: parquet, csv or both.
        target: folder and name, without a suffix.
    """
    if not formats:
        return
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    plain = frame.copy(deep=False)
    plain.attrs = {}
    for column in plain.columns:
        kind = pd.api.types.infer_dtype(plain[column], skipna=True)
        if kind.startswith("mixed") and kind != "mixed-integer-float":  # true and 1, too
            plain[column] = plain[column].map(str, na_action="ignore")
    as_text = plain.copy(deep=False)
    for column in plain.select_dtypes(["object", "string"]).columns:
        as_text[column] = plain[column].map(cell_text, na_action="ignore")
    for form in formats:
        path = _with_suffix(target, f".results.{form}")
        with new_file(path) as temporary:
            write: Any = pq.write_table if form == "parquet" else pa_csv.write_csv
            of_form = plain if form == "parquet" else as_text
            write(pa.Table.from_pandas(of_form, preserve_index=False), str(temporary))
        print(f"{'results':<9} {path}")


def _write_text(label: str, path: Path, text: str) -> None:
    write_text(path, text)
    print(f"{label:<9} {path}")


def _with_suffix(target: Path, suffix: str) -> Path:
    """Return the path with a suffix more; the name itself may have a dot."""
    return target.with_name(target.name + suffix)
