"""A model ready for use, with documents, scoring and device: from a configuration or a checkpoint."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hblm.config.train import TrainConfig
from hblm.console import log, progress
from hblm.data.dataset import Prepared
from hblm.document import SPLITS
from hblm.encoders.encoder import check_max_length, encoder_from_folder
from hblm.encoders.pretrained import Pretrained, encoder_record
from hblm.encoders.tokenizer import Tokenizer
from hblm.engine import auto
from hblm.engine.build import classifier
from hblm.engine.initial_weights import Origin
from hblm.engine.notes import long_training
from hblm.errors import CheckpointError, ConfigError
from hblm.nn.classifier import Classifier
from hblm.runs.checkpoint import WEIGHTS, Checkpoint, load_weights

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hblm.data.batches import PooledSplit, Split
    from hblm.data.tokens import TokenisedSplit
    from hblm.encoders.tokenizer import Tokenizer
    from hblm.engine.scoring import Scoring
    from hblm.nn.classifier import Classifier


@dataclass(frozen=True)
class Job:
    """All that a run needs, loaded: nothing here has been trained yet."""

    prepared: Prepared
    source: Pretrained
    encoder: Mapping[str, Any]  # what identified it when it was loaded
    accelerator: Accelerator
    model: Classifier
    tokenizer: Tokenizer
    train: Split
    trained_on: Split  # with trainer.label_documents also the texts of nodes
    val: Split
    test: Split
    scoring: Scoring
    chosen: auto.Chosen = field(default_factory=dict)  # the settings that nobody gave
    init_from: Mapping[str, Any] | None = None  # what was taken of another run's weights
    mark: str = field(default_factory=lambda: secrets.token_hex(8))  # tells trainings of one run apart


def set_up(config: TrainConfig, prepared: Prepared, source: Pretrained, name: str) -> Job:
    """Load the encoder, the documents as the model takes them and the device; build the model.

    Args:
        name: the run's, for trackers.

    Raises:
        ConfigError: the encoder is not to be had or not sound, or a key does not go with it or the documents.
        CheckpointError: the checkpoint to start from is damaged.
        DataError: the documents have a fault, or changed since they were opened.
    """
    # only now torch: a run that is done, or a fault, answers in a second
    from hblm.data.batches import subsample
    from hblm.data.tokens import NODES, tokenise
    from hblm.encoders.encoder import load_encoder
    from hblm.encoders.tokenizer import load_tokenizer
    from hblm.engine import build, collectives, device
    from hblm.engine.embeddings import Embedder, vectors_of
    from hblm.engine.encoder_check import Trial

    accelerator_in = functools.partial(
        device.accelerator,
        config.device,
        trackers=config.trackers,
        project_dir=Path(config.output_dir) / "trackers",
        run_name=name,
    )
    accelerator = accelerator_in(config.trainer.precision)
    device.seed_everything(config.seed, accelerator.device)
    encoder = load_encoder(
        source,
        dropout=config.encoder.dropout,
        gradient_checkpointing=config.encoder.gradient_checkpointing,
        max_length=config.encoder.max_length,
    )
    tokenizer = load_tokenizer(source)
    record = encoder_record(source)
    with progress() as start:
        splits = tokenise(
            prepared,
            tokenizer,
            max_length=config.encoder.max_length,
            cache_dir=Path(config.cache_dir),
            progress=start,
        )
    build.require_rows(encoder, tokenizer, splits, source.model_name)
    build.require_single_paths(config, {name: splits[name] for name in SPLITS}, prepared.taxonomy)
    splits |= {name: subsample(splits[name], config.dataset_fraction) for name in ("train", "val")}
    label_text = config.head.output_init == "label_text"
    if not label_text and not config.trainer.label_documents:
        del splits[NODES]
    scoring = build.scoring(
        config,
        prepared.taxonomy,
        tokenizer,
        splits["train"],
        threshold=config.threshold,
        batch_size=build.eval_batch_size(config),
        num_workers=config.trainer.num_workers,
    )
    model = build.classifier(config, prepared.taxonomy, encoder, scoring.objective.loss.link)
    collectives.vary_dropout(accelerator, config.seed)
    model.to(accelerator.device)
    scoring.objective.to(accelerator.device)
    origin = Origin(config, prepared.taxonomy) if config.init_from else None
    if origin:
        origin.give_layers(model)
    trial = Trial(
        model,
        pad_id=tokenizer.pad_token_id,
        max_length=config.encoder.max_length,
        model_name=source.model_name,
        pooling=config.pooling.pooling,
    )
    trial.require_sound()
    precision = device.resolved_precision(accelerator)
    chosen: auto.Chosen = {}
    if precision != "fp32" and (fault := trial.fault_under(accelerator.autocast)):
        reason = f"{type(encoder).__name__} fails in {precision} ({fault})"
        if config.trainer.precision != "auto":
            raise ConfigError(
                f"trainer.precision={precision}: {reason}; write trainer.precision=fp32 or auto"
            )
        chosen = {"trainer.precision": {"value": "fp32", "reason": reason}}
        for line in auto.lines(chosen):
            log.info("%s", line)
        accelerator = accelerator_in("fp32")
    embedder = Embedder(model, tokenizer, scoring, accelerator, Path(config.cache_dir))
    inputs: Mapping[str, TokenisedSplit | PooledSplit] = splits
    if model.trainable:
        announce(config, model, [trained_on(config, splits), splits["val"]], scoring, accelerator)
    else:
        announce(config, model, embedder.missing(splits.values()), scoring, accelerator)
        with progress() as start:
            inputs = embedder.embed(splits, start)
    texts = vectors_of(model, inputs[NODES], scoring, accelerator) if label_text else None
    build.initialise_output(model, config, scoring, texts)
    if origin:
        origin.give_nodes(model)
        log.info("%s", origin)
    return Job(
        prepared=prepared,
        source=source,
        encoder=record,
        accelerator=accelerator,
        model=model,
        tokenizer=tokenizer,
        train=inputs["train"],
        trained_on=trained_on(config, inputs),
        val=inputs["val"],
        test=inputs["test"],
        scoring=scoring,
        chosen=chosen,
        init_from=origin.record() if origin else None,
    )


def trained_on(config: TrainConfig, splits: Mapping[str, TokenisedSplit | PooledSplit]) -> Split:
    """Return the documents of an epoch: with trainer.label_documents also the texts of nodes."""
    from hblm.data.batches import JoinedSplit
    from hblm.data.tokens import NODES

    documents = splits["train"]
    return JoinedSplit(documents, splits[NODES]) if config.trainer.label_documents else documents


def announce(
    config: TrainConfig,
    model: Classifier,
    splits: Sequence[Split],
    scoring: Scoring,
    accelerator: Accelerator,
) -> None:
    """Log before a long training how long it will take at most; `splits` are as for `expected_seconds`."""
    from hblm.engine import build, device
    from hblm.engine.time_estimate import expected_seconds

    seconds = expected_seconds(
        model,
        splits,
        schedule=build.schedule(config),
        scoring=scoring,
        accelerator=accelerator,
    )
    name = device.device_name(accelerator.device)
    documents = sum(len(split) for split in (splits[:1] if model.trainable else splits))
    if seconds and (line := long_training(seconds, config, documents=documents, device=name)):
        log.info(line)


def stored_model(checkpoint: Checkpoint, config: TrainConfig) -> tuple[Classifier, Tokenizer]:
    """Return a checkpoint's model and tokenizer; `config` is its own, but for the weights that fuse views.

    Raises:
        CheckpointError: a part of it is damaged, or two do not belong together.
    """
    try:
        encoder, tokenizer = encoder_from_folder(checkpoint.encoder, checkpoint.folder / WEIGHTS)
        check_max_length(encoder, config.encoder.max_length)
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint.folder} is damaged: {error}") from None
    model = classifier(config, checkpoint.taxonomy, encoder)
    load_weights(checkpoint, model)
    return model, tokenizer
