"""The two checkpoints of an ensemble: which is which, and whether they can be averaged."""

from __future__ import annotations

from collections.abc import Sequence

from hblm.errors import CheckpointError
from hblm.runs.checkpoint import Checkpoint


def pair_of(opened: Sequence[Checkpoint], threshold: float | None) -> dict[str, Checkpoint]:
    """Return the top-down checkpoint as `td` and the bottom-up one as `bu`, whatever their order.

    Args:
        opened: the two checkpoints.
        threshold: the evaluation's; None for the checkpoints' own, which must be equal.

    Raises:
        CheckpointError: they cannot be averaged, with all reasons.
    """
    pair: dict[str, Checkpoint] = {}
    faults = []
    for checkpoint in opened:
        if fault := _fault_of(checkpoint):
            faults.append(fault)
        else:
            direction = checkpoint.config.direction.cascade_direction
            pair[{"top_down": "td", "bottom_up": "bu"}[direction]] = checkpoint
    first, second = opened
    if not faults and len(pair) < 2:
        direction = first.config.direction.cascade_direction
        faults.append(f"both have direction={direction}; an ensemble takes a top_down and a bottom_up one")
    faults += _differences(first, second, threshold)
    if faults:
        raise CheckpointError(
            "\n".join(f"checkpoint=[{first.folder},{second.folder}]: {fault}" for fault in faults)
        )
    return {"td": pair["td"], "bu": pair["bu"]}


def _fault_of(checkpoint: Checkpoint) -> str:
    """Return why a checkpoint has not exactly one direction; "" where it has."""
    config = checkpoint.config
    if config.joint_variant.is_joint:
        variant = config.joint_variant.joint_variant
        return f"{checkpoint.folder} is a joint model ({variant}): it has both directions already"
    if config.film.propagation_method == "none":
        return f"{checkpoint.folder} was trained with film=none: it has no direction"
    return ""


def _differences(first: Checkpoint, second: Checkpoint, threshold: float | None) -> list[str]:
    """Return the differences of two checkpoints that make an average meaningless."""
    both = (first, second)
    faults = []
    if first.taxonomy != second.taxonomy:
        faults.append(f"their taxonomies differ ({len(first.taxonomy)} and {len(second.taxonomy)} nodes)")
    if len({each.config.loss.loss if each.config.loss.is_conditional else "" for each in both}) > 1:
        losses = " and ".join(f"loss={each.config.loss.loss}" for each in both)
        faults.append(f"they were trained with {losses}, whose logits mean different things")
    data = [each.meta["dataset"] for each in both]
    if data[0]["fingerprint"] != data[1]["fingerprint"]:
        sets = " and ".join(f"{each['name']} with the hash {each['fingerprint'][:12]}" for each in data)
        faults.append(f"they were trained on different documents: {sets}")
    for key in ("dataset_fraction", *(["threshold"] if threshold is None else [])):
        values = [getattr(each.config, key) for each in both]
        if values[0] != values[1]:
            way_out = "; give threshold=" if key == "threshold" else ": they saw different documents"
            faults.append(f"one has {key}={values[0]}, the other {key}={values[1]}{way_out}")
    return faults
