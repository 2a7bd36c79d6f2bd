"""`python -m hblm.aggregate`: results to tables, tests and figures. No torch."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from hblm.config.aggregate import FIGURES, AggregateConfig
from hblm.config.grid import read_sweep
from hblm.config.groups import OptionGroups
from hblm.console import VisibleConsole, log
from hblm.errors import DataError
from hblm.files import cell_text, new_file, remove_stale, write_text
from hblm.tables.collect import PassedOver, Wanted, collect, count_nodes
from hblm.tables.comparisons import NO_SEED, DocumentP, OverDocuments, judge, rank_over_datasets, shared_runs
from hblm.tables.documents import can_compare, compare_documents
from hblm.tables.explain import explain, find_row
from hblm.tables.metric import Metric, metric_of
from hblm.tables.output.text import (
    comparisons_csv,
    foot,
    latex,
    markdown,
    plain_text,
    reference_notes,
    table_csv,
    terminal,
)
from hblm.tables.pivot import Ask, tabulate
from hblm.tables.references import expected, published
from hblm.tables.table import Cell, Column, Table, plural

_LISTED = 10  # files passed over that are named on the terminal


_SUFFIXES = {"markdown": ".md", "csv": ".csv", "latex": ".tex", "html": ".html"}


@dataclass(frozen=True)
class Sweep:
    """What a sweep file says of its table."""

    file: str = ""
    name: str | None = None
    table: Mapping[str, list[str]] = field(default_factory=dict)
    expect: Any = None


def run(config: AggregateConfig) -> None:
    """Read the results, print the table, and write its files."""
    report(config, _sweep(config.sweep))


def report(config: AggregateConfig, sweep: Sweep, missing: Sequence[str] = ()) -> None:
    """Make the table of a configuration and a sweep; `missing` are cells that are not in it, and why."""
    gc.disable()  # there are no reference cycles to collect; looking for them takes a third of the time
    try:
        _aggregate(config, sweep, missing)
    finally:
        gc.enable()


def _aggregate(config: AggregateConfig, sweep: Sweep, missing: Sequence[str]) -> None:
    ask = _ask(config, sweep)
    frame = collect(config.results, None if config.frame else _wanted(ask.metrics))
    _tell_passed_over(frame.attrs["passed_over"])
    if frame.empty:
        where, n_results = ", ".join(config.results), frame.attrs["results"]
        if n_results:
            asked = ", ".join(ask.metrics)
            raise DataError(f"none of {plural(n_results, 'result')} in {where} has {asked}")
        raise DataError(f"no results in {where}")
    table, shown = tabulate(frame, ask)
    metrics = [metric_of(text) for text in ask.metrics]
    if config.test != "none":
        judge(table, config.alpha, _over_documents(metrics, shown) if config.test == "documents" else None)
    if missing:
        more = f", and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        table.caption.append(f"Not in this table: {'; '.join(missing[:_LISTED])}{more}.")
    rankings = rank_over_datasets(table, config.alpha)
    if config.published:
        table.references += published(table, _nodes(shown))
    if sweep.expect:
        table.references += expected(table, sweep.expect, sweep.file)
    if config.compare:
        a, b = (find_row(table, text) for text in config.compare)
        table.explanation = explain(table, shown, metrics, a, b, config.alpha)
    _show(table)
    folder = Path(config.output_dir) / "tables"
    remove_stale(folder)
    name = config.name or sweep.name or "table"
    pictures: dict[str, bytes] = {}
    wanted = FIGURES if "all" in config.figures else config.figures
    if wanted:
        from hblm.tables.output.panels import draw  # matplotlib takes a second to load

        logging.getLogger("matplotlib").setLevel(logging.WARNING)
        for figure, caption, drawing in draw(wanted, table, shown, frame, metrics, rankings):
            for suffix, content in ((".svg", drawing.svg), (".png", drawing.png)):
                _write(folder / f"{name}.{figure}{suffix}", content)
            pictures[caption] = drawing.svg
    _write_table(table, config, folder, name, pictures)
    _write_frame(frame, config, folder, name)


def _wanted(metrics: Sequence[str]) -> Wanted:
    """Return which rows of a result the metrics need: of ten thousand results, reading is the work."""
    asked = [metric_of(text) for text in metrics]
    splits = {metric.split for metric in asked}
    if None in splits:  # of the run itself, whatever it was scored on
        return lambda split, view, closed: True
    views = {view for metric in asked for view in metric.views}
    ways = {metric.closed for metric in asked}
    return lambda split, view, closed: split in splits and view in views and closed in ways


def _ask(config: AggregateConfig, sweep: Sweep) -> Ask:
    """Return what is to be shown: of the command line, else of the sweep file, else the default."""
    ask = Ask()
    rows = config.rows if config.rows is not None else sweep.table.get("rows", ask.rows)
    columns = config.columns if config.columns is not None else sweep.table.get("columns", ask.columns)
    metrics = config.metric if config.metric is not None else sweep.table.get("metric", ask.metrics)
    where: dict[str, list[str]] = {}
    for item in config.where:
        name, _, values = item.partition(":")
        where.setdefault(name, []).extend(values.split("|"))
    return Ask(
        rows=list(dict.fromkeys(rows)),
        columns=list(dict.fromkeys(columns)),
        metrics=list(dict.fromkeys(metrics)),
        where=where,
        confidence=config.confidence,
        interval=config.interval,
        title=config.title or (f"Results of {sweep.name}" if sweep.name else "Results"),
    )


def _sweep(given: str | None) -> Sweep:
    """Read what a sweep file says of its table, and the figures it expects.

    Raises:
        ConfigError: no such file, or one that says something else there.
    """
    if given is None:
        return Sweep()
    file = read_sweep(given, OptionGroups())
    table = {name: asked for name, asked in vars(file.node.table).items() if asked}
    return Sweep(str(file.file), file.name, table, file.node.expect)


def _over_documents(metrics: list[Metric], shown: pd.DataFrame) -> OverDocuments:
    """Return a test of two cells over documents, by the predictions beside their results."""
    by_text = {metric.text: (at, metric) for at, metric in enumerate(metrics)}
    rows = shown.set_index(["metric", "file"])[["view", "levels"]]

    def test(a: Cell, b: Cell, column: Column) -> DocumentP:
        at, metric = by_text[column.metric]
        if not can_compare(metric):
            return DocumentP(nan, 0, f"{metric.text} cannot be computed from predictions")
        pairs = shared_runs(a, b)
        if not pairs:
            return DocumentP(nan, 0, NO_SEED)
        of_a, of_b = (rows.loc[(at, run.file)] for run in pairs[0])
        files = [(one.file, other.file) for one, other in pairs]
        views = (str(of_a["view"]), str(of_b["view"]))
        found = compare_documents(files, views, metric.score, count_nodes(of_a["levels"]))
        if found is None:
            return DocumentP(nan, 0, "not all of these runs have predictions (predictions=true)")
        return DocumentP(found.p_randomisation, found.documents)

    return test


def _nodes(shown: pd.DataFrame) -> dict[str, int]:
    """Return how many nodes each dataset has."""
    told = shown.drop_duplicates("dataset")
    return {
        str(name): count_nodes(levels) for name, levels in zip(told["dataset"], told["levels"], strict=True)
    }


def _tell_passed_over(passed_over: list[PassedOver]) -> None:
    for file, why in passed_over[:_LISTED]:
        log.warning("passed over %s: %s", plain_text(str(file)), plain_text(why))
    if len(passed_over) > _LISTED:
        log.warning(
            "and %d more; hblm.results(...).attrs['passed_over'] names all", len(passed_over) - _LISTED
        )


def _show(table: Table) -> None:
    console = VisibleConsole()
    console.print(terminal(table))
    for sentence in (*table.caption, *foot(table), *reference_notes(table), *table.explanation):
        console.print(plain_text(sentence))


def _write_table(
    table: Table, config: AggregateConfig, folder: Path, name: str, pictures: Mapping[str, bytes]
) -> None:
    from hblm.tables.output.html import page

    makers: dict[str, Callable[[Table], str]] = {
        "markdown": markdown,
        "csv": table_csv,
        "latex": latex,
        "html": lambda table: page(table, pictures),
    }
    for form in config.formats:
        write_text(folder / f"{name}{_SUFFIXES[form]}", makers[form](table))
        print(f"{form:<9} {folder / (name + _SUFFIXES[form])}")
    if table.comparisons:
        write_text(folder / f"{name}.comparisons.csv", comparisons_csv(table.comparisons))
        print(f"{'tests':<9} {folder / (name + '.comparisons.csv')}")
    if pictures:
        print(f"{'figures':<9} {plural(len(pictures), 'figure')}, {folder / name}.*.svg and .png")


def _write_frame(frame: pd.DataFrame, config: AggregateConfig, folder: Path, name: str) -> None:
    """Write all results as one tidy file; a column of several types becomes text."""
    if not config.frame:
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
    for form in config.frame:
        target = folder / f"{name}.results.{form}"
        with new_file(target) as temporary:
            write: Any = pq.write_table if form == "parquet" else pa_csv.write_csv
            of_form = plain if form == "parquet" else as_text
            write(pa.Table.from_pandas(of_form, preserve_index=False), str(temporary))
        print(f"{'results':<9} {target}")


def _write(target: Path, content: bytes) -> None:
    with new_file(target) as temporary:
        temporary.write_bytes(content)
