"""Ids and file names of runs; locks; moving older files of a run aside."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from hblm.config.identity import identity_values, names_of, plain_name
from hblm.config.train import TrainConfig
from hblm.errors import ConfigError, DataError, SharingError
from hblm.files import (
    LONGEST_NAME,
    flush,
    remove_stale,
    scratch_folder,
    sha256_text,
    temporary_beside,
    unfit_as_name,
)
from hblm.json_files import SEAL, canonical_json, is_as_sealed, read_object
from hblm.locks import is_held, lock_of

SCHEMA_VERSION = 2  # part of every run id; 2 since formulas 2, so that results of formulas 1 are not done
RESULT_SUFFIXES = (".nodes.csv", ".csv", ".json")  # the last one is written last
PREDICTIONS = ".predictions"  # the folder beside an evaluation's result


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        id: a hash of everything that can change its numbers.
        name: of its files.
        output_dir: the folder of results and checkpoints.
        names: all names that its files may have; other runs may have taken some of them.
    """

    id: str
    name: str
    output_dir: Path
    names: tuple[str, ...] = ()

    @property
    def result(self) -> Path:
        """The result file."""
        return self.output_dir / "results" / f"{self.name}.json"

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's folder."""
        return self.output_dir / "checkpoints" / self.name

    def lock(self) -> FileLock:
        """Return the lock of this run id, which one process at a time can hold."""
        return locked(self.output_dir, self.id[:16])

    @property
    def is_done(self) -> bool:
        """Whether the result exists, is of this run, and is unchanged since it was written."""
        return _run_id_in(self.result, whole=True) == self.id

    def replace_by(self, results: Path, checkpoint: Path | None) -> None:
        """Move a new result and checkpoint to the run's names, and older ones to superseded/.

        The older result, checkpoint and evaluations go to superseded/NAME_TIME/, which has the layout of an
        output folder: they can still be evaluated and aggregated there.

        Args:
            results: a folder with the new result's files, complete.
            checkpoint: the new checkpoint's folder, complete; None for no checkpoint.
        """
        self._supersede()
        if checkpoint is not None:
            checkpoint.replace(self.checkpoint)
            flush(self.checkpoint.parent)
        for suffix in RESULT_SUFFIXES:
            file = results / (self.name + suffix)
            if file.exists():
                file.replace(self.result.with_name(file.name))
        flush(self.result.parent)

    def require_writable(self) -> None:
        """Check, before hours are spent, that the run's files can be written and older ones moved.

        Raises:
            SharingError: this user may not write a file or folder of another user.
        """
        folders = [self.result.parent, self.checkpoint.parent]
        predictions = [file.with_suffix(PREDICTIONS) for file in _evaluations_of(self.result.parent, self.id)]
        old = [path for path in (self.result, self.checkpoint, *predictions) if path.exists()]
        if old:
            folders.append(self.output_dir / "superseded")
        require_writable(self.output_dir, *folders)
        for path in old:
            if path.is_dir() and not os.access(path, os.W_OK):  # needed to move it to another folder
                raise SharingError(path)

    def _supersede(self) -> None:
        old = [path for path in (self.result, self.checkpoint) if path.exists()]
        if not old:
            return
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(old[0].stat().st_mtime))
        home = untaken(self.output_dir / "superseded" / f"{self.name}_{stamp}")
        (home / "results").mkdir(parents=True)
        (home / "checkpoints").mkdir()
        for file in _evaluations_of(self.result.parent, self.id):
            for suffix in (PREDICTIONS, *RESULT_SUFFIXES):  # the .json last: the others are found by its name
                _move(file.with_suffix(suffix), home / "results")
        for suffix in reversed(RESULT_SUFFIXES):  # the .json first: without it the run does not count as done
            _move(self.result.with_name(self.name + suffix), home / "results")
        _move(self.checkpoint, home / "checkpoints")


def _move(path: Path, folder: Path) -> None:
    """Move a file or folder, if it exists, to a folder that may be on another disk."""
    if path.exists():
        shutil.move(path, folder / path.name)


def _evaluations_of(results: Path, run_id: str) -> list[Path]:
    """Return the results in a folder of the run's evaluations, with ensembles."""
    evaluations = []
    for file in sorted(results.glob("eval_*.json")):
        try:
            content = read_object(file)
            members = [member["run_id"] for member in (content.get("members") or {}).values()]
            if run_id in (content["run_id"], *members):
                evaluations.append(file)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # not a result
    return evaluations


class Busy(Exception):
    """Another process does this run now."""


def locked(output_dir: Path, name: str) -> FileLock:
    """Return a lock for processes that write in `output_dir`; it is released when its holder ends.

    Raises:
        SharingError: this user may not write its file.
    """
    return lock_of(_lock_file(output_dir, name))


def is_locked(output_dir: Path, name: str) -> bool:
    """Return whether a process holds this lock now; no file is made."""
    return is_held(_lock_file(output_dir, name))


def remove_leftovers(output_dir: Path, cache_dir: Path) -> None:
    """Remove temporary files of killed processes from the folders of results, checkpoints and caches."""
    caches = [folder for folder in cache_dir.glob("[!.]*") if folder.is_dir()]
    for folder in (output_dir / "results", output_dir / "checkpoints", cache_dir, *caches):
        remove_stale(folder)


def require_writable(output_dir: Path, *folders: Path) -> None:
    """Make folders in `output_dir`, and check that files and the lock of names can be written there.

    Raises:
        SharingError: this user may not write one of them, or the lock's file.
    """
    naming(output_dir)
    for folder in folders:
        try:
            with scratch_folder(folder / "write"):
                pass
        except PermissionError:
            raise SharingError(folder if folder.exists() else output_dir) from None


def _lock_file(output_dir: Path, name: str) -> Path:
    return output_dir / ".locks" / f"{name}.lock"


def naming(output_dir: Path) -> FileLock:
    """Return the lock of names: to hold from choosing a free name until its files are written."""
    return locked(output_dir, "names")


def identify(config: TrainConfig, *, data: str, encoder: Mapping[str, Any], tag: str) -> Run:
    """Return the run of a configuration.

    Args:
        config: the run's configuration.
        data: hash of the prepared dataset.
        encoder: identity of the encoder: hashes of weights, config and tokenizer, or hub id and revision;
            with init_from, the hashes of that checkpoint's files.
        tag: last part of the encoder's name, for file names.

    Raises:
        ConfigError: the file name is too long, or the dataset's name cannot be part of one.
    """
    values, run_id = identity_values(config), id_of(config, data=data, encoder=encoder)
    output_dir = Path(config.output_dir)
    names = names_of(config, values, run_id, tag)
    _require_fitting(max(names, key=lambda name: len(name.encode(errors="replace"))))
    return Run(run_id, _name_among(output_dir, names, run_id), output_dir, tuple(names))


def id_of(config: TrainConfig, *, data: str, encoder: Mapping[str, Any]) -> str:
    """Return the id of a run; the arguments are those of `identify`."""
    assert not config.left_open, config.left_open  # the id depends on the chosen values
    return sha256_text(
        canonical_json(
            {
                "schema": SCHEMA_VERSION,
                "data": data,
                "encoder": dict(encoder),
                "config": identity_values(config),
            }
        )
    )


def _require_fitting(name: str, way_out: str = "write another dataset.name") -> None:
    """Refuse a name that files cannot have; `way_out` is the end of the message.

    Raises:
        ConfigError: why.
    """
    if why := unfit_as_name(name):
        raise ConfigError(f"the file name {name!r} {why}; {way_out}")
    if len(temporary_beside(Path(f"{name}.nodes.csv")).name.encode()) > LONGEST_NAME:
        raise ConfigError(f"the file name {name} is too long; {way_out}")


def find(output_dir: Path, run_id: str, names: Sequence[str]) -> Run:
    """Return a run with the one of its possible names that its files have now."""
    return Run(run_id, _name_among(output_dir, names, run_id), output_dir, tuple(names))


def _name_among(output_dir: Path, names: Sequence[str], run_id: str) -> str:
    """Return the name that the run's files have, also under a twin's; else the first free one.

    Raises:
        DataError: files of other runs, or damaged ones, have all names.
    """
    owners = {name: _owner(output_dir, name) for name in names}
    for owner in (run_id, None):
        for name in names:
            if owners[name] == owner:
                return name
    raise DataError(f"{output_dir}: damaged or foreign files have all names of this run: {', '.join(names)}")


def evaluation_path(output_dir: Path, config: TrainConfig, tag: str, other: str | None = None) -> Path:
    """Return a free path for the result of an evaluation of a single or joint model.

    Args:
        output_dir: the folder of results and checkpoints.
        config: of the model's run.
        tag: last part of its encoder's name.
        other: the name of the other data that was scored; None for the run's own.

    Raises:
        ConfigError: its name would not be a file name.
    """
    if config.joint_variant.is_joint:
        kind, name = "joint", f"{config.joint_variant.joint_variant}_{tag}"
    else:
        stem = re.sub(r"_seed\d+$", "", plain_name(config, tag))
        kind, name = "single", stem.removeprefix(f"{config.dataset_name}_single_")
    return _stamped(output_dir, f"eval_{kind}_{config.dataset_name}_{name}", other)


def ensemble_path(output_dir: Path, dataset: str, other: str | None = None) -> Path:
    """Return a free path for an ensemble's result; `other` as for `evaluation_path`.

    Raises:
        ConfigError: its name would not be a file name.
    """
    return _stamped(output_dir, f"eval_ensemble_{dataset}", other)


def _stamped(output_dir: Path, stem: str, other: str | None) -> Path:
    time_now = time.strftime("%Y%m%dT%H%M%S")
    if other is None:
        name = f"{stem}_{time_now}"
        _require_fitting(name)
    else:
        name = f"{stem}_other_{other}_{time_now}"
        _require_fitting(name, "give the folder of dataset.path= another name")
    return untaken(output_dir / "results" / f"{name}.json")


def untaken(path: Path) -> Path:
    """Return the path, with a counter if it exists."""
    counter, free = 1, path
    suffix = ".json" if path.suffix == ".json" else ""  # a folder's name may have a dot: all-MiniLM-L6-v2.1
    while free.exists():
        counter += 1
        free = path.with_name(f"{path.name.removesuffix(suffix)}_{counter}{suffix}")
    return free


def _owner(output_dir: Path, name: str) -> str | None:
    """Return the run id of the files with a name; None for no files, "" for damaged ones."""
    files = (output_dir / "results" / f"{name}.json", output_dir / "checkpoints" / name / "hblm.json")
    owners = [owner for owner in map(_run_id_in, files) if owner is not None]
    return owners[0] if owners else None


def _run_id_in(file: Path, *, whole: bool = False) -> str | None:
    """Return the run id in a file; None for no file, "" for a damaged one.

    With `whole`, a file that was changed since it was written counts as damaged.
    """
    try:
        content = read_object(file)
    except FileNotFoundError:
        return None
    except ValueError:
        return ""
    if whole and SEAL in content and not is_as_sealed(content):
        return ""
    return str(content.get("run_id", ""))
