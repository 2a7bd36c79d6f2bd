"""Result files as one tidy table: a row for each result, split, view, and way of scoring."""

from __future__ import annotations

import functools
import json
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hblm.config.identity import acting
from hblm.config.train import FUSE_KEYS
from hblm.errors import DataError
from hblm.files import sha256_text
from hblm.json_files import SEAL, canonical_json, is_as_sealed, read_object

SCHEMA_VERSION = 1  # of the result files that are understood


SPLITS = ("val", "test")


RUNS, EVALUATIONS = ("single", "joint"), ("evaluation", "ensemble")


_LEFT_OUT = ("superseded", "checkpoints", "cache", "state", "sweeps", "hydra", "trackers")  # no result counts


_NO_RESULT = "not a result"


# of a checkpoint, an encoder, a dataset, a ledger: what lies beside them, or one folder below, is theirs
_OTHERS = ("hblm.json", "config.json", "taxonomy.json", "sweep.json")


_NO_SCORE = ("level", "train_documents")  # which part of the nodes the others are about


_CONFIG_ELSEWHERE = ("dataset", "trackers")  # parts of a configuration that other columns tell


_RENAMED = {"threshold": "training_threshold"}  # `threshold` is the column of the one that scored


_FIRST_FORMULAS = 1  # of results that do not name theirs: version 0.1 wrote them


_ENVIRONMENT = ("hblm", "git_commit", "git_dirty", "device", "precision", "processes")


ENCODER = ("encoder_commit", "encoder_id")  # columns; results of version 0.1 have neither


_ID_DIGITS = 8


_OWN = frozenset(("file", "kind", "run_id", "data", "taxonomy", "levels", "split", "view", "closed"))


_TEXTS = ("file", "run_id", "dataset", "data", "taxonomy", "levels", "finished")


_RUN_ID = re.compile(r"[\w.-]{1,200}")  # + joins an ensemble's


_LONGEST = 4096  # characters of a text in a column


_LARGEST = 2**53  # of a number: a float holds every whole one up to here


ENSEMBLE = "ensemble"  # the method of two models


Wanted = Callable[[str, str, bool], bool]  # of split, view and closed


class PassedOver(NamedTuple):
    """A file that gives no row, and why."""

    file: Path
    why: str


class _Row(NamedTuple):
    """One split, one view, one way of scoring; scores are numbers, and their names are kept once."""

    split: str
    view: str
    closed: bool
    names: tuple[str, ...]
    scores: array[float]


class _Found(NamedTuple):
    """A result: the file, what tells it apart from others, when it was written, and what it says."""

    file: Path
    identity: tuple[str, ...]
    written: float  # Unix time
    trainings: list[str | None]  # a mark of each model's training, an ensemble's two; None of version 0.1
    told: dict[str, Any]
    keys: tuple[str, ...]  # the columns told that are options or configuration keys
    rows: list[_Row]

    @property
    def is_run(self) -> bool:
        """Whether it is a training run's own result."""
        return self.told["kind"] in RUNS

    @property
    def run_ids(self) -> list[str]:
        """The run, or an ensemble's two."""
        return str(self.told["run_id"]).split("+")


def results(*places: str | Path, repeats: bool = False) -> pd.DataFrame:
    """Return all results below folders (or single files) as a tidy table.

    A row is one result, one split, one view, and one way of scoring (`closed`: predictions closed under
    ancestors). Columns: `file`, `kind` (single, joint, evaluation, ensemble), `run_id`, `dataset`, `data` (a
    hash of the prepared files) and `taxonomy` (a hash), `seed`, `method` (flat, independent,
    top_down, bottom_up, dual, tri_head_diffcat, ensemble); the chosen option of each group (`film`,
    `direction`, ...) and every configuration key (`film.film_scale`, `trainer.epochs`, ...), of which
    `threshold` is named `training_threshold`; `predictions`, whether every document's scores were written
    beside the result; the scores (`micro_f1`, `level_0.macro_f1`, `hierarchical.f1`,
    ...) and the `threshold` they were computed at. An ensemble's options are its members', joined by + where
    they differ.

    Where a result comes from: `formulas`, those of model and loss (1: version 0.1);
    `finished`, when it was written (UTC, ISO 8601; of version 0.1 the time of the file); `git_commit`,
    `git_dirty`, `device`, `device_kind` (cpu, cuda, mps), `precision` (fp32, bf16, fp16) and `processes`;
    `encoder_commit`, the commit that the hub gave, and `encoder_id`, a hash of all that identifies the
    encoder, both missing in results of version 0.1.

    Of several results of one run the newest counts; of evaluations of one run with the same settings those
    with predictions, then the newest. An evaluation of another training than the run's (`force=true` trained
    again) does not count; of version 0.1 that is one older than the run's result. What is passed over
    (unfinished, damaged, foreign or older files, repeats) stands with the reason in `attrs["passed_over"]`,
    the columns that are options or configuration keys in `attrs["keys"]`.

    Args:
        places: folders or result files; `outputs` where none is given.
        repeats: also return evaluations that repeat a run's own numbers: with the run's threshold and fuse
            weights, on its data, where the run's result is there as well.

    Raises:
        DataError: a place is not there.
    """
    return collect(places or ("outputs",), repeats=repeats)


def collect(
    places: Iterable[str | Path], wanted: Wanted | None = None, *, repeats: bool = True
) -> pd.DataFrame:
    """Return the results as `results` does; of each only the rows wanted, by split, view and closed."""
    found, passed_over = _select(*_found(places, wanted), repeats=repeats)
    frame = _frame(found)
    frame.attrs["passed_over"] = sorted(passed_over)
    frame.attrs["results"] = len(found)
    frame.attrs["keys"] = list(dict.fromkeys(name for result in found for name in result.keys))
    return frame


def _frame(found: Sequence[_Found]) -> pd.DataFrame:
    """Put what results say into columns: what a result shares once, then for each of its rows."""
    told = _columns([result.told for result in found])
    of_row = np.repeat(np.arange(len(found)), [len(result.rows) for result in found])
    rows = [row for result in found for row in result.rows]
    places = {
        "split": [row.split for row in rows],
        "view": [row.view for row in rows],
        "closed": [row.closed for row in rows],
    }
    alike: dict[tuple[str, ...], list[int]] = {}
    for at, row in enumerate(rows):
        alike.setdefault(row.names, []).append(at)
    # a score cannot take the place of a column that all rows share
    taken = told.keys() | places.keys()
    scores = {name: np.full(len(rows), np.nan) for names in alike for name in names if name not in taken}
    for names, at_rows in alike.items():
        values = np.array([rows[at].scores for at in at_rows])
        for place, name in enumerate(names):
            if name in scores:
                scores[name][at_rows] = values[:, place]
    shared = pd.DataFrame(told).iloc[of_row].reset_index(drop=True)
    frame: pd.DataFrame = pd.concat([shared, pd.DataFrame(places), pd.DataFrame(scores)], axis=1)
    return frame


def _columns(told: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return a list for each name; those that name the same things, which are most, are turned at once."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for at, one in enumerate(told):
        alike.setdefault(tuple(one), []).append(at)
    columns: dict[str, list[Any]] = {name: [None] * len(told) for names in alike for name in names}
    for names, places in alike.items():
        for name, values in zip(names, zip(*(told[at].values() for at in places), strict=True), strict=True):
            column = columns[name]
            for at, value in zip(places, values, strict=True):
                column[at] = value
    return columns


def _found(places: Iterable[str | Path], wanted: Wanted | None) -> tuple[list[_Found], list[PassedOver]]:
    found, passed_over = [], []
    for file in dict.fromkeys(_files(places)):
        try:
            found.append(_read(file, wanted))
        except ValueError as error:
            if str(error) != _NO_RESULT or not _is_of_another_kind(file):
                passed_over.append(PassedOver(file, str(error)))
    return found, passed_over


def _is_of_another_kind(file: Path) -> bool:
    """Return whether it is plain by its place that a file is no result."""
    return any((folder / name).exists() for folder in [*file.parents][:2] for name in _OTHERS)


def _files(places: Iterable[str | Path]) -> Iterator[Path]:
    """Yield the JSON files that may be results, sorted in each folder."""
    for place in map(Path, places):
        if place.is_file():
            yield place
        elif not place.is_dir():
            raise DataError(f"{place}: no such file or folder of results")
        for above, folders, names in os.walk(place):
            folders[:] = sorted(
                name for name in folders if name not in _LEFT_OUT and not name.startswith(".")
            )
            yield from (
                Path(above, name)
                for name in sorted(names)
                if name.endswith(".json") and not name.startswith(".")
            )


def _read(file: Path, wanted: Wanted | None) -> _Found:
    """Read one result.

    Raises:
        ValueError: it is none, with the reason.
    """
    try:
        changed = os.stat(file).st_mtime
        record = read_object(file)
    except OSError as error:  # it moved meanwhile, or is a link to nothing
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if "schema_version" not in record or "kind" not in record:
        raise ValueError(_NO_RESULT)
    if SEAL in record and not is_as_sealed(record):
        raise ValueError("not as it was written: damaged or edited")
    if record["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version {record['schema_version']!r:.40}, not {SCHEMA_VERSION}")
    if record["kind"] not in (*RUNS, *EVALUATIONS):
        raise ValueError(f"a result of the unknown kind {record['kind']!r:.40}")
    if record.get("status") != "done":
        raise ValueError(f"unfinished: its status is {record.get('status')!r:.40}")
    try:
        settings = json.dumps(record.get("settings"), sort_keys=True)
        kind = "run" if record["kind"] in RUNS else record["kind"]
        identity = (kind, _run_id(record), settings)
        options = _options(record)
        finished = record.get("finished")
        told = _told(file, record, options) | {"finished": finished or _utc(changed)}
        _require_sound(told, options, record)
        rows = list(_rows(record, wanted or _everything))
        return _Found(
            file=file,
            identity=identity,
            written=_seconds(finished) if finished else changed,
            trainings=[member.get("training") for member in _members(record)],
            told=told,
            keys=tuple(options),
            rows=rows,
        )
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"not in the format of a result: {type(error).__name__} {error!s:.200}") from None


def _require_sound(told: Mapping[str, Any], options: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Refuse columns that would spoil those of other results.

    Raises:
        ValueError: what is wrong.
    """
    for name, value in told.items():
        if name in _TEXTS:
            sound = isinstance(value, str) and 0 < len(value) <= _LONGEST
        elif name.startswith(("parameters.", "seconds.")):
            sound = value is None or (type(value) in (int, float) and abs(value) <= _LARGEST)
        elif isinstance(value, str):
            sound = len(value) <= _LONGEST
        else:
            sound = value is None or (isinstance(value, (int, float)) and abs(value) <= _LARGEST)
        if not sound:
            raise ValueError(f"not in the format of a result: {name:.60} is {value!r:.60}")
        if len(name) > _LONGEST:
            raise ValueError(f"not in the format of a result: a key of {len(name):,} characters")
    for name in options.keys() & _OWN:
        raise ValueError(f"not in the format of a result: a setting has the name of the column {name}")
    for member in _members(record):
        if not _RUN_ID.fullmatch(member["run_id"]):
            raise ValueError(f"not in the format of a result: run_id is {member['run_id']!r:.60}")
    if record["kind"] == ENSEMBLE and len(record["members"]) != 2:
        raise ValueError("not in the format of a result: an ensemble has two members")
    for entry in record.get("history") or []:
        if type(entry["epoch"]) is not int or not all(map(_is_score, entry.values())):
            raise ValueError(f"not in the format of a result: an epoch of its history is {entry!r:.60}")


def _is_score(value: Any) -> bool:
    """Return whether an entry of a history is a number, or something that no figure shows."""
    return (
        value is None or isinstance(value, dict) or (type(value) in (int, float) and abs(value) <= _LARGEST)
    )


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(finished: str) -> float:
    """Return the Unix time of a result's `finished`.

    Raises:
        ValueError: it is no time in ISO 8601.
    """
    try:
        return datetime.fromisoformat(finished.replace("Z", "+00:00")).timestamp()  # Python 3.10 takes no Z
    except (OSError, OverflowError):  # a year that is local time nowhere
        raise ValueError(f"no time: {finished!r:.40}") from None


def _select(
    found: Sequence[_Found], passed_over: list[PassedOver], *, repeats: bool
) -> tuple[list[_Found], list[PassedOver]]:
    """Keep one result of each identity: the newest run; of evaluations of that model the preferred one."""
    runs: dict[str, _Found] = {}
    kept: dict[tuple[str, ...], _Found] = {}
    passed = list(passed_over)
    others = []
    for result in sorted(found, key=_preference):  # all runs first
        why = None if result.is_run else _of_another_model(result, runs)
        if why is not None:
            passed.append(PassedOver(result.file, why))
            continue
        if result.identity in kept:
            others.append(kept[result.identity])
        kept[result.identity] = result
        if result.is_run:
            runs[result.told["run_id"]] = result
    for other in others:
        chosen = kept[other.identity]
        what = "a result without predictions" if other.written > chosen.written else "an older result"
        passed.append(PassedOver(other.file, f"{what} of the same run and settings as {chosen.file}"))
    if not repeats:
        for result in list(kept.values()):
            if not result.is_run and _repeats(result, runs):
                del kept[result.identity]
                run = runs[result.told["run_id"]]
                passed.append(PassedOver(result.file, f"repeats {run.file}; repeats=True keeps it"))
    return sorted(kept.values(), key=lambda result: str(result.file)), passed


def _preference(result: _Found) -> tuple[Any, ...]:
    """Return a sort key by which the result that counts comes last; equally old files go by name."""
    return (not result.is_run, result.told["predictions"], result.written, result.file.name, str(result.file))


def _of_another_model(result: _Found, runs: Mapping[str, _Found]) -> str | None:
    """Return why an evaluation is not of the models whose runs are at hand; None where it may be.

    A run made again has the id of its earlier training; a mark tells the two apart. Results of version 0.1
    have none, and there an evaluation that is older than its run's result is of an earlier model.
    """
    for run_id, mark in zip(result.run_ids, result.trainings, strict=True):
        run = runs.get(run_id)
        if run is None:
            continue
        (own,) = run.trainings
        if mark is not None and own is not None:
            if mark != own:
                return f"of another training than {run.file}"
        elif run.written > result.written:
            return f"older than {run.file}: of an earlier model"
    return None


def _repeats(result: _Found, runs: Mapping[str, _Found]) -> bool:
    """Return whether an evaluation measured again what its run measured."""
    run = runs.get(result.told["run_id"])
    if run is None:
        return False
    told, own = result.told, run.told
    weights = [key for key in FUSE_KEYS if f"settings.{key}" in told]
    return (
        all(told[name] == own[name] for name in ("data", "formulas"))
        and told.get("settings.threshold") == own.get("training_threshold")
        and all(told[f"settings.{key}"] == own.get(f"joint_variant.{key}") for key in weights)
    )


def _run_id(record: Mapping[str, Any]) -> str:
    """Return the run's id; an ensemble's are its members', joined."""
    if record["kind"] == "ensemble":
        return "+".join(member["run_id"] for member in record["members"].values())
    return str(record["run_id"])


def _members(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the parts of a record that speak of one model each: an ensemble's two, else all of it."""
    return list(record["members"].values()) if record["kind"] == ENSEMBLE else [record]


def _told(file: Path, record: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that all rows of a result share."""
    dataset = record["dataset"]
    environment = record.get("environment") or {}
    told = {
        "file": str(file),
        "kind": record["kind"],
        "run_id": _run_id(record),
        **options,
        "dataset": dataset["name"],
        "data": dataset["fingerprint"],
        "taxonomy": dataset["files"]["taxonomy.json"],
        "levels": "/".join(map(_count, dataset["levels"])),
        "best_epoch": record.get("best_epoch"),
        "predictions": bool(record.get("predictions")),
        "formulas": record.get("formulas", _FIRST_FORMULAS),
        **_encoder(record),
    }
    settings = (record.get("settings") or {}).items()
    if record["kind"] == ENSEMBLE:  # searched weights differ from seed to seed, and are one way to average
        given = record.get("settings") or {}
        searched = given.get("ensemble_weight_search") is not None
        told["ensemble_weight"] = "auto" if searched else given.get("ensemble_weight")
    told |= {f"settings.{name}": value for name, value in settings if not isinstance(value, (dict, list))}
    told |= {f"parameters.{name}": value for name, value in (record.get("parameters") or {}).items()}
    told |= {f"seconds.{name}": value for name, value in (record.get("seconds") or {}).items()}
    told |= {name: environment.get(name) for name in _ENVIRONMENT}
    return told | {"device_kind": environment.get("device_kind") or _kind_of(environment.get("device"))}


def _count(nodes: int) -> str:
    """Return a level's number of nodes as the column `levels` has it.

    Raises:
        ValueError: it is none.
    """
    if type(nodes) is not int or not 0 < nodes <= _LARGEST:
        raise ValueError(f"not in the format of a result: a level of {nodes!r:.40} nodes")
    return str(nodes)


def _kind_of(device: str | None) -> str | None:
    """Return the kind of a device of version 0.1, which recorded cpu, mps or a GPU's name."""
    return device if device in (None, "cpu", "mps") else "cuda"


def count_nodes(levels: str) -> int:
    """Return how many nodes a dataset has, from its column `levels` (7/134)."""
    return sum(map(int, levels.split("/")))


def _encoder(record: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the columns of what identified the encoder; None where a result does not record it."""
    encoders = [member["encoder"] for member in _members(record) if member.get("encoder") is not None]
    if len(encoders) < len(_members(record)):
        return dict.fromkeys(ENCODER)
    return {
        "encoder_commit": _joined([encoder["commit"] for encoder in encoders]),
        "encoder_id": _joined([sha256_text(canonical_json(encoder))[:_ID_DIGITS] for encoder in encoders]),
    }


def _options(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return seed, method, groups and configuration keys; of an ensemble, both members' where they differ."""
    together = record["kind"] == "ensemble"
    members = _members(record)
    every = [
        {
            "seed": member["seed"],
            "method": ENSEMBLE if together else None,
            **member["choices"],
            **_flat(member["config"]),
        }
        for member in members
    ]
    if not together:
        every[0]["method"] = acting(every[0])[0]
    if len(every) == 1:
        return every[0]
    return {name: _joined([one.get(name) for one in every]) for name in every[0]}


def _joined(values: Sequence[Any]) -> Any:
    """Return what values share, or their texts joined by +."""
    same = all(value == values[0] for value in values)
    return values[0] if same else "+".join(map(str, values))


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return key -> value of a configuration and its groups."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if name in _CONFIG_ELSEWHERE:
            continue
        if isinstance(value, dict):
            found.update(zip(_dotted(name, tuple(value)), value.values(), strict=True))
        else:
            found[_RENAMED.get(name, name)] = value
    return found


@functools.cache
def _dotted(group: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{group}.{name}" for name in names)


def _everything(split: str, view: str, closed: bool) -> bool:
    return True


def _rows(record: Mapping[str, Any], wanted: Wanted) -> Iterator[_Row]:
    """Yield the rows of a result that are wanted."""
    views = [(split, *item) for split in SPLITS for item in (record.get(split) or {}).items()]
    if not views:
        raise KeyError("no scores, neither val nor test")
    for split, view, found in views:
        place = {"documents": found.get("documents"), "threshold": found.get("threshold")}
        if wanted(split, view, False):
            yield _Row(split, view, False, *_scores(found, place))
        if found.get("repath") and wanted(split, view, True):
            yield _Row(split, view, True, *_scores(found["repath"], place))


def _scores(found: Mapping[str, Any], place: Mapping[str, Any]) -> tuple[tuple[str, ...], array[float]]:
    """Return the names of one view's scores, and the scores."""
    parts: list[tuple[str, Mapping[str, Any]]] = [("", place), ("", found["overall"])]
    parts += [(f"{name}.", found.get(name) or {}) for name in ("hierarchical", "ranking")]
    parts += [(f"level_{level['level']}.", level) for level in found["per_level"]]
    parts += [(f"frequency_{part['train_documents']}.", part) for part in found.get("by_frequency") or []]
    values = array("d")
    for _, part in parts:
        values.extend(
            nan if value is None else value for name, value in part.items() if name not in _NO_SCORE
        )
    if (np.abs(np.frombuffer(values)) > _LARGEST).any():
        raise ValueError(f"not in the format of a result: a score above {_LARGEST:,}")
    return _names(tuple((prefix, tuple(part)) for prefix, part in parts)), values


@functools.cache
def _names(parts: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[str, ...]:
    return tuple(f"{prefix}{name}" for prefix, part in parts for name in part if name not in _NO_SCORE)
