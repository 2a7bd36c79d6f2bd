"""Metrics: how they are written, their names and definitions."""

from __future__ import annotations

import re
from typing import NamedTuple

from hblm.config.train import SINGLE_VIEW
from hblm.tables.result_scores import CONSISTENT, RAW, SPLITS, TUNED
from hblm.tables.table import Column

VIEWS = (SINGLE_VIEW, "fused", "td", "bu", "mix")

# name in a table, and definition in its caption
SCORES = {
    "micro_f1": ("micro-F1", "2 ΣTP / (2 ΣTP + ΣFP + ΣFN) over all nodes and documents"),
    "macro_f1": (
        "macro-F1",
        "mean over all nodes of a node's F1, 0 for a node that is neither gold nor predicted "
        "(HiAGM, HGCLR, HPT; scikit-learn average=macro, zero_division=0)",
    ),
    "macro_f1_supported": ("macro-F1 (supported)", "mean of F1 over the nodes with a gold label"),
    "samples_f1": ("samples-F1", "mean over documents of the F1 of a document's nodes"),
    "c_micro_f1": (
        "C-micro-F1",
        "micro-F1 in which a true positive counts only if all its ancestors are predicted",
    ),
    "c_macro_f1": (
        "C-macro-F1",
        "macro-F1 in which a true positive counts only if all its ancestors are predicted",
    ),
    "exact_match": ("exact match", "share of documents whose predicted nodes are exactly the gold nodes"),
    "violation_rate": ("violations", "share of documents with a node predicted without its parent"),
    "hierarchical.f1": (
        "hierarchical F1",
        "F1 of the predicted and gold sets closed under ancestors (Kiritchenko 2005)",
    ),
}
_SHARES = ("precision", "recall", "f1", "match", "rate")  # endings of the names of shares
_WORDS = {RAW: "", "raise": "closed", "cap": "capped", TUNED: "tuned"}
_LOWER_IS_BETTER = ("violation_rate", "loss", "seconds", "parameters")


class Metric(NamedTuple):
    """A score of one split and view, or a number of the run itself.

    Attributes:
        text: the metric as it is written.
        split: val or test; None for a number of the run.
        view: of a joint model, "" for a number of the run.
        consistency: of the predictions that are scored: none, raise (closed under ancestors), cap or tuned.
        score: the name of the score.
    """

    text: str
    split: str | None
    view: str
    consistency: str
    score: str

    @property
    def views(self) -> tuple[str, ...]:
        """The views that count: a single model's one view counts as fused."""
        return ("fused", SINGLE_VIEW) if self.view == "fused" else (self.view,)

    @property
    def name(self) -> str:
        """The name in a table, such as test macro-F1."""
        level = re.fullmatch(r"level_(\d+)\.(.+)", self.score)
        score = level[2] if level else self.score
        known = SCORES.get(score, (score,))[0]
        words = [
            self.split or "",
            known,
            f"of level {level[1]}" if level else "",
            f"({self.view})" if self.split and self.view != "fused" else "",
            _WORDS[self.consistency],
        ]
        return " ".join(filter(None, words))

    @property
    def definition(self) -> str:
        """The definition of the score, "" if there is none beyond its name."""
        return SCORES.get(re.sub(r"^level_\d+\.", "", self.score), ("", ""))[1]


def metric_of(text: str) -> Metric:
    """Parse a metric: test.fused.macro_f1, val.repath.level_0.micro_f1, test.tuned.macro_f1, seconds.train.

    After split and view, `repath`, `cap` and `tuned` name sets that are made of the predictions.
    """
    split, _, rest = text.partition(".")
    if split not in SPLITS:
        return Metric(text, None, "", RAW, text)
    view, _, score = rest.partition(".")
    if view not in VIEWS:
        view, score = "fused", rest
    key, _, rest = score.partition(".")
    consistency = TUNED if key == TUNED else CONSISTENT.get(key, RAW)
    if consistency != RAW:
        score = rest
    return Metric(text, split, view, consistency, score.removeprefix("overall."))


def column_of(labels: tuple[str, ...], metric: Metric) -> Column:
    """Return the column of a metric, with the labels of the column keys."""
    last = metric.score.rpartition(".")[2]
    percent = metric.split is not None and (
        last.endswith(_SHARES) or "precision" in last or last == "macro_f1_supported"
    )
    lower = last.endswith(_LOWER_IS_BETTER) or metric.score.startswith(_LOWER_IS_BETTER)
    return Column(labels, metric.text, metric.name, percent, not lower)
