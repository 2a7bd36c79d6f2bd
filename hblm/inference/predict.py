"""`python -m hblm.predict`: predicted paths of new texts, window by window, in the order of the input."""

from __future__ import annotations

import contextlib
import itertools
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from hblm import signals
from hblm.config.predict import PredictConfig
from hblm.console import Advance, StartTask, progress
from hblm.errors import DataError
from hblm.inference.decision import Decision
from hblm.inference.predictor import Predictor, Scores, open_predictor
from hblm.inference.rows.input_files import is_live, read_input
from hblm.inference.rows.input_rows import InputRow
from hblm.inference.rows.output_files import is_stream, open_output, require_free
from hblm.inference.rows.output_rows import Columns, OutputRow, RowWriter
from hblm.inference.rows.windows import Windows


@dataclass
class _Counts:
    """What was done so far.

    Attributes:
        rows, errors: how many rows were written, and how many of these are bad.
        started, loaded: when the program started, and when its models were loaded.
    """

    rows: int = 0
    errors: int = 0
    started: float = field(default_factory=time.perf_counter)
    loaded: float | None = None

    def __str__(self) -> str:
        now = time.perf_counter()
        line = f"{self.rows:,} rows, {self.errors:,} errors, {now - self.started:.1f} s"
        if self.loaded is None:
            return line
        rate, loading = self.rows / (now - self.loaded), self.loaded - self.started
        return f"{line}, {rate:,.1f} documents/s after {loading:.1f} s of loading"


def run(config: PredictConfig) -> None:
    """Predict the documents of the input, and write a row for each.

    The exit code is 1 after bad rows (on_error=report), and 128 + the signal's number after a signal.
    What is printed goes to standard error, because standard output may be the output.

    Raises:
        CheckpointError: a checkpoint is damaged, or several do not belong together.
        ConfigError: the input is not there, the output is, or a key does not fit them.
        DataError: the input is damaged, or a row is bad (on_error=stop).
    """
    counts = _Counts()
    require_free(config)
    rows = read_input(config)
    if not is_live(config):  # faults of the file are reported before the model is loaded
        first = [*itertools.islice(rows, 1)]
        if config.on_error == "stop" and first and first[0].fault:
            raise _refusal(first[0])
        rows = itertools.chain(first, rows)
    with signals.listening(), contextlib.redirect_stdout(sys.stderr):
        try:
            _predict(config, rows, counts)
        except signals.Stopped as stopped:
            print(f"stopped by {stopped}; {counts}")
            sys.exit(128 + signal.Signals[str(stopped)])
        except BrokenPipeError:
            if not is_stream(config):
                raise
            return  # the reader of the output has read enough, as head does
        print(counts)
    if counts.errors:
        sys.exit(1)


def _predict(config: PredictConfig, rows: Iterator[InputRow], counts: _Counts) -> None:
    """Read, predict and write the rows; a window is written while the next one is predicted."""
    predictor = open_predictor(config)
    counts.loaded = time.perf_counter()
    decision = _decision(config, predictor)
    nodes = [node.id for node in predictor.taxonomy.nodes]
    columns = Columns(config.keep, nodes if config.all_scores else None, errors=config.on_error == "report")
    with (
        _progress(config) as start,
        open_output(config, columns) as output,
        Windows(rows, predictor.texts_at_once) as windows,
        _ending_writer(),
        ThreadPoolExecutor(1, "writer") as pool,  # its end waits for the writer
        _ending_writer(),
    ):
        advance = start("predicting", None)
        written: Future[None] | None = None
        for window in windows.taken(signals.check):
            signals.check()
            sound, bad = window, None
            if config.on_error == "stop":
                bad = next((at for at, row in enumerate(window) if row.fault), None)
                sound = window[:bad]
            scores = _scores(predictor, sound, advance)
            if written:
                written.result()
            written = pool.submit(_write, output, decision, sound, scores, config.all_scores, counts)
            if bad is not None:
                written.result()
                raise _refusal(window[bad])
        if written:
            written.result()


@contextlib.contextmanager
def _ending_writer() -> Iterator[None]:
    """Let Ctrl-C end the thread of the writer too, which may wait for the reader of the output."""
    try:
        yield
    except KeyboardInterrupt:
        signals.note("SIGINT")
        raise


def _decision(config: PredictConfig, predictor: Predictor) -> Decision:
    """Return how scores become paths.

    Raises:
        CheckpointError, ConfigError, DataError: tuned thresholds, temperatures or calibration documents that
            the configuration needs are not there, or have a fault.
    """
    if config.tune == "none" and not config.calibrated and config.confidence is None:
        return predictor.decision(
            threshold=config.threshold, consistency=config.consistency, top_k=config.top_k
        )
    from hblm.inference.stored_decisions import decision_for  # torch, which exported models do without

    return decision_for(
        config, predictor, top_k=config.top_k, confidence=config.confidence, calibrate=config.calibrate
    )


def _refusal(row: InputRow) -> DataError:
    return DataError(f"{row.fault}; on_error=report goes on after a bad row")


def _scores(predictor: Predictor, rows: Sequence[InputRow], advance: Advance) -> Scores:
    """Return the scores of the good rows."""

    def counted(documents: int) -> None:
        signals.check()
        advance(documents)

    return predictor.scores([row.text for row in rows if not row.fault], counted)


def _write(
    output: RowWriter,
    decision: Decision,
    rows: Sequence[InputRow],
    scores: Scores,
    all_scores: bool,
    counts: _Counts,
) -> None:
    """Write a window: the paths of good rows, of which `scores` has one each, and the faults of bad ones."""
    decided = decision.decide(scores)
    good = itertools.count()
    made = []
    for row in rows:
        if row.fault:
            made.append(OutputRow(row.number, fault=row.fault))
            continue
        at = next(good)
        of_nodes = decided.scores[at] if all_scores else None
        made.append(OutputRow(row.number, row.kept, decision.paths(decided, at), of_nodes))
    output.write(made)
    counts.rows += len(made)
    counts.errors += sum(bool(row.fault) for row in made)


@contextlib.contextmanager
def _progress(config: PredictConfig) -> Iterator[StartTask]:
    """Give a function that starts a task; it shows nothing where a bar would be drawn into the output."""
    if not config.writes_file and sys.__stdout__ is not None and sys.__stdout__.isatty():
        yield lambda description, total: lambda steps: None
        return
    with progress() as start:
        yield start
