"""A table before it is written: rows, columns, cells with their runs, notes, tests and references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from typing import NamedTuple

DECIMALS = 2
PLUS_MINUS = "±"
NOTHING = "–"  # the label of a key that has no value, or changes nothing, in a row
NOT_STATED = "not stated"  # by the source of a reference figure


class Run(NamedTuple):
    """One number and where it comes from."""

    seed: str
    value: float
    run_id: str  # an ensemble's members' joined by +
    file: str
    commit: str | None
    dirty: bool | None
    version: str | None  # of hblm
    data: str  # a hash of the prepared files


class Column(NamedTuple):
    """One column: the values of the keys that columns are made of, and the metric."""

    labels: tuple[str, ...]
    metric: str
    name: str  # of the score, for people: macro-F1
    percent: bool  # a share, shown in percent
    higher_is_better: bool

    @property
    def text(self) -> str:
        """The values and the name in one text."""
        return " ".join((*self.labels, self.name))

    @property
    def scale(self) -> int:
        """What a value is multiplied by where it is shown."""
        return 100 if self.percent else 1

    @property
    def unit(self) -> str:
        """The unit of a difference."""
        return " points" if self.percent else ""


class Row(NamedTuple):
    """One row: the values of the keys that rows are made of."""

    labels: tuple[str, ...]

    @property
    def text(self) -> str:
        """The values in one text."""
        return ", ".join(self.labels)


@dataclass
class Cell:
    """One row in one column: its runs, one a seed, and their mean.

    `mean`, `std` (of a sample, nan for one run), `low` and `high` (confidence interval of the mean, nan for
    one run) are in the metric's own unit, shares in 0..1. `marks` point into the table's notes. `standing` is
    "best" (significantly better than every other row), "tied" (no row is best, and none is significantly
    better) or "", as `compare_rows` defines them. `trained_on` is the dataset of training where the scores
    are of other data, else "".
    """

    runs: list[Run]
    dataset: str
    mean: float = nan
    std: float = nan
    low: float = nan
    high: float = nan
    marks: list[str] = field(default_factory=list)
    standing: str = ""
    trained_on: str = ""

    @property
    def seeds(self) -> list[str]:
        """The seeds, in order."""
        return [run.seed for run in self.runs]


class Note(NamedTuple):
    """A note under the table; the cells it is about have its mark, a note on the whole table has none."""

    mark: str
    text: str


class Reference(NamedTuple):
    """A row of reference figures: published, or expected by a sweep file."""

    label: str
    source: str
    encoder: str
    runs: str
    figures: Mapping[Column, tuple[float, float]]  # mean and standard deviation (nan where none is given)
    note: str = ""


class Comparison(NamedTuple):
    """One test between two rows in one column."""

    column: Column
    dataset: str
    a: str  # the row with the better mean
    b: str
    test: str
    n: int  # pairs of runs, or documents
    difference: float  # a - b
    low: float
    high: float
    p: float
    p_adjusted: float  # over the pairs of rows of the column on this dataset
    smallest_p: float  # that the test can give
    d_z: float
    superiority: float
    why: str = ""  # the reason where there is no test


@dataclass
class Table:
    """Everything that a format shows."""

    title: str
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    rows: Sequence[Row]
    columns: Sequence[Column]
    cells: Mapping[tuple[Row, Column], Cell]  # no entry where there is no result
    caption: list[str]  # sentences on the numbers and on the tests that mark them
    notes: list[Note] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    over_datasets: list[str] = field(default_factory=list)  # sentences on the test over datasets
    explanation: list[str] = field(default_factory=list)  # lines of compare=[A,B]

    def datasets(self) -> dict[Column, str]:
        """Return the dataset of each column whose cells have one only."""
        datasets: dict[Column, set[str]] = {}
        for (_, column), cell in self.cells.items():
            datasets.setdefault(column, set()).add(cell.dataset)
        return {column: next(iter(names)) for column, names in datasets.items() if len(names) == 1}

    def figure(self, column: Column, mean: float, std: float) -> str:
        """Return "81.87 ± 0.29": percent for shares; without the spread where there is none."""
        digits = DECIMALS if column.percent or abs(mean) < 1000 else 0
        text = f"{column.scale * mean:,.{digits}f}"
        return text if isnan(std) else f"{text} {PLUS_MINUS} {column.scale * std:,.{digits}f}"


def plural(number: int, word: str) -> str:
    """Return "1 run", "2 runs"."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"
