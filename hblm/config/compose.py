"""What a command line composes to: Hydra's tree once for each choice of options, then keys set one by one.

Hydra takes 60 ms and more for a composition. The cells of a grid share few of them: a plain key such as
`seed=3`, which no other value refers to, is set in the typed configuration of the options alone.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hydra
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hblm.config.schema import Fault, Leaf, leaves, read_leaf, read_tree
from hblm.config.sweep import SweepNode

CHDIR = "hydra.job.chdir"


_DEEPEST = 50


SWEEP = "sweep"  # a grid's own node, which no run has


class Unreadable(Exception):
    """What Hydra, OmegaConf or YAML says of options that do not compose."""


@dataclass(frozen=True)
class Composed:
    """One run's configuration, what is wrong with it, and the options that Hydra chose.

    Attributes:
        refers_to: the keys that other values are made of.
    """

    config: Any
    faults: list[Fault]
    choices: Mapping[str, str | None]
    refers_to: frozenset[str]


class Composer:
    """Composes the runs of one program; what does not depend on a run is composed once."""

    def __init__(self, name: str, schema: type, search_path: Sequence[str] = ()) -> None:
        """Compose for a program: its name, its schema, and where else Hydra is to look."""
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
        changed: dict[str, dict[str, Any]] = {}
        for key, text in later.items():
            checked, why = self._read(text)
            if why:
                faults.append(Fault(key, parse(text).value(), why))
            else:
                node, _, name = key.rpartition(".")
                changed.setdefault(node, {})[name] = checked
        top = changed.pop("", {})
        for node, values in changed.items():
            top[node] = dataclasses.replace(getattr(base.config, node), **values)
        return dataclasses.replace(base, config=dataclasses.replace(base.config, **top), faults=faults)

    def _plain_key(self, text: str) -> str | None:
        """Return the key of an override that only sets a key of the schema; None of any other."""
        key, _, value = text.partition("=")
        leaf = self.leaves.get(key)
        if leaf is None or leaf.rules["option_of"] or "${" in value or key.count(".") > 1:
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
        try:
            with hydra.initialize_config_module("hblm.conf", version_base="1.3"):
                cfg = hydra.compose(self.name, [*overrides, *self.search_path], return_hydra_config=True)
                choices = dict(cfg.hydra.runtime.choices)
                tree = plain_tree(cfg)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise Unreadable(f"a YAML file cannot be read: {' '.join(str(error).split())}") from None
        except (HydraException, OmegaConfBaseException) as error:
            raise Unreadable(" ".join(str(error).split())) from error
        faults: list[Fault] = []
        if SWEEP not in self.leaves:
            _, faults = read_tree(tree.pop(SWEEP, None) or {}, SweepNode, f"{SWEEP}.")
        if cfg.hydra.job.chdir:
            why = "would move relative paths, such as data and outputs, into Hydra's folder; leave it out"
            faults.append(Fault(CHDIR, True, why))
        config: Any
        config, others = read_tree(tree, self.schema)
        raw = OmegaConf.to_container(_of_the_job(cfg), resolve=False)
        refers_to = frozenset(re.findall(r"\$\{([\w.]+)", str(raw)))
        return Composed(config, faults + others, choices, refers_to)


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Override:
    """Return an override as Hydra reads it.

    Raises:
        HydraException: it cannot be read, or holds lists in lists that nothing here asks for.
    """
    depth = 0
    for sign in text:
        depth += (sign in "[{(") - (sign in "]})")
        if depth > _DEEPEST:
            raise HydraException(f"more than {_DEEPEST} brackets in each other")
    if re.search(r"\d{4000}", text):  # beyond what Python converts
        raise HydraException("a number of more than 4,000 digits")
    return OverridesParser.create().parse_override(text)


def _is_among(key: str, others: frozenset[str]) -> bool:
    return any(other == key or other.startswith(f"{key}.") or key.startswith(f"{other}.") for other in others)


def plain_tree(cfg: DictConfig) -> dict[str, Any]:
    """Return the composed job configuration as plain values, interpolations resolved."""
    tree = OmegaConf.to_container(_of_the_job(cfg), resolve=True, throw_on_missing=False)
    assert isinstance(tree, dict)
    return {str(name): value for name, value in tree.items()}


def resolved(value: Any) -> Any:
    """Return a value of a command line or a file of options; a text has its ${oc.env:NAME} and such resolved.

    Raises:
        OmegaConfBaseException: one cannot be resolved.
    """
    if not isinstance(value, str):
        return value
    return OmegaConf.to_container(OmegaConf.create({"value": value}), resolve=True)["value"]  # type: ignore[call-overload, index]


def _of_the_job(cfg: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "hydra"])
