"""Statistics of a prepared dataset, counted in one pass: labels, paths, duplicates, text lengths."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hblm.data.convert.document_buffer import text_digest
from hblm.data.dataset import Prepared
from hblm.data.token_counter import Count
from hblm.data.writer import SplitCounts
from hblm.document import SPLITS, Document
from hblm.taxonomy import Taxonomy

SAMPLE = 5_000  # texts of a split whose tokens are counted
_AT_ONCE = 500  # texts given to the tokenizer together


@dataclass
class SplitStatistics:
    """Statistics of one split; memory grows by 12 bytes per document.

    Attributes:
        counts: the counts of the manifest, and the support of each node.
        n_labels: number of labels -> documents.
        n_paths: number of paths -> documents.
        ends: (level, at a leaf) -> paths that end there.
        above_a_leaf: documents with a path that ends above a leaf.
        digests: a hash of each text that is not blank.
        words: the number of words of each text.
        tokens: the number of tokens of each text, or of SAMPLE random texts; empty if they are not counted.
    """

    taxonomy: Taxonomy
    counts: SplitCounts = field(init=False)
    n_labels: Counter[int] = field(default_factory=Counter)
    n_paths: Counter[int] = field(default_factory=Counter)
    ends: Counter[tuple[int, bool]] = field(default_factory=Counter)
    above_a_leaf: int = 0
    digests: array[int] = field(default_factory=lambda: array("Q"))
    words: array[int] = field(default_factory=lambda: array("I"))
    tokens: array[int] = field(default_factory=lambda: array("I"))

    def __post_init__(self) -> None:
        """Index the parents and the inner nodes."""
        self.counts = SplitCounts(self.taxonomy)
        self._parent = {node.id: node.parent for node in self.taxonomy.nodes}
        self._inner = set(self._parent.values())

    def add(self, document: Document) -> None:
        """Count a verified document."""
        self.counts.add(document)
        labels = document.labels
        above = {self._parent[label] for label in labels}
        ends = [label for label in labels if label not in above]
        self.n_labels[len(labels)] += 1
        self.n_paths[len(ends)] += 1
        for label in ends:
            self.ends[self.counts.level[label], label not in self._inner] += 1
        self.above_a_leaf += any(label in self._inner for label in ends)
        if document.text and not document.text.isspace():
            self.digests.append(text_digest(document.text))
        self.words.append(len(document.text.split()))


@dataclass(frozen=True)
class DatasetStatistics:
    """Statistics of each split of a dataset."""

    prepared: Prepared
    splits: dict[str, SplitStatistics]

    def counts(self) -> dict[str, Any]:
        """Return the counts per split and level, as in a manifest."""
        return {split: statistics.counts.as_json() for split, statistics in self.splits.items()}

    def repeated_within(self, split: str) -> int:
        """Return how many documents of a split have the text of an earlier document of it."""
        return len(self.splits[split].digests) - len(self._texts(split))

    def shared(self, earlier: str, later: str) -> int:
        """Return how many documents of the later split have a text of the earlier split."""
        digests = np.array(self.splits[later].digests, dtype=np.uint64)
        return int(np.isin(digests, self._texts(earlier)).sum())

    def _texts(self, split: str) -> NDArray[np.uint64]:
        return np.unique(np.array(self.splits[split].digests, dtype=np.uint64))


def collect_statistics(
    prepared: Prepared,
    count_tokens: Count | None = None,
    on_document: Callable[[int], None] = lambda steps: None,
) -> DatasetStatistics:
    """Return the statistics of a dataset; every document is read, and so verified.

    Args:
        prepared: the dataset.
        count_tokens: returns the number of tokens of each text; None: tokens are not counted.
        on_document: called after each document, for a progress bar.

    Raises:
        DataError: the first fault.
    """
    splits = {}
    for split in SPLITS:
        splits[split] = SplitStatistics(prepared.taxonomy)
        sampled = _sampled(prepared.folder / f"{split}.jsonl") if count_tokens else None
        waiting: list[str] = []
        for at, document in enumerate(prepared.documents(split)):
            splits[split].add(document)
            on_document(1)
            if count_tokens and (sampled is None or at in sampled):
                waiting.append(document.text)
                if len(waiting) == _AT_ONCE:
                    splits[split].tokens.extend(count_tokens(waiting))
                    waiting = []
        if count_tokens:
            splits[split].tokens.extend(count_tokens(waiting))
    return DatasetStatistics(prepared, splits)


def _sampled(path: Path) -> set[int] | None:
    """Return the positions of a random sample of the documents; None: all documents."""
    with path.open("rb") as stream:
        documents = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    return set(random.Random(0).sample(range(documents), SAMPLE)) if documents > SAMPLE else None
