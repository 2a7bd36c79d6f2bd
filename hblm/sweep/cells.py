"""A cell of a sweep as it was submitted, and the result files that make it done. No torch."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from glob import escape
from pathlib import Path
from typing import Any

from filelock import FileLock

from hblm.config.identity import ensemble_id
from hblm.files import sha256_file
from hblm.json_files import read_object
from hblm.runs import paths
from hblm.version import COMPUTED_BY, FORMULAS


@dataclass(frozen=True)
class FrozenCell:
    """A cell as it was submitted: everything that its process reads.

    Attributes:
        id: of the run; of an ensemble, the hash of its members and its weight.
        number: place in the sweep, from 1.
        kind: train or ensemble.
        label: its values on the axes, as overrides.
        names: the names that the run's files may have (train).
        config: the typed configuration as plain values (train); else dataset, weight and member ids.
        needs: ids of the cells that must be done before.
        output_dir: where its result goes, absolute.
        folder: the working folder of the submission, where relative paths start.
        submitted: when it was submitted, in seconds since 1970.
        force: results that existed at submission do not count.
        older: the sha256 of those results. They are compared by content, as clocks of hosts differ. None in
            files written before these were kept: then modification times are compared.
        commit, dirty: of the code, at submission.
        formulas: version of the formulas that its run id stands for; absent in files of version 0.1.
        chosen: the settings of `config` that were left to `auto`, with reasons; absent in files of 0.2.
    """

    id: str
    number: int
    kind: str
    label: str
    names: tuple[str, ...]
    config: Mapping[str, Any]
    needs: tuple[str, ...]
    output_dir: Path
    folder: Path
    submitted: float
    force: bool = False
    older: tuple[str, ...] | None = ()
    commit: str | None = None
    dirty: bool | None = None
    formulas: int = 1
    chosen: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> FrozenCell:
        """Return a cell from the checked fields of its file."""
        return cls(
            **{
                **values,
                "names": tuple(values["names"]),
                "needs": tuple(values["needs"]),
                "older": None if (older := values.get("older")) is None else tuple(older),
                "output_dir": Path(values["output_dir"]),
                "folder": Path(values["folder"]),
            }
        )

    @property
    def other_version(self) -> str | None:
        """The version whose formulas this cell's run id stands for; None if it is this one."""
        return None if self.formulas == FORMULAS else f"hblm {COMPUTED_BY.get(self.formulas, 'unknown')}"

    @property
    def processes(self) -> int:
        """Number of processes on each machine."""
        return int(self.config["trainer"].get("processes", 1)) if self.kind == "train" else 1

    @property
    def key(self) -> str:
        """The part of its id that names its files in the sweep's folder."""
        return self.id[:16]

    def result(self) -> Path | None:
        """Return its result file; None if it is not done."""
        return next(filter(self._counts, self.results()), None)

    def _counts(self, result: Path) -> bool:
        if self.older is None:
            return not self.force or result.stat().st_mtime >= self.submitted
        return not self.older or _digest(result) not in self.older

    def without_older_results(self) -> FrozenCell:
        """Return the cell with the results listed that exist now, if `force` excludes them."""
        return replace(self, older=tuple(filter(None, map(_digest, self.results())))) if self.force else self

    def results(self) -> list[Path]:
        """Return all results of this cell, the newest first; a training run has at most one."""
        if self.kind != "train":
            return _ensemble_results(self)
        run = paths.find(self.output_dir, self.id, self.names)
        return [run.result] if run.is_done else []

    def lock(self) -> FileLock:
        """Return the lock that every process holds that does this run, in a sweep or not."""
        return paths.locked(self.output_dir, self.key)

    def is_running_somewhere(self) -> bool:
        """Return whether some process does this run now."""
        return paths.is_locked(self.output_dir, self.key)


REQUIRED_FIELDS = tuple(
    each.name for each in fields(FrozenCell) if each.default is each.default_factory is MISSING
)


def _ensemble_results(cell: FrozenCell) -> list[Path]:
    """Return the evaluations of these members with this weight, by any program, the newest first."""
    wanted = ensemble_id(cell.needs)
    results = []
    for file in (cell.output_dir / "results").glob(f"eval_ensemble_{escape(cell.config['dataset'])}_*.json"):
        with contextlib.suppress(FileNotFoundError):
            modified = file.stat().st_mtime_ns
            run_id, settings = _evaluation(file, modified)
            if run_id == wanted and _has_settings(cell, settings):
                results.append((modified, file))
    return [file for _, file in sorted(results, reverse=True)]


def _has_settings(cell: FrozenCell, settings: Mapping[str, Any]) -> bool:
    """Return whether an evaluation has the data, weight, threshold and split of an ensemble cell."""
    weight = str(cell.config["ensemble_weight"])
    is_searched = settings.get("ensemble_weight_search") is not None
    same_weight = is_searched if weight == "auto" else settings.get("ensemble_weight") == float(weight)
    return (
        same_weight
        and is_searched == (weight == "auto")
        and settings.get("split") == "test"
        and settings.get("threshold") == cell.config["threshold"]
        and not settings.get("other_data")
    )


def _digest(file: Path) -> str:
    """Return the sha256 of a result; "" if it does not exist any more."""
    try:
        stat = file.stat()
        return _cached_digest(file, stat.st_ino, stat.st_mtime_ns)
    except FileNotFoundError:
        return ""


@functools.lru_cache(maxsize=10_000)
def _cached_digest(file: Path, inode: int, modified: int) -> str:
    return sha256_file(file)


@functools.lru_cache(maxsize=10_000)
def _evaluation(file: Path, modified: int) -> tuple[str, Mapping[str, Any]]:
    """Return run id and settings of an evaluation; "" if the file is damaged."""
    try:
        record = read_object(file)
        settings = record["settings"]
        return str(record["run_id"]), settings if isinstance(settings, dict) else {}
    except (ValueError, KeyError):
        return "", {}
