"""Every document's scores: what stands in the files, whatever the floor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hblm.engine.predictions import PredictionWriter

# the first document has a gold node, the second a predicted one, the third neither, nor a score at the floor
SCORES = torch.tensor([[0.01, 0.02, 0.30], [0.04, 0.60, 0.01], [0.02, 0.01, 0.03]])
TARGETS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


def written(folder: Path, *, floor: float, scores: torch.Tensor = SCORES) -> pd.DataFrame:
    """Return what is written of three documents in two batches, in another order than the split's."""
    writer = PredictionWriter(
        folder,
        documents=["d0", "d1", "d2"],
        nodes=["a", "b", "c"],
        view=None,
        threshold=0.5,
        floor=floor,
    )
    for positions in ([2, 0], [1]):
        writer(np.array(positions), {"single": scores[positions]}, TARGETS[positions])
    writer.close()
    return pd.read_parquet(folder / "view=single").astype({"node": str})


@pytest.mark.parametrize(
    ("floor", "pairs"),
    [
        (0.0, {f"d{document} {node}" for document in range(3) for node in "abc"}),
        (0.02, {"d0 a", "d0 b", "d0 c", "d1 a", "d1 b", "d2 a", "d2 c"}),
        (0.05, {"d0 a", "d0 c", "d1 b", "d2 c"}),
        (1.0, {"d0 a", "d1 b", "d2 c"}),
    ],
)
def test_every_document_is_there_whatever_the_floor(tmp_path: Path, floor: float, pairs: set[str]) -> None:
    table = written(tmp_path, floor=floor)
    found = (table["document"] + " " + table["node"]).tolist()
    assert set(found) == pairs
    assert len(found) == len(pairs)


def test_a_document_kept_for_its_highest_score_is_neither_predicted_nor_gold(tmp_path: Path) -> None:
    table = written(tmp_path, floor=1.0)
    (row,) = table[table["document"] == "d2"].to_dict("records")
    assert row == {
        "document": "d2",
        "node": "c",
        "score": pytest.approx(0.03),
        "predicted": False,
        "target": False,
    }


def test_a_document_of_equal_scores_keeps_one(tmp_path: Path) -> None:
    table = written(tmp_path, floor=0.5, scores=torch.full((3, 3), 0.1))
    assert table["document"].value_counts().to_dict() == {"d0": 1, "d1": 1, "d2": 1}
