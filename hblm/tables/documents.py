"""Predictions that evaluations wrote, and the test of two cells over their documents."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from hblm.errors import DataError
from hblm.runs.paths import PREDICTIONS
from hblm.tables.comparisons import CellTest, PairTest
from hblm.tables.document_tests import RESAMPLES, Counts, DocumentDifference, counts, document_difference
from hblm.tables.metric import Metric
from hblm.tables.pairs import NO_SEED, shared_runs
from hblm.tables.result_columns import count_nodes
from hblm.tables.result_scores import RAW
from hblm.tables.table import Cell, Column

_SCORES = ("micro_f1", "macro_f1", "samples_f1")  # that predictions give
_COLUMNS = ["document", "node", "predicted", "target"]


def predictions_of(file: str | Path) -> Path:
    """Return the folder of an evaluation's predictions, which is beside its result if it wrote any."""
    return Path(file).with_suffix(PREDICTIONS)


def can_compare(metric: Metric) -> bool:
    """Return whether a metric can be computed from predictions."""
    return metric.split is not None and metric.consistency == RAW and metric.score in _SCORES


def document_test(metrics: Sequence[Metric], shown: pd.DataFrame) -> CellTest:
    """Return a test of two cells over documents.

    Args:
        metrics: of the table's columns.
        shown: the measurements that the table shows.
    """
    by_text = {metric.text: (at, metric) for at, metric in enumerate(metrics)}
    rows = shown.set_index(["metric", "file"])[["view", "levels"]]

    def test(a: Cell, b: Cell, column: Column) -> PairTest:
        at, metric = by_text[column.metric]
        if not can_compare(metric):
            return PairTest(nan, 0, f"{metric.text} cannot be computed from predictions")
        pairs = shared_runs(a, b)
        if not pairs:
            return PairTest(nan, 0, NO_SEED)
        of_a, of_b = (rows.loc[(at, run.file)] for run in pairs[0])
        files = [(one.file, other.file) for one, other in pairs]
        views = (str(of_a["view"]), str(of_b["view"]))
        difference = compare_documents(files, views, metric.score, count_nodes(of_a["levels"]))
        if difference is None:
            return PairTest(nan, 0, "not all of these runs have predictions (predictions=true)")
        return PairTest(difference.p_randomisation, difference.documents)

    return test


def compare_documents(
    pairs: Sequence[tuple[str, str]],
    views: tuple[str, str],
    score: str,
    n_nodes: int,
    resamples: int = RESAMPLES,
) -> DocumentDifference | None:
    """Test the difference of two models over documents, by the predictions that evaluations kept.

    Args:
        pairs: the result files of a and b, seed by seed.
        views: which predictions of a and of b.
        score: micro_f1, macro_f1 or samples_f1.
        n_nodes: of the label tree.
        resamples: of the bootstrap, and of the randomisation.

    Returns:
        The test over the mean of the seeds; None where predictions of a model are missing.

    Raises:
        DataError: the two models did not predict for the same documents, or predictions are damaged.
    """
    folders = [
        (predictions_of(a) / f"view={views[0]}", predictions_of(b) / f"view={views[1]}") for a, b in pairs
    ]
    if not folders or not all(folder.is_dir() for both in folders for folder in both):
        return None
    frames = [(read_predictions(a), read_predictions(b)) for a, b in folders]
    documents = set().union(*(frame["document"].unique() for pair in frames for frame in pair))
    document_at = {document: at for at, document in enumerate(sorted(documents))}
    nodes = sorted({node for pair in frames for frame in pair for node in frame["node"].unique()})
    node_at = {node: at for at, node in enumerate(nodes)}
    gold = _gold(frames[0][0])
    of_models: tuple[list[Counts], list[Counts]] = ([], [])
    for both, pair in zip(folders, frames, strict=True):
        for folder, frame, of_model in zip(both, pair, of_models, strict=True):
            if _gold(frame) != gold:
                raise DataError(f"{folder}: predictions for other documents or labels than {folders[0][0]}")
            of_model.append(_counts(frame, document_at, node_at, n_nodes))
    return document_difference(*of_models, score, resamples=resamples)


@functools.lru_cache(maxsize=8)
def read_predictions(folder: Path) -> pd.DataFrame:
    """Return the pairs of document and node that are predicted or gold.

    Raises:
        DataError: the files are damaged.
    """
    try:
        table = pq.read_table(folder, columns=_COLUMNS, partitioning=None, page_checksum_verification=True)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder}: predictions that cannot be read: {error}") from None
    frame: pd.DataFrame = table.to_pandas()
    frame["node"] = frame["node"].astype(str)
    return frame


def _gold(frame: pd.DataFrame) -> tuple[int, int]:
    """Return how many gold pairs there are, and a hash of them that does not depend on their order."""
    pairs = frame.loc[frame["target"].astype(bool), ["document", "node"]]
    return len(pairs), int(pd.util.hash_pandas_object(pairs, index=False).sum())


def _counts(
    frame: pd.DataFrame, document_at: dict[str, int], node_at: dict[str, int], n_nodes: int
) -> Counts:
    return counts(
        frame["document"].map(document_at).to_numpy(np.int64),
        frame["node"].map(node_at).to_numpy(np.int64),
        frame["predicted"].to_numpy(bool),
        frame["target"].to_numpy(bool),
        len(document_at),
        max(n_nodes, len(node_at)),
    )
