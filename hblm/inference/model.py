"""`hblm.load`: a trained model that predicts labels of texts."""

from __future__ import annotations

import dataclasses
import functools
import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hblm.config.schema import typed
from hblm.config.stored_model import StoredModel
from hblm.config.train import FUSED_VIEWS
from hblm.errors import ConfigError
from hblm.inference.decision import Decided, Decision
from hblm.inference.exports.hub import local_folder
from hblm.inference.predictor import Predictor, Scores, open_predictor
from hblm.inference.stored_decisions import decision_for
from hblm.inference.texts import texts_in
from hblm.taxonomy import Taxonomy

Place = str | os.PathLike[str]

_OPTIONS = ("threshold", "consistency", "tune", "calibrated")  # that a call may give as well
_DECISIONS = 32  # of the options of calls, kept: those of confidence= take a pass over its documents


def load(
    checkpoint: Place | Sequence[Place],
    *,
    device: str = "auto",
    precision: str = "auto",
    backend: str = "auto",
    threshold: float | None = None,
    consistency: str = "raise",
    tune: str = "none",
    calibrated: bool = False,
    joint_eval_view: str | None = None,
    ensemble_weight: float | None = None,
    fuse: Mapping[str, float] | None = None,
    revision: str | None = None,
) -> Model:
    """Return a trained model, ready to predict.

    Args:
        checkpoint: the folder of a trained or exported model, or a model of the hub, "owner/name"; of
            several, the logits are averaged.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16.
        backend: auto, torch or onnx.
        threshold: the score from which on a node is predicted; None: that of the training.
        consistency: raise: a predicted node brings its ancestors; cap: it needs them; none: each by itself.
        tune: thresholds that were chosen on validation documents: none, global, level or node.
        calibrated: scores after the temperatures that were fitted on validation documents.
        joint_eval_view: of a joint model: fused, td, bu or mix; None: that of the training.
        ensemble_weight: of a top-down and a bottom-up model: that of the top-down one.
        fuse: of a model with joint_variant=tri_head_diffcat: other weights of td, bu and mix.
        revision: of a model of the hub.

    Raises:
        CheckpointError: a checkpoint is missing or damaged, or several do not belong together.
        ConfigError: all faults of the options, a line each.
    """
    is_one = isinstance(checkpoint, (str, os.PathLike)) or not isinstance(checkpoint, Iterable)
    places: list[Any] = [checkpoint] if is_one else [*checkpoint]  # type: ignore[misc]
    options: dict[str, Any] = {
        "device": device,
        "precision": precision,
        "backend": backend,
        "threshold": threshold,
        "consistency": consistency,
        "tune": tune,
        "calibrated": calibrated,
        "joint_eval_view": joint_eval_view,
        "ensemble_weight": ensemble_weight,
        **_fuse_weights(fuse or {}),
    }
    folders = [str(_folder_of(place, revision)) for place in places]
    return Model(typed({"checkpoint": folders, **options}, StoredModel))


def _folder_of(given: Any, revision: str | None) -> Path:
    """Return the folder of a model, of the hub its local copy.

    Raises:
        CheckpointError: the hub has no such model, or cannot be reached.
        ConfigError: it is no name, or a revision of a folder.
    """
    if not isinstance(given, (str, os.PathLike)):
        raise ConfigError(
            f"checkpoint={given!r:.60} is a {type(given).__name__}; expected a folder, a model of the hub, "
            "or a list of these"
        )
    place: str = os.fspath(given)
    folder = local_folder(place, revision).expanduser()
    if revision is not None and str(folder) == place:
        raise ConfigError(f"revision={revision} is of a model of the hub, and {place} is a folder")
    return folder.absolute()


def _fuse_weights(fuse: Mapping[str, float]) -> dict[str, float]:
    """Return the keys of the given weights.

    Raises:
        ConfigError: one of a view that is not fused.
    """
    others = [view for view in fuse if view not in FUSED_VIEWS]
    if others:
        raise ConfigError(f"fuse= weighs {', '.join(FUSED_VIEWS)}, not {', '.join(map(str, others))}")
    return {f"tri_fuse_{view}": weight for view, weight in fuse.items()}


class Model:
    """A trained model, or several that are averaged. Threads can share it; pickled, it is its folders.

    Attributes:
        taxonomy: the label forest.
        classes_: the ids of its nodes, in the order of the columns of `predict_proba`.
        threshold: the score from which on a node is predicted.
        name: of the trained model.
    """

    def __init__(self, config: StoredModel) -> None:
        """Open and load the models of a configuration.

        Raises:
            CheckpointError: a checkpoint is damaged, or two do not belong together.
            ConfigError: the device is not available, or a key does not apply to these models.
        """
        self._config = config
        self._predictor: Predictor = open_predictor(config)
        self.taxonomy: Taxonomy = self._predictor.taxonomy
        self.classes_ = np.array([node.id for node in self.taxonomy.nodes], dtype=object)
        self.threshold, self.name = self._predictor.threshold, self._predictor.name
        self._decided = functools.lru_cache(_DECISIONS)(self._new_decision)
        self._decision({})  # faults of the model's own options, now

    def __reduce__(self) -> tuple[Callable[[StoredModel], Model], tuple[StoredModel]]:
        return Model, (self._config,)

    def __repr__(self) -> str:
        nodes, levels = len(self.taxonomy), len(self.taxonomy.levels)
        return f"<hblm model {self.name}: {nodes:,} nodes on {levels} levels>"

    def predict(
        self,
        texts: Any,
        *,
        threshold: float | None = None,
        consistency: str | None = None,
        tune: str | None = None,
        calibrated: bool | None = None,
        top_k: int | None = None,
        confidence: float | None = None,
        calibrate: Place | None = None,
        text: str | None = None,
    ) -> Any:
        """Return the predicted nodes of each text: a list of ids in taxonomy order, ancestors first.

        Args:
            texts: one text; or several: a list, tuple, Series, array or generator of texts, a DataFrame or a
                `datasets.Dataset`.
            threshold, consistency, tune, calibrated: as for `load`; None: the model's.
            top_k: the nodes of the best k paths, as `predict_paths` returns them; None: all predicted nodes.
            confidence: paths are cut back to an ancestor so that at most 1 - confidence of all documents
                have any wrong node; it needs documents that training has never read.
            calibrate: the prepared folder of such documents, in place of trainer.calibration_share.
            text: the column of the texts, of a table; None: the one named text, or the only one.

        Returns:
            A list of ids for one text; a list of such lists for several.

        Raises:
            ConfigError: an option that is out of range.
            DataError: a text is missing or is no text; with its position, from 0.
        """
        given = {"threshold": threshold, "consistency": consistency, "tune": tune, "calibrated": calibrated}
        decision = self._decision(given, top_k, confidence, calibrate)

        def nodes(decided: Decided, row: int) -> list[str]:
            if top_k is None:
                return decision.nodes(decided, row)
            chosen = {node for path in decision.paths(decided, row) for node in path.nodes}
            return sorted(chosen, key=self.taxonomy.index.__getitem__)

        return self._each(texts, text, decision, nodes)

    def predict_paths(
        self,
        texts: Any,
        *,
        threshold: float | None = None,
        consistency: str | None = None,
        tune: str | None = None,
        calibrated: bool | None = None,
        top_k: int | None = None,
        confidence: float | None = None,
        calibrate: Place | None = None,
        text: str | None = None,
    ) -> Any:
        """Return the predicted paths of each text, by falling score of their last node.

        Args:
            texts, threshold, consistency, tune, calibrated, confidence, calibrate, text: as for `predict`.
            top_k: the best k paths. Without a threshold they end at the k best leaves of the tree, whatever
                their scores; with one they are among the predicted paths. None: all predicted paths.

        Returns:
            A list of PredictedPath for one text; a list of such lists for several.

        Raises:
            ConfigError: an option that is out of range.
            DataError: a text is missing or is no text; with its position, from 0.
        """
        given = {"threshold": threshold, "consistency": consistency, "tune": tune, "calibrated": calibrated}
        decision = self._decision(given, top_k, confidence, calibrate)
        return self._each(texts, text, decision, decision.paths)

    def predict_proba(
        self,
        texts: Any,
        *,
        consistency: str | None = None,
        calibrated: bool | None = None,
        text: str | None = None,
    ) -> npt.NDArray[np.float32]:
        """Return the score of every node, consistent with the tree: (texts, nodes), (nodes,) for one text.

        Args:
            texts, consistency, calibrated, text: as for `predict`.

        Raises:
            ConfigError: an option that is out of range.
            DataError: a text is missing or is no text; with its position, from 0.
        """
        decision = self._decision({"consistency": consistency, "calibrated": calibrated})
        rows, is_one = self._texts(texts, text)
        parts = [decision.decide(raw).scores for raw in self._raw(rows)]
        scores = np.concatenate(parts) if parts else np.empty((0, len(self.taxonomy)), dtype=np.float32)
        return scores[0] if is_one else scores

    def _each(
        self, texts: Any, column: str | None, decision: Decision, result: Callable[[Decided, int], Any]
    ) -> Any:
        """Return `result` of every text; of one text alone, not in a list."""
        rows, is_one = self._texts(texts, column)
        results = []
        for raw in self._raw(rows):
            decided = decision.decide(raw)
            results += [result(decided, row) for row in range(len(raw))]
        return results[0] if is_one else results

    def _raw(self, texts: Sequence[str]) -> Any:
        """Yield the models' scores of some texts at a time."""
        step = self._predictor.texts_at_once
        for start in range(0, len(texts), step):
            scores: Scores = self._predictor.scores(texts[start : start + step])
            yield scores

    @staticmethod
    def _texts(given: Any, column: str | None) -> tuple[list[str], bool]:
        """Return the texts, and whether one text was given by itself."""
        is_one = isinstance(given, str)
        return texts_in([given] if is_one else given, column), is_one

    def _decision(
        self,
        given: Mapping[str, Any],
        top_k: int | None = None,
        confidence: float | None = None,
        calibrate: Place | None = None,
    ) -> Decision:
        """Return how scores become predicted nodes, from a call's options and the model's.

        Raises:
            ConfigError: an option that is out of range.
        """
        if top_k is not None and (not isinstance(top_k, numbers.Integral) or top_k < 1):
            raise ConfigError(f"top_k={top_k!r:.60} is not a whole number of at least 1, or None")
        if confidence is not None and not (
            isinstance(confidence, numbers.Real) and 0.01 <= confidence <= 0.999
        ):
            raise ConfigError(f"confidence={confidence!r:.60} is not a number from 0.01 to 0.999")
        if calibrate is not None and not isinstance(calibrate, (str, os.PathLike)):
            raise ConfigError(f"calibrate={calibrate!r:.60} is not a folder")
        folder = None if calibrate is None else Path(calibrate).expanduser()
        if folder is not None and confidence is None:
            raise ConfigError(f"calibrate={folder} acts with confidence=")
        changed = {name: value for name, value in given.items() if value is not None}
        # a threshold of the call takes the place of the model's tuned ones, and these of its threshold
        if "threshold" in changed and "tune" not in changed:
            changed["tune"] = "none"
        elif changed.get("tune", "none") != "none":
            changed.setdefault("threshold", None)
        config = self._config
        if changed:  # only these keys are checked: that takes a millisecond, each call of one text
            own = {name: getattr(config, name) for name in ("checkpoint", *_OPTIONS)}
            config = typed({**own, **changed}, StoredModel)
        options = tuple((name, getattr(config, name)) for name in _OPTIONS)
        return self._decided(options, top_k, confidence, folder, _state_of(folder))

    def _new_decision(
        self,
        options: tuple[tuple[str, Any], ...],
        top_k: int | None,
        confidence: float | None,
        folder: Path | None,
        _state: object,
    ) -> Decision:
        """Return the decision of checked options; the last argument is for the cache: see _state_of."""
        config = dataclasses.replace(self._config, **dict(options))
        return decision_for(
            config,
            self._predictor,
            top_k=None if top_k is None else int(top_k),
            confidence=confidence,
            calibrate=None if folder is None else str(folder),
        )


def _state_of(folder: Path | None) -> tuple[tuple[str, int, int], ...]:
    """Return the names, sizes and times of a folder's files, which differ after a change; () for None."""
    files = sorted(file for file in folder.iterdir() if file.is_file()) if folder and folder.is_dir() else []
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
