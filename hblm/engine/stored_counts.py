"""Counts of the training documents of a stored model; the dataset of its training may lie elsewhere now."""

from __future__ import annotations

import numpy as np
import torch

from hblm.data.batches import subsample_positions
from hblm.engine.build import TrainingCounts
from hblm.errors import CheckpointError
from hblm.runs.checkpoint import Checkpoint, open_data


def stored_counts(checkpoint: Checkpoint) -> TrainingCounts:
    """Return the counts in a checkpoint; those of an early version without them are counted in its dataset.

    Raises:
        CheckpointError: it is of an early version, and its dataset is not at its recorded path.
        DataError: the dataset's training documents have a fault.
    """
    stored = checkpoint.meta.get("training_counts")
    if stored is not None:
        return TrainingCounts.from_json(stored)
    dataset = checkpoint.meta["dataset"]
    try:
        prepared = open_data(checkpoint, None)
    except CheckpointError:
        raise CheckpointError(
            f"{checkpoint.folder} has no counts of its training documents (it was made before hblm wrote "
            f"them), and {dataset['path']} is not the {dataset['name']} on which it was trained: move that "
            "dataset there, or train again"
        ) from None
    positives, stops = (np.zeros(len(checkpoint.taxonomy), dtype=np.int64) for _ in range(2))
    chosen = subsample_positions(prepared.count("train"), checkpoint.config.dataset_fraction)
    kept = set(chosen.tolist())
    index, parents = checkpoint.taxonomy.index, checkpoint.taxonomy.parents
    for position, document in enumerate(prepared.documents("train")):
        if position in kept:
            nodes = {index[label] for label in document.labels}
            positives[[*nodes]] += 1
            stops[[*(nodes - {parents[node] for node in nodes})]] += 1
    return TrainingCounts(
        documents=len(chosen), positives=torch.from_numpy(positives), stops=torch.from_numpy(stops)
    )
