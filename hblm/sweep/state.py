"""A sweep's ledger: plain files under outputs/sweeps/NAME/, each there whole or not at all. No torch.

    sweep.json              the sweep as last submitted: its cells in order, table, code, where it runs
    cells/ID.json           a cell's configuration, frozen when it was submitted
    attempts/ID.N.json      the N-th attempt at it: process, host, device, times, how it ended
    attempts/ID.N.lock      held by that process as long as it lives; no clocks of hosts are compared
    logs/ID.N.log           what that attempt printed
    teams/ID.N.R/           where the machines of an attempt meet (R: requeues); what processes printed
    submit.lock             held while sweep.json is written anew
    pool.lock, pool.log     held by the process that starts cells, and what it prints
    cancel.json             asks that process to stop, or to stop some cells

ID is 16 digits of the run id. That a cell is done is not in the ledger: it means that its result file exists.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psutil
from filelock import FileLock

from hblm.config.identity import ensemble_id
from hblm.config.sweep import FAILURES
from hblm.console import log
from hblm.errors import ConfigError
from hblm.files import HOST, remove_stale, sha256_file
from hblm.json_files import read_object, write_json
from hblm.locks import is_held, lock_of
from hblm.runs import paths
from hblm.sweep.state_types import OF_ATTEMPT, OF_CELL, OF_SWEEP, is_config_of, is_number, is_texts, odd_keys
from hblm.version import COMPUTED_BY, FORMULAS, __version__

SCHEMA_VERSION = 1


# how an attempt can end beside `done` and FAILURES
STOPPED = {
    "lost": "its process ended and nobody saw how, as when the machine went down",
    "interrupted": "the sweep's own process was stopped",
    "cancelled": "by cancel",
}


_PENDING = ": PENDING"  # in what is said of a job that is in a cluster's queue and not on a node


@dataclass(frozen=True)
class Frozen:
    """A cell as it was submitted: all that its process reads.

    Attributes:
        id: of the run; of an ensemble, of its members and its weight.
        number: place in the sweep, from 1.
        kind: train or ensemble.
        label: its values on the axes, as overrides.
        names: the names that the run's files may bear (train).
        config: the typed configuration as plain values (train); else dataset, weight and member ids.
        needs: ids of the cells that must be done before.
        output_dir: where its result goes, absolute.
        folder: the working folder of the submission, where relative paths start.
        submitted: when it was frozen, in seconds since 1970.
        force: results that were there at submission do not count.
        older: the sha256 of those results; hosts may have other times, so none is compared. None: frozen
            before these were kept, so that times must do.
        commit, dirty: of the code, at submission.
        formulas: that its run id stands for; cells of 0.1 do not say.
        chosen: the settings of `config` that nobody gave, and why they are so; cells of 0.2 do not say.
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

    @property
    def other_maker(self) -> str | None:
        """The version that computes what this cell's run id stands for; None where it is this one."""
        return None if self.formulas == FORMULAS else f"hblm {COMPUTED_BY.get(self.formulas, 'unknown')}"

    @property
    def processes(self) -> int:
        """How many processes do it on each machine."""
        return int(self.config["trainer"].get("processes", 1)) if self.kind == "train" else 1

    @property
    def key(self) -> str:
        """What its files in the ledger are called."""
        return self.id[:16]

    def result(self) -> Path | None:
        """Return its result file; None while it is not done."""
        return next(filter(self._counts, self.results()), None)

    def _counts(self, result: Path) -> bool:
        if self.older is None:
            return not self.force or result.stat().st_mtime >= self.submitted
        return not self.older or _digest(result) not in self.older

    def outdating(self) -> Frozen:
        """Return the cell with the results named that are there now, if they are not to count."""
        return replace(self, older=tuple(filter(None, map(_digest, self.results())))) if self.force else self

    def results(self) -> list[Path]:
        """Return all results of this cell, the newest first; a training has one."""
        if self.kind != "train":
            return _find_ensembles(self)
        run = paths.find(self.output_dir, self.id, self.names)
        return [run.result] if run.is_done else []

    def lock(self) -> FileLock:
        """Return the lock that whoever does this run holds, in a sweep or not."""
        return paths.locked(self.output_dir, self.key)

    def is_running_somewhere(self) -> bool:
        """Return whether some process does this run now."""
        return paths.is_locked(self.output_dir, self.key)


@dataclass(frozen=True)
class Attempt:
    """One attempt at a cell.

    `told` holds state (waiting, queued, running, ended), and when known cause, why, exit, host, pid, born,
    device, started, ended, commit, dirty.
    """

    number: int
    told: Mapping[str, Any]

    @property
    def state(self) -> str:
        """waiting; queued, by a cluster; running; or ended."""
        return str(self.told.get("state"))

    @property
    def cause(self) -> str | None:
        """How it ended: `done`, or one of FAILURES or STOPPED."""
        return self.told.get("cause")

    def is_alive(self, cell: Frozen) -> bool:
        """Return whether its process is there, as far as that can be seen without the lock of the attempt."""
        if self.told.get("host") != HOST:  # processes of another machine cannot be asked, its locks can
            return cell.is_running_somewhere()
        return is_process(int(self.told.get("pid", 0)), float(self.told.get("born", 0)))


@dataclass(frozen=True)
class Standing:
    """How a cell stands: one of SWEEP_STATES, its last attempt, its result."""

    cell: Frozen
    state: str
    attempt: Attempt | None = None
    result: Path | None = None

    @property
    def cause(self) -> str | None:
        """Why it is not done, where an attempt ended."""
        return self.attempt.cause if self.attempt else None

    @property
    def elsewhere(self) -> bool:
        """Whether it runs, but not as an attempt of this sweep."""
        return self.state == "running" and (self.attempt is None or self.attempt.state != "running")


def is_process(pid: int, born: float) -> bool:
    """Return whether the process that had this pid at this time is alive."""
    try:
        process = psutil.Process(pid)
        same = abs(float(process.create_time()) - born) < 2  # seconds: pids are used again
        return same and bool(process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, ValueError):
        return False


class JobState(NamedTuple):
    """What a cluster says of an attempt: its job, whether it is there, then state and reason, or its end."""

    job: str | None
    alive: bool
    what: str
    why: str


class Jobs(Protocol):
    """A cluster's queue."""

    def look(self, key: str, number: int) -> JobState:
        """Return what the cluster says of an attempt."""
        ...


def _is_within(config: Mapping[str, Any], name: str) -> bool:
    """Return whether a key that was chosen is one of a configuration."""
    node, _, key = name.partition(".")
    return isinstance(config.get(node), dict) and key in config[node]


class Ledger:
    """The files of one sweep.

    Attributes:
        jobs: the queue of the cluster on which attempts may be; None where nobody asks it.
    """

    def __init__(self, folder: Path) -> None:
        """Look at a folder, which need not exist yet."""
        self.folder = folder
        self.jobs: Jobs | None = None
        self._done: dict[str, Standing] = {}
        self._odd: set[Path] = set()  # files of attempts that were passed over

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.folder.name

    @property
    def _again(self) -> str:
        return f"delete {self.folder} and submit the sweep again (results stay)"

    def exists(self) -> bool:
        """Return whether anything was submitted."""
        return (self.folder / "sweep.json").exists()

    def sweep(self, needed: Iterable[str] = OF_SWEEP) -> dict[str, Any]:
        """Return what sweep.json tells; `needed` keys are there.

        Raises:
            ConfigError: nothing was submitted, or the file is damaged.
        """
        file = self.folder / "sweep.json"
        try:
            told = read_object(file)
        except FileNotFoundError:
            known = sorted(path.parent.name for path in self.folder.parent.glob("*/sweep.json"))
            others = f"; there are {', '.join(known)}" if known else ""
            raise ConfigError(
                f"sweep={self.name}: nothing was submitted under {self.folder.parent}{others}; "
                f"write python -m hblm.sweep submit sweep={self.name}"
            ) from None
        except ValueError as error:
            raise ConfigError(f"{file} is damaged ({error}); {self._again}") from None
        odd = odd_keys(told, OF_SWEEP, needed=needed)
        if odd:
            raise ConfigError(f"{file} is damaged: no sound {', no '.join(odd)}; {self._again}")
        return told

    def write_sweep(self, told: Mapping[str, Any]) -> None:
        """Write sweep.json."""
        write_json(self.folder / "sweep.json", {"schema_version": SCHEMA_VERSION, **told})

    def changed(self) -> float:
        """Return when the sweep was last submitted."""
        return (self.folder / "sweep.json").stat().st_mtime

    def freeze(self, cell: Frozen) -> None:
        """Write a cell as it is to be run.

        Raises:
            ConfigError: its result would lie elsewhere than this ledger.
        """
        cell.output_dir.mkdir(parents=True, exist_ok=True)
        self._require_own(cell)
        told = vars(cell) | {"output_dir": str(cell.output_dir), "folder": str(cell.folder)}
        write_json(self.folder / "cells" / f"{cell.key}.json", {"schema_version": SCHEMA_VERSION, **told})

    def cell(self, key: str) -> Frozen:
        """Return a frozen cell.

        Raises:
            ConfigError: its file is damaged or not there, or its result would lie elsewhere.
        """
        file = self.folder / "cells" / f"{key}.json"
        try:
            told = read_object(file)
        except FileNotFoundError:
            raise ConfigError(f"{file} is not there; {self._again}") from None
        except ValueError as error:
            raise ConfigError(f"{file} is damaged ({error}); {self._again}") from None
        told.pop("schema_version", None)
        needed = [each.name for each in fields(Frozen) if each.default is each.default_factory is MISSING]
        odd = [*(told.keys() - OF_CELL.keys()), *odd_keys(told, OF_CELL, needed=needed)]
        if not odd and not (is_config_of(told["kind"], told["config"]) and told["id"].startswith(key)):
            odd = ["config"]
        if not odd and not all(_is_within(told["config"], name) for name in told.get("chosen", ())):
            odd = ["chosen"]
        if not odd and told["kind"] == "train" and not told["names"]:
            odd = ["names"]
        if odd:
            raise ConfigError(f"{file} is damaged: no sound {', no '.join(odd)}; {self._again}")
        for name in ("names", "needs"):
            told[name] = tuple(told[name])
        told["older"] = None if (older := told.get("older")) is None else tuple(older)
        for name in ("output_dir", "folder"):
            told[name] = Path(told[name])
        cell = Frozen(**told)
        self._require_own(cell)
        return cell

    def _require_own(self, cell: Frozen) -> None:
        """Refuse a cell whose result would lie elsewhere than this ledger: in a place that a stranger chose.

        Raises:
            ConfigError: both places.
        """
        own = self.folder.parent.parent
        with contextlib.suppress(OSError):
            if cell.output_dir == own or cell.output_dir.samefile(own):  # by another path of the same folder
                return
        raise ConfigError(
            f"sweep={self.name}: the ledger lies in {own}, and a cell's output_dir is {cell.output_dir}; "
            f"write output_dir={cell.output_dir}, or where the folder was moved: {self._again}"
        )

    def cells(self) -> list[Frozen]:
        """Return the cells, in their order."""
        return [self.cell(key) for key in self.sweep(("cells",))["cells"]]

    def attempts(self, cell: Frozen) -> list[Attempt]:
        """Return the attempts at a cell, the first one first."""
        found = []
        for file in (self.folder / "attempts").glob(f"{cell.key}.*.json"):
            number = file.name.split(".")[1]
            with contextlib.suppress(FileNotFoundError):
                if number.isascii() and number.isdecimal() and len(number) < 10:
                    told = self._attempt_in(file)
                    found += [] if told is None else [Attempt(int(number), told)]
        return sorted(found, key=lambda attempt: attempt.number)

    def _attempt_in(self, file: Path) -> dict[str, Any] | None:
        """Return what an attempt's file tells; None of a damaged one, which is named once."""
        try:
            told = read_object(file)
            odd = odd_keys(told, OF_ATTEMPT, needed=())
            why = f"no sound {', no '.join(odd)}" if odd else ""
        except ValueError as error:
            told, why = {}, str(error)
        if why and file not in self._odd:
            log.warning("passed over %s: damaged (%s)", file, why)
            self._odd.add(file)
        return None if why else told

    def write_attempt(self, cell: Frozen, number: int, **told: Any) -> None:
        """Write an attempt, new values over those that are there."""
        file = self.folder / "attempts" / f"{cell.key}.{number}.json"
        before: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError):
            before = self._attempt_in(file) or {}
        write_json(file, {"id": cell.id, "label": cell.label, **before, **told})

    def drop_attempt(self, cell: Frozen, number: int) -> None:
        """Forget an attempt that came to nothing because another process does the run."""
        for suffix in ("json", "lock"):
            (self.folder / "attempts" / f"{cell.key}.{number}.{suffix}").unlink(missing_ok=True)
        self.log_of(cell, number).unlink(missing_ok=True)

    def living(self, cell: Frozen, number: int) -> FileLock:
        """Return the lock that the process of an attempt holds as long as it lives."""
        return lock_of(self._life_of(cell, number))

    def _life_of(self, cell: Frozen, number: int) -> Path:
        return self.folder / "attempts" / f"{cell.key}.{number}.lock"

    def log_of(self, cell: Frozen, number: int) -> Path:
        """Return where an attempt's output goes."""
        return self.folder / "logs" / f"{cell.key}.{number}.log"

    def output_of(self, standing: Standing) -> Path | None:
        """Return the file with what a cell's last attempt printed; before it could, what its job printed."""
        if standing.attempt is None:
            return None
        log, job = self.log_of(standing.cell, standing.attempt.number), None
        if not log.exists() and self.jobs is not None:
            job = self.jobs.look(standing.cell.key, standing.attempt.number).job
        caught = sorted((self.folder / "slurm" / job).glob("*_log.out")) if job else []
        return caught[0] if caught else log

    def standing(self, cell: Frozen) -> Standing:
        """Return how a cell stands: result files first, attempts second, processes last."""
        known = self._done.get(cell.key)
        if known is not None and known.cell == cell and known.result is not None and known.result.exists():
            return known
        attempts = self.attempts(cell)
        attempt = attempts[-1] if attempts else None
        result = cell.result()
        if result is not None:
            standing = Standing(cell, "done", attempt, result)
            if attempt is None or attempt.state == "ended":  # else it has yet to write that
                self._done[cell.key] = standing
            return standing
        if attempt is not None and attempt.state in ("running", "queued"):
            cause, why = self._end_of(cell, attempt)
            if cause is None:
                told = {**attempt.told, **({"why": why} if why else {})}
                # one that the cluster took from its node, as when that failed, waits and could not say so
                state = "running" if attempt.state == "running" and _PENDING not in why else "waiting"
                return Standing(cell, state, Attempt(attempt.number, told))
            result = cell.result()  # written since it was looked for
            if result is not None:
                return Standing(cell, "done", attempt, result)
            attempt = Attempt(attempt.number, {**attempt.told, "state": "ended", "cause": cause, "why": why})
        elif cell.is_running_somewhere():
            return Standing(cell, "running", attempt)
        if attempt is not None and attempt.state == "ended":
            if attempt.cause in FAILURES:
                return Standing(cell, "failed", attempt)
            if attempt.cause == "cancelled":
                return Standing(cell, "cancelled", attempt)
        return Standing(cell, "waiting", attempt)

    def _end_of(self, cell: Frozen, attempt: Attempt) -> tuple[str | None, str]:
        """Return how an attempt ended that wrote nothing; None, and its place, while it is there."""
        if attempt.told.get("on") == "slurm":
            if self.jobs is None:
                return None, ""
            job = self.jobs.look(cell.key, attempt.number)
            place = f"job {job.job}: {job.what} {job.why}".replace(" None", "").rstrip()
            return (None, place) if job.alive else (job.what, job.why)
        alive = is_held(self._life_of(cell, attempt.number)) or attempt.is_alive(cell)
        return (None, "") if alive else ("lost", STOPPED["lost"])

    def require_current(self) -> None:
        """Refuse a sweep with cells that wait, or could be retried, and stand for other formulas.

        Raises:
            ConfigError: how many they are, who made them, and what to do.
        """
        old = [cell for cell in self.cells() if cell.other_maker]
        pending = [cell for cell in old if self.standing(cell).state not in ("done", "running")]
        if pending:
            cells = f"{len(pending)} pending cell{'s' * (len(pending) > 1)}"
            raise ConfigError(
                f"sweep={self.name}: {cells} made by {pending[0].other_maker}, whose "
                f"formulas {__version__} does not compute; {self._again}"
            )

    def standings(self) -> list[Standing]:
        """Return how all cells stand, in their order."""
        return [self.standing(cell) for cell in self.cells()]

    def want_again(self, cell: Frozen) -> None:
        """Ask for another attempt at a cell."""
        attempts = self.attempts(cell)
        if not attempts or attempts[-1].state != "waiting":
            number = attempts[-1].number + 1 if attempts else 1
            self.write_attempt(cell, number, state="waiting", asked=time.time())

    def remove_leftovers(self) -> None:
        """Clear the ledger of what killed processes left under temporary names."""
        named = (self.folder / name for name in ("cells", "attempts", "slurm"))
        for folder in (self.folder, *named, *(self.folder / "teams").glob("*")):
            remove_stale(folder)

    def editing(self) -> FileLock:
        """Return the lock to hold from reading what was submitted to having written it anew."""
        return lock_of(self.folder / "submit.lock")

    def pool_lock(self) -> FileLock:
        """Return the lock of the process that starts this sweep's cells."""
        return lock_of(self.folder / "pool.lock")

    def pool(self) -> dict[str, Any] | None:
        """Return what the process that starts cells told of itself; None where there is none."""
        return (self.pool_told() or {}) if is_held(self.folder / "pool.lock") else None

    def pool_told(self) -> dict[str, Any] | None:
        """Return what the last process that started cells told of itself."""
        with contextlib.suppress(OSError, ValueError):
            told = read_object(self.folder / "pool.json")
            return told if is_number(told.get("started")) else None
        return None

    def ask_to_stop(self, ids: Sequence[str] | None, cause: str = "cancelled") -> None:
        """Ask the pool to stop some cells; None: all, and itself."""
        asked = None if ids is None else [*ids]
        write_json(self.folder / "cancel.json", {"ids": asked, "cause": cause, "time": time.time()})

    def stop_asked(self) -> dict[str, Any] | None:
        """Return what was asked to stop."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            told = read_object(self.folder / "cancel.json")
            return told if told.get("cause") in STOPPED and is_texts(told.get("ids") or []) else None
        return None

    def clear_stop(self) -> None:
        """Forget what was asked to stop."""
        (self.folder / "cancel.json").unlink(missing_ok=True)


def ledger_of(output_dir: str | Path, name: str) -> Ledger:
    """Return a sweep's ledger."""
    return Ledger(Path(output_dir).resolve() / "sweeps" / name)


def tail(file: Path, lines: int) -> list[str]:
    """Return a text file's last lines; a bar that was drawn over itself counts as it ended."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 200 * lines - 4096))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.rpartition("\r")[2].rstrip() for line in text.splitlines()[-lines:]]


def checkpoints_of(ledger: Ledger, cell: Frozen) -> list[Path]:
    """Return the checkpoint folders of an ensemble's members."""
    members = [ledger.cell(run_id[:16]) for run_id in cell.needs]
    return [paths.find(member.output_dir, member.id, member.names).checkpoint for member in members]


def _find_ensembles(cell: Frozen) -> list[Path]:
    """Return the evaluations of these members with this weight, whoever made them, the newest first."""
    wanted = ensemble_id(cell.needs)
    weight = str(cell.config["ensemble_weight"])
    found = []
    for file in (cell.output_dir / "results").glob(f"eval_ensemble_{escape(cell.config['dataset'])}_*.json"):
        with contextlib.suppress(FileNotFoundError):
            stat = file.stat()
            run_id, settings = _evaluation(file, stat.st_mtime_ns)
            searched = settings.get("ensemble_weight_search") is not None
            same = searched if weight == "auto" else settings.get("ensemble_weight") == float(weight)
            same = same and searched == (weight == "auto") and settings.get("split") == "test"
            same = same and settings.get("threshold") == cell.config["threshold"]
            if same and run_id == wanted:
                found.append((stat.st_mtime_ns, file))
    return [file for _, file in sorted(found, reverse=True)]


def _digest(file: Path) -> str:
    """Return the sha256 of a result; "" where it is gone."""
    try:
        stat = file.stat()
        return _digest_once(file, stat.st_ino, stat.st_mtime_ns)
    except FileNotFoundError:
        return ""


@functools.lru_cache(maxsize=10_000)
def _digest_once(file: Path, inode: int, changed: int) -> str:
    return sha256_file(file)


@functools.lru_cache(maxsize=10_000)
def _evaluation(file: Path, changed: int) -> tuple[str, Mapping[str, Any]]:
    try:
        told = read_object(file)
        settings = told["settings"]
        return str(told["run_id"]), settings if isinstance(settings, dict) else {}
    except (ValueError, KeyError):
        return "", {}
