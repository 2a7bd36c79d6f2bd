"""Weights of another run for a new one: what `init_from=CHECKPOINT` copies, where the two models agree.

- The encoder, always: both runs must have the same one.
- The projection, if pooling and projection are the same. Otherwise nothing below is copied either: heads and
  FiLM layers read the projection's output.
- Heads, if their option and the meaning of their logits are the same: inner layers by level, rows of output
  layers by node (same id, same level). The two taxonomies may differ.
- FiLM generators, if film is the same, between two levels that have the same nodes in both taxonomies.

A branch copies from the branch of its direction; if there is none, its heads copy from the only branch. Mix
heads copy from mix heads.

A generator reads a signal minus c0 (see film.py), and c0 is the new run's: `centre` computes it from the
biases at the start. W (s - c0) + b stays the same function if W (c0 - the other run's c0) is added to b.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from hblm.config.schema import plain
from hblm.config.train import TrainConfig
from hblm.engine import build
from hblm.engine.encoder_source import KEY
from hblm.nn.cascade import Cascade
from hblm.nn.classifier import Classifier
from hblm.nn.film import Film
from hblm.nn.heads import Head
from hblm.runs.checkpoint import open_checkpoint
from hblm.runs.weights import put_tensors, read_tensors, require_fit
from hblm.taxonomy import Taxonomy

# How a key is written -> where its value is in TrainConfig.
_EMBEDDING = {"pooling": "pooling.pooling", "encoder.project_embedding": "encoder.project_embedding"}
_HEAD = {"head": "head.classification_head_type"}
_LOSS = {"loss": "loss.loss"}

_FILM = {
    "film": "film.propagation_method",
    "film.propagation_space": "film.propagation_space",
    "film.film_scale": "film.film_scale",
}


class Origin:
    """The run that a new one starts from, and which of its weights were copied.

    Call `copy_layers` before the new model's output layers are initialised, which may depend on the layers
    below them, and `copy_nodes` after that. Both change the model in place.

    Attributes:
        checkpoint: of the other run.
        taxonomy: the new run's.
        has_projection: whether the projection was copied.
        nodes: how many rows of output layers were copied, by view.
        films: how many FiLM layers were copied, by branch.
    """

    def __init__(self, config: TrainConfig, taxonomy: Taxonomy) -> None:
        """Read the checkpoint that `config` starts from.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        assert config.init_from is not None
        self.checkpoint = open_checkpoint(Path(config.init_from), KEY)
        self.taxonomy = taxonomy
        self.has_projection = False
        self.nodes: dict[str, int] = {}
        self.films: dict[str, int] = {}
        there, here = self.checkpoint.config, config
        self._there, self._here = there, here
        self._tensors = read_tensors(self.checkpoint)
        self._embedding = _differences(there, here, _EMBEDDING)
        meanings = {each.loss.loss if each.loss.is_conditional else "" for each in (there, here)}
        loss = _LOSS if len(meanings) > 1 else {}  # logits of the two losses have different meanings
        self._head = _differences(there, here, _HEAD | loss)
        self._film = _differences(there, here, _FILM | loss)
        self._new_films: dict[str, int] = {}  # FiLM layers not copied, by branch

    def copy_layers(self, model: Classifier) -> None:
        """Copy the encoder, and where they fit the projection and the inner layers of heads.

        Raises:
            CheckpointError: the tensors are not those of the model that hblm.json describes.
        """
        self._require_whole(model)
        put_tensors(self.checkpoint, self._below("encoder."), model.encoder)
        if self._embedding:
            return
        projection = self._below("projection.")
        if _shapes(projection) != _shapes(model.projection.state_dict()):
            self._embedding = _differences(
                self._there, self._here, {"encoder.projection_dim": "encoder.projection_dim"}
            )
            return
        model.projection.load_state_dict(projection)
        self.has_projection = bool(projection)
        for _, heads, name in self._heads(model):
            for level, head in enumerate(heads):
                inner = _inner(self._below(f"{name}.{level}."))
                if _shapes(inner) == _shapes(_inner(head.state_dict())):
                    head.load_state_dict(inner, strict=False)

    def copy_nodes(self, model: Classifier) -> None:
        """Copy rows of output layers and FiLM generators where they fit; centre the model's FiLM again."""
        self._device = next(model.parameters()).device
        with torch.no_grad():
            for view, heads, name in self._heads(model):
                self.nodes[view] = sum(
                    self._copy_rows(cast(Head, head), f"{name}.{level}.output", level)
                    for level, head in enumerate(heads)
                )
            copied = list(self._copy_films(model))
            model.branches.initialise_output(None)
            for film, c0 in copied:
                film.generator.bias.add_(film.generator.weight @ (film.c0 - c0))

    def _require_whole(self, model: Classifier) -> None:
        """Check that the tensors are those of the checkpoint's own model.

        Raises:
            CheckpointError: they are not.
        """
        there = self._there.having({"encoder.trainable": model.trainable})  # `own` uses the new encoder
        with torch.random.fork_rng(devices=[]):
            own = build.classifier(there, self.checkpoint.taxonomy, model.encoder)
        require_fit(self.checkpoint, self._tensors, own.state_dict())

    def _heads(self, model: Classifier) -> Iterator[tuple[str, nn.ModuleList, str]]:
        """Yield each view, its heads by level, and the name of the checkpoint's heads to copy from."""
        if self._embedding or self._head:
            return
        there = _branches(self._there)
        for direction, view in _branches(self._here).items():
            source = there.get(direction) or next(iter(there.values()))
            yield view, cast(Cascade, getattr(model.branches, view)).heads, f"branches.{source}.heads"
        if all(_has_mix(config) for config in (self._there, self._here)):
            yield "mix", cast(nn.ModuleList, model.branches.mix), "branches.mix"

    def _copy_rows(self, head: Head, name: str, level: int) -> int:
        """Copy the rows of the nodes that both taxonomies have on a level; return their number."""
        there = {node: row for row, (node, _) in enumerate(_level(self.checkpoint.taxonomy, level))}
        here = [node for node, _ in _level(self.taxonomy, level)]
        rows = [(row, there[node]) for row, node in enumerate(here) if node in there]
        if not rows:
            return 0
        to, source = (list(each) for each in zip(*rows, strict=True))
        head.output.weight[to] = self._tensor(f"{name}.weight")[source]
        head.output.bias[to] = self._tensor(f"{name}.bias")[source]
        return len(rows)

    def _copy_films(self, model: Classifier) -> Iterator[tuple[Film, Tensor]]:
        """Copy the generators that fit; yield their layers, each with the checkpoint's c0."""
        if self._embedding or self._film or self._here.film.propagation_method == "none":
            return
        there = _branches(self._there)
        for direction, view in _branches(self._here).items():
            branch = cast(Cascade, getattr(model.branches, view))
            self.films[view] = self._new_films[view] = 0
            for source, target in itertools.pairwise(branch.order):
                if direction not in there or not (self._agree_on(source) and self._agree_on(target)):
                    self._new_films[view] += 1
                    continue
                film = cast(Film, branch.films[str(target)])
                name = f"branches.{there[direction]}.films.{target}"
                for part, own in film.generator.named_parameters():
                    own.copy_(self._tensor(f"{name}.generator.{part}"))
                self.films[view] += 1
                yield film, self._tensor(f"{name}.c0")

    def _agree_on(self, level: int) -> bool:
        nodes = _level(self.taxonomy, level)
        return nodes == _level(self.checkpoint.taxonomy, level)

    def _below(self, prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self._tensors.items()
            if name.startswith(prefix)
        }

    def _tensor(self, name: str) -> Tensor:
        return self._tensors[name].to(self._device)

    def not_taken(self) -> list[str]:
        """Return the parts of the new model that were not copied, each with the reason."""
        if self._embedding:
            return [f"projection, heads and FiLM ({self._embedding})"]
        parts = [f"heads ({self._head})"] if self._head else []
        if not self._head and _has_mix(self._here) and not _has_mix(self._there):
            parts.append(f"mix heads (joint_variant={self._there.joint_variant.joint_variant} there)")
        if self._film and self._here.film.propagation_method != "none":
            parts.append(f"FiLM ({self._film})")
        for view, n_layers in self._new_films.items():
            if n_layers:
                parts.append(f"{n_layers} FiLM layers of {view} (another direction or other nodes there)")
        return parts

    def entry(self) -> dict[str, Any]:
        """Return the result's entry: the other run, and which weights were copied."""
        return {
            "path": str(self.checkpoint.folder.resolve()),
            **{name: self.checkpoint.meta[name] for name in ("name", "run_id", "training")},
            "taken": {
                "encoder": True,
                "projection": self.has_projection,
                "nodes": self.nodes,
                "films": self.films,
            },
            "n_nodes": len(self.taxonomy),
            "not_taken": self.not_taken(),
        }

    def __str__(self) -> str:
        counts = {*self.nodes.values()}
        n_nodes = f" of {len(self.taxonomy):,} nodes"
        parts = ["encoder", *(["projection"] if self.has_projection else [])]
        if len(counts) == 1:
            parts.append(f"{counts.pop():,}{n_nodes}")
        elif counts:
            parts.append(" ".join(f"{view} {count:,}" for view, count in self.nodes.items()) + n_nodes)
        if any(self.films.values()):
            parts.append(f"{sum(self.films.values())} FiLM layers")
        left = "".join(f"; not taken: {part}" for part in self.not_taken())
        meta = self.checkpoint.meta
        return f"starts from {meta['name']} (run {meta['run_id'][:8]}): {', '.join(parts)}{left}"


def _branches(config: TrainConfig) -> dict[str, str]:
    """Return the name of each direction's branch in the model."""
    if config.joint_variant.is_joint:
        return {"top_down": "td", "bottom_up": "bu"}
    return {config.direction.cascade_direction: "single"}


def _has_mix(config: TrainConfig) -> bool:
    return config.joint_variant.joint_variant == "tri_head_diffcat"


def _level(taxonomy: Taxonomy, level: int) -> list[tuple[str, str | None]]:
    """Return id and parent of a level's nodes; empty where there is no such level."""
    if level >= len(taxonomy.levels):
        return []
    nodes = (taxonomy.nodes[at] for at in taxonomy.levels[level])
    return [(node.id, node.parent) for node in nodes]


def _inner(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a head's tensors without those of its output layer."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("output.")}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _differences(there: TrainConfig, here: TrainConfig, keys: Mapping[str, str]) -> str:
    """Return the keys whose values differ, with both values; "" where none does."""
    values = {key: (attrgetter(place)(there), attrgetter(place)(here)) for key, place in keys.items()}
    return " and ".join(
        f"{key}={plain(old)} there, {plain(new)} here" for key, (old, new) in values.items() if old != new
    )
