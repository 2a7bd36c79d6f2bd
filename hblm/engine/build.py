"""Objects from the typed configuration: the only file where a configuration becomes a model."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hblm.config.identity import arguments
from hblm.config.train import TrainConfig
from hblm.data.batches import collate
from hblm.data.tokens import TokenisedSplit
from hblm.encoders.encoder import embedding_rows, encoder_width
from hblm.encoders.tokenizer import Tokenizer
from hblm.engine.loop import Schedule
from hblm.engine.scoring import Scoring
from hblm.errors import ConfigError
from hblm.nn.cascade import Cascade
from hblm.nn.classifier import Classifier, Projection
from hblm.nn.heads import OutputStart
from hblm.nn.joint import Dual, Single, TriHeadDiffcat
from hblm.nn.link import Link
from hblm.nn.losses import LOSSES, Loss, Objective
from hblm.nn.pooling import POOLINGS
from hblm.taxonomy import Taxonomy


@dataclass(frozen=True)
class TrainingCounts:
    """Counts of a run's training documents, which its scores depend on; a checkpoint has them.

    Attributes:
        documents: all of them.
        positives: documents with each node, in taxonomy order.
        stops: documents with each node and none of its children.
    """

    documents: int
    positives: Int[Tensor, " nodes"]
    stops: Int[Tensor, " nodes"]

    @classmethod
    def of(cls, train: TokenisedSplit, taxonomy: Taxonomy) -> TrainingCounts:
        """Count a training split, as dataset_fraction keeps it."""
        return cls(
            documents=len(train),
            positives=torch.as_tensor(train.label_counts(len(taxonomy))),
            stops=torch.as_tensor(train.stop_counts(taxonomy.parents)),
        )

    @classmethod
    def none(cls, taxonomy: Taxonomy) -> TrainingCounts:
        """Return the counts of no document."""
        zeros = torch.zeros(len(taxonomy), dtype=torch.int64)
        return cls(documents=0, positives=zeros, stops=zeros)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> TrainingCounts:
        """Return the counts that a checkpoint has."""
        return cls(
            documents=entry["documents"],
            positives=torch.tensor(entry["positives"]),
            stops=torch.tensor(entry["stops"]),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the checkpoint's entry."""
        return {
            "documents": self.documents,
            "positives": self.positives.tolist(),
            "stops": self.stops.tolist(),
        }


def classifier(
    config: TrainConfig, taxonomy: Taxonomy, encoder: nn.Module, link: Link | None = None
) -> Classifier:
    """Return the model of a configuration, with the encoder given; `link` as in `branches`."""
    pooled = encoder_width(encoder)
    options = config.encoder
    width = (options.projection_dim or pooled) if options.project_embedding else pooled
    projection = (
        Projection(pooled, width, options.projection_dropout) if options.project_embedding else nn.Identity()
    )
    pooling = POOLINGS[config.pooling.pooling]()
    return Classifier(
        encoder,
        pooling,
        projection,
        branches(config, taxonomy, width, link),
        trainable=options.trainable,
    )


def branches(config: TrainConfig, taxonomy: Taxonomy, width: int, link: Link | None = None) -> Single | Dual:
    """Return the branches of a model: one, or two with or without a mix head.

    Args:
        config: the run's configuration.
        taxonomy: the label forest.
        width: of the embedding that the branches read.
        link: of the loss, which depends on the training documents; None for a model whose state is loaded
            from a checkpoint.
    """
    if link is None:
        link = loss(config, taxonomy, TrainingCounts.none(taxonomy)).link

    def cascade(direction: str) -> Cascade:
        return Cascade(
            taxonomy,
            direction=direction,
            width=width,
            head=config.head.classification_head_type,
            head_dropout=config.head.dropout,
            propagation_method=config.film.propagation_method,
            propagation_space=config.film.propagation_space,
            film_scale=config.film.film_scale,
            detach_parent_signal=config.film.detach_parent_signal,
            threshold=config.threshold,
            link=link,
        )

    joint = config.joint_variant
    if not joint.is_joint:
        return Single(cascade(config.direction.cascade_direction))
    td, bu = cascade("top_down"), cascade("bottom_up")
    if joint.joint_variant == "dual":
        return Dual(td, bu)
    return TriHeadDiffcat(
        td,
        bu,
        taxonomy=taxonomy,
        width=width,
        head=config.head.classification_head_type,
        head_dropout=config.head.dropout,
        fuse=joint.fuse_weights,
    )


def loss(config: TrainConfig, taxonomy: Taxonomy, counts: TrainingCounts) -> Loss:
    """Return the loss, given counts of the training documents."""
    given: dict[str, Any] = {"positives": counts.positives, "n_documents": counts.documents}
    if config.loss.is_conditional:
        given["stops"] = counts.stops
    return LOSSES[config.loss.loss](taxonomy, **given, **arguments(config, "loss"))


def initialise_output(
    model: Classifier,
    config: TrainConfig,
    scoring: Scoring,
    label_texts: Float[Tensor, "nodes width"] | None,
) -> None:
    """Initialise the heads' output layers by head.output_init.

    Args:
        model: new, on its device.
        config: the run's configuration.
        scoring: its loss has the prior logits.
        label_texts: the pooled states of the nodes' texts; None if head.output_init is not label_text.
    """
    if config.head.output_init == "default":
        model.branches.initialise_output(None)
        return
    priors = scoring.objective.loss.prior_logits()
    embeddings = None
    if label_texts is not None:
        model.eval()  # without dropout
        with torch.no_grad():
            embeddings = model.projection(label_texts)
    model.branches.initialise_output(OutputStart(priors, embeddings, config.head.label_text_gain))


def require_single_paths(
    config: TrainConfig, splits: Mapping[str, TokenisedSplit], taxonomy: Taxonomy
) -> None:
    """Refuse documents with several paths if the loss takes one path each.

    Raises:
        ConfigError: with loss=conditional_softmax, a document has two nodes on one level.
    """
    if config.loss.loss != "conditional_softmax":
        return
    level_of = np.repeat(np.arange(len(taxonomy.levels)), [len(level) for level in taxonomy.levels])
    for name, split in splits.items():
        rows, nodes = split.labels(np.arange(len(split)))
        counts = np.bincount(rows * len(taxonomy.levels) + level_of[nodes])
        if counts.max(initial=0) > 1:
            document = int(counts.argmax()) // len(taxonomy.levels)
            several = int((counts > 1).sum())
            raise ConfigError(
                f"loss=conditional_softmax takes documents with one path, and {name} has document "
                f"{split.document_ids()[document]!r} with {counts.max()} nodes on one level "
                f"({several} such places); write loss=conditional, which takes several paths"
            )


def require_rows(
    encoder: nn.Module, tokenizer: Tokenizer, splits: Mapping[str, TokenisedSplit], model_name: str
) -> None:
    """Refuse a tokenizer with token ids that the encoder's embedding has no row for.

    Args:
        encoder, tokenizer: of one run.
        splits: all splits as tokens, with the texts of nodes.
        model_name: the encoder's name, for the message.

    Raises:
        ConfigError: a document, or the padding, has such an id.
    """
    rows = embedding_rows(encoder)
    if rows is None:
        return
    way_out = "give the tokenizer that the model was trained with, or resize_token_embeddings(len(tokenizer))"
    for name, split in splits.items():
        if (first := split.first_beyond(rows)) is not None:
            token, document = first
            where = f"{name} has it in {document!r}"
            break
    else:
        token = int(tokenizer.pad_token_id)
        where = "it is the padding token"
        end = tokenizer.eos_token
        if end is not None and tokenizer.eos_token_id < rows:
            way_out = f'write "pad_token": {json.dumps(end)} in tokenizer_config.json, or {way_out}'
        if token < rows:
            return
    raise ConfigError(
        f"encoder.model_name={model_name}: its tokenizer has the token "
        f"{tokenizer.convert_ids_to_tokens(token)!r} with the id {token} ({where}), and its embedding has "
        f"{rows} rows, for ids up to {rows - 1}; {way_out}"
    )


def schedule(config: TrainConfig) -> Schedule:
    """Return the trainer's settings."""
    names = Schedule.__dataclass_fields__.keys() - {"seed"}
    return Schedule(seed=config.seed, **{name: getattr(config.trainer, name) for name in names})


def scoring(
    config: TrainConfig,
    taxonomy: Taxonomy,
    tokenizer: Tokenizer,
    counts: TrainingCounts,
    *,
    threshold: float,
    batch_size: int,
    num_workers: int,
) -> Scoring:
    """Return the settings of scoring.

    Args:
        config: the run's configuration.
        taxonomy: the label forest.
        tokenizer: has the padding token.
        counts: of the run's training documents.
        threshold: a node is predicted when its score is at least this.
        batch_size: documents a batch.
        num_workers: processes that load batches.
    """
    return Scoring(
        taxonomy=taxonomy,
        objective=Objective(loss(config, taxonomy, counts), config.joint_variant.loss_weights),
        train_support=counts.positives.tolist(),
        threshold=threshold,
        batch_size=batch_size,
        num_workers=num_workers,
        collate=functools.partial(
            collate,
            n_nodes=len(taxonomy),
            pad_id=tokenizer.pad_token_id,
        ),
    )


def scoring_over(scoring: Scoring, taxonomy: Taxonomy, tokenizer: Tokenizer) -> Scoring:
    """Return the scoring of documents that are labelled with other nodes than the model's.

    Args:
        scoring: over all nodes of the model.
        taxonomy: some or all of these nodes, in any order.
        tokenizer: has the padding token.
    """
    columns = [scoring.taxonomy.index[node.id] for node in taxonomy.nodes]
    support = scoring.train_support
    return replace(
        scoring,
        taxonomy=taxonomy,
        columns=torch.tensor(columns),
        train_support=None if support is None else [support[column] for column in columns],
        collate=functools.partial(collate, n_nodes=len(taxonomy), pad_id=tokenizer.pad_token_id),
    )


def eval_batch_size(config: TrainConfig) -> int:
    """Return the documents a batch of scoring: two micro-batches, as no gradients need memory."""
    return max(1, 2 * schedule(config).batch_size // config.trainer.gradient_accumulation)
