"""Devices of this machine, and leases by which all sweeps of a user share them. No torch.

A lease is a lock in a folder of the user on a disk of the machine, /var/tmp/hblm-UID/devices. The folder does
not depend on TMPDIR and XDG_RUNTIME_DIR, which differ between shells and jobs. HBLM_DEVICES names another
folder, for example one that containers of a machine share. Leases of other users are not visible: users who
share a machine divide its GPUs by devices= or CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_IMODE, S_ISDIR, S_IWGRP, S_IWOTH
from typing import Any

from filelock import FileLock, Timeout

from hblm.errors import ConfigError
from hblm.files import remove_stale
from hblm.json_files import write_json
from hblm.locks import lock_of
from hblm.process import n_cores

CPU = "cpu"
MACHINE_FOLDER = "/var/tmp"  # of the machine, and kept when it starts again
_CORES_A_CELL = 4  # without a GPU and without per_device=


@dataclass(frozen=True)
class Device:
    """A GPU by the name that CUDA_VISIBLE_DEVICES takes, or `cpu`; and how many cells may share it."""

    name: str
    cells: int

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables to set before a cell's process loads torch."""
        if self.name != CPU:
            # the bus's order is nvidia-smi's, so that a number means the same card in both
            return {"CUDA_VISIBLE_DEVICES": self.name, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        threads = str(max(1, n_cores() // self.cells))
        return {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


def choose_devices(given: Sequence[str], per_device: int | None) -> list[Device]:
    """Return the devices to use for `devices=`: `auto`, `cpu`, or GPUs by number or name.

    Raises:
        ConfigError: a GPU that CUDA_VISIBLE_DEVICES hides, or cpu beside others.
    """
    visible = visible_gpus()
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = list(dict.fromkeys(given))
    if names == ["auto"]:
        names = visible or [CPU]
    if (CPU in names and len(names) > 1) or "auto" in names:
        raise ConfigError(f"devices=[{','.join(given)}] is not auto, cpu, or a list of GPUs such as [0,1]")
    if names != [CPU] and hidden is not None:
        missing = [name for name in names if name not in hidden.split(",")]
        if missing:
            raise ConfigError(
                f"devices=[{','.join(given)}]: CUDA_VISIBLE_DEVICES={hidden} hides {', '.join(missing)}"
            )
    cells = per_device or (max(1, n_cores() // _CORES_A_CELL) if names == [CPU] else 1)
    return [Device(name, cells) for name in names]


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, from the environment or nvidia-smi, without torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listed.splitlines() if line.strip().isdigit()]


class Lease:
    """The devices of one cell; the lease ends with the process that holds it, however that ends."""

    def __init__(self, devices: Sequence[Device], slots: Sequence[FileLock]) -> None:
        """Hold slots that were just taken, one of each device."""
        self.devices, self.slots = devices, slots

    @property
    def name(self) -> str:
        """The devices' names, as CUDA_VISIBLE_DEVICES takes them."""
        return ",".join(device.name for device in self.devices)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables to set before the cell's process loads torch."""
        first = self.devices[0].environment
        return first if self.name == CPU else {**first, "CUDA_VISIBLE_DEVICES": self.name}


def n_wanted(devices: Sequence[Device], processes: int) -> int:
    """Return how many devices a cell takes: a GPU for each of its processes; they share a CPU's cores."""
    return 1 if devices[0].name == CPU else processes


def require_enough(devices: Sequence[Device], processes: int) -> None:
    """Refuse a cell with more processes than there are GPUs.

    Raises:
        ConfigError: it would wait for ever.
    """
    if n_wanted(devices, processes) > len(devices):
        names = ",".join(device.name for device in devices)
        raise ConfigError(
            f"trainer.processes={processes} need a GPU each, and devices=[{names}] are {len(devices)}"
        )


def lease(devices: Sequence[Device], holder: str, count: int = 1) -> Lease | None:
    """Take a slot of each of the first `count` devices that have one free; None where they are too few.

    A device that is shared by sweeps with different `per_device` takes the smallest of these.

    Args:
        devices: those allowed.
        holder: sweep and cell, for other processes that look at the lease.
        count: how many are wanted.
    """
    taken: list[tuple[Device, FileLock]] = []
    for device in devices:
        slot = _take(device, holder) if len(taken) < count else None
        if slot is not None:
            taken.append((device, slot))
    if len(taken) == count:
        return Lease(*zip(*taken, strict=True))
    for _, slot in taken:
        slot.release()
    return None


def _take(device: Device, holder: str) -> FileLock | None:
    with _guard(device):
        held = holders(device)
        if len(held) >= min([device.cells, *(int(each["cells"]) for each in held)]):
            return None
        for number in range(device.cells):
            slot = lock_of(_slot(device, number))
            with contextlib.suppress(Timeout):
                slot.acquire(timeout=0)
                record = {"pid": os.getpid(), "holder": holder, "cells": device.cells}
                write_json(_slot(device, number).with_suffix(".json"), record)
                return slot
    return None


def n_free(devices: Sequence[Device]) -> int:
    """Return how many more cells the devices would take now."""
    free = 0
    for device in devices:
        with _guard(device):
            held = holders(device)
            free += max(0, min([device.cells, *(int(each["cells"]) for each in held)]) - len(held))
    return free


def holders(device: Device) -> list[dict[str, Any]]:
    """Return the record of each process that holds a slot of this device; call it under the guard."""
    records: list[dict[str, Any]] = []
    for file in sorted(lease_folder().glob(f"{_safe(device.name)}.*.lock")):
        lock = lock_of(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            record = {"pid": 0, "holder": "", "cells": device.cells}
            with contextlib.suppress(OSError, ValueError):
                record = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
            records.append(record)
        else:
            lock.release()
    return records


def _guard(device: Device) -> FileLock:
    return lock_of(lease_folder() / f"{_safe(device.name)}.guard")


def _slot(device: Device, number: int) -> Path:
    return lease_folder() / f"{_safe(device.name)}.{number}.lock"


def _safe(name: str) -> str:
    return name.replace("/", "_").replace(".", "_")


def lease_folder() -> Path:
    """Return the folder of the locks: one for each user of a machine, whatever sweeps they run.

    Raises:
        ConfigError: others could write it, so that they could take this user's devices, or free them.
    """
    given = os.environ.get("HBLM_DEVICES")
    if not hasattr(os, "getuid"):  # Windows, where the temporary folder is the user's own
        folder = Path(given or Path(tempfile.gettempdir()) / "hblm" / "devices")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    # not the home folder, which machines share, and which a user may not have
    folder = Path(given) if given else Path(MACHINE_FOLDER) / f"hblm-{os.getuid()}" / "devices"
    for place in (folder,) if given else (folder.parent, folder):
        with contextlib.suppress(FileExistsError):
            place.mkdir(parents=given is not None, mode=0o700)
        stat = place.lstat()
        if not S_ISDIR(stat.st_mode) or stat.st_uid != os.getuid() or stat.st_mode & (S_IWGRP | S_IWOTH):
            raise ConfigError(
                f"{place} keeps the leases of this user's devices, and must be a folder that this user made "
                f"and others may not write (it has owner {stat.st_uid} and mode {S_IMODE(stat.st_mode):o}); "
                "remove it, or give another one as HBLM_DEVICES"
            )
    remove_stale(folder)
    return folder
