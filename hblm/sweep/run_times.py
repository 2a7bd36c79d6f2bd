"""How long runs take, from the results of runs like them. No torch."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from hblm.json_files import read_object
from hblm.sweep.plan import PlannedCell


def seconds_of(results: Path) -> dict[tuple[str, ...], float]:
    """Return the mean seconds of the runs in a folder of results, by each of their likenesses."""
    by_likeness: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for file in results.glob("*.json"):
        if file.name.startswith("eval_"):
            continue
        try:
            record = read_object(file)
            seconds = float(record["seconds"]["total"])
            for likeness in _likenesses(record["config"], record["choices"]):
                by_likeness[likeness].append(seconds)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # not a result; aggregate names its fault
    return {likeness: fmean(seconds) for likeness, seconds in by_likeness.items()}


def expected_seconds(cell: PlannedCell, known: Mapping[tuple[str, ...], float]) -> float | None:
    """Return how long a cell will take, from the runs most like it; None if there is no such run."""
    likenesses = _likenesses(dataclasses.asdict(cell.config), cell.config.choices())
    return next((known[likeness] for likeness in likenesses if likeness in known), None)


def _likenesses(config: Mapping[str, Any], choices: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return the settings that runs of similar duration share, the closest likeness first."""
    size = (
        str(choices["dataset"]),
        str(choices["encoder"]),
        *(str(config["encoder"][key]) for key in ("max_length", "trainable")),
        str(config["dataset_fraction"]),
    )
    length = tuple(str(config["trainer"][key]) for key in ("epochs", "patience", "batch_size"))
    kind = (str(choices["joint_variant"]), str(choices["film"]))
    return [("kind", *size, *length, *kind), ("length", *size, *length), ("size", *size)]
