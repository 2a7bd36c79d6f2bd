"""`hblm.api.train`: one training run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from hblm.api.arguments import configuration, words_of
from hblm.api.results import TrainResult
from hblm.cli.programs import TRAIN
from hblm.config.train import TrainConfig
from hblm.engine import training
from hblm.errors import ConfigError
from hblm.process import place

# the random generators and accelerate's state are global: one training at a time in a process
_TRAINING = threading.Lock()


def train(*overrides: str, config_dir: str | Path | None = None, **settings: Any) -> TrainResult:
    """Train one model, test it, write its checkpoint and result, and return them.

    A run whose result exists already is not trained again, as on the command line. Calls in several threads
    run one after the other.

    Args:
        overrides: "key=value" as on the command line of hblm.train.
        config_dir: a folder of your own options.
        settings: options and keys, such as encoder="minilm" or trainer={"epochs": 3} or
            **{"trainer.epochs": 3}; dataset= is an option, a prepared folder as a Path, or what
            `hblm.api.prepare` returns.

    Raises:
        ConfigError: all faults of the arguments, a line each.
        HblmError: a fault of data, encoder or checkpoint; or training cannot go on.
    """
    config: TrainConfig = configuration(TRAIN, words_of(overrides, settings), config_dir=config_dir)
    if place().size > 1:
        raise ConfigError(
            f"hblm.api.train was started {place().size} times by a launcher; start it once, with "
            f"trainer.processes={place().local_size}"
        )
    with _TRAINING:
        finished = training.complete(config)
    assert finished is not None  # of rank 0
    return _result(finished)


def _result(finished: training.Finished) -> TrainResult:
    config, run, content = finished.config, finished.run, finished.content
    view = config.joint_variant.monitored
    return TrainResult(
        path=run.result.absolute(),
        checkpoint=run.checkpoint.absolute() if run.checkpoint.exists() else None,
        run_id=run.id,
        view=view,
        val=content["val"][view]["overall"],
        test=content["test"][view]["overall"],
        seconds=content["seconds"]["total"],
        content=content,
        is_new=finished.is_new,
    )
