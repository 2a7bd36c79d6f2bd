"""Reports of workers on how they ended: one JSON file a rank, in one folder. No torch."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hblm import errors, signals
from hblm.errors import HblmError, ProcessError
from hblm.json_files import write_json
from hblm.process import cause_of_exit, explain, place

TASK = "task.json"  # beside the reports: the run, and how many processes do it
_LINES = 30  # of a killed worker's log, for its report
Reports = Sequence[Mapping[str, Any]]


def report_error(folder: Path, error: BaseException) -> int:
    """Write a report of the exception that ends this worker; return the exit code."""
    if isinstance(error, signals.Stopped):
        cause, why, code = "stopped", str(error), 1
    else:
        cause, why, code = explain(error)
    has_traceback = cause in ("raised", "memory")
    output = "".join(traceback.format_exception(error)) if has_traceback else ""
    write_report(folder, place().rank, cause=cause, why=why, error=type(error).__name__, output=output)
    return code


def report_exit(folder: Path, rank: int, code: int, log: Path | None) -> None:
    """Write a report for a worker that ended without writing one.

    Args:
        folder: of the reports.
        rank: the worker's.
        code: its exit code; below 0: minus the signal that killed it.
        log: its output, whose last lines go into the report; None where it was not kept.
    """
    if (folder / f"{rank}.report.json").exists():
        return
    output = ""
    if log is not None:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        output = "".join(lines[-_LINES:])
    cause, why = cause_of_exit(code)
    write_report(folder, rank, cause=cause, why=why, error="", output=output)


def write_report(folder: Path, rank: int, *, cause: str, why: str, error: str, output: str) -> None:
    """Write a rank's report, unless the folder is gone because the run is over.

    Args:
        folder: of the reports.
        rank: the worker's.
        cause: a key of config.FAILURES, or stopped or interrupted.
        why: one line on it.
        error: the exception's class; "" for none.
        output: the traceback, or the end of the log.
    """
    with contextlib.suppress(FileNotFoundError):
        task = json.loads((folder / TASK).read_text(encoding="utf-8"))
        size = int(task["processes"]) * int(task["machines"])
        fields = {"cause": cause, "why": why, "error": error, "output": output}
        write_json(folder / f"{rank}.report.json", {"rank": rank, "size": size, **fields})


def read_reports(folder: Path) -> Reports:
    """Return all reports, the cause of the others first: a kill or an exit, else the earliest."""
    files = sorted(folder.glob("*.report.json"), key=lambda file: file.stat().st_mtime_ns)
    reports = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    # a killed worker reports nothing itself: others report first that they lost the connection to it
    return sorted(reports, key=lambda report: report["cause"] not in ("killed", "exit"))


def raise_first(reports: Reports) -> None:
    """Raise the first report's error in this process.

    Raises:
        HblmError: as the worker raised it.
        ProcessError: the worker was killed, or raised another exception.
        signals.Stopped: it stopped at a signal.
    """
    first = reports[0]
    if first["cause"] == "stopped":
        raise signals.Stopped(first["why"])
    print(first["output"], end="", file=sys.stderr, flush=True)
    kind = getattr(errors, first["error"], None)
    if isinstance(kind, type) and issubclass(kind, HblmError):
        raise kind(first["why"])
    raise ProcessError(f"process {first['rank']} of {first['size']}: {first['why']}", first["cause"])
