"""Embeddings of documents by a frozen encoder: computed once, cached on disk, shared by runs.

The cache is `cache_dir/embeddings/<key>/vectors` (see data/cache.py), one entry a split. The key is a hash of
everything that a vector depends on: tokens, encoder, pooling, precision, kind of device, versions of
libraries. The batches are the same in every run, so that a vector does not depend on which run computed it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float32
from torch import Tensor

from hblm.console import no_progress
from hblm.data.batches import PooledSplit, evaluation_batches
from hblm.data.cache import Entry
from hblm.data.tokens import Array, StartTask, TokenisedSplit
from hblm.encoders.encoder import encoder_width, frozen_encoder_hash
from hblm.encoders.tokenizer import Tokenizer
from hblm.engine import collectives
from hblm.engine.scoring import Scoring, on_device
from hblm.nn.classifier import Classifier

FORMAT = 1
_FILE = "vectors"
_BATCH_SIZE = 32  # documents; 512 tokens of each fit a small device with a large encoder
_BATCHES_AT_ONCE = 512  # with vectors on the device: 64 MB at a width of 1,024


@dataclass(frozen=True)
class Embedder:
    """A frozen encoder, and the cache of its embeddings.

    Attributes:
        model: with a frozen encoder, on the accelerator's device.
        tokenizer: the encoder's; its padding token is part of the key.
        scoring: how documents become batches (see scoring.py).
        accelerator: device and precision.
        cache_dir: the folder of all caches.
    """

    model: Classifier
    tokenizer: Tokenizer
    scoring: Scoring
    accelerator: Accelerator
    cache_dir: Path

    def embed(self, splits: Mapping[str, TokenisedSplit], progress: StartTask) -> dict[str, PooledSplit]:
        """Return the embedded splits, from the cache if it has them.

        A subsample has its own entry, so that a run embeds no documents that it does not need. If several
        runs start at once, one embeds a split and the others wait. Each rank of a run embeds a part, and rank
        0 writes all of it.

        Args:
            splits: by name; the names are for `progress` only.
            progress: starts a task (description, total), returns how to advance it.

        Raises:
            OSError: an entry cannot be written, or a rank does not see the entry that rank 0 wrote.
        """
        made_by = self._made_by()
        return {
            name: self._embedded(name, split, self._entry(split, made_by), progress)
            for name, split in splits.items()
        }

    def missing(self, splits: Iterable[TokenisedSplit]) -> list[TokenisedSplit]:
        """Return the splits without an entry in the cache."""
        made_by = self._made_by()
        return [split for split in splits if not self._entry(split, made_by).folder.exists()]

    def _entry(self, split: TokenisedSplit, made_by: Mapping[str, Any]) -> Entry:
        return Entry(self.cache_dir / "embeddings", {**made_by, "documents": split.identity()}, [_FILE])

    def _made_by(self) -> dict[str, Any]:
        """Return the parts of the key besides the tokens."""
        return {
            "format": FORMAT,
            "encoder": frozen_encoder_hash(self.model.encoder),
            "pooling": type(self.model.pooling).__name__,
            "padding": [self.tokenizer.pad_token_id, "right"],
            "batch_size": _BATCH_SIZE,
            "precision": self.accelerator.mixed_precision,
            "device": self.accelerator.device.type,
            "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
        }

    def _embedded(self, name: str, split: TokenisedSplit, entry: Entry, progress: StartTask) -> PooledSplit:
        first = self.accelerator.is_main_process
        other_rank: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        # rank 0 decides for all, because every rank must join the all-reduce in _run
        if collectives.broadcast(first and not entry.is_whole()):
            with entry.locked() if first else other_rank:
                if collectives.broadcast(first and not entry.is_whole()):  # another run may have been faster
                    with entry.renewed() if first else other_rank as folder:
                        self._run(split, folder, progress(f"embedding {name}", len(split)))
            collectives.broadcast(None)  # a barrier: no rank reads before rank 0 has written
        if not first:
            entry.require_whole()
        return PooledSplit(split, entry.folder / _FILE)

    @torch.inference_mode()
    def _run(self, split: TokenisedSplit, folder: Path | None, advance: Callable[[int], None]) -> None:
        """Run the encoder over a split; write all vectors to `folder`, which only rank 0 has."""
        self.model.eval()
        batches = evaluation_batches(split.lengths, batch_size=_BATCH_SIZE)
        with contextlib.ExitStack() as stack:
            # a loader draws from the global generator, and a run that finds the entry cached must not differ
            stack.enter_context(torch.random.fork_rng(devices=[]))
            file = stack.enter_context((folder / _FILE).open("wb")) if folder else None
            for start in range(0, len(batches), _BATCHES_AT_ONCE):
                portion = batches[start : start + _BATCHES_AT_ONCE]
                vectors = _vectors(self.model, split, portion, self.scoring, self.accelerator, advance)
                for position, vector in zip(np.concatenate(portion), vectors.cpu().numpy(), strict=True):
                    if file is not None:
                        file.seek(int(position) * vector.nbytes)
                        file.write(vector.tobytes())


@torch.inference_mode()
def vectors_of(
    model: Classifier, split: TokenisedSplit | PooledSplit, scoring: Scoring, accelerator: Accelerator
) -> Float32[Tensor, "documents width"]:
    """Return the embeddings of a few documents by the present encoder, on the device of every rank.

    They are not cached: training changes the encoder.
    """
    if isinstance(split, PooledSplit):
        return split.vectors(np.arange(len(split))).to(accelerator.device)
    model.eval()
    batches = evaluation_batches(split.lengths, batch_size=_BATCH_SIZE)
    with torch.random.fork_rng(devices=[]):
        vectors = _vectors(model, split, batches, scoring, accelerator)
    return vectors[np.argsort(np.concatenate(batches))]


def _vectors(
    model: Classifier,
    split: TokenisedSplit,
    batches: Sequence[Array],
    scoring: Scoring,
    accelerator: Accelerator,
    advance: Callable[[int], None] = no_progress,
) -> Float32[Tensor, "documents width"]:
    """Return the vectors of some batches' documents, in the order of the batches, on every rank."""
    documents = np.concatenate(batches)
    row_of = np.zeros(len(split), dtype=np.int64)
    row_of[documents] = np.arange(len(documents))
    device = accelerator.device
    vectors = torch.zeros(len(documents), encoder_width(model.encoder), device=device)
    for positions, batch in on_device(split, batches, scoring, accelerator):
        with accelerator.autocast():
            vectors[torch.from_numpy(row_of[positions]).to(device)] = model.pool(**batch.inputs)
        advance(len(batch) * accelerator.num_processes)
    return collectives.reduce_sum(accelerator, vectors)  # one rank has computed a row; on others it is 0
