"""`python -m hblm.evaluate`: scores of a checkpoint, or of an ensemble of two, with their stored settings."""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hblm.config.evaluate import EvaluateConfig
from hblm.config.identity import ensemble_id
from hblm.console import print_views
from hblm.files import adopt_folder, scratch_folder
from hblm.inference.inputs import EvaluationInputs, open_inputs
from hblm.runs import paths, result

if TYPE_CHECKING:
    from hblm.inference.scores import EvaluationScores


def run(config: EvaluateConfig) -> None:
    """Score one split and write the evaluation's result.

    Raises:
        CheckpointError: a checkpoint is damaged, its dataset is missing or changed, or two do not match.
        ConfigError: a key does not apply to these checkpoints.
    """
    started = time.perf_counter()
    inputs = open_inputs(config)
    path_of(inputs)  # a name that no file can have is refused before hours are spent
    if inputs.is_other_data:
        print(_on_nodes(inputs))
    results = inputs.output_dir / "results"
    paths.remove_leftovers(inputs.output_dir, inputs.cache_dir)
    paths.require_writable(inputs.output_dir, results)
    # imported here, because torch takes seconds to load: errors in the inputs are reported first
    from hblm.inference.reliability import draw, lines
    from hblm.inference.scores import score_one, score_pair

    with scratch_folder(results / "predictions") as folder:
        scores = (score_pair if inputs.is_ensemble else score_one)(inputs, folder)
        with paths.naming(inputs.output_dir):
            path = path_of(inputs)
            target = path.with_suffix(paths.PREDICTIONS)
            if scores.predictions is not None:
                adopt_folder(folder, target)
                scores = replace(scores, predictions={"path": str(target.resolve()), **scores.predictions})
            try:
                write_result(inputs, scores, path, started)
                if config.figures:
                    draw(scores.reliability, path.with_suffix(".reliability"))
            except BaseException:
                shutil.rmtree(target, ignore_errors=True)  # predictions are found through their result
                raise
    names = " and ".join(str(checkpoint.meta["name"]) for checkpoint in inputs.checkpoints.values())
    title = f"{names}: {config.split}"
    if inputs.is_other_data:
        title += f" of {inputs.prepared.name}, not the data of training"
    print_views(scores.views, inputs.view, consistency=config.shown_consistency, title=title)
    for line in lines(scores.views, scores.decided, config.split):
        print(line)
    print(f"result      {path}")
    if scores.predictions is not None:
        print(f"predictions {scores.predictions['path']}")


def _on_nodes(inputs: EvaluationInputs) -> str:
    """Return a sentence on the nodes of other data that are counted."""
    counted, of_model = len(inputs.prepared.taxonomy), len(inputs.main.taxonomy)
    data = f"{inputs.prepared.folder} has "
    if counted == of_model:
        return f"{data}the checkpoint's {of_model:,} nodes"
    return (
        f"{data}{counted:,} of the checkpoint's {of_model:,} nodes: the other {of_model - counted:,} are "
        "neither predicted nor counted"
    )


def path_of(inputs: EvaluationInputs) -> Path:
    """Return a free path for the result; the caller holds the lock `paths.naming`."""
    trained, meta = inputs.main.config, inputs.main.meta
    if inputs.is_ensemble:
        return paths.ensemble_path(inputs.output_dir, meta["dataset"]["name"], inputs.other_name)
    return paths.evaluation_path(inputs.output_dir, trained, meta["tag"], inputs.other_name)


def write_result(inputs: EvaluationInputs, scores: EvaluationScores, path: Path, started: float) -> None:
    """Write the evaluation's result; `started` is its beginning by time.perf_counter."""
    config = inputs.config
    content = {
        **subject(inputs),
        "status": "done",
        "settings": {
            "split": config.split,
            "threshold": inputs.threshold,
            "posthoc_repath": config.shown_consistency == "raise",
            "view": inputs.view,
            **({"other_data": True} if inputs.is_other_data else {}),
            **scores.settings,
            **config.by_decisions,
        },
        **({"other_data": other_data_entry(inputs)} if inputs.is_other_data else {}),
        "dataset": result.dataset_entry(inputs.prepared, {config.split: scores.documents}),
        config.split: result.without_nodes(scores.views),
        **scores.decided,
        "predictions": scores.predictions,
        "seconds": {"total": time.perf_counter() - started},
        "environment": scores.environment,
    }
    result.write_result(path, content, scores.views)


def other_data_entry(inputs: EvaluationInputs) -> dict[str, Any]:
    """Return the result's entry of other data: the dataset of training, and how many nodes were counted."""
    return {
        "trained_on": inputs.main.meta["dataset"],
        "nodes": len(inputs.prepared.taxonomy),
        "nodes_of_checkpoint": len(inputs.main.taxonomy),
    }


def subject(inputs: EvaluationInputs) -> dict[str, Any]:
    """Return the result's entries of what was evaluated: one run, or an ensemble's two by branch."""
    members = {
        branch: {
            "run_id": checkpoint.meta["run_id"],
            "checkpoint": str(checkpoint.folder.resolve()),
            "choices": checkpoint.config.choices(),
            "config": dataclasses.asdict(checkpoint.config),
            "seed": checkpoint.config.seed,
            "encoder": checkpoint.meta["encoder"],
            "training": checkpoint.meta["training"],
        }
        for branch, checkpoint in inputs.checkpoints.items()
    }
    if not inputs.is_ensemble:
        return {"kind": "evaluation", **members["model"]}
    for branch, checkpoint in inputs.checkpoints.items():  # `environment` is that of td alone
        members[branch] |= {key: checkpoint.meta[key] for key in ("eval_batch_size", "precision")}
    ids = [member["run_id"] for member in members.values()]
    return {"kind": "ensemble", "run_id": ensemble_id(ids), "members": members}
