"""The configuration of `python -m hblm.prepare`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from hblm.config.schema import group, key
from hblm.config.train import Dataset, Encoder

_RAW_SUFFIXES = re.compile(
    r"(\.(jsonl|ndjson|json|csv|tsv|tab|txt|parquet|zip|tar|tgz|txz|tbz2|gz|bz2|xz))+$", re.IGNORECASE
)


@dataclass
class PrepareConfig:
    """One run of `python -m hblm.prepare`."""

    raw: str | None = key(None, "the raw download: a file, a folder or an archive, for sets that have one")
    check: bool = key(False, "verify the prepared folder, report, and write nothing")
    force: bool = key(False, "prepare again although there is a folder")
    allow_mismatch: bool = key(False, "write a dataset with other counts than expected, with a warning")
    data_dir: str = key("data", "folder of prepared datasets")
    dataset: Dataset = group(Dataset, "which documents")
    encoder: Encoder = group(
        Encoder, "the tokenizer for the counts in the report; model_name, revision and max_length act"
    )

    def __post_init__(self) -> None:
        """Set the dataset's folder; a custom dataset without name and folder has the name of its raw file."""
        if self.dataset.path is None and self.dataset.name is None and self.raw:
            self.dataset.name = _RAW_SUFFIXES.sub("", Path(os.path.abspath(self.raw)).name) or None
        self.dataset.settle(self.data_dir)

    def conflicts(self) -> list[str]:
        """Return a message for each combination of valid values that is invalid."""
        messages = ["check=true only reads; drop force=true"] if self.check and self.force else []
        if self.check and self.raw:
            messages.append(f"check=true reads the prepared folder; drop raw={self.raw}")
        if self.dataset.path is None and not self.check:
            return [
                *messages,
                "dataset=custom needs raw=PATH to prepare, or dataset.path=DIR check=true to verify",
            ]
        return messages + self.dataset.conflicts()
