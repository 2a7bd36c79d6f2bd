"""A cell in a process of its own: `python -m hblm.sweep.launchers.local_job FOLDER KEY ATTEMPT DEVICES`.

The device is leased, and the environment set, before anything loads torch; the lease and the run's lock end
with the process, however it ends.
"""

from __future__ import annotations

import json
import os
import sys

from hblm.runs import paths
from hblm.sweep.devices import Device, lease, n_wanted
from hblm.sweep.job import BUSY, make_attempt, open_cell


def main(folder: str, key: str, attempt: str, devices: str) -> int:
    """Run one cell on one of the devices, JSON [[name, cells], ...]; return the exit code."""
    state, cell = open_cell(folder, key)
    number, allowed = int(attempt), [Device(*each) for each in json.loads(devices)]
    held = lease(
        allowed, f"{state.name} {cell.label}", n_wanted(allowed, cell.processes)
    )  # until this returns
    if held is None:
        return BUSY
    os.environ.update(held.environment)
    try:
        with state.attempt_lock(cell, number):
            return make_attempt(state, cell, number, {"device": held.name})
    except paths.Busy:
        state.drop_attempt(cell, number)
        return BUSY


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
