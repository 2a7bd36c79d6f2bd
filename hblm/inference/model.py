"""`hblm.load`: a trained model that predicts labels of texts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hblm.config.schema import typed
from hblm.config.stored_model import StoredModel
from hblm.config.train import FUSED_VIEWS
from hblm.errors import CheckpointError, ConfigError
from hblm.inference.decision import Decided, Decision
from hblm.inference.predictor import Predictor, Scores, open_predictor
from hblm.inference.texts import texts_in
from hblm.taxonomy import Taxonomy

Place = str | os.PathLike[str]
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


def load(
    checkpoint: Place | Sequence[Place],
    *,
    device: str = "auto",
    precision: str = "auto",
    backend: str = "auto",
    threshold: float | None = None,
    consistency: str = "raise",
    joint_eval_view: str | None = None,
    ensemble_weight: float | None = None,
    fuse: Mapping[str, float] | None = None,
    revision: str | None = None,
) -> Model:
    """Return a trained model, ready to predict.

    Args:
        checkpoint: the folder of a trained model, or a model of the hub, "owner/name"; of several, their
            logits are averaged.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16.
        backend: auto, torch or onnx.
        threshold: the score from which on a node is predicted; None: that of the training.
        consistency: raise: a predicted node brings its ancestors; cap: it needs them; none: each by itself.
        joint_eval_view: of a joint model: fused, td, bu or mix; None: that of the training.
        ensemble_weight: of a top-down and a bottom-up model: that of the top-down one.
        fuse: of a model with joint_variant=tri_head_diffcat: other weights of td, bu and mix.
        revision: of a model of the hub.

    Raises:
        CheckpointError: a checkpoint is missing or damaged, or several do not belong together.
        ConfigError: all faults of the options, a line each.
    """
    places = [checkpoint] if isinstance(checkpoint, (str, os.PathLike)) else [*checkpoint]
    options: dict[str, Any] = {
        "device": device,
        "precision": precision,
        "backend": backend,
        "threshold": threshold,
        "consistency": consistency,
        "joint_eval_view": joint_eval_view,
        "ensemble_weight": ensemble_weight,
        **_fuse_weights(fuse or {}),
    }
    folders = [str(_folder_of(place, revision)) for place in places]
    return Model(typed({"checkpoint": folders, **options}, StoredModel))


def _folder_of(place: Place, revision: str | None) -> Path:
    """Return the folder of a model; one of the hub is downloaded, unless it was before.

    Raises:
        CheckpointError: it is neither a folder, nor a model of the hub that can be downloaded.
        ConfigError: a revision of a folder.
    """
    folder = Path(place).expanduser().absolute()
    if folder.exists() or not _HUB_ID.fullmatch(str(place)):
        if revision is not None:
            raise ConfigError(f"revision={revision} is of a model of the hub, and {place} is a folder")
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(place), revision=revision))
    except (OSError, ValueError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"checkpoint={place} is not a folder, and as a model of the hub: {why:.300}"
        ) from None


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
        top_k: int | None = None,
        text: str | None = None,
    ) -> Any:
        """Return the predicted nodes of each text: a list of ids in taxonomy order, ancestors first.

        Args:
            texts: one text; or several: a list, tuple, Series, array or generator of texts, a DataFrame or a
                `datasets.Dataset`.
            threshold: as for `load`; None: the model's.
            consistency: as for `load`; None: the model's.
            top_k: the nodes of the best k paths, as `predict_paths` returns them; None: all predicted nodes.
            text: the column of the texts, of a table; None: the one named text, or the only one.

        Returns:
            A list of ids for one text; a list of such lists for several.

        Raises:
            ConfigError: an option that is out of range.
            DataError: a text is missing or is no text; with its position, from 0.
        """
        decision = self._decision(threshold, consistency, top_k)

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
        top_k: int | None = None,
        text: str | None = None,
    ) -> Any:
        """Return the predicted paths of each text, by falling score of their last node.

        Args:
            texts, threshold, consistency, text: as for `predict`.
            top_k: the best k paths. Without a threshold they end at the k best leaves of the tree, whatever
                their scores; with one they are among the predicted paths. None: all predicted paths.

        Returns:
            A list of PredictedPath for one text; a list of such lists for several.

        Raises:
            ConfigError: an option that is out of range.
            DataError: a text is missing or is no text; with its position, from 0.
        """
        decision = self._decision(threshold, consistency, top_k)
        return self._each(texts, text, decision, decision.paths)

    def predict_proba(
        self, texts: Any, *, consistency: str | None = None, text: str | None = None
    ) -> npt.NDArray[np.float32]:
        """Return the score of every node, consistent with the tree: (texts, nodes), (nodes,) for one text.

        Args:
            texts, consistency, text: as for `predict`.

        Raises:
            ConfigError: an option that is out of range.
            DataError: a text is missing or is no text; with its position, from 0.
        """
        decision = self._decision(None, consistency, None)
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

    def _decision(self, threshold: float | None, consistency: str | None, top_k: int | None) -> Decision:
        """Return how scores become predicted nodes, from a call's options and the model's.

        Raises:
            ConfigError: an option that is out of range.
        """
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise ConfigError(f"top_k={top_k!r:.60} is not a whole number of at least 1, or None")
        given = {"threshold": threshold, "consistency": consistency or self._config.consistency}
        checked = typed({"checkpoint": self._config.checkpoint, **given}, StoredModel)
        return self._predictor.decision(
            threshold=checked.threshold, consistency=checked.consistency, top_k=top_k
        )
