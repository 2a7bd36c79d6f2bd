"""A model made of words, and the program that predicts with it: without torch, and so at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from hblm.console import Advance
from hblm.inference import predict
from hblm.inference.predictor import Member, Predictor, Scores
from hblm.predict import main
from hblm.taxonomy import Node, Taxonomy

NODES = [("a", "Animal", None), ("b", "Body", None), ("a1", "Ape", "a"), ("a2", "Ant", "a")]
TREE = Taxonomy(Node(*node) for node in NODES)


class Words:
    """A model that gives 0.9 to each node whose id is a word of the text, 0.1 to others."""

    precision = "fp32"

    def __init__(self) -> None:
        self.batches: deque[list[str]] = deque()

    def logits(self, texts: Sequence[str], advance: Advance) -> Scores:
        self.batches.append([*texts])
        found = [[node.id in text.split() for node in TREE.nodes] for text in texts]
        advance(len(texts))
        return np.where(found, np.float32(0.9), np.float32(0.1))

    def scores(self, logits: Scores) -> Scores:
        return logits


def predictor_of(model: Words) -> Predictor:
    config: Any = SimpleNamespace(joint_variant=SimpleNamespace(fuse_weights=(1.0, 1.0, 1.0)))
    checkpoint: Any = SimpleNamespace(taxonomy=TREE, meta={"name": "words"}, config=config, is_onnx=False)
    return Predictor([Member(checkpoint, config, "single", 1.0)], [model], 0.5)


if __name__ == "__main__":
    words = Words()
    words.batches = deque(maxlen=1)
    predict.open_predictor = lambda config: predictor_of(words)
    main()
