"""Sentences of a table's caption: mean, interval, definitions of the scores, and tests between rows."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import pandas as pd

from hblm.config.train import SINGLE_VIEW
from hblm.tables.metric import SCORES, Metric, column_of
from hblm.tables.p_values import name_of_test, smallest_p_of, source_of_p
from hblm.tables.pairs import Block
from hblm.tables.query import TableQuery
from hblm.tables.result_scores import TUNED
from hblm.tables.significance import runs_needed
from hblm.tables.table import Cell, Table, plural

_LISTED = 6  # columns that a sentence names


def describe_numbers(
    query: TableQuery, metrics: Sequence[Metric], shown: pd.DataFrame, cells: Iterable[Cell]
) -> list[str]:
    """Return sentences on mean, interval and the definitions of the scores."""
    counts = {len(cell.runs) for cell in cells}
    seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    method = "Student's t" if query.interval == "t" else "bootstrap, percentiles"
    percent = any(column_of((), metric).percent for metric in metrics)
    sentences = [
        f"Mean ± standard deviation over seeds{', in percent' if percent else ''}; n = {seeds}. "
        f"Intervals of the mean: {100 * query.confidence:g} % ({method})."
    ]
    defined = {metric.score: metric for metric in metrics if metric.definition}
    for metric in {metric.definition: metric for metric in defined.values()}.values():
        name = SCORES[re.sub(r"^level_\d+\.", "", metric.score)][0]
        sentences.append(f"{name}: {metric.definition}.")
    ways = {metric.consistency for metric in metrics}
    if "raise" in ways:
        sentences.append("Closed: predictions are closed under ancestors before they are scored.")
    if "cap" in ways:
        sentences.append(
            "Capped: predicted nodes that lack a predicted ancestor are not counted as predicted."
        )
    if TUNED in ways:
        sentences.append(
            "Tuned: predictions at thresholds that the validation split chose, closed under ancestors."
        )
    views = set(shown["view"]) if "view" in shown.columns else set()
    if any(metric.view == "fused" and metric.split for metric in metrics) and {"fused", SINGLE_VIEW} <= views:
        sentences.append("Joint models and ensembles: the fused view; single models have one view.")
    return sentences


def describe_tests(
    table: Table, able: Sequence[Block], unable: Sequence[Block], alpha: float, *, over_documents: bool
) -> None:
    """Add sentences on what marks mean, and on columns in which no difference can be significant.

    Args:
        table: whose caption gets the sentences; the one on the whole table comes first.
        able: blocks in which a test can decide.
        unable: blocks in which none can.
        alpha: the level.
        over_documents: whether the tests are over documents.
    """
    if able:
        table.caption.append(_on_marks(table, able, alpha))
    n_datasets = Counter(block.column for block in (*able, *unable))
    columns_of: dict[str, list[str]] = defaultdict(list)  # the reason -> columns
    for block in unable:
        where = f" on {block.dataset}" if n_datasets[block.column] > 1 else ""
        columns_of[_limit(block, alpha, over_documents)].append(block.column.text + where)
    if unable and not able:
        table.caption.insert(0, _none_significant("this table", columns_of, alpha))
        return
    for limit, columns in columns_of.items():
        more = f" and {len(columns) - _LISTED} more" if len(columns) > _LISTED else ""
        table.caption.append(_none_significant(", ".join(columns[:_LISTED]) + more, [limit], alpha))


def _on_marks(table: Table, able: Sequence[Block], alpha: float) -> str:
    places = {(block.column, block.dataset) for block in able}
    tests = [one for one in table.comparisons if (one.column, one.dataset) in places]
    names = " or ".join(dict.fromkeys(one.test for one in tests if one.n))
    is_complete = all(block.n_tests == block.n_pairs for block in able)
    holm = "" if is_complete else "; Holm where a pair has no test"
    return (
        f"Bold: significantly better than every other row of its column on the same dataset ({names}, "
        f"p ≤ {alpha:g}, adjusted over all pairs of the column (Shaffer{holm})). Underlined, where no "
        "row is bold: no row is significantly better, and a test against the row with the best mean "
        "could have been significant."
    )


def _none_significant(where: str, limits: Iterable[str], alpha: float) -> str:
    return f"No difference in {where} can be significant (p ≤ {alpha:g}): {'; '.join(limits)}."


def _limit(block: Block, alpha: float, over_documents: bool) -> str:
    """Return which p a block can reach at best, and how many seeds it needs."""
    rows = f"{plural(len(block.rows), 'row')} ({plural(block.n_pairs, 'pair')})"
    needed = None if over_documents else runs_needed(alpha, block.n_pairs)
    need = f"{rows} need {needed} shared seeds" if needed else f"{rows} are too many to compare"
    if not block.n_tests:
        return f"no two rows share a seed, and {need}"
    least = smallest_p_of(block.most, over_documents=over_documents)
    source = source_of_p(name_of_test(block.most, over_documents=over_documents), block.most)
    adjusted = f" (adjusted {min(1.0, least * block.n_tests):.3g})" if block.n_tests > 1 else ""
    return f"with {source} p is at least {least:.3g}{adjusted}, and {need}"
