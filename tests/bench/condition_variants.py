"""Ways in which one level conditions the next, compared by `condition.py`.

A variant changes a model as `build.classifier` made it: one top-down cascade of heads and FiLM layers. The
heads are made first, so that one seed gives all variants the same heads, and every new layer starts as the
identity, so that all variants start as independent heads. The formulas are not from a publication.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hblm.config.train import SINGLE_VIEW, TrainConfig
from hblm.data.batches import Batch, Split
from hblm.engine import build
from hblm.engine.scoring import Collate, Scoring
from hblm.nn.cascade import Cascade, CascadeOutput
from hblm.nn.classifier import Classifier
from hblm.nn.film import Film, GatherSpace, Propagation, SourceSpace
from hblm.nn.heads import OutputStart
from hblm.nn.joint import BranchesOutput
from hblm.taxonomy import Taxonomy

GOLD = "gold"  # the input under which targets travel to a model that reads them


@dataclass(frozen=True)
class Built:
    """A new model, before its output layers are set, and what a variant may make its parts of.

    Attributes:
        label_texts: the pooled states of the nodes' texts, (nodes, width).
    """

    model: Classifier
    config: TrainConfig
    taxonomy: Taxonomy
    label_texts: Float[Tensor, "nodes width"]

    @property
    def cascade(self) -> Cascade:
        """The model's one branch."""
        return self.model.branches.single


@dataclass(frozen=True)
class Change:
    """What a variant changes beside the model: the weight of each view's loss, and who reads the targets."""

    weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: {SINGLE_VIEW: 1.0})
    gold: Gold | None = None


@dataclass(frozen=True)
class Variant:
    """One way of conditioning.

    Attributes:
        about: what it does, in a few words.
        change: changes the new model.
        overrides: what it sets in the configuration.
    """

    about: str
    change: Callable[[Built], Change] = lambda built: Change()
    overrides: tuple[str, ...] = ()


class Gold:
    """The targets of the batch under way, which some of its documents get as their signal.

    A model has no argument for targets, and none is added for an experiment: `attach` lets the collate
    function put them among the inputs, and a hook takes them from there before the model's forward.

    Attributes:
        share: the share of the training documents that get them, by the share of the epochs that are done.
        in_test: whether all documents get them where the model is scored.
        progress: (epoch - 1) / (epochs - 1); 0 in the first epoch, 1 in the last.
    """

    def __init__(self, share: Callable[[float], float], *, seed: int, in_test: bool = False) -> None:
        self.share, self.in_test = share, in_test
        self.draws = torch.Generator().manual_seed(seed)  # of its own: dropout's stream stays as it is
        self.progress = 0.0
        self.targets: Tensor | None = None
        self.given: Tensor | None = None

    def take(self, targets: Float[Tensor, "batch nodes"], *, training: bool) -> None:
        """Keep a batch's targets, and draw which documents get them: each by itself, for all its levels."""
        share = self.share(self.progress) if training else float(self.in_test)
        self.targets = targets
        self.given = (torch.rand(len(targets), generator=self.draws) < share).to(targets.device)

    def attach(self, model: Classifier, scoring: Scoring) -> Scoring:
        """Let the model's batches bring their targets here; return the scoring that makes such batches."""

        def hook(module: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            self.take(inputs[GOLD], training=module.training)
            return args, {name: value for name, value in inputs.items() if name != GOLD}

        model.register_forward_pre_hook(hook, with_kwargs=True)
        return dataclasses.replace(scoring, collate=functools.partial(_with_targets, scoring.collate))


def _with_targets(collate: Collate, split: Split, indices: Any) -> Batch:
    batch = collate(split, indices)
    return Batch({**batch.inputs, GOLD: batch.targets}, batch.targets)


class GoldPropagation(nn.Module):
    """Pass on a level's gold labels, 0 or 1, in place of its scores, for the documents that get them."""

    def __init__(self, predicted: Propagation, nodes: range, gold: Gold) -> None:
        super().__init__()
        self.predicted, self.nodes, self.gold = predicted, nodes, gold

    def forward(self, logits: Float[Tensor, "batch source"]) -> Float[Tensor, "batch source"]:
        signal: Tensor = self.predicted(logits)
        if self.gold.targets is None or self.gold.given is None:  # a FiLM is centred before the first batch
            return signal
        targets = self.gold.targets[:, self.nodes.start : self.nodes.stop].to(signal.dtype)
        return torch.where(self.gold.given[:, None], targets, signal)


def read_gold(built: Built, gold: Gold) -> Change:
    """Let every FiLM layer read gold labels where `gold` gives them."""
    for name, film in built.cascade.films.items():
        film.propagation = GoldPropagation(film.propagation, built.taxonomy.levels[int(name) - 1], gold)
    return Change(gold=gold)


def oracle(built: Built) -> Change:
    """Give all documents their gold labels, in training and in test."""
    return read_gold(built, Gold(lambda progress: 1.0, seed=built.config.seed, in_test=True))


def gold_half(built: Built) -> Change:
    """Give half of the training documents their gold labels."""
    return read_gold(built, Gold(lambda progress: 0.5, seed=built.config.seed))


def gold_anneal(built: Built) -> Change:
    """Give all training documents their gold labels in the first epoch, none in the last."""
    return read_gold(built, Gold(lambda progress: 1.0 - progress, seed=built.config.seed))


def learned_scale(built: Built) -> Change:
    """Make each FiLM layer's scale a a parameter, which starts where the configuration sets it."""
    for film in built.cascade.films.values():
        film.scale = nn.Parameter(torch.tensor(film.scale))
    return Change()


class Conditioned(nn.Module):
    """A top-down cascade's levels, visited in order, with another way to condition an embedding."""

    def __init__(self, cascade: Cascade) -> None:
        super().__init__()
        self.cascade = cascade

    def initialise_output(self, start: OutputStart | None) -> None:
        """Set where the heads' output layers start."""
        self.cascade.initialise_output(start)

    def condition(
        self, level: int, embedding: Float[Tensor, "batch dim"], logits: list[Tensor]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, ""]]:
        """Return the embedding of a level, given the logits of all levels above it, and how far it moved."""
        raise NotImplementedError

    def forward(self, embedding: Float[Tensor, "batch dim"]) -> CascadeOutput:
        """Visit the levels."""
        logits: list[Tensor] = []
        embeddings = [embedding]
        modulation = [embedding.new_zeros((), dtype=torch.float32)]
        for level, head in enumerate(self.cascade.heads):
            if level:
                conditioned, moved = self.condition(level, embedding, logits)
                embeddings.append(conditioned)
                modulation.append(moved)
            logits.append(head(embeddings[level]))
        return CascadeOutput(torch.cat(logits, dim=1), tuple(embeddings), torch.stack(modulation))


class AllAbove(Conditioned):
    """FiLM by the signals of all levels above, concatenated; each is carried down to the target's nodes.

    A linear layer over a concatenation is the sum of one over each part: γ and β are sums over FiLM layers,
    the cascade's own for the level just above and a new one for each level above that.
    """

    def __init__(self, cascade: Cascade, taxonomy: Taxonomy) -> None:
        super().__init__(cascade)
        self.farther = nn.ModuleDict()
        for target in range(2, len(taxonomy.levels)):
            near = cascade.films[str(target)]
            for source in range(target - 1):
                self.farther[f"{source}_{target}"] = Film(
                    width=near.generator.out_features // 2,
                    propagation=cascade.films[str(source + 1)].propagation,
                    space=GatherSpace(ancestors_at(taxonomy, source, target)),
                    scale=near.scale,
                    detach_parent_signal=near.detach_parent_signal,
                )

    def initialise_output(self, start: OutputStart | None) -> None:
        """Set where the heads' output layers start; centre every FiLM there."""
        super().initialise_output(start)
        for name, film in self.farther.items():
            film.centre(self.cascade.heads[int(name.partition("_")[0])].output.bias)

    def condition(
        self, level: int, embedding: Float[Tensor, "batch dim"], logits: list[Tensor]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, ""]]:
        films = [self.farther[f"{source}_{level}"] for source in range(level - 1)]
        films.append(self.cascade.films[str(level)])
        parts = [
            film.scale * film.generator(film.condition(found)).to(film.c0.dtype)
            for film, found in zip(films, logits, strict=True)
        ]
        gamma, beta = torch.stack(parts).sum(0).chunk(2, dim=1)
        return embedding * (1 + gamma) + beta, gamma.detach().abs().mean(dtype=torch.float32)


def ancestors_at(taxonomy: Taxonomy, source: int, target: int) -> list[int]:
    """Return each node's ancestor at level `source` < `target`, as its position there."""
    found = taxonomy.level_parents(target)
    for level in range(target - 1, source, -1):
        above = taxonomy.level_parents(level)
        found = [above[position] for position in found]
    return found


def all_above(built: Built) -> Change:
    """Condition a level on all levels above it."""
    built.model.branches.single = AllAbove(built.cascade, built.taxonomy)
    return Change()


class Attention(Conditioned):
    """The embedding attends over the source level's labels; what it reads is added to it.

        w_j = p_j exp(<e, k_j>) / sum over i of p_i exp(<e, k_i>)       over the source level's nodes
        e_l = e + a (W (sum of w_j k_j) + bias)

    p is the signal, the source level's scores, detached as a FiLM's; k_j is the projected text of node j as
    the model is new, a constant of length 1; a is film_scale. W and bias start at zero. FiLM layers go.
    """

    def __init__(self, cascade: Cascade, texts: list[Float[Tensor, "source dim"]]) -> None:
        """Take the projected texts of the nodes, by level."""
        super().__init__(cascade)
        self.propagations = nn.ModuleDict({name: film.propagation for name, film in cascade.films.items()})
        first = cascade.films["1"]
        self.detach, self.scale = first.detach_parent_signal, first.scale
        cascade.films = nn.ModuleDict()
        width = texts[0].shape[1]
        self.read = nn.ModuleDict()
        for name in self.propagations:
            self.register_buffer(f"keys_{name}", F.normalize(texts[int(name) - 1], dim=1), persistent=False)
            self.read[name] = nn.Linear(width, width)
            nn.init.zeros_(self.read[name].weight)
            nn.init.zeros_(self.read[name].bias)

    def condition(
        self, level: int, embedding: Float[Tensor, "batch dim"], logits: list[Tensor]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, ""]]:
        name = str(level)
        keys, found = self.get_buffer(f"keys_{name}"), logits[-1].float()
        scores = self.propagations[name](found.detach() if self.detach else found)
        similarity = (embedding @ keys.T).float()
        weights = (similarity + scores.clamp(min=torch.finfo(scores.dtype).tiny).log()).softmax(1)
        added = (self.scale * self.read[name](weights @ keys)).to(embedding.dtype)
        return embedding + added, added.detach().abs().mean(dtype=torch.float32)


def attention(built: Built) -> Change:
    """Let every level but the first attend over the labels of the level above."""
    built.model.eval()  # without dropout
    with torch.no_grad():
        texts = built.model.projection(built.label_texts)
    sizes = [len(level) for level in built.taxonomy.levels]
    built.model.branches.single = Attention(built.cascade, list(torch.split(texts, sizes)))
    return Change()


class SecondPass(nn.Module):
    """A top-down pass, then a pass bottom-up over the same heads.

    At every level but the deepest the first pass's embedding is conditioned, by FiLM, on the first pass's
    scores of the level below. The second pass's logits are the view `single`, the first's the view `first`;
    the deepest level's are the same in both.
    """

    def __init__(self, first: Cascade, films: nn.ModuleDict) -> None:
        """Take the cascade, and FiLM layers by level: their source is the level below."""
        super().__init__()
        self.first, self.films = first, films

    def initialise_output(self, start: OutputStart | None) -> None:
        """Set where the heads' output layers start; centre every FiLM there."""
        self.first.initialise_output(start)
        for name, film in self.films.items():
            film.centre(self.first.heads[int(name) + 1].output.bias)

    def forward(self, embedding: Float[Tensor, "batch dim"]) -> BranchesOutput:
        """Return the views single and first."""
        first = self.first(embedding)
        by_level = torch.split(first.logits, [head.output.out_features for head in self.first.heads], dim=1)
        logits, modulation = [*by_level], [*first.modulation]
        for name, film in self.films.items():
            level = int(name)
            conditioned, modulation[level] = film(first.embeddings[level], by_level[level + 1])
            logits[level] = self.first.heads[level](conditioned)
        modulation[-1] = torch.zeros_like(modulation[-1])
        return BranchesOutput(
            {SINGLE_VIEW: torch.cat(logits, dim=1), "first": first.logits},
            {SINGLE_VIEW: torch.stack(modulation), "first": first.modulation},
        )


def second_pass(built: Built) -> Change:
    """Add a pass from the leaves to the root; the losses of both passes count half."""
    upwards = dataclasses.replace(
        built.config, direction=dataclasses.replace(built.config.direction, cascade_direction="bottom_up")
    )
    width = built.cascade.films["1"].generator.out_features // 2
    films = build.branches(upwards, built.taxonomy, width).single.films
    built.model.branches = SecondPass(built.cascade, films)
    return Change({SINGLE_VIEW: 0.5, "first": 0.5})


class BeforeProjection(nn.Module):
    """FiLM of the pooled state, by the root level's scores of a first pass; then projection and heads.

    The root level answers from the first pass, all others from the second. Pooling by mean, cls or last
    commutes with an affine map of each feature: this is FiLM of the last encoder layer's output tokens.
    """

    def __init__(self, cascade: Cascade, projection: nn.Module, film: Film) -> None:
        super().__init__()
        self.cascade, self.projection, self.film = cascade, projection, film

    def initialise_output(self, start: OutputStart | None) -> None:
        """Set where the heads' output layers start; `start` holds pooled texts, which are projected here."""
        if start is not None and start.label_embeddings is not None:
            with torch.no_grad():
                start = dataclasses.replace(start, label_embeddings=self.projection(start.label_embeddings))
        self.cascade.initialise_output(start)
        self.film.centre(self.cascade.heads[0].output.bias)

    def forward(self, pooled: Float[Tensor, "batch width"]) -> CascadeOutput:
        """Visit the root level, then all others."""
        embedding = self.projection(pooled)
        heads = self.cascade.heads
        root = heads[0](embedding)
        conditioned, moved = self.film(pooled, root)
        below = self.projection(conditioned)
        logits = [root, *(head(below) for head in heads[1:])]
        modulation = [torch.zeros_like(moved), *itertools.repeat(moved, len(heads) - 1)]
        embeddings = embedding, *itertools.repeat(below, len(heads) - 1)
        return CascadeOutput(torch.cat(logits, dim=1), embeddings, torch.stack(modulation))


def encoder(built: Built) -> Change:
    """Condition what the encoder returns on the root level."""
    cascade, first = built.cascade, built.cascade.films["1"]
    film = Film(
        width=built.label_texts.shape[1],
        propagation=first.propagation,
        space=SourceSpace(len(built.taxonomy.levels[0])),
        scale=first.scale,
        detach_parent_signal=first.detach_parent_signal,
    )
    cascade.films = nn.ModuleDict()
    built.model.branches.single = BeforeProjection(cascade, built.model.projection, film)
    built.model.projection = nn.Identity()
    return Change()


INDEPENDENT, TOP_DOWN, ORACLE = "independent", "top_down", "oracle"
VARIANTS: dict[str, Variant] = {
    INDEPENDENT: Variant("independent heads", overrides=("film=none",)),
    TOP_DOWN: Variant("FiLM by the scores of the level above"),
    ORACLE: Variant("gold labels as the signal, in training and in test", oracle),
    "gold_half": Variant("gold labels for half of the training documents", gold_half),
    "gold_anneal": Variant("gold labels for a share of them that falls to 0", gold_anneal),
    "learned_scale": Variant("a trained film_scale for each level", learned_scale),
    "scale_1": Variant("film_scale 1", overrides=("film.film_scale=1.0",)),
    "gradient": Variant("gradients through the signal", overrides=("film.detach_parent_signal=false",)),
    "all_above": Variant("the signals of all levels above", all_above),
    "second_pass": Variant("a second pass from the leaves to the root", second_pass),
    "attention": Variant("attention over the source level's label texts", attention),
    "encoder": Variant("FiLM before the projection, by the root level", encoder),
}
