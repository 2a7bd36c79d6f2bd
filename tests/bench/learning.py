"""Compare the six methods, label texts and conditional losses with the same budget.

    python tests/bench/learning.py run                          # resumes, on any machine
    python tests/bench/learning.py run --only tuned.aapd --seeds 2 --jobs 4
    python tests/bench/learning.py harvest                      # while it runs, or after it was killed
    python tests/bench/learning.py table                        # Markdown

A finished run is a line of learning.csv, which is committed. A run with a line is not repeated, even if
outputs/ was deleted. A line is identified by its run id: other data, settings or formulas are other runs. All
settings are run with one seed before the next. Raw data are read from HBLM_SHARED_DATA, or from
../shared/data beside the checkout; a setting without its data is left out. Exit code 1: a setting was left
out, or a run failed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from aapd import SHARED
from learning_lines import DIGITS, METHODS, Line, Variant, line_of, merge, read_lines, write_lines
from learning_table import markdown

from hblm.config import overrides
from hblm.config.schema import plain
from hblm.errors import HblmError
from hblm.files import write_text
from hblm.runs import paths
from hblm.sweep.launchers.local_files import WorkerFiles
from hblm.sweep.launchers.registry import Sweep, open_sweep
from hblm.sweep.plan import make_plan

BENCH = Path(__file__).resolve().parent
AXES = ("method", "head.output_init", "loss", "trainer.label_documents")  # in the order of Variant
CROSSED = ("independent", "top_down")  # methods that are tried with all losses and label documents
HARVEST_EVERY = 60.0  # seconds


class Data(NamedTuple):
    """A prepared set: its folder, the raw folder under SHARED if it needs one, the option that prepares it.

    Without an option aapd.py prepares it. `more` are further arguments of the preparation.
    """

    folder: str
    raw: str | None
    option: str | None
    more: tuple[str, ...] = ()

    def command(self, target: Path) -> list[str]:
        """Return what prepares it, as arguments of Python."""
        if self.option is None:
            return [str(BENCH / "aapd.py"), str(target)]
        raw = [] if self.raw is None else [overrides.override("raw", str(SHARED / self.raw))]
        place = overrides.override("dataset.path", str(target))
        return ["-m", "hblm.prepare", f"dataset={self.option}", *raw, *self.more, place, "encoder=minilm"]


DATA = {
    "aapd": Data("aapd1000", "aapd_hjcl", None),
    "amazon531": Data("amazon531", "amazon531", "custom"),
    "docstrings_small": Data("docstrings_small", None, "docstrings_small"),
    "docstrings_names": Data("docstrings_names", None, "docstrings_small", ("dataset.prepare.names=keep",)),
}


@dataclass(frozen=True)
class Setting:
    """One table: a dataset, an encoder that is tuned or frozen, and the budget that all variants share.

    Attributes:
        dataset: a key of DATA.
        encoder: tuned or frozen.
        seeds: how many, from 1.
        conditional: the conditional loss that fits the documents.
        label_texts: whether the texts hold words of the labels, so that label texts can be judged.
        head_learning_rate: peak, above the encoder.
        dropout: of the projection and of the heads.
        model: option of encoder=.
    """

    dataset: str
    encoder: str
    seeds: int
    conditional: str
    max_length: int
    epochs: int
    head_learning_rate: float = 2e-3
    dropout: float = 0.1
    label_texts: bool = True
    model: str = "minilm"

    @property
    def name(self) -> str:
        """What --only calls it."""
        return f"{self.encoder}.{self.dataset}"

    @property
    def sweep(self) -> str:
        """What its sweep file is called."""
        return self.name.replace(".", "_")

    def variants(self) -> list[Variant]:
        """Return what is compared, the plain methods first."""
        inits = ("prior", "label_text") if self.label_texts else ("prior",)
        documents = (False, True) if self.label_texts else (False,)
        plain = [Variant(method, init) for init in inits for method in METHODS]
        crossed = itertools.product(CROSSED, inits, ("bce", self.conditional), documents)
        return list(dict.fromkeys([*plain, *(Variant(*values) for values in crossed)]))


# A frozen encoder learns as experiment=quickstart.
FROZEN: dict[str, Any] = {"max_length": 128, "epochs": 30, "head_learning_rate": 3e-3, "dropout": 0.3}
SETTINGS = (
    Setting("aapd", "tuned", seeds=5, conditional="conditional", max_length=48, epochs=5),
    Setting("amazon531", "tuned", seeds=3, conditional="conditional", max_length=48, epochs=3),
    # Its nodes are called after modules; no text holds a word of them, but where names are kept.
    Setting(
        "docstrings_small", "frozen", seeds=8, conditional="conditional_softmax", label_texts=False, **FROZEN
    ),
    Setting("docstrings_names", "frozen", seeds=8, conditional="conditional_softmax", **FROZEN),
    Setting("aapd", "frozen", seeds=8, conditional="conditional", **FROZEN),
)


class Cell(NamedTuple):
    """A run of the bench."""

    variant: Variant
    seed: int
    run: paths.Run


Plans = Mapping[Setting, Sequence[Cell]]


def grid(
    setting: Setting, place: Path, seeds: Sequence[int], finished: Iterable[tuple[Variant, int]] = ()
) -> dict[str, Any]:
    """Return the sweep file of a setting: the seeds first, and without what is finished.

    The axes cross to more than is compared; `sweep.exclude` leaves out the rest and what is finished.
    """
    folder, variants, done = DATA[setting.dataset].folder, setting.variants(), set(finished)
    axes = [[*dict.fromkeys(values)] for values in zip(*variants, strict=True)]
    exclude = []
    for combination in itertools.starmap(Variant, itertools.product(*axes)):
        left_out = [seed for seed in seeds if combination not in variants or (combination, seed) in done]
        if left_out:
            exclude.append({**dict(zip(AXES, map(plain, combination), strict=True)), "seed": left_out})
    options = {
        "dataset": "custom",
        "encoder": setting.model,
        "pooling": "mean",
        "head": "residual_mlp",
        "trainer": "small",
    }
    values = {key: ",".join(map(plain, of_axis)) for key, of_axis in zip(AXES, axes, strict=True)}
    return {
        "defaults": [{f"override /{group}": option} for group, option in options.items()],
        "output_dir": str(place),
        "dataset": {"name": folder, "path": str(place / "data" / folder)},
        "encoder": {
            "trainable": setting.encoder == "tuned",
            "max_length": setting.max_length,
            "projection_dropout": setting.dropout,
        },
        "head": {"dropout": setting.dropout},
        "trainer": {
            "learning_rate": 1e-4,
            "head_learning_rate": setting.head_learning_rate,
            "epochs": setting.epochs,
            "batch_size": 32,
            "weight_decay": 0.01,
            "warmup_ratio": 0.06,
            "max_grad_norm": 1.0,
            "patience": 10,
            "monitor": "macro_f1",
            "keep_checkpoint": False,
        },
        "hydra": {"sweeper": {"params": {"seed": ",".join(map(str, seeds)), **values}}},
        "sweep": {"exclude": exclude, "table": {"rows": [*AXES], "columns": ["dataset"]}},
    }


def variant_of(values: Mapping[str, str]) -> Variant:
    """Return the variant of a cell, from its values on the axes."""
    method, init, loss, documents = (values[axis] for axis in AXES)
    return Variant(method, init, loss, documents == "true")


class Bench:
    """The bench in a folder of its own, and its lines."""

    def __init__(self, place: Path, lines: Path, most_seeds: int | None) -> None:
        """Look at the folder, which need not be there; `most_seeds` is the most that are run of a setting."""
        self.place, self.file = place.resolve(), lines.resolve()
        self.grids = self.place / "grids"  # for --config-dir
        self.most_seeds = most_seeds

    def seeds(self, setting: Setting) -> range:
        """Return the seeds of a setting."""
        return range(1, min(setting.seeds, self.most_seeds or setting.seeds) + 1)

    def folder(self, setting: Setting) -> Path:
        """Return the prepared dataset of a setting."""
        return self.place / "data" / DATA[setting.dataset].folder

    def prepare(self, setting: Setting, *, make: bool) -> bool:
        """Return whether the dataset of a setting is there; `make` prepares it where it can be."""
        data, target = DATA[setting.dataset], self.folder(setting)
        if target.exists():
            return True
        why = f"{target} is not there yet; run prepares it"
        if make and data.raw is not None and not (SHARED / data.raw).is_dir():
            why = f"{SHARED / data.raw} is not there; HBLM_SHARED_DATA names the folder of {data.raw}"
        elif make:
            if subprocess.run([sys.executable, *data.command(target)], check=False).returncode == 0:
                return True
            why = f"{target} cannot be prepared"
        print(f"{setting.name} is left out: {why}", flush=True)
        return False

    def plan(self, setting: Setting) -> list[Cell]:
        """Return the runs of a setting, seed by seed, finished or not.

        Raises:
            HblmError: what is wrong with the grid or the dataset.
        """
        self._write(setting.sweep, grid(setting, self.place, self.seeds(setting)))
        plan = make_plan(setting.sweep, [], str(self.grids), prepare=False)
        if plan.unprepared:
            raise HblmError("\n".join(plan.unprepared.values()))
        cells = []
        for cell in plan.cells:
            assert cell.run is not None  # its dataset is there
            assert not cell.also, cell.also  # no two variants are one run
            cells.append(Cell(variant_of(cell.values), int(cell.values["seed"]), cell.run))
        return cells

    def _write(self, sweep: str, tree: Mapping[str, Any]) -> None:
        text = yaml.safe_dump(dict(tree), sort_keys=False)
        write_text(self.grids / "sweep" / f"{sweep}.yaml", f"# @package _global_\n{text}")

    def harvest(self, plans: Plans) -> list[Line]:
        """Take the results that are there into the file; return all lines."""
        with paths.locked(self.place, "learning"):
            lines = read_lines(self.file)
            known = {line.run for line in lines}
            new = []
            for setting, cells in plans.items():
                for variant, seed, planned in cells:
                    if planned.id[:DIGITS] in known:
                        continue
                    run = paths.find(planned.output_dir, planned.id, planned.names)
                    if run.is_done:
                        record = json.loads(run.result.read_text(encoding="utf-8"))
                        new.append(line_of(setting.name, variant, seed, record))
            if new:
                lines = merge(lines, new)
                write_lines(self.file, lines)
                print(f"{len(new)} new lines, {len(lines)} in all: {self.file}", flush=True)
            return lines

    def run(self, plans: Plans, jobs: int | None) -> bool:
        """Do what is not finished, seed by seed; return whether no run failed."""
        right = True
        for seed in sorted(set().union(*map(_seeds, plans.values()))):
            for setting, cells in plans.items():
                done = {line.run for line in self.harvest(plans)}
                of_seed = [cell for cell in cells if cell.seed == seed]
                finished = {(cell.variant, seed) for cell in of_seed if cell.run.id[:DIGITS] in done}
                if len(finished) < len(of_seed):
                    print(f"{setting.name}, seed {seed}: {len(of_seed) - len(finished)} runs", flush=True)
                    # a file of its own: harvest, in another process, writes that of the whole setting
                    sweep = f"{setting.sweep}_seed{seed}"
                    self._write(sweep, grid(setting, self.place, [seed], finished))
                    right &= self._submit(sweep, jobs, plans)
        return right

    def _submit(self, sweep: str, jobs: int | None, plans: Plans) -> bool:
        """Run a sweep file, and harvest until it ends; return whether no run failed."""
        _forget(open_sweep(self.place, sweep))
        options = [f"sweep={sweep}", overrides.override("output_dir", str(self.place)), "wait=true"]
        options += [f"per_device={jobs}"] if jobs else []
        command = [sys.executable, "-m", "hblm.sweep", "submit", *options, "--config-dir", str(self.grids)]
        log = self.place / "sweep.log"
        with log.open("a", encoding="utf-8") as stream:
            process = subprocess.Popen(command, stdout=stream)
            try:
                while process.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(HARVEST_EVERY)
                    self.harvest(plans)
            except KeyboardInterrupt:  # it stops the sweep as well, which ends its runs
                process.wait()
                self.harvest(plans)
                raise
        if process.returncode:
            place = overrides.argument("output_dir", str(self.place))
            print(f"{sweep}: not all runs are done; see {log}, and what these print:")
            print(f"python -m hblm.sweep logs sweep={sweep} {place}", flush=True)
        return process.returncode == 0


def _forget(sweep: Sweep) -> None:
    """Delete an earlier sweep's folder unless it is active, so that failed runs are tried again."""
    if not sweep.exists():
        return
    has_worker = WorkerFiles(sweep.folder).worker() is not None
    if not has_worker and not any(each.state == "running" for each in sweep.statuses()):
        shutil.rmtree(sweep.folder)


def show_progress(plans: Plans, lines: Iterable[Line]) -> None:
    """Print how many runs of each setting have a line, and how many of its lines are of other runs."""
    for setting, cells in plans.items():
        found = {line.run for line in lines if line.setting == setting.name and line.seed in _seeds(cells)}
        wanted = {cell.run.id[:DIGITS] for cell in cells}
        other = len(found - wanted)
        more = f"; {other} lines are of other data, settings or formulas" if other else ""
        print(f"{setting.name}: {len(found & wanted)} of {len(wanted)} runs are done{more}", flush=True)


def _seeds(cells: Iterable[Cell]) -> set[int]:
    return {cell.seed for cell in cells}


def positive(text: str) -> int:
    """Return a whole number from 1 on."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("verb", choices=("run", "harvest", "table"))
    names = [setting.name for setting in SETTINGS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="SETTING", help=str(names))
    parser.add_argument("--seeds", type=positive, help="at most so many of each setting")
    parser.add_argument("--jobs", type=positive, help="runs at a time on a device; default: as hblm.sweep")
    parser.add_argument("--place", type=Path, default=BENCH.parents[1] / "outputs" / "learning")
    parser.add_argument("--lines", type=Path, default=BENCH / "learning.csv", help="the file of lines")
    given = parser.parse_args(argv)
    try:
        if given.verb == "table":
            print(markdown(line for line in read_lines(given.lines) if line.setting in given.only))
            return 0
        bench = Bench(given.place, given.lines, given.seeds)
        chosen = [setting for setting in SETTINGS if setting.name in given.only]
        there = [each for each in chosen if bench.prepare(each, make=given.verb == "run")]
        plans = {setting: bench.plan(setting) for setting in there}
        show_progress(plans, bench.harvest(plans))
        right = bench.run(plans, given.jobs) if given.verb == "run" else True
        return 0 if right and len(there) == len(chosen) else 1
    except HblmError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
