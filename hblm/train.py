"""`python -m hblm.train`: one run, from a configuration to a checkpoint and a result."""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from hblm import cli, processes, runs
from hblm.artifacts import remove_stale, scratch_folder
from hblm.config import TrainConfig
from hblm.corpus.prepared import Prepared
from hblm.errors import DataError
from hblm.prepare import open_or_prepare
from hblm.pretrained import Pretrained, encoder_record, locate
from hblm.schema import leaves
from hblm.terminal import TrainingBar, hush, log, print_views, progress

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hblm.fit import Fitted
    from hblm.nn.classifier import Classifier
    from hblm.nn.encoder import Tokenizer
    from hblm.score import Scores, Scoring, Split

PROGRAM = cli.Program(
    name="train",
    schema=TrainConfig,
    summary="Train one model, test it, and write its checkpoint and result.",
    examples=(
        "python -m hblm.train experiment=quickstart",
        "python -m hblm.train dataset=wos direction=bottom_up",
        "python -m hblm.train dataset=docstrings encoder=minilm pooling=mean trainer=small film=logit",
        "python -m hblm.train dataset=custom dataset.path=DIR encoder.model_name=FOLDER_OR_HUB_ID",
        "python -m hblm.train -m dataset=aapd,wos direction=top_down,bottom_up seed=1,2,3",
    ),
)


def run(
    config: TrainConfig,
    *,
    expected: str | None = None,
    wait: bool = True,
    nodes: processes.Nodes | None = None,
) -> None:
    """Train, test and write, unless the run's result is there already.

    Args:
        config: the run.
        expected: the run id that this configuration had when it was frozen.
        wait: for another process that does this run; otherwise runs.Busy is raised.
        nodes: the machines to share it with, beside this one.

    Raises:
        DataError: data or encoder are no longer those of the id expected.
    """
    started = time.perf_counter()
    # a custom set is named after its folder: from here on, and in the checkpoint, by that name
    config = replace(config, dataset=replace(config.dataset, name=config.dataset_name))
    processes.require_fitting(config.trainer.processes)
    here = processes.place()
    if here.rank:  # a launcher's: the first process decides
        if _agreed(config, go=False):
            join(config, None, started)
        return
    prepared = open_or_prepare(config.dataset, config.encoder)
    source = locate(config.encoder.model_name, config.encoder.revision)
    for folder in ("results", "checkpoints"):
        remove_stale(Path(config.output_dir) / folder)
    if runs.twins(config):
        log.info("joint_objective=full with joint_loss_fused=0 and joint_objective=aux_only are one run")
    this = expect(identify(config, prepared, source), expected, config, prepared)
    lock = this.alone()
    try:
        lock.acquire(timeout=0 if wait else 1)  # a look whether it is held holds it for a moment
    except Timeout:
        if not wait:
            raise runs.Busy from None
        log.info("another process does this run: waiting for it")
        lock.acquire()
    try:
        this = identify(config, prepared, source)
        if not _agreed(config, go=config.force or not this.is_done):
            show_done(config, this)
            return
        this.require_superseding()
        if here.size == 1 and (config.trainer.processes > 1 or nodes is not None):
            processes.launch(dataclasses.asdict(config), this.id, config.trainer.processes, nodes)
        else:
            train(config, prepared, source, this, started)
    finally:
        lock.release()


def join(config: TrainConfig, expected: str | None, started: float) -> None:
    """Be one of the processes of a run that another process has decided to do, and holds the lock of.

    Raises:
        DataError: data or encoder are no longer those of the id expected.
    """
    if processes.place().rank:
        hush()
    prepared = open_or_prepare(config.dataset, config.encoder)
    source = locate(config.encoder.model_name, config.encoder.revision)
    this = expect(identify(config, prepared, source), expected, config, prepared)
    train(config, prepared, source, this, started)


def _agreed(config: TrainConfig, *, go: bool) -> bool:
    """Return whether the run is to be done, as the first of a launcher's processes says."""
    if processes.place().size == 1:
        return go
    from hblm import build, team

    build.accelerator(config.device, config.trainer.precision)  # which lets the processes find each other
    return team.of_the_first(go)


def expect(this: runs.Run, expected: str | None, config: TrainConfig, prepared: Prepared) -> runs.Run:
    """Return the run.

    Raises:
        DataError: it is not the one expected.
    """
    if expected not in (None, this.id):
        raise DataError(
            f"this cell was frozen as run {expected[:8]} and would now be {this.id[:8]}: {prepared.folder} "
            f"or {config.encoder.model_name} has changed since; submit the sweep again"
        )
    return this


def identify(config: TrainConfig, prepared: Prepared, source: Pretrained) -> runs.Run:
    """Return the run, its name as the files now tell it."""
    return runs.identify(config, data=prepared.fingerprint, encoder=source.identity(), tag=source.tag)


def show_done(config: TrainConfig, this: runs.Run) -> None:
    """Say where the result of a finished run lies, and print it."""
    record = json.loads(this.result.read_text(encoding="utf-8"))
    print("done before; force=true runs it again")
    show(config, this, record["test"])
    _print_places(config, this)


def show(config: TrainConfig, this: runs.Run, views: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the test scores of the views that are to be shown."""
    joint = config.joint_variant
    shown = joint.joint_eval_view if joint.is_joint else joint.monitored
    print_views(views, shown, repath=config.posthoc_repath, title=f"{this.name}: test")


@dataclass(frozen=True)
class Job:
    """All that a run needs, loaded: nothing here has been trained yet."""

    prepared: Prepared
    source: Pretrained
    encoder: Mapping[str, Any]  # what identified it when it was loaded
    accelerator: Accelerator
    model: Classifier
    tokenizer: Tokenizer
    train: Split
    val: Split
    test: Split
    scoring: Scoring
    mark: str = field(default_factory=lambda: secrets.token_hex(8))  # tells trainings of one run apart


@dataclass(frozen=True)
class Outcome:
    """What fitting and testing gave."""

    fitted: Fitted
    val: dict[str, Scores]
    test: dict[str, Scores]
    eval_seconds: float


def train(
    config: TrainConfig, prepared: Prepared, source: Pretrained, this: runs.Run, started: float
) -> None:
    """Do the run: load, fit, test, write; of several processes the first one writes."""
    job = set_up(config, prepared, source, this.name)
    log.info(
        "run %s: %d documents to train, %d to validate, %d to test; %d nodes on %d levels",
        *(this.name, len(job.train), len(job.val), len(job.test)),
        *(len(prepared.taxonomy), len(prepared.taxonomy.levels)),
    )
    outcome = fit_and_test(config, job, this)
    if not job.accelerator.is_main_process:
        return
    with runs.naming(this.output_dir):
        # another run may have taken the name meanwhile; data and encoder are those that were loaded
        this = runs.find(this.output_dir, this.id, this.names)
        # written apart, so that what bears the names now stays until the new files are whole
        with scratch_folder(this.result) as results, scratch_folder(this.checkpoint) as checkpoints:
            checkpoint = checkpoints / this.name if config.trainer.keep_checkpoint else None
            if checkpoint is not None:
                keep_checkpoint(config, this, job, checkpoint)
            write_record(config, this, job, outcome, results / this.result.name, started)
            this.replace_by(results, checkpoint)
    show(config, this, outcome.test)
    _print_places(config, this)


def set_up(config: TrainConfig, prepared: Prepared, source: Pretrained, name: str) -> Job:
    """Load the encoder, the documents as the model takes them and the device; build the model.

    Args:
        name: the run's, for trackers.
    """
    # only now torch: a run that is done, or a fault, answers in a second
    from hblm import build, team
    from hblm.corpus.batches import subsample, tokenise
    from hblm.embeddings import Embedder
    from hblm.nn.encoder import load_encoder, load_tokenizer

    accelerator = build.accelerator(
        config.device,
        config.trainer.precision,
        trackers=config.trackers,
        project_dir=Path(config.output_dir) / "trackers",
        run_name=name,
    )
    build.seed_everything(config.seed, accelerator.device)
    encoder = load_encoder(
        source,
        dropout=config.encoder.dropout,
        gradient_checkpointing=config.encoder.gradient_checkpointing,
        max_length=config.encoder.max_length,
    )
    tokenizer = load_tokenizer(source)
    record = encoder_record(source)
    with progress() as start:
        splits = tokenise(
            prepared,
            tokenizer,
            max_length=config.encoder.max_length,
            cache_dir=Path(config.cache_dir),
            progress=start,
        )
    build.require_single_paths(config, splits, prepared.taxonomy)
    splits |= {name: subsample(splits[name], config.dataset_fraction) for name in ("train", "val")}
    model = build.classifier(config, prepared.taxonomy, encoder)
    scoring = build.scoring(
        config,
        prepared.taxonomy,
        tokenizer,
        splits["train"],
        threshold=config.threshold,
        batch_size=build.eval_batch_size(config),
        num_workers=config.trainer.num_workers,
    )
    build.initialise_output(model, config, scoring)
    team.vary_dropout(accelerator, config.seed)
    model.to(accelerator.device)
    scoring.objective.to(accelerator.device)
    inputs: Mapping[str, Split] = splits
    if not model.trainable:
        embedder = Embedder(model, tokenizer, scoring, accelerator, Path(config.cache_dir))
        with progress() as start:
            inputs = embedder.embed(splits, start)
    return Job(
        prepared=prepared,
        source=source,
        encoder=record,
        accelerator=accelerator,
        model=model,
        tokenizer=tokenizer,
        train=inputs["train"],
        val=inputs["val"],
        test=inputs["test"],
        scoring=scoring,
    )


def fit_and_test(config: TrainConfig, job: Job, this: runs.Run) -> Outcome:
    """Train the job's model, then score the best epoch on the validation and test splits."""
    from hblm import build
    from hblm.fit import Watch, fit, overall_f1
    from hblm.score import score

    _start_trackers(job.accelerator, config, this)
    with TrainingBar(len(job.train), config.trainer.epochs) as bar:

        def tell(entry: dict[str, Any]) -> None:
            bar.epoch(entry)
            numbers = {name: entry[name] for name in ("train_loss", "val_loss", "documents_per_second")}
            job.accelerator.log({**numbers, **_by_view("val", entry["views"])}, step=entry["epoch"])

        fitted = fit(
            job.model,
            job.train,
            job.val,
            schedule=build.schedule(config),
            scoring=job.scoring,
            monitor=(config.joint_variant.monitored, config.trainer.monitor),
            accelerator=job.accelerator,
            watch=Watch(step=bar.step, epoch=tell),
        )
    began = time.perf_counter()
    with progress() as start:
        val, _ = score(job.model, job.val, job.scoring, job.accelerator, start("validating", len(job.val)))
        test, _ = score(job.model, job.test, job.scoring, job.accelerator, start("testing", len(job.test)))
    job.accelerator.log(_by_view("test", {view: overall_f1(scores) for view, scores in test.items()}))
    job.accelerator.end_training()
    return Outcome(fitted, val, test, time.perf_counter() - began)


def keep_checkpoint(config: TrainConfig, this: runs.Run, job: Job, folder: Path) -> None:
    """Write the model and all that an evaluation needs to `folder`."""
    import torch

    from hblm import build
    from hblm.checkpoint import save_checkpoint
    from hblm.loss import node_priors
    from hblm.nn.encoder import save_encoder
    from hblm.record import place_record

    save_checkpoint(
        folder,
        model=job.model,
        save_encoder=lambda folder: save_encoder(folder, job.model.encoder, job.tokenizer),
        config=config,
        taxonomy=job.prepared.taxonomy,
        meta={
            "run_id": this.id,
            "name": this.name,
            "tag": job.source.tag,
            "dataset": place_record(job.prepared),
            "encoder": job.encoder,
            "training": job.mark,
            "node_priors": node_priors(torch.tensor(job.scoring.train_support), len(job.train)).tolist(),
            "thresholds": {"training": config.threshold},
            "precision": build.resolved_precision(job.accelerator),
            "eval_batch_size": job.scoring.batch_size,
        },
    )


def write_record(
    config: TrainConfig, this: runs.Run, job: Job, outcome: Outcome, path: Path, started: float
) -> None:
    """Write the result file and its CSVs to `path`."""
    from hblm import build
    from hblm.record import dataset_record, without_nodes, write_result

    documents = {"train": len(job.train), "val": len(job.val), "test": len(job.test)}
    record = {
        "run_id": this.id,
        "status": "done",
        "kind": "joint" if config.joint_variant.is_joint else "single",
        "choices": config.choices(),
        "config": dataclasses.asdict(config),
        "dataset": dataset_record(job.prepared, documents),
        "seed": config.seed,
        "best_epoch": outcome.fitted.best_epoch,
        "history": outcome.fitted.history,
        "val": without_nodes(outcome.val),
        "test": without_nodes(outcome.test),
        "parameters": {
            "total": sum(parameter.numel() for parameter in job.model.parameters()),
            "trainable": sum(p.numel() for p in job.model.parameters() if p.requires_grad),
        },
        "seconds": {
            "total": time.perf_counter() - started,
            "train": outcome.fitted.seconds,
            "eval": outcome.eval_seconds,
        },
        "throughput": {"train_documents_per_second": outcome.fitted.documents / outcome.fitted.seconds},
        "encoder": job.encoder,
        "training": job.mark,
        "environment": build.environment_record(job.accelerator, job.scoring),
    }
    write_result(path, record, outcome.test)


def _start_trackers(accelerator: Accelerator, config: TrainConfig, this: runs.Run) -> None:
    if config.trackers:
        flat = {leaf.name: runs.value_of(config, leaf) for leaf in leaves(TrainConfig)}
        shown = {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in flat.items()}
        accelerator.init_trackers(
            "hblm",
            config=shown,
            init_kwargs={"wandb": {"name": this.name}, "mlflow": {"run_name": this.name}},
        )


def _by_view(split: str, views: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return scores by view as trackers group them: val/fused/micro_f1."""
    return {
        f"{split}/{view}/{name}": value for view, scores in views.items() for name, value in scores.items()
    }


def _print_places(config: TrainConfig, this: runs.Run) -> None:
    print(f"result      {this.result}")
    if this.checkpoint.exists():
        print(f"checkpoint  {this.checkpoint}")
        checkpoint = cli.argument("checkpoint", str(this.checkpoint))
        print(f"try next    python -m hblm.evaluate {checkpoint} posthoc_repath=true")
    if config.film.propagation_method == "none":
        others = "seed=2, or with method=top_down in place of its method, film and head"
    else:
        others = "seed=2, film=logit, or with method=independent in place of its method and film"
    print(f"            the same command with {others}")


if __name__ == "__main__":
    cli.main(PROGRAM, run)
