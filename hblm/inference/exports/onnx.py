"""Exported folders: a graph with all that a program without hblm needs to classify texts."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hblm.config.export import ExportConfig
from hblm.console import log
from hblm.data.tokens import TextTokenizer, tokenizer_hash
from hblm.encoders.plain_files import first_tokens_kept, write_classifier_config, write_plain_tokenizer
from hblm.encoders.tokenizer import Tokenizer
from hblm.engine import build, session
from hblm.errors import CheckpointError
from hblm.files import sha256_file
from hblm.inference.exports.hub import write_meta
from hblm.inference.exports.onnx_graph import OPSET, Graph, write_graph
from hblm.inference.exports.onnx_int8 import measured, quantise
from hblm.inference.onnx_backend import OnnxSession
from hblm.inference.predictor import Member, is_as_trained
from hblm.inference.token_batches import padded
from hblm.inference.torch_backend import training_counts
from hblm.runs.checkpoint import ONNX, SUMS, TAXONOMY, Checkpoint
from hblm.runs.decisions import read_decisions, write_decisions
from hblm.taxonomy import Taxonomy

_TOLERANCE = 1e-3  # in log-odds; what is measured is near 1e-5
_CHECKED = 7  # texts of nodes that the graph is compared on, and a long one


def write_onnx_folder(folder: Path, config: ExportConfig, members: Sequence[Member]) -> None:
    """Fill an empty folder; the graph is compared with the models before anything else is written.

    Raises:
        CheckpointError: a checkpoint is damaged, two do not share a tokenizer, or the graph's logits are not
            those of the models.
    """
    graph, tokenizer = _graph_of(members)
    main = members[0].checkpoint
    # under its own name: a graph holds the name of the file of its weights
    file = folder / "fp32" / ONNX if config.int8 else folder / ONNX
    file.parent.mkdir(exist_ok=True)
    write_graph(graph, file)
    difference = _require_equal(graph, file, tokenizer, main.taxonomy)
    threshold = main.config.threshold if config.threshold is None else config.threshold
    loss = None
    if config.int8:
        quantise(file, folder / ONNX)
        loss = measured(file, folder / ONNX, main, tokenizer, config.dataset.path, threshold)
        shutil.rmtree(file.parent)
    write_classifier_config(folder, graph.models[0].encoder, path_names(main.taxonomy))  # type: ignore[arg-type]
    write_plain_tokenizer(folder, tokenizer, graph.max_length)
    (folder / TAXONOMY).write_text(main.taxonomy.to_json(), encoding="utf-8")
    record = {
        "to": "onnx",
        "precision": "int8" if config.int8 else "fp32",
        "opset": OPSET,
        "view": members[0].view,
        "threshold": threshold,
        "members": [_member_entry(member) for member in members],
        "largest_difference": difference,
        "loss": loss,
    }
    _write_record(folder, main, members, record)


def path_names(taxonomy: Taxonomy) -> list[str]:
    """Return a label for each node that no other has: the names of its path, else ids, joined by " > "."""
    names = [_joined(taxonomy, position, "name") for position in range(len(taxonomy))]
    counts = Counter(names)
    labels = [
        name if counts[name] == 1 and name.strip(" >") else _joined(taxonomy, position, "id")
        for position, name in enumerate(names)
    ]
    # a path of ids may equal another node's path of names
    return labels if len(set(labels)) == len(labels) else [node.id for node in taxonomy.nodes]


def _joined(taxonomy: Taxonomy, position: int, attribute: str) -> str:
    parts: list[str] = []
    while position >= 0:
        parts.append(str(getattr(taxonomy.nodes[position], attribute)))
        position = taxonomy.parents[position]
    return " > ".join(reversed(parts))


def _graph_of(members: Sequence[Member]) -> tuple[Graph, Tokenizer]:
    """Load the models; return their graph and the tokenizer that they share.

    Raises:
        CheckpointError: a part of one is damaged, or they do not share a tokenizer.
    """
    loaded = [session.stored_model(member.checkpoint, member.config) for member in members]
    tokenizer, main = loaded[0][1], members[0]
    max_length = main.config.encoder.max_length
    for member, (_, other) in zip(members[1:], loaded[1:], strict=True):
        if (
            tokenizer_hash(other) != tokenizer_hash(tokenizer)
            or member.config.encoder.max_length != max_length
        ):
            raise CheckpointError(
                f"{main.checkpoint.folder} and {member.checkpoint.folder} have different tokenizers or "
                "encoder.max_length, and a graph takes one sequence of token ids; export each by itself, and "
                "give both folders as checkpoint=[A,B] to hblm.predict"
            )
    counts = training_counts(main.checkpoint)
    graph = Graph(
        [model for model, _ in loaded],
        [member.view for member in members],
        [member.weight for member in members],
        build.loss(main.config, main.checkpoint.taxonomy, counts).link,
        max_length=max_length,
        kept_first=first_tokens_kept(tokenizer, max_length),
    )
    return graph, tokenizer


def _require_equal(graph: Graph, file: Path, tokenizer: Tokenizer, taxonomy: Taxonomy) -> float:
    """Return the largest difference of the written graph's logits from the models'.

    Both get texts of nodes; the graph also gets a text that is longer than the models take.

    Raises:
        CheckpointError: it is too large.
    """
    texts = [node.words for node in taxonomy.nodes[:: max(1, len(taxonomy) // _CHECKED)]]
    texts.append(" ".join([*texts, ""] * (2 * graph.max_length // len(texts) + 1)))
    pad_id = int(tokenizer.pad_token_id)
    cut = padded(TextTokenizer(tokenizer, graph.max_length)(texts), pad_id)
    whole = padded(TextTokenizer(tokenizer, 1 << 30)(texts), pad_id)
    with torch.inference_mode():
        expected = graph(*(torch.from_numpy(each) for each in cut)).numpy()
    session_of = OnnxSession(file)
    difference = max(float(np.abs(session_of.run(*each) - expected).max()) for each in (cut, whole))
    if not difference < _TOLERANCE:
        kind = type(graph.models[0].encoder).__name__
        raise CheckpointError(
            f"the ONNX graph of {kind} gives other logits than the model (by {difference:.2g}): this kind of "
            "encoder cannot be exported"
        )
    return difference


def _member_entry(member: Member) -> dict[str, Any]:
    meta = member.checkpoint.meta
    return {
        "run_id": meta["run_id"],
        "name": meta["name"],
        "training": meta["training"],
        "view": member.view,
        "weight": member.weight,
        "tri_fuse": [*member.config.joint_variant.fuse_weights] if member.view == "fused" else None,
    }


def _write_record(
    folder: Path, main: Checkpoint, members: Sequence[Member], record: Mapping[str, Any]
) -> None:
    """Write hblm.json, the checkpoint's with an entry `export`, and decisions.json where it holds.

    It holds for one model with its own weights of views. Critical scores hold for the exact scores alone.
    """
    sums = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
    names = " and ".join(str(member.checkpoint.meta["name"]) for member in members)
    write_meta(folder, {**main.meta, "name": names, "export": record, SUMS: sums})
    views = read_decisions(main) if is_as_trained(members) else {}
    if record["precision"] == "int8":
        views = {view: replace(each, conformal=None) for view, each in views.items()}
    if views:
        write_decisions(folder, main.meta["training"], views)
    if record["loss"] is not None:
        for name, values in record["loss"]["scores"].items():
            micro, macro = values["micro_f1"], values["macro_f1"]
            log.info("%s on validation: micro-F1 %.2f, macro-F1 %.2f", name, 100 * micro, 100 * macro)
