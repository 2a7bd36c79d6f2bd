"""Graphs whose encoder multiplies 8-bit integers, and what that costs in F1."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from scipy.special import expit

from hblm.console import log, progress
from hblm.data.tokens import TextTokenizer
from hblm.encoders.tokenizer import Tokenizer
from hblm.engine.metrics import ScoreCounter
from hblm.errors import CheckpointError
from hblm.inference.onnx_backend import OnnxSession
from hblm.runs.checkpoint import Checkpoint, open_data

_ENCODER = ".encoder"  # in the names of its modules: models.0.encoder.layer.0
_AT_ONCE = 1_024
_LARGEST = 2 << 30  # bytes of a graph with its weights that fit one file


def quantise(file: Path, target: Path) -> None:
    """Write a graph with 8-bit products in the encoder; pooling, cascade and heads stay in float32.

    Weights have a scale for each output and 7 bits: with 8, processors without VNNI add two products in 16
    bits and overflow, so that scores would differ from one processor to the next.
    """
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it advises a preprocessing that torch's exporter has done
    try:
        quantize_dynamic(
            file,
            target,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=encoder_products(file),
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=sum(each.stat().st_size for each in file.parent.glob(f"{file.name}*"))
            > _LARGEST,
        )
    finally:
        logging.getLogger().setLevel(level)


def encoder_products(file: Path) -> list[str]:
    """Return the names of the nodes that multiply by a weight of an encoder."""
    graph = onnx.load(file, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in weights and _is_of_encoder(node)
    ]


def _is_of_encoder(node: Any) -> bool:
    """Return whether the exporter made a node for a module of an encoder."""
    places = [entry.value for entry in node.metadata_props if entry.key.endswith("name_scopes")]
    return any(_ENCODER in place for place in places)


def measured(
    fp32: Path,
    int8: Path,
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    data: str | None,
    threshold: float,
) -> dict[str, Any] | None:
    """Return micro- and macro-F1 of both graphs on the validation split; None where its data is missing.

    Args:
        fp32, int8: the graphs.
        checkpoint: has the place of the data and the taxonomy.
        tokenizer: of the checkpoint.
        data: the dataset's folder; None for the one that the checkpoint names.
        threshold: the score from which on a node is predicted.

    Raises:
        CheckpointError: the given folder is not the dataset of the training.
    """
    try:
        prepared = open_data(checkpoint, data)
    except CheckpointError as error:
        if data is not None:
            raise
        log.warning("the loss of int8 was not measured: %s", error)
        return None
    scores = {}
    tokens = TextTokenizer(tokenizer, checkpoint.config.encoder.max_length)
    with progress() as start:
        for name, file in (("fp32", fp32), ("int8", int8)):
            session = OnnxSession(file)
            counter = ScoreCounter(checkpoint.taxonomy, threshold, ranking=False)
            advance = start(f"scoring val in {name}", prepared.count("val"))
            for texts, targets in _portions(prepared, checkpoint):
                logits = session.logits(tokens(texts), int(tokenizer.pad_token_id), targets.shape[1], advance)
                counter.update(torch.from_numpy(expit(logits)), torch.from_numpy(targets))
            overall: Mapping[str, float] = counter.compute()["overall"]
            scores[name] = {key: overall[key] for key in ("micro_f1", "macro_f1")}
    return {"split": "val", "threshold": threshold, "scores": scores}


def _portions(prepared: Any, checkpoint: Checkpoint) -> Any:
    """Yield texts and 0/1 targets of the validation split, some documents at a time."""
    index = checkpoint.taxonomy.index
    texts: list[str] = []
    rows: list[list[int]] = []
    for document in prepared.documents("val"):
        texts.append(document.text)
        rows.append([index[label] for label in document.labels])
        if len(texts) == _AT_ONCE:
            yield texts, _targets(rows, len(index))
            texts, rows = [], []
    if texts:
        yield texts, _targets(rows, len(index))


def _targets(rows: list[list[int]], n_nodes: int) -> np.ndarray:
    targets = np.zeros((len(rows), n_nodes), dtype=np.float32)
    for target, nodes in zip(targets, rows, strict=True):
        target[nodes] = 1
    return targets
