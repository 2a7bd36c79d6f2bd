"""Columns that all rows of a result share: its run, options, data and environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hblm.files import sha256_text
from hblm.json_files import canonical_json
from hblm.tables.options import ENSEMBLE, joined, members_of
from hblm.tables.result_scores import LARGEST

RUNS, EVALUATIONS = ("single", "joint"), ("evaluation", "ensemble")  # kinds of results
ENCODER = ("encoder_commit", "encoder_id")  # columns; results of version 0.1 have neither
_FIRST_FORMULAS = 1  # of results without the key: version 0.1 wrote them
_ENVIRONMENT = ("hblm", "git_commit", "git_dirty", "device", "precision", "processes")
_ID_DIGITS = 8


def shared_columns(file: Path, result: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that all rows of a result share.

    Args:
        file: of the result.
        result: its content.
        options: the columns of `option_columns`.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: the content is not in the format of a result.
    """
    dataset = result["dataset"]
    environment = result.get("environment") or {}
    settings = result.get("settings") or {}
    columns = {
        "file": str(file),
        "kind": result["kind"],
        "run_id": run_id_of(result),
        **options,
        "tune": (result.get("tuned") or {}).get("tune"),
        "dataset": dataset["name"],
        "data": dataset["fingerprint"],
        "taxonomy": dataset["files"]["taxonomy.json"],
        "levels": "/".join(map(_level, dataset["levels"])),
        "trained_on": _trained_on(result),
        "best_epoch": result.get("best_epoch"),
        "predictions": bool(result.get("predictions")),
        "formulas": result.get("formulas", _FIRST_FORMULAS),
        **_encoder(result),
    }
    if result["kind"] == ENSEMBLE:  # searched weights differ from seed to seed, and are one way to average
        searched = settings.get("ensemble_weight_search") is not None
        columns["ensemble_weight"] = "auto" if searched else settings.get("ensemble_weight")
    columns |= {
        f"settings.{name}": value for name, value in settings.items() if not isinstance(value, (dict, list))
    }
    columns |= {f"parameters.{name}": value for name, value in (result.get("parameters") or {}).items()}
    columns |= {f"seconds.{name}": value for name, value in (result.get("seconds") or {}).items()}
    columns |= {name: environment.get(name) for name in _ENVIRONMENT}
    kind = environment.get("device_kind") or _kind_of_device(environment.get("device"))
    return columns | {"device_kind": kind}


def run_id_of(result: Mapping[str, Any]) -> str:
    """Return the id of the run; an ensemble's are its members', joined by +."""
    return "+".join(str(member["run_id"]) for member in members_of(result))


def count_nodes(levels: str) -> int:
    """Return how many nodes a dataset has, from its column `levels` (7/134)."""
    return sum(map(int, levels.split("/")))


def _trained_on(result: Mapping[str, Any]) -> str | None:
    """Return the dataset of training where other data was scored, with a hash; None where it is the same."""
    if "other_data" not in result:
        return None
    trained_on = result["other_data"]["trained_on"]
    return f"{trained_on['name']} (data {trained_on['fingerprint'][:_ID_DIGITS]})"


def _level(nodes: int) -> str:
    """Return a level's number of nodes as the column `levels` has it.

    Raises:
        ValueError: it is none.
    """
    if type(nodes) is not int or not 0 < nodes <= LARGEST:
        raise ValueError(f"not in the format of a result: a level of {nodes!r:.40} nodes")
    return str(nodes)


def _kind_of_device(device: str | None) -> str | None:
    """Return the kind of a device of version 0.1, which recorded cpu, mps or a GPU's name."""
    return device if device in (None, "cpu", "mps") else "cuda"


def _encoder(result: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the columns of what identified the encoder; None where a result does not record it."""
    members = members_of(result)
    encoders = [member["encoder"] for member in members if member.get("encoder") is not None]
    if len(encoders) < len(members):
        return dict.fromkeys(ENCODER)
    return {
        "encoder_commit": joined([encoder["commit"] for encoder in encoders]),
        "encoder_id": joined([sha256_text(canonical_json(encoder))[:_ID_DIGITS] for encoder in encoders]),
    }
