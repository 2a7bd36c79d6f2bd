"""Files that a stranger made, or that were damaged: read, passed over by name, or refused in one message."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import made_results
import pytest
from mutations import mutated
from programs import TINY, compose

from hblm.config.aggregate import AggregateConfig
from hblm.config.prepare import PrepareConfig
from hblm.config.train import Encoder, TrainConfig
from hblm.data import preparation
from hblm.data.preparation import open_or_prepare
from hblm.data.writer import FILES
from hblm.engine import training
from hblm.engine.encoder_source import source_of
from hblm.errors import HblmError
from hblm.runs.checkpoint import SCHEMA_VERSION, open_checkpoint
from hblm.sweep.__main__ import main as sweep
from hblm.sweep.launchers.registry import open_sweep
from hblm.sweep.plan import make_plan
from hblm.sweep.submission import freeze
from hblm.tables import report
from hblm.version import FORMULAS

MUTATIONS, SECONDS = 200, 120.0


class Read(NamedTuple):
    """Files that are read, and what reads them."""

    files: list[Path]
    read: Callable[[], object]


def results() -> Read:
    made_results.write_grid(Path("outputs"), {"top_down": 0, "dual": 0.01}, ("wos", "nyt"), (1, 2))
    td, bu = (made_results.result(method, 3) for method in ("top_down", "bottom_up"))
    for name, record in (("td", td), ("bu", bu), ("eval", made_results.evaluation(td, threshold=0.3))):
        made_results.write(Path("outputs"), name, record)
    made_results.write(Path("outputs"), "ensemble", made_results.ensemble(td, bu))

    config = AggregateConfig(
        metric=["test.macro_f1", "test.td.level_0.micro_f1", "seconds.train"], frame=["csv", "parquet"]
    )
    config.formats = ["markdown", "csv"]
    return Read(sorted(Path("outputs/results").glob("*.json")), lambda: report.run(config))


def manifest(data: Path) -> Read:
    folder = Path("copy")
    folder.mkdir()
    for name in (*FILES, "manifest.json"):
        (folder / name).write_bytes((data / name).read_bytes())
    config = PrepareConfig(check=True, encoder=Encoder(model_name="FacebookAI/roberta-large"))
    config.dataset.path = str(folder)
    return Read([folder / "manifest.json"], lambda: preparation.run(config))


def taxonomy(data: Path) -> Read:
    found = manifest(data)
    (Path("copy") / "manifest.json").unlink()
    return Read([Path("copy/taxonomy.json")], found.read)


def ledger(data: Path) -> Read:
    Path("mine/sweep").mkdir(parents=True)
    Path("mine/sweep/tiny.yaml").write_text(
        f"# @package _global_\ndefaults:\n  - override /dataset: custom\n  - override /encoder: tiny\n"
        f"  - override /trainer: smoke\ndataset: {{path: {data}}}\nencoder: {{max_length: 32}}\n"
        "hydra: {sweeper: {params: {method: 'top_down,bottom_up'}}}\nsweep: {ensemble_weight: [0.5]}\n"
    )
    found = open_sweep("outputs", "tiny")
    cells = freeze(make_plan("tiny", (), "mine", prepare=False))
    for cell in cells:
        found.write_cell(cell)
        found.write_attempt(cell, 1, state="ended", cause="raised", why="x", pid=9, born=1.0, started=2.0)
        found.write_attempt(cell, 2, state="running", host="elsewhere", started=time.time())
    where = {"on": "local", "time": None, "memory": None, "devices": [["cpu", 1]], "cluster": None}
    more = {"table": {}, "expect": [], "file": "tiny.yaml", "where": where}
    found.write_submission({"cells": [cell.key for cell in cells], **more})

    def read() -> None:
        for verb in ("status", "logs"):
            with contextlib.suppress(SystemExit):
                sweep([verb, "sweep=tiny"])

    return Read(sorted(found.folder.rglob("*.json")), read)


def checkpoint(data: Path) -> Read:
    folder = Path("outputs/checkpoints/x")
    (folder / "encoder").mkdir(parents=True)
    (folder / "model.safetensors").touch()
    (folder / "taxonomy.json").write_bytes((data / "taxonomy.json").read_bytes())
    place = {"name": "fruit", "path": str(data), "fingerprint": "f" * 64}
    meta = {"run_id": "a" * 64, "name": "x", "tag": "tiny", "dataset": place, "encoder": {}, "training": "t"}
    made = {"precision": "fp32", "eval_batch_size": 8, "node_priors": [0.5] * 7}
    head = {"schema_version": SCHEMA_VERSION, "formulas": FORMULAS}
    config = compose("train", TrainConfig, *TINY, f"dataset.path={data}")
    (folder / "hblm.json").write_text(
        json.dumps({**head, **meta, **made, "config": dataclasses.asdict(config)})
    )
    return Read([folder / "hblm.json"], lambda: open_checkpoint(folder))


def done(data: Path) -> Read:
    config = compose("train", TrainConfig, *TINY, f"dataset.path={data}", "dataset.name=fruit")
    prepared, source = open_or_prepare(config.dataset, config.encoder), source_of(config)
    this = training.identify(config, prepared, source)
    made_results.write(Path("outputs"), this.name, {**made_results.result(seed=1), "run_id": this.id})

    def read() -> None:
        this = training.identify(config, prepared, source)
        if this.is_done:
            training.show(training.done_before(config, this))

    return Read([this.result], read)


KINDS: dict[str, Callable[[Path], Read]] = {
    "results": lambda data: results(),
    "manifest": manifest,
    "taxonomy": taxonomy,
    "ledger": ledger,
    "checkpoint": checkpoint,
    "done": done,
}


def faults(found: Read, seed: int, mutations: int, seconds: float) -> Iterator[tuple[int, Path, str, str]]:
    """Yield number, file, text and exception of each mutation that ends in anything but an HblmError."""
    sound = {file: file.read_text() for file in found.files}
    end = time.monotonic() + seconds
    for number in range(mutations):
        if time.monotonic() > end:
            return
        draw = random.Random(f"{seed} {number}")
        file = draw.choice(found.files)
        text = mutated(json.loads(sound[file]), draw)
        file.write_text(text)
        try:
            with contextlib.suppress(HblmError):
                found.read()
        except Exception as error:  # whatever it is: it is a fault
            yield number, file, text, f"{type(error).__name__}: {error!s:.200}"
        file.write_text(sound[file])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # what numbers overflow is no traceback
@pytest.mark.parametrize("kind", KINDS)
def test_no_mutation_of_a_file_ends_in_a_traceback(kind: str, learnable: Path, capsys: Any) -> None:
    found: Any = [
        (number, file.name, why)
        for number, file, _, why in faults(
            KINDS[kind](learnable), 1, MUTATIONS // len(KINDS), SECONDS / len(KINDS)
        )
    ]
    assert found == []
