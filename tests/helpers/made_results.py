"""Made-up result files, as training and evaluation write them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

from hblm.config.train import TrainConfig

OVERALL = [
    "micro_precision",
    "micro_recall",
    "micro_f1",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "macro_f1_supported",
    "c_micro_precision",
    "c_micro_recall",
    "c_micro_f1",
    "c_macro_f1",
    "samples_precision",
    "samples_recall",
    "samples_f1",
    "exact_match",
    "violation_rate",
]
FINISHED, EVALUATED = "2026-11-26T18:20:31Z", "2026-11-27T09:00:00Z"
ENCODER = {"model_name": "FacebookAI/roberta-large", "revision": None, "commit": "e" * 40}
LEVELS = {"wos": [7, 134], "rcv1v2": [4, 55, 43, 1], "nyt": [4, 27, 51, 47, 17, 12, 6, 2], "aapd": [9, 52]}


def digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def config(method: str = "top_down", seed: int = 1, dataset: str = "wos", **values: Any) -> TrainConfig:
    """Return a configuration; values as `film__film_scale=0.3`."""
    made = TrainConfig(seed=seed)
    made.dataset.name, made.dataset.path = dataset, f"data/{dataset}"
    if method == "flat":
        values = {
            "film__propagation_method": "none",
            "head__classification_head_type": "linear",
            "encoder__project_embedding": False,
            **values,
        }
    elif method in ("dual", "tri_head_diffcat"):
        values = {"joint_variant__joint_variant": method, **values}
    else:
        values = {"direction__cascade_direction": method, **values}
    for name, value in values.items():
        node, _, key = name.partition("__")
        setattr(getattr(made, node) if key else made, key or node, value)
    return made


def scores(micro: float, macro: float, levels: list[int], *, closed: bool = False) -> dict[str, Any]:
    """Return one view's scores."""
    overall = {**dict.fromkeys(OVERALL, micro), "macro_f1": macro, "violation_rate": 0.02, "support": 900}
    per_level = [
        {"level": level, "nodes": n, **overall, "macro_f1": macro - 0.05 * level}
        for level, n in enumerate(levels)
    ]
    parts = {
        "overall": overall,
        "per_level": per_level,
        "hierarchical": {"precision": micro, "recall": micro, "f1": micro},
        "by_frequency": [
            {"train_documents": name, "nodes": 5, "macro_f1": macro * share}
            for name, share in (("0", 0.1), ("1-9", 0.5), ("10-99", 0.9), ("100+", 1.1))
        ],
    }
    if closed:
        return parts
    return {
        "documents": 500,
        "threshold": 0.5,
        **parts,
        "ranking": {"r_precision": micro, "precision_at_1": micro},
        "repath": scores(micro + 0.01, macro + 0.01, levels, closed=True),
    }


def result(
    method: str = "top_down",
    seed: int = 1,
    dataset: str = "wos",
    *,
    micro: float = 0.8,
    macro: float = 0.7,
    data: str = "d",
    levels: list[int] | None = None,
    commit: str | None = "c" * 40,
    dirty: bool = False,
    run_id: str | None = None,
    epochs: int = 3,
    finished: str = FINISHED,
    encoder: dict[str, Any] = ENCODER,
    made_with: dict[str, Any] | None = None,
    **values: Any,
) -> dict[str, Any]:
    """Return a training run's result; `data` names a version of the dataset, `made_with` an environment."""
    made = config(method, seed, dataset, **values)
    levels = levels or LEVELS.get(dataset, [5, 20])
    joint = made.joint_variant.is_joint
    views = ("fused", "td", "bu") if joint else ("single",)
    return {
        "schema_version": 1,
        "formulas": 2,
        "finished": finished,
        "run_id": run_id or digest(dataclasses.asdict(made), data),
        "status": "done",
        "kind": "joint" if joint else "single",
        "choices": made.choices(),
        "config": dataclasses.asdict(made),
        "dataset": {
            "name": dataset,
            "path": f"/data/{dataset}",
            "fingerprint": digest(dataset, data, levels),
            "files": {"taxonomy.json": digest(dataset, levels)},
            "documents": {"train": 4000, "val": 500, "test": 500},
            "levels": levels,
        },
        "encoder": encoder,
        "training": digest(dataclasses.asdict(made), data, "training")[:16],
        "seed": seed,
        "best_epoch": epochs,
        "history": [
            {"epoch": at, "train_loss": 1 / at, "val_loss": 1.0, "val_micro_f1": micro, "val_macro_f1": macro}
            for at in range(1, epochs + 1)
        ],
        "val": {view: scores(micro - 0.01, macro - 0.01, levels) for view in views},
        "test": {view: scores(micro, macro, levels) for view in views},
        "parameters": {"total": 1000, "trainable": 10},
        "seconds": {"total": 60.5, "train": 50.0},
        "throughput": {"documents_per_second": 80.0},
        "environment": {
            "hblm": "0.1.0",
            "git_commit": commit,
            "git_dirty": dirty,
            "device": "cpu",
            "device_kind": "cpu",
            "processes": 1,
            "precision": "fp32",
            **(made_with or {}),
        },
    }


def of_first_version(made: dict[str, Any], **environment: Any) -> dict[str, Any]:
    """Return a result as version 0.1 wrote it; `environment` are further values of its environment."""
    left = {k: v for k, v in made.items() if k not in ("formulas", "finished", "encoder", "training")}
    code = {key: made["environment"][key] for key in ("hblm", "git_commit", "git_dirty")}
    return {**left, "environment": {**code, "device": "cpu", "precision": "fp32", **environment}}


def evaluation(
    of: dict[str, Any], *, threshold: float = 0.5, finished: str = EVALUATED, **settings: Any
) -> dict[str, Any]:
    """Return an evaluation of a run on the test split."""
    test = {view: {**scores, "threshold": threshold} for view, scores in of["test"].items()}
    without = ("val", "history", "parameters")
    left = {name: value for name, value in of.items() if name not in without}
    all_settings = {
        "split": "test",
        "threshold": threshold,
        "posthoc_repath": False,
        "view": "single",
        **settings,
    }
    made = {**left, "kind": "evaluation", "settings": all_settings, "test": test, "checkpoint": "/x"}
    return {**made, "finished": finished} if "finished" in of else made


def on_other_data(evaluation: dict[str, Any], dataset: str, ahead: float = 0.0) -> dict[str, Any]:
    """Return an evaluation as one of another dataset's documents; its scores are higher by `ahead`."""
    levels = LEVELS.get(dataset, [5, 20])
    test = {
        view: scores(of_view["overall"]["micro_f1"] + ahead, of_view["overall"]["macro_f1"] + ahead, levels)
        for view, of_view in evaluation["test"].items()
    }
    own = evaluation["dataset"]
    trained_on = {name: own[name] for name in ("name", "path", "fingerprint")}
    return {
        **evaluation,
        "dataset": result(dataset=dataset)["dataset"],
        "settings": {**evaluation["settings"], "other_data": True},
        "other_data": {
            "trained_on": trained_on,
            "nodes": sum(levels),
            "nodes_of_checkpoint": sum(own["levels"]),
        },
        "test": test,
    }


def ensemble(td: dict[str, Any], bu: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Return an ensemble of two runs, with the scores of the first."""
    made = evaluation(td, **{"ensemble_weight": 0.5, "ensemble_weight_search": None, **settings})
    keys = ("run_id", "choices", "config", "seed", "encoder", "training")
    members = {name: {key: one[key] for key in keys if key in one} for name, one in (("td", td), ("bu", bu))}
    left = {name: value for name, value in made.items() if name not in keys}
    return {**left, "kind": "ensemble", "run_id": digest(members), "members": members}


def write(folder: Path, name: str, content: dict[str, Any], *, changed: float | None = None) -> Path:
    """Write a result below a folder's results/; `changed` is the time of the file, Unix time."""
    path = folder / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    if changed is not None:
        os.utime(path, (changed, changed))
    return path


def write_grid(
    folder: Path, methods: dict[str, float], datasets: tuple[str, ...], seeds: tuple[int, ...]
) -> None:
    """Write a run for each cell of a grid; a method's number is how far it is ahead."""
    chance = random.Random(0)
    for dataset in datasets:
        for seed in seeds:
            base = 0.7 + chance.gauss(0, 0.004)
            for method, ahead in methods.items():
                macro = base + ahead + chance.gauss(0, 0.001)
                made = result(method, seed, dataset, micro=macro + 0.1, macro=macro)
                write(folder, f"{dataset}_{method}_seed{seed}", made)


SCORES = {"micro_f1": 0.8, "macro_f1": 0.5, "support": 12}


def small_view(micro: float = 0.8, **more: Any) -> dict[str, Any]:
    """Return the scores of one view."""
    return {
        "documents": 9,
        "threshold": 0.5,
        "overall": {**SCORES, "micro_f1": micro},
        "per_level": [{"level": 0, "nodes": 2, "micro_f1": 0.9}, {"level": 1, "nodes": 5, "micro_f1": None}],
        "hierarchical": {"f1": 0.81},
        "ranking": {"precision_at_1": 1.0},
        "by_frequency": [{"train_documents": "10-99", "nodes": 7, "macro_f1": 0.4}],
        "repath": {"overall": {**SCORES, "micro_f1": micro + 0.01}, "per_level": []},
        **more,
    }


def small_result(kind: str = "single", run_id: str = "a" * 64, seed: int = 1, **more: Any) -> dict[str, Any]:
    """Return a result as training and evaluation write it."""
    return {
        "schema_version": 1,
        "kind": kind,
        "run_id": run_id,
        "status": "done",
        "choices": {"dataset": "wos", "film": "sigmoid", "direction": "top_down", "joint_variant": "none"},
        "config": {
            "seed": seed,
            "threshold": 0.5,
            "trackers": [],
            "film": {"film_scale": 0.2},
            "dataset": {"name": "wos", "prepare": {"seed": 13}},
        },
        "dataset": {
            "name": "wos",
            "fingerprint": "f" * 64,
            "files": {"taxonomy.json": "7" * 64},
            "levels": [7, 134],
        },
        "seed": seed,
        "val": {"single": small_view(0.7)},
        "test": {"single": small_view()},
        "environment": {"git_commit": "c0ffee", "git_dirty": False, "device": "cpu"},
        **more,
    }


def reasons(frame: Any) -> dict[str, str]:
    return {passed.file.name: passed.why for passed in frame.attrs["passed_over"]}


def file_names(frame: Any) -> set[str]:
    return {Path(file).stem for file in frame["file"]}
