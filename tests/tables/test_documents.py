"""Predictions of two models: which documents a test over them counts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import f1_score

from hblm.tables.documents import compare_documents, predictions_of

NODES = "abc"


def write(folder: Path, name: str, predicted: dict[str, str], gold: dict[str, str], *, bare: str = "") -> str:
    """Write predictions, document -> nodes; `bare` are documents kept for their highest score alone."""
    result = folder / f"{name}.json"
    rows = [
        {
            "document": document,
            "node": node,
            "score": 0.5,
            "predicted": node in predicted.get(document, ""),
            "target": node in gold.get(document, ""),
        }
        for document in sorted({*predicted, *gold, *bare.split()})
        for node in NODES
        if node in predicted.get(document, "") + gold.get(document, "")
        or (document in bare.split() and node == "b")
    ]
    place = predictions_of(result) / "view=single"
    place.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(place / "part-00000.parquet")
    return str(result)


def matrix(documents: list[str], nodes: dict[str, str]) -> list[list[int]]:
    return [[int(node in nodes.get(document, "")) for node in NODES] for document in documents]


GOLD = {"d1": "a", "d2": "ab"}
OF_A, OF_B = {"d1": "a", "d2": "a"}, {"d1": "b", "d2": "ab", "d3": "c"}  # d3 has no gold node


@pytest.mark.parametrize("score", ["micro_f1", "macro_f1", "samples_f1"])
@pytest.mark.parametrize(
    ("bare", "documents"),
    [
        ("", ["d1", "d2", "d3"]),  # d3 is in b's file alone: version 0.1 left such documents out
        ("d3 d4", ["d1", "d2", "d3", "d4"]),  # d4 is in both for its highest score
    ],
)
def test_a_document_counts_if_a_file_has_it(
    tmp_path: Path, bare: str, documents: list[str], score: str
) -> None:
    a = write(tmp_path, "a", OF_A, GOLD, bare=bare)
    b = write(tmp_path, "b", OF_B, GOLD, bare=bare)
    result = compare_documents([(a, b)], ("single", "single"), score, len(NODES), resamples=20)
    assert result is not None
    assert result.documents == len(documents)
    gold = matrix(documents, GOLD)
    of_a, of_b = (
        f1_score(gold, matrix(documents, nodes), average=score.removesuffix("_f1"), zero_division=0)
        for nodes in (OF_A, OF_B)
    )
    assert result.difference == pytest.approx(of_a - of_b)
    other_way = compare_documents([(b, a)], ("single", "single"), score, len(NODES), resamples=20)
    assert other_way is not None
    assert other_way.difference == pytest.approx(of_b - of_a)
