"""Predictions as Parquet: a folder for each view, in shards, so that memory stays bounded.

The files are `view=NAME/part-00000.parquet` and so on, with the columns document, node, score, predicted and
target. pandas reads the folder as one table, with `view` as another column. Pairs with a score below the
floor are left out unless the node is predicted or gold: F1 scores can be computed from the files. A document
without any such pair keeps the pair with its highest score: every document of the split is in the files.
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
    """Receives each batch of `score`; writes a shard when ROWS_PER_SHARD rows are waiting."""

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
            folder: an existing folder for the views' folders.
            documents, nodes: ids by position in the split and in the taxonomy.
            view: the view to write; None for all.
            threshold: a node is predicted when its score is at least this.
            floor: pairs with a lower score are left out, unless they are predicted, gold or their document's
                only pair.
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
        for view, of_view in scores.items():
            if self.view in (None, view):
                self._take(view, positions, of_view.cpu(), gold)

    def close(self) -> dict[str, Any]:
        """Write the waiting rows; return the result's entry: floor, and rows and shards by view."""
        for view, tables in self.waiting.items():
            if tables:
                self._write(view)
        return {"floor": self.floor, "rows": self.rows, "shards": self.shards}

    def _take(self, view: str, positions: np.ndarray, scores: Tensor, gold: Tensor) -> None:
        """Add one view's rows of a batch to those that wait."""
        predicted = scores >= self.threshold
        kept = (scores >= self.floor) | predicted | gold
        without = torch.nonzero(~kept.any(dim=1)).squeeze(1)
        kept[without, scores[without].argmax(dim=1)] = True
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
