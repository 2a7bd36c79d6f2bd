"""Print scores of two simple methods on a prepared dataset: `python tests/bench/baselines.py data/<name>`.

Constant: one label set for every document, the one with the best micro-F1 on the training split. With c_n
documents at node n, D documents and C labels in all, a set S scores 2 sum(c_n) / (|S| D + C): the best one of
k nodes is the k most frequent, so only k is searched. A parent is at least as frequent as its children and
is sorted before them among equals: the set is closed.

Linear: TF-IDF of words and word pairs, one logistic regression a node. Most nodes are rare, so few scores
reach 0.5. It is also shown with one threshold for all nodes, chosen for micro-F1 on validation.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier

from hblm.document import SPLITS, parse_document
from hblm.taxonomy import Taxonomy, read_taxonomy

THRESHOLDS = np.round(np.arange(0.02, 0.9, 0.02), 2)


def read_split(path: Path, taxonomy: Taxonomy) -> tuple[list[str], csr_matrix]:
    """Return the texts and the 0/1 targets, documents x nodes."""
    texts: list[str] = []
    rows: list[int] = []
    columns: list[int] = []
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream):
            document = parse_document(line, f"{path}:{number + 1}")
            texts.append(document.text)
            columns += [taxonomy.index[label] for label in document.labels]
            rows += [number] * len(document.labels)
    ones = np.ones(len(rows), dtype=np.int8)
    return texts, csr_matrix((ones, (rows, columns)), shape=(len(texts), len(taxonomy)))


def best_constant(targets: csr_matrix) -> NDArray[np.bool_]:
    """Return the label set (a 0/1 row) that scores best when every document gets it."""
    counts = np.asarray(targets.sum(axis=0)).ravel()
    order = np.argsort(-counts, kind="stable")  # taxonomy order among equals: parents first
    sizes = np.arange(1, len(counts) + 1)
    scores = 2 * np.cumsum(counts[order]) / (sizes * targets.shape[0] + counts.sum())
    chosen = np.zeros(len(counts), dtype=bool)
    chosen[order[: int(scores.argmax()) + 1]] = True
    return chosen


def linear_scores(train: tuple[list[str], csr_matrix], *others: list[str]) -> list[NDArray[np.float64]]:
    """Fit on the training split and return probabilities for each of the other splits' texts."""
    texts, targets = train
    features = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=100_000)
    inputs = features.fit_transform(texts)
    model = OneVsRestClassifier(LogisticRegression(C=10, solver="liblinear", random_state=0))
    model.fit(inputs, targets)
    return [model.predict_proba(features.transform(texts)) for texts in others]


def show(name: str, targets: csr_matrix, found: NDArray[np.bool_], taxonomy: Taxonomy) -> None:
    """Print micro- and macro-F1 over all nodes of the taxonomy, then of each level."""
    places = [range(len(taxonomy)), *taxonomy.levels]
    cells = []
    for place in places:
        part = slice(place.start, place.stop)
        truth, guess = targets[:, part].toarray(), found[:, part].astype(np.int8)
        micro, macro = (
            100 * f1_score(truth, guess, average=kind, zero_division=0) for kind in ("micro", "macro")
        )
        cells.append(f"{micro:5.1f} /{macro:5.1f}")
    print(f"{name:<32}" + "  ".join(cells), flush=True)


def main() -> None:
    """Read the dataset, then print one row a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    folder = parser.parse_args().data_dir
    taxonomy = read_taxonomy(folder / "taxonomy.json")
    train, val, test = (read_split(folder / f"{split}.jsonl", taxonomy) for split in SPLITS)
    print(f"{folder}: {len(train[0])} / {len(val[0])} / {len(test[0])} documents, nodes per level", end=" ")
    print(*(len(level) for level in taxonomy.levels))
    print(
        f"{'test micro-F1 / macro-F1':<32}"
        + "  ".join(["overall     "] + [f"level {level}     " for level in range(len(taxonomy.levels))])
    )
    constant = np.tile(best_constant(train[1]), (len(test[0]), 1))
    show("constant", test[1], constant, taxonomy)
    started = time.perf_counter()
    on_val, on_test = linear_scores(train, val[0], test[0])
    show("linear, threshold 0.5", test[1], on_test >= 0.5, taxonomy)
    truth = val[1].toarray()
    tuned = max(THRESHOLDS, key=lambda t: f1_score(truth, on_val >= t, average="micro", zero_division=0))
    show(f"linear, threshold {tuned:.2f} (val)", test[1], on_test >= tuned, taxonomy)
    print(f"linear: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
