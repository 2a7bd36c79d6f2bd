"""Results as one tidy table: `hblm.results`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hblm.tables.result_files import ResultFile, read_results
from hblm.tables.result_scores import RAW, RowFilter, ScoreRow, all_rows
from hblm.tables.selection import select


def results(*places: str | Path, repeats: bool = False) -> pd.DataFrame:
    """Return all results below folders (or single files) as a tidy table.

    A row is one result, one split, one view, and one `consistency` of the predictions that are scored: none
    (as they are), raise (closed under ancestors), cap (nodes whose ancestors are all predicted; early
    results have none) or tuned (closed, at the thresholds that `tune` names; of the results that have them);
    `closed` is whether it is not none. Columns: `file`, `kind` (single, joint,
    evaluation, ensemble), `run_id`, `dataset`, `data` (a hash of the prepared files) and `taxonomy` (a hash),
    `trained_on` (the dataset of training with the start of its hash, where other data was scored), `seed`,
    `method` (flat, independent, top_down, bottom_up, dual, tri_head_diffcat, ensemble); the chosen option of
    each group (`film`, `direction`, ...) and every configuration key (`film.film_scale`, `trainer.epochs`,
    ...), of which `threshold` is named `training_threshold`; `predictions`, whether every document's scores
    were written beside the result; the scores (`micro_f1`, `level_0.macro_f1`, `hierarchical.f1`, ...) and
    the `threshold` they were computed at. An ensemble's options are its members', joined by + where they
    differ.

    Where a result comes from: `formulas`, those of model and loss (1: version 0.1);
    `finished`, when it was written (UTC, ISO 8601; of version 0.1 the time of the file); `git_commit`,
    `git_dirty`, `device`, `device_kind` (cpu, cuda, mps), `precision` (fp32, bf16, fp16) and `processes`;
    `encoder_commit`, the commit that the hub gave, and `encoder_id`, a hash of all that identifies the
    encoder, both missing in results of version 0.1.

    Of several results of one run the newest counts; of evaluations of one run with the same settings those
    with predictions, then the newest. An evaluation of another training than the run's (`force=true` trained
    again) does not count; of version 0.1 that is one older than the run's result.

    `attrs["passed_over"]` lists the files that give no row (unfinished, damaged, foreign or older files,
    repeats) with the reason, `attrs["keys"]` the columns that are options or configuration keys.

    Args:
        places: folders or result files; `outputs` where none is given.
        repeats: also return evaluations that repeat a run's own numbers: with the run's threshold and fuse
            weights, on its data, where the run's result exists as well.

    Raises:
        DataError: a place does not exist.
    """
    return collect(places or ("outputs",), repeats=repeats)


def collect(
    places: Iterable[str | Path], keep: RowFilter = all_rows, *, repeats: bool = True
) -> pd.DataFrame:
    """Return the results as `results` does; of each only the rows that the filter keeps."""
    files, unread = read_results(places, keep)
    selected, others = select(files, repeats=repeats)
    frame = _frame(selected)
    frame.attrs["passed_over"] = sorted([*unread, *others])
    frame.attrs["results"] = len(selected)
    frame.attrs["keys"] = list(dict.fromkeys(name for result in selected for name in result.keys))
    return frame


def _frame(files: Sequence[ResultFile]) -> pd.DataFrame:
    """Return a row for each row of scores, with the columns that its result shares."""
    shared = _shared(files)
    rows = [row for file in files for row in file.rows]
    places = {
        "split": [row.split for row in rows],
        "view": [row.view for row in rows],
        "closed": [row.consistency != RAW for row in rows],
        "consistency": [row.consistency for row in rows],
    }
    # a score cannot take the place of a column that all rows share
    scores = _scores(rows, taken=shared.keys() | places.keys())
    of_row = np.repeat(np.arange(len(files)), [len(file.rows) for file in files])
    left = pd.DataFrame(shared).iloc[of_row].reset_index(drop=True)
    frame: pd.DataFrame = pd.concat([left, pd.DataFrame(places), pd.DataFrame(scores)], axis=1)
    return frame


def _shared(files: Sequence[ResultFile]) -> dict[str, list[Any]]:
    """Return a list for each column; None where a result does not have it.

    Most results have the same columns: those that do are transposed at once.
    """
    by_names: dict[tuple[str, ...], list[int]] = {}
    for at, file in enumerate(files):
        by_names.setdefault(tuple(file.columns), []).append(at)
    columns: dict[str, list[Any]] = {name: [None] * len(files) for names in by_names for name in names}
    for names, places in by_names.items():
        of_name = zip(*(files[at].columns.values() for at in places), strict=True)
        for name, values in zip(names, of_name, strict=True):
            column = columns[name]
            for at, value in zip(places, values, strict=True):
                column[at] = value
    return columns


def _scores(rows: Sequence[ScoreRow], taken: set[str]) -> dict[str, np.ndarray]:
    """Return an array for each score that is not named like a column in `taken`; nan where a row has none."""
    by_names: dict[tuple[str, ...], list[int]] = {}
    for at, row in enumerate(rows):
        by_names.setdefault(row.names, []).append(at)
    scores = {name: np.full(len(rows), np.nan) for names in by_names for name in names if name not in taken}
    for names, places in by_names.items():
        values = np.array([rows[at].scores for at in places])
        for at, name in enumerate(names):
            if name in scores:
                scores[name][places] = values[:, at]
    return scores
