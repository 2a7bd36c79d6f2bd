"""`hblm.HBLMClassifier`: training and prediction behind the interface of scikit-learn's estimators."""

from __future__ import annotations

import numbers
import os
import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from hblm.api.label_nodes import Nodes, nodes_of
from hblm.api.targets import Read, Reader, taxonomy_of
from hblm.api.training import train
from hblm.config.groups import OptionGroups
from hblm.config.schema import typed
from hblm.config.stored_model import StoredModel
from hblm.data.writer import Conversion, write_dataset
from hblm.document import Document
from hblm.errors import ConfigError, DataError
from hblm.inference.decision import Decided
from hblm.inference.predictor import Predictor, open_predictor
from hblm.inference.texts import texts_in
from hblm.taxonomy import Taxonomy

try:
    from sklearn.base import BaseEstimator
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise ImportError("hblm.HBLMClassifier needs scikit-learn: pip install scikit-learn") from error

_OPENING = threading.Lock()  # while a model is loaded from an estimator's bytes
_GROUPS = ("experiment", "method", "pooling", "head", "film", "loss", "trainer")
_KEYS = {  # parameter -> key of a run
    "trainable": "encoder.trainable",
    "max_length": "encoder.max_length",
    "epochs": "trainer.epochs",
    "batch_size": "trainer.batch_size",
    "learning_rate": "trainer.learning_rate",
    "head_learning_rate": "trainer.head_learning_rate",
    "patience": "trainer.patience",
    "threshold": "threshold",
    "seed": "seed",
    "device": "device",
}


# the loaded models and their devices, apart from the estimators: predicting changes nothing of an estimator,
# nor of its pickle
_LOADED: WeakKeyDictionary[HBLMClassifier, tuple[str, Predictor]] = WeakKeyDictionary()

Part = tuple[list[str], Read, Sequence[int]]  # texts, their labels, and the positions of those to use


class HBLMClassifier(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A hierarchical text classifier: `HBLMClassifier().fit(texts, paths).predict(texts)`.

    `y` is one of these, and `predict` returns the same:

    - a path for each document: a tuple or list of names, root first; a text, split at `separator`; or,
      without one, a label by itself. One path is predicted: the best root, then the best child, level by
      level;
    - a list of paths for each document: [("Arts", "Music"), ("Science", "Physics")];
    - an array of names, (documents, levels), with "" below the end of a path;
    - a matrix of 0 and 1, (documents, labels): of the nodes of `taxonomy`, or of labels without a tree; a
      DataFrame is one too, and its columns are found by name, else by position.

    A list of names is one path; with lists="labels", or with a separator or a taxonomy, it is several labels
    (paths, nodes). With a taxonomy, labels are ids of its nodes.

    Args:
        experiment: preset of settings; quickstart: a frozen encoder, quick without a GPU; recommended: the
            encoder is trained. None: hblm.train's defaults.
        encoder: an option such as minilm, a model of the hub, or a folder; None: the experiment's.
        method, pooling, head, film, loss, trainer: options of these groups; None: the experiment's.
        trainable, max_length: of the encoder; None: the experiment's.
        epochs, batch_size, learning_rate, head_learning_rate, patience: of the trainer; None: its own.
        threshold: the score from which on a node is predicted.
        consistency: raise, cap or none.
        separator: between the names of a path that is a text.
        lists: what a list of names is: path or labels.
        taxonomy: a Taxonomy, a taxonomy.json, or a folder with one.
        validation_fraction: share of the documents that is not trained on and decides the best epoch.
        seed: of training, and of the choice of these documents.
        device: auto, cpu, cuda or mps.
        overrides: "key=value" of any other key of hblm.train.

    Attributes:
        classes_: the nodes, in the order of the columns of `predict_proba`: labels, or the paths to them.
        taxonomy_: the label forest.
        history_: losses and scores of each epoch.
        checkpoint_: the files of the trained model by name.
    """

    def __init__(
        self,
        experiment: str | None = "quickstart",
        encoder: str | None = None,
        method: str | None = None,
        pooling: str | None = None,
        head: str | None = None,
        film: str | None = None,
        loss: str | None = None,
        trainer: str | None = None,
        trainable: bool | None = None,
        max_length: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        head_learning_rate: float | None = None,
        patience: int | None = None,
        threshold: float = 0.5,
        consistency: str = "raise",
        separator: str | None = None,
        lists: str = "path",
        taxonomy: Taxonomy | str | os.PathLike[str] | None = None,
        validation_fraction: float = 0.1,
        seed: int = 1,
        device: str = "auto",
        overrides: Sequence[str] = (),
    ) -> None:
        """Keep the parameters; `fit` checks them."""
        self.experiment = experiment
        self.encoder = encoder
        self.method = method
        self.pooling = pooling
        self.head = head
        self.film = film
        self.loss = loss
        self.trainer = trainer
        self.trainable = trainable
        self.max_length = max_length
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.head_learning_rate = head_learning_rate
        self.patience = patience
        self.threshold = threshold
        self.consistency = consistency
        self.separator = separator
        self.lists = lists
        self.taxonomy = taxonomy
        self.validation_fraction = validation_fraction
        self.seed = seed
        self.device = device
        self.overrides = overrides

    def fit(self, X: Any, y: Any, validation: tuple[Any, Any] | None = None) -> HBLMClassifier:
        """Train a model.

        Args:
            X: the texts, as for `hblm.load(...).predict`.
            y: their labels, in one of the forms above.
            validation: texts and labels that decide the best epoch, in place of `validation_fraction`.

        Raises:
            ConfigError: all faults of the parameters, a line each.
            DataError: a text or label with a fault, with its position; or numbers of both that differ.
        """
        reader = self._reader()
        self._stored_model()
        texts, read = _documents(X, y, reader)
        if validation is None:
            chosen, held_out = self._split(len(texts))
            parts = [(texts, read, chosen), (texts, read, held_out)]
            nodes = nodes_of([read], reader)
        else:
            others, other_read = _documents(*validation, replace(reader, columns=read.columns))
            if other_read.kind != read.kind:
                raise DataError(f"y of the validation is {other_read.kind}, and of training {read.kind}")
            parts = [(texts, read, range(len(texts))), (others, other_read, range(len(others)))]
            nodes = nodes_of([read, other_read], reader)
        self._train(nodes, parts)
        return self

    def _train(self, nodes: Nodes, parts: Sequence[Part]) -> None:
        """Train on the first part and validate on the second; keep the model, in place of an earlier one."""
        with tempfile.TemporaryDirectory(prefix="hblm-") as folder:
            data = Path(folder) / "documents"
            write_dataset(data, _conversion(nodes, parts), converter="HBLMClassifier")
            settings = {**self._settings(), "dataset": data, "output_dir": Path(folder) / "outputs"}
            result = train(*self.overrides, **settings)
            if result.checkpoint is None:
                raise ConfigError(
                    "trainer.keep_checkpoint=false leaves no model to predict with; leave it out"
                )
            self.checkpoint_ = {
                path.relative_to(result.checkpoint).as_posix(): path.read_bytes()
                for path in sorted(result.checkpoint.rglob("*"))
                if path.is_file()
            }
        self.history_ = result.content["history"]
        _LOADED.pop(self, None)
        self._nodes = nodes
        self.taxonomy_, self.classes_ = nodes.taxonomy, nodes.classes()

    def predict(self, X: Any) -> Any:
        """Return the predicted labels of texts, in the form of `y`."""
        chosen = self._chosen(X)
        return self._nodes.as_given(chosen)

    def predict_proba(self, X: Any) -> npt.NDArray[np.float32]:
        """Return the score of every node, consistent with the tree: (texts, nodes) in `classes_` order.

        A score is the probability of one node by itself; those of a text do not add up to 1.
        """
        return self._decided(X).scores

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the micro-F1 over all nodes, ancestors included; of labels without a tree, over labels."""
        chosen = self._chosen(X)
        texts, read = _documents(X, y, replace(self._reader(), columns=self._nodes.columns))
        paths = self._nodes.paths
        weights = np.ones(len(texts)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        both = total = 0.0
        for nodes, true, weight in zip(chosen, read.closed(), weights, strict=True):
            predicted = {paths[at] for at in nodes}
            both += weight * 2 * len(predicted & true)
            total += weight * (len(predicted) + len(true))
        return float(both / total) if total else 0.0

    def _chosen(self, X: Any) -> list[set[int]]:
        decided, model = self._decided(X), self._stored_model()
        threshold = self._open(model.device).threshold if model.threshold is None else model.threshold
        return self._nodes.chosen(decided.scores, decided.predicted, threshold)

    def _decided(self, X: Any) -> Decided:
        check_is_fitted(self)
        texts, model = texts_in(X), self._stored_model()
        predictor = self._open(model.device)
        decision = predictor.decision(threshold=model.threshold, consistency=model.consistency)
        return decision.decide(predictor.scores(texts))

    def _stored_model(self) -> StoredModel:
        """Return the parameters that act at prediction.

        Raises:
            ConfigError: all faults of these, a line each.
        """
        given = {"device": self.device, "threshold": self.threshold, "consistency": self.consistency}
        return typed(given, StoredModel)

    def _open(self, device: str) -> Predictor:
        """Return the trained model, which the first call loads, and the first one on another device again."""
        with _OPENING:
            if self not in _LOADED or _LOADED[self][0] != device:
                with tempfile.TemporaryDirectory(prefix="hblm-") as folder:
                    for name, content in self.checkpoint_.items():
                        path = Path(folder) / "model" / name
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(content)
                    place = StoredModel(checkpoint=[str(Path(folder) / "model")], device=device)
                    _LOADED[self] = (device, open_predictor(place))
            return _LOADED[self][1]

    def _reader(self) -> Reader:
        if self.lists not in ("path", "labels"):
            raise ConfigError(f"lists={self.lists!r:.60} is not one of path, labels")
        if self.separator is not None and (not isinstance(self.separator, str) or not self.separator):
            raise ConfigError(
                f"separator={self.separator!r:.60} is not a text between names; write None for labels that "
                "are names"
            )
        return Reader(self.separator, self.lists, taxonomy_of(self.taxonomy))

    def _settings(self) -> dict[str, Any]:
        """Return the parameters as settings of a run."""
        given = {name: getattr(self, name) for name in _GROUPS}
        if self.encoder is not None:
            is_option = self.encoder in OptionGroups().groups["encoder"]
            given["encoder" if is_option else "encoder.model_name"] = self.encoder
        given |= {key: getattr(self, name) for name, key in _KEYS.items()}
        return {name: value for name, value in given.items() if value is not None}

    def _split(self, n: int) -> tuple[Sequence[int], Sequence[int]]:
        """Return the positions of the documents to train on, and of those to validate on."""
        fraction = self.validation_fraction
        if not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
            raise ConfigError(f"validation_fraction={fraction!r:.60} is not a number between 0 and 1")
        if not isinstance(self.seed, numbers.Integral) or self.seed < 0:
            raise ConfigError(f"seed={self.seed!r:.60} is not a whole number of at least 0")
        if n < 2:
            raise DataError(f"{n} documents; training needs two, one of which validates")
        order = np.random.default_rng(self.seed).permutation(n)
        held_out = min(n - 1, max(1, round(fraction * n)))
        return sorted(order[held_out:].tolist()), sorted(order[:held_out].tolist())

    def __sklearn_is_fitted__(self) -> bool:
        return "checkpoint_" in self.__dict__

    def __sklearn_tags__(self) -> Any:
        # not tagged as a classifier: scikit-learn refuses lists of paths for these, in cross_val_score
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        tags.target_tags.required = tags.target_tags.multi_output = True
        return tags


def _documents(X: Any, y: Any, reader: Reader) -> tuple[list[str], Read]:
    """Return texts and their labels, as many of each."""
    if y is None:
        raise DataError("y is None; expected the labels of each text")
    texts, read = texts_in(X), reader.read(y)
    if len(texts) != len(read.documents):
        raise DataError(f"{len(texts)} texts, and labels of {len(read.documents)}")
    return texts, read


def _conversion(nodes: Nodes, parts: Sequence[Part]) -> Conversion:
    """Return the documents as a prepared dataset; validation documents are those of the test as well."""
    index, ids = nodes.index, [node.id for node in nodes.taxonomy.nodes]

    def documents(part: Part) -> list[Document]:
        texts, read, positions = part
        closed = read.closed()
        labels = (sorted(index[path] for path in closed[at]) for at in positions)
        return [
            Document(str(at), texts[at], tuple(ids[each] for each in chosen))
            for at, chosen in zip(positions, labels, strict=True)
        ]

    train_documents, held_out = map(documents, parts)
    labelled = [document for document in train_documents if document.labels]
    if not labelled:
        raise DataError("no document to train on has a label")
    if len(labelled) < len(train_documents):
        missing = len(train_documents) - len(labelled)
        warnings.warn(
            f"{missing:,} of {len(train_documents):,} documents have no label, and are not trained on",
            stacklevel=3,
        )
    splits: Mapping[str, Any] = {"train": labelled, "val": held_out, "test": held_out}
    return Conversion(nodes.taxonomy, splits, {})
