"""From a sweep file and overrides to cells: composed, checked, and named by their run ids. No torch."""

from __future__ import annotations

import dataclasses
import re
import shlex
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from hydra.errors import HydraException

from hblm.cli import check
from hblm.cli.programs import TRAIN as TRAIN
from hblm.config.compose import Composer, parse
from hblm.config.grid import PAIRED_BY, SweepFile, axes_of, cells_of, read_sweep
from hblm.config.groups import OptionGroups
from hblm.config.identity import ensemble_id
from hblm.config.train import TrainConfig
from hblm.data.dataset import Prepared
from hblm.data.preparation import open_or_prepare
from hblm.encoders.pretrained import Pretrained
from hblm.engine import auto
from hblm.engine.encoder_source import source_of
from hblm.errors import CheckpointError, ConfigError, DataError
from hblm.json_files import read_object
from hblm.runs import paths
from hblm.runs.environment import code
from hblm.sweep.state import Frozen
from hblm.version import FORMULAS

_FAULTS_SHOWN = 20


@dataclass(frozen=True)
class Planned:
    """A cell that was composed.

    Attributes:
        label: its values on the axes that have several.
        values: by axis.
        config: nothing is left open in it where `run` is known.
        run: None where the dataset is not prepared, or the encoder's size unknown, so that it has no id yet.
        chosen: the settings that nobody gave, and why they are so.
        also: labels of cells that are the same run.
    """

    label: str
    values: Mapping[str, str]
    config: TrainConfig
    run: paths.Run | None
    chosen: auto.Chosen = field(default_factory=dict)
    also: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ensemble:
    """Two cells that differ in direction alone, averaged."""

    label: str
    members: tuple[Planned, Planned]
    weight: str


@dataclass(frozen=True)
class Plan:
    """A sweep's cells.

    Attributes:
        n_cells: of the grid, those left out included.
        n_excluded: left out by sweep.exclude.
        cells: runs to be, each once.
        ensembles: averages of two of them.
        unprepared: why a dataset, or an encoder by which settings are chosen, cannot be opened, by its name.
    """

    sweep: SweepFile
    overrides: tuple[str, ...]
    n_cells: int
    n_excluded: int
    cells: list[Planned]
    ensembles: list[Ensemble]
    unprepared: dict[str, str]


def make_plan(name: str, overrides: Sequence[str], config_dir: str | None, *, prepare: bool) -> Plan:
    """Compose and check every cell of a sweep.

    Args:
        name: of the sweep file.
        overrides: of the runs' keys, after the file's.
        config_dir: a folder of the user's own options.
        prepare: make datasets that need no download.

    Raises:
        ConfigError: all that is wrong with the file, the overrides and the cells.
    """
    catalogue = OptionGroups(config_dir)
    if name not in catalogue.groups.get("sweep", {}):
        file = read_sweep(name, catalogue).file.resolve()  # says which there are, or is a path
        put = "" if file.parent.name == "sweep" else "put it into DIR/sweep/ and "
        place = "DIR" if put else shlex.quote(str(file.parent.parent))
        raise ConfigError(f"sweep={name} is a path; {put}write --config-dir {place} sweep={file.stem}")
    sweep = read_sweep(name, catalogue)
    faults, wrong_values = check.axis_faults(TRAIN, sweep, catalogue)
    of_overrides = [fault for text in overrides for fault in _faults_of(text, catalogue)]
    if of_overrides:
        faults += of_overrides
        raise ConfigError("\n".join(faults))
    axes = axes_of(sweep, catalogue, overrides)
    cells = list(cells_of(sweep, axes))
    open_node = dataclasses.replace(sweep.node, exclude=[])
    n_cells = sum(1 for _ in cells_of(replace(sweep, node=open_node), axes))
    several = [axis.key for axis in axes if len(axis.values) > 1]
    composer = Composer(TRAIN.name, TrainConfig, catalogue.search_path)
    judged = [parse(text) for text in overrides]
    composed = []
    labels_of: dict[str, list[str]] = {}  # of the cells with this fault
    for cell in cells:
        if wrong_values & {*cell.overrides}:
            continue
        texts = [f"sweep={name}", *cell.overrides]
        wrong = list(check.composition_faults(composer, catalogue, judged, texts))
        label = " ".join(text for text in cell.overrides if parse(text).get_key_element() in several)
        for fault in wrong:
            labels_of.setdefault(fault, []).append(label or name)
        if len(labels_of) >= _FAULTS_SHOWN:
            break
        if wrong:
            continue
        composed.append((label or name, cell.values, composer.compose(texts).config))
    faults += [f"{_some(labels)}: {fault}" for fault, labels in labels_of.items()]
    if faults:
        raise ConfigError("\n".join(faults))
    if not cells:
        raise ConfigError(f"sweep={name} has no cells: sweep.exclude leaves out all {n_cells}")
    return _with_runs(sweep, tuple(overrides), n_cells, composed, prepare=prepare)


def _some(labels: Sequence[str]) -> str:
    """Return the first of several cells' labels, and how many more there are."""
    return labels[0] if len(labels) == 1 else f"{labels[0]} and {len(labels) - 1:,} more"


def _faults_of(text: str, catalogue: OptionGroups) -> list[str]:
    try:
        override = parse(text)
    except HydraException:
        return [f"{text} is not of the form key=value"]
    return list(check.override_faults(TRAIN, catalogue, override, True, {}, ("sweep", "train")))


def _with_runs(
    sweep: SweepFile,
    overrides: tuple[str, ...],
    n_cells: int,
    composed: Sequence[tuple[str, Mapping[str, str], TrainConfig]],
    *,
    prepare: bool,
) -> Plan:
    """Choose what cells leave open; find every cell's run id, and the cells that are one run.

    Raises:
        ConfigError: what was chosen for a cell does not go together with its other keys.
    """
    unprepared: dict[str, str] = {}
    faults: list[str] = []
    data: dict[tuple[str, str | None], Prepared | None] = {}
    by_id: dict[str, Planned] = {}
    cells: list[Planned] = []
    found: list[Planned] = []
    for label, values, given in composed:
        config = replace(given, dataset=replace(given.dataset, name=given.dataset_name))
        place = str(config.dataset.path), config.dataset.name
        if place not in data:
            data[place] = _prepared(config, unprepared, prepare=prepare)
        prepared, run = data[place], None
        chosen: auto.Chosen = {}
        if prepared is not None:
            try:
                source = source_of(config)
                config, chosen = _settled(config, prepared, source, unprepared)
            except (CheckpointError, ConfigError) as error:
                faults += [f"{label}: {line}" for line in str(error).splitlines()]
                continue
            if not config.left_open:
                identity = source.identity()
                run = paths.identify(config, data=prepared.fingerprint, encoder=identity, tag=source.tag)
        cell = Planned(label, values, config, run, chosen)
        found.append(cell)
        if run is not None and run.id in by_id:
            by_id[run.id].also.append(label)
            continue
        if run is not None:
            by_id[run.id] = cell
        cells.append(cell)
    if faults:
        raise ConfigError("\n".join(faults[:_FAULTS_SHOWN]))
    n_excluded = n_cells - len(composed)
    ensembles = _ensembles(found, sweep.node.ensemble_weight or [])
    return Plan(sweep, overrides, n_cells, n_excluded, cells, ensembles, unprepared)


def _prepared(config: TrainConfig, unprepared: dict[str, str], *, prepare: bool) -> Prepared | None:
    dataset = config.dataset
    if not prepare and not dataset.folder.exists() and dataset.converter and not dataset.source:
        unprepared[config.dataset_name] = f"{dataset.folder} is not there yet; submit prepares it"
        return None
    try:
        return open_or_prepare(dataset, config.encoder)
    except DataError as error:
        unprepared[config.dataset_name] = str(error)
        return None


def _settled(
    config: TrainConfig, prepared: Prepared, source: Pretrained, unprepared: dict[str, str]
) -> tuple[TrainConfig, auto.Chosen]:
    """Fill in what a cell leaves open; where the facts are not to be had, note why and leave it so."""
    encoder = config.encoder.model_name
    if not config.left_open or encoder in unprepared:
        return config, {}
    try:
        known = auto.facts(prepared, config, source)
    except DataError as error:
        unprepared[config.dataset_name] = str(error)
        return config, {}
    except ConfigError as error:
        unprepared[encoder] = str(error)
        return config, {}
    return auto.resolve(config, known)


def _ensembles(cells: Sequence[Planned], weights: Sequence[str]) -> list[Ensemble]:
    """Pair cells that differ in direction alone, where the direction acts."""
    pairs: dict[tuple[tuple[str, str], ...], dict[str, Planned]] = defaultdict(dict)
    for cell in cells:
        config = cell.config
        if config.joint_variant.is_joint or config.film.propagation_method == "none":
            continue
        others = tuple(item for item in cell.values.items() if item[0] not in PAIRED_BY)
        pairs[others][config.direction.cascade_direction] = cell
    found = []
    for pair in pairs.values():
        if len(pair) == 2:
            td, bu = pair["top_down"], pair["bottom_up"]
            label = re.sub(rf"\b({'|'.join(PAIRED_BY)})=\w+", "", td.label).split()
            found += [
                Ensemble(" ".join(["ensemble", *label, f"ensemble_weight={weight}"]), (td, bu), str(weight))
                for weight in weights
            ]
    return found


def freeze(plan: Plan) -> list[Frozen]:
    """Return the plan's cells as they are to be run, numbered from 1.

    Raises:
        ConfigError: a dataset is not there, or an encoder's size unknown.
    """
    if plan.unprepared:
        raise ConfigError("\n".join(plan.unprepared.values()))
    now, stamp, folder = time.time(), code(), Path.cwd()
    frozen: list[Frozen] = []

    def add(run_id: str, kind: str, label: str, config: Mapping[str, Any], **more: Any) -> None:
        frozen.append(
            Frozen(
                id=run_id,
                number=len(frozen) + 1,
                kind=kind,
                label=label,
                config=config,
                folder=folder,
                submitted=now,
                formulas=FORMULAS,
                commit=stamp["git_commit"],
                dirty=stamp["git_dirty"],
                **more,
            ).outdating()
        )

    for cell in plan.cells:
        assert cell.run is not None  # its dataset is there
        add(
            cell.run.id,
            "train",
            cell.label,
            dataclasses.asdict(cell.config),
            force=cell.config.force,
            names=cell.run.names,
            needs=(),
            output_dir=cell.run.output_dir.resolve(),
            chosen=cell.chosen,
        )
    for ensemble in plan.ensembles:
        td = ensemble.members[0]
        ids = tuple(member.run.id for member in ensemble.members if member.run is not None)
        add(
            ensemble_id(ids, ensemble.weight),
            "ensemble",
            ensemble.label,
            {
                "dataset": td.config.dataset_name,
                "ensemble_weight": ensemble.weight,
                "threshold": td.config.threshold,
                "device": td.config.device,
            },
            force=td.config.force,
            names=(),
            needs=ids,
            output_dir=Path(td.config.output_dir).resolve(),
        )
    return frozen


def seconds_of(results: Path) -> dict[tuple[str, ...], float]:
    """Return the mean seconds of the runs at hand, by what decides them, from the most alike to the least."""
    by_likeness: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for file in results.glob("*.json"):
        if file.name.startswith("eval_"):
            continue
        try:
            told = read_object(file)
            seconds = float(told["seconds"]["total"])
            config = told["config"]
            for likeness in _likeness(config, told["choices"]):
                by_likeness[likeness].append(seconds)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # not a result; aggregate says what is wrong with it
    return {likeness: fmean(found) for likeness, found in by_likeness.items()}


def expected_seconds(cell: Planned, known: Mapping[tuple[str, ...], float]) -> float | None:
    """Return how long a cell will take, by the runs most like it; None where none is."""
    likenesses = _likeness(dataclasses.asdict(cell.config), cell.config.choices())
    return next((known[likeness] for likeness in likenesses if likeness in known), None)


def _likeness(config: Mapping[str, Any], choices: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return what runs that take about as long have in common, the closest first."""
    size = (
        str(choices["dataset"]),
        str(choices["encoder"]),
        *(str(config["encoder"][key]) for key in ("max_length", "trainable")),
        str(config["dataset_fraction"]),
    )
    length = tuple(str(config["trainer"][key]) for key in ("epochs", "patience", "batch_size"))
    kind = (str(choices["joint_variant"]), str(choices["film"]))
    return [("kind", *size, *length, *kind), ("length", *size, *length), ("size", *size)]
