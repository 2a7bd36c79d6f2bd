"""From a sweep file and overrides to the cells of a plan: composed, checked, with their run ids. No torch."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hydra.errors import HydraException

from hblm.cli import check
from hblm.cli.programs import TRAIN
from hblm.config.compose import Composer, parse
from hblm.config.grid import PAIRED_BY, Cell, SweepFile, axes_of, cells_of, read_sweep
from hblm.config.groups import OptionGroups
from hblm.config.train import TrainConfig
from hblm.data.dataset import Prepared
from hblm.data.preparation import open_or_prepare
from hblm.encoders.pretrained import Pretrained
from hblm.engine import auto
from hblm.engine.encoder_source import source_of
from hblm.errors import CheckpointError, ConfigError, DataError
from hblm.runs import paths

_MAX_FAULTS = 20


@dataclass(frozen=True)
class PlannedCell:
    """A composed cell.

    Attributes:
        label: its values on the axes that have several.
        values: by axis.
        config: without open settings if `run` is known.
        run: None if it has no id yet: its dataset is not prepared, or the size of its encoder is unknown.
        chosen: the settings that were left to `auto`, with reasons.
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
    """The average of two cells that differ only in direction."""

    label: str
    members: tuple[PlannedCell, PlannedCell]
    weight: str


@dataclass(frozen=True)
class Plan:
    """A sweep's cells.

    Attributes:
        sweep: the grid's file.
        overrides: of the command line.
        n_cells: size of the grid, including excluded cells.
        n_excluded: number of cells that sweep.exclude leaves out.
        cells: the runs, each once.
        ensembles: averages of two of them.
        unprepared: reasons why a dataset, or an encoder that decides settings, cannot be opened, by name.
    """

    sweep: SweepFile
    overrides: tuple[str, ...]
    n_cells: int
    n_excluded: int
    cells: list[PlannedCell]
    ensembles: list[Ensemble]
    unprepared: dict[str, str]


@dataclass(frozen=True)
class _Composed:
    """A composed cell without a run id."""

    label: str
    values: Mapping[str, str]
    config: TrainConfig


def make_plan(name: str, overrides: Sequence[str], config_dir: str | None, *, prepare: bool) -> Plan:
    """Compose and check every cell of a sweep.

    Args:
        name: of the sweep file.
        overrides: of the runs' keys, after the file's.
        config_dir: a folder of the user's own options.
        prepare: prepare datasets that need no download.

    Raises:
        ConfigError: all faults of the file, the overrides and the cells.
    """
    option_groups = OptionGroups(config_dir)
    sweep = _read_file(name, option_groups)
    faults, faulty_values = check.axis_faults(TRAIN, sweep, option_groups)
    if of_overrides := [fault for text in overrides for fault in _faults_of(text, option_groups)]:
        raise ConfigError("\n".join([*faults, *of_overrides]))
    axes = axes_of(sweep, option_groups, overrides)
    cells = list(cells_of(sweep, axes))
    not_excluded = replace(sweep, node=replace(sweep.node, exclude=[]))
    n_cells = sum(1 for _ in cells_of(not_excluded, axes))
    valid = [cell for cell in cells if not faulty_values & {*cell.overrides}]
    several = {axis.key for axis in axes if len(axis.values) > 1}
    composed, faults_of_cells = _compose(valid, name, overrides, several, option_groups)
    faults += faults_of_cells
    if faults:
        raise ConfigError("\n".join(faults))
    if not cells:
        raise ConfigError(f"sweep={name} has no cells: sweep.exclude leaves out all {n_cells}")
    unprepared: dict[str, str] = {}
    planned = _with_runs(composed, unprepared, prepare=prepare)
    ensembles = _ensembles(planned, sweep.node.ensemble_weight or [])
    n_excluded = n_cells - len(cells)
    return Plan(sweep, tuple(overrides), n_cells, n_excluded, _merged(planned), ensembles, unprepared)


def _read_file(name: str, option_groups: OptionGroups) -> SweepFile:
    """Return a sweep file by its name.

    Raises:
        ConfigError: there is none of this name, or it is faulty; of a path, how to give it by name.
    """
    sweep = read_sweep(name, option_groups)
    if name in option_groups.groups.get("sweep", {}):
        return sweep
    file = sweep.file.resolve()
    move = "" if file.parent.name == "sweep" else "put it into DIR/sweep/ and "
    folder = "DIR" if move else shlex.quote(str(file.parent.parent))
    raise ConfigError(f"sweep={name} is a path; {move}write --config-dir {folder} sweep={file.stem}")


def _faults_of(text: str, option_groups: OptionGroups) -> list[str]:
    """Return the faults of one override."""
    try:
        override = parse(text)
    except HydraException:
        return [f"{text} is not of the form key=value"]
    return list(check.override_faults(TRAIN, option_groups, override, True, {}, ("sweep", "train")))


def _compose(
    cells: Iterable[Cell],
    name: str,
    overrides: Sequence[str],
    several: set[str],
    option_groups: OptionGroups,
) -> tuple[list[_Composed], list[str]]:
    """Compose cells; return those without faults, and the faults, each with the cells that have it.

    Args:
        cells: of the grid.
        name: of the sweep.
        overrides: of the command line, already checked one by one.
        several: the axes with several values, which make the labels.
        option_groups: all options.
    """
    composer = Composer(TRAIN.name, TrainConfig, option_groups.search_path)
    checked = [parse(text) for text in overrides]
    composed: list[_Composed] = []
    labels_of: dict[str, list[str]] = {}  # fault -> labels of the cells that have it
    for cell in cells:
        texts = [f"sweep={name}", *cell.overrides]
        label = " ".join(text for text in cell.overrides if parse(text).get_key_element() in several) or name
        faults = list(check.composition_faults(composer, option_groups, checked, texts))
        for fault in faults:
            labels_of.setdefault(fault, []).append(label)
        if len(labels_of) >= _MAX_FAULTS:
            break
        if not faults:
            composed.append(_Composed(label, cell.values, composer.compose(texts).config))
    return composed, [f"{_first_of(labels)}: {fault}" for fault, labels in labels_of.items()]


def _first_of(labels: Sequence[str]) -> str:
    """Return the first of several cells' labels, and how many more there are."""
    return labels[0] if len(labels) == 1 else f"{labels[0]} and {len(labels) - 1:,} more"


def _with_runs(
    composed: Sequence[_Composed], unprepared: dict[str, str], *, prepare: bool
) -> list[PlannedCell]:
    """Choose the cells' open settings, and find their run ids.

    Raises:
        ConfigError: chosen settings contradict other keys of their cells.
    """
    faults: list[str] = []
    datasets: dict[tuple[str, str | None], Prepared | None] = {}
    planned = []
    for cell in composed:
        config = replace(cell.config, dataset=replace(cell.config.dataset, name=cell.config.dataset_name))
        place = str(config.dataset.path), config.dataset.name
        if place not in datasets:
            datasets[place] = _prepared(config, unprepared, prepare=prepare)
        try:
            planned.append(_with_run(replace(cell, config=config), datasets[place], unprepared))
        except (CheckpointError, ConfigError) as error:
            faults += [f"{cell.label}: {line}" for line in str(error).splitlines()]
    if faults:
        raise ConfigError("\n".join(faults[:_MAX_FAULTS]))
    return planned


def _with_run(cell: _Composed, prepared: Prepared | None, unprepared: dict[str, str]) -> PlannedCell:
    """Choose a cell's open settings and find its run id, if its dataset is prepared.

    Raises:
        CheckpointError: the checkpoint to start from is missing or damaged.
        ConfigError: chosen settings contradict other keys.
    """
    if prepared is None:
        return PlannedCell(cell.label, cell.values, cell.config, None)
    source = source_of(cell.config)
    config, chosen = _settled(cell.config, prepared, source, unprepared)
    run = None
    if not config.left_open:
        identity = source.identity()
        run = paths.identify(config, data=prepared.fingerprint, encoder=identity, tag=source.tag)
    return PlannedCell(cell.label, cell.values, config, run, chosen)


def _merged(cells: Sequence[PlannedCell]) -> list[PlannedCell]:
    """Return the cells, each run once; a cell lists the labels of others that are the same run."""
    by_id: dict[str, PlannedCell] = {}
    merged = []
    for cell in cells:
        if cell.run is not None and cell.run.id in by_id:
            by_id[cell.run.id].also.append(cell.label)
            continue
        if cell.run is not None:
            by_id[cell.run.id] = cell
        merged.append(cell)
    return merged


def _prepared(config: TrainConfig, unprepared: dict[str, str], *, prepare: bool) -> Prepared | None:
    """Return a cell's dataset; None, and the reason in `unprepared`, if it cannot be opened."""
    dataset = config.dataset
    if not prepare and not dataset.folder.exists() and dataset.converter and not dataset.source:
        unprepared[config.dataset_name] = f"{dataset.folder} does not exist yet; submit prepares it"
        return None
    try:
        return open_or_prepare(dataset, config.encoder)
    except DataError as error:
        unprepared[config.dataset_name] = str(error)
        return None


def _settled(
    config: TrainConfig, prepared: Prepared, source: Pretrained, unprepared: dict[str, str]
) -> tuple[TrainConfig, auto.Chosen]:
    """Choose a cell's open settings; leave them open, with the reason in `unprepared`, without the facts."""
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


def _ensembles(cells: Sequence[PlannedCell], weights: Sequence[str]) -> list[Ensemble]:
    """Return the averages of cells that differ only in direction, if their direction has an effect."""
    pairs: dict[tuple[tuple[str, str], ...], dict[str, PlannedCell]] = defaultdict(dict)
    for cell in cells:
        config = cell.config
        if config.joint_variant.is_joint or config.film.propagation_method == "none":
            continue
        others = tuple(item for item in cell.values.items() if item[0] not in PAIRED_BY)
        pairs[others][config.direction.cascade_direction] = cell
    ensembles = []
    for pair in pairs.values():
        if len(pair) == 2:
            td, bu = pair["top_down"], pair["bottom_up"]
            label = re.sub(rf"\b({'|'.join(PAIRED_BY)})=\w+", "", td.label).split()
            ensembles += [
                Ensemble(" ".join(["ensemble", *label, f"ensemble_weight={weight}"]), (td, bu), str(weight))
                for weight in weights
            ]
    return ensembles
