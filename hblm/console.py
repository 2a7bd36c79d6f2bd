"""Output for people: progress bars on a terminal, log lines elsewhere, tables of scores."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TextIO, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

Advance = Callable[[int], None]
StartTask = Callable[[str, "int | None"], Advance]

log = logging.getLogger("hblm")
_SETS = {  # consistency -> the key of its scores in a view's, and their description
    "raise": ("repath", "predictions closed under ancestors beside the raw ones"),
    "cap": ("cap", "predictions without nodes that lack an ancestor beside the raw ones"),
}
_F1 = {"micro_f1": "micro-F1", "macro_f1": "macro-F1"}

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

_quiet = False


def visible(text: str) -> str:
    """Return a text with control characters as escapes, such as \\x1b.

    They would control the terminal or the direction of writing. Lone surrogates, which cannot be encoded, are
    escaped too; newlines and tabs are kept.
    """
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


class VisibleConsole(Console):
    """A console of rich that prints a text unchanged: no [markup], no :emoji:, control characters escaped."""

    def __init__(self, *, stderr: bool = False) -> None:
        """Write to standard output or error."""
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, *args: Any, **how: Any) -> Text:
        """Return a text for the console."""
        return super().render_str(visible(text), *args, **how)


class _Visible:
    """A stream that escapes control characters; rich, which needs them, writes to the stream behind it."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # the name by which rich finds the stream behind

    def write(self, text: str) -> int:
        start = text[:1] if text[:1] == "\r" else ""  # tqdm starts with it, to draw over its bar
        self.rich_proxied_file.write(start + visible(text[len(start) :]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextlib.contextmanager
def visible_output() -> Iterator[None]:
    """Escape control characters in all output of the block: names, labels, messages of libraries."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _Visible(stream)) for stream in before)
    try:
        yield
    except Exception:
        before = sys.stdout, sys.stderr  # keep escaping: the traceback is printed later
        raise
    finally:
        sys.stdout, sys.stderr = before


def silence() -> None:
    """Silence this rank: no bars and no log lines but warnings, because rank 0 shows them."""
    global _quiet
    _quiet = True
    log.setLevel(logging.WARNING)


class _Output(io.FileIO):
    """Standard output or error that drops what is written after its reader has ended, as `| head` does."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # also for libraries and child processes
            os.close(null)
            return super().write(data)


def outlive_readers() -> None:
    """Let this process go on when the reader of its output ends; the output is dropped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__"):
            continue  # a stream of a test or a notebook
        stream.flush()
        output: Any = _Output(stream.fileno(), "wb", closefd=False)
        setattr(
            sys,
            name,
            io.TextIOWrapper(
                output if stream.write_through else io.BufferedWriter(output),  # as `python -u` has it
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            ),
        )


def print_log() -> None:
    """Print the log on standard output, as Hydra does."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stdout,
        format="[%(asctime)s][%(name)s][%(levelname)s] - %(message)s",
    )


_LINE_EVERY = 15.0  # seconds between lines without a terminal
_DRAW_EVERY = 0.1  # seconds between updates of a bar: updating it a million times takes longer than the work


def lines(description: str, total: int | None) -> Advance:
    """Start a task with a log line every 15 seconds, and so none if it is short."""
    begun = logged = time.monotonic()
    done = 0

    def advance(steps: int) -> None:
        nonlocal logged, done
        done += steps
        now = time.monotonic()
        if now - logged < _LINE_EVERY:
            return
        logged = now
        left = ""
        if total and done:
            minutes, seconds = divmod(round((now - begun) * max(total - done, 0) / done), 60)
            left = f" of {total:,}, {minutes}:{seconds:02} left"
        log.info("%s: %s%s", description, f"{done:,}", left)

    return advance


def no_progress(documents: int) -> None:
    """Show no progress: the default of `advance`."""


@contextlib.contextmanager
def progress() -> Iterator[StartTask]:
    """Give a function that starts a task, as in `advance = start("tokenising", total)`.

    On a terminal tasks are bars on standard error, removed at the end; elsewhere log lines.
    """
    console = VisibleConsole(stderr=True)
    if _quiet or not console.is_terminal:
        yield lines
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
    )
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:

        def start(description: str, total: int | None) -> Advance:
            task = bars.add_task(description, total=total)
            waiting, drawn = 0, time.monotonic()

            def advance(steps: int) -> None:
                nonlocal waiting, drawn
                waiting += steps
                now = time.monotonic()
                if now - drawn >= _DRAW_EVERY:
                    bars.advance(task, waiting)
                    waiting, drawn = 0, now

            return advance

        yield start


class TrainingBar:
    """The bar of a training run: epoch, loss, validation micro/macro-F1, documents per second, time left.

    It fits 80 columns. Without a terminal there is one log line an epoch.
    """

    def __init__(self, documents: int, epochs: int, console: Console | None = None) -> None:
        """Prepare for `epochs` passes over `documents` documents."""
        self.epochs = epochs
        self.console = console or VisibleConsole(stderr=True)
        self.shown: dict[str, Any] = {"epoch": f"epoch 1/{epochs}", "loss": "", "val": "", "speed": ""}
        self.seen, self.started = 0, time.perf_counter()
        columns = [TextColumn("{task.fields[" + name + "]}", markup=False) for name in self.shown]
        self.bars = Progress(
            columns[0],
            BarColumn(bar_width=12),
            *columns[1:],
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=_quiet or not self.console.is_terminal,
        )
        self.task = self.bars.add_task("training", total=documents * epochs, **self.shown)

    def __enter__(self) -> TrainingBar:
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def step(self, documents: int, loss: float | None) -> None:
        """Count an optimizer step; `loss` is the epoch's mean so far, None where it was not read."""
        self.seen += documents
        if loss is not None:
            speed = self.seen / (time.perf_counter() - self.started)
            self.shown.update(loss=f"loss {loss:.4f}", speed=f"{speed:.0f} docs/s")
        self.bars.update(self.task, advance=documents, **self.shown)

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """Show the history's entry of an epoch."""
        number = entry["epoch"]
        micro, macro = 100 * entry["val_micro_f1"], 100 * entry["val_macro_f1"]
        self.shown.update(
            epoch=f"epoch {min(number + 1, self.epochs)}/{self.epochs}", val=f"F1 {micro:.1f}/{macro:.1f}"
        )
        self.bars.update(self.task, **self.shown)
        if not self.console.is_terminal:
            log.info(
                "epoch %d/%d  loss %.4f  val micro-F1 %.2f  macro-F1 %.2f  %.0f documents/s",
                *(number, self.epochs, entry["train_loss"], micro, macro, entry["documents_per_second"]),
            )


def print_views(views: Mapping[str, Mapping[str, Any]], shown: str, *, consistency: str, title: str) -> None:
    """Print the scores of one view, a row a level, or of `all` views, a row a view.

    Args:
        views: scores by view.
        shown: the view, or `all`.
        consistency: raise or cap for the scores of such predictions beside the raw ones; none for raw alone.
        title: of the table.
    """
    if shown != "all":
        print_scores(shown, views[shown], consistency=consistency, title=title)
        return
    print(f"{title}, all views{_described(consistency)}")
    table = Table()
    table.add_column("view")
    names = {**_F1, "samples_f1": "samples-F1", "violation_rate": "violations"}
    _add_numbers(table, [*names.values(), *_beside(consistency)])
    for view, scores in views.items():
        numbers = [scores["overall"][name] for name in names]
        if consistency in _SETS:
            numbers += [scores[_SETS[consistency][0]]["overall"][name] for name in _F1]
        table.add_row(view, *(f"{100 * number:.2f}" for number in numbers))
    VisibleConsole().print(table)


def print_scores(view: str, scores: Mapping[str, Any], *, consistency: str, title: str) -> None:
    """Print one view's scores: a row a level, and all nodes; `consistency` as for `print_views`."""
    print(f"{title}, view {view}{_described(consistency)}")
    table = Table()
    table.add_column("level")
    _add_numbers(table, ["nodes", *_F1.values(), *_beside(consistency), "support"])
    sets = [scores, *([scores[_SETS[consistency][0]]] if consistency in _SETS else [])]
    n_nodes = sum(level["nodes"] for level in scores["per_level"])
    for rows in zip(
        *([*each["per_level"], {**each["overall"], "nodes": n_nodes}] for each in sets), strict=True
    ):
        row = rows[0]
        if "level" not in row:
            table.add_section()
        f1 = (f"{100 * each[name]:.2f}" for each in rows for name in _F1)
        table.add_row(str(row.get("level", "all")), f"{row['nodes']:,}", *f1, f"{row['support']:,}")
    VisibleConsole().print(table)


def tuned_line(views: Mapping[str, Mapping[str, Any]], tuned: Mapping[str, Any], split: str) -> str:
    """Return a line on one view's scores at tuned thresholds, with those at the one threshold beside them.

    Args:
        views: the scores by view.
        tuned: the result's entry of tuned thresholds.
        split: whose scores they are.
    """
    view, names = tuned["view"], {"micro_f1": "micro-F1", "macro_f1": "macro-F1"}
    before, after = views[view], tuned[split][view]["overall"]
    threshold, before = before["threshold"], before["repath"]["overall"]
    pairs = (f"{names[key]} {100 * after[key]:.2f} ({100 * before[key]:.2f})" for key in names)
    what = f"{split}, view {view}, predictions closed under ancestors, tune={tuned['tune']}"
    return f"{what}: {', '.join(pairs)}; in brackets with threshold {threshold:g}"


def _described(consistency: str) -> str:
    return f", {_SETS[consistency][1]}" if consistency in _SETS else ""


def _beside(consistency: str) -> list[str]:
    """Return the heads of the columns beside the raw ones: none without consistency."""
    return [f"{column}\n{consistency}" for column in _F1.values()] if consistency in _SETS else []


def _add_numbers(table: Table, heads: Iterable[str]) -> None:
    for head in heads:
        table.add_column(head, justify="right")
