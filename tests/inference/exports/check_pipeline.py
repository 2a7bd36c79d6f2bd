"""Compare Transformers' pipeline on an exported folder with expected scores; for an environment of its own.

    python check_pipeline.py FOLDER EXPECTED.json

EXPECTED.json has `texts`, and `scores`: for each text the score of every label. hblm is not needed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline


def main(folder: str, expected: str) -> None:
    """Print the largest difference; exit code 1 where it is above 1e-5."""
    content = json.loads(Path(expected).read_text())
    classify = pipeline(
        "text-classification",
        model=ORTModelForSequenceClassification.from_pretrained(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        top_k=None,
    )
    largest = 0.0
    for size in (1, 4):
        for given, scores in zip(classify(content["texts"], batch_size=size), content["scores"], strict=True):
            found = {entry["label"]: entry["score"] for entry in given}
            assert found.keys() == scores.keys()
            largest = max(largest, *(abs(found[label] - score) for label, score in scores.items()))
    print(f"largest difference {largest:.2g}")
    sys.exit(largest > 1e-5)


if __name__ == "__main__":
    main(*sys.argv[1:])
