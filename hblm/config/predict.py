"""The configuration of `python -m hblm.predict`."""

from __future__ import annotations

from dataclasses import dataclass

from hblm.config.schema import key
from hblm.config.stored_model import Confidence, StoredModel

STREAM = "-"  # standard input or output, in place of the name of a file
INPUT_FORMATS = ("txt", "jsonl", "json", "csv", "tsv", "parquet", "xlsx", "ods")
OUTPUT_FORMATS = ("jsonl", "csv", "parquet")
OWN_COLUMNS = ("row", "paths", "scores", "error")  # of the output

_INPUT_SUFFIXES = {
    **{f".{name}": name for name in INPUT_FORMATS},
    ".ndjson": "jsonl",
    ".tab": "tsv",
    ".xlsm": "xlsx",
    ".xls": "xlsx",
    ".xlsb": "xlsx",
}
_OUTPUT_SUFFIXES = {**{f".{name}": name for name in OUTPUT_FORMATS}, ".ndjson": "jsonl"}
_COMPRESSED = (".gz", ".bz2", ".xz")


@dataclass
class PredictConfig(Confidence, StoredModel):
    """One run of `python -m hblm.predict`."""

    input: str = key("???", "the documents: a file, or - for standard input")
    output: str | None = key(None, "the file to write; null or -: standard output")
    format: str | None = key(
        None,
        "of the input; txt: a document a line; null: by the file's name; of standard input: jsonl if it "
        "begins with {, else txt",
        choices=INPUT_FORMATS,
    )
    output_format: str | None = key(
        None, "null: by the output's name, jsonl on standard output", choices=OUTPUT_FORMATS
    )
    text: list[str] | None = key(
        None,
        "column or key of the text; of several, joined by line ends; null: the one whose name says so",
        one=True,
    )
    keep: list[str] = key([], "columns of the input that the output has as well, such as [id]", one=True)
    top_k: int | None = key(
        None,
        "the k paths from a root to a leaf whose last node scores best; with threshold=, the best k of the "
        "predicted ones",
        low=1,
    )
    all_scores: bool = key(False, "write the score of every node as well")
    on_error: str = key(
        "stop",
        "stop: end at the first bad row, exit code 2; report: write its error in its place, exit code 1",
        choices=("stop", "report"),
    )
    force: bool = key(False, "replace an output file that exists")
    encoding: str | None = key(None, "of text; null: the byte-order mark's, else UTF-8")
    delimiter: str | None = key(None, "between cells of CSV and TSV; null: detected")
    quote: str = key('"', "around cells of CSV and TSV with the delimiter; none: quotes are plain text")
    header: str | None = key(
        None,
        "CSV, TSV and sheets; none: the first row is a document, columns are 1, 2, 3; first: it is the "
        "header whatever it holds",
        choices=("none", "first"),
    )

    def conflicts(self) -> list[str]:
        """Return a message for each combination of valid values that is invalid."""
        messages = super().conflicts()
        if self.calibrate is not None and self.confidence is None:
            messages.append(f"calibrate={self.calibrate} acts with confidence=")
        if not self.writes_file and self.chosen_output_format == "parquet":
            messages.append("output_format=parquet needs a file; write output=FILE.parquet")
        if self.writes_file and not self.chosen_output_format:
            messages.append(
                f"output={self.output}: the name does not end in .jsonl, .csv or .parquet; "
                "write output_format="
            )
        for name in sorted({name for name in self.keep if name in OWN_COLUMNS or self.keep.count(name) > 1}):
            why = "is there twice" if self.keep.count(name) > 1 else "is a column that the output has itself"
            messages.append(f"keep=[{','.join(self.keep)}]: {name} {why}")
        if self.text == []:
            messages.append("text=[] names no column; leave it out to find it by its name")
        return messages

    @property
    def writes_file(self) -> bool:
        """Whether the output is a file, and not standard output."""
        return self.output not in (None, STREAM)

    @property
    def chosen_output_format(self) -> str | None:
        """The format of the output; None where nothing decides it."""
        if self.output_format or not self.writes_file:
            return self.output_format or "jsonl"
        return _OUTPUT_SUFFIXES.get(_suffix(str(self.output)))


def input_format(name: str) -> str | None:
    """Return the format of an input by its name, without .gz, .bz2 or .xz; None for another name."""
    lower = name.lower()
    for ending in _COMPRESSED:
        lower = lower.removesuffix(ending)
    return _INPUT_SUFFIXES.get(_suffix(lower))


def _suffix(name: str) -> str:
    """Return the end of a file's name from its last dot on."""
    stem, dot, end = name.rpartition(".")
    return f"{dot}{end.lower()}" if stem and "/" not in end else ""
