"""`python -m hblm.train`: one run, from a configuration to a checkpoint and a result."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from hblm import process
from hblm.config import identity, overrides
from hblm.config.schema import leaves
from hblm.config.train import TrainConfig
from hblm.console import Advance, TrainingBar, hush, log, print_views, progress
from hblm.data.dataset import Prepared
from hblm.data.preparation import open_or_prepare
from hblm.encoders.pretrained import Pretrained
from hblm.engine import auto, launch
from hblm.engine.initial_weights import source_of
from hblm.engine.notes import Note, Trained, notes
from hblm.errors import DataError
from hblm.files import scratch_folder
from hblm.runs import paths, result

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from hblm.engine.loop import Fitted
    from hblm.engine.scoring import Scores
    from hblm.engine.session import Job


def run(
    config: TrainConfig,
    *,
    expected: str | None = None,
    wait: bool = True,
    nodes: launch.Nodes | None = None,
    chosen: auto.Chosen | None = None,
) -> None:
    """Train, test and write, unless the run's result is there already.

    Args:
        config: the run.
        expected: the run id that this configuration had when it was frozen.
        wait: for another process that does this run; otherwise runs.Busy is raised.
        nodes: the machines to share it with, beside this one.
        chosen: what was chosen for it when it was frozen, and why.

    Raises:
        ConfigError: the encoder's size, by which settings are chosen, is not to be had.
        DataError: data or encoder are no longer those of the id expected.
    """
    started = time.perf_counter()
    # a custom set is named after its folder: from here on, and in the checkpoint, by that name
    config = replace(config, dataset=replace(config.dataset, name=config.dataset_name))
    process.require_fitting(config.trainer.processes)
    here = process.place()
    if here.rank:  # a launcher's: the first process decides
        if expected := _agreed(config, None):
            join(config, expected, started)
        return
    prepared = open_or_prepare(config.dataset, config.encoder)
    source = source_of(config)
    config, just_chosen = auto.settle(config, prepared, source)
    chosen = {**(chosen or {}), **just_chosen}
    paths.remove_leftovers(Path(config.output_dir), Path(config.cache_dir))
    if identity.twins(config):
        log.info("joint_objective=full with joint_loss_fused=0 and joint_objective=aux_only are one run")
    this = expect(identify(config, prepared, source), expected, config, prepared)
    if here.size == 1 and not config.force and this.is_done:
        show_done(config, this)  # without the lock, for which the folder must be writable
        return
    lock = this.alone()
    try:
        lock.acquire(timeout=0 if wait else 1)  # a look whether it is held holds it for a moment
    except Timeout:
        if not wait:
            raise paths.Busy from None
        log.info("another process does this run: waiting for it")
        lock.acquire()
    try:
        this = identify(config, prepared, source)
        if not _agreed(config, this.id if config.force or not this.is_done else None):
            show_done(config, this)
            return
        this.require_writable()
        if here.size == 1 and (config.trainer.processes > 1 or nodes is not None):
            told = {"config": dataclasses.asdict(config), "expected": this.id, "chosen": chosen}
            launch.launch(told, config.trainer.processes, nodes)
        else:
            train(config, prepared, source, this, started, chosen)
    finally:
        lock.release()


def join(
    config: TrainConfig, expected: str | None, started: float, chosen: auto.Chosen | None = None
) -> None:
    """Be one of the processes of a run that another process has decided to do, and holds the lock of.

    Args:
        config, expected, chosen: as for `run`.
        started: when the run began, by time.perf_counter.

    Raises:
        DataError: data or encoder are no longer those of the id expected.
    """
    if process.place().rank:
        hush()
    prepared = open_or_prepare(config.dataset, config.encoder)
    source = source_of(config)
    config, just_chosen = auto.settle(config, prepared, source)
    this = expect(identify(config, prepared, source), expected, config, prepared)
    train(config, prepared, source, this, started, {**(chosen or {}), **just_chosen})


def _agreed(config: TrainConfig, run_id: str | None) -> str | None:
    """Return the id of the run to be done, as the first of a launcher's processes says; None: it is done."""
    if process.place().size == 1:
        return run_id
    from hblm.engine import collectives, device

    device.accelerator(config.device, config.trainer.precision)  # which lets the processes find each other
    agreed: str | None = collectives.of_the_first(run_id)
    return agreed


def expect(this: paths.Run, expected: str | None, config: TrainConfig, prepared: Prepared) -> paths.Run:
    """Return the run.

    Raises:
        DataError: it is not the one expected.
    """
    if expected not in (None, this.id):
        raise DataError(
            f"this was run {expected[:8]} when it was frozen or started and would now be {this.id[:8]}: "
            f"{prepared.folder} or {config.init_from or config.encoder.model_name} has changed since; "
            "start it again, or submit the sweep again"
        )
    return this


def identify(config: TrainConfig, prepared: Prepared, source: Pretrained) -> paths.Run:
    """Return the run, its name as the files now tell it."""
    return paths.identify(config, data=prepared.fingerprint, encoder=source.identity(), tag=source.tag)


def show_done(config: TrainConfig, this: paths.Run) -> None:
    """Say where the result of a finished run lies, and print it.

    Raises:
        DataError: the result is damaged.
    """
    record = result.read_result(this, config.joint_variant.views)
    print("done before; force=true runs it again")
    show(config, this, record)


def show(config: TrainConfig, this: paths.Run, record: Mapping[str, Any]) -> None:
    """Print of a result the test scores of the views that are to be shown, the notes, and where it lies."""
    joint = config.joint_variant
    shown = joint.joint_eval_view if joint.is_joint else joint.monitored
    print_views(record["test"], shown, repath=config.posthoc_repath, title=f"{this.name}: test")
    for note in record.get("notes", ()):  # results of earlier versions have none
        log.info(note["text"])
    _print_places(config, this)


@dataclass(frozen=True)
class Outcome:
    """What fitting and testing gave."""

    fitted: Fitted
    val: dict[str, Scores]
    test: dict[str, Scores]
    thresholds: list[dict[str, Any]]  # the monitored view's validation scores at each (see thresholds.py)
    eval_seconds: float


def train(
    config: TrainConfig,
    prepared: Prepared,
    source: Pretrained,
    this: paths.Run,
    started: float,
    chosen: auto.Chosen,
) -> None:
    """Do the run: load, fit, test, write; of several processes the first one writes."""
    from hblm.engine.session import set_up  # only now torch: what is done, or wrong, answers in a second

    for line in auto.lines(chosen):
        log.info("%s", line)
    job = set_up(config, prepared, source, this.name)
    job = replace(job, chosen={**chosen, **job.chosen})
    expect(identify(config, prepared, source), this.id, config, prepared)  # the encoder that was loaded
    log.info(
        "run %s: %d documents to train, %d to validate, %d to test; %d nodes on %d levels",
        *(this.name, len(job.train), len(job.val), len(job.test)),
        *(len(prepared.taxonomy), len(prepared.taxonomy.levels)),
    )
    outcome = fit_and_test(config, job, this)
    if not job.accelerator.is_main_process:
        return
    with paths.naming(this.output_dir):
        # another run may have taken the name meanwhile; data and encoder are those that were loaded
        this = paths.find(this.output_dir, this.id, this.names)
        # written apart, so that what bears the names now stays until the new files are whole
        with scratch_folder(this.result) as results, scratch_folder(this.checkpoint) as checkpoints:
            checkpoint = checkpoints / this.name if config.trainer.keep_checkpoint else None
            if checkpoint is not None:
                keep_checkpoint(config, this, job, checkpoint)
            record = write_record(config, this, job, outcome, results / this.result.name, started)
            this.replace_by(results, checkpoint)
    show(config, this, record)


def fit_and_test(config: TrainConfig, job: Job, this: paths.Run) -> Outcome:
    """Train the job's model, then score the best epoch on the validation and test splits."""
    from hblm.engine import build
    from hblm.engine.loop import Watch, fit, overall_f1
    from hblm.engine.scoring import score

    _start_trackers(job.accelerator, config, this)
    schedule = build.schedule(config)
    with TrainingBar(len(job.trained_on), schedule.epochs) as bar:

        def tell(entry: dict[str, Any]) -> None:
            bar.epoch(entry)
            numbers = {name: entry[name] for name in ("train_loss", "val_loss", "documents_per_second")}
            job.accelerator.log({**numbers, **_by_view("val", entry["views"])}, step=entry["epoch"])

        fitted = fit(
            job.model,
            job.trained_on,
            job.val,
            schedule=schedule,
            scoring=job.scoring,
            monitor=(config.joint_variant.monitored, config.trainer.monitor),
            accelerator=job.accelerator,
            watch=Watch(step=bar.step, epoch=tell),
        )
    began = time.perf_counter()
    with progress() as start:
        val, thresholds = validate(job, config.joint_variant.monitored, start("validating", len(job.val)))
        test, _ = score(job.model, job.test, job.scoring, job.accelerator, start("testing", len(job.test)))
    job.accelerator.log(_by_view("test", {view: overall_f1(scores) for view, scores in test.items()}))
    job.accelerator.end_training()
    return Outcome(fitted, val, test, thresholds, time.perf_counter() - began)


def validate(job: Job, view: str, advance: Advance) -> tuple[dict[str, Scores], list[dict[str, Any]]]:
    """Return every view's scores on the validation split, and one view's at each threshold of a grid."""
    from hblm.engine import collectives
    from hblm.engine.scoring import score
    from hblm.engine.thresholds import ThresholdCounter

    mine, counter = (ThresholdCounter(job.prepared.taxonomy) for _ in range(2))

    def count(_: Any, scores: Mapping[str, Tensor], targets: Tensor) -> None:
        mine.update(scores[view], targets)

    found, _ = score(job.model, job.val, job.scoring, job.accelerator, advance, count)
    for counted in collectives.parts(job.accelerator, mine.counted()):
        counter.add(counted)
    return found, counter.table()


def keep_checkpoint(config: TrainConfig, this: paths.Run, job: Job, folder: Path) -> None:
    """Write the model and all that an evaluation needs to `folder`."""
    import torch

    from hblm.encoders.encoder import save_encoder
    from hblm.engine import device
    from hblm.nn.losses import node_priors
    from hblm.runs.checkpoint import save_checkpoint
    from hblm.runs.result import place_record

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
            "precision": device.resolved_precision(job.accelerator),
            "eval_batch_size": job.scoring.batch_size,
        },
    )


def write_record(
    config: TrainConfig, this: paths.Run, job: Job, outcome: Outcome, path: Path, started: float
) -> dict[str, Any]:
    """Write the result file and its CSVs to `path`; return what the result says."""
    from hblm.engine import device
    from hblm.runs.result import dataset_record, without_nodes, write_result

    documents = {"train": len(job.train), "val": len(job.val), "test": len(job.test)}
    record = {
        "run_id": this.id,
        "status": "done",
        "kind": "joint" if config.joint_variant.is_joint else "single",
        "choices": config.choices(),
        "config": dataclasses.asdict(config),
        "auto": dict(job.chosen),
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
        "init_from": job.init_from,
        "environment": device.environment_record(job.accelerator, job.scoring),
        "notes": notes_of(config, this, outcome),
    }
    write_result(path, record, outcome.test)
    return record


def notes_of(config: TrainConfig, this: paths.Run, outcome: Outcome) -> list[Note]:
    """Return what is to be known of the run besides its scores."""
    checkpoint = overrides.argument("checkpoint", str(this.checkpoint))
    return notes(
        Trained(
            config=config,
            history=outcome.fitted.history,
            best_epoch=outcome.fitted.best_epoch,
            val=outcome.val[config.joint_variant.monitored],
            thresholds=outcome.thresholds,
            evaluate=f"python -m hblm.evaluate {checkpoint}" if config.trainer.keep_checkpoint else None,
        )
    )


def _start_trackers(accelerator: Accelerator, config: TrainConfig, this: paths.Run) -> None:
    if config.trackers:
        flat = {leaf.name: identity.value_of(config, leaf) for leaf in leaves(TrainConfig)}
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


def _print_places(config: TrainConfig, this: paths.Run) -> None:
    print(f"result      {this.result}")
    if this.checkpoint.exists():
        print(f"checkpoint  {this.checkpoint}")
        checkpoint = overrides.argument("checkpoint", str(this.checkpoint))
        print(f"try next    python -m hblm.evaluate {checkpoint} posthoc_repath=true")
    if config.film.propagation_method == "none":
        others = "seed=2, or with method=top_down in place of its method, film and head"
    else:
        others = "seed=2, film=logit, or with method=independent in place of its method and film"
    print(f"            the same command with {others}")
