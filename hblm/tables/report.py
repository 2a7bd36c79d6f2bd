"""The body of `python -m hblm.aggregate`: results to tables, tests and figures. No torch."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from hblm.config.aggregate import AggregateConfig
from hblm.config.grid import read_sweep
from hblm.config.groups import OptionGroups
from hblm.console import log
from hblm.errors import DataError
from hblm.files import remove_stale
from hblm.tables.collect import collect
from hblm.tables.comparisons import compare_rows
from hblm.tables.documents import document_test
from hblm.tables.explain import explain, find_row
from hblm.tables.grouping import separating_keys
from hblm.tables.metric import Metric, metric_of
from hblm.tables.output.files import write_figures, write_frame, write_table
from hblm.tables.output.terminal import print_table
from hblm.tables.output.text import plain_text
from hblm.tables.pivot import tabulate
from hblm.tables.query import TableQuery, needed_rows
from hblm.tables.rankings import Ranking, rank_over_datasets
from hblm.tables.references import expected, published
from hblm.tables.result_columns import count_nodes
from hblm.tables.result_files import PassedOver
from hblm.tables.result_scores import all_rows
from hblm.tables.table import Table, plural

_LISTED = 10  # files passed over, and missing cells, that are named


@dataclass(frozen=True)
class Sweep:
    """The table of a sweep file.

    Attributes:
        file: the sweep file.
        name: of the sweep.
        table: rows, columns and metric, as far as the file sets them.
        expect: the figures that it expects, a list of entries.
    """

    file: str = ""
    name: str | None = None
    table: Mapping[str, list[str]] = field(default_factory=dict)
    expect: Any = None


def run(config: AggregateConfig) -> None:
    """Read the results, print the table, and write its files."""
    report(config, _read_sweep(config.sweep))


def report(config: AggregateConfig, sweep: Sweep, missing: Sequence[str] = ()) -> None:
    """Print and write the table of a configuration and a sweep.

    Args:
        config: of the program.
        sweep: whose table it is, for what the configuration leaves open.
        missing: cells of the sweep that have no result, with the reason.

    Raises:
        ConfigError: a key, metric, value or row that the results do not have.
        DataError: there are no results to show.
    """
    gc.disable()  # there are no reference cycles to collect; looking for them takes a third of the time
    try:
        query = _query(config, sweep)
        frame = _collect(config, query)
        table, shown = tabulate(frame, query)
        metrics = [metric_of(text) for text in query.metrics]
        rankings = _compare(table, config, metrics, shown, frame.attrs["keys"])
        _add_missing(table, missing)
        _add_references(table, shown, config, sweep)
        print_table(table)
        folder = Path(config.output_dir) / "tables"
        remove_stale(folder)
        target = folder / (config.name or sweep.name or "table")
        pictures = write_figures(config.figures, target, table, shown, frame, metrics, rankings)
        write_table(table, config.formats, target, pictures)
        write_frame(frame, config.frame, target)
    finally:
        gc.enable()


def _read_sweep(given: str | None) -> Sweep:
    """Return the table of a sweep file, and the figures that it expects.

    Raises:
        ConfigError: no such file, or one with other keys.
    """
    if given is None:
        return Sweep()
    file = read_sweep(given, OptionGroups())
    table = {name: values for name, values in vars(file.node.table).items() if values}
    return Sweep(str(file.file), file.name, table, file.node.expect)


def _query(config: AggregateConfig, sweep: Sweep) -> TableQuery:
    """Return what the table shows: as configured, else as the sweep has it, else the default."""
    default = TableQuery()
    rows = config.rows if config.rows is not None else sweep.table.get("rows", default.rows)
    columns = config.columns if config.columns is not None else sweep.table.get("columns", default.columns)
    metrics = config.metric if config.metric is not None else sweep.table.get("metric", default.metrics)
    where: dict[str, list[str]] = {}
    for item in config.where:
        name, _, values = item.partition(":")
        where.setdefault(name, []).extend(values.split("|"))
    return TableQuery(
        rows=list(dict.fromkeys(rows)),
        columns=list(dict.fromkeys(columns)),
        metrics=list(dict.fromkeys(metrics)),
        where=where,
        confidence=config.confidence,
        interval=config.interval,
        title=config.title or (f"Results of {sweep.name}" if sweep.name else "Results"),
    )


def _collect(config: AggregateConfig, query: TableQuery) -> pd.DataFrame:
    """Return the results, and log the files that were passed over.

    Raises:
        DataError: there are none, or none with the metrics.
    """
    frame = collect(config.results, all_rows if config.frame else needed_rows(query.metrics))
    _log_passed_over(frame.attrs["passed_over"])
    if frame.empty:
        places, n_results = ", ".join(config.results), frame.attrs["results"]
        if n_results:
            metrics = ", ".join(query.metrics)
            raise DataError(f"none of {plural(n_results, 'result')} in {places} has {metrics}")
        raise DataError(f"no results in {places}")
    return frame


def _log_passed_over(passed_over: Sequence[PassedOver]) -> None:
    for file, why in passed_over[:_LISTED]:
        log.warning("passed over %s: %s", plain_text(str(file)), plain_text(why))
    if len(passed_over) > _LISTED:
        log.warning(
            "and %d more; hblm.results(...).attrs['passed_over'] names all", len(passed_over) - _LISTED
        )


def _compare(
    table: Table,
    config: AggregateConfig,
    metrics: Sequence[Metric],
    shown: pd.DataFrame,
    options: Sequence[str],
) -> list[Ranking]:
    """Add tests, and the explanation of two rows, to the table; return the ranks over datasets."""
    if config.test != "none":
        over_documents = document_test(metrics, shown) if config.test == "documents" else None
        compare_rows(table, config.alpha, over_documents)
    if config.compare:
        first, second = (find_row(table, text) for text in config.compare)
        keys = [name for name in separating_keys(shown, options) if name != "dataset"]
        table.explanation = explain(table, shown, metrics, (first, second), keys, config.alpha)
    return rank_over_datasets(table, config.alpha)


def _add_missing(table: Table, missing: Sequence[str]) -> None:
    if missing:
        more = f", and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        table.caption.append(f"Not in this table: {'; '.join(missing[:_LISTED])}{more}.")


def _add_references(table: Table, shown: pd.DataFrame, config: AggregateConfig, sweep: Sweep) -> None:
    """Add published figures, and those that the sweep expects."""
    if config.published:
        own = shown[shown["trained_on"].isna()]  # published models were trained on the dataset
        levels = own.drop_duplicates("dataset").set_index("dataset")["levels"]
        table.references += published(table, levels.map(count_nodes).to_dict())
    if sweep.expect:
        table.references += expected(table, sweep.expect, sweep.file)
