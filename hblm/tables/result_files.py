"""Result files: searched in folders, read, and checked."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from hblm.errors import DataError
from hblm.json_files import SEAL, is_as_sealed, read_object
from hblm.tables.options import ENSEMBLE, members_of, option_columns
from hblm.tables.result_columns import EVALUATIONS, RUNS, run_id_of, shared_columns
from hblm.tables.result_scores import LARGEST, RowFilter, ScoreRow, score_rows

SCHEMA_VERSION = 1  # of the result files that this version reads
_SKIPPED_FOLDERS = ("superseded", "checkpoints", "cache", "state", "sweeps", "hydra", "trackers")
_NO_RESULT = "not a result"
# of a checkpoint, an encoder, a dataset, a sweep: JSON files beside them, or one folder below, are theirs
_MARKERS = ("hblm.json", "config.json", "taxonomy.json", "sweep.json")
_RESERVED = frozenset(
    (
        *("file", "kind", "run_id", "data", "taxonomy", "levels", "trained_on"),
        *("split", "view", "closed", "consistency"),
    )
)
_TEXTS = ("file", "run_id", "dataset", "data", "taxonomy", "levels", "finished")  # never null
_RUN_ID = re.compile(r"[\w.-]{1,200}")  # without +, which joins an ensemble's
_LONGEST = 4096  # characters of a text in a column


class PassedOver(NamedTuple):
    """A file that gives no row, and why."""

    file: Path
    why: str


class ResultFile(NamedTuple):
    """A result file and its content.

    Attributes:
        file: where it is.
        identity: equal for results of the same run, kind, data and settings.
        written: when, in Unix time.
        trainings: an id of each model's training, an ensemble's two; None in results of version 0.1.
        columns: name -> value, shared by all rows.
        keys: the names of the columns that are options or configuration keys.
        rows: the scores.
    """

    file: Path
    identity: tuple[str, ...]
    written: float
    trainings: list[str | None]
    columns: dict[str, Any]
    keys: tuple[str, ...]
    rows: list[ScoreRow]

    @property
    def is_run(self) -> bool:
        """Whether it is a training run's own result."""
        return self.columns["kind"] in RUNS

    @property
    def run_id(self) -> str:
        """The run's id; an ensemble's are two, joined by +."""
        return str(self.columns["run_id"])


def read_results(places: Iterable[str | Path], keep: RowFilter) -> tuple[list[ResultFile], list[PassedOver]]:
    """Return the results below folders (or single files), and the files that are none.

    Args:
        places: folders or files.
        keep: which rows of a result are read.

    Raises:
        DataError: a place does not exist.
    """
    results, passed_over = [], []
    for file in dict.fromkeys(_json_files(places)):
        try:
            results.append(_read(file, keep))
        except ValueError as error:
            if str(error) != _NO_RESULT or not _is_of_another_kind(file):
                passed_over.append(PassedOver(file, str(error)))
    return results, passed_over


def _json_files(places: Iterable[str | Path]) -> Iterator[Path]:
    """Yield the JSON files that may be results, sorted in each folder."""
    for place in map(Path, places):
        if place.is_file():
            yield place
        elif not place.is_dir():
            raise DataError(f"{place}: no such file or folder of results")
        for above, folders, names in os.walk(place):
            folders[:] = sorted(
                name for name in folders if name not in _SKIPPED_FOLDERS and not name.startswith(".")
            )
            yield from (
                Path(above, name)
                for name in sorted(names)
                if name.endswith(".json") and not name.startswith(".")
            )


def _is_of_another_kind(file: Path) -> bool:
    """Return whether a file belongs to a checkpoint, an encoder, a dataset or a sweep."""
    return any((folder / name).exists() for folder in [*file.parents][:2] for name in _MARKERS)


def _read(file: Path, keep: RowFilter) -> ResultFile:
    """Read and check one file.

    Raises:
        ValueError: it is no result, with the reason.
    """
    try:
        changed = os.stat(file).st_mtime
        result = read_object(file)
    except OSError as error:  # it moved meanwhile, or is a link to nothing
        raise ValueError(f"cannot be read: {error.strerror}") from None
    _require_finished(result)
    try:
        kind = "run" if result["kind"] in RUNS else result["kind"]
        settings = json.dumps(result.get("settings"), sort_keys=True)
        finished = result.get("finished")
        options = option_columns(result)
        columns = shared_columns(file, result, options) | {"finished": finished or _utc(changed)}
        _require_sound_columns(columns, options)
        _require_sound_parts(result)
        return ResultFile(
            file=file,
            identity=(kind, run_id_of(result), columns["data"], settings),
            written=_unix_time(finished) if finished else changed,
            trainings=[member.get("training") for member in members_of(result)],
            columns=columns,
            keys=tuple(options),
            rows=list(score_rows(result, keep)),
        )
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"not in the format of a result: {type(error).__name__} {error!s:.200}") from None


def _require_finished(result: Mapping[str, Any]) -> None:
    """Refuse what is no result, damaged, of another version or kind, or unfinished.

    Raises:
        ValueError: with the reason.
    """
    if "schema_version" not in result or "kind" not in result:
        raise ValueError(_NO_RESULT)
    if SEAL in result and not is_as_sealed(result):
        raise ValueError("not as it was written: damaged or edited")
    if result["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version {result['schema_version']!r:.40}, not {SCHEMA_VERSION}")
    if result["kind"] not in (*RUNS, *EVALUATIONS):
        raise ValueError(f"a result of the unknown kind {result['kind']!r:.40}")
    if result.get("status") != "done":
        raise ValueError(f"unfinished: its status is {result.get('status')!r:.40}")


def _require_sound_columns(columns: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse values of a type or size that would spoil the columns of other results.

    Raises:
        ValueError: with the column and its value.
    """
    for name, value in columns.items():
        if name in _TEXTS:
            sound = isinstance(value, str) and 0 < len(value) <= _LONGEST
        elif name.startswith(("parameters.", "seconds.")):
            sound = value is None or _is_number(value)
        elif isinstance(value, str):
            sound = len(value) <= _LONGEST
        else:
            sound = value is None or (isinstance(value, (int, float)) and abs(value) <= LARGEST)
        if not sound:
            raise ValueError(f"not in the format of a result: {name:.60} is {value!r:.60}")
        if len(name) > _LONGEST:
            raise ValueError(f"not in the format of a result: a key of {len(name):,} characters")
    for name in options.keys() & _RESERVED:
        raise ValueError(f"not in the format of a result: a setting has the name of the column {name}")


def _require_sound_parts(result: Mapping[str, Any]) -> None:
    """Refuse malformed run ids, a wrong number of members, and epochs that no figure could show.

    Raises:
        ValueError: with the part.
    """
    for member in members_of(result):
        if not _RUN_ID.fullmatch(member["run_id"]):
            raise ValueError(f"not in the format of a result: run_id is {member['run_id']!r:.60}")
    if result["kind"] == ENSEMBLE and len(result["members"]) != 2:
        raise ValueError("not in the format of a result: an ensemble has two members")
    for epoch in result.get("history") or []:
        if type(epoch["epoch"]) is not int or not all(
            value is None or isinstance(value, dict) or _is_number(value) for value in epoch.values()
        ):
            raise ValueError(f"not in the format of a result: an epoch of its history is {epoch!r:.60}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= LARGEST


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _unix_time(finished: str) -> float:
    """Return the Unix time of a result's `finished`.

    Raises:
        ValueError: it is no time in ISO 8601.
    """
    try:
        return datetime.fromisoformat(finished.replace("Z", "+00:00")).timestamp()  # Python 3.10 takes no Z
    except (OSError, OverflowError):  # a year that is local time nowhere
        raise ValueError(f"no time: {finished!r:.40}") from None
