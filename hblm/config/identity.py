"""Identity of a run: the keys that act in it, the values in its id, and its names."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hblm.config.schema import Leaf, leaves
from hblm.config.train import TrainConfig
from hblm.files import sha256_text
from hblm.json_files import canonical_json

# the keys that are in a run's plain name: a run that deviates in these alone has that name
_NAMED = {"seed", "direction.cascade_direction", "joint_variant.joint_variant"}

_OF_METHOD = {  # the keys that the name of a method implies as well
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
    """Return the possible names of a run, the best first; `values` are its `identity_values`."""
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
    """Return the other configurations of the same run.

    The two objectives of `dual` are the same where the weight of the fused view's loss is 0.
    """
    joint = config.joint_variant
    if joint.joint_variant != "dual" or (joint.joint_objective == "full" and joint.joint_loss_fused):
        return []
    other = "full" if joint.joint_objective == "aux_only" else "aux_only"
    return [replace(config, joint_variant=replace(joint, joint_objective=other, joint_loss_fused=0.0))]


def identity_values(config: TrainConfig) -> dict[str, Any]:
    """Return the keys that can change the numbers and are not at the schema's default."""
    inert = inert_keys(config)
    trainer = config.trainer
    same: dict[str, Any] = {"joint_variant.joint_eval_view": config.joint_variant.monitored}
    if not config.encoder.trainable:  # the heads' rate is the only one that acts
        same["trainer.learning_rate"] = trainer.head_learning_rate or trainer.learning_rate
    if trainer.head_learning_rate == trainer.learning_rate:  # null means the same
        same["trainer.head_learning_rate"] = None
    values = {}
    for leaf in leaves(TrainConfig):
        value = same.get(leaf.name, value_of(config, leaf))
        is_part = leaf.rules["identity"] and not leaf.rules["by_content"] and leaf.name not in inert
        if is_part and value != leaf.default:
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
    values = {column: value_of(config, leaf) for column, leaf in _COLUMNS.items()}

    def acts(rules: Mapping[str, Any]) -> bool:
        return all(values[column] in allowed for column, allowed in rules["acts"].items()) and not any(
            values[column] in without for column, without in rules["inert"].items()
        )

    return {leaf.name for leaf in leaves(TrainConfig) if not acts(leaf.rules)}


def arguments(config: TrainConfig, group: str) -> dict[str, Any]:
    """Return the keys of a group that act in a run, with their values and without the option itself."""
    inert = inert_keys(config)
    return {
        leaf.field.name: value_of(config, leaf)
        for leaf in leaves(TrainConfig)
        if leaf.name.startswith(f"{group}.") and leaf.name not in inert and not leaf.rules["option_of"]
    }


def acting(options: Mapping[str, Any]) -> tuple[str, frozenset[str]]:
    """Return the method that options make, and the columns that change nothing under them."""
    return _acting(tuple((column, options[column]) for column in DECIDING if column in options))


@functools.cache
def _acting(deciding: tuple[tuple[str, Any], ...]) -> tuple[str, frozenset[str]]:
    config = TrainConfig().having({_COLUMNS[column].name: value for column, value in deciding})
    inert = inert_keys(config)
    return config.method, frozenset(column for column, leaf in _COLUMNS.items() if leaf.name in inert)


# how tables name a key: by its group where it carries the group's option
_COLUMNS = {leaf.rules["option_of"] or leaf.name: leaf for leaf in leaves(TrainConfig)}
# the columns that decide what a model is, and which of its keys act
_RULES = [{**leaf.rules["acts"], **leaf.rules["inert"]} for leaf in leaves(TrainConfig)]

DECIDING = tuple(
    column
    for column, leaf in _COLUMNS.items()
    if leaf.rules["option_of"] or any(column in rules for rules in _RULES)
)
