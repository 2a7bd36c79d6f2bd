"""Result files: one JSON a run or evaluation, and beside it a CSV with one row a view and node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hblm.artifacts import new_file, write_json

SCHEMA_VERSION = 1


def write_result(path: Path, record: Mapping[str, Any], nodes: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write `path` and its .nodes.csv; the JSON last, because its existence says that the run is done.

    Args:
        path: the .json file.
        record: what it holds besides the schema's version.
        nodes: for each view a row for each node of the taxonomy, in taxonomy order.
    """
    rows = [{"view": view, **row} for view, table in nodes.items() for row in table]
    with new_file(path.with_suffix(".nodes.csv")) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    write_json(path, {"schema_version": SCHEMA_VERSION, **record})


def without_nodes(views: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the views' scores without the rows that go to the CSV."""
    return {view: {k: v for k, v in found.items() if k != "nodes"} for view, found in views.items()}
