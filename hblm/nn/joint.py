"""Branches on the embedding: one, or two that share it, with or without a head that mixes them.

A view is one output of a model, logits of all nodes: `single` of a model with one branch; `td` (top-down),
`bu` (bottom-up), `mix` and `fused` of a joint one. No paper or code of HBLM is public: names and weights of
the variants are from its manual, the layout of the mix head is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hblm.nn.cascade import Cascade
from hblm.nn.heads import HEADS, OutputStart, start_output
from hblm.taxonomy import Taxonomy


@dataclass(frozen=True)
class BranchesOutput:
    """Output of the branches for a batch.

    Attributes:
        views: logits in taxonomy order by the name of the view.
        modulation: mean |a γ| of each level by the name of the branch, detached.
    """

    views: dict[str, Float[Tensor, "batch nodes"]]
    modulation: dict[str, Float[Tensor, " levels"]]


class Single(nn.Module):
    """One branch, whose view is `single`."""

    def __init__(self, cascade: Cascade) -> None:
        super().__init__()
        self.single = cascade

    def initialise_output(self, start: OutputStart | None) -> None:
        """Initialise the heads' output layers. Call it once, before training."""
        self.single.initialise_output(start)

    def forward(self, embedding: Float[Tensor, "batch dim"]) -> BranchesOutput:
        """Return the one view."""
        output = self.single(embedding)
        return BranchesOutput({"single": output.logits}, {"single": output.modulation})


class Dual(nn.Module):
    """A top-down and a bottom-up branch over one embedding; `fused` is the mean of their logits."""

    def __init__(self, td: Cascade, bu: Cascade) -> None:
        super().__init__()
        self.td = td
        self.bu = bu

    def initialise_output(self, start: OutputStart | None) -> None:
        """Initialise the heads' output layers. Call it once, before training."""
        self.td.initialise_output(start)
        self.bu.initialise_output(start)

    def forward(self, embedding: Float[Tensor, "batch dim"]) -> BranchesOutput:
        """Return the views td, bu and fused."""
        td, bu = self.td(embedding), self.bu(embedding)
        views = {"fused": weighted_mean([td.logits, bu.logits], (1.0, 1.0)), "td": td.logits, "bu": bu.logits}
        return BranchesOutput(views, {"td": td.modulation, "bu": bu.modulation})


class TriHeadDiffcat(Dual):
    """Two branches and for each level a head over [e_td ; e_bu ; e_td - e_bu], with gradients into both.

    e_td and e_bu are the inputs of the two branches' heads on that level. `fused` is the weighted mean of the
    three views' logits; a view of weight 0 is left out. If both inputs are equal (`film=none`), the
    difference is 0, and with a linear head its weights get no gradient; with the other heads they do, by the
    bias of the LayerNorm over the concatenation. With a linear head the difference adds no function, only a
    parametrisation.

    Attributes:
        mix: the heads, by level.
        fuse: the weights of td, bu and mix; not trained, and not in the state.
    """

    def __init__(
        self,
        td: Cascade,
        bu: Cascade,
        *,
        taxonomy: Taxonomy,
        width: int,
        head: str,
        head_dropout: float,
        fuse: tuple[float, float, float],
    ) -> None:
        super().__init__(td, bu)
        self.mix = nn.ModuleList(
            HEADS[head](3 * width, width, len(level), head_dropout) for level in taxonomy.levels
        )
        self.fuse = fuse

    def initialise_output(self, start: OutputStart | None) -> None:
        """Initialise the heads' output layers. Call it once, before training.

        A new FiLM layer is the identity, so that the mix heads get [e ; e ; 0] for a node's text.
        """
        super().initialise_output(start)
        if start is None:
            return
        e = start.label_embeddings
        start_output(self.mix, start, None if e is None else torch.cat([e, e, torch.zeros_like(e)], dim=1))

    def forward(self, embedding: Float[Tensor, "batch dim"]) -> BranchesOutput:
        """Return the views td, bu, mix and fused."""
        td, bu = self.td(embedding), self.bu(embedding)
        inputs = zip(self.mix, td.embeddings, bu.embeddings, strict=True)
        mixed = [head(torch.cat([e_td, e_bu, e_td - e_bu], dim=1)) for head, e_td, e_bu in inputs]
        parts = [td.logits, bu.logits, torch.cat(mixed, dim=1)]
        views = {
            "fused": weighted_mean(parts, self.fuse),
            **dict(zip(("td", "bu", "mix"), parts, strict=True)),
        }
        return BranchesOutput(views, {"td": td.modulation, "bu": bu.modulation})


def weighted_mean(
    logits: Sequence[Float[Tensor, "batch nodes"]], weights: Sequence[float]
) -> Float[Tensor, "batch nodes"]:
    """Return Σ w z / Σ w in float32; with a single weight that is not 0, exactly that part."""
    total = sum(weights)  # in float64: in float32 weights might overflow or become 0
    parts = [part.float() * (weight / total) for part, weight in zip(logits, weights, strict=True) if weight]
    return torch.stack(parts).sum(0)
