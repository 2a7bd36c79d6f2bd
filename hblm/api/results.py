"""What the functions of `hblm.api` return."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hblm.errors import CheckpointError
from hblm.taxonomy import Taxonomy

if TYPE_CHECKING:
    import pandas as pd

    from hblm.inference.model import Model


@dataclass(frozen=True)
class PrepareResult:
    """A prepared dataset; as `dataset=` it is trained on.

    Attributes:
        path: the folder.
        name: of the dataset.
        taxonomy: the label forest.
        documents: number of documents by split.
        warnings: notes on the data, as in its manifest.
        report: the description of the data, as Markdown.
        is_new: False if the folder existed already.
    """

    path: Path
    name: str
    taxonomy: Taxonomy = field(repr=False)
    documents: Mapping[str, int]
    warnings: tuple[str, ...]
    report: str = field(repr=False)
    is_new: bool


@dataclass(frozen=True)
class TrainResult:
    """A finished training run.

    Attributes:
        path: the result file.
        checkpoint: the folder of the trained model; None if it was not kept.
        run_id: a hash of everything that can change the run's numbers.
        view: the view whose scores are in `val` and `test`.
        val, test: scores over all nodes, such as micro_f1 and macro_f1, at most 1.
        seconds: duration of the run.
        content: of the result file: scores of every view and level, history, configuration, notes.
        is_new: False if the result existed already.
    """

    path: Path
    checkpoint: Path | None
    run_id: str
    view: str
    val: Mapping[str, float]
    test: Mapping[str, float]
    seconds: float
    content: Mapping[str, Any] = field(repr=False)
    is_new: bool

    def model(self, **options: Any) -> Model:
        """Return the trained model; the options are those of `hblm.load`.

        Raises:
            CheckpointError: the checkpoint was not kept.
        """
        if self.checkpoint is None:
            raise CheckpointError(
                f"{self.path} has no checkpoint: it was trained with trainer.keep_checkpoint=false"
            )
        from hblm.inference.model import load

        return load(self.checkpoint, **options)


@dataclass(frozen=True)
class EvaluateResult:
    """A finished evaluation.

    Attributes:
        path: the result file.
        split: which documents were scored.
        view: the view whose scores are in `scores`.
        scores: over all nodes, such as micro_f1 and macro_f1, at most 1.
        predictions: the folder with the scores of every document; None without predictions=True.
        content: of the result file: scores of every view and level, settings.
    """

    path: Path
    split: str
    view: str
    scores: Mapping[str, float]
    predictions: Path | None
    content: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class SweepCell:
    """One run of a sweep.

    Attributes:
        number: from 1, in the order of the grid.
        label: its values on the axes that have several.
        state: done, running, pending, failed, cancelled; or new: planned and not submitted.
        run_id: None while its dataset is not prepared.
        reason: one line on a failure, or the place in a queue; "" if there is none.
        path: the result file; None if it is not done.
    """

    number: int
    label: str
    state: str
    run_id: str | None
    reason: str
    path: Path | None


@dataclass(frozen=True)
class SweepResult:
    """The cells of a sweep and their states.

    Attributes:
        name: of the sweep.
        folder: of its files, which exist once it is submitted.
        cells: in the order of the grid.
        unprepared: why the run ids of cells are not known yet, by dataset or encoder.
    """

    name: str
    folder: Path
    cells: tuple[SweepCell, ...]
    unprepared: Mapping[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """The number of cells by state."""
        return dict(Counter(cell.state for cell in self.cells))

    @property
    def is_done(self) -> bool:
        """Whether every cell is done."""
        return all(cell.state == "done" for cell in self.cells)

    def results(self) -> pd.DataFrame:
        """Return the results of the cells that are done, as `hblm.results` does; empty for none."""
        import pandas as pd

        from hblm.tables.collect import results

        files = [cell.path for cell in self.cells if cell.path is not None]
        return results(*files) if files else pd.DataFrame()
