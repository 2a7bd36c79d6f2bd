"""Whole runs of the tiny encoder, in this process; shared by the tests of the programs."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

from hblm.config.compose import Composer
from hblm.config.evaluate import EvaluateConfig
from hblm.config.train import TrainConfig
from hblm.engine import training
from hblm.errors import ConfigError
from hblm.files import sha256_file
from hblm.inference import evaluate
from hblm.json_files import sealed

TINY = ("dataset=custom", "encoder=tiny", "trainer=smoke", "encoder.max_length=32", "device=cpu")

LEARNING = ("trainer.epochs=12", "trainer.batch_size=10", "trainer.learning_rate=1e-2", "pooling=max")


_composer = functools.cache(Composer)  # one for each program: Hydra takes 0.15 s for a choice of options


def compose(program: str, schema: type, *overrides: str) -> Any:
    """Return a program's configuration.

    Raises:
        ConfigError: all faults of the overrides, a line each.
    """
    composed = _composer(program, schema).compose(overrides)
    if problems := [str(fault) for fault in composed.faults] or composed.config.conflicts():
        raise ConfigError("\n".join(problems))
    return copy.deepcopy(composed.config)


def run(data: Path, *overrides: str) -> Path:
    """Train and return the result's path."""
    before = set(Path().glob("*/results/*.json"))
    training.run(compose("train", TrainConfig, *TINY, f"dataset.path={data}", *overrides))
    (made,) = set(Path().glob("*/results/*.json")) - before
    return made


def evaluation(checkpoint: Path | tuple[Path, Path], *overrides: str) -> dict[str, Any]:
    """Evaluate a checkpoint, or an ensemble of two; return the result, and under `made` its path."""
    one, given = (checkpoint, str(checkpoint)) if isinstance(checkpoint, Path) else (checkpoint[0], "")
    results = one.parent.parent / "results"
    before = set(results.glob("eval_*.json"))
    given = given or f"[{','.join(map(str, checkpoint))}]"
    evaluate.run(compose("evaluate", EvaluateConfig, f"checkpoint={given}", "device=cpu", *overrides))
    (made,) = set(results.glob("eval_*.json")) - before
    return {**json.loads(made.read_text()), "made": made}


def edit(path: Path, **values: Any) -> None:
    """Change some keys of a JSON file, and its seal with them."""
    content = {**json.loads(path.read_text()), **values}
    seal = content.pop("sha256", None)
    path.write_text(json.dumps(sealed(content) if seal else content))


def unseal(checkpoint: Path, **config: Any) -> None:
    """Make a checkpoint as it was before hblm.json had sums; change keys of its config, such as seed=2."""
    meta = json.loads((checkpoint / "hblm.json").read_text())
    del meta["sha256"], meta["files"]
    for name, value in config.items():
        group, _, last = name.rpartition("__")
        (meta["config"][group] if group else meta["config"])[last] = value
    (checkpoint / "hblm.json").write_text(json.dumps(meta))


def reseal(checkpoint: Path, **values: Any) -> None:
    """Make a checkpoint sound again after its files were changed; change keys of hblm.json."""
    meta = json.loads((checkpoint / "hblm.json").read_text()) | values
    del meta["sha256"]
    meta["files"] = {
        path.relative_to(checkpoint).as_posix(): sha256_file(path)
        for path in checkpoint.rglob("*")
        if path.is_file() and path.name not in ("hblm.json", "decisions.json")
    }
    (checkpoint / "hblm.json").write_text(json.dumps(sealed(meta)))


def checkpoint_of(result: Path) -> Path:
    return result.parent.parent / "checkpoints" / result.stem


def numbers(result: Path) -> dict[str, Any]:
    """Return what must not differ between two runs of one command."""
    record = json.loads(result.read_text())
    for entry in record["history"]:
        del entry["documents_per_second"]
    return {name: record[name] for name in ("run_id", "best_epoch", "history", "val", "test", "parameters")}
