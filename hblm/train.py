"""`python -m hblm.train`: one run, from a configuration to a checkpoint and a result."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hblm import cli, runs
from hblm.artifacts import environment, remove_stale
from hblm.config import TrainConfig
from hblm.corpus.prepared import Prepared
from hblm.prepare import open_or_prepare
from hblm.pretrained import Pretrained, locate
from hblm.terminal import TrainingBar, log, print_scores, progress

if TYPE_CHECKING:
    from accelerate import Accelerator

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
VIEW = "single"


def run(config: TrainConfig) -> None:
    """Train, test and write, unless the run's result is there already."""
    started = time.perf_counter()
    prepared = open_or_prepare(config.dataset)
    source = locate(config.encoder.model_name, config.encoder.revision)
    this = runs.identify(config, data=prepared.fingerprint, encoder=source.identity(), tag=source.tag)
    if this.result.exists() and not config.force:
        print(f"done before: {this.result} (run {this.id[:8]}); force=true runs it again")
        return
    for folder in (this.result.parent, this.checkpoint.parent):
        remove_stale(folder)
    train(config, prepared, source, this, started)


def train(
    config: TrainConfig, prepared: Prepared, source: Pretrained, this: runs.Run, started: float
) -> None:
    """Do the run: tokenise, build, fit, test, write."""
    # only now torch: a run that is done, or a fault, answers in a second
    from hblm import build
    from hblm.checkpoint import save_checkpoint
    from hblm.corpus.batches import subsample, tokenise
    from hblm.fit import Watch, fit, score
    from hblm.nn.encoder import load_encoder, load_tokenizer, save_encoder
    from hblm.record import without_nodes, write_result

    trackers_dir = Path(config.output_dir) / "trackers"
    accelerator = build.accelerator(
        config.device, config.trainer.precision, trackers=config.trackers, project_dir=trackers_dir
    )
    build.seed_everything(config.seed, accelerator.device)
    encoder = load_encoder(
        source,
        dropout=config.encoder.dropout,
        gradient_checkpointing=config.encoder.gradient_checkpointing,
        max_length=config.encoder.max_length,
    )
    tokenizer = load_tokenizer(source)
    with progress() as start:
        splits = tokenise(
            prepared,
            tokenizer,
            max_length=config.encoder.max_length,
            cache_dir=Path(config.cache_dir),
            progress=start,
        )
    train_split = subsample(splits["train"], config.dataset_fraction)
    val_split = subsample(splits["val"], config.dataset_fraction)
    taxonomy = prepared.taxonomy
    model = build.classifier(config, taxonomy, encoder)
    priors = build.initialise_output(model, config, train_split, len(taxonomy))
    scoring = build.scoring(
        config,
        taxonomy,
        tokenizer,
        threshold=config.threshold,
        batch_size=build.eval_batch_size(config),
        num_workers=config.trainer.num_workers,
    )
    log.info(
        "run %s: %d documents to train, %d to validate, %d to test; %d nodes on %d levels; %s",
        *(this.name, len(train_split), len(val_split), len(splits["test"])),
        *(len(taxonomy), len(taxonomy.levels), build.describe_device(accelerator)),
    )
    _start_trackers(accelerator, config, this)
    with TrainingBar(len(train_split), config.trainer.epochs) as bar:

        def tell(entry: dict[str, Any]) -> None:
            bar.epoch(entry)
            numbers = {name: value for name, value in entry.items() if isinstance(value, float)}
            accelerator.log(numbers, step=entry["epoch"])

        fitted = fit(
            model,
            train_split,
            val_split,
            schedule=build.schedule(config),
            scoring=scoring,
            monitor=(VIEW, config.trainer.monitor),
            accelerator=accelerator,
            watch=Watch(step=bar.step, epoch=tell),
        )
    tested = time.perf_counter()
    with progress() as start:
        val, _ = score(model, val_split, scoring, accelerator, start("validating", len(val_split)))
        test, _ = score(model, splits["test"], scoring, accelerator, start("testing", len(splits["test"])))
    finished = time.perf_counter()
    accelerator.log({f"test_{name}": test[VIEW]["overall"][name] for name in ("micro_f1", "macro_f1")})
    accelerator.end_training()
    data = {
        "name": prepared.name,
        "path": str(prepared.folder.resolve()),
        "fingerprint": prepared.fingerprint,
    }
    if config.trainer.keep_checkpoint:
        save_checkpoint(
            this.checkpoint,
            model=model,
            save_encoder=lambda folder: save_encoder(folder, encoder, tokenizer),
            config=config,
            taxonomy=taxonomy,
            meta={
                "run_id": this.id,
                "name": this.name,
                "tag": source.tag,
                "dataset": data,
                "node_priors": priors.tolist(),
                "thresholds": {"training": config.threshold},
                "precision": build.resolved_precision(accelerator),
                "eval_batch_size": scoring.batch_size,
            },
        )
    record = {
        "run_id": this.id,
        "status": "done",
        "kind": "single",
        "choices": config.choices(),
        "config": dataclasses.asdict(config),
        "dataset": {
            **data,
            "files": dict(prepared.files),
            "documents": {
                "train": len(train_split),
                "val": len(val_split),
                "test": len(splits["test"]),
            },
            "levels": [len(level) for level in taxonomy.levels],
        },
        "seed": config.seed,
        "best_epoch": fitted.best_epoch,
        "history": fitted.history,
        "val": without_nodes(val),
        "test": without_nodes(test),
        "parameters": {
            "total": sum(parameter.numel() for parameter in model.parameters()),
            "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        },
        "seconds": {
            "total": time.perf_counter() - started,
            "train": fitted.seconds,
            "eval": finished - tested,
        },
        "throughput": {"train_documents_per_second": fitted.documents / fitted.seconds},
        "environment": {
            **environment(),
            **build.describe_device(accelerator),
            "eval_batch_size": scoring.batch_size,
        },
    }
    if this.result.exists():
        this.supersede()
    write_result(this.result, record, {view: found["nodes"] for view, found in test.items()})
    print_scores(VIEW, test[VIEW], repath=config.posthoc_repath, title=f"{this.name}: test")
    _print_places(config, this)


def _start_trackers(accelerator: Accelerator, config: TrainConfig, this: runs.Run) -> None:
    if config.trackers:
        flat = {leaf.name: runs.value_of(config, leaf) for leaf in runs.leaves(TrainConfig)}
        shown = {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in flat.items()}
        accelerator.init_trackers("hblm", config=shown, init_kwargs={"wandb": {"name": this.name}})


def _print_places(config: TrainConfig, this: runs.Run) -> None:
    other = "top_down" if config.direction.cascade_direction == "bottom_up" else "bottom_up"
    print(f"result      {this.result}")
    if config.trainer.keep_checkpoint:
        print(f"checkpoint  {this.checkpoint}")
        print(f"try next    python -m hblm.evaluate checkpoint={this.checkpoint} posthoc_repath=true")
    print(f"            the same command with direction={other}, film=logit, seed=2 or method=flat")


if __name__ == "__main__":
    cli.main(PROGRAM, run)
