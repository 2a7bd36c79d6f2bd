"""Result files: one JSON a run or evaluation; beside it CSVs with a row for each view, and view and node."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hblm.data.dataset import Prepared
from hblm.errors import DataError
from hblm.files import cell_text, new_file
from hblm.json_files import read_object, sealed, write_json
from hblm.runs.paths import Run
from hblm.version import FORMULAS


def read_result(this: Run, views: Sequence[str]) -> dict[str, Any]:
    """Return the result of a finished run, sound as far as it is printed.

    Raises:
        DataError: it is damaged, or is not there any more.
    """
    try:
        record = read_object(this.result)
        test = record["test"]
        scored = all(_is_scored(test[view]) and _is_scored(test[view]["repath"]) for view in views)
        noted = all(isinstance(note["text"], str) for note in record.get("notes", ()))
        why = "" if scored and noted else "no scores"
    except (KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__} {error!s:.100}"
    except (OSError, ValueError) as error:
        why = str(error)
    if why:
        raise DataError(f"{this.result}: damaged ({why}); force=true runs it again and keeps this file apart")
    return record


def _is_scored(scores: Mapping[str, Any]) -> bool:
    """Return whether scores hold the numbers that a table on the terminal shows."""
    overall, levels = scores["overall"], scores["per_level"]
    wanted = [overall["samples_f1"], overall["violation_rate"]]
    for row in (overall, *levels):
        wanted += [row["micro_f1"], row["macro_f1"], row["support"]]
    counted = all(type(row["level"]) is type(row["nodes"]) is int for row in levels)
    return counted and all(type(number) in (int, float) for number in wanted)


SCHEMA_VERSION = 1


def write_result(path: Path, record: Mapping[str, Any], views: Mapping[str, Mapping[str, Any]]) -> None:
    """Write `path` and its CSVs; the JSON last, because its existence says that the run is done.

    `.nodes.csv` has a row for each view and node of the taxonomy; `.csv`, where there are several views, one
    for each view with its macro- and micro-F1.

    Args:
        path: the .json file.
        record: what it holds besides the versions of schema and formulas, the time, and its seal.
        views: the scores that the CSVs tell, with their `nodes`.
    """
    rows = [{"view": view, **row} for view, found in views.items() for row in found["nodes"]]
    _write_csv(path.with_suffix(".nodes.csv"), rows)
    if len(views) > 1:
        overall = {view: found["overall"] for view, found in views.items()}
        keys = ("macro_f1", "micro_f1")
        _write_csv(
            path.with_suffix(".csv"),
            [{"view": view, **{key: scores[key] for key in keys}} for view, scores in overall.items()],
        )
    finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    versions = {"schema_version": SCHEMA_VERSION, "formulas": FORMULAS, "finished": finished}
    write_json(path, sealed({**versions, **record}))


def dataset_reference(prepared: Prepared) -> dict[str, str]:
    """Return what it takes to find a dataset again."""
    return {
        "name": prepared.name,
        "path": str(prepared.folder.resolve()),
        "fingerprint": prepared.fingerprint,
    }


def dataset_entry(prepared: Prepared, documents: Mapping[str, int]) -> dict[str, Any]:
    """Return what a result says of the documents it stands on, and how many of each split."""
    return {
        **dataset_reference(prepared),
        "files": dict(prepared.files),
        "documents": dict(documents),
        "levels": [len(level) for level in prepared.taxonomy.levels],
    }


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    guarded = [{name: cell_text(value) for name, value in row.items()} for row in rows]
    with new_file(path) as temporary:
        pd.DataFrame(guarded).to_csv(temporary, index=False)


def without_nodes(views: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the views' scores without the rows that go to the CSV."""
    return {view: {k: v for k, v in found.items() if k != "nodes"} for view, found in views.items()}
