"""Graphs of encoders of several families, against the models, for every batch shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from families import small

from hblm.inference.exports.onnx_graph import Graph, write_graph
from hblm.inference.onnx_backend import OnnxSession
from hblm.nn.cascade import Cascade
from hblm.nn.classifier import Classifier
from hblm.nn.joint import Single
from hblm.nn.link import SigmoidLink
from hblm.nn.pooling import POOLINGS
from hblm.taxonomy import Node, Taxonomy

TREE = Taxonomy([Node("a", "a", None), Node("b", "b", None), Node("c", "c", "a")])
FAMILIES = {  # with a pooling each
    "roberta": "cls",  # positions start after the padding index
    "distilbert": "mean",
    "modernbert": "max",  # local attention, rotary positions
    "mpnet": "last",
    "electra": "cls",
    "deberta-v2": "mean",
    "albert": "last",
    "xlm-roberta": "max",
}
LONGEST = 40


def model_of(family: str, pooling: str) -> Classifier:
    torch.manual_seed(0)
    encoder = transformers.AutoModel.from_config(small(family), dtype=torch.float32)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    cascade = Cascade(
        TREE,
        direction="bottom_up",
        width=16,
        head="mlp",
        head_dropout=0.1,
        propagation_method="sigmoid",
        propagation_space="child_space",
        film_scale=0.2,
        detach_parent_signal=True,
        threshold=0.5,
    )
    for parameter in cascade.parameters():  # a new FiLM layer is the identity
        torch.nn.init.normal_(parameter, std=0.5)
    return Classifier(
        encoder, POOLINGS[pooling](), torch.nn.Identity(), Single(cascade), trainable=True
    ).eval()


def drawn(documents: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(documents * tokens)
    ids = torch.randint(3, 300, (documents, tokens), generator=generator)
    lengths = torch.randint(1, tokens + 1, (documents, 1), generator=generator)
    lengths[0] = tokens
    mask = (torch.arange(tokens) < lengths).long()
    return ids.masked_fill(mask == 0, 0), mask


def cut_by_hand(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep the first tokens of a row and its last one, as a tokenizer that ends a text by one token does."""
    rows = [row[:length] for row, length in zip(ids, mask.sum(1).tolist(), strict=True)]
    rows = [torch.cat([row[: LONGEST - 1], row[-1:]]) if len(row) > LONGEST else row for row in rows]
    width = max(map(len, rows))
    ids, mask = (torch.zeros(len(rows), width, dtype=torch.int64) for _ in range(2))
    for at, row in enumerate(rows):
        ids[at, : len(row)], mask[at, : len(row)] = row, 1
    return ids, mask


@pytest.mark.parametrize(("documents", "tokens"), [(1, 1), (3, LONGEST), (4, LONGEST + 9)])
def test_documents_are_cut_as_the_tokenizer_cuts_them(documents, tokens):
    link = SigmoidLink()
    graph = Graph(
        [model_of("roberta", "cls")], ["single"], [1.0], link, max_length=LONGEST, kept_first=LONGEST - 1
    )
    given = drawn(documents, tokens)
    for cut, expected in zip(graph.cut(*given), cut_by_hand(*given), strict=True):
        assert torch.equal(cut, expected)


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_the_graph_of_a_family_gives_the_models_logits(family):
    model = model_of(family, FAMILIES[family])
    graph = Graph([model], ["single"], [1.0], SigmoidLink(), max_length=LONGEST, kept_first=LONGEST - 1)
    write_graph(graph, Path("model.onnx"))
    session = OnnxSession(Path("model.onnx"))
    for documents, tokens in ((1, 1), (1, 7), (5, 12), (3, LONGEST), (4, LONGEST + 9)):
        ids, mask = drawn(documents, tokens)
        with torch.no_grad():
            expected = model(*cut_by_hand(ids, mask)).views["single"].numpy()
        np.testing.assert_allclose(session.run(ids.numpy(), mask.numpy()), expected, atol=1e-4)
