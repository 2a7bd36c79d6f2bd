"""Which keys act in a run, and which of them belong to its id and its name."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hblm.config.schema import Leaf, leaves
from hblm.config.train import FUSE_KEYS, TrainConfig
from hblm.files import sha256_text
from hblm.json_files import canonical_json

# What a file name tells: deviating in these alone, a run bears the plain name.
_NAMED = {"seed", "direction.cascade_direction", "joint_variant.joint_variant"}


_OF_METHOD = {  # what a method's own name tells besides
    "independent": {"film.propagation_method"},
    "flat": {"film.propagation_method", "head.classification_head_type", "encoder.project_embedding"},
}


def ensemble_id(run_ids: Sequence[str], weight: str | None = None) -> str:
    """Return the id of an ensemble of two runs, the top-down one first.

    Args:
        run_ids: of the two.
        weight: as it was given, for the id of a cell of a sweep; None: the id in results, of the runs alone.
    """
    more = {} if weight is None else {"ensemble_weight": weight}
    return sha256_text(canonical_json({"ensemble": [*run_ids], **more}))


def names_of(config: TrainConfig, values: Mapping[str, Any], run_id: str, tag: str) -> list[str]:
    """Return the names that a run may bear, the best first; `values` are its identity's."""
    in_the_name = _NAMED | _OF_METHOD.get(config.method, set())
    deviates = set(values) - in_the_name or (config.encoder.revision, config.init_from) != (None, None)
    names = []
    for plain in (plain_name(config, tag), *(plain_name(twin, tag) for twin in twins(config))):
        names += [] if deviates else [plain]
        names += [f"{plain}-{run_id[:digits]}" for digits in (8, 16, 64)]
    return names


def plain_name(config: TrainConfig, tag: str) -> str:
    """Return the original's name; a single model without conditioning has its method for direction."""
    joint = config.joint_variant
    if joint.joint_variant == "dual":
        kind = f"joint_dual_{joint.joint_objective}"
    elif joint.is_joint:
        kind = f"joint_{joint.joint_variant}"
    else:
        kind = f"single_{config.method}"
    return f"{config.dataset_name}_{kind}_{tag}_seed{config.seed}"


def twins(config: TrainConfig) -> list[TrainConfig]:
    """Return the configurations that say the same run in other words.

    They are the two objectives of `dual` where the fused view's loss counts nothing.
    """
    joint = config.joint_variant
    if joint.joint_variant != "dual" or (joint.joint_objective == "full" and joint.joint_loss_fused):
        return []
    other = "full" if joint.joint_objective == "aux_only" else "aux_only"
    return [replace(config, joint_variant=replace(joint, joint_objective=other, joint_loss_fused=0.0))]


def identity_values(config: TrainConfig) -> dict[str, Any]:
    """Return the keys that can change the numbers and are not at the schema's default."""
    inert = inert_keys(config)
    values = {}
    for leaf in leaves(TrainConfig):
        value = value_of(config, leaf)
        if leaf.name == "joint_variant.joint_eval_view":  # what it monitors is what changes the numbers
            value = config.joint_variant.monitored
        if leaf.name == "trainer.learning_rate" and not config.encoder.trainable:
            value = config.trainer.head_learning_rate or value  # the only rate there is
        if leaf.rules["identity"] and leaf.name not in inert and value != leaf.default:
            values[leaf.name] = value
    return values


def value_of(config: TrainConfig, leaf: Leaf) -> Any:
    """Return the value of one key."""
    value: Any = config
    for part in leaf.name.split("."):
        value = getattr(value, part)
    return value


def inert_keys(config: TrainConfig) -> set[str]:
    """Return the keys that cannot change this run's numbers, given its other keys."""
    # what they name has an identity of its own, from its content
    inert: set[str] = {"encoder.model_name", "encoder.revision", "init_from"}
    joint = config.joint_variant
    if joint.is_joint:
        inert.add("direction.cascade_direction")
    if joint.joint_variant != "tri_head_diffcat":
        inert |= {f"joint_variant.{key}" for key in ("joint_loss_mix", *FUSE_KEYS)}
    if not joint.is_joint:
        inert |= {f"joint_variant.joint_{key}" for key in ("eval_view", "loss_fused", "loss_td", "loss_bu")}
    if joint.joint_objective == "aux_only":
        inert.add("joint_variant.joint_loss_fused")
    inert.add("joint_variant.joint_objective")  # aux_only is full with joint_loss_fused=0
    if config.loss.loss != "focal":
        inert.add("loss.gamma")
    if config.loss.loss != "conditional_softmax":
        inert.add("loss.tau")
    if config.loss.is_conditional:
        inert.add("loss.level_reduction")
    if config.film.propagation_method == "none":
        inert |= {
            "direction.cascade_direction",
            "film.propagation_space",
            "film.film_scale",
            "film.detach_parent_signal",
        }
    if config.film.propagation_method == "multi_hot":  # a step function has no gradient to detach
        inert.add("film.detach_parent_signal")
    if config.head.classification_head_type == "linear":
        inert.add("head.dropout")
    if config.head.output_init != "label_text":
        inert.add("head.label_text_gain")
    if not config.encoder.project_embedding:
        inert.add("encoder.projection_dropout")
    if not config.encoder.trainable:
        inert |= {"encoder.gradient_checkpointing", "encoder.dropout", "trainer.head_learning_rate"}
    if config.trainer.head_learning_rate == config.trainer.learning_rate:  # what null says as well
        inert.add("trainer.head_learning_rate")
    return inert


DECIDING = {  # the values on which it depends what a model is, and which of its other keys act
    "joint_variant": ("joint_variant", "joint_variant"),
    "film": ("film", "propagation_method"),
    "head": ("head", "classification_head_type"),
    "head.output_init": ("head", "output_init"),
    "loss": ("loss", "loss"),
    "direction": ("direction", "cascade_direction"),
    "joint_variant.joint_objective": ("joint_variant", "joint_objective"),
    "encoder.project_embedding": ("encoder", "project_embedding"),
    "encoder.trainable": ("encoder", "trainable"),
}


def acting(options: Mapping[str, Any]) -> tuple[str, frozenset[str]]:
    """Return the method that options make, and the columns that change nothing under them."""
    return _acting(tuple((name, options[name]) for name in DECIDING if name in options))


@functools.cache
def _acting(deciding: tuple[tuple[str, Any], ...]) -> tuple[str, frozenset[str]]:
    config = TrainConfig()
    for name, value in deciding:
        node, key = DECIDING[name]
        setattr(getattr(config, node), key, value)
    columns = {leaf.name: leaf.rules["option_of"] or leaf.name for leaf in leaves(TrainConfig)}
    # they are part of the encoder's own identity, which a result of version 0.1 does not tell
    inert = inert_keys(config) - {"encoder.model_name", "encoder.revision", "init_from"}
    return config.method, frozenset(columns[name] for name in inert)
