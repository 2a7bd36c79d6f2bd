"""The ONNX graph of stored models: token ids and attention mask to the log-odds of every node.

torch.onnx traces the models by torch.export. ONNX has no log1p, expm1, softplus and log-sigmoid that keep
their digits for small numbers, which log-odds of products along a path need: they are computed in float64.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from hblm.nn.classifier import Classifier
from hblm.nn.joint import weighted_mean
from hblm.nn.link import Link

INPUTS, OUTPUT = ("input_ids", "attention_mask"), "logits"
OPSET = 18
_least: Callable[[int, int], int] = torch.sym_min  # min() would fix the tokens of the traced batch
_DOUBLE, _FLOAT = 11, 1  # onnx.TensorProto.DOUBLE, FLOAT


class Graph(nn.Module):
    """Models whose logits are averaged, and the log-odds of the mean's scores."""

    def __init__(
        self,
        models: Sequence[Classifier],
        views: Sequence[str],
        weights: Sequence[float],
        link: Link,
        *,
        max_length: int,
        kept_first: int,
    ) -> None:
        """Take the models, on the CPU.

        Args:
            models, views, weights: of each member: its model, the view to use, and its weight in the mean.
            link: how logits become scores.
            max_length: documents are cut to this many tokens, special tokens included.
            kept_first: how many of these are the document's first; the others are its last.
        """
        super().__init__()
        self.models = nn.ModuleList(models)
        self.views, self.weights, self.link = tuple(views), tuple(weights), link
        self.max_length, self.kept_first = max_length, kept_first
        for model in models:
            # fused attention has no counterpart in ONNX that all runtimes have
            cast("Any", model.encoder).set_attn_implementation("eager")
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return log-odds, (documents, nodes), of documents that are padded on the right."""
        ids, mask = self.cut(input_ids, attention_mask)
        logits = [model(ids, mask).views[view] for model, view in zip(self.models, self.views, strict=True)]
        return self.link.log_odds(weighted_mean(logits, self.weights) if len(logits) > 1 else logits[0])

    def cut(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return ids and mask of documents that are cut as the tokenizer cuts them, if the caller has not.

        A program that does not truncate would pass more tokens than the encoder has positions for.
        """
        width = _least(ids.shape[1], self.max_length)
        position = torch.arange(width, device=ids.device)[None]
        beyond = (mask.sum(1, keepdim=True) - self.max_length).clamp(min=0)
        taken = position + (position >= self.kept_first) * beyond
        return ids.gather(1, taken), mask.gather(1, taken)


def write_graph(graph: Graph, file: Path) -> None:
    """Write a graph; weights above 2 GB go to a second file beside it, FILE.data."""
    ids = torch.ones((3, 7), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    with torch.no_grad(), warnings.catch_warnings(), _quiet_exporter():
        warnings.simplefilter("ignore")  # of deprecated calls inside torch
        program = torch.onnx.export(
            graph,
            (ids, mask),
            input_names=[*INPUTS],
            output_names=[OUTPUT],
            dynamic_shapes=({0: "batch", 1: "tokens"},) * 2,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            custom_translation_table=_in_float64(),
        )
    assert program is not None
    program.save(file)


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's notes on every node that it changes."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _in_float64() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return ONNX translations of functions whose float32 forms lose the digits of small numbers."""
    import onnxscript

    op: Any = onnxscript.opset18  # its types do not fit values at tracing

    def log1p(self: Any) -> Any:
        wide = op.Cast(self, to=_DOUBLE)
        return op.Cast(op.Log(op.Add(wide, op.Cast(1.0, to=_DOUBLE))), to=_FLOAT)

    def expm1(self: Any) -> Any:
        wide = op.Cast(self, to=_DOUBLE)
        return op.Cast(op.Sub(op.Exp(wide), op.Cast(1.0, to=_DOUBLE)), to=_FLOAT)

    def wide_softplus(wide: Any, threshold: float) -> Any:
        low = op.Min(wide, op.Cast(threshold, to=_DOUBLE))  # above it exp might overflow
        return op.Add(op.Log(op.Add(op.Exp(low), op.Cast(1.0, to=_DOUBLE))), op.Sub(wide, low))

    def softplus(self: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
        assert beta == 1.0
        return op.Cast(wide_softplus(op.Cast(self, to=_DOUBLE), threshold), to=_FLOAT)

    def log_sigmoid(self: Any) -> Any:
        return op.Cast(op.Neg(wide_softplus(op.Neg(op.Cast(self, to=_DOUBLE)), 40.0)), to=_FLOAT)

    aten = torch.ops.aten
    return {
        aten.log1p.default: log1p,
        aten.expm1.default: expm1,
        aten.softplus.default: softplus,
        aten.log_sigmoid.default: log_sigmoid,
    }
