"""`python -m hblm.evaluate`: scores of a trained checkpoint, or of two, every setting restored from them."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hblm.config.evaluate import EvaluateConfig
from hblm.config.identity import ensemble_id
from hblm.console import StartTask, log, print_views, progress
from hblm.files import adopt_folder, scratch_folder
from hblm.inference.inputs import Request, understand
from hblm.runs import paths

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hblm.data.batches import Split
    from hblm.data.tokens import TokenisedSplit
    from hblm.engine.predictions import PredictionWriter
    from hblm.engine.scoring import Scores, Scoring
    from hblm.nn.classifier import Classifier


@dataclass(frozen=True)
class Loaded:
    """A checkpoint's model on its device, and the splits as the run saw them.

    Attributes:
        splits: all of them.
        inputs: those that are to be scored, as the model takes them.
    """

    model: Classifier
    splits: Mapping[str, TokenisedSplit]
    inputs: Mapping[str, Split]
    scoring: Scoring
    accelerator: Accelerator


@dataclass(frozen=True)
class Found:
    """What an evaluation found: scores by view, and what belongs into the record besides."""

    views: Mapping[str, Scores]
    documents: int
    environment: Mapping[str, Any]
    settings: Mapping[str, Any]
    predictions: Mapping[str, Any] | None = None


def run(config: EvaluateConfig) -> None:
    """Score one split and write the evaluation's result."""
    started = time.perf_counter()
    request = understand(config)
    path_of(request)  # a name that is none is refused before hours are spent
    results = request.output_dir / "results"
    paths.remove_leftovers(request.output_dir, request.cache_dir)
    paths.require_writable(request.output_dir, results)
    with scratch_folder(results / "predictions") as folder:
        found = (evaluate_pair if request.is_ensemble else evaluate_one)(request, folder)
        with paths.naming(request.output_dir):
            path = path_of(request)
            target = path.with_suffix(paths.PREDICTIONS)
            if found.predictions is not None:
                adopt_folder(folder, target)
                found = replace(found, predictions={"path": str(target.resolve()), **found.predictions})
            try:
                write_record(request, found, path, started)
            except BaseException:  # predictions without a result belong to nothing
                shutil.rmtree(target, ignore_errors=True)
                raise
    names = " and ".join(str(checkpoint.meta["name"]) for checkpoint in request.checkpoints.values())
    print_views(found.views, request.view, repath=config.posthoc_repath, title=f"{names}: {config.split}")
    print(f"result      {path}")
    if found.predictions is not None:
        print(f"predictions {found.predictions['path']}")


def load(request: Request, branch: str, names: Iterable[str], start: StartTask) -> Loaded:
    """Load a checkpoint's model, and the documents of the named splits as it takes them."""
    # only now torch: a fault answers in a second
    from hblm.data.batches import subsample
    from hblm.data.tokens import tokenise
    from hblm.engine import build, device, session
    from hblm.engine.embeddings import Embedder

    checkpoint, trained = request.checkpoints[branch], request.trained[branch]
    accelerator = device.accelerator(request.config.device, checkpoint.meta["precision"], fallback="fp32")
    device.seed_everything(trained.seed, accelerator.device)
    model, tokenizer = session.stored_model(checkpoint, trained)
    splits = tokenise(
        request.prepared,
        tokenizer,
        max_length=trained.encoder.max_length,
        cache_dir=request.cache_dir,
        progress=start,
    )
    build.require_rows(model.encoder, tokenizer, splits, trained.encoder.model_name)
    splits |= {name: subsample(splits[name], trained.dataset_fraction) for name in ("train", "val")}
    scoring = build.scoring(
        trained,
        checkpoint.taxonomy,
        tokenizer,
        splits["train"],
        threshold=request.threshold,
        batch_size=checkpoint.meta["eval_batch_size"],
        num_workers=request.config.num_workers,
    )
    model.to(accelerator.device)
    scoring.objective.to(accelerator.device)
    tokens = {name: splits[name] for name in names}
    inputs: Mapping[str, Split] = tokens
    if not model.trainable:
        inputs = Embedder(model, tokenizer, scoring, accelerator, request.cache_dir).embed(tokens, start)
    return Loaded(model, splits, inputs, scoring, accelerator)


def evaluate_one(request: Request, folder: Path) -> Found:
    """Score a single or joint model; predictions go into `folder`."""
    from hblm.engine import device
    from hblm.engine.scoring import nobody, score

    name = request.config.split
    with progress() as start:
        loaded = load(request, "model", [name], start)
        split = loaded.inputs[name]
        writer = prediction_writer(request, loaded.splits[name], folder)
        advance = start(f"scoring {name}", len(split))
        views, _ = score(loaded.model, split, loaded.scoring, loaded.accelerator, advance, writer or nobody)
    return Found(
        views=views,
        documents=len(split),
        environment=device.environment_record(loaded.accelerator, loaded.scoring),
        settings=request.fuse_weights,
        predictions=writer.close() if writer else None,
    )


def evaluate_pair(request: Request, folder: Path) -> Found:
    """Score an ensemble: one model after the other leaves its logits on disk, then they are averaged."""
    from hblm.engine import device
    from hblm.engine.ensemble import keep_logits, score_fused, search_weight
    from hblm.engine.scoring import nobody

    name, weight = request.config.split, request.config.weight
    names = {name} if weight is not None else {name, "val"}

    def infer(
        branch: str, scratch: Path, start: StartTask
    ) -> tuple[Mapping[str, TokenisedSplit], Scoring, Any]:
        """Leave one model's logits of all splits needed; the model goes when this returns."""
        loaded = load(request, branch, sorted(names), start)
        for each, split in loaded.inputs.items():
            advance = start(f"{branch}: scoring {each}", len(split))
            keep_logits(
                scratch / f"{branch}.{each}", loaded.model, split, loaded.scoring, loaded.accelerator, advance
            )
        return loaded.splits, loaded.scoring, device.environment_record(loaded.accelerator, loaded.scoring)

    with progress() as start, scratch_folder(request.cache_dir / "ensemble") as scratch:
        splits, scoring, environment = infer("td", scratch, start)
        infer("bu", scratch, start)
        scoring.objective.to("cpu")  # as the logits on disk
        logits = {each: (scratch / f"td.{each}", scratch / f"bu.{each}") for each in names}
        search = None
        if weight is None:
            monitor = request.main.config.trainer.monitor
            weight, search = search_weight(*logits["val"], splits["val"], scoring, monitor)
            log.info("ensemble_weight=auto chose %g, the best %s on the validation split", weight, monitor)
            if name == "val":
                log.warning("the weight was chosen on the documents that are scored: these scores flatter it")
        split = splits[name]
        writer = prediction_writer(request, split, folder)
        advance = start(f"averaging {name}", len(split))
        views = score_fused(*logits[name], weight, split, scoring, advance, writer or nobody)
    return Found(
        views=views,
        documents=len(split),
        environment=environment,
        settings={"ensemble_weight": weight, "ensemble_weight_search": search},
        predictions=writer.close() if writer else None,
    )


def prediction_writer(request: Request, split: TokenisedSplit, folder: Path) -> PredictionWriter | None:
    """Return what writes the scores of the shown views into `folder`; None if they are not asked for."""
    if not request.config.predictions:
        return None
    from hblm.engine.predictions import DEFAULT_FLOOR, PredictionWriter

    floor = request.config.predictions_floor
    return PredictionWriter(
        folder,
        documents=split.document_ids(),
        nodes=[node.id for node in request.main.taxonomy.nodes],
        view=None if request.view == "all" else request.view,
        threshold=request.threshold,
        floor=DEFAULT_FLOOR if floor is None else floor,
    )


def path_of(request: Request) -> Path:
    """Return an untaken path for the result; to be called under the lock of names."""
    trained, meta = request.main.config, request.main.meta
    if request.is_ensemble:
        return paths.ensemble_path(request.output_dir, meta["dataset"]["name"])
    return paths.evaluation_path(request.output_dir, trained, meta["tag"])


def write_record(request: Request, found: Found, path: Path, started: float) -> None:
    """Write the evaluation's result."""
    from hblm.runs.result import dataset_record, without_nodes, write_result

    config = request.config
    record = {
        **subject(request),
        "status": "done",
        "settings": {
            "split": config.split,
            "threshold": request.threshold,
            "posthoc_repath": config.posthoc_repath,
            "view": request.view,
            **found.settings,
        },
        "dataset": dataset_record(request.prepared, {config.split: found.documents}),
        config.split: without_nodes(found.views),
        "predictions": found.predictions,
        "seconds": {"total": time.perf_counter() - started},
        "environment": found.environment,
    }
    write_result(path, record, found.views)


def subject(request: Request) -> dict[str, Any]:
    """Return what was evaluated: one run, or for an ensemble the two by branch."""
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
        for branch, checkpoint in request.checkpoints.items()
    }
    if not request.is_ensemble:
        return {"kind": "evaluation", **members["model"]}
    for branch, checkpoint in request.checkpoints.items():  # as each was scored; `environment` is td's
        members[branch] |= {key: checkpoint.meta[key] for key in ("eval_batch_size", "precision")}
    ids = [member["run_id"] for member in members.values()]
    return {"kind": "ensemble", "run_id": ensemble_id(ids), "members": members}
