"""From the typed configuration to objects: the only place where configuration meets code."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import TensorBoardTracker
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from jaxtyping import Float
from torch import Tensor, nn

from hblm.artifacts import environment
from hblm.checkpoint import WEIGHTS, Checkpoint, load_weights
from hblm.config import TrainConfig
from hblm.corpus.batches import TokenisedSplit, collate
from hblm.errors import CheckpointError, ConfigError
from hblm.fit import Schedule
from hblm.loss import LOSSES, Loss, Objective
from hblm.nn.cascade import Cascade
from hblm.nn.classifier import Classifier, Projection
from hblm.nn.encoder import (
    Tokenizer,
    check_max_length,
    embedding_rows,
    encoder_from_folder,
    encoder_width,
)
from hblm.nn.heads import OutputStart
from hblm.nn.joint import Dual, Single, TriHeadDiffcat
from hblm.nn.link import Link
from hblm.nn.pooling import POOLINGS
from hblm.processes import place
from hblm.runs import untaken
from hblm.score import Scoring
from hblm.taxonomy import Taxonomy

_PATIENCE = timedelta(days=1)  # for the first process, which may prepare data or wait for another run


def classifier(
    config: TrainConfig, taxonomy: Taxonomy, encoder: nn.Module, link: Link | None = None
) -> Classifier:
    """Return the model that a configuration describes, around an encoder; `link` as of `branches`."""
    pooled = encoder_width(encoder)
    options = config.encoder
    width = (options.projection_dim or pooled) if options.project_embedding else pooled
    projection = (
        Projection(pooled, width, options.projection_dropout) if options.project_embedding else nn.Identity()
    )
    pooling = POOLINGS[config.pooling.pooling]()
    stands = branches(config, taxonomy, width, link)
    return Classifier(encoder, pooling, projection, stands, trainable=options.trainable)


def branches(config: TrainConfig, taxonomy: Taxonomy, width: int, link: Link | None = None) -> Single | Dual:
    """Return what stands on the embedding, `width` wide: one branch, or two and what mixes them.

    `link` is the loss's; None: that of the configured loss before any training document, whose state is a
    checkpoint's.
    """
    if link is None:
        none = torch.zeros(len(taxonomy), dtype=torch.int64)
        link = loss(config, taxonomy, positives=none, n_documents=0, stops=none).link

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


def loss(
    config: TrainConfig, taxonomy: Taxonomy, *, positives: Tensor, n_documents: int, stops: Tensor
) -> Loss:
    """Return the loss, given what the training split's documents bear.

    Args:
        positives: how many of them bear each node.
        n_documents: how many there are.
        stops: how many of them bear each node and none of its children.
    """
    options = config.loss
    own: dict[str, dict[str, Any]] = {
        "bce": {"level_reduction": options.level_reduction},
        "focal": {"level_reduction": options.level_reduction, "gamma": options.gamma},
        "conditional_softmax": {"stops": stops, "tau": options.tau},
        "conditional": {"stops": stops},
    }
    return LOSSES[options.loss](taxonomy, positives=positives, n_documents=n_documents, **own[options.loss])


def initialise_output(
    model: Classifier,
    config: TrainConfig,
    scoring: Scoring,
    label_texts: Float[Tensor, "nodes width"] | None,
) -> None:
    """Start the heads where the configuration says.

    Args:
        model: new, on its device.
        config: the run's.
        scoring: its loss knows the prior logits.
        label_texts: the pooled states of the texts of nodes; None where no row comes from a text.
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
    """Refuse documents that a loss of one path each cannot take.

    Raises:
        ConfigError: with loss=conditional_softmax, a document with two nodes on one level.
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
    """Refuse token ids for which the encoder's embedding has no row.

    Args:
        encoder, tokenizer: that go together.
        splits: all tokenised ones, the texts of nodes among them.
        model_name: of the encoder, for the message.

    Raises:
        ConfigError: the first such id of a document, or the padding token's.
    """
    rows = embedding_rows(encoder)
    if rows is None:
        return
    way_out = "give the tokenizer that the model was trained with, or resize_token_embeddings(len(tokenizer))"
    for name, split in splits.items():
        if (found := split.first_beyond(rows)) is not None:
            token, document = found
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


def schedule(config: TrainConfig) -> Schedule:
    """Return how long and how fast to train."""
    names = Schedule.__dataclass_fields__.keys() - {"seed"}
    return Schedule(seed=config.seed, **{name: getattr(config.trainer, name) for name in names})


def scoring(
    config: TrainConfig,
    taxonomy: Taxonomy,
    tokenizer: Tokenizer,
    train: TokenisedSplit,
    *,
    threshold: float,
    batch_size: int,
    num_workers: int,
) -> Scoring:
    """Return how splits are scored, given the training split as the run saw it."""
    positives = torch.as_tensor(train.label_counts(len(taxonomy)))
    stops = torch.as_tensor(train.stop_counts(taxonomy.parents))
    chosen = loss(config, taxonomy, positives=positives, n_documents=len(train), stops=stops)
    return Scoring(
        taxonomy=taxonomy,
        objective=Objective(chosen, config.joint_variant.loss_weights),
        train_support=positives.tolist(),
        threshold=threshold,
        batch_size=batch_size,
        num_workers=num_workers,
        collate=functools.partial(
            collate,
            n_nodes=len(taxonomy),
            pad_id=tokenizer.pad_token_id,
        ),
    )


def eval_batch_size(config: TrainConfig) -> int:
    """Return documents per batch without gradients: twice a micro-batch fits where one with them does."""
    return max(1, 2 * schedule(config).batch_size // config.trainer.gradient_accumulation)


def accelerator(
    device: str,
    precision: str,
    *,
    fallback: str | None = None,
    trackers: list[str] | None = None,
    project_dir: Path | None = None,
    run_name: str = "run",
) -> Accelerator:
    """Return the accelerator for a device and a precision.

    Args:
        device, precision: as configured.
        fallback: the precision to take instead of one that this device does not have.
        trackers: by name; they log under `project_dir`, TensorBoard to a folder named after the run.
        project_dir: of the trackers.
        run_name: the run's.

    Raises:
        ConfigError: a device that is not there, fp16 without a GPU, a tracker that is not installed.
    """
    here = place()
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, True):
        raise ConfigError(f"device={device} is not available here; write device=auto or device=cpu")
    if device == "mps" and here.size > 1:
        raise ConfigError(
            "device=mps trains with one process; leave trainer.processes out, or write device=cpu"
        )
    if here.size > 1:
        available["mps"] = False
    if device != "cpu" and available["cuda"] and here.local_size > torch.cuda.device_count():
        raise ConfigError(
            f"{here.local_size} processes on this machine need a GPU each, and there are "
            f"{torch.cuda.device_count()}; lower trainer.processes"
        )
    gpu = device != "cpu" and any(available.values())
    if precision == "fp16" and not gpu and fallback:
        precision = fallback
    if precision == "fp16" and not gpu:
        raise ConfigError("trainer.precision=fp16 needs a GPU, and there is none; write bf16, fp32 or auto")
    if precision == "auto":
        precision = "bf16" if _fast_bf16(gpu) else "fp32"
    for tracker in trackers or []:  # accelerate would go on without it
        if importlib.util.find_spec(tracker) is None:
            raise ConfigError(
                f"trackers=[{tracker}] is not installed: pip install {tracker}, or all with 'hblm[trackers]'"
            )
    AcceleratorState._reset_state(True)  # cells of one process may differ in precision and device
    try:
        return Accelerator(
            cpu=device == "cpu" or (here.size > 1 and not gpu),  # else accelerate sees no team on a CPU
            mixed_precision={"fp32": "no"}.get(precision, precision),
            log_with=[
                _TensorBoard(untaken(Path(project_dir or ".") / run_name)) if name == "tensorboard" else name
                for name in trackers or []
            ]
            or None,
            project_dir=project_dir,
            kwargs_handlers=[
                # a view of weight 0 leaves its branch without gradients
                DistributedDataParallelKwargs(find_unused_parameters=True),
                InitProcessGroupKwargs(timeout=_PATIENCE),
            ],
        )
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"trackers={trackers} device={device} trainer.precision={precision}: {error}"
        ) from None


class _TensorBoard(TensorBoardTracker):  # type: ignore[misc]
    """A folder a run, which holds its settings as well.

    Accelerate's own logs all runs of a project to one folder, as one curve, and their settings to others.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.name, folder.parent)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Store the run's settings as its hyperparameters."""
        if place().rank == 0:
            self.writer.add_hparams(values, metric_dict={}, run_name=".")
            self.writer.flush()


def resolved_precision(accelerator: Accelerator) -> str:
    """Return the precision in use: fp32, bf16 or fp16."""
    return {"no": "fp32"}.get(accelerator.mixed_precision, str(accelerator.mixed_precision))


def seed_everything(seed: int, device: torch.device) -> None:
    """Make what follows a function of the seed; on a GPU this picks deterministic kernels."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(device.type == "cuda", warn_only=True)


def _fast_bf16(gpu: bool) -> bool:
    """Return whether this device multiplies bf16 natively.

    HBLM_BF16=0 or 1 answers in its place, so that tests can run as on another processor.
    """
    if forced := os.environ.get("HBLM_BF16"):
        return forced == "1"
    if gpu:
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def device_name(device: torch.device) -> str:
    """Return a GPU's name, else cpu or mps."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def environment_record(accelerator: Accelerator, scoring: Scoring) -> dict[str, Any]:
    """Return what the numbers were made with and on."""
    device = accelerator.device
    return {
        **environment(),
        "device": device_name(device),
        "device_kind": device.type,
        "precision": resolved_precision(accelerator),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "eval_batch_size": scoring.batch_size,
    }
