"""The terminal: its content, without control characters and markup of names."""

from __future__ import annotations

import io

import pytest
from made_tables import HOSTILE, made
from rich.console import Console

from hblm.tables.output.terminal import terminal


@pytest.mark.parametrize("name", [*HOSTILE, "[bold]markup[/bold]"])
def test_the_terminal_gets_no_commands(name: str) -> None:
    stream = io.StringIO()
    Console(file=stream, width=200).print(terminal(made((name, "dual"))))
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "\x00" not in text
    assert "81.00 ± 1.41" in text
    assert "HPT (BERT-base), reference" in text
    if name.startswith("[bold]"):
        assert name in text
