"""What the tests of sweeps share: leases of their own, so that none waits for another's."""

from __future__ import annotations

import pytest

# what a cell of these seeds does instead of its run; loaded by Python itself in every process
MISBEHAVE = """
import os, signal, sys, time
if {"hblm.sweep.launchers.local_job", "submitit.core._submit"} & set(sys.orig_argv):
    from hblm.engine import training as train
    right = train.run
    def run(config, **how):
        seed = config.seed
        if seed == 18:
            time.sleep(600)
        if seed == 19:
            held = b"x" * 2_000_000_000
            time.sleep(600)
        if 13 <= seed <= 17 and not os.path.exists(f"misbehaved.{seed}"):
            open(f"misbehaved.{seed}", "w").close()
            if seed == 13:
                raise RuntimeError("no luck")
            if seed == 14:
                os.kill(os.getpid(), signal.SIGKILL)
            if seed == 15:
                time.sleep(600)
            if seed == 16:
                sys.exit(3)
            if seed == 17:
                raise MemoryError("a lot")
        right(config, **how)
    train.run = run
"""


@pytest.fixture(autouse=True)
def _leases_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HBLM_DEVICES", str(tmp_path / "devices"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def misbehaving(tmp_path, monkeypatch):
    """Make cells of seeds 13 to 19 misbehave."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(MISBEHAVE)
    monkeypatch.setenv("PYTHONPATH", str(folder))
