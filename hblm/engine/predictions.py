"""Every document's scores as Parquet: a folder a view, in shards, so that memory stays bounded.

`view=NAME/part-00000.parquet` and so on, with the columns document, node, score, predicted and target;
pandas and others read the folder as one table, with `view` as one more column. Pairs whose score is below the
floor are left out unless the node is predicted or gold, so that F1 scores can be computed again from the
file. A document without any such pair keeps the one with its highest score, so every document of the split is
in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

ROWS_PER_SHARD = 1_000_000


DEFAULT_FLOOR = 0.01


class PredictionWriter:
    """Takes each batch (see `score`); writes a shard when it holds ROWS_PER_SHARD rows."""

    def __init__(
        self,
        folder: Path,
        *,
        documents: Sequence[str],
        nodes: Sequence[str],
        view: str | None,
        threshold: float,
        floor: float,
    ) -> None:
        """Prepare for one split.

        Args:
            folder: where the views' folders go; it must be there.
            documents, nodes: ids by position in the split and in the taxonomy.
            view: the one to write; None for all.
            threshold: from which score on a node is predicted.
            floor: the score below which a pair is left out if it is neither predicted nor gold, nor its
                document's only one.
        """
        self.folder, self.view = folder, view
        self.documents, self.nodes = pa.array(documents, pa.string()), pa.array(nodes, pa.string())
        self.threshold, self.floor = threshold, floor
        self.waiting: dict[str, list[pa.Table]] = {}
        self.rows: dict[str, int] = {}
        self.shards: dict[str, int] = {}

    def __call__(self, positions: np.ndarray, scores: Mapping[str, Tensor], targets: Tensor) -> None:
        """Take a batch: positions in the split, scores by view, targets."""
        gold = targets.bool().cpu()
        for view, found in scores.items():
            if self.view in (None, view):
                self._take(view, positions, found.cpu(), gold)

    def close(self) -> dict[str, Any]:
        """Write what waits; return what was written, for the result."""
        for view, tables in self.waiting.items():
            if tables:
                self._write(view)
        return {"floor": self.floor, "rows": self.rows, "shards": self.shards}

    def _take(self, view: str, positions: np.ndarray, scores: Tensor, gold: Tensor) -> None:
        predicted = scores >= self.threshold
        kept = (scores >= self.floor) | predicted | gold
        bare = torch.nonzero(~kept.any(dim=1)).squeeze(1)
        kept[bare, scores[bare].argmax(dim=1)] = True
        rows, columns = torch.nonzero(kept, as_tuple=True)
        table = pa.table(
            {
                "document": self.documents.take(pa.array(positions[rows.numpy()])),
                "node": pa.DictionaryArray.from_arrays(pa.array(columns.numpy(), pa.int32()), self.nodes),
                "score": scores[rows, columns].numpy(),
                "predicted": predicted[rows, columns].numpy(),
                "target": gold[rows, columns].numpy(),
            }
        )
        self.waiting.setdefault(view, []).append(table)
        self.rows[view] = self.rows.get(view, 0) + len(table)
        if sum(map(len, self.waiting[view])) >= ROWS_PER_SHARD:
            self._write(view)

    def _write(self, view: str) -> None:
        number = self.shards.get(view, 0)
        path = self.folder / f"view={view}" / f"part-{number:05d}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.concat_tables(self.waiting[view]), path, write_page_checksum=True)
        self.waiting[view] = []
        self.shards[view] = number + 1
