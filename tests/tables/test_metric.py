"""Metrics as they are written."""

from __future__ import annotations

from typing import Any

import pytest

from hblm.tables.metric import metric_of


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("test.fused.macro_f1", ("test", "fused", False, "macro_f1")),
        ("val.micro_f1", ("val", "fused", False, "micro_f1")),
        ("test.mix.repath.level_0.macro_f1", ("test", "mix", True, "level_0.macro_f1")),
        ("test.overall.macro_f1", ("test", "fused", False, "macro_f1")),
        ("seconds.train", (None, "", False, "seconds.train")),
    ],
)
def test_metrics_are_understood(text: str, parts: tuple[Any, ...]) -> None:
    assert metric_of(text)[1:] == parts
