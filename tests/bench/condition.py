"""Compare ways in which one level conditions the next, on frozen embeddings computed once.

    python tests/bench/condition.py choose --data docstrings_small=DIR --data aapd=DIR
    python tests/bench/condition.py test   --data docstrings_small=DIR --data aapd=DIR \\
        --variants gold_half,attention
    python tests/bench/condition.py table

`choose` trains every variant with seeds 1 to 3, compares validation scores only, and names the best, at most
four. `test` trains the chosen ones with seeds 1 to 8 and reports test scores: the differences to independent
heads over all (set, seed) pairs, p of a paired permutation test, adjusted by Holm over all variants that were
tested in this file under these settings. Independent heads, the unchanged top_down, and the oracle (an upper
bound, not a model) always run and are never chosen. Intervals and p are about other seeds, not other sets.

Every finished run is a line of the CSV; a run with a line is not repeated. Runs of one (set, seed) share
initial heads, the order of documents and, where a variant adds no pass, the dropout masks. Other keys are
written as for `python -m hblm.train`; the defaults are those of experiment=quickstart with head=residual_mlp.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from condition_variants import INDEPENDENT, ORACLE, TOP_DOWN, VARIANTS, Built, Variant
from torch import nn

from hblm.config.compose import Composer, Unreadable
from hblm.config.train import SINGLE_VIEW, TrainConfig
from hblm.data.batches import JoinedSplit
from hblm.data.preparation import open_or_prepare
from hblm.encoders.pretrained import locate
from hblm.engine import auto, build, device
from hblm.engine.embeddings import vectors_of
from hblm.engine.loop import Watch, fit
from hblm.engine.scoring import score
from hblm.engine.session import TrainingSession, from_config
from hblm.engine.training import identify
from hblm.errors import ConfigError, HblmError, nearest
from hblm.nn.losses import LOSSES, Objective
from hblm.tables.significance import mean_interval, paired_permutation, shaffer

DEFAULTS = ("experiment=quickstart", "head=residual_mlp", "dataset=custom")
ALWAYS = (INDEPENDENT, TOP_DOWN, ORACLE)
MOST_CHOSEN = 4
SEEDS = {"choose": 3, "test": 8}
SCORES = ("micro", "macro")


@dataclass(frozen=True)
class Line:
    """A finished run; scores are F1 in 0..1, of a test only in the stage `test`.

    Attributes:
        run: the first 16 digits of the run id of its configuration, which covers data, encoder and seed.
        settings: the loss, and the keys given that can change numbers.
    """

    variant: str
    set: str
    seed: int
    stage: str
    run: str
    settings: str
    val_micro: float
    val_macro: float
    test_micro: float | None
    test_macro: float | None
    best_epoch: int
    seconds: float

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from other runs."""
        return self.variant, self.stage, self.run


def read_lines(path: Path) -> list[Line]:
    """Return the finished runs of a CSV; none where it is not there yet."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [
            Line(**{fld.name: _parsed(str(fld.type), row[fld.name]) for fld in fields(Line)})
            for row in csv.DictReader(stream)
        ]


def _parsed(kind: str, text: str) -> Any:
    if kind in ("int", "str"):
        return int(text) if kind == "int" else text
    return float(text) if text else None


def append_line(path: Path, line: Line) -> None:
    """Write a finished run."""
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [fld.name for fld in fields(Line)])
        if new:
            writer.writeheader()
        writer.writerow(asdict(line))


class Settings:
    """The configuration of every run: the defaults, a loss, and keys given on the command line."""

    def __init__(self, loss: str, overrides: Sequence[str]) -> None:
        self.composer = Composer("train", TrainConfig)
        self.overrides = [f"loss={loss}", *overrides]

    def __str__(self) -> str:
        """Return what is given, in alphabetical order, without keys that cannot change numbers."""
        leaves = self.composer.leaves
        given = dict(text.partition("=")[::2] for text in self.overrides)
        inert = {key for key in given if key in leaves and not leaves[key].rules["identity"]}
        return " ".join(f"{key}={value}" for key, value in sorted(given.items()) if key not in inert)

    def compose(self, name: str, folder: str, *more: str) -> TrainConfig:
        """Return the configuration of a run on a prepared set.

        Raises:
            ConfigError: what does not compose, and what is not this comparison's to vary.
        """
        dataset = f"dataset.name={name}", f"dataset.path={folder}"
        try:
            found = self.composer.compose([*DEFAULTS, *dataset, *self.overrides, *more])
        except Unreadable as error:
            raise ConfigError(str(error)) from None
        config: TrainConfig = found.config
        problems = [str(fault) for fault in found.faults] or config.conflicts()
        if config.direction.cascade_direction != "top_down" or config.joint_variant.is_joint:
            problems.append("variants have one top-down branch; drop direction, method, joint_variant")
        if config.film.propagation_method not in ("sigmoid", "none"):
            problems.append(f"variants are those of film=sigmoid; drop film={config.film.propagation_method}")
        if config.encoder.trainable:
            problems.append("embeddings are a frozen encoder's; drop encoder.trainable=true")
        if problems:
            raise ConfigError("\n".join(problems))
        return config


@dataclass(frozen=True)
class Frame:
    """What all runs on a set share: device, scoring, encoder and taxonomy, and every document's embedding."""

    job: TrainingSession
    splits: Mapping[str, Any]


def open_frame(config: TrainConfig) -> Frame:
    """Load a set, with the embeddings of all its documents and of the texts of nodes.

    Raises:
        ConfigError: the set has one level.
    """
    prepared = open_or_prepare(config.dataset, config.encoder)
    if len(prepared.taxonomy.levels) < 2:
        raise ConfigError(f"{prepared.folder} has one level, so that no level conditions another")
    source = locate(config.encoder.model_name, config.encoder.revision)
    config = config.having({"trainer.label_documents": True})  # which embeds the texts of nodes
    job = from_config(config, prepared, source, "condition")
    assert isinstance(job.trained_on, JoinedSplit)
    nodes = job.trained_on.parts[1]
    return Frame(job, {"train": job.train, "val": job.val, "test": job.test, "nodes": nodes})


def train_one(frame: Frame, config: TrainConfig, variant: Variant, *, with_test: bool) -> dict[str, Any]:
    """Train a variant and return its scores; the test split is scored only where it is to be."""
    started = time.perf_counter()
    job, splits, taxonomy = frame.job, frame.splits, frame.job.prepared.taxonomy
    nodes = splits["nodes"]
    texts = vectors_of(job.model, nodes, job.scoring, job.accelerator)
    device.seed_everything(config.seed, job.accelerator.device)
    model = build.classifier(config, taxonomy, job.model.encoder, job.scoring.objective.loss.link)
    model.encoder = nn.Identity()  # what it makes of the documents is there: no need to copy its state
    model.to(job.accelerator.device)
    change = variant.change(Built(model, config, taxonomy, texts))
    scoring = replace(job.scoring, objective=Objective(job.scoring.objective.loss, change.weights))
    if change.gold is not None:
        scoring = change.gold.attach(model, scoring)
    model.to(job.accelerator.device)
    label_text = config.head.output_init == "label_text"
    build.initialise_output(model, config, scoring, texts if label_text else None)
    # anew, so that a variant's own layers do not shift the stream of dropout
    device.seed_everything(config.seed, job.accelerator.device)

    def tell(entry: Mapping[str, Any]) -> None:
        if change.gold is not None:
            change.gold.progress = min(1.0, entry["epoch"] / max(1, config.trainer.epochs - 1))

    fitted = fit(
        model,
        JoinedSplit(splits["train"], nodes) if config.trainer.label_documents else splits["train"],
        splits["val"],
        schedule=build.schedule(config),
        scoring=scoring,
        monitor=(SINGLE_VIEW, config.trainer.monitor),
        accelerator=job.accelerator,
        watch=Watch(step=lambda documents, loss: None, epoch=tell),
    )
    best = fitted.history[fitted.best_epoch - 1]
    found = {"val_micro": best["val_micro_f1"], "val_macro": best["val_macro_f1"]}
    found |= {"test_micro": None, "test_macro": None}
    if with_test:
        overall = score(model, splits["test"], scoring, job.accelerator)[0][SINGLE_VIEW]["overall"]
        found |= {f"test_{name}": overall[f"{name}_f1"] for name in SCORES}
    job.accelerator.free_memory()
    return {**found, "best_epoch": fitted.best_epoch, "seconds": round(time.perf_counter() - started, 1)}


def run_stage(
    stage: str, data: Mapping[str, str], settings: Settings, names: Sequence[str], seeds: int, path: Path
) -> None:
    """Train what has no line yet: of each set, all variants with one seed, then with the next."""
    done = {line.key for line in read_lines(path)}
    cells = [(seed, name) for seed in range(1, seeds + 1) for name in names]
    configs = {
        (which, seed, name): settings.compose(which, folder, *VARIANTS[name].overrides, f"seed={seed}")
        for which, folder in data.items()
        for seed, name in cells
    }
    for which, folder in data.items():
        frame = None
        plain = settings.compose(which, folder, "film=none")
        prepared = open_or_prepare(plain.dataset, plain.encoder)
        source = locate(plain.encoder.model_name, plain.encoder.revision)
        for seed, name in cells:
            config = auto.settle(configs[which, seed, name], prepared, source)[0]
            run = identify(config, prepared, source).id[:16]
            if (name, stage, run) in done:
                continue
            frame = frame or open_frame(auto.settle(plain, prepared, source)[0])
            found = train_one(frame, config, VARIANTS[name], with_test=stage == "test")
            append_line(path, Line(name, which, seed, stage, run, str(settings), **found))
            scores = " / ".join(f"{100 * found[f'val_{each}']:.1f}" for each in SCORES)
            print(f"{which} seed {seed} {name}: validation {scores}, {found['seconds']:.0f} s", flush=True)


Pairs = dict[tuple[str, int], Line]


def by_variant(lines: Iterable[Line], stage: str, settings: str) -> dict[str, Pairs]:
    """Return the runs of a stage under some settings, by variant, set and seed; the last one counts."""
    found: dict[str, Pairs] = {}
    for line in lines:
        if (line.stage, line.settings) == (stage, settings):
            found.setdefault(line.variant, {})[line.set, line.seed] = line
    return found


def differences(pairs: Pairs, base: Pairs, column: str) -> np.ndarray:
    """Return a score less that of independent heads, of each (set, seed) that both have; F1 in 0..1."""
    shared = [key for key in base if key in pairs]
    return np.array([getattr(pairs[key], column) - getattr(base[key], column) for key in shared])


def gain(pairs: Pairs, base: Pairs) -> float:
    """Return what decides a choice: the mean difference in validation, of micro- and macro-F1 equally."""
    return float(np.mean([differences(pairs, base, f"val_{name}").mean() for name in SCORES]))


def choice(found: Mapping[str, Pairs]) -> list[str]:
    """Return the variants that beat independent heads in validation, the best first, at most four."""
    base = found.get(INDEPENDENT, {})
    gains = {
        name: gain(pairs, base)
        for name, pairs in found.items()
        if name not in ALWAYS and base.keys() == pairs.keys()  # all pairs, or it is not finished
    }
    better = [name for name, value in gains.items() if value > 0]
    return sorted(better, key=lambda name: -gains[name])[:MOST_CHOSEN]


def holm(found: Mapping[str, Pairs], column: str) -> dict[str, float]:
    """Return the adjusted p of each variant that was tested, the baselines and the bound left out."""
    base = found[INDEPENDENT]
    tested = [name for name in found if name not in ALWAYS]
    p = [float(paired_permutation(differences(found[name], base, column)[None])[0]) for name in tested]
    # comparisons with one row are not all pairs of rows, so that `shaffer` takes Holm's factors
    return dict(zip(tested, shaffer(p, len(p) + 1), strict=True)) if p else {}


def table(found: Mapping[str, Pairs], split: str) -> str:
    """Return a stage's scores as markdown: means over the pairs in percent, differences in points."""
    tested = split == "test"
    heads = ["variant", "pairs", *SCORES, *(f"{name} - independent" for name in SCORES)]
    heads += [f"p {name} (Holm)" for name in SCORES] if tested else []
    adjusted = {name: holm(found, f"{split}_{name}") if tested else {} for name in SCORES}
    base = found[INDEPENDENT]
    rows = [heads, ["---"] * len(heads)]
    ranked = sorted(found.keys() - {INDEPENDENT, ORACLE}, key=lambda name: -gain(found[name], base))
    for name in [INDEPENDENT, *ranked, *({ORACLE} & found.keys())]:
        cells = ["oracle (a bound, no model)" if name == ORACLE else name, str(len(found[name]))]
        for each in SCORES:
            scores = [getattr(line, f"{split}_{each}") for line in found[name].values()]
            cells.append(f"{100 * np.mean(scores):.2f}")
        for each in SCORES:
            gaps = 100 * differences(found[name], base, f"{split}_{each}")
            cells.append("" if name == INDEPENDENT else interval(gaps))
        if tested:
            cells += [f"{adjusted[each][name]:.4f}" if name in adjusted[each] else "" for each in SCORES]
        rows.append(cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def interval(gaps: np.ndarray) -> str:
    """Return the mean of some differences and, of two and more, its t interval of 95 %."""
    low, high = mean_interval(gaps.tolist())
    return f"{gaps.mean():+.2f} [{low:+.2f}, {high:+.2f}]" if len(gaps) > 1 else f"{gaps.mean():+.2f}"


def report(lines: Sequence[Line], stage: str, settings: str) -> None:
    """Print a stage's table, and after `choose` the choice."""
    found = by_variant(lines, stage, settings)
    if INDEPENDENT not in found:
        return
    sets = sorted({line.set for line in found[INDEPENDENT].values()})
    split = "val" if stage == "choose" else "test"
    print(f"\n{stage}: {split} F1 on {', '.join(sets)} ({settings})\n\n{table(found, split)}")
    if stage == "choose":
        print(f"\nchosen: {' '.join(choice(found)) or 'none is better than independent heads'}")


def given_data(texts: Sequence[str]) -> dict[str, str]:
    """Return name -> folder of `NAME=DIR` texts.

    Raises:
        ConfigError: a text without a name or a folder, or a name given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not name or not folder or name in found:
            raise ConfigError(f"--data {text}: write NAME=DIR, each name once")
        found[name] = folder
    return found


def given_variants(stage: str, text: str) -> list[str]:
    """Return the variants of a stage: those named and those that always run.

    Raises:
        ConfigError: an unknown variant, or a test of none.
    """
    names = text.split(",") if text else []
    for name in names:
        if name not in VARIANTS:
            raise ConfigError(f"--variants {name}: not one of {', '.join(VARIANTS)}{nearest(name, VARIANTS)}")
    if stage == "test" and not set(names) - set(ALWAYS):
        raise ConfigError("test needs --variants A,B: those that choose named")
    wanted = {*ALWAYS, *(names or VARIANTS)}
    return [name for name in VARIANTS if name in wanted]


def main(argv: Sequence[str] | None = None) -> None:
    """Run a stage and print its table, or print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("stage", choices=[*SEEDS, "table"])
    parser.add_argument("overrides", nargs="*", help="keys such as trainer.epochs=20")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help="a prepared set")
    parser.add_argument("--variants", default="", metavar="A,B", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--seeds", type=int, help="how many, from 1 on; choose: 3, test: 8")
    parser.add_argument("--loss", default="bce", help=f"one of {', '.join(LOSSES)}")
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"))
    given = parser.parse_intermixed_args(argv)
    if given.stage != "table":
        data, names = given_data(given.data), given_variants(given.stage, given.variants)
        if not data:
            raise ConfigError(f"{given.stage} needs --data NAME=DIR")
        settings = Settings(given.loss, given.overrides)
        run_stage(given.stage, data, settings, names, given.seeds or SEEDS[given.stage], given.csv)
        report(read_lines(given.csv), given.stage, str(settings))
        return
    lines = read_lines(given.csv)
    for settings, stage in dict.fromkeys((line.settings, line.stage) for line in lines):
        report(lines, stage, settings)


if __name__ == "__main__":
    try:
        main()
    except HblmError as error:
        print(f"condition.py: {error}", file=sys.stderr)
        sys.exit(2)
