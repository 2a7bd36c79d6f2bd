"""`hblm.api.evaluate`: scores of a checkpoint, or of an ensemble of two."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hblm.api.arguments import configuration, text_of_value, words_of
from hblm.api.results import EvaluateResult, TrainResult
from hblm.cli.programs import EVALUATE
from hblm.config.evaluate import EvaluateConfig
from hblm.errors import CheckpointError, ConfigError
from hblm.inference import evaluate as evaluation
from hblm.inference.arguments import without_stored
from hblm.json_files import read_object

Checkpoint = str | os.PathLike[str] | TrainResult


def evaluate(
    checkpoint: Checkpoint | Sequence[Checkpoint],
    *overrides: str,
    config_dir: str | Path | None = None,
    **settings: Any,
) -> EvaluateResult:
    """Score a trained checkpoint, or an ensemble of two, on one split; write the result and return it.

    Args:
        checkpoint: the folder of a model, "owner/name" of one on the hub, or the result of `hblm.api.train`;
            two of them are an ensemble.
        overrides: "key=value" as on the command line of hblm.evaluate.
        config_dir: a folder of your own options.
        settings: keys, such as split="val" or threshold=0.4.

    Raises:
        CheckpointError: a checkpoint is missing or damaged, or two do not match.
        ConfigError: all faults of the arguments, a line each.
    """
    is_one = isinstance(checkpoint, (str, os.PathLike, TrainResult))
    given: Sequence[Any] = [checkpoint] if is_one else list(checkpoint)  # type: ignore[arg-type]
    folders = [text_of_value(_folder_of(each)) for each in given]
    words = [f"checkpoint=[{','.join(folders)}]", *words_of(overrides, settings)]
    kept, faults = without_stored(words)
    config: EvaluateConfig = configuration(EVALUATE, kept, config_dir=config_dir, known_faults=faults)
    path = evaluation.complete(config).path.absolute()
    content = read_object(path)
    view = content["settings"]["view"]
    view = view if view in content[config.split] else next(iter(content[config.split]))
    predictions = content.get("predictions")
    return EvaluateResult(
        path=path,
        split=config.split,
        view=view,
        scores=content[config.split][view]["overall"],
        predictions=Path(predictions["path"]) if predictions else None,
        content=content,
    )


def _folder_of(checkpoint: Any) -> str:
    if isinstance(checkpoint, TrainResult):
        if checkpoint.checkpoint is None:
            raise CheckpointError(f"{checkpoint.path} has no checkpoint: it was not kept")
        return str(checkpoint.checkpoint)
    if isinstance(checkpoint, (str, os.PathLike)):
        return str(Path(checkpoint).expanduser())
    raise ConfigError(f"checkpoint={checkpoint!r:.100} is not a folder, nor a result of hblm.api.train")
