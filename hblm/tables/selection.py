"""Which results count: one of each run, and evaluations of that training only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hblm.config.train import FUSE_KEYS
from hblm.tables.result_files import PassedOver, ResultFile
from hblm.tables.result_scores import TUNED


def select(results: Sequence[ResultFile], *, repeats: bool) -> tuple[list[ResultFile], list[PassedOver]]:
    """Keep one result of each identity, and return the others with the reason.

    Of runs the newest counts. Evaluations of another training than that run's do not count; of the others
    those with predictions come first, then the newest.

    Args:
        results: all.
        repeats: whether evaluations with the run's own threshold, weights and data are kept.

    Returns:
        The results that count, in order of their files, and the others.
    """
    runs: dict[str, ResultFile] = {}
    kept: dict[tuple[str, ...], ResultFile] = {}
    passed_over, replaced = [], []
    for result in sorted(results, key=_preference):  # all runs first
        why = None if result.is_run else _of_another_training(result, runs)
        if why is not None:
            passed_over.append(PassedOver(result.file, why))
            continue
        if result.identity in kept:
            replaced.append(kept[result.identity])
        kept[result.identity] = result
        if result.is_run:
            runs[result.run_id] = result
    for result in replaced:
        newer = kept[result.identity]
        what = "a result without predictions" if result.written > newer.written else "an older result"
        passed_over.append(PassedOver(result.file, f"{what} of the same run and settings as {newer.file}"))
    if not repeats:
        for result in list(kept.values()):
            if not result.is_run and _repeats(result, runs):
                tuned = [row for row in result.rows if row.consistency == TUNED]
                if tuned:  # the other rows repeat the run
                    kept[result.identity] = result._replace(rows=tuned)
                    continue
                del kept[result.identity]
                why = f"repeats {runs[result.run_id].file}; repeats=True keeps it"
                passed_over.append(PassedOver(result.file, why))
    return sorted(kept.values(), key=lambda result: str(result.file)), passed_over


def _preference(result: ResultFile) -> tuple[Any, ...]:
    """Return a sort key by which the result that counts comes last; equally old files go by name."""
    has_predictions = result.columns["predictions"]
    return (not result.is_run, has_predictions, result.written, result.file.name, str(result.file))


def _of_another_training(result: ResultFile, runs: Mapping[str, ResultFile]) -> str | None:
    """Return why an evaluation is not of the models whose runs are there; None where it may be.

    A run that is trained again keeps its id; the id of the training tells the two apart. Results of version
    0.1 have none, and there an evaluation that is older than its run's result is of an earlier model.
    """
    for run_id, training in zip(result.run_id.split("+"), result.trainings, strict=True):
        run = runs.get(run_id)
        if run is None:
            continue
        (own,) = run.trainings
        if training is not None and own is not None:
            if training != own:
                return f"of another training than {run.file}"
        elif run.written > result.written:
            return f"older than {run.file}: of an earlier model"
    return None


def _repeats(result: ResultFile, runs: Mapping[str, ResultFile]) -> bool:
    """Return whether an evaluation has its run's data, threshold and fuse weights, so the same numbers."""
    run = runs.get(result.run_id)
    if run is None:
        return False
    columns, own = result.columns, run.columns
    weights = [key for key in FUSE_KEYS if f"settings.{key}" in columns]
    return (
        all(columns[name] == own[name] for name in ("data", "formulas"))
        and columns.get("settings.threshold") == own.get("training_threshold")
        and all(columns[f"settings.{key}"] == own.get(f"joint_variant.{key}") for key in weights)
    )
