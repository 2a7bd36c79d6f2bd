"""A model on its device with documents and scoring: a new one for training, or a checkpoint's.

prepared dataset --tokenise--> tokens --(a frozen encoder: embed)--> inputs of the model
configuration ---------------> new model    --> TrainingSession (`from_config`)
checkpoint ------------------> stored model --> Session (`from_checkpoint`)
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from hblm.config.train import TrainConfig
from hblm.console import Advance, StartTask, log, no_progress, progress
from hblm.data.batches import JoinedSplit, PooledSplit, Split, hold_back, subsample
from hblm.data.dataset import Prepared
from hblm.data.tokens import NODES, TokenisedSplit, tokenise
from hblm.document import SPLITS
from hblm.encoders.encoder import check_max_length, encoder_from_folder, load_encoder
from hblm.encoders.pretrained import Pretrained, encoder_entry
from hblm.encoders.tokenizer import Tokenizer, load_tokenizer
from hblm.engine import auto, build, collectives, device
from hblm.engine.embeddings import Embedder, vectors_of
from hblm.engine.encoder_check import EncoderCheck
from hblm.engine.initial_weights import Origin
from hblm.engine.notes import long_training
from hblm.engine.scoring import Scores, Scoring, Sink, no_sink, score
from hblm.engine.stored_counts import stored_counts
from hblm.engine.time_estimate import expected_seconds
from hblm.errors import CheckpointError, ConfigError
from hblm.nn.classifier import Classifier
from hblm.runs.checkpoint import WEIGHTS, Checkpoint
from hblm.runs.weights import load_weights

CALIBRATION = "calibration"  # the part of the validation split that trainer.calibration_share keeps

Inputs = Mapping[str, TokenisedSplit | PooledSplit]  # splits by name, as a model takes them


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model on its device, with its tokenizer: all that does not depend on a dataset."""

    model: Classifier
    tokenizer: Tokenizer
    accelerator: Accelerator


@dataclass(frozen=True, kw_only=True)
class Session(LoadedModel):
    """A model on its device, with the dataset and the scoring of its run.

    Attributes:
        prepared: the dataset.
        scoring: see there; its objective is on the device.
        tokens: every split, and the texts of nodes; train and val as far as `dataset_fraction` keeps them.
            With trainer.calibration_share a part of val is `calibration` instead.
        embedder: of a frozen encoder; None where the encoder is trained.
    """

    prepared: Prepared
    scoring: Scoring
    tokens: Mapping[str, TokenisedSplit]
    embedder: Embedder | None

    def inputs(self, names: Iterable[str], start: StartTask) -> Inputs:
        """Return splits as the model takes them: tokens, or the embeddings of a frozen encoder."""
        tokens = {name: self.tokens[name] for name in names}
        return tokens if self.embedder is None else self.embedder.embed(tokens, start)

    def score(self, split: Split, advance: Advance = no_progress, sink: Sink = no_sink) -> dict[str, Scores]:
        """Return the scores of every view over a split (see scoring.py)."""
        return score(self.model, split, self.scoring, self.accelerator, advance, sink)[0]


@dataclass(frozen=True, kw_only=True)
class TrainingSession(Session):
    """A new model, its splits, and where its encoder comes from; nothing has been trained yet.

    Attributes:
        source: the encoder's files.
        encoder: the result's entry of the encoder, with the hashes of the files that were loaded.
        train, val, test: as the model takes them.
        calibration: likewise; None without trainer.calibration_share.
        trained_on: `train`, with trainer.label_documents also the texts of nodes.
        chosen: settings that were chosen automatically, with reasons.
        init_from: the result's entry of the run whose weights this one starts from.
        mark: a random text in result and checkpoint that tells trainings of one run apart.
    """

    source: Pretrained
    encoder: Mapping[str, Any]
    train: Split
    trained_on: Split
    val: Split
    test: Split
    calibration: Split | None
    chosen: auto.Chosen
    init_from: Mapping[str, Any] | None
    mark: str = field(default_factory=lambda: secrets.token_hex(8))


def from_config(
    config: TrainConfig, prepared: Prepared, source: Pretrained, run_name: str
) -> TrainingSession:
    """Return a new model with its documents, ready for training.

    Args:
        config: the run's configuration, with no setting left open.
        prepared, source: its dataset and the files of its encoder.
        run_name: for trackers.

    Raises:
        ConfigError: the encoder cannot be loaded or fails its check, or a key does not fit it or the
            documents.
        CheckpointError: the checkpoint to start from is damaged.
        DataError: the documents have a fault, or changed since they were opened.
    """
    accelerator_for = functools.partial(_accelerator, config, run_name)
    accelerator = accelerator_for(config.trainer.precision)
    device.seed_everything(config.seed, accelerator.device)
    encoder = load_encoder(
        source,
        dropout=config.encoder.dropout,
        gradient_checkpointing=config.encoder.gradient_checkpointing,
        max_length=config.encoder.max_length,
    )
    tokenizer = load_tokenizer(source)
    entry = encoder_entry(source)
    with progress() as start:
        tokens = _tokenise(config, prepared, encoder, tokenizer, Path(config.cache_dir), start)
    build.require_single_paths(config, {name: tokens[name] for name in SPLITS}, prepared.taxonomy)
    scoring = build.scoring(
        config,
        prepared.taxonomy,
        tokenizer,
        build.TrainingCounts.of(tokens["train"], prepared.taxonomy),
        threshold=config.threshold,
        batch_size=build.eval_batch_size(config),
        num_workers=config.trainer.num_workers,
    )
    model = build.classifier(config, prepared.taxonomy, encoder, scoring.objective.loss.link)
    collectives.vary_dropout(accelerator, config.seed)
    model.to(accelerator.device)
    origin = Origin(config, prepared.taxonomy) if config.init_from else None
    if origin:
        origin.copy_layers(model)
    accelerator, chosen = _checked(config, model, tokenizer, accelerator, accelerator_for)
    loaded = LoadedModel(model=model, tokenizer=tokenizer, accelerator=accelerator)
    session = _session(loaded, prepared, scoring, tokens, Path(config.cache_dir))
    inputs = _training_inputs(config, session)
    label_texts = None
    if config.head.output_init == "label_text":
        label_texts = vectors_of(model, inputs[NODES], scoring, accelerator)
    build.initialise_output(model, config, scoring, label_texts)
    if origin:
        origin.copy_nodes(model)
        log.info("%s", origin)
    return TrainingSession(
        **_fields_of(session),
        source=source,
        encoder=entry,
        train=inputs["train"],
        trained_on=_trained_on(config, inputs),
        val=inputs["val"],
        test=inputs["test"],
        calibration=inputs.get(CALIBRATION),
        chosen=chosen,
        init_from=origin.entry() if origin else None,
    )


def from_checkpoint(
    checkpoint: Checkpoint,
    config: TrainConfig,
    prepared: Prepared,
    start: StartTask,
    *,
    device_name: str,
    threshold: float,
    num_workers: int,
    cache_dir: Path,
    other_splits: Sequence[str] | None = None,
) -> Session:
    """Return a stored model with the dataset of its run, or with other data.

    Of other data all documents are used, and the nodes of its taxonomy are counted.

    Args:
        checkpoint: the checkpoint, opened.
        config: its configuration, whose weights that fuse views may have been changed.
        prepared: the dataset that it was trained on, or other data.
        start: starts a task of a progress bar.
        device_name: as configured: auto, cpu, cuda or mps.
        threshold: the score from which on a node is predicted.
        num_workers: processes that load batches.
        cache_dir: the folder of all caches.
        other_splits: those that are used of other data; None for the dataset that it was trained on.

    Raises:
        CheckpointError: a part of the checkpoint is damaged, or parts do not belong together, or other data
            cannot be scored (see `stored_counts`).
        ConfigError: the device is not available.
        DataError: the documents have a fault, or changed since they were opened.
    """
    counts = _stored_counts(checkpoint) if other_splits is not None else None
    loaded = load_model(checkpoint, config, device_name)
    encoder, tokenizer = loaded.model.encoder, loaded.tokenizer
    tokens = _tokenise(config, prepared, encoder, tokenizer, cache_dir, start, other_splits)
    if other_splits is None:
        counts = build.TrainingCounts.of(tokens["train"], checkpoint.taxonomy)
    scoring = build.scoring(
        config,
        checkpoint.taxonomy,
        tokenizer,
        counts or build.TrainingCounts.none(checkpoint.taxonomy),
        threshold=threshold,
        batch_size=checkpoint.meta["eval_batch_size"],
        num_workers=num_workers,
    )
    if other_splits is not None:
        scoring = build.scoring_over(scoring, prepared.taxonomy, tokenizer)
    if counts is None:
        scoring = replace(scoring, train_support=None)
    return _session(loaded, prepared, scoring, tokens, cache_dir)


def _stored_counts(checkpoint: Checkpoint) -> build.TrainingCounts | None:
    """Return a checkpoint's training counts; None where they are not known and scores do not need them.

    Raises:
        CheckpointError: scores need them (see `stored_counts`).
    """
    try:
        return stored_counts(checkpoint)
    except CheckpointError as error:
        loss = checkpoint.config.loss
        if loss.is_conditional:
            raise CheckpointError(f"{error}; the scores of loss={loss.loss} depend on them") from None
        log.warning("%s; the result has no by_frequency", error)
        return None


def load_model(checkpoint: Checkpoint, config: TrainConfig, device_name: str) -> LoadedModel:
    """Return a checkpoint's model on its device, in the checkpoint's precision, or fp32 for fp16 on a CPU.

    Raises:
        CheckpointError: as `stored_model`.
        ConfigError: the device is not available.
    """
    accelerator = device.accelerator(device_name, checkpoint.meta["precision"], fallback="fp32")
    device.seed_everything(config.seed, accelerator.device)
    model, tokenizer = stored_model(checkpoint, config)
    model.to(accelerator.device)
    return LoadedModel(model=model, tokenizer=tokenizer, accelerator=accelerator)


def stored_model(checkpoint: Checkpoint, config: TrainConfig) -> tuple[Classifier, Tokenizer]:
    """Return a checkpoint's model, on the CPU, and its tokenizer.

    Raises:
        CheckpointError: a part of the checkpoint is damaged, or parts do not belong together.
    """
    try:
        encoder, tokenizer = encoder_from_folder(checkpoint.encoder, checkpoint.folder / WEIGHTS)
        check_max_length(encoder, config.encoder.max_length)
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint.folder} is damaged: {error}") from None
    model = build.classifier(config, checkpoint.taxonomy, encoder)
    load_weights(checkpoint, model)
    return model, tokenizer


def _tokenise(
    config: TrainConfig,
    prepared: Prepared,
    encoder: nn.Module,
    tokenizer: Tokenizer,
    cache_dir: Path,
    start: StartTask,
    other_splits: Sequence[str] | None = None,
) -> dict[str, TokenisedSplit]:
    """Return the splits and the texts of nodes as tokens, as `Session.tokens` has them.

    Of other data these are some splits, whole.

    Raises:
        ConfigError: a token without a row in the encoder, or trainer.calibration_share leaves no documents.
        DataError: the documents have a fault, or changed since they were opened.
    """
    splits = tokenise(
        prepared,
        tokenizer,
        max_length=config.encoder.max_length,
        cache_dir=cache_dir,
        progress=start,
        splits=SPLITS if other_splits is None else other_splits,
    )
    build.require_rows(encoder, tokenizer, splits, config.encoder.model_name)
    if other_splits is not None:
        return splits
    splits |= {name: subsample(splits[name], config.dataset_fraction) for name in ("train", "val")}
    if config.trainer.calibration_share:
        splits["val"], splits[CALIBRATION] = hold_back(splits["val"], config.trainer.calibration_share)
    return splits


def _session(
    loaded: LoadedModel,
    prepared: Prepared,
    scoring: Scoring,
    tokens: Mapping[str, TokenisedSplit],
    cache_dir: Path,
) -> Session:
    """Return the session, the objective moved to the device."""
    model, accelerator = loaded.model, loaded.accelerator
    scoring.objective.to(accelerator.device)
    embedder = None
    if not model.trainable:
        embedder = Embedder(model, loaded.tokenizer, scoring, accelerator, cache_dir)
    return Session(**_fields_of(loaded), prepared=prepared, scoring=scoring, tokens=tokens, embedder=embedder)


def _fields_of(value: LoadedModel) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in fields(value)}


def _accelerator(config: TrainConfig, run_name: str, precision: str) -> Accelerator:
    return device.accelerator(
        config.device,
        precision,
        trackers=config.trackers,
        project_dir=Path(config.output_dir) / "trackers",
        run_name=run_name,
    )


def _checked(
    config: TrainConfig,
    model: Classifier,
    tokenizer: Tokenizer,
    accelerator: Accelerator,
    accelerator_for: Callable[[str], Accelerator],
) -> tuple[Accelerator, auto.Chosen]:
    """Check the encoder on two short documents; return the accelerator to use.

    With trainer.precision=auto, an encoder that fails in reduced precision gets fp32, which is returned as a
    chosen setting.

    Raises:
        ConfigError: the encoder fails its check, or fails in the precision that the configuration names.
    """
    check = EncoderCheck(
        model,
        pad_id=tokenizer.pad_token_id,
        max_length=config.encoder.max_length,
        model_name=config.encoder.model_name,
        pooling=config.pooling.pooling,
    )
    check.require_sound()
    precision = device.resolved_precision(accelerator)
    if precision == "fp32" or not (fault := check.fault_under(accelerator.autocast)):
        return accelerator, {}
    reason = f"{type(model.encoder).__name__} fails in {precision} ({fault})"
    if config.trainer.precision != "auto":
        raise ConfigError(f"trainer.precision={precision}: {reason}; write trainer.precision=fp32 or auto")
    chosen: auto.Chosen = {"trainer.precision": {"value": "fp32", "reason": reason}}
    for line in auto.lines(chosen):
        log.info("%s", line)
    return accelerator_for("fp32"), chosen


def _training_inputs(config: TrainConfig, session: Session) -> Inputs:
    """Return the splits that training uses, as the model takes them; announce a long training before.

    The texts of nodes are among them where the configuration uses them.
    """
    names = [*SPLITS, *([CALIBRATION] if CALIBRATION in session.tokens else [])]
    if config.head.output_init == "label_text" or config.trainer.label_documents:
        names.append(NODES)
    tokens = {name: session.tokens[name] for name in names}
    if session.embedder is None:
        _announce(config, session, [_trained_on(config, tokens), tokens["val"]])
    else:
        _announce(config, session, session.embedder.missing(tokens.values()))
    if session.embedder is None:
        return tokens
    with progress() as start:
        return session.inputs(names, start)


def _trained_on(config: TrainConfig, splits: Inputs) -> Split:
    """Return the documents of an epoch: with trainer.label_documents also the texts of nodes."""
    return JoinedSplit(splits["train"], splits[NODES]) if config.trainer.label_documents else splits["train"]


def _announce(config: TrainConfig, session: Session, splits: Sequence[Split]) -> None:
    """Log how long training may take, where that is long; `splits` are as for `expected_seconds`."""
    seconds = expected_seconds(
        session.model,
        splits,
        schedule=build.schedule(config),
        scoring=session.scoring,
        accelerator=session.accelerator,
    )
    name = device.device_name(session.accelerator.device)
    documents = sum(len(split) for split in (splits[:1] if session.model.trainable else splits))
    if seconds and (line := long_training(seconds, config, documents=documents, device=name)):
        log.info(line)
