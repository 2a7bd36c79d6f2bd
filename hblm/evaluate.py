"""`python -m hblm.evaluate`: scores of a trained checkpoint, or of two, every setting restored from them."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hblm import cli, runs
from hblm.artifacts import adopt_folder, canonical_json, remove_stale, scratch_folder, sha256_text
from hblm.checkpoint import Checkpoint, open_checkpoint, open_data, pair_of
from hblm.config import FUSED_VIEWS, EvaluateConfig, TrainConfig
from hblm.corpus.prepared import Prepared
from hblm.errors import ConfigError
from hblm.schema import plain
from hblm.stored import without_stored
from hblm.terminal import StartTask, log, print_views, progress

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hblm.corpus.batches import TokenisedSplit
    from hblm.nn.classifier import Classifier
    from hblm.predictions import PredictionWriter
    from hblm.score import Scores, Scoring

PROGRAM = cli.Program(
    name="evaluate",
    schema=EvaluateConfig,
    summary="Score a trained checkpoint, or an ensemble of two; every setting comes from them.",
    examples=(
        "python -m hblm.evaluate checkpoint=outputs/checkpoints/NAME",
        "python -m hblm.evaluate checkpoint=DIR split=val threshold=0.4 posthoc_repath=true",
        "python -m hblm.evaluate checkpoint=DIR joint_eval_view=all predictions=true",
        "python -m hblm.evaluate checkpoint=[TOP_DOWN_DIR,BOTTOM_UP_DIR] ensemble_weight=auto",
        "python -m hblm.evaluate checkpoint=DIR dataset.path=WHERE_THE_DATA_LIES_NOW",
    ),
)


@dataclass(frozen=True)
class Request:
    """An evaluation that can be done: its checkpoints opened, its data found.

    Attributes:
        checkpoints: by branch, td and bu, of an ensemble; under the name `model` where there is one.
        view: the view to show, or `all`.
    """

    config: EvaluateConfig
    checkpoints: Mapping[str, Checkpoint]
    prepared: Prepared
    threshold: float
    view: str
    output_dir: Path
    cache_dir: Path

    @property
    def main(self) -> Checkpoint:
        """The one checkpoint, or an ensemble's top-down one."""
        return next(iter(self.checkpoints.values()))

    @property
    def is_ensemble(self) -> bool:
        """Whether two checkpoints are averaged."""
        return len(self.checkpoints) > 1


@dataclass(frozen=True)
class Loaded:
    """A checkpoint's model on its device, and the splits as the run saw them."""

    model: Classifier
    splits: Mapping[str, TokenisedSplit]
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
    results = request.output_dir / "results"
    for folder in (results, request.cache_dir):
        remove_stale(folder)
    with scratch_folder(results / "predictions") as folder:
        found = (evaluate_pair if request.is_ensemble else evaluate_one)(request, folder)
        with runs.naming(request.output_dir):
            path = path_of(request)
            if found.predictions is not None:
                target = path.with_suffix(".predictions")
                adopt_folder(folder, target)
                found = replace(found, predictions={"path": str(target.resolve()), **found.predictions})
            write_record(request, found, path, started)
    names = " and ".join(str(checkpoint.meta["name"]) for checkpoint in request.checkpoints.values())
    print_views(found.views, request.view, repath=config.posthoc_repath, title=f"{names}: {config.split}")
    print(f"result      {path}")
    if found.predictions is not None:
        print(f"predictions {found.predictions['path']}")


def understand(config: EvaluateConfig) -> Request:
    """Open the checkpoints and find the data, so that whatever is wrong is said before torch is loaded.

    Raises:
        CheckpointError: a checkpoint is damaged, or the data is not where it lay, or two do not go together.
        ConfigError: a key that does not act on what the checkpoint holds.
    """
    for place in config.checkpoint:
        remove_stale(Path(place).parent)
    opened = [open_checkpoint(Path(place)) for place in config.checkpoint]
    require_fit(config, opened)
    checkpoints = {"model": opened[0]} if len(opened) == 1 else pair_of(opened, config.threshold)
    first = next(iter(checkpoints.values()))
    joint = first.config.joint_variant
    output_dir = Path(config.output_dir) if config.output_dir else _home_of(first.folder)
    if len(opened) == 1 and not joint.is_joint:
        view = "all"  # the only one
    else:
        view = config.joint_eval_view or (joint.joint_eval_view if joint.is_joint else "fused")
    return Request(
        config=config,
        checkpoints=checkpoints,
        prepared=open_data(first, config.dataset.path),
        threshold=first.config.threshold if config.threshold is None else config.threshold,
        view=view,
        output_dir=output_dir,
        cache_dir=Path(config.cache_dir) if config.cache_dir else output_dir / "cache",
    )


def fused_otherwise(config: EvaluateConfig, trained: TrainConfig) -> TrainConfig:
    """Return a checkpoint's configuration with the weights that this evaluation fuses by.

    Raises:
        ConfigError: all weights are zero.
    """
    given = {name: getattr(config, name) for name in ("tri_fuse_td", "tri_fuse_bu", "tri_fuse_mix")}
    given = {name: weight for name, weight in given.items() if weight is not None}
    changed = replace(trained, joint_variant=replace(trained.joint_variant, **given))
    if changed.conflicts():
        raise ConfigError("\n".join(changed.conflicts()))
    return changed


def load(request: Request, checkpoint: Checkpoint, start: StartTask) -> Loaded:
    """Load a checkpoint's model and tokenise the documents for it."""
    # only now torch: a fault answers in a second
    from hblm import build
    from hblm.corpus.batches import subsample, tokenise

    trained = fused_otherwise(request.config, checkpoint.config)
    accelerator = build.accelerator(request.config.device, checkpoint.meta["precision"], fallback="fp32")
    build.seed_everything(trained.seed, accelerator.device)
    model, tokenizer = build.stored_model(checkpoint, trained)
    splits = tokenise(
        request.prepared,
        tokenizer,
        max_length=trained.encoder.max_length,
        cache_dir=request.cache_dir,
        progress=start,
    )
    seen = {name: subsample(splits[name], trained.dataset_fraction) for name in ("train", "val")}
    scoring = build.scoring(
        trained,
        checkpoint.taxonomy,
        tokenizer,
        seen["train"],
        threshold=request.threshold,
        batch_size=checkpoint.meta["eval_batch_size"],
        num_workers=request.config.num_workers,
    )
    model.to(accelerator.device)
    scoring.objective.to(accelerator.device)
    return Loaded(model, {**splits, **seen}, scoring, accelerator)


def evaluate_one(request: Request, folder: Path) -> Found:
    """Score a single or joint model; predictions go into `folder`."""
    from hblm import build
    from hblm.score import nobody, score

    name = request.config.split
    with progress() as start:
        loaded = load(request, request.main, start)
        split = loaded.splits[name]
        writer = prediction_writer(request, split, folder)
        advance = start(f"scoring {name}", len(split))
        views, _ = score(loaded.model, split, loaded.scoring, loaded.accelerator, advance, writer or nobody)
    return Found(
        views=views,
        documents=len(split),
        environment=build.environment_record(loaded.accelerator, loaded.scoring),
        settings=fuse_settings(request),
        predictions=writer.close() if writer else None,
    )


def evaluate_pair(request: Request, folder: Path) -> Found:
    """Score an ensemble: one model after the other leaves its logits on disk, then they are averaged."""
    from hblm import build
    from hblm.ensemble import keep_logits, score_fused, search_weight
    from hblm.score import nobody

    name, weight = request.config.split, request.config.weight
    names = {name} if weight is not None else {name, "val"}

    def infer(
        branch: str, scratch: Path, start: StartTask
    ) -> tuple[Mapping[str, TokenisedSplit], Scoring, Any]:
        """Leave one model's logits of all splits needed; the model goes when this returns."""
        loaded = load(request, request.checkpoints[branch], start)
        for each in sorted(names):
            split = loaded.splits[each]
            advance = start(f"{branch}: scoring {each}", len(split))
            keep_logits(
                scratch / f"{branch}.{each}", loaded.model, split, loaded.scoring, loaded.accelerator, advance
            )
        return loaded.splits, loaded.scoring, build.environment_record(loaded.accelerator, loaded.scoring)

    with progress() as start, scratch_folder(request.cache_dir / "ensemble") as scratch:
        splits, scoring, environment = infer("td", scratch, start)
        infer("bu", scratch, start)
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


def require_fit(config: EvaluateConfig, opened: Sequence[Checkpoint]) -> None:
    """Refuse keys that do not act on these checkpoints.

    Raises:
        ConfigError: all of them, in one message.
    """
    joint = opened[0].config.joint_variant
    faults = []
    ensemble = len(opened) > 1
    what = "an ensemble" if ensemble else f"a model with joint_variant={joint.joint_variant}"
    views = ["fused", "td", "bu", "all"] if ensemble or joint.is_joint else []
    if not ensemble and joint.joint_variant == "tri_head_diffcat":
        views.append("mix")
    else:
        for name in ("tri_fuse_td", "tri_fuse_bu", "tri_fuse_mix"):
            if getattr(config, name) is not None:
                faults.append(
                    f"{name}={plain(getattr(config, name))} acts on tri_head_diffcat, not on {what}"
                )
    if config.joint_eval_view is not None and config.joint_eval_view not in views:
        has = f"the views {', '.join(views)}" if views else "one view, single"
        faults.append(f"joint_eval_view={config.joint_eval_view}: {what} has {has}")
    if faults:
        raise ConfigError("\n".join(faults))


def fuse_settings(request: Request) -> dict[str, float]:
    """Return the weights that a mix head's model is fused by; nothing for other models."""
    joint = fused_otherwise(request.config, request.main.config).joint_variant
    if joint.joint_variant != "tri_head_diffcat":
        return {}
    names = (f"tri_fuse_{view}" for view in FUSED_VIEWS)
    return dict(zip(names, joint.fuse_weights, strict=True))


def prediction_writer(request: Request, split: TokenisedSplit, folder: Path) -> PredictionWriter | None:
    """Return what writes the scores of the shown views into `folder`; None if they are not asked for."""
    if not request.config.predictions:
        return None
    from hblm.predictions import PredictionWriter

    return PredictionWriter(
        folder,
        documents=split.document_ids(),
        nodes=[node.id for node in request.main.taxonomy.nodes],
        view=None if request.view == "all" else request.view,
        threshold=request.threshold,
        floor=request.config.predictions_floor,
    )


def path_of(request: Request) -> Path:
    """Return an untaken path for the result; to be called under the lock of names."""
    trained, meta = request.main.config, request.main.meta
    if request.is_ensemble:
        return runs.ensemble_path(request.output_dir, meta["dataset"]["name"])
    return runs.evaluation_path(request.output_dir, trained, meta["tag"])


def write_record(request: Request, found: Found, path: Path, started: float) -> None:
    """Write the evaluation's result."""
    from hblm.record import dataset_record, without_nodes, write_result

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
        }
        for branch, checkpoint in request.checkpoints.items()
    }
    if not request.is_ensemble:
        return {"kind": "evaluation", **members["model"]}
    ids = [member["run_id"] for member in members.values()]
    return {"kind": "ensemble", "run_id": sha256_text(canonical_json({"ensemble": ids})), "members": members}


def _home_of(folder: Path) -> Path:
    """Return the output folder a checkpoint lies in: OUT for OUT/checkpoints/NAME, else ./outputs."""
    parents = folder.resolve().parents
    return parents[1] if parents[0].name == "checkpoints" else Path("outputs")


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    cli.main(PROGRAM, run, sys.argv[1:] if argv is None else argv, before=without_stored)


if __name__ == "__main__":
    main()
