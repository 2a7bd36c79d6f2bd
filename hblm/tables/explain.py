"""The difference of two rows in words and numbers: size, tests, parts of the nodes, and settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import isnan
from typing import NamedTuple

import numpy as np
import pandas as pd

from hblm.errors import ConfigError, nearest
from hblm.tables.documents import can_compare, compare_documents
from hblm.tables.footnotes import MADE_WITH
from hblm.tables.labels import labels_of, natural
from hblm.tables.metric import Metric
from hblm.tables.p_values import name_of_test, p_in_words, source_of_p
from hblm.tables.pairs import shared_runs
from hblm.tables.result_columns import ENCODER, count_nodes
from hblm.tables.significance import effect, paired_permutation, runs_needed, smallest_p
from hblm.tables.table import NOTHING, Cell, Column, Row, Run, Table, plural


class Side(NamedTuple):
    """One of the two rows that are compared, in one column.

    Attributes:
        row, cell: of the table.
        measurements: of the cell's runs, a row each.
    """

    row: Row
    cell: Cell
    measurements: pd.DataFrame


def find_row(table: Table, text: str) -> Row:
    """Return the row with this text ("dual, top_down"), or the only one with this label.

    Raises:
        ConfigError: no row, or several.
    """
    exact = [row for row in table.rows if row.text == text]
    matches = exact or [row for row in table.rows if text in row.labels]
    if len(matches) == 1:
        return matches[0]
    if matches:
        listed = "; ".join(row.text for row in matches)
        raise ConfigError(
            f'compare={text} names {len(matches)} rows ({listed}); write compare=["A, B","C, D"]'
        )
    known = [row.text for row in table.rows]
    raise ConfigError(
        f"compare={text}: no row has that label{nearest(text, known)}; there are {'; '.join(known)}"
    )


def explain(
    table: Table,
    shown: pd.DataFrame,
    metrics: Sequence[Metric],
    rows: tuple[Row, Row],
    keys: Sequence[str],
    alpha: float,
) -> list[str]:
    """Return lines on how the second row differs from the first, column by column.

    Args:
        table: with both rows.
        shown: the measurements that it shows, as `tabulate` returns them.
        metrics: of the table's columns.
        rows: the two.
        keys: in which the runs may differ.
        alpha: the level of the tests.
    """
    lines = [f"{rows[1].text} compared with {rows[0].text}"]
    by_file = shown.drop_duplicates(["file", "metric"]).set_index(["metric", "file"])
    texts = [metric.text for metric in metrics]
    for column in table.columns:
        missing = [row.text for row in rows if (row, column) not in table.cells]
        if missing:
            lines.append(f"{column.text}: no result of {' and '.join(missing)}.")
            continue
        at = texts.index(column.metric)
        cells = [table.cells[row, column] for row in rows]
        a, b = (
            Side(row, cell, by_file.loc[at].loc[[run.file for run in cell.runs]])
            for row, cell in zip(rows, cells, strict=True)
        )
        lines += _column(table, column, metrics[at], a, b, alpha)
        settings = _differing_settings(a.measurements, b.measurements, keys)
        lines += [] if settings in lines else [settings]
    return lines


def _column(table: Table, column: Column, metric: Metric, a: Side, b: Side, alpha: float) -> Iterator[str]:
    """Yield the means, and the tests over the seeds and documents that both have."""
    figures = [f"{side.row.text} {table.figure(column, side.cell.mean, side.cell.std)}" for side in (a, b)]
    yield f"{column.text}: {figures[0]} ({_seeds(a.cell)}), {figures[1]} ({_seeds(b.cell)})."
    if a.cell.dataset != b.cell.dataset:
        yield f"These are on different data ({a.cell.dataset}; {b.cell.dataset}) and cannot be compared."
        return
    pairs = shared_runs(b.cell, a.cell)
    if pairs:
        of_b, of_a = ([run.value for run in side] for side in zip(*pairs, strict=True))
        yield _over_seeds(column, of_b, of_a, b.row.text, alpha)
        yield from _over_documents(column, metric, pairs, a, b)
    else:
        difference = column.scale * (b.cell.mean - a.cell.mean)
        yield (
            f"The means differ by {difference:+.2f}{column.unit}. No seed is shared, so there is no "
            "paired test."
        )
    yield from _by_part(metric, a.measurements, b.measurements)


def _seeds(cell: Cell) -> str:
    return f"{plural(len(cell.runs), 'seed')}: {', '.join(cell.seeds)}"


def _over_seeds(column: Column, of_b: list[float], of_a: list[float], name: str, alpha: float) -> str:
    """Return the difference over shared seeds, its test and the effect size; `name` is b's."""
    size, n, scale = effect(of_b, of_a), len(of_b), column.scale
    test = name_of_test(n)
    p = float(paired_permutation(np.subtract([of_b], [of_a]))[0])
    better = sum((y > x) if column.higher_is_better else (y < x) for y, x in zip(of_b, of_a, strict=True))
    interval = (
        "" if isnan(size.low) else f" [95 % interval {scale * size.low:+.2f}, {scale * size.high:+.2f}]"
    )
    needed = runs_needed(alpha)
    hint = f"; {needed} seeds could reach {alpha:g}" if smallest_p(n) > alpha and needed else ""
    spread = "not defined (the differences are all the same)" if isnan(size.d_z) else f"{size.d_z:.2f}"
    return (
        f"Over {plural(n, 'shared seed')} the difference is "
        f"{scale * size.difference:+.2f}{column.unit}{interval}; {name} is better with {better} of {n}. "
        f"{test[0].upper()}{test[1:]}: {p_in_words(p, smallest_p(n), source_of_p(test, n))}{hint}. "
        f"Effect size: Cohen's d_z {spread}; a run of {name} has a higher score than one of the "
        f"other with probability {size.superiority:.2f}."
    )


def _over_documents(
    column: Column, metric: Metric, pairs: Sequence[tuple[Run, Run]], a: Side, b: Side
) -> Iterator[str]:
    """Yield the difference over documents and its tests; nothing where predictions do not give the metric."""
    if not can_compare(metric):
        return
    files = [(run_b.file, run_a.file) for run_b, run_a in pairs]
    views = (str(b.measurements["view"].iloc[0]), str(a.measurements["view"].iloc[0]))
    n_nodes = count_nodes(a.measurements["levels"].iloc[0])
    difference = compare_documents(files, views, metric.score, n_nodes)
    if difference is None:
        yield (
            "Over documents: not all of these runs have predictions of these views "
            "(evaluate with predictions=true)."
        )
        return
    scale = column.scale
    yield (
        f"Over {difference.documents:,} documents, mean of {plural(len(files), 'seed')}: "
        f"{scale * difference.difference:+.2f}{column.unit} "
        f"[95 % interval {scale * difference.low:+.2f}, {scale * difference.high:+.2f}]; paired bootstrap "
        f"{p_in_words(difference.p_bootstrap)}, approximate randomisation "
        f"{p_in_words(difference.p_randomisation)} ({difference.resamples:,} resamples each). "
        "These tests are about other documents of the same kind, not about other seeds."
    )


def _by_part(metric: Metric, a: pd.DataFrame, b: pd.DataFrame) -> Iterator[str]:
    """Yield the difference by level, and by the number of training documents of a node."""
    score = metric.score
    if metric.split is None or "." in score:
        return
    for kind, pattern in (
        ("level", rf"level_(\d+)\.{score}"),
        ("nodes with N training documents", rf"frequency_(.+)\.{score}"),
    ):
        parts = []
        for name in a.columns:
            match = re.fullmatch(pattern, str(name))
            if match and a[name].notna().all() and b[name].notna().all():
                parts.append((match[1], f"{match[1]}: {100 * (b[name].mean() - a[name].mean()):+.2f}"))
        if parts:
            parts.sort(key=lambda part: [int(number) for number in re.findall(r"\d+", part[0])])
            yield f"Difference of {metric.name} by {kind}: {'; '.join(text for _, text in parts)}."


def _differing_settings(a: pd.DataFrame, b: pd.DataFrame, keys: Sequence[str]) -> str:
    """Return a sentence on what the runs differ in besides their seeds: the difference may come from it."""
    differing = []
    for name in dict.fromkeys((*keys, *MADE_WITH)):
        columns = [a[name], b[name]]
        if name in (*MADE_WITH, *ENCODER):  # not every result records these
            columns = [column.dropna() for column in columns]
            if any(column.empty for column in columns):
                continue
        values = [", ".join(sorted(set(labels_of(column)), key=natural)) for column in columns]
        if values[0] != values[1]:
            differing.append(
                f"{name} {' / '.join(text.replace(NOTHING, 'without effect') for text in values)}"
            )
    commits = [sorted(set(one["git_commit"].dropna().str[:10])) for one in (a, b)]
    if commits[0] != commits[1]:
        differing.append(f"commit {', '.join(commits[0]) or '?'} / {', '.join(commits[1]) or '?'}")
    if not differing:
        return "The runs differ in no other setting than these labels."
    return f"The runs differ in: {'; '.join(differing)}."
