"""The configuration of `python -m hblm.aggregate`."""

from __future__ import annotations

from dataclasses import dataclass

from hblm.config.schema import key
from hblm.files import unfit_as_name

TABLE_FORMATS = ("markdown", "csv", "latex", "html")
FIGURES = ("curves", "seeds", "levels", "frequency", "critical_difference")


@dataclass
class AggregateConfig:
    """One run of `python -m hblm.aggregate`."""

    results: list[str] = key(["outputs"], "folders (searched through) or files of results", one=True)
    rows: list[str] | None = key(
        None, "keys that make rows: a group, a configuration key, method; null: the sweep's, else [method]"
    )
    columns: list[str] | None = key(None, "keys that make columns; null: the sweep's, else [dataset]")
    metric: list[str] | None = key(
        None,
        "SPLIT.VIEW.SCORE, or a number of the run such as seconds.train; null: the sweep's, else test micro- "
        "and macro-F1",
        one=True,
    )
    where: list[str] = key([], "key:value, several as key:value|value: the results that count", one=True)
    sweep: str | None = key(None, "a sweep file (name or path) whose table and expected figures are taken")
    test: str = key("seeds", "what marks the best: a test over", choices=("seeds", "documents", "none"))
    alpha: float = key(0.05, "level of the tests", low=0, high=0.5, open_low=True)
    confidence: float = key(0.95, "of the intervals of means", low=0.5, high=0.999)
    interval: str = key("t", "how intervals are made", choices=("t", "bootstrap"))
    compare: list[str] = key([], "[A,B]: explain the difference of two rows in words and numbers")
    published: bool = key(
        True, "published figures beside ours, marked, where label set and metric are the same"
    )
    figures: list[str] = key(
        [], "what is drawn, as SVG and PNG; all: everything", choices=(*FIGURES, "all"), one=True
    )
    formats: list[str] = key(
        [*TABLE_FORMATS], "in which the table is written", choices=TABLE_FORMATS, one=True
    )
    frame: list[str] = key(
        [], "the tidy frame of all results as well, as parquet or csv", choices=("parquet", "csv"), one=True
    )
    title: str | None = key(None, "of the table; null: from its metrics")
    name: str | None = key(None, "of the files; null: the sweep's, else table")
    output_dir: str = key("outputs", "files go to tables/ in it")

    def conflicts(self) -> list[str]:
        """Return a message for each combination of valid values that is invalid."""
        messages = []
        if self.results == []:
            messages.append("results=[] names no folder; write results=outputs")
        for name in ("rows", "metric"):
            if getattr(self, name) == []:
                messages.append(f"{name}=[] is empty; write {name}=[...] or leave it out")
        if len(self.compare) not in (0, 2):
            messages.append(f"compare= names {len(self.compare)} rows; write compare=[A,B]")
        if self.name is not None and unfit_as_name(f"{self.name}.comparisons.csv"):
            messages.append(f"name={self.name!r} cannot name a file; write a plain name")
        for item in self.where:
            if ":" not in item:
                messages.append(f"where=[{item}] is not of the form key:value")
        return messages
