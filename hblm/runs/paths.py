"""What a run is called: its id, from all that can change its numbers, and the files that bear its name."""

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

SCHEMA_VERSION = 2  # 2: formulas 2, so that no result of formulas 1 counts as done


RESULT_SUFFIXES = (".nodes.csv", ".csv", ".json")  # the last one makes a result complete


PREDICTIONS = ".predictions"  # the folder beside an evaluation's result


@dataclass(frozen=True)
class Run:
    """One run: its id, the name of its files, and the folder under which they lie."""

    id: str
    name: str
    output_dir: Path
    names: tuple[str, ...] = ()  # all that it may bear, as far as others leave them free

    @property
    def result(self) -> Path:
        """The result file; its existence means that the run is done."""
        return self.output_dir / "results" / f"{self.name}.json"

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's folder."""
        return self.output_dir / "checkpoints" / self.name

    def lock(self) -> FileLock:
        """Return the lock of this run id: of two processes that want the same run, one waits."""
        return locked(self.output_dir, self.id[:16])

    @property
    def is_done(self) -> bool:
        """Whether the result is there, is this run's, and is as it was written."""
        return _run_id_in(self.result, whole=True) == self.id

    def replace_by(self, results: Path, checkpoint: Path | None) -> None:
        """Give what was written apart the run's names; what bears them now moves to superseded/.

        The older result, checkpoint and evaluations go to superseded/NAME_TIME/, which is laid out as an
        output folder: they can still be evaluated and aggregated there.

        Args:
            results: a folder that holds the new result's files, whole.
            checkpoint: the new checkpoint's folder, whole; None where none is kept.
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
        """Do at once what writing the run will take, before hours are spent on it.

        Raises:
            SharingError: another user made a file or folder that this one may not write.
        """
        folders = [self.result.parent, self.checkpoint.parent]
        predictions = [file.with_suffix(PREDICTIONS) for file in _evaluations_of(self.result.parent, self.id)]
        old = [path for path in (self.result, self.checkpoint, *predictions) if path.exists()]
        if old:
            folders.append(self.output_dir / "superseded")
        require_writable(self.output_dir, *folders)
        for path in old:
            if path.is_dir() and not os.access(path, os.W_OK):  # or it cannot move to another folder
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
            for suffix in (PREDICTIONS, *RESULT_SUFFIXES):  # the .json last: the others are found through it
                _move(file.with_suffix(suffix), home / "results")
        for suffix in reversed(RESULT_SUFFIXES):  # the .json first: without it nothing counts as a result
            _move(self.result.with_name(self.name + suffix), home / "results")
        _move(self.checkpoint, home / "checkpoints")


def _move(path: Path, folder: Path) -> None:
    """Move a file or folder that may be there, perhaps to another disk."""
    if path.exists():
        shutil.move(path, folder / path.name)


def _evaluations_of(results: Path, run_id: str) -> list[Path]:
    """Return the results of the run's evaluations, ensembles included, that lie in a folder."""
    found = []
    for file in sorted(results.glob("eval_*.json")):
        try:
            told = read_object(file)
            members = [member["run_id"] for member in (told.get("members") or {}).values()]
            if run_id in (told["run_id"], *members):
                found.append(file)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # not a result
    return found


class Busy(Exception):
    """Another process does this run now."""


def locked(output_dir: Path, name: str) -> FileLock:
    """Return a lock shared by all processes that write below `output_dir`; it goes when its holder dies.

    Raises:
        SharingError: this user may not write its file.
    """
    return lock_of(_lock_file(output_dir, name))


def is_locked(output_dir: Path, name: str) -> bool:
    """Return whether a process holds this lock now; a lock that was never taken is not made."""
    return is_held(_lock_file(output_dir, name))


def remove_leftovers(output_dir: Path, cache_dir: Path) -> None:
    """Clear the folders that runs write of what killed processes left under temporary names."""
    caches = [folder for folder in cache_dir.glob("[!.]*") if folder.is_dir()]
    for folder in (output_dir / "results", output_dir / "checkpoints", cache_dir, *caches):
        remove_stale(folder)


def require_writable(output_dir: Path, *folders: Path) -> None:
    """Make folders below `output_dir`, and check that files can be written there under its names' lock.

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
    """Return the lock to hold from choosing a name to having written the files that bear it."""
    return locked(output_dir, "names")


def identify(config: TrainConfig, *, data: str, encoder: Mapping[str, Any], tag: str) -> Run:
    """Return the run of a configuration.

    Args:
        config: the typed configuration.
        data: fingerprint of the prepared dataset.
        encoder: what identifies the encoder: hashes of weights, config and tokenizer, or hub id and revision;
            with init_from, the hashes of that checkpoint's files, which hold all weights.
        tag: last part of the encoder's name, for file names.

    Raises:
        ConfigError: the name is longer than a file system takes, or the dataset's cannot be part of one.
    """
    values, run_id = identity_values(config), id_of(config, data=data, encoder=encoder)
    output_dir = Path(config.output_dir)
    names = names_of(config, values, run_id, tag)
    _require_fitting(max(names, key=lambda name: len(name.encode(errors="replace"))))
    return Run(run_id, _name_among(output_dir, names, run_id), output_dir, tuple(names))


def id_of(config: TrainConfig, *, data: str, encoder: Mapping[str, Any]) -> str:
    """Return the id of a run; the arguments are those of `identify`."""
    assert not config.left_open, config.left_open  # a run is known by the values that were chosen
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


def _require_fitting(name: str) -> None:
    if why := unfit_as_name(name):
        raise ConfigError(f"the file name {name!r} {why}; write another dataset.name")
    if len(temporary_beside(Path(f"{name}.nodes.csv")).name.encode()) > LONGEST_NAME:
        raise ConfigError(f"the file name {name} is too long; write a shorter dataset.name")


def find(output_dir: Path, run_id: str, names: Sequence[str]) -> Run:
    """Return a run under the one of its possible names that its files now bear."""
    return Run(run_id, _name_among(output_dir, names, run_id), output_dir, tuple(names))


def _name_among(output_dir: Path, names: Sequence[str], run_id: str) -> str:
    """Return the name that the run's files bear, a twin's too; else the first that is free.

    Raises:
        DataError: other files bear all of them.
    """
    owners = {name: _owner(output_dir, name) for name in names}
    for owner in (run_id, None):
        for name in names:
            if owners[name] == owner:
                return name
    raise DataError(f"{output_dir}: damaged or foreign files bear all names of this run: {', '.join(names)}")


def evaluation_path(output_dir: Path, config: TrainConfig, tag: str) -> Path:
    """Return an untaken path for the result of an evaluation of a single or joint model.

    Raises:
        ConfigError: the name that it would have is none.
    """
    if config.joint_variant.is_joint:
        kind, name = "joint", f"{config.joint_variant.joint_variant}_{tag}"
    else:
        stem = re.sub(r"_seed\d+$", "", plain_name(config, tag))
        kind, name = "single", stem.removeprefix(f"{config.dataset_name}_single_")
    return _stamped(output_dir, f"eval_{kind}_{config.dataset_name}_{name}")


def ensemble_path(output_dir: Path, dataset: str) -> Path:
    """Return an untaken path for an ensemble's result.

    Raises:
        ConfigError: the name that it would have is none.
    """
    return _stamped(output_dir, f"eval_ensemble_{dataset}")


def _stamped(output_dir: Path, stem: str) -> Path:
    name = f"{stem}_{time.strftime('%Y%m%dT%H%M%S')}"
    _require_fitting(name)
    return untaken(output_dir / "results" / f"{name}.json")


def untaken(path: Path) -> Path:
    """Return the path, with a counter where the name is taken."""
    counter, free = 1, path
    suffix = ".json" if path.suffix == ".json" else ""  # a folder's name may hold a dot: all-MiniLM-L6-v2.1
    while free.exists():
        counter += 1
        free = path.with_name(f"{path.name.removesuffix(suffix)}_{counter}{suffix}")
    return free


def _owner(output_dir: Path, name: str) -> str | None:
    """Return the run id whose files bear the name, None where there are none, "" where they are damaged."""
    files = (output_dir / "results" / f"{name}.json", output_dir / "checkpoints" / name / "hblm.json")
    owners = [owner for owner in map(_run_id_in, files) if owner is not None]
    return owners[0] if owners else None


def _run_id_in(file: Path, *, whole: bool = False) -> str | None:
    """Return the run id that a file says, None where there is none, "" where it is damaged.

    `whole` looks at the rest of a result as well.
    """
    try:
        found = read_object(file)
    except FileNotFoundError:
        return None
    except ValueError:
        return ""
    if whole and SEAL in found and not is_as_sealed(found):
        return ""
    return str(found.get("run_id", ""))
