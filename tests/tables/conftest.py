"""Fixtures that write result files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_results
import pytest

Write = Callable[..., Path]


@pytest.fixture
def add(tmp_path: Path):
    """Return a function that writes one run."""

    def write(name: str, method: str = "top_down", seed: int = 1, dataset: str = "wos", **more: Any) -> dict:
        made = made_results.result(method, seed, dataset, **more)
        made_results.write(tmp_path, name, made)
        return made

    return write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a file below outputs/."""

    def written(name: str, content: Any, *, age: int = 0) -> Path:
        path = tmp_path / "outputs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
        return path

    return written
