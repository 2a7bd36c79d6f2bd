"""Logits of texts by a checkpoint's model in PyTorch."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from hblm.config.train import TrainConfig
from hblm.console import Advance
from hblm.data.tokens import TextTokenizer
from hblm.engine import build, device, session
from hblm.engine.stored_counts import stored_counts
from hblm.errors import TrainingError
from hblm.inference.single_threads import SingleThreads
from hblm.inference.token_batches import Ids, batches, gathered, padded
from hblm.nn.classifier import Classifier
from hblm.runs.checkpoint import Checkpoint

_MOST_TEXTS = 512
_MOST_TOKENS_CPU = 1_024  # of a batch: little padding, and a layer's states fit the cache of a processor
# On a CPU a token of padding takes as long as one of text, and a batch more takes less than 32 of them: a few
# texts of different lengths take less time in several batches.
_MOST_PADDING_CPU = 32
_MOST_TOKENS_GPU = 65_536


class TorchBackend:
    """One checkpoint's model on a device. Threads can share it: they take turns.

    Attributes:
        checkpoint: the checkpoint.
        view: the view whose logits it returns.
        precision: fp32, bf16 or fp16.
    """

    def __init__(
        self, checkpoint: Checkpoint, config: TrainConfig, *, view: str, device_name: str, precision: str
    ) -> None:
        """Load the model.

        Args:
            checkpoint: the checkpoint.
            config: its configuration, whose weights that fuse views may have been changed.
            view: one of the model's views.
            device_name, precision: as configured.

        Raises:
            CheckpointError: a part of the checkpoint is damaged, or it is of an early version and its
                dataset, which this loss needs, is not at its recorded path.
            ConfigError: the device is not available, or has no fp16.
        """
        self.checkpoint, self.view = checkpoint, view
        self._device = device.torch_device(device_name)
        self._dtype = device.dtype_of(precision, self._device)
        self.precision = device.name_of(self._dtype)
        model, tokenizer = session.stored_model(checkpoint, config)
        self._loss = build.loss(config, checkpoint.taxonomy, training_counts(checkpoint))
        self._model = _prepared_for(model, self._dtype).to(self._device).eval()
        self._tokens = TextTokenizer(tokenizer, config.encoder.max_length)
        self._pad_id = int(tokenizer.pad_token_id)
        self._turn = threading.Lock()
        self._threads = SingleThreads() if self._device.type == "cpu" else None

    def logits(self, texts: Sequence[str], advance: Advance) -> np.ndarray:
        """Return the view's logits, (texts, nodes) in float32; `advance` gets the texts of each batch.

        Raises:
            TrainingError: a logit is not finite.
        """
        rows = self._tokens(texts)
        limits = (_MOST_TOKENS_GPU, None) if self._threads is None else (_MOST_TOKENS_CPU, _MOST_PADDING_CPU)
        lengths = [len(row) for row in rows]
        cut = list(batches(lengths, tokens=limits[0], texts=_MOST_TEXTS, padding=limits[1]))

        def forward(positions: Ids) -> np.ndarray:
            return self._forward(*padded([rows[position] for position in positions], self._pad_id))

        parts = []
        with self._turn:
            several = self._threads is not None and len(cut) > 1
            results = self._threads.map(forward, cut) if self._threads and several else map(forward, cut)
            for positions, logits in zip(cut, results, strict=True):
                parts.append((positions, logits))
                advance(len(positions))
        return gathered(parts, (len(texts), len(self.checkpoint.taxonomy)))

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Return the probability of each node, float32, for logits of this model."""
        with torch.inference_mode():
            scores: np.ndarray = self._loss.to_scores(torch.from_numpy(logits)).numpy()
        return scores

    def _forward(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        reduced = self._dtype != torch.float32
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, self._dtype, enabled=reduced),
        ):
            inputs = (torch.from_numpy(each).to(self._device) for each in (ids, mask))
            logits = self._model(*inputs).views[self.view].cpu()
        if not logits.isfinite().all():
            raise TrainingError(
                f"{self.checkpoint.folder} gives logits that are not finite; write precision=fp32, or, where "
                "they are not finite with that either, train it again"
            )
        values: np.ndarray = logits.numpy()
        return values


def training_counts(checkpoint: Checkpoint) -> build.TrainingCounts:
    """Return the counts of the training documents that scores depend on.

    Raises:
        CheckpointError: it is of an early version without them, they are needed, and its dataset is not at
            its recorded path.
    """
    if not checkpoint.config.loss.is_conditional:
        return build.TrainingCounts.none(checkpoint.taxonomy)
    return stored_counts(checkpoint)


def _prepared_for(model: Classifier, dtype: torch.dtype) -> Classifier:
    """Return the model with the encoder's weights of products in a reduced precision.

    Autocast would convert these weights again for each batch. The results are the same.
    """
    if dtype != torch.float32:
        for module in model.encoder.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)
    return model
