"""A pass over a split without gradients, and what it scores."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from hblm import signals
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


# told of each batch: positions in the split, the scores of every view, targets
Sink = Callable[[np.ndarray, Mapping[str, Tensor], Tensor], None]


@dataclass(frozen=True)
class Scoring:
    """How a split is scored: the same at validation, at the end of training, and in a later evaluation.

    Attributes:
        train_support: each node's documents in the training split.
    """

    taxonomy: Taxonomy
    objective: Objective
    threshold: float
    batch_size: int
    num_workers: int
    collate: Collate
    train_support: Sequence[int]


class Tally:
    """The scores of every view, counted batch by batch: memory does not grow with documents."""

    def __init__(self, scoring: Scoring, device: torch.device | str) -> None:
        """Start at zero documents, counting on `device` if that has float64."""
        self.scoring = scoring
        self.device = torch.device("cpu" if torch.device(device).type == "mps" else device)
        self.counters: dict[str, ScoreCounter] = {}

    def add(self, views: Mapping[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """Count a batch of logits; return their scores."""
        scores = {view: self.scoring.objective.loss.to_scores(logits) for view, logits in views.items()}
        for view, found in scores.items():
            self._counter(view).update(found, targets)
        return scores

    def counted(self) -> dict[str, Any]:
        """Return what was counted of each view."""
        return {view: counter.counted() for view, counter in self.counters.items()}

    def merge(self, counted: Mapping[str, Any]) -> None:
        """Count what another process did."""
        for view, found in counted.items():
            self._counter(view).add(found)

    def found(self) -> dict[str, Scores]:
        """Return each view's scores, and under `nodes` a row for each node."""
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


def no_progress(documents: int) -> None:
    """Show no progress."""


def no_sink(positions: np.ndarray, scores: Mapping[str, Tensor], targets: Tensor) -> None:
    """Do nothing with a batch."""


@torch.inference_mode()
def score(
    model: Classifier,
    split: Split,
    scoring: Scoring,
    accelerator: Accelerator,
    advance: Callable[[int], None] = no_progress,
    sink: Sink = no_sink,
) -> tuple[dict[str, Scores], float]:
    """Return the scores of every view over a split, and the objective per document.

    Each branch's scores come with `modulation`, the mean |a γ| per level; each view's with `nodes`, a row for
    each node. Of several processes each scores a part of the batches, which is what its sink is told, and all
    return the same: each document counts once.
    """
    mine = Tally(scoring, accelerator.device)
    modulation: dict[str, Tensor] = {}
    total = torch.zeros((), dtype=torch.float64)
    for positions, batch, output in outputs(model, split, scoring, accelerator):
        sink(positions, mine.add(output.views, batch.targets), batch.targets)
        for branch, value in output.modulation.items():
            modulation[branch] = modulation.get(branch, torch.zeros(())) + value.float().cpu() * len(batch)
        total += scoring.objective(output.views, batch.targets).cpu()
        advance(len(batch) * accelerator.num_processes)
    return _merged(
        scoring, len(split), collectives.gather(accelerator, Part(mine.counted(), modulation, total))
    )


class Part(NamedTuple):
    """What one process found of a split: counts by view, sums of modulation by branch, the objective."""

    counted: dict[str, Any]
    modulation: dict[str, Tensor]
    total: Tensor


def _merged(scoring: Scoring, documents: int, parts: Sequence[Part]) -> tuple[dict[str, Scores], float]:
    """Return what `score` returns; the parts are added in one order, so that all processes get the same."""
    tally = Tally(scoring, "cpu")
    modulation: dict[str, Tensor] = {}
    for part in parts:
        tally.merge(part.counted)
        for branch, value in part.modulation.items():
            modulation[branch] = modulation[branch] + value if branch in modulation else value
    found = tally.found()
    for branch, value in modulation.items():
        found[branch]["modulation"] = (value / documents).tolist()
    return found, torch.stack([part.total for part in parts]).sum().item() / documents


@torch.inference_mode()
def outputs(
    model: Classifier, split: Split, scoring: Scoring, accelerator: Accelerator
) -> Iterator[tuple[np.ndarray, Batch, BranchesOutput]]:
    """Yield each batch's positions, documents and output; the longest documents come first.

    Raises:
        TrainingError: a logit is not finite; counted, it would be a prediction or none, and give a score.
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
    """Yield the positions of each batch that is this process's part, and its documents on the device."""
    mine = collectives.batches_of(accelerator, batches)
    in_all = len(batches) // accelerator.num_processes  # so many every process has
    for number, (positions, batch) in enumerate(zip(mine, loader(split, mine, scoring), strict=True)):
        collectives.check_stop(accelerator, synchronise=number < in_all and number % collectives.STEPS == 0)
        yield positions, batch.to(accelerator.device)


def loader(split: Split, batches: Sequence[np.ndarray], scoring: Scoring) -> DataLoader[Any]:
    """Return a loader that collates each array of positions as it is."""
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
