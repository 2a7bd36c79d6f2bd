"""Held-out scores of tuned thresholds, calibration errors and conformal risk, of real runs.

For each checkpoint make both evaluations first:

    python -m hblm.evaluate checkpoint=DIR split=val predictions=true predictions_floor=0
    python -m hblm.evaluate checkpoint=DIR split=test predictions=true predictions_floor=0
    python tests/bench/decisions.py DIR DIR ...

Thresholds: validation and test documents are pooled, drawn anew, and as many as the validation split has
choose the thresholds; the others score them. Risk: half of the test documents calibrate, the others measure.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from hblm.engine import risk, tuning
from hblm.engine.calibration import CalibrationCounter
from hblm.engine.tuning import GRID, TuningCounter, raised
from hblm.runs.checkpoint import open_checkpoint
from hblm.taxonomy import Taxonomy

DRAWS, RISK_DRAWS = 20, 200  # of each run
Scored = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]  # scores and labels, (documents, nodes)


class Run(NamedTuple):
    """A run's taxonomy and its scored documents."""

    taxonomy: Taxonomy
    val: Scored
    test: Scored


def read(folder: Path) -> Run:
    """Return a checkpoint's predictions from the evaluations beside it."""
    checkpoint = open_checkpoint(folder)
    nodes = [node.id for node in checkpoint.taxonomy.nodes]
    splits = {}
    for file in sorted((folder.parent.parent / "results").glob("eval_*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        if result["run_id"] == checkpoint.meta["run_id"] and result["predictions"]:
            table = pd.read_parquet(result["predictions"]["path"])
            of_nodes = {
                column: table.pivot(index="document", columns="node", values=column)[nodes].to_numpy()
                for column in ("score", "target")
            }
            splits[result["settings"]["split"]] = (
                of_nodes["score"].astype(np.float32),
                of_nodes["target"].astype(np.bool_),
            )
    return Run(checkpoint.taxonomy, splits["val"], splits["test"])


def f1(predicted: npt.NDArray[np.bool_], gold: npt.NDArray[np.bool_], monitor: str) -> float:
    """Return micro- or macro-F1."""
    hits, total = (predicted & gold).sum(0), predicted.sum(0) + gold.sum(0)
    return float(2 * hits.sum() / total.sum() if monitor == "micro_f1" else (2 * hits / total.clip(1)).mean())


def thresholds(runs: list[Run], monitor: str) -> None:
    """Print the held-out score of each kind of threshold, and its difference from one for all nodes."""
    draw, values = np.random.default_rng(0), defaultdict(list)
    for taxonomy, val, test in runs:
        scores, gold = (np.concatenate(each) for each in zip(val, test, strict=True))
        sizes = [len(level) for level in taxonomy.levels]
        for _ in range(DRAWS):
            chosen_on, held_out = np.split(draw.permutation(len(gold)), [len(val[1])])
            counter = TuningCounter(taxonomy, len(chosen_on))
            counter.update(np.arange(len(chosen_on)), raised(scores[chosen_on], taxonomy), gold[chosen_on])
            best = counter.tuned(monitor)
            curves = tuning._Curves(counter.counted().sum(0, dtype=np.int64))
            own = GRID[curves.node_steps(monitor, curves.best_step(monitor), 0)]
            kinds = {"0.5": 0.5, "global": best.everywhere, "level": np.repeat(best.level, sizes)}
            for kind, each in {**kinds, "node": best.node, "node, not shrunk": own}.items():
                reached = scores[held_out] >= np.asarray(each, np.float32)
                values[kind].append(100 * f1(raised(reached, taxonomy), gold[held_out], monitor))
    for kind, of_kind in values.items():
        behind = np.array(of_kind) - values["global"]
        error = behind.std() / len(behind) ** 0.5
        print(f"{monitor} {kind:16} {np.mean(of_kind):.2f}  to global {behind.mean():+.2f} ± {error:.2f}")


def confidence(runs: list[Run], share: float) -> None:
    """Print the risk of documents that did not calibrate, over many draws."""
    draw, risks, cuts = np.random.default_rng(0), [], defaultdict(list)
    for taxonomy, _, (raw, gold) in runs:
        scores, predicted = raised(raw, taxonomy), raised(raw >= np.float32(0.5), taxonomy)
        critical = risk.critical_scores(scores, predicted, gold)
        for _ in range(RISK_DRAWS):
            calibrating, held_out = np.array_split(draw.permutation(len(gold)), 2)
            returned = predicted & (scores >= risk.least_score(critical[calibrating], share))
            counter = risk.RiskCounter(taxonomy)
            counter.update(predicted[held_out], returned[held_out], gold[held_out])
            measured = counter.compute()
            risks.append(measured["risk"])
            for name in ("risk_before", "shortened", "depth", "depth_before"):
                cuts[name].append(measured[name])
    low, high = np.quantile(risks, (0.05, 0.95))
    means = ", ".join(f"{name} {np.mean(each):.3f}" for name, each in cuts.items())
    print(f"confidence {share}: risk {np.mean(risks):.4f}, 5 to 95 % {low:.3f} to {high:.3f}; {means}")


def errors(runs: list[Run]) -> None:
    """Print temperatures and test ECE of each level, mean over runs."""
    rows = []
    for taxonomy, val, test in runs:
        chosen_on, held_out = CalibrationCounter(taxonomy), CalibrationCounter(taxonomy)
        chosen_on.update(*val)
        held_out.update(*test)
        temperatures = chosen_on.temperatures()
        levels = zip(held_out.reliability(), held_out.reliability(temperatures), strict=True)
        rows.append([(*before.error, *after.error) for before, after in levels])
        print("temperatures", np.round(temperatures, 2).tolist())
    for level, row in enumerate(100 * np.mean(rows, 0)):
        print(f"level {level}: ECE (all, positive, negative) {row[:3].round(2)}, after {row[3:].round(2)}")


def main() -> None:
    """Print all tables of the checkpoints on the command line."""
    runs = [read(Path(folder)) for folder in sys.argv[1:]]
    for monitor in ("micro_f1", "macro_f1"):
        thresholds(runs, monitor)
    for share in (0.8, 0.9, 0.95):
        confidence(runs, share)
    errors(runs)


if __name__ == "__main__":
    main()
