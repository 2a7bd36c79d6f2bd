"""Fixtures of the tests of sweeps: leases of their own, and cells without their real work."""

from __future__ import annotations

import pytest
from quick_cells import write_quick_cells


@pytest.fixture(autouse=True)
def _leases_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HBLM_DEVICES", str(tmp_path / "devices"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def _quick_cells(tmp_path, monkeypatch):
    """Replace the work of cells."""
    write_quick_cells(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
