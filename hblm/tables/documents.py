"""Kept predictions of two cells, brought together document by document for a test."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from hblm.errors import DataError
from hblm.runs.paths import PREDICTIONS
from hblm.tables.metric import Metric
from hblm.tables.significance import RESAMPLES, Counts, OverDocuments, counts, over_documents

SCORES = ("micro_f1", "macro_f1", "samples_f1")  # that are counted again from predictions
_COLUMNS = ["document", "node", "predicted", "target"]


def predictions_of(file: str | Path) -> Path:
    """Return where an evaluation's predictions lie, if it kept them: beside its result."""
    return Path(file).with_suffix(PREDICTIONS)


def can_compare(metric: Metric) -> bool:
    """Return whether a metric can be computed from predictions."""
    return metric.split is not None and not metric.closed and metric.score in SCORES


def compare_documents(
    pairs: Sequence[tuple[str, str]],
    views: tuple[str, str],
    score: str,
    n_nodes: int,
    resamples: int = RESAMPLES,
) -> OverDocuments | None:
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
    found = [(_read(a), _read(b)) for a, b in folders]
    documents = set().union(*(one["document"].unique() for both in found for one in both))
    places = {document: at for at, document in enumerate(sorted(documents))}
    gold = _gold(found[0][0])
    names = sorted({node for both in found for one in both for node in one["node"].unique()})
    nodes = {node: at for at, node in enumerate(names)}
    counted = []
    for (folder_a, folder_b), both in zip(folders, found, strict=True):
        for folder, one in zip((folder_a, folder_b), both, strict=True):
            if _gold(one) != gold:
                raise DataError(f"{folder}: predictions for other documents or labels than {folders[0][0]}")
        counted.append(tuple(_counts(one, places, nodes, n_nodes) for one in both))
    return over_documents([a for a, _ in counted], [b for _, b in counted], score, resamples=resamples)


@functools.lru_cache(maxsize=8)
def _read(folder: Path) -> pd.DataFrame:
    """Return the pairs of document and node that are predicted or gold."""
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


def _counts(frame: pd.DataFrame, places: dict[str, int], nodes: dict[str, int], n_nodes: int) -> Counts:
    return counts(
        frame["document"].map(places).to_numpy(np.int64),
        frame["node"].map(nodes).to_numpy(np.int64),
        frame["predicted"].to_numpy(bool),
        frame["target"].to_numpy(bool),
        len(places),
        max(n_nodes, len(nodes)),
    )
