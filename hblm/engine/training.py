"""Training runs: which of them are to be done, in how many processes, and their result on the terminal."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hblm import process
from hblm.config import identity, overrides
from hblm.config.train import TrainConfig
from hblm.console import log, print_views, silence, tuned_line
from hblm.data.dataset import Prepared
from hblm.data.preparation import open_or_prepare
from hblm.encoders.pretrained import Pretrained
from hblm.engine import auto, launch
from hblm.engine.encoder_source import source_of
from hblm.errors import DataError
from hblm.files import scratch_folder
from hblm.runs import paths, result


@dataclass(frozen=True)
class Finished:
    """A run that is done.

    Attributes:
        config: the run's configuration, with no setting left open.
        run: id, name and paths.
        content: of the result file.
        is_new: False if the result existed already.
    """

    config: TrainConfig
    run: paths.Run
    content: Mapping[str, Any]
    is_new: bool


def run(
    config: TrainConfig,
    *,
    expected: str | None = None,
    wait: bool = True,
    machines: launch.Machines | None = None,
    chosen: auto.Chosen | None = None,
) -> None:
    """Complete a run and print its result; arguments and errors are those of `complete`."""
    finished = complete(config, expected=expected, wait=wait, machines=machines, chosen=chosen)
    if finished is None:
        return
    if not finished.is_new:
        print("done before; force=true runs it again")
    show(finished)


def complete(
    config: TrainConfig,
    *,
    expected: str | None = None,
    wait: bool = True,
    machines: launch.Machines | None = None,
    chosen: auto.Chosen | None = None,
) -> Finished | None:
    """Train, test and write, unless the run's result exists already.

    Args:
        config: the run's configuration.
        expected: the run id of this configuration when a sweep was submitted; None for any.
        wait: for another process that does this run; otherwise paths.Busy is raised.
        machines: that share the run, of which this is the first; None for this machine alone.
        chosen: settings that were chosen automatically when the sweep was submitted, with reasons.

    Returns:
        The finished run; None in a rank other than the first.

    Raises:
        ConfigError: the configuration does not fit the encoder or the documents.
        DataError: dataset or encoder have changed, so that the run id is not the one expected, or the
            result of an earlier run is damaged.
    """
    started = time.perf_counter()
    # a custom dataset gets the name of its folder, here and in the checkpoint
    config = replace(config, dataset=replace(config.dataset, name=config.dataset_name))
    process.require_fitting(config.trainer.processes)
    here = process.place()
    if here.rank:  # started by a launcher such as torchrun: rank 0 decides
        if expected := _run_id_of_rank_0(config, None):
            join(config, expected, started)
        return None
    prepared = open_or_prepare(config.dataset, config.encoder)
    source = source_of(config)
    config, just_chosen = auto.settle(config, prepared, source)
    chosen = {**(chosen or {}), **just_chosen}
    paths.remove_leftovers(Path(config.output_dir), Path(config.cache_dir))
    if identity.twins(config):
        log.info("joint_objective=full with joint_loss_fused=0 and joint_objective=aux_only are one run")
    this = expect(identify(config, prepared, source), expected, config, prepared)
    if here.size == 1 and not config.force and this.is_done:
        return done_before(config, this)  # without the lock, which needs a writable folder
    lock = _acquired(this, wait=wait)
    try:
        this = identify(config, prepared, source)
        if not _run_id_of_rank_0(config, this.id if config.force or not this.is_done else None):
            return done_before(config, this)
        this.require_writable()
        if here.size == 1 and (config.trainer.processes > 1 or machines is not None):
            arguments = {"config": dataclasses.asdict(config), "expected": this.id, "chosen": chosen}
            launch.launch(arguments, config.trainer.processes, machines)
            this = paths.find(this.output_dir, this.id, this.names)
            return Finished(config, this, _read(config, this), is_new=True)
        return train(config, prepared, source, this, started, chosen)
    finally:
        lock.release()


def join(
    config: TrainConfig, expected: str | None, started: float, chosen: auto.Chosen | None = None
) -> None:
    """Train as one rank of a run whose lock another process holds.

    Args:
        config, expected, chosen: as for `run`.
        started: when the run began, by time.perf_counter.

    Raises:
        DataError: dataset or encoder have changed, so that the run id is not the one expected.
    """
    if process.place().rank:
        silence()
    prepared = open_or_prepare(config.dataset, config.encoder)
    source = source_of(config)
    config, just_chosen = auto.settle(config, prepared, source)
    this = expect(identify(config, prepared, source), expected, config, prepared)
    train(config, prepared, source, this, started, {**(chosen or {}), **just_chosen})


def _acquired(this: paths.Run, *, wait: bool) -> FileLock:
    """Return the run's lock, held by this process.

    Raises:
        paths.Busy: another process holds it, and `wait` is False.
    """
    lock = this.lock()
    try:
        lock.acquire(timeout=0 if wait else 1)  # is_locked in another process holds it for a moment
    except Timeout:
        if not wait:
            raise paths.Busy from None
        log.info("another process does this run: waiting for it")
        lock.acquire()
    return lock


def _run_id_of_rank_0(config: TrainConfig, run_id: str | None) -> str | None:
    """Return the id, as rank 0 has it, of the run to be done; None where its result exists already."""
    if process.place().size == 1:
        return run_id
    from hblm.engine import collectives, device

    device.accelerator(config.device, config.trainer.precision)  # starts the process group
    common: str | None = collectives.broadcast(run_id)
    return common


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
    """Return the run with its id, from the present files of dataset and encoder, and its name."""
    return paths.identify(config, data=prepared.fingerprint, encoder=source.identity(), tag=source.tag)


def train(
    config: TrainConfig,
    prepared: Prepared,
    source: Pretrained,
    this: paths.Run,
    started: float,
    chosen: auto.Chosen,
) -> Finished | None:
    """Load the model, fit, test and write; of several ranks the first one writes, and others return None.

    Raises:
        DataError: dataset or encoder changed while they were loaded.
    """
    # imported here, because torch takes seconds to load: a finished run or a wrong setting is reported first
    from hblm.engine import outcome, session

    for line in auto.lines(chosen):
        log.info("%s", line)
    loaded = session.from_config(config, prepared, source, this.name)
    loaded = replace(loaded, chosen={**chosen, **loaded.chosen})
    expect(identify(config, prepared, source), this.id, config, prepared)
    log.info(
        "run %s: %d documents to train, %d to validate, %d to test; %d nodes on %d levels",
        *(this.name, len(loaded.train), len(loaded.val), len(loaded.test)),
        *(len(prepared.taxonomy), len(prepared.taxonomy.levels)),
    )
    scores = outcome.fit_and_test(config, loaded, this)
    if not loaded.accelerator.is_main_process:
        return None
    with paths.naming(this.output_dir):
        # another run may have taken the name meanwhile; dataset and encoder are those that were loaded
        this = paths.find(this.output_dir, this.id, this.names)
        # into temporary folders: older files keep their names until the new ones are complete
        with scratch_folder(this.result) as results, scratch_folder(this.checkpoint) as checkpoints:
            checkpoint = checkpoints / this.name if config.trainer.keep_checkpoint else None
            if checkpoint is not None:
                outcome.write_checkpoint(config, this, loaded, scores.decisions, checkpoint)
            path = results / this.result.name
            content = outcome.write_result(config, this, loaded, scores, path, started)
            this.replace_by(results, checkpoint)
    return Finished(config, this, content, is_new=True)


def done_before(config: TrainConfig, this: paths.Run) -> Finished:
    """Return a run that was done before.

    Raises:
        DataError: the result is damaged.
    """
    return Finished(config, this, _read(config, this), is_new=False)


def _read(config: TrainConfig, this: paths.Run) -> Mapping[str, Any]:
    return result.read_result(this, config.joint_variant.views)


def show(finished: Finished) -> None:
    """Print a result's test scores of the configured views, its notes, and the paths of its files."""
    config, this, content = finished.config, finished.run, finished.content
    joint = config.joint_variant
    shown = joint.joint_eval_view if joint.is_joint else joint.monitored
    consistency = "raise" if config.posthoc_repath else "none"
    print_views(content["test"], shown, consistency=consistency, title=f"{this.name}: test")
    if tuned := content.get("tuned"):
        log.info("%s", tuned_line(content["test"], tuned, "test"))
    for note in content.get("notes", ()):  # results of earlier versions have none
        log.info(note["text"])
    _print_paths(config, this)
    if config.tune != "none" and (tuned or {}).get("tune") != config.tune:  # done before, without it
        checkpoint = overrides.argument("checkpoint", str(this.checkpoint))
        log.info(
            "the result has no scores for tune=%s: python -m hblm.evaluate %s tune=%s",
            *(config.tune, checkpoint, config.tune),
        )


def _print_paths(config: TrainConfig, this: paths.Run) -> None:
    """Print the paths of result and checkpoint, and commands to try next."""
    print(f"result      {this.result}")
    if this.checkpoint.exists():
        print(f"checkpoint  {this.checkpoint}")
        checkpoint = overrides.argument("checkpoint", str(this.checkpoint))
        print(process.as_started(f"try next    python -m hblm.evaluate {checkpoint} posthoc_repath=true"))
    if config.film.propagation_method == "none":
        others = "seed=2, or with method=top_down in place of its method, film and head"
    else:
        others = "seed=2, film=logit, or with method=independent in place of its method and film"
    print(f"            the same command with {others}")
