"""One difference in words and numbers: how large, how sure, where it lies, and what the runs differ in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import isnan

import numpy as np
import pandas as pd

from hblm.errors import ConfigError, nearest
from hblm.tables.documents import can_compare, compare_documents
from hblm.tables.footnotes import MADE_WITH
from hblm.tables.grouping import separating_keys
from hblm.tables.labels import labels_of, natural
from hblm.tables.metric import Metric
from hblm.tables.p_values import name_of_test, p_in_words, source_of_p
from hblm.tables.pairs import shared_runs
from hblm.tables.result_columns import ENCODER, count_nodes
from hblm.tables.significance import effect, paired_permutation, runs_needed, smallest_p
from hblm.tables.table import NOTHING, Cell, Column, Row, Run, Table, plural


def find_row(table: Table, text: str) -> Row:
    """Return the row that a text names: all its labels ("dual, top_down"), or one that no other row has.

    Raises:
        ConfigError: no row, or several, with what there is.
    """
    exact = [row for row in table.rows if row.text == text]
    found = exact or [row for row in table.rows if text in row.labels]
    if len(found) == 1:
        return found[0]
    known = [row.text for row in table.rows]
    if found:
        listed = "; ".join(row.text for row in found)
        raise ConfigError(f'compare={text} names {len(found)} rows ({listed}); write compare=["A, B","C, D"]')
    raise ConfigError(
        f"compare={text}: no row has that label{nearest(text, known)}; there are {'; '.join(known)}"
    )


def explain(
    table: Table, shown: pd.DataFrame, metrics: Sequence[Metric], a: Row, b: Row, alpha: float
) -> list[str]:
    """Return the lines that tell how b differs from a, column by column.

    Args:
        table: that both rows stand in.
        shown: the results it shows, as `tabulate` returns them.
        metrics: of the table's columns.
        a, b: the rows.
        alpha: the level that is spoken of.
    """
    lines = [f"{b.text} compared with {a.text}"]
    compared = [name for name in separating_keys(shown, shown.attrs["keys"]) if name != "dataset"]
    by_file = shown.drop_duplicates(["file", "metric"]).set_index(["metric", "file"])
    texts = [metric.text for metric in metrics]
    for column in table.columns:
        cells = table.cells.get((a, column)), table.cells.get((b, column))
        where = column.text
        if cells[0] is None or cells[1] is None:
            missing = " and ".join(row.text for row, cell in zip((a, b), cells, strict=True) if cell is None)
            lines.append(f"{where}: no result of {missing}.")
            continue
        at = texts.index(column.metric)
        rows = [by_file.loc[at].loc[[run.file for run in cell.runs]] for cell in cells if cell]
        lines += _column(table, column, metrics[at], (a, b), (cells[0], cells[1]), rows, alpha)
        settings = _settings(rows, compared)
        lines += [] if settings in lines else [settings]
    return lines


def _column(
    table: Table,
    column: Column,
    metric: Metric,
    names: tuple[Row, Row],
    cells: tuple[Cell, Cell],
    rows: Sequence[pd.DataFrame],
    alpha: float,
) -> Iterator[str]:
    a, b = cells
    where = column.text
    figures = [table.figure(column, cell.mean, cell.std) for cell in cells]
    yield (
        f"{where}: {names[0].text} {figures[0]} ({_of_seeds(a)}), "
        f"{names[1].text} {figures[1]} ({_of_seeds(b)})."
    )
    if a.dataset != b.dataset:
        yield f"These are on different data ({a.dataset}; {b.dataset}) and cannot be compared."
        return
    scale, unit = (100, " points") if column.percent else (1, "")
    pairs = shared_runs(b, a)
    if not pairs:
        difference = scale * (b.mean - a.mean)
        yield f"The means differ by {difference:+.2f}{unit}. No seed is shared, so there is no paired test."
    else:
        of_b, of_a = ([run.value for run in side] for side in zip(*pairs, strict=True))
        yield _over_seeds(of_b, of_a, names[1].text, column.higher_is_better, scale, unit, alpha)
        yield from _over_documents(pairs, metric, rows, scale, unit)
    yield from _by_part(metric, rows)


def _of_seeds(cell: Cell) -> str:
    return f"{plural(len(cell.runs), 'seed')}: {', '.join(cell.seeds)}"


def _over_seeds(
    of_b: list[float], of_a: list[float], name: str, higher: bool, scale: int, unit: str, alpha: float
) -> str:
    size, n = effect(of_b, of_a), len(of_b)
    test = name_of_test(n)
    p = float(paired_permutation(np.subtract([of_b], [of_a]))[0])
    better = sum((x > y) if higher else (x < y) for x, y in zip(of_b, of_a, strict=True))
    interval = (
        "" if isnan(size.low) else f" [95 % interval {scale * size.low:+.2f}, {scale * size.high:+.2f}]"
    )
    told = (
        f"Over {plural(n, 'shared seed')} the difference is {scale * size.difference:+.2f}{unit}{interval}; "
        f"{name} is better with {better} of {n}. "
        f"{test[0].upper()}{test[1:]}: {p_in_words(p, smallest_p(n), source_of_p(test, n))}"
    )
    needed = runs_needed(alpha)
    if smallest_p(n) > alpha and needed:
        told += f"; {needed} seeds could reach {alpha:g}"
    spread = "not defined (the differences are all the same)" if isnan(size.d_z) else f"{size.d_z:.2f}"
    return (
        f"{told}. Effect size: Cohen's d_z {spread}; a run of {name} has a higher score than one of the "
        f"other with probability {size.superiority:.2f}."
    )


def _over_documents(
    pairs: Sequence[tuple[Run, Run]],
    metric: Metric,
    rows: Sequence[pd.DataFrame],
    scale: int,
    unit: str,
) -> Iterator[str]:
    if not can_compare(metric):
        return
    files = [(run_b.file, run_a.file) for run_b, run_a in pairs]
    views = (str(rows[1]["view"].iloc[0]), str(rows[0]["view"].iloc[0]))
    found = compare_documents(files, views, metric.score, count_nodes(rows[0]["levels"].iloc[0]))
    if found is None:
        yield (
            "Over documents: not all of these runs have predictions of these views "
            "(evaluate with predictions=true)."
        )
        return
    yield (
        f"Over {found.documents:,} documents, mean of {plural(len(files), 'seed')}: "
        f"{scale * found.difference:+.2f}{unit} "
        f"[95 % interval {scale * found.low:+.2f}, {scale * found.high:+.2f}]; paired bootstrap "
        f"{p_in_words(found.p_bootstrap)}, approximate randomisation "
        f"{p_in_words(found.p_randomisation)} ({found.resamples:,} resamples each). "
        "These tests speak of other documents, not of other seeds."
    )


def _by_part(metric: Metric, rows: Sequence[pd.DataFrame]) -> Iterator[str]:
    """Tell the difference by level and by how often a node occurs in training."""
    score = metric.score
    if metric.split is None or "." in score:
        return
    for kind, pattern in (
        ("level", rf"level_(\d+)\.{score}"),
        ("nodes with N training documents", rf"frequency_(.+)\.{score}"),
    ):
        parts = []
        for name in rows[0].columns:
            match = re.fullmatch(pattern, str(name))
            if match and rows[0][name].notna().all() and rows[1][name].notna().all():
                before, after = rows[0][name].mean(), rows[1][name].mean()
                parts.append((match[1], f"{match[1]}: {100 * (after - before):+.2f}"))
        if parts:
            parts.sort(key=lambda part: [int(number) for number in re.findall(r"\d+", part[0])])
            yield f"Difference of {metric.name} by {kind}: {'; '.join(text for _, text in parts)}."


def _settings(rows: Sequence[pd.DataFrame], compared: Sequence[str]) -> str:
    """Return a sentence on what the runs differ in besides their seeds: the difference may come from it."""
    told = []
    for name in dict.fromkeys((*compared, *MADE_WITH)):
        columns = [part[name] for part in rows]
        if name in (*MADE_WITH, *ENCODER):  # not every result records these
            columns = [column.dropna() for column in columns]
            if any(column.empty for column in columns):
                continue
        values = [", ".join(sorted(set(labels_of(column)), key=natural)) for column in columns]
        if values[0] != values[1]:
            told.append(f"{name} {' / '.join(text.replace(NOTHING, 'without effect') for text in values)}")
    commits = [sorted(set(part["git_commit"].dropna().str[:10])) for part in rows]
    if commits[0] != commits[1]:
        told.append(f"commit {', '.join(commits[0]) or '?'} / {', '.join(commits[1]) or '?'}")
    listed = "; ".join(told)
    return f"The runs differ in: {listed}." if told else "The runs differ in no setting but these labels."
