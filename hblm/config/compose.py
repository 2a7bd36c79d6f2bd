"""Composition: from the overrides of a command line, by Hydra, to a typed configuration and its faults.

Every configuration starts from the defaults of its dataclass, stored in Hydra's ConfigStore. YAML files
contain only what differs. So every key exists with every option, and the command line can set it.

The defaults in the store are plain values without types. With types, OmegaConf would stop at the first wrong
value or unknown key of a YAML file; `read_values` names all of them, each with its key.

A composition by Hydra takes 60 ms or more. The cells of a grid share few of them: `Composer` sets a plain key
such as `seed=3`, to which no other value refers, in the values that it composed from the options alone.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hblm.config.aggregate import AggregateConfig
from hblm.config.evaluate import EvaluateConfig
from hblm.config.export import ExportConfig
from hblm.config.prepare import PrepareConfig
from hblm.config.schema import Fault, Leaf, build, defaults, leaves, read_leaf, read_values
from hblm.config.sweep import SweepNode
from hblm.config.train import TrainConfig

SCHEMAS: Mapping[str, type] = {  # of the programs that Hydra composes: conf/NAME.yaml begins with NAME_schema
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "prepare": PrepareConfig,
    "aggregate": AggregateConfig,
}


for _name, _schema in SCHEMAS.items():
    ConfigStore.instance().store(f"{_name}_schema", defaults(_schema), provider="hblm")


CHDIR = "hydra.job.chdir"
_DEEPEST = 50
SWEEP = "sweep"  # the node of a sweep file, which is no part of a run


class Unreadable(HydraException):
    """Why an argument cannot be read, or options do not compose, in the words of Hydra, OmegaConf or YAML."""


@dataclass(frozen=True)
class Composed:
    """One run's configuration, its faults, and the options that Hydra chose.

    Attributes:
        values: those of the configuration, in nested groups, without the faulty ones.
        refers_to: the keys to which interpolations in other values refer.
    """

    config: Any
    values: Mapping[str, Any]
    faults: list[Fault]
    choices: Mapping[str, str | None]
    refers_to: frozenset[str]


class Composer:
    """Composes the runs of one program; each choice of options is composed once."""

    def __init__(self, name: str, schema: type, search_path: Sequence[str] = ()) -> None:
        """Take the program's name, its schema, and an override of Hydra's search path."""
        self.name, self.schema, self.search_path = name, schema, [*search_path]
        self.leaves: dict[str, Leaf] = {leaf.name: leaf for leaf in leaves(schema)}
        self._known: dict[tuple[str, ...], Composed] = {}

    def compose(self, overrides: Sequence[str]) -> Composed:
        """Return the run of these overrides, each with one value.

        Raises:
            Unreadable: Hydra cannot compose them.
        """
        later: dict[str, str] = {}
        options = []
        for text in overrides:
            key = self._plain_key(text)
            if key is None:
                options.append(text)
            else:
                later[key] = text
        base = self._base(tuple(options))
        referred = {key for key in later if _is_among(key, base.refers_to)}
        if referred:
            base = self._base((*options, *(later.pop(key) for key in sorted(referred))))
        if not later:
            return base
        faults = [fault for fault in base.faults if fault.key not in later]
        values = dict(base.values)
        for key, text in later.items():
            checked, why = self._read(text)
            group, _, name = key.rpartition(".")
            if why:
                faults.append(Fault(key, parse(text).value(), why))
            elif group:
                values[group] = {**values.get(group, {}), name: checked}
            else:
                values[name] = checked
        return replace(base, config=build(values, self.schema), values=values, faults=faults)

    def _plain_key(self, text: str) -> str | None:
        """Return the key of an override that only sets a key of the schema; None of any other."""
        key, _, value = text.partition("=")
        leaf = self.leaves.get(key)
        if leaf is None or leaf.rules["option_of"] or "${" in value or key.count(".") > 1:
            return None
        if isinstance(leaf.default, dict):  # which Hydra merges
            return None
        return key if parse(text).type == OverrideType.CHANGE else None

    @functools.lru_cache(maxsize=4096)  # noqa: B019  a composer lives as long as a command
    def _read(self, text: str) -> tuple[Any, str]:
        return read_leaf(self.leaves[text.partition("=")[0]], parse(text).value())

    def _base(self, overrides: tuple[str, ...]) -> Composed:
        if overrides not in self._known:
            self._known[overrides] = self._hydra(overrides)
        return self._known[overrides]

    def _hydra(self, overrides: tuple[str, ...]) -> Composed:
        cfg = compose(self.name, [*overrides, *self.search_path])
        written = str(OmegaConf.to_container(_of_the_job(cfg), resolve=False))
        try:
            tree, node = job_tree(cfg, self.schema)
        except OmegaConfBaseException as error:  # an interpolation
            raise Unreadable(" ".join(str(error).split())) from error
        faults = read_values(node, SweepNode, f"{SWEEP}.")[1]
        if cfg.hydra.job.chdir:
            why = "would move relative paths, such as data and outputs, into Hydra's folder; leave it out"
            faults.append(Fault(CHDIR, True, why))
        values, others = read_values(tree, self.schema)
        refers_to = frozenset(re.findall(r"\$\{([\w.]+)", written))
        choices = dict(cfg.hydra.runtime.choices)
        return Composed(build(values, self.schema), values, faults + others, choices, refers_to)


def compose(program: str, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration that Hydra composes for a program, its own node `hydra` included.

    Raises:
        Unreadable: an option is missing, a YAML file cannot be read, or a key cannot be set.
    """
    try:
        with hydra.initialize_config_module("hblm.conf", version_base="1.3"):
            return hydra.compose(program, [*overrides], return_hydra_config=True)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Unreadable(f"a YAML file cannot be read: {' '.join(str(error).split())}") from None
    except (HydraException, OmegaConfBaseException) as error:
        raise Unreadable(" ".join(str(error).split())) from error


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Override:
    """Return an override as Hydra reads it.

    Raises:
        Unreadable: it cannot be read, or is nested more deeply than any key here.
    """
    depth = 0
    for sign in text:
        depth += (sign in "[{(") - (sign in "]})")
        if depth > _DEEPEST:
            raise Unreadable(f"more than {_DEEPEST} brackets in each other")
    if re.search(r"\d{4000}", text):  # beyond what Python converts
        raise Unreadable("a number of more than 4,000 digits")
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise Unreadable(" ".join(str(error).split())) from error


def _is_among(key: str, others: frozenset[str]) -> bool:
    return any(other == key or other.startswith(f"{key}.") or key.startswith(f"{other}.") for other in others)


def job_tree(cfg: DictConfig, schema: type) -> tuple[dict[str, Any], Any]:
    """Return a composed configuration as plain values, interpolations resolved, and a grid's node `sweep`.

    Raises:
        OmegaConfBaseException: an interpolation refers to nothing.
    """
    tree = OmegaConf.to_container(_of_the_job(cfg), resolve=True, throw_on_missing=False)
    assert isinstance(tree, dict)
    values = {str(name): value for name, value in tree.items()}
    of_the_run = any(leaf.name == SWEEP for leaf in leaves(schema))
    return values, {} if of_the_run else values.pop(SWEEP, None) or {}


def resolved(value: Any) -> Any:
    """Return a value of a command line or YAML file, with interpolations such as ${oc.env:NAME} resolved.

    Raises:
        OmegaConfBaseException: one cannot be resolved.
    """
    if not isinstance(value, str):
        return value
    return OmegaConf.to_container(OmegaConf.create({"value": value}), resolve=True)["value"]  # type: ignore[call-overload, index]


def _of_the_job(cfg: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "hydra"])
