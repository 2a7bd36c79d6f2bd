"""Fixtures of the tests of functions for Python: sweeps with leases of their own and without real work."""

from __future__ import annotations

import pytest
from quick_cells import write_quick_cells


@pytest.fixture
def _quick_cells(tmp_path, monkeypatch):
    """Replace the work of cells, and give them leases of their own."""
    write_quick_cells(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("HBLM_DEVICES", str(tmp_path / "devices"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
