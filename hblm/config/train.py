"""The configuration of `python -m hblm.train`: every key with its type, default, range and meaning.

A key also declares with which options it acts: run ids, tables and the arguments of losses follow from that.
Only engine/build.py makes objects of a configuration.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hblm.config.schema import group, key, option
from hblm.files import unfit_as_name

SINGLE_VIEW = "single"  # the view of a model with one branch
FUSED_VIEWS = ("td", "bu", "mix")  # the views that tri_head_diffcat fuses
FUSE_KEYS = tuple(f"tri_fuse_{view}" for view in FUSED_VIEWS)
EVAL_VIEWS = ("fused", *FUSED_VIEWS, "all")
TUNES = ("none", "global", "level", "node")  # whose thresholds the validation split chooses
AUTO = "auto"  # an option that engine/auto.py replaces by another

CHOSEN_BY_AUTO = (
    "learning_rate",
    "head_learning_rate",
    "epochs",
    "batch_size",
    "patience",
)  # null: by engine/auto.py

CONDITIONAL = ("conditional_softmax", "conditional")  # losses of a node given its parent
# for `acts` and `inert`: the option, or the value of a key, on which it depends whether a key acts
_SINGLE = {"joint_variant": ("none",)}
_TRI = {"joint_variant": ("tri_head_diffcat",)}
_FROZEN = {"encoder.trainable": (False,)}


@dataclass
class Dataset:
    """Which documents; identified in run ids by their hashes, never by name or place."""

    name: str | None = key(None, "name of the set and of its folder (custom: the folder's)", identity=False)
    path: str | None = key(None, "the prepared folder; null: NAME in data_dir", identity=False)
    converter: str | None = key(None, "script in datasets/ that prepares the set", identity=False)
    source: str | None = key(None, "the raw data that raw= names; null: none are needed", identity=False)
    prepare: dict[str, Any] = key({}, "options of the converter", identity=False)
    expect: dict[str, Any] = key({}, "counts that a preparation must give", identity=False)

    def settle(self, data_dir: str) -> None:
        """Set the folder of a dataset that has only a name."""
        if self.path is None and self.name is not None:
            self.path = f"{data_dir}/{self.name}"

    def conflicts(self) -> list[str]:
        """Return a message for a name that cannot name a folder, or a missing folder."""
        if self.name is not None and (why := unfit_as_name(self.name)):
            return [f"dataset.name={self.name!r} cannot name a file: it {why}; write a plain name"]
        if self.path is None:
            return ["dataset=custom needs dataset.path=DIR, or dataset.name=NAME for a folder in data_dir"]
        return []

    @property
    def folder(self) -> Path:
        """The prepared folder."""
        assert self.path is not None  # `conflicts` refuses it
        return Path(self.path)


@dataclass
class Encoder:
    """The transformer, and the projection of its pooled state."""

    model_name: str = key("FacebookAI/roberta-large", "hub id, local folder, or tiny", by_content=True)
    revision: str | None = key(None, "hub revision: a tag or commit", by_content=True)
    max_length: int = key(512, "tokens a document is cut to, special tokens included", low=4, high=1_000_000)
    trainable: bool = key(True, "false: frozen, in eval mode")
    gradient_checkpointing: bool = key(False, "less memory for about a third more time", inert=_FROZEN)
    dropout: float | None = key(None, "null: the checkpoint's own", low=0, high=0.99, inert=_FROZEN)
    project_embedding: bool = key(
        True, "a residual layer and a norm; false: heads and FiLM see the pooled state itself"
    )
    projection_dim: int | None = key(
        None, "width P of the projection; null: as the encoder", low=1, high=16_384
    )
    projection_dropout: float = key(
        0.1,
        "dropout on the projection's residual layer",
        low=0,
        high=0.99,
        inert={"encoder.project_embedding": (False,)},
    )


@dataclass
class Pooling:
    """How token states become one vector."""

    pooling: str = option("pooling", "cls")


@dataclass
class Direction:
    """In which order the cascade visits the levels."""

    cascade_direction: str = option("direction", "top_down", acts=_SINGLE, inert={"film": ("none",)})


@dataclass
class Film:
    """How the previous level's prediction modulates the embedding of the next."""

    propagation_method: str = option("film", "sigmoid")
    propagation_space: str = key(
        "child_space",
        "conditioning on the source level's nodes, or carried along the tree to the target level's",
        choices=("parent_space", "child_space"),
        inert={"film": ("none",)},
    )
    film_scale: float = key(0.2, "a in e (1 + a γ) + a β", low=0, inert={"film": ("none",)})
    detach_parent_signal: bool = key(
        True,
        "no gradient from a level into the one predicted before",
        inert={"film": ("none", "multi_hot")},  # a step function has no gradient to detach
    )


@dataclass
class Head:
    """What turns a level's embedding into its logits."""

    classification_head_type: str = option("head", "mlp")
    dropout: float = key(0.1, "dropout inside the head", low=0, high=0.99, inert={"head": ("linear",)})
    output_init: str = key(
        "prior",
        "where output layers start. prior: label frequencies of the training split; label_text: also the "
        "texts of nodes; default: as PyTorch does; auto: label_text where names are words, else prior",
        choices=("prior", "default", "label_text", AUTO),
    )
    label_text_gain: float = key(
        6.0,
        "label_text: about how much a label's text adds to its logit",
        low=0,
        open_low=True,
        acts={"head.output_init": ("label_text",)},
    )


@dataclass
class Loss:
    """The loss: what is minimised."""

    loss: str = option("loss", "bce")
    level_reduction: str = key(
        "nodes",
        "bce, focal: mean over all nodes; or over a level's nodes, then over levels",
        choices=("levels", "nodes"),
        acts={"loss": ("bce", "focal", AUTO)},
    )
    gamma: float = key(
        2.0,
        "focal: exponent that reduces the loss of confident, correct predictions; 0 is bce",
        low=0,
        acts={"loss": ("focal",)},
    )
    tau: float = key(
        1.0,
        "conditional_softmax: strength of the logit adjustment; 0 is none",
        low=0,
        acts={"loss": ("conditional_softmax",)},
    )

    @property
    def is_conditional(self) -> bool:
        """Whether a logit is that of a node among its siblings, given their parent."""
        return self.loss in CONDITIONAL


@dataclass
class JointVariant:
    """Whether top-down and bottom-up branches share one model."""

    joint_variant: str = option("joint_variant", "none")
    joint_objective: str = key(
        "full",
        "aux_only (dual): the losses of the two branches alone",
        choices=("full", "aux_only"),
        acts={"joint_variant": ()},  # aux_only is full with joint_loss_fused=0, and the run id has that
    )
    joint_eval_view: str = key(
        "fused", "the view that is monitored and shown; all are stored", choices=EVAL_VIEWS, inert=_SINGLE
    )
    joint_loss_fused: float = key(
        0.0,
        "weight of the loss of the fused logits",
        low=0,
        inert={**_SINGLE, "joint_variant.joint_objective": ("aux_only",)},
    )
    joint_loss_td: float = key(0.5, "weight of the top-down branch's loss", low=0, inert=_SINGLE)
    joint_loss_bu: float = key(0.5, "weight of the bottom-up branch's loss", low=0, inert=_SINGLE)
    joint_loss_mix: float = key(1.0, "tri_head_diffcat: weight of the mix head's loss", low=0, acts=_TRI)
    tri_fuse_td: float = key(
        1.0, "tri_head_diffcat: the top-down logits' weight in the fused ones", low=0, acts=_TRI
    )
    tri_fuse_bu: float = key(1.0, "tri_head_diffcat: the bottom-up logits' weight", low=0, acts=_TRI)
    tri_fuse_mix: float = key(1.0, "tri_head_diffcat: the mix head's weight", low=0, acts=_TRI)

    @property
    def is_joint(self) -> bool:
        """Whether two branches share the model."""
        return self.joint_variant != "none"

    @property
    def views(self) -> tuple[str, ...]:
        """The model's outputs, each scored and stored."""
        if not self.is_joint:
            return (SINGLE_VIEW,)
        mix = ("mix",) if self.joint_variant == "tri_head_diffcat" else ()
        return ("fused", "td", "bu", *mix)

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight in the objective of each view that this variant trains."""
        if not self.is_joint:
            return {SINGLE_VIEW: 1.0}
        weights = {"td": self.joint_loss_td, "bu": self.joint_loss_bu}
        if self.joint_objective == "full":
            weights["fused"] = self.joint_loss_fused
        if self.joint_variant == "tri_head_diffcat":
            weights["mix"] = self.joint_loss_mix
        return weights

    @property
    def fuse_weights(self) -> tuple[float, float, float]:
        """The weights of td, bu and mix in the fused logits of tri_head_diffcat."""
        return self.tri_fuse_td, self.tri_fuse_bu, self.tri_fuse_mix

    @property
    def monitored(self) -> str:
        """The view that decides which epoch is best; `all` means the fused one."""
        if not self.is_joint:
            return SINGLE_VIEW
        return "fused" if self.joint_eval_view == "all" else self.joint_eval_view

    def conflicts(self) -> list[str]:
        """Return a message for each combination of valid values that is invalid."""
        variant, messages = f"joint_variant={self.joint_variant}", []
        if self.joint_variant == "tri_head_diffcat" and self.joint_objective == "aux_only":
            messages.append(
                f"{variant} is trained with joint_variant.joint_objective=full; "
                "aux_only is an objective of joint_variant=dual"
            )
        if self.is_joint and self.joint_eval_view not in (*self.views, "all"):
            view = self.joint_eval_view
            messages.append(
                f"{variant} has no view {view} for joint_variant.joint_eval_view={view}; "
                f"write {', '.join(self.views)} or all, or joint_variant=tri_head_diffcat"
            )
        acting = {f"joint_variant.joint_loss_{view}": weight for view, weight in self.loss_weights.items()}
        if self.is_joint and not any(acting.values()):
            messages.append(
                f"{' and '.join(f'{name}=0' for name in acting)} leave {variant} nothing to minimise"
            )
        if self.joint_variant == "tri_head_diffcat" and not any(self.fuse_weights):
            keys = (f"joint_variant.{key}=0" for key in FUSE_KEYS)
            messages.append(f"{' and '.join(keys)} leave {variant} nothing to fuse")
        return messages


@dataclass
class Trainer:
    """How long, how fast, on what; null: engine/auto.py chooses by the documents and the encoder."""

    learning_rate: float | None = key(
        3e-5, "peak learning rate of AdamW; null: by documents and encoder", low=0, open_low=True
    )
    head_learning_rate: float | None = key(
        None,
        "the same for everything above the encoder; null: learning_rate, or chosen with it",
        low=0,
        open_low=True,
        inert=_FROZEN,
    )
    epochs: int | None = key(
        65, "at most so many passes over the training split; null: by documents and encoder", low=1
    )
    batch_size: int | None = key(
        32, "documents per optimizer step, over all processes and micro-batches; null: chosen", low=1
    )
    gradient_accumulation: int = key(1, "micro-batches a step is split into, to save memory", low=1)
    weight_decay: float = key(0.01, "on all but biases and norms", low=0)
    warmup_ratio: float = key(0.06, "share of the steps in which the learning rate rises", low=0, high=1)
    max_grad_norm: float = key(1.0, "gradient clipping", low=0, open_low=True)
    label_documents: bool | None = key(
        False,
        "train on the text of each node as well, labelled with the node and its ancestors; null: where names "
        "are words",
    )
    patience: int | None = key(10, "epochs without a better score before training stops; null: chosen", low=1)
    monitor: str = key("macro_f1", "the validation score that decides", choices=("macro_f1", "micro_f1"))
    calibration_share: float = key(
        0.0,
        "share of the validation split that is kept for `predict confidence=` alone: no epoch, threshold or "
        "temperature is chosen on it",
        low=0,
        high=0.9,
    )
    precision: str = key(
        "auto", "auto: bf16 where the device is fast at it", choices=("auto", "fp32", "bf16", "fp16")
    )
    processes: int = key(
        1, "processes that share each step, with a GPU each or a CPU's cores", low=1, identity=False
    )
    num_workers: int = key(
        0, "processes that collate batches, for each of these", low=0, high=256, identity=False
    )
    keep_checkpoint: bool = key(True, "false: keep only the result", identity=False)


@dataclass
class TrainConfig:
    """One run of `python -m hblm.train`."""

    seed: int = key(1, "decides initial weights, order of documents and dropout", low=0, high=2**32 - 1)
    threshold: float = key(0.5, "a node is predicted from this probability on", low=0, high=1)
    dataset_fraction: float = key(
        1.0, "share of the training and validation splits used", low=0, high=1, open_low=True
    )
    init_from: str | None = key(
        None,
        "checkpoint of another run; its weights start every part that the two models share",
        by_content=True,
    )
    data_dir: str = key("data", "folder of prepared datasets", identity=False)
    output_dir: str = key("outputs", "folder of checkpoints, results and caches", identity=False)
    cache_dir: str = key("${output_dir}/cache", "tokenised and embedded documents", identity=False)
    posthoc_repath: bool = key(False, "show the scores of predictions closed under ancestors", identity=False)
    tune: str = key(
        "none",
        "after training, also score predictions at thresholds that the validation split chooses: one for all "
        "nodes, of each level or of each node",
        choices=TUNES,
        identity=False,
    )
    force: bool = key(False, "run again although there is a result", identity=False)
    device: str = key("auto", "where to run", choices=("auto", "cpu", "cuda", "mps"), identity=False)
    trackers: list[str] = key(
        [], "experiment trackers to log to", choices=("tensorboard", "mlflow", "wandb"), identity=False
    )
    dataset: Dataset = group(Dataset, "which documents")
    encoder: Encoder = group(Encoder, "which transformer")
    pooling: Pooling = group(Pooling, "how token states become one vector")
    direction: Direction = group(Direction, "root to leaves, or leaves to root")
    film: Film = group(Film, "how one level conditions the next")
    head: Head = group(Head, "what turns an embedding into logits")
    loss: Loss = group(Loss, "what is minimised")
    joint_variant: JointVariant = group(JointVariant, "one branch or several")
    trainer: Trainer = group(Trainer, "how long, how fast, on what")

    def __post_init__(self) -> None:
        """Set the dataset's folder."""
        self.dataset.settle(self.data_dir)

    def conflicts(self) -> list[str]:
        """Return a message for each combination of valid values that is invalid."""
        messages = self.joint_variant.conflicts()
        if self.encoder.projection_dim is not None and not self.encoder.project_embedding:
            messages.append(
                f"encoder.projection_dim={self.encoder.projection_dim} has nothing to project to with "
                "encoder.project_embedding=false; drop one of the two"
            )
        step = self.trainer.batch_size  # null: judged again when it is chosen
        if step is not None and self.trainer.gradient_accumulation > step:
            messages.append(
                f"trainer.gradient_accumulation={self.trainer.gradient_accumulation} is more micro-batches "
                f"than trainer.batch_size={step} documents"
            )
        if step is not None and self.trainer.processes > step:
            messages.append(
                f"trainer.processes={self.trainer.processes} are more than the documents of a step, "
                f"trainer.batch_size={step}"
            )
        if self.trainer.processes > 1 and self.device == "mps":
            messages.append(
                f"device=mps trains with one process, not trainer.processes={self.trainer.processes}"
            )
        if self.trainer.precision == "fp16" and self.device == "cpu":
            messages.append("trainer.precision=fp16 needs a GPU, and device=cpu is given; bf16 runs on both")
        return messages + self.dataset.conflicts()

    @property
    def left_open(self) -> tuple[str, ...]:
        """The keys whose values engine/auto.py has still to choose; a run with an id has none."""
        trainer = [name for name in CHOSEN_BY_AUTO if getattr(self.trainer, name) is None]
        if self.trainer.learning_rate is not None and "head_learning_rate" in trainer:
            trainer.remove("head_learning_rate")  # it means: the same
        names = [f"trainer.{name}" for name in trainer]
        names += ["loss.loss"] if self.loss.loss == AUTO else []
        names += ["head.output_init"] if self.head.output_init == AUTO else []
        names += ["trainer.label_documents"] if self.trainer.label_documents is None else []
        return tuple(names)

    def having(self, values: Mapping[str, Any]) -> TrainConfig:
        """Return this configuration with other values of some keys, by their dotted names."""
        config = self
        for name, value in values.items():
            group_name, _, last = name.rpartition(".")
            if group_name:
                value = dataclasses.replace(getattr(config, group_name), **{last: value})
            config = dataclasses.replace(config, **{group_name or last: value})
        return config

    @property
    def dataset_name(self) -> str:
        """The dataset's name, a custom one's being its folder's."""
        return self.dataset.name or Path(os.path.abspath(self.dataset.folder)).name

    @property
    def is_flat(self) -> bool:
        """Whether this is the flat baseline: one linear layer, a sigmoid for each node.

        loss=auto leaves it one: engine/auto.py chooses a loss of sigmoids for it.
        """
        return (
            not self.joint_variant.is_joint
            and self.film.propagation_method == "none"
            and self.head.classification_head_type == "linear"
            and not self.encoder.project_embedding
            and not self.loss.is_conditional
        )

    @property
    def method(self) -> str:
        """The kind of model, from the typed values; a preset's name does not decide it.

        `independent` is a single model whose heads are not conditioned (`film=none`) and which is not flat.
        """
        if self.joint_variant.is_joint:
            return self.joint_variant.joint_variant
        if self.film.propagation_method == "none":
            return "flat" if self.is_flat else "independent"
        return self.direction.cascade_direction

    def choices(self) -> dict[str, str]:
        """Return group -> option, from the typed values and not from the arguments."""
        options = {
            fld.metadata["option_of"]: getattr(node, fld.name)
            for node in vars(self).values()
            if dataclasses.is_dataclass(node)
            for fld in dataclasses.fields(node)
            if fld.metadata["option_of"]
        }
        return {"dataset": self.dataset_name, "encoder": self.encoder.model_name, **options}
