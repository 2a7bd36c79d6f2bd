"""Lines of learning.csv, one a finished run of the bench. No torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from hblm.errors import DataError
from hblm.files import write_text

METHODS = ("flat", "independent", "top_down", "bottom_up", "dual", "tri_head_diffcat")
DIGITS = 16  # of a run id and of a dataset's fingerprint
BINS = ((1, 9), (10, 99), (100, None))  # training documents of a node, both ends included


class Variant(NamedTuple):
    """What is compared: method, start of the output layers, loss, whether texts of labels are documents."""

    method: str
    output_init: str = "prior"
    loss: str = "bce"
    label_documents: bool = False

    @property
    def name(self) -> str:
        """The method, and what differs from `prior`, `bce` and no label documents."""
        more = [value for value, plain in ((self.output_init, "prior"), (self.loss, "bce")) if value != plain]
        return " + ".join([self.method, *more, *["label documents"] * self.label_documents])


class Line(NamedTuple):
    """One run: its place in the bench, its scores, and what it was made with.

    Scores are F1 in 0..1 of the model's own view (`fused` of a joint model). `macro_1_9` is the mean F1 of
    the nodes with 1 to 9 training documents; None where there are none. `run` and `data` are the first digits
    of the run id and of the dataset's fingerprint, `seconds` the whole run's.
    """

    dataset: str
    encoder: str
    method: str
    output_init: str
    loss: str
    label_documents: bool
    seed: int
    run: str
    data: str
    test_micro: float
    test_macro: float
    macro_1_9: float | None
    macro_10_99: float | None
    macro_100: float | None
    val_micro: float
    val_macro: float
    best_epoch: int
    seconds: float
    device: str
    precision: str
    commit: str

    @property
    def setting(self) -> str:
        """What --only calls its setting."""
        return f"{self.encoder}.{self.dataset}"

    @property
    def variant(self) -> Variant:
        """What of the comparison it is."""
        return Variant(self.method, self.output_init, self.loss, self.label_documents)

    @property
    def cell(self) -> tuple[Any, ...]:
        """Its place: of two lines with the same place one counts."""
        return self.setting, *self.variant, self.seed, self.data


def line_of(setting: str, variant: Variant, seed: int, record: Mapping[str, Any]) -> Line:
    """Return the line of a result, as hblm.train wrote it."""
    encoder, _, dataset = setting.partition(".")
    view = "fused" if record["kind"] == "joint" else "single"
    test, val, made = record["test"][view], record["val"][view]["overall"], record["environment"]
    return Line(
        dataset,
        encoder,
        *variant,
        seed,
        record["run_id"][:DIGITS],
        record["dataset"]["fingerprint"][:DIGITS],
        round(test["overall"]["micro_f1"], 6),
        round(test["overall"]["macro_f1"], 6),
        *binned(test["by_frequency"]),
        round(val["micro_f1"], 6),
        round(val["macro_f1"], 6),
        record["best_epoch"],
        round(record["seconds"]["total"], 1),
        made["device"],
        made["precision"],
        (made["git_commit"] or "")[:12],
    )


def binned(by_frequency: Iterable[Mapping[str, Any]]) -> list[float | None]:
    """Return the macro-F1 of each bin, from a result's finer buckets: their mean, weighted by their nodes."""
    found = [(int(each["train_documents"].split("-")[0].rstrip("+")), each) for each in by_frequency]
    means: list[float | None] = []
    for low, high in BINS:
        inside = [each for start, each in found if low <= start and (high is None or start <= high)]
        nodes = sum(each["nodes"] for each in inside)
        total = sum(each["nodes"] * each["macro_f1"] for each in inside)
        means.append(round(total / nodes, 6) if nodes else None)
    return means


def merge(old: Iterable[Line], new: Iterable[Line]) -> list[Line]:
    """Return all lines in their order; a new one replaces an old one at the same place."""
    return sorted({line.cell: line for line in (*old, *new)}.values(), key=lambda line: line.cell)


_TYPES = get_type_hints(Line)
_READ = {
    str: str,
    int: int,
    float: float,
    bool: lambda text: {"true": True, "false": False}[text],
    float | None: lambda text: float(text) if text else None,
}


def read_lines(file: Path) -> list[Line]:
    """Return the lines of a file; none where it is not there.

    Raises:
        DataError: it has other columns, or a line that is no run, such as a mark of a merge.
    """
    if not file.exists():
        return []
    rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
    if next(rows, None) != list(Line._fields):
        raise DataError(f"{file}:1: the columns are not {','.join(Line._fields)}")
    lines = []
    for row in rows:
        try:
            values = zip(Line._fields, row, strict=True)
            lines.append(Line(**{name: _READ[_TYPES[name]](text) for name, text in values}))
        except (ValueError, KeyError):
            raise DataError(f"{file}:{rows.line_num}: {','.join(row)!r} is not a line of a run") from None
    return lines


def write_lines(file: Path, lines: Sequence[Line]) -> None:
    """Write the lines, whole or not at all."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(Line._fields)
    table.writerows([_written(value) for value in line] for line in lines)
    write_text(file, text.getvalue())


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
