"""`confidence=`: the score that a returned node must reach, by conformal risk control (see engine/risk.py).

The calibration documents are those that trainer.calibration_share kept, or the test split of another prepared
folder, which calibrate= names.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hblm.console import progress
from hblm.data.batches import calibration_positions, subsample_positions
from hblm.data.dataset import Prepared, open_prepared
from hblm.document import Document
from hblm.engine import risk
from hblm.errors import CheckpointError, ConfigError
from hblm.inference.decision import Decision
from hblm.inference.predictor import Predictor
from hblm.runs.checkpoint import DECISIONS, Checkpoint, open_data
from hblm.runs.decisions import Decisions, read_decisions

Critical = npt.NDArray[np.float64]
Scored = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]  # scores and labels, (documents, nodes)
_SPLIT = "test"  # of the folder that calibrate= names


def least_score(
    predictor: Predictor,
    decision: Decision,
    confidence: float,
    calibrate: str | None = None,
) -> float:
    """Return the least score of a returned node, so that few documents have a wrong one.

    Args:
        predictor: the models.
        decision: how predicted sets are made, without `least`.
        confidence: the share of documents, above 0 and below 1, that shall have no wrong returned node.
        calibrate: a prepared folder whose test split has the calibration documents; None for the documents
            that trainer.calibration_share kept.

    Raises:
        CheckpointError: decisions.json is damaged, or the dataset of the kept documents is not at its place.
        ConfigError: there are no calibration documents, or too few, or training saw them.
        DataError: the folder that calibrate= names has a fault.
    """
    critical = critical_of(predictor, decision, calibrate, confidence)
    return least_of(critical, confidence, origin_of(predictor.checkpoints[0], calibrate))


def critical_of(
    predictor: Predictor,
    decision: Decision,
    calibrate: str | None,
    confidence: float | None = None,
    *,
    may_score: bool = True,
) -> Critical:
    """Return the critical scores of the calibration documents.

    Args:
        predictor, decision, calibrate: as for `least_score`.
        confidence: for which there must be enough of them; None: any number is enough.
        may_score: whether the model may score the documents, which takes time, where that is not stored.

    Raises:
        CheckpointError, ConfigError, DataError: as for `least_score`.
    """
    if decision.consistency == "none":
        raise ConfigError(
            "confidence= returns nodes with all their ancestors; write consistency=raise or cap"
        )
    checkpoint = predictor.checkpoints[0]
    if calibrate is not None:
        documents, total = _of_folder(predictor, Path(calibrate))
    elif not predictor.as_trained:
        raise ConfigError(
            "confidence= of several models, or with tri_fuse_*, needs calibrate=FOLDER, a prepared folder "
            "whose test split training never saw"
        )
    else:
        require_share(checkpoint)
        stored = stored_critical(checkpoint, decision, predictor.view, predictor.precision)
        if stored is not None:
            return stored
        if not may_score:
            raise ConfigError(
                f"{checkpoint.folder} has no critical scores stored for these thresholds and this precision; "
                "start with confidence=, so that they are computed"
            )
        documents, total = _kept(checkpoint)
    if confidence is not None:
        _require_enough(total, confidence, origin_of(checkpoint, calibrate))
    return _critical(predictor, decision, documents, total)


def require_share(first: Checkpoint) -> None:
    """Refuse a checkpoint that kept no documents for calibration.

    Raises:
        ConfigError: with what to do.
    """
    if not first.config.trainer.calibration_share:
        raise ConfigError(
            f"confidence= needs labelled documents that training never saw, and {first.folder} "
            "kept none: train with trainer.calibration_share=0.5, or give calibrate=FOLDER, a prepared "
            "folder whose test split has such documents"
        )


def stored_critical(checkpoint: Checkpoint, decision: Decision, view: str, precision: str) -> Critical | None:
    """Return the critical scores of the kept documents; None unless they are stored for these scores.

    Raises:
        CheckpointError: decisions.json is damaged.
    """
    chosen = read_decisions(checkpoint).get(view)
    if chosen is None or chosen.conformal is None or not _holds(chosen, decision, precision):
        return None
    finite = np.array(chosen.conformal.critical, np.float64)
    return np.concatenate([finite, np.full(chosen.conformal.documents - len(finite), -inf)])


def _holds(chosen: Decisions, decision: Decision, precision: str) -> bool:
    """Return whether the stored critical scores hold for a decision: equal thresholds, equal scores."""
    assert chosen.conformal is not None
    settings, taxonomy = chosen.conformal.settings, decision.taxonomy
    thresholds: Any = settings["threshold"]
    if settings["tune"] != "none":
        thresholds = chosen.thresholds(settings["tune"], taxonomy)
    stored, own = (
        np.broadcast_to(np.asarray(each, np.float32), len(taxonomy))
        for each in (thresholds, decision.thresholds)
    )
    same_scores = (settings["consistency"], settings.get("precision")) == (decision.consistency, precision)
    same_scores = same_scores and decision.temperatures is None
    return bool(same_scores and (stored == own).all())


def least_of(critical: Critical, confidence: float, origin: str) -> float:
    """Return the least score of a returned node; `origin` names the documents, for the message.

    Raises:
        ConfigError: there are too few of them.
    """
    _require_enough(len(critical), confidence, origin)
    return risk.least_score(critical, confidence)


def _require_enough(documents: int, confidence: float, origin: str) -> None:
    """Refuse too few calibration documents.

    Raises:
        ConfigError: with how many are needed.
    """
    needed = risk.documents_needed(confidence)
    if documents < needed:
        raise ConfigError(
            f"confidence={confidence} needs at least {needed} calibration documents; {origin} has {documents}"
        )


def origin_of(checkpoint: Checkpoint, calibrate: str | None = None) -> str:
    """Return the words for the documents of a folder, or for those that a training kept."""
    if calibrate is not None:
        return f"calibrate={calibrate}"
    return f"trainer.calibration_share={checkpoint.config.trainer.calibration_share} of {checkpoint.folder}"


def labelled_scores(
    predictor: Predictor, documents: Iterable[Document], total: int, description: str
) -> Iterator[Scored]:
    """Yield the scores and labels of documents, as many at a time as fit into memory."""
    index, documents = predictor.taxonomy.index, iter(documents)
    with progress() as start:
        advance = start(description, total)
        while portion := list(itertools.islice(documents, predictor.texts_at_once)):
            gold = np.zeros((len(portion), len(index)), np.bool_)
            for row, document in zip(gold, portion, strict=True):
                row[[index[label] for label in document.labels]] = True
            yield predictor.scores([document.text for document in portion], advance), gold


def chosen_documents(prepared: Prepared, split: str, positions: npt.NDArray[np.int64]) -> Iterator[Document]:
    """Yield the documents of a split at some positions, in the order of the file."""
    wanted = set(positions.tolist())
    return (each for position, each in enumerate(prepared.documents(split)) if position in wanted)


def validation_positions(checkpoint: Checkpoint, documents: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Return the positions in val.jsonl, which has so many documents, of those used and of those kept."""
    used = subsample_positions(documents, checkpoint.config.dataset_fraction)
    kept = calibration_positions(len(used), checkpoint.config.trainer.calibration_share)
    return np.delete(used, kept), used[kept]


def _critical(
    predictor: Predictor, decision: Decision, documents: Iterable[Document], total: int
) -> Critical:
    parts = []
    for raw, gold in labelled_scores(predictor, documents, total, "calibrating"):
        decided = decision.decide(raw)
        parts.append(risk.critical_scores(decided.scores, decided.predicted, gold))
    return np.concatenate(parts) if parts else np.empty(0)


def _kept(checkpoint: Checkpoint) -> tuple[Iterator[Document], int]:
    """Return the documents that trainer.calibration_share kept, and how many there are.

    Raises:
        CheckpointError: the dataset of the training is not at its recorded path.
    """
    try:
        prepared = open_data(checkpoint, None)
    except CheckpointError as error:
        raise CheckpointError(
            f"{checkpoint.folder}: {DECISIONS} has no critical scores for these thresholds and this "
            f"precision, and they cannot be computed ({error}); give calibrate=FOLDER, a prepared folder "
            "whose test split training never saw"
        ) from None
    _, kept = validation_positions(checkpoint, prepared.count("val"))
    return chosen_documents(prepared, "val", kept), len(kept)


def _of_folder(predictor: Predictor, folder: Path) -> tuple[Iterator[Document], int]:
    """Return the documents that calibrate= names, and how many there are.

    Raises:
        ConfigError: the taxonomy is another one, or the documents are those of a training.
        DataError: the folder is not a prepared one.
    """
    prepared = open_prepared(folder)
    if prepared.taxonomy != predictor.taxonomy:
        raise ConfigError(
            f"calibrate={folder} has another taxonomy than {predictor.name} ({len(prepared.taxonomy)} and "
            f"{len(predictor.taxonomy)} nodes, or other parents)"
        )
    for checkpoint in predictor.checkpoints:
        try:
            trained_on = open_data(checkpoint, None).files
        except CheckpointError:  # it lies elsewhere now
            continue
        for split in ("train", "val"):
            if prepared.files[f"{_SPLIT}.jsonl"] == trained_on[f"{split}.jsonl"]:
                raise ConfigError(
                    f"calibrate={folder}: its {_SPLIT}.jsonl is the {split}.jsonl of the training of "
                    f"{checkpoint.folder}; give documents that training never saw"
                )
    return prepared.documents(_SPLIT), prepared.count(_SPLIT)
