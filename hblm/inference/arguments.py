"""Arguments of an evaluation that repeat or contradict the configuration of its checkpoints."""

from __future__ import annotations

from typing import Any

from hblm.config import identity
from hblm.config.compose import Composer, Unreadable, parse, resolved
from hblm.config.evaluate import EvaluateConfig
from hblm.config.grid import values_of
from hblm.config.groups import PRESETS, STAND_IN, OptionGroups
from hblm.config.schema import Leaf, leaves, plain, read_leaf
from hblm.config.train import TrainConfig
from hblm.errors import CheckpointError
from hblm.inference.exports.hub import local_folder
from hblm.runs.checkpoint import open_checkpoint


def without_stored(argv: list[str]) -> tuple[list[str], list[str]]:
    """Drop arguments that repeat the checkpoints' settings; return the others, and the contradictions."""
    try:
        stored = [open_checkpoint(local_folder(place)).config for place in _places(argv)]
    except CheckpointError as error:
        return argv, [str(error)]
    if not stored:
        return argv, []
    own = {leaf.name for leaf in leaves(EvaluateConfig)}
    known = {leaf.name: leaf for leaf in leaves(TrainConfig)}
    by_group = {leaf.rules["option_of"]: leaf for leaf in known.values() if leaf.rules["option_of"]}
    groups = OptionGroups().groups
    kept, faults = [], []
    for text in argv:
        try:
            override = parse(text)
        except Unreadable:
            kept.append(text)
            continue
        name = override.key_or_group
        leaf = by_group.get(name) or known.get(name)
        if name in own or override.is_sweep_override() or (leaf is None and name not in groups):
            kept.append(text)
        elif leaf is not None and (key := name.rpartition(".")[2]) in own:
            faults.append(f"{text} is written {key}={plain(override.value())} in an evaluation")
        else:
            wrong = (_difference(config, leaf, name, override.value(), text) for config in stored)
            faults += [fault for fault in dict.fromkeys(wrong) if fault]
    return kept, faults


def _places(argv: list[str]) -> list[str]:
    """Return the folders that the last checkpoint= names, for one evaluation or several."""
    for text in reversed(argv):
        if text.startswith("checkpoint="):
            try:
                override = parse(text)
            except Unreadable:
                return []  # the check of all arguments explains it
            discrete = override.is_discrete_sweep()
            values = values_of(override, OptionGroups()) if discrete else [override.value()]
            return [str(place) for each in values for place in (each if isinstance(each, list) else [each])]
    return []


def _difference(config: TrainConfig, leaf: Leaf | None, name: str, value: Any, text: str) -> str:
    """Return how an argument contradicts a checkpoint, with both values; "" where it does not."""
    if leaf is None:
        return _option_difference(config, name, text)
    given, why = read_leaf(leaf, resolved(value))
    has = identity.value_of(config, leaf)
    if not why and leaf.name in config.having({leaf.name: given}).left_open:
        return ""  # a value that is left open contradicts nothing
    if why or given != has:
        return f"{text} contradicts the checkpoint, which has {name}={plain(has)}; leave it out"
    return ""


def _option_difference(stored: TrainConfig, group: str, text: str) -> str:
    """Return the first key which an option sets to something else than the checkpoint has."""
    if group in PRESETS:  # which set keys of many groups
        return f"{text} was decided at training, and the checkpoint has all it set; leave it out"
    texts = [text] if group == "dataset" else [STAND_IN, text]
    try:
        option = Composer("train", TrainConfig).compose(texts).config
    except Unreadable as error:
        return str(error)
    for leaf in leaves(TrainConfig):
        if leaf.name in option.left_open or leaf.name in ("dataset.path", "dataset.prepare"):
            continue
        if leaf.name.startswith(f"{group}."):
            of_option, has = identity.value_of(option, leaf), identity.value_of(stored, leaf)
            if leaf.name == "dataset.name" and of_option is None:  # a custom set's name is its folder's
                continue
            if of_option != has:
                return (
                    f"{text} contradicts the checkpoint: it sets {leaf.name}={plain(of_option)}, "
                    f"the checkpoint has {plain(has)}; leave it out"
                )
    return ""
