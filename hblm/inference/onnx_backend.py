"""Log-odds of texts by an exported folder, in onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from scipy.special import expit

from hblm.console import Advance
from hblm.data.tokens import TextTokenizer
from hblm.encoders.pretrained import Pretrained
from hblm.encoders.tokenizer import load_tokenizer
from hblm.errors import CheckpointError, ConfigError, TrainingError
from hblm.files import sha256_once
from hblm.inference.token_batches import Ids, batches, gathered, padded
from hblm.process import n_cores
from hblm.runs.checkpoint import COPY_AGAIN, ONNX, ONNX_DATA, SUMS, Checkpoint

_MOST_TEXTS, _MOST_TOKENS = 512, 2_048  # of a batch: little padding
_GPU = "CUDAExecutionProvider"

Array = npt.NDArray[Any]


class OnnxSession:
    """A graph on a device. Threads can share it."""

    def __init__(self, file: Path, device_name: str = "cpu") -> None:
        """Load a graph; the device is as configured.

        Raises:
            CheckpointError: onnxruntime cannot load it.
            ConfigError: onnxruntime does not have the device.
        """
        self.file = file
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_cores()
        options.log_severity_level = 3  # errors
        try:
            self._session = onnxruntime.InferenceSession(file, options, providers=_providers(device_name))
        except ConfigError:
            raise
        except Exception as error:  # its exceptions have no common base
            raise CheckpointError(
                f"{file}: onnxruntime cannot load it: {error!s:.300}; {COPY_AGAIN}"
            ) from None

    def run(self, ids: Ids, mask: Ids) -> Array:
        """Return log-odds, (texts, nodes) in float32, for token ids and attention mask."""
        logits: Array = self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return logits

    def logits(self, rows: Sequence[Sequence[int]], pad_id: int, n_nodes: int, advance: Advance) -> Array:
        """Return log-odds, (texts, nodes) in float32, of texts as token ids.

        Raises:
            TrainingError: one is not finite.
        """
        parts = []
        for positions in batches([len(row) for row in rows], tokens=_MOST_TOKENS, texts=_MOST_TEXTS):
            logits = self.run(*padded([rows[position] for position in positions], pad_id))
            if not np.isfinite(logits).all():
                raise TrainingError(
                    f"{self.file} gives logits that are not finite; export the checkpoint again"
                )
            parts.append((positions, logits))
            advance(len(positions))
        return gathered(parts, (len(rows), n_nodes))


class OnnxBackend:
    """An exported folder's graph and tokenizer. Threads can share it.

    Attributes:
        checkpoint: the exported folder.
        precision: fp32 or int8.
    """

    def __init__(self, checkpoint: Checkpoint, *, device_name: str) -> None:
        """Load the graph.

        Raises:
            CheckpointError: a file is not the one that was written.
            ConfigError: onnxruntime does not have the device.
        """
        folder = checkpoint.folder
        for name in (ONNX, ONNX_DATA):
            expected = checkpoint.meta[SUMS].get(name)
            if expected is not None and sha256_once(folder / name) != expected:
                raise CheckpointError(f"{folder / name}: not the file that was written; {COPY_AGAIN}")
        self.checkpoint, self.precision = checkpoint, str(checkpoint.meta["export"]["precision"])
        self._session = OnnxSession(folder / ONNX, device_name)
        tokenizer = load_tokenizer(Pretrained(str(folder), None, folder))
        self._tokens: Callable[[Sequence[str]], list[list[int]]] = TextTokenizer(
            tokenizer, checkpoint.config.encoder.max_length
        )
        self._pad_id = int(tokenizer.pad_token_id)

    def logits(self, texts: Sequence[str], advance: Advance) -> Array:
        """Return log-odds, (texts, nodes) in float32; `advance` gets the texts of each batch.

        Raises:
            TrainingError: one is not finite.
        """
        n_nodes = len(self.checkpoint.taxonomy)
        return self._session.logits(self._tokens(texts), self._pad_id, n_nodes, advance)

    def scores(self, logits: Array) -> Array:
        """Return the probability of each node."""
        scores: Array = expit(logits)
        return scores


def _providers(device_name: str) -> list[str]:
    """Return the execution providers for a configured device.

    Raises:
        ConfigError: the installed onnxruntime does not have it.
    """
    cpu, has_gpu = "CPUExecutionProvider", _GPU in onnxruntime.get_available_providers()
    if device_name == "mps" or (device_name == "cuda" and not has_gpu):
        way_out = "install onnxruntime-gpu, or write" if device_name == "cuda" else "write"
        raise ConfigError(f"device={device_name}: this onnxruntime has no such device; {way_out} device=cpu")
    return [_GPU, cpu] if has_gpu and device_name != "cpu" else [cpu]
