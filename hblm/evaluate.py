"""`python -m hblm.evaluate`: scores of a trained checkpoint, every setting restored from it."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from hblm import cli, runs
from hblm.artifacts import environment, remove_stale
from hblm.checkpoint import Checkpoint, open_checkpoint
from hblm.config import EvaluateConfig, TrainConfig, leaves, plain, read_leaf
from hblm.corpus.prepared import Prepared, open_prepared
from hblm.errors import CheckpointError, DataError
from hblm.terminal import print_scores, progress

PROGRAM = cli.Program(
    name="evaluate",
    schema=EvaluateConfig,
    summary="Score a trained checkpoint; every setting comes from it, nothing is repeated here.",
    examples=(
        "python -m hblm.evaluate checkpoint=outputs/checkpoints/NAME",
        "python -m hblm.evaluate checkpoint=DIR split=val threshold=0.4 posthoc_repath=true",
        "python -m hblm.evaluate checkpoint=DIR dataset.path=WHERE_THE_DATA_LIES_NOW",
    ),
)


def run(config: EvaluateConfig) -> None:
    """Score one split and write the evaluation's result."""
    started = time.perf_counter()
    remove_stale(Path(config.checkpoint).parent)
    checkpoint = open_checkpoint(Path(config.checkpoint))
    prepared = open_data(checkpoint, config.dataset.path)
    output_dir = Path(config.output_dir) if config.output_dir else _home_of(checkpoint.folder)
    cache_dir = Path(config.cache_dir) if config.cache_dir else output_dir / "cache"
    trained = checkpoint.config
    threshold = trained.threshold if config.threshold is None else config.threshold
    # only now torch: a fault answers in a second
    from hblm import build
    from hblm.corpus.batches import subsample, tokenise
    from hblm.fit import score
    from hblm.record import without_nodes, write_result

    accelerator = build.accelerator(config.device, checkpoint.meta["precision"], fallback="fp32")
    build.seed_everything(trained.seed, accelerator.device)
    model, tokenizer = build.stored_model(checkpoint)
    model.to(accelerator.device)
    scoring = build.scoring(
        trained,
        checkpoint.taxonomy,
        tokenizer,
        threshold=threshold,
        batch_size=checkpoint.meta["eval_batch_size"],
        num_workers=config.num_workers,
    )
    scoring.loss.to(accelerator.device)
    with progress() as start:
        splits = tokenise(
            prepared, tokenizer, max_length=trained.encoder.max_length, cache_dir=cache_dir, progress=start
        )
        split = splits[config.split]
        if config.split != "test":  # as the run itself saw it
            split = subsample(split, trained.dataset_fraction)
        views, _ = score(model, split, scoring, accelerator, start(f"scoring {config.split}", len(split)))
    record = {
        "run_id": checkpoint.meta["run_id"],
        "status": "done",
        "kind": "evaluation",
        "checkpoint": str(checkpoint.folder.resolve()),
        "settings": {"split": config.split, "threshold": threshold, "posthoc_repath": config.posthoc_repath},
        "choices": trained.choices(),
        "config": dataclasses.asdict(trained),
        "dataset": {
            **checkpoint.meta["dataset"],
            "files": dict(prepared.files),
            "documents": {config.split: len(split)},
        },
        "seed": trained.seed,
        config.split: without_nodes(views),
        "seconds": {"total": time.perf_counter() - started},
        "environment": {
            **environment(),
            **build.describe_device(accelerator),
            "eval_batch_size": scoring.batch_size,
        },
    }
    with runs.naming(output_dir):
        path = runs.evaluation_path(output_dir, trained, checkpoint.meta["tag"])
        write_result(path, record, {view: found["nodes"] for view, found in views.items()})
    for view, found in views.items():
        title = f"{checkpoint.meta['name']}: {config.split}"
        print_scores(view, found, repath=config.posthoc_repath, title=title)
    print(f"result      {path}")


def open_data(checkpoint: Checkpoint, given: str | None) -> Prepared:
    """Open the documents a checkpoint was trained on, where they lay or where they are said to lie now.

    Raises:
        CheckpointError: they are not there, or are not the same.
    """
    stored = checkpoint.meta["dataset"]
    folder = Path(given or stored["path"])
    way_out = f"give dataset.path=DIR of the {stored['name']} that has the hash {stored['fingerprint'][:12]}"
    try:
        prepared = open_prepared(folder, stored["name"])
    except DataError as error:
        where = "" if given else f"the data of {checkpoint.folder} is not where it lay: "
        raise CheckpointError(f"{where}{error}; {way_out}") from None
    if prepared.fingerprint != stored["fingerprint"]:
        raise CheckpointError(
            f"{folder} has the hash {prepared.fingerprint[:12]}, {checkpoint.folder} was trained on "
            f"{stored['fingerprint'][:12]}; {way_out}"
        )
    return prepared


def without_stored(argv: list[str]) -> tuple[list[str], list[str]]:
    """Drop arguments that say what the checkpoint says anyway; return the others, and what contradicts it."""
    places = [text.removeprefix("checkpoint=") for text in argv if text.startswith("checkpoint=")]
    if not places:
        return argv, []
    try:
        stored = open_checkpoint(Path(places[-1])).config
    except CheckpointError as error:
        return argv, [str(error)]
    own = {leaf.name for leaf in leaves(EvaluateConfig)}
    known = {leaf.name: leaf for leaf in leaves(TrainConfig)}
    by_group = {leaf.rules["option_of"]: leaf for leaf in known.values() if leaf.rules["option_of"]}
    groups = cli.Catalogue().groups
    kept, faults = [], []
    for text in argv:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            kept.append(text)
            continue
        name = override.key_or_group
        leaf = by_group.get(name) or known.get(name)
        if name in own or override.is_sweep_override() or (leaf is None and name not in groups):
            kept.append(text)
        elif leaf is None:
            faults += _differences(stored, name, text)
        else:
            value, why = read_leaf(leaf, override.value())
            has = runs.value_of(stored, leaf)
            if why or value != has:
                faults.append(
                    f"{text} contradicts the checkpoint, which has {name}={plain(has)}; leave it out"
                )
    return kept, faults


def _differences(stored: TrainConfig, group: str, text: str) -> list[str]:
    """Return where an option says something else than the checkpoint: the first such key, both values."""
    try:
        with initialize_config_module("hblm.conf", version_base="1.3"):
            composed = compose("train", ["dataset=wos", text] if group != "dataset" else [text])
    except HydraException as error:
        return [" ".join(str(error).split())]
    if group not in composed:  # a preset sets keys of many groups
        return [f"{text} was decided at training, and the checkpoint has all it set; leave it out"]
    for leaf in leaves(TrainConfig):
        if leaf.name.startswith(f"{group}.") and leaf.name not in ("dataset.path", "dataset.prepare"):
            says, _ = read_leaf(leaf, OmegaConf.select(composed, leaf.name))
            has = runs.value_of(stored, leaf)
            if says != has:
                return [
                    f"{text} contradicts the checkpoint: it says {leaf.name}={plain(says)}, "
                    f"the checkpoint has {plain(has)}; leave it out"
                ]
    return []


def _home_of(folder: Path) -> Path:
    """Return the output folder a checkpoint lies in: OUT for OUT/checkpoints/NAME, else ./outputs."""
    parents = folder.resolve().parents
    return parents[1] if parents[0].name == "checkpoints" else Path("outputs")


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    cli.main(PROGRAM, run, sys.argv[1:] if argv is None else argv, before=without_stored)


if __name__ == "__main__":
    main()
