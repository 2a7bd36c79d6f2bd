"""What the files of a sweep's ledger hold, key by key: they are data, whoever wrote them. No torch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any

from hblm.config.schema import read_tree
from hblm.config.sweep import Cluster, SweepTable
from hblm.files import unfit_as_name

Sound = Mapping[str, Callable[[Any], bool]]  # key -> whether a value may be its


def odd_keys(told: Mapping[str, Any], sound: Sound, *, needed: Iterable[str]) -> list[str]:
    """Return the keys of what a file tells whose values cannot be used; `needed` ones must be there."""
    wanted = {*needed}
    return [
        key
        for key, is_sound in sound.items()
        if not (is_sound(told[key]) if key in told else key not in wanted)
    ]


def is_number(value: object) -> bool:
    return type(value) in (int, float)


def _is_text_or_null(value: object) -> bool:
    return value is None or isinstance(value, str)


def is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16,64}", value) is not None


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_id, value))


def _is_place(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value and os.path.isabs(value)


def _is_pid(value: object) -> bool:
    return type(value) is int and 0 < value < 2**31


def _is_chosen(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(choice, dict) and isinstance(choice.get("reason"), str) and "value" in choice
        for choice in value.values()
    )


def _is_where(value: object) -> bool:
    if not isinstance(value, dict) or not {"on", "time", "memory", "devices", "cluster"} <= value.keys():
        return False
    limits = all(value[key] is None or is_number(value[key]) for key in ("time", "memory"))
    devices = isinstance(value["devices"], list) and all(
        isinstance(each, list) and len(each) == 2 and isinstance(each[0], str) and _is_pid(each[1])
        for each in value["devices"]
    )
    if value["on"] == "slurm":
        cluster = isinstance(value["cluster"], dict) and not read_tree(value["cluster"], Cluster)[1]
    else:
        cluster = value["on"] == "local" and bool(value["devices"])
    return limits and devices and cluster and _is_pid(value.get("nodes", 1))


def is_config_of(kind: str, config: Mapping[str, Any]) -> bool:
    """Return whether a cell's configuration has what is looked at before it is typed."""
    if kind == "train":
        trainer = config.get("trainer")
        return isinstance(trainer, dict) and _is_pid(trainer.get("processes", 1))
    texts = all(isinstance(config.get(key), str) for key in ("dataset", "ensemble_weight", "device"))
    if not texts or unfit_as_name(config["dataset"]) or not is_number(config.get("threshold")):
        return False
    weight: str = config["ensemble_weight"]
    return weight == "auto" or (re.fullmatch(r"[\d.eE+-]{1,30}", weight) is not None and _is_float(weight))


def _is_float(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False


OF_SWEEP: Sound = {
    "cells": _is_ids,
    "where": _is_where,
    "table": lambda value: isinstance(value, dict) and not read_tree(value, SweepTable)[1],
    "expect": lambda value: isinstance(value, list),
    "file": lambda value: isinstance(value, str),
}


OF_CELL: Sound = {
    "id": _is_id,
    "number": _is_pid,
    "kind": lambda value: value in ("train", "ensemble"),
    "label": lambda value: isinstance(value, str),
    "names": lambda value: is_texts(value) and not any(map(unfit_as_name, value)),
    "config": lambda value: isinstance(value, dict),
    "needs": _is_ids,
    "output_dir": _is_place,
    "folder": _is_place,
    "submitted": is_number,
    "older": lambda value: value is None or _is_ids(value),
    "force": lambda value: isinstance(value, bool),
    "commit": _is_text_or_null,
    "dirty": lambda value: value is None or isinstance(value, bool),
    "formulas": lambda value: type(value) is int,
    "chosen": _is_chosen,
}


OF_ATTEMPT: Sound = {
    "state": lambda value: value in ("waiting", "queued", "running", "ended"),
    "pid": _is_pid,
    "requeues": lambda value: type(value) is int,
    **dict.fromkeys(("cause", "why", "host", "device", "commit", "on", "job"), _is_text_or_null),
    **dict.fromkeys(("born", "started", "ended", "asked"), is_number),
}
