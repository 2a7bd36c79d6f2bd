"""The end of a preparation: its error, and the files that it leaves."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

from hblm.config.train import Dataset, Encoder
from hblm.data.preparation import prepare


class Refusal(NamedTuple):
    """How a preparation ended: the error's type and message, and the files that it left open."""

    kind: type[BaseException] | None
    message: str
    left_open: list[str]


def refusal_of(dataset: Dataset, raw: Path | None, *, encoder: str = "tiny", force: bool = False) -> Refusal:
    """Prepare a dataset and return how that ended."""
    kind, message = None, ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        try:
            prepare(dataset, raw, Encoder(model_name=encoder), force=force)
        except Exception as error:  # the test compares its type
            kind, message = type(error), str(error)
    return Refusal(kind, message, [str(warning.message) for warning in caught])


def files_below(folder: Path) -> dict[str, bytes | None]:
    """Return the content of all files in a folder without locks; None for a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.suffix != ".lock"
    }
