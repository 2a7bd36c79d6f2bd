"""Checks of the values in a sweep's files, key by key: anybody may have written these files. No torch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any

from hblm.config.schema import read_tree
from hblm.config.sweep import Cluster, SweepTable
from hblm.files import unfit_as_name

Checks = Mapping[str, Callable[[Any], bool]]  # key -> whether a value is valid for it


def invalid_keys(values: Mapping[str, Any], checks: Checks, *, required: Iterable[str]) -> list[str]:
    """Return the keys whose values are invalid, or that are required and missing."""
    required = {*required}
    return [
        key
        for key, is_valid in checks.items()
        if not (is_valid(values[key]) if key in values else key not in required)
    ]


def invalid_keys_of_cell(values: Mapping[str, Any], key: str, required: Iterable[str]) -> list[str]:
    """Return the unknown, invalid and missing keys of a cell's file, which is named by `key`."""
    keys = [*(values.keys() - CELL.keys()), *invalid_keys(values, CELL, required=required)]
    if keys:
        return keys
    if not (_is_config(values["kind"], values["config"]) and values["id"].startswith(key)):
        return ["config"]
    if not all(_is_within(values["config"], name) for name in values.get("chosen", ())):
        return ["chosen"]
    return ["names"] if values["kind"] == "train" and not values["names"] else []


def is_number(value: object) -> bool:
    """Return whether a value is a number and no truth value."""
    return type(value) in (int, float)


def is_texts(value: object) -> bool:
    """Return whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_text_or_null(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16,64}", value) is not None


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_id, value))


def _is_absolute_path(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value and os.path.isabs(value)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value < 2**31


def _is_chosen(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(choice, dict) and isinstance(choice.get("reason"), str) and "value" in choice
        for choice in value.values()
    )


def _is_where(value: object) -> bool:
    """Return whether a value has the keys that all launchers share; each checks its own."""
    if not isinstance(value, dict) or not {"on", "time", "memory", "devices", "cluster"} <= value.keys():
        return False
    limits = all(value[key] is None or is_number(value[key]) for key in ("time", "memory"))
    devices = isinstance(value["devices"], list) and all(map(_is_device, value["devices"]))
    cluster = value["cluster"] is None or (
        isinstance(value["cluster"], dict) and not read_tree(value["cluster"], Cluster)[1]
    )
    return (
        isinstance(value["on"], str) and limits and devices and cluster and _is_count(value.get("nodes", 1))
    )


def _is_device(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and _is_count(value[1])


def _is_config(kind: str, config: Mapping[str, Any]) -> bool:
    """Return whether a cell's configuration has the keys that are read before it is typed."""
    if kind == "train":
        trainer = config.get("trainer")
        return isinstance(trainer, dict) and _is_count(trainer.get("processes", 1))
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


def _is_within(config: Mapping[str, Any], name: str) -> bool:
    """Return whether a dotted key, such as trainer.patience, exists in a configuration."""
    node, _, key = name.partition(".")
    return isinstance(config.get(node), dict) and key in config[node]


SUBMISSION: Checks = {
    "cells": _is_ids,
    "where": _is_where,
    "table": lambda value: isinstance(value, dict) and not read_tree(value, SweepTable)[1],
    "expect": lambda value: isinstance(value, list),
    "file": lambda value: isinstance(value, str),
}

CELL: Checks = {
    "id": _is_id,
    "number": _is_count,
    "kind": lambda value: value in ("train", "ensemble"),
    "label": lambda value: isinstance(value, str),
    "names": lambda value: is_texts(value) and not any(map(unfit_as_name, value)),
    "config": lambda value: isinstance(value, dict),
    "needs": _is_ids,
    "output_dir": _is_absolute_path,
    "folder": _is_absolute_path,
    "submitted": is_number,
    "older": lambda value: value is None or _is_ids(value),
    "force": lambda value: isinstance(value, bool),
    "commit": _is_text_or_null,
    "dirty": lambda value: value is None or isinstance(value, bool),
    "formulas": lambda value: type(value) is int,
    "chosen": _is_chosen,
}

ATTEMPT: Checks = {
    "state": lambda value: value in ("waiting", "queued", "running", "ended"),
    "pid": _is_count,
    "requeues": lambda value: type(value) is int,
    **dict.fromkeys(("cause", "why", "host", "device", "commit", "on", "job"), _is_text_or_null),
    **dict.fromkeys(("born", "started", "ended", "asked"), is_number),
}
