"""Metrics as they are written."""

from __future__ import annotations

from typing import Any

import pytest

from hblm.tables.metric import metric_of


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("test.fused.macro_f1", ("test", "fused", "none", "macro_f1")),
        ("val.micro_f1", ("val", "fused", "none", "micro_f1")),
        ("test.mix.repath.level_0.macro_f1", ("test", "mix", "raise", "level_0.macro_f1")),
        ("test.cap.micro_f1", ("test", "fused", "cap", "micro_f1")),
        ("test.td.cap.overall.macro_f1", ("test", "td", "cap", "macro_f1")),
        ("test.overall.macro_f1", ("test", "fused", "none", "macro_f1")),
        ("seconds.train", (None, "", "none", "seconds.train")),
    ],
)
def test_metrics_are_understood(text: str, parts: tuple[Any, ...]) -> None:
    assert metric_of(text)[1:] == parts
