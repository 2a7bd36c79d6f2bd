"""Leases of devices: one cell at a time, free again when the holder dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile

import pytest
from users import ANN, GROUP, needs_root

from hblm.errors import ConfigError
from hblm.sweep import devices
from hblm.sweep.devices import Device, choose_devices, lease, n_free, n_wanted, require_enough

HOLD = """
import sys, time
from hblm.sweep.devices import Device, lease
held = lease([Device(name, int(sys.argv[1])) for name in sys.argv[2:]], "test")
print(held.name if held else "none", flush=True)
time.sleep(60)
"""


def holder(cells: int, *names: str) -> tuple[subprocess.Popen[str], str]:
    """Start a process that holds a lease; return it and the device it got."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(cells), *names], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


def test_two_processes_get_two_devices_and_the_third_none():
    one, first = holder(1, "0", "1")
    two, second = holder(1, "0", "1")
    three, third = holder(1, "0", "1")
    end(one, two, three)
    assert [first, second, third] == ["0", "1", "none"]


def test_a_lease_ends_with_its_holder():
    process, got = holder(1, "0")
    assert got == "0"
    assert lease([Device("0", 1)], "x") is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert lease([Device("0", 1)], "x") is not None


def test_shells_with_other_temporary_folders_share_leases(tmp_path, monkeypatch):
    """TMPDIR and XDG_RUNTIME_DIR differ between a login shell and a job."""
    monkeypatch.setattr(devices, "MACHINE_FOLDER", str(tmp_path))
    monkeypatch.delenv("HBLM_DEVICES")
    folders = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for variable in ("TMPDIR", "XDG_RUNTIME_DIR", "HOME"):
            monkeypatch.setenv(variable, str(tmp_path / name))
        monkeypatch.setattr(tempfile, "tempdir", None)
        folders.add(devices.lease_folder())
    assert folders == {tmp_path / f"hblm-{os.getuid()}" / "devices"}
    assert {path.stat().st_mode & 0o777 for path in (*folders, tmp_path / f"hblm-{os.getuid()}")} == {0o700}


@pytest.mark.parametrize("which", ["hblm", "devices"])
@pytest.mark.parametrize(
    "odd", ["writable", "sticky", "file", "link", pytest.param("owner", marks=needs_root)]
)
def test_a_folder_that_others_could_write_is_refused(tmp_path, monkeypatch, which, odd):
    monkeypatch.setattr(devices, "MACHINE_FOLDER", str(tmp_path))
    monkeypatch.delenv("HBLM_DEVICES")
    place = tmp_path / f"hblm-{os.getuid()}"
    if which == "devices":
        place.mkdir(mode=0o700)
        place = place / "devices"
    if odd == "file":
        place.touch()
    elif odd == "link":
        (tmp_path / "other").mkdir()
        place.symlink_to(tmp_path / "other")
    else:
        place.mkdir()
        place.chmod({"writable": 0o777, "sticky": 0o1777, "owner": 0o700}[odd])
        if odd == "owner":
            os.chown(place, ANN, GROUP)
    with pytest.raises(ConfigError, match=f"{place} keeps the leases .* HBLM_DEVICES"):
        lease([Device("0", 1)], "x")


def test_a_cell_of_several_processes_takes_as_many_devices_or_none():
    one = lease([Device(name, 1) for name in "012"], "one", 2)
    assert one is not None
    assert (one.name, one.environment["CUDA_VISIBLE_DEVICES"]) == ("0,1", "0,1")
    assert lease([Device(name, 1) for name in "012"], "two", 2) is None
    assert n_free([Device(name, 1) for name in "012"]) == 1  # what was too little was given back
    assert n_wanted([Device("cpu", 2)], 4) == 1  # they share the cores
    require_enough([Device("0", 1), Device("1", 1)], 2)
    with pytest.raises(ConfigError, match=r"trainer.processes=3 need a GPU each, and devices=\[0,1\] are 2"):
        require_enough([Device("0", 1), Device("1", 1)], 3)


def test_several_cells_share_a_device_by_choice():
    held = [lease([Device("0", 2)], str(number)) for number in range(3)]
    assert [each is not None for each in held] == [True, True, False]


def test_a_device_takes_the_smallest_number_of_those_who_share_it():
    process, _ = holder(1, "0")  # by a sweep with one cell a device
    assert n_free([Device("0", 3)]) == 0
    assert lease([Device("0", 3)], "another sweep") is None
    end(process)
    assert n_free([Device("0", 3)]) == 3


def test_devices_are_chosen(monkeypatch):
    monkeypatch.setattr(devices, "visible_gpus", list)
    monkeypatch.setattr(devices, "n_cores", lambda: 16)
    assert choose_devices(["auto"], None) == [Device("cpu", 4)]
    assert choose_devices(["cpu"], 2) == [Device("cpu", 2)]
    assert choose_devices(["0", "1"], None) == [Device("0", 1), Device("1", 1)]
    monkeypatch.setattr(devices, "visible_gpus", lambda: ["3", "5"])
    assert choose_devices(["auto"], None) == [Device("3", 1), Device("5", 1)]
    with pytest.raises(ConfigError, match="is not auto, cpu, or a list"):
        choose_devices(["cpu", "0"], None)


def test_hidden_gpus_are_not_used(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert choose_devices(["auto"], None) == [Device("2", 1), Device("3", 1)]
    with pytest.raises(ConfigError, match="hides 0"):
        choose_devices(["0", "2"], None)


def test_the_environment_of_a_device(monkeypatch):
    monkeypatch.setattr(devices, "n_cores", lambda: 8)
    assert Device("1", 1).environment == {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert Device("cpu", 2).environment["OMP_NUM_THREADS"] == "4"


def test_the_parent_loads_no_torch():
    launchers = "hblm.sweep.launchers"
    modules = f"{launchers}.local, {launchers}.local_job, {launchers}.slurm"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
