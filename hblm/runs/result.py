"""Result files: one JSON for a run or evaluation, and CSVs with a row for each view, or view and node."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hblm.data.dataset import Prepared
from hblm.errors import DataError
from hblm.files import cell_text, new_file
from hblm.json_files import read_object, sealed, write_json
from hblm.runs.paths import Run
from hblm.version import FORMULAS


def read_result(this: Run, views: Sequence[str]) -> dict[str, Any]:
    """Return the result of a finished run; the parts that are printed are checked.

    Args:
        this: the run.
        views: those that the result must have.

    Raises:
        DataError: it is damaged or missing.
    """
    try:
        content = read_object(this.result)
        test = content["test"]
        has_scores = all(_has_scores(test[view]) and _has_scores(test[view]["repath"]) for view in views)
        has_notes = all(isinstance(note["text"], str) for note in content.get("notes", ()))
        why = "" if has_scores and has_notes else "no scores"
    except (KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__} {error!s:.100}"
    except (OSError, ValueError) as error:
        why = str(error)
    if why:
        raise DataError(f"{this.result}: damaged ({why}); force=true runs it again and keeps this file apart")
    return content


def _has_scores(scores: Mapping[str, Any]) -> bool:
    """Return whether scores have all numbers that the table on the terminal shows."""
    overall, levels = scores["overall"], scores["per_level"]
    wanted = [overall["samples_f1"], overall["violation_rate"]]
    for row in (overall, *levels):
        wanted += [row["micro_f1"], row["macro_f1"], row["support"]]
    has_counts = all(type(row["level"]) is type(row["nodes"]) is int for row in levels)
    return has_counts and all(type(number) in (int, float) for number in wanted)


SCHEMA_VERSION = 1


def write_result(path: Path, content: Mapping[str, Any], views: Mapping[str, Mapping[str, Any]]) -> None:
    """Write `path` and its CSVs; the JSON last, because a run counts as done when it exists.

    `.nodes.csv` has a row for each view and node. With several views, `.csv` has a row for each view with its
    macro- and micro-F1.

    Args:
        path: the .json file.
        content: of it, without the versions of schema and formulas, the time, and the seal.
        views: the scores for the CSVs, with their `nodes`.
    """
    rows = [{"view": view, **row} for view, scores in views.items() for row in scores["nodes"]]
    _write_csv(path.with_suffix(".nodes.csv"), rows)
    if len(views) > 1:
        overall = {view: scores["overall"] for view, scores in views.items()}
        keys = ("macro_f1", "micro_f1")
        _write_csv(
            path.with_suffix(".csv"),
            [{"view": view, **{key: scores[key] for key in keys}} for view, scores in overall.items()],
        )
    finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    versions = {"schema_version": SCHEMA_VERSION, "formulas": FORMULAS, "finished": finished}
    write_json(path, sealed({**versions, **content}))


def dataset_reference(prepared: Prepared) -> dict[str, str]:
    """Return an entry by which a dataset can be opened again: name, path and hash."""
    return {
        "name": prepared.name,
        "path": str(prepared.folder.resolve()),
        "fingerprint": prepared.fingerprint,
    }


def dataset_entry(prepared: Prepared, documents: Mapping[str, int]) -> dict[str, Any]:
    """Return the result's entry of its dataset; `documents` are those used of each split."""
    return {
        **dataset_reference(prepared),
        "files": dict(prepared.files),
        "documents": dict(documents),
        "levels": [len(level) for level in prepared.taxonomy.levels],
    }


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    import pandas  # a second to load, and a run that is done writes nothing

    guarded = [{name: cell_text(value) for name, value in row.items()} for row in rows]
    with new_file(path) as temporary:
        pandas.DataFrame(guarded).to_csv(temporary, index=False)


def without_nodes(views: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the views' scores without the rows of nodes, which go to the CSV."""
    return {view: {k: v for k, v in scores.items() if k != "nodes"} for view, scores in views.items()}
