"""The estimator: scikit-learn's own checks, its tools around it, and labels in their forms."""

from __future__ import annotations

import pickle
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

import hblm
from hblm.api.estimator import HBLMClassifier
from hblm.api.label_nodes import nodes_of
from hblm.api.targets import Reader
from hblm.errors import ConfigError, DataError
from hblm.inference.decision import Decision
from hblm.taxonomy import Node, Taxonomy

QUICK = {
    "experiment": None,
    "encoder": "tiny",
    "trainer": "smoke",
    "pooling": "max",
    "max_length": 32,
    "epochs": 1,
    "device": "cpu",
}
LEARNING = {**QUICK, "epochs": 12, "batch_size": 10, "learning_rate": 1e-2, "head_learning_rate": 1e-2}
PATHS = [("A", "B"), ("A", "C"), ("D", "E"), ("D",)] * 12
TREE = Taxonomy([Node("t", "top", None), Node("l", "left", "t")])
TEXTS = [f"{' '.join(path)} {'xyz'[at % 3]}" for at, path in enumerate(PATHS)]


@pytest.fixture(scope="module")
def fitted(made_once) -> HBLMClassifier:
    """Return an estimator that learnt something, from its pickle: one process of the tests trains it."""

    def fit(folder: Path) -> None:
        joblib.dump(HBLMClassifier(**LEARNING).fit(TEXTS, PATHS), folder / "estimator")

    return joblib.load(made_once("estimator", fit) / "estimator")


class OnRows(HBLMClassifier):
    """The estimator on the texts of rows of numbers, which scikit-learn's checks make."""

    def fit(self, X, y):
        return super().fit(_texts_of(X), y)

    def predict(self, X):
        return super().predict(_texts_of(X))

    def predict_proba(self, X):
        return super().predict_proba(_texts_of(X))

    def score(self, X, y):
        return super().score(_texts_of(X), y)


def _texts_of(rows):
    return [" ".join(f"{value:.1f}" for value in row) for row in np.asarray(rows)]


WITHOUT_TRAINING = [
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_estimators_unfitted",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
]
WITH_TRAINING = [  # by OnRows
    "check_dict_unchanged",
    "check_dont_overwrite_parameters",
    "check_estimators_fit_returns_self",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_pipeline_consistency",
    "check_readonly_memmap_input",
]
# Not run: checks of features (n_features_in_, dtypes, NaN, sparse, complex, one feature, columns of frames),
# because texts have none; of scores that add up to 1 and of decision functions, because each node has a
# probability by itself; of class and sample weights in fit, of transformers, regressors and clusterers, which
# it is not; of accuracies on numbers (check_classifiers_train), which its encoder does not read.


@pytest.mark.parametrize("check", WITHOUT_TRAINING)
def test_a_check_of_scikit_learn_without_training(check):
    getattr(estimator_checks, check)("HBLMClassifier", HBLMClassifier())


@pytest.mark.slow
@pytest.mark.parametrize(
    "check",
    [
        *WITH_TRAINING[:3],
        *(pytest.param(check, marks=pytest.mark.long) for check in WITH_TRAINING[3:]),
    ],
)
def test_a_check_of_scikit_learn_with_training(check):
    getattr(estimator_checks, check)("OnRows", OnRows(**QUICK))


def test_the_package_names_it_and_without_scikit_learn_what_to_install(monkeypatch):
    assert hblm.HBLMClassifier is HBLMClassifier
    monkeypatch.delitem(sys.modules, "hblm.api.estimator")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        _ = hblm.HBLMClassifier


@pytest.mark.slow
def test_it_learns_and_predicts_the_form_of_its_labels(fitted):
    predicted = fitted.predict(TEXTS)
    assert all(isinstance(path, tuple) for path in predicted)
    assert set(predicted) <= set(PATHS)
    assert fitted.score(TEXTS, PATHS) > 0.9
    assert fitted.score(TEXTS, PATHS, sample_weight=np.ones(len(TEXTS))) == fitted.score(TEXTS, PATHS)
    assert fitted.classes_.tolist() == [("A",), ("D",), ("A", "B"), ("A", "C"), ("D", "E")]
    scores = fitted.predict_proba(TEXTS)
    assert scores.shape == (48, 5)
    assert (scores[:, 0] >= scores[:, 2:4].max(axis=1)).all()
    assert len(fitted.history_) >= 1
    with pytest.raises(DataError, match=r"texts\[1\] is missing"):
        fitted.predict(["a", None])


@pytest.mark.slow
def test_it_is_pickled_and_shared_by_threads_and_leaves_no_files(fitted, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    again = pickle.loads(pickle.dumps(fitted))
    expected = fitted.predict_proba(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        for scores in pool.map(lambda _: again.predict_proba(TEXTS), range(8)):
            np.testing.assert_array_equal(scores, expected)
    assert again.get_params() == fitted.get_params()
    assert not list(tmp_path.iterdir())
    with pytest.raises(NotFittedError):
        clone(fitted).predict(TEXTS)


@pytest.mark.slow
def test_several_paths_and_a_validation_set_of_ones_own(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    several = [[path, ("F",)] if at % 2 else [path] for at, path in enumerate(PATHS)]
    texts = [f"{text} F" if at % 2 else text for at, text in enumerate(TEXTS)]
    estimator = HBLMClassifier(**LEARNING).fit(
        texts, several, validation=(["A B", "G"], [[("A", "B")], [("G",)]])
    )
    assert ("G",) in estimator.classes_.tolist()
    assert estimator.score(texts, several) > 0.8
    assert all(isinstance(path, tuple) for paths in estimator.predict(texts) for path in paths)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_matrix_of_a_taxonomy_and_documents_without_labels(learnable):
    y = np.zeros((20, 7), dtype=int)
    y[:18, 0] = y[:18, 2] = 1
    texts = ["A C"] * 18 + ["x y"] * 2
    estimator = HBLMClassifier(**{**QUICK, "epochs": 2}, taxonomy=learnable)
    with pytest.warns(UserWarning, match=r"of 18 documents have no label, and are not trained on"):
        estimator.fit(texts, y)
    predicted = estimator.predict(texts)
    assert (predicted.shape, predicted.dtype) == ((20, 7), np.int64)
    assert estimator.classes_.tolist() == ["a", "b", "a1", "a2", "b1", "a1x", "a1y"]


def test_a_frame_and_its_array_score_alike(monkeypatch):
    y = pd.DataFrame(np.eye(2, dtype=int), columns=["x", "y"])
    estimator = HBLMClassifier()
    estimator._nodes = nodes_of([Reader().read(y)], Reader())
    monkeypatch.setattr(estimator, "_chosen", lambda X: [{0}, {1}])
    assert estimator.score(["a", "b"], y) == estimator.score(["a", "b"], y.to_numpy()) == 1
    pd.testing.assert_frame_equal(estimator.predict(["a", "b"]), y)


class _Halves:
    """A model whose scores are all one half; it records the device that it was opened on."""

    threshold = 0.5

    def __init__(self, config):
        self.device = config.device

    def decision(self, threshold, consistency):
        return Decision(TREE, threshold, consistency=consistency)

    def scores(self, texts):
        return np.full((len(texts), len(TREE)), 0.5, np.float32)


def test_parameters_that_are_set_after_training_act_and_are_checked(monkeypatch):
    monkeypatch.setattr("hblm.api.estimator.open_predictor", _Halves)
    reader = Reader(tree=TREE)
    estimator = HBLMClassifier(device="cpu", consistency="cap")
    estimator.checkpoint_, estimator._nodes = {}, nodes_of([reader.read([["t"]])], reader)
    assert estimator.predict(["a"]) == [["t", "l"]]
    assert estimator.set_params(threshold=np.float64(0.6)).predict(["a"]) == [[]]
    assert estimator._open("cpu") is estimator._open("cpu")
    assert estimator._open("cuda").device == "cuda"
    for wrong in ({"consistency": "foo"}, {"threshold": 7}, {"device": "tpu"}):
        before = estimator.get_params()
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            estimator.set_params(**wrong).predict(["a"])
        estimator.set_params(**before)


@pytest.mark.long
def test_the_tools_of_scikit_learn_around_it():
    lower = FunctionTransformer(lambda texts: [text.upper() for text in texts])
    pipeline = Pipeline([("upper", lower), ("model", HBLMClassifier(**QUICK))])
    scores = cross_val_score(pipeline, TEXTS[:16], [[path] for path in PATHS[:16]], cv=2)
    assert scores.shape == (2,)
    assert ((scores >= 0) & (scores <= 1)).all()
    halves = [([*range(8)], [*range(8, 16)])]
    search = GridSearchCV(HBLMClassifier(**QUICK), {"seed": [1, 2]}, cv=halves, refit=False)
    search.fit(TEXTS[:16], np.eye(2, dtype=int)[[0, 1] * 8])
    assert len(search.cv_results_["params"]) == 2


def test_faults_of_parameters_and_labels():
    fit = HBLMClassifier(**QUICK).fit
    with pytest.raises(DataError, match="3 texts, and labels of 2"):
        fit(["a", "b", "c"], ["x", "y"])
    with pytest.raises(DataError, match="y is None"):
        fit(["a"], None)
    with pytest.raises(DataError, match="1 documents; training needs two"):
        fit(["a"], ["x"])
    with pytest.raises(DataError, match="y has 4 columns, and that of training 2"):
        fit(["a", "b"], np.eye(2), validation=(["a"], np.zeros((1, 4))))
    for parameters, message in (
        ({"lists": "paths"}, "lists='paths' is not one of path, labels"),
        ({"separator": ""}, "separator='' is not a text between names"),
        ({"separator": 3}, "separator=3 is not a text between names"),
        ({"seed": "x"}, "seed='x' is not a whole number of at least 0"),
        ({"seed": -1}, "seed=-1 is not a whole number of at least 0"),
        (
            {"threshold": 7, "consistency": "foo"},
            "(?s)threshold=7 is out of range.*consistency=foo is not one",
        ),
        ({"validation_fraction": 1}, "validation_fraction=1 is not a number between 0 and 1"),
        ({"film": "logt", "epochs": 0}, r"(?s)film=logt is not.*trainer.epochs=0 is out of range"),
        ({"overrides": ["foo=1"]}, "foo=1 is not a key"),
    ):
        with pytest.raises(ConfigError, match=message):
            HBLMClassifier(**{**QUICK, **parameters}).fit(TEXTS[:4], PATHS[:4])
