"""Scoring of a split: a pass without gradients, counted batch by batch, merged over ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader

from hblm import signals
from hblm.console import no_progress
from hblm.data.batches import Batch, Split, evaluation_batches
from hblm.engine import collectives
from hblm.engine.metrics import ScoreCounter
from hblm.errors import TrainingError
from hblm.nn.classifier import Classifier
from hblm.nn.joint import BranchesOutput
from hblm.nn.losses import Objective
from hblm.taxonomy import Taxonomy

Collate = Callable[[Split, np.ndarray], Batch]
Scores = dict[str, Any]
# receives each batch: positions in the split, scores by view, targets
Sink = Callable[[np.ndarray, Mapping[str, Tensor], Tensor], None]


@dataclass(frozen=True)
class Scoring:
    """Settings of scoring, equal at validation, at the end of training and in an evaluation.

    Attributes:
        taxonomy: the nodes that are counted.
        objective: the loss of every view, and the scores of its logits, over all nodes of the model.
        threshold: a node is predicted when its score is at least this.
        batch_size: documents a batch.
        num_workers: processes that load batches.
        collate: makes a batch of documents, given a split and positions in it.
        train_support: each node's documents in the training split; None where they are not known.
        columns: the positions of the counted nodes among the model's; None where these are the same.
    """

    taxonomy: Taxonomy
    objective: Objective
    threshold: float
    batch_size: int
    num_workers: int
    collate: Collate
    train_support: Sequence[int] | None
    columns: Int[Tensor, " nodes"] | None = None

    def scores(self, logits: Tensor) -> Tensor:
        """Return the scores of the counted nodes, given the logits of all nodes of the model."""
        scores = self.objective.loss.to_scores(logits)
        return scores if self.columns is None else scores[:, self.columns.to(scores.device)]


class ViewCounters:
    """Counts of every view, updated batch by batch: memory does not grow with documents."""

    def __init__(self, scoring: Scoring, device: torch.device | str) -> None:
        """Start at zero documents, counting on `device` if that has float64."""
        self.scoring = scoring
        self.device = torch.device("cpu" if torch.device(device).type == "mps" else device)
        self.counters: dict[str, ScoreCounter] = {}

    def add(self, views: Mapping[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """Count a batch of logits; return their scores."""
        scores = {view: self.scoring.scores(logits) for view, logits in views.items()}
        for view, of_view in scores.items():
            self._counter(view).update(of_view, targets)
        return scores

    def counted(self) -> dict[str, Any]:
        """Return the counts of each view."""
        return {view: counter.counted() for view, counter in self.counters.items()}

    def merge(self, counted: Mapping[str, Any]) -> None:
        """Add another rank's counts."""
        for view, counts in counted.items():
            self._counter(view).add(counts)

    def compute(self) -> dict[str, Scores]:
        """Return each view's scores, with a row for each node under `nodes`."""
        return {
            view: {**counter.compute(), "nodes": counter.node_table()}
            for view, counter in self.counters.items()
        }

    def _counter(self, view: str) -> ScoreCounter:
        if view not in self.counters:
            self.counters[view] = ScoreCounter(
                self.scoring.taxonomy, self.scoring.threshold, self.device, self.scoring.train_support
            )
        return self.counters[view]


def no_sink(positions: np.ndarray, scores: Mapping[str, Tensor], targets: Tensor) -> None:
    """Do nothing with a batch: the default of `sink`."""


def each_of(sinks: Sequence[Sink]) -> Sink:
    """Return a sink that gives each batch to all sinks."""

    def sink(positions: np.ndarray, scores: Mapping[str, Tensor], targets: Tensor) -> None:
        for each in sinks:
            each(positions, scores, targets)

    return sink


@torch.inference_mode()
def score(
    model: Classifier,
    split: Split,
    scoring: Scoring,
    accelerator: Accelerator,
    advance: Callable[[int], None] = no_progress,
    sink: Sink = no_sink,
) -> tuple[dict[str, Scores], float]:
    """Return the scores of every view over a split, and the objective per document (nan of other data).

    Each branch's scores have `modulation`, the mean |a γ| per level; each view's have `nodes`, a row for each
    node. Each rank scores a part of the batches, which its sink receives; all ranks return the same result.

    Args:
        model: on the accelerator's device.
        split: as the model takes it.
        scoring: see there.
        accelerator: device and precision.
        advance: is called with the number of documents, of all ranks, after each batch.
        sink: receives each batch of this rank.

    Raises:
        TrainingError: a logit is not finite.
    """
    own = ViewCounters(scoring, accelerator.device)
    modulation: dict[str, Tensor] = {}
    total = torch.zeros((), dtype=torch.float64)
    for positions, batch, output in outputs(model, split, scoring, accelerator):
        sink(positions, own.add(output.views, batch.targets), batch.targets)
        for branch, value in output.modulation.items():
            modulation[branch] = modulation.get(branch, torch.zeros(())) + value.float().cpu() * len(batch)
        if scoring.columns is None:
            total += scoring.objective(output.views, batch.targets).cpu()
        else:  # there are no targets of the other nodes
            total.fill_(torch.nan)
        advance(len(batch) * accelerator.num_processes)
    parts = collectives.gather(accelerator, _Part(own.counted(), modulation, total))
    return _merged(scoring, len(split), parts)


class _Part(NamedTuple):
    """One rank's part of a scoring: counts by view, sums of modulation by branch, the objective."""

    counted: dict[str, Any]
    modulation: dict[str, Tensor]
    total: Tensor


def _merged(scoring: Scoring, documents: int, parts: Sequence[_Part]) -> tuple[dict[str, Scores], float]:
    """Return the result of `score`; adding the parts in order of rank gives all ranks equal sums."""
    counters = ViewCounters(scoring, "cpu")
    modulation: dict[str, Tensor] = {}
    for part in parts:
        counters.merge(part.counted)
        for branch, value in part.modulation.items():
            modulation[branch] = modulation[branch] + value if branch in modulation else value
    scores = counters.compute()
    for branch, value in modulation.items():
        scores[branch]["modulation"] = (value / documents).tolist()
    return scores, torch.stack([part.total for part in parts]).sum().item() / documents


@torch.inference_mode()
def outputs(
    model: Classifier, split: Split, scoring: Scoring, accelerator: Accelerator
) -> Iterator[tuple[np.ndarray, Batch, BranchesOutput]]:
    """Yield each batch's positions, documents and output; the longest documents come first.

    Raises:
        TrainingError: a logit is not finite. NaN compared with a threshold would count as no prediction.
    """
    model.eval()
    batches = evaluation_batches(split.lengths, batch_size=scoring.batch_size)
    for positions, batch in on_device(split, batches, scoring, accelerator):
        with accelerator.autocast():
            output = model(**batch.inputs)
        for view, logits in output.views.items():
            if not logits.isfinite().all():
                raise TrainingError(
                    f"the model gives logits that are not finite (view {view}); if it is being trained, "
                    "lower trainer.learning_rate or trainer.head_learning_rate, or set "
                    "trainer.precision=fp32; if it was trained, its weights are damaged, or too large "
                    "for its precision"
                )
        yield positions, batch, output


def on_device(
    split: Split, batches: Sequence[np.ndarray], scoring: Scoring, accelerator: Accelerator
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield this rank's batches: the positions in the split, and the documents on the device."""
    share = collectives.batches_of(accelerator, batches)
    common = len(batches) // accelerator.num_processes  # number of batches that every rank has
    for number, (positions, batch) in enumerate(zip(share, loader(split, share, scoring), strict=True)):
        collectives.check_stop(accelerator, synchronise=number < common and number % collectives.STEPS == 0)
        yield positions, batch.to(accelerator.device)


def loader(split: Split, batches: Sequence[np.ndarray], scoring: Scoring) -> DataLoader[Any]:
    """Return a loader of the given batches, each an array of positions in the split."""
    return DataLoader(
        _Batches(split, batches, scoring.collate),
        batch_size=None,
        collate_fn=_same,
        num_workers=scoring.num_workers,
        worker_init_fn=functools.partial(signals.ignore, signals.is_listening()),
    )


class _Batches(torch.utils.data.Dataset[Batch]):
    def __init__(self, split: Split, batches: Sequence[np.ndarray], collate: Collate) -> None:
        self.split, self.batches, self.collate = split, batches, collate

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, position: int) -> Batch:
        return self.collate(self.split, self.batches[position])


def _same(batch: Any) -> Any:
    return batch
