"""A branch: the levels in the order of its direction, each conditioned on the one before.

Only this file knows directions. Its output is in taxonomy order (nodes) and level order (levels).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hblm.nn.film import PROPAGATIONS, Film, GatherSpace, ScatterMaxSpace, SourceSpace, Space
from hblm.nn.heads import HEADS, Head, OutputStart, start_output
from hblm.nn.link import Link, SigmoidLink
from hblm.taxonomy import Taxonomy

DIRECTIONS: dict[str, Callable[[int], range]] = {
    "top_down": lambda n_levels: range(n_levels),
    "bottom_up": lambda n_levels: range(n_levels - 1, -1, -1),
}


def parent_space(taxonomy: Taxonomy, source: int, target: int) -> Space:
    """Return the space of the source level's nodes."""
    return SourceSpace(len(taxonomy.levels[source]))


def child_space(taxonomy: Taxonomy, source: int, target: int) -> Space:
    """Return the space of the target level's nodes: a parent's value, or the maximum over children."""
    if source < target:
        return GatherSpace(taxonomy.level_parents(target))
    return ScatterMaxSpace(taxonomy.level_parents(source), len(taxonomy.levels[target]))


SPACES: dict[str, Callable[[Taxonomy, int, int], Space]] = {
    "parent_space": parent_space,
    "child_space": child_space,
}


@dataclass(frozen=True)
class CascadeOutput:
    """Output of a branch for a batch.

    Attributes:
        logits: of all nodes in taxonomy order, whatever the direction.
        embeddings: the input of each level's head, in level order.
        modulation: mean |a γ| over batch and dim of each level, detached; 0 for a level without FiLM.
    """

    logits: Float[Tensor, "batch nodes"]
    embeddings: tuple[Float[Tensor, "batch dim"], ...]
    modulation: Float[Tensor, " levels"]


class Cascade(nn.Module):
    """A head for each level, and a FiLM layer before every head but the first one of the direction.

    Attributes:
        heads: by level.
        films: by level as a string; empty with `propagation_method="none"`: the heads are independent.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        *,
        direction: str,
        width: int,
        head: str,
        head_dropout: float,
        propagation_method: str,
        propagation_space: str,
        film_scale: float,
        detach_parent_signal: bool,
        threshold: float,
        link: Link | None = None,
    ) -> None:
        """Build heads and FiLM layers; `link` is the loss's, None for sigmoids."""
        super().__init__()
        link = SigmoidLink() if link is None else link
        self.order = DIRECTIONS[direction](len(taxonomy.levels))
        # Heads in level order, before any FiLM: one seed gives all directions and methods the same heads.
        self.heads = nn.ModuleList(
            HEADS[head](width, width, len(level), head_dropout) for level in taxonomy.levels
        )
        self.films = nn.ModuleDict()
        propagation = PROPAGATIONS[propagation_method]
        if propagation is not None:
            for source, target in itertools.pairwise(self.order):
                self.films[str(target)] = Film(
                    width=width,
                    propagation=propagation(threshold, link.level(source)),
                    space=SPACES[propagation_space](taxonomy, source, target),
                    scale=film_scale,
                    detach_parent_signal=detach_parent_signal,
                )
        self.initialise_output(None)

    def initialise_output(self, start: OutputStart | None) -> None:
        """Initialise the heads' output layers (None: keep them), then centre every FiLM on their biases.

        Call it once, before training: each call with a start scales the weights by a tenth again.
        """
        heads = cast("list[Head]", [*self.heads])
        if start is not None:
            start_output(heads, start, start.label_embeddings)
        for source, target in itertools.pairwise(self.order):
            if str(target) in self.films:
                cast("Film", self.films[str(target)]).centre(heads[source].output.bias)

    def forward(self, embedding: Float[Tensor, "batch dim"]) -> CascadeOutput:
        """Compute the levels in order; every FiLM modulates the same embedding, not the previous output."""
        logits: dict[int, Tensor] = {}
        embeddings: dict[int, Tensor] = {}
        modulation: dict[int, Tensor] = {}
        for step, level in enumerate(self.order):
            if str(level) in self.films:
                film, source = self.films[str(level)], self.order[step - 1]
                embeddings[level], modulation[level] = film(embedding, logits[source])
            else:
                embeddings[level] = embedding
                modulation[level] = embedding.new_zeros((), dtype=torch.float32)
            logits[level] = self.heads[level](embeddings[level])
        levels = range(len(self.order))
        return CascadeOutput(
            logits=torch.cat([logits[level] for level in levels], dim=1),
            embeddings=tuple(embeddings[level] for level in levels),
            modulation=torch.stack([modulation[level] for level in levels]),
        )
