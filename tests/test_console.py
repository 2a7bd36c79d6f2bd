from __future__ import annotations

import io
import logging
import sys

import pytest
from rich.console import Console
from rich.table import Table

from hblm.console import TrainingBar, VisibleConsole, log, print_scores, progress, visible, visible_output
from hblm.files import cell_text

ENTRY = {
    "epoch": 64,
    "train_loss": 0.01234,
    "val_micro_f1": 0.8712,
    "val_macro_f1": 0.8145,
    "documents_per_second": 1234.5,
}


def drive(console: Console) -> None:
    with TrainingBar(1000, 65, console) as bar:
        bar.step(32, 0.1234)
        bar.epoch(ENTRY)
        bar.step(32, None)


def test_the_bar_fits_80_columns():
    text = io.StringIO()
    drive(Console(file=text, force_terminal=True, width=80, color_system=None))
    assert "…" not in text.getvalue()
    for part in ("epoch 65/65", "loss 0.1234", "F1 87.1/81.5", "docs/s", ":"):
        assert part in text.getvalue()


def test_off_a_terminal_there_is_one_line_an_epoch(caplog):
    text = io.StringIO()
    with caplog.at_level(logging.INFO, logger="hblm"):
        drive(Console(file=text, force_terminal=False))
    assert text.getvalue().strip() == ""
    assert caplog.messages == [
        "epoch 64/65  loss 0.0123  val micro-F1 87.12  macro-F1 81.45  1234 documents/s"
    ]


def test_short_progress_is_silent_off_a_terminal(capsys, caplog):
    with caplog.at_level(logging.INFO, logger="hblm"), progress() as start:
        start("tokenising", 3)(1)
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == []


def test_long_progress_is_a_line_now_and_then_with_the_time_left(caplog, monkeypatch):
    clock = iter([0.0, 5.0, 30.0, 31.0, 90.0, 90.0, 105.0])
    monkeypatch.setattr("hblm.console.time.monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, logger="hblm"), progress() as start:
        advance = start("reading", 8_000)
        for steps in (1_000, 1_000, 1_000, 3_000):
            advance(steps)
        start("counting", None)(7)
    assert caplog.messages == [
        "reading: 2,000 of 8,000, 1:30 left",
        "reading: 6,000 of 8,000, 0:30 left",
        "counting: 7",
    ]


def test_a_bar_moves_and_goes(monkeypatch):
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=80)
    monkeypatch.setattr("hblm.console.VisibleConsole", lambda **options: console)
    monkeypatch.setattr("hblm.console._DRAW_EVERY", 0.0)
    with progress() as start:
        advance = start("reading", 100)
        for _ in range(40):
            advance(1)
    assert "40/100" in text.getvalue()


def test_the_flag_decides_which_scores_are_shown(capsys):
    def scores(f1: float) -> dict:
        row = {"micro_f1": f1, "macro_f1": f1, "support": 1234}
        return {"overall": row, "per_level": [{"level": 0, "nodes": 7, **row}]}

    all_sets = {**scores(0.25), "repath": scores(0.75), "cap": scores(0.65)}
    print_scores("single", all_sets, consistency="none", title="run: test")
    plain = capsys.readouterr().out
    assert plain.count("25.00") == 4
    assert "1,234" in plain
    assert "ancestor" not in plain
    for consistency, number, words in (
        ("raise", "75.00", "closed under ancestors"),
        ("cap", "65.00", "without nodes that lack an ancestor"),
    ):
        print_scores("single", all_sets, consistency=consistency, title="run: test")
        shown = capsys.readouterr().out
        assert shown.count("25.00") == shown.count(number) == 4  # beside the raw ones
        assert words in shown
        assert consistency in shown


STEERING = [
    "\x1b[31m",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\x7f",
    "a\x08",
    "a\rb",
    "\u202eabc",
    "\u2066",
    "\u200f",
    "\ud800",
]


@pytest.mark.parametrize("text", STEERING, ids=ascii)
def test_nothing_that_is_printed_steers_the_terminal(text, capsys):
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    with visible_output():
        logging.basicConfig(force=True)
        print(text)
        print(text, file=sys.stderr)
        log.warning("%s", text)
        logging.getLogger("library").warning(text)
        for error in (False, True):
            VisibleConsole(stderr=error).print(text)
            VisibleConsole(stderr=error).print(table)
    for printed in capsys.readouterr():
        assert visible(printed) == printed
        assert visible(text) in printed


@pytest.mark.parametrize("text", ["[bold]x[/bold]", ":smile:", "[/]", "[link=x]", "[red", "a\\[b"])
def test_names_are_neither_markup_nor_emoji(text, capsys):
    table = Table(title=text)
    table.add_column("x")
    table.add_row(text)
    VisibleConsole().print(text)
    VisibleConsole().print(table)
    assert capsys.readouterr().out.count(text) == 3


def test_what_people_write_stays():
    for text in ("Bücher\n\tπ ≤ 3", "日本語", "नमस्ते", "👩\u200d👩", "עברית", "a\u00a0b"):
        assert visible(text) == text


def test_the_stream_is_as_before_afterwards(capsys):
    before = sys.stdout
    with visible_output():
        sys.stdout.write("\rbar")  # drawn over itself
    assert sys.stdout is before
    assert capsys.readouterr().out == "\rbar"


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-x", "@sum", "\tx", "\rx", "=", "-", "-1-1", "+1e5x"])
def test_a_text_that_a_spreadsheet_would_compute_is_marked_as_text(text):
    assert cell_text(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-0.5", "+1e-5", "-.5", "x=1", "", "a-b", -0.5, None, 7, True])
def test_other_cells_stay(value):
    assert cell_text(value) == value
