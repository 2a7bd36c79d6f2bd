"""The command line of `python -m hblm.sweep`: the verb, its keys, and the overrides of the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.errors import HydraException

from hblm.cli import check, command_line
from hblm.cli.programs import SWEEP
from hblm.config import overrides
from hblm.config.compose import parse, resolved
from hblm.config.groups import OptionGroups, read_yaml
from hblm.config.hints import word_hint
from hblm.config.schema import Fault, leaves, read_leaf, read_tree
from hblm.config.sweep import Cluster, SweepConfig
from hblm.errors import ConfigError, nearest
from hblm.sweep.launchers import slurm
from hblm.sweep.state import ledger_of

VERBS = ("plan", "submit", "status", "watch", "logs", "cancel", "retry")


class Asked:
    """The command line, understood: the verb, what the sweep itself is told, and the runs' overrides."""

    def __init__(self, argv: Sequence[str]) -> None:
        """Read the arguments.

        Raises:
            ConfigError: all that is wrong with them.
        """
        words, spaced = command_line.without_spaces(argv)
        arguments, faults = command_line.arguments_of(SWEEP, words)
        words, faults = arguments.overrides, spaced + faults
        self.config_dir: str | None = arguments.config_dir
        verbs = [word for word in words if "=" not in word]
        if not verbs or verbs[0] not in VERBS:
            given = f"{verbs[0]} is not" if verbs else "write"
            close = nearest(verbs[0], VERBS) if verbs else ""
            if verbs and verbs[0] in OptionGroups(self.config_dir).groups["sweep"]:
                close = f"; did you mean submit sweep={verbs[0]}?"
            raise ConfigError("\n".join([*faults, f"{given} one of {', '.join(VERBS)}{close}"]))
        self.verb = verbs[0]
        words.remove(self.verb)
        known = {leaf.name: leaf for leaf in leaves(SweepConfig)}
        values: dict[str, Any] = {}
        self.overrides: list[str] = []
        cluster = "slurm"
        for text in words:
            key = text.partition("=")[0]
            if key == "cluster":
                cluster = text.partition("=")[2]
                continue
            if key.startswith("cluster.") and key not in known and key.count(".") < 2:
                faults.append(f"{text} is not a key{nearest(key, known)}")
                continue
            if "=" not in text:
                hint = word_hint(text, SWEEP.name, OptionGroups(self.config_dir))
                faults.append(f"{text} is not of the form key=value{hint}")
                continue
            if key not in known and not key.startswith("cluster.additional."):
                self.overrides.append(text)
                continue
            try:
                override = parse(text)
                several = override.is_sweep_override() and key in known and known[key].rules["one"]
                value = text.partition("=")[2].split(",") if several else override.value()
            except HydraException:
                faults.append(f"{text} is not of the form key=value")
                continue
            if override.is_sweep_override() and not several:
                faults.append(f"{text}: {key} takes one value")
                continue
            if key not in known:
                values.setdefault("cluster.additional", {})[key.rpartition(".")[2]] = value
                continue
            checked, reason = read_leaf(known[key], resolved(value))
            if reason:
                faults.append(str(Fault(key, value, reason)))
            else:
                values[key] = checked
        if "sweep" not in values and not faults:
            faults.append("sweep= is required: which grid")
        self.given = values
        asked_of = {key.partition(".")[2]: values.pop(key) for key in [*values] if key.startswith("cluster.")}
        if asked_of or any(word.startswith("cluster=") for word in words):
            values["cluster"] = _cluster(cluster, asked_of, self.config_dir, faults)
        self.config = SweepConfig(**values)
        faults += self.config.conflicts() if not faults else []
        if self.overrides and self.verb not in ("plan", "submit"):
            own = ", ".join(known)
            faults += [
                f"{text}: {self.verb} takes the keys {own}{nearest(text.partition('=')[0], known)}"
                for text in self.overrides
            ]
        if faults:
            raise ConfigError("\n".join(faults))
        if "output_dir" in values:
            self.overrides.append(overrides.override("output_dir", self.config.output_dir))
        self.ledger = ledger_of(self.config.output_dir, self.config.name or self.config.sweep)
        self.ledger.jobs = slurm.Queue(self.ledger)


def _cluster(option: str, given: Mapping[str, Any], config_dir: str | None, faults: list[str]) -> Cluster:
    """Return a cluster's options, from its file in multirun/cluster/ and what was given."""
    catalogue = OptionGroups(config_dir)
    options = catalogue.groups["cluster"]
    if option not in options:
        faults.append(f"cluster={option} {check.no_option('cluster', option, SWEEP, catalogue)}")
        return Cluster()
    tree = read_yaml(options[option])
    added = tree.get("additional") or {}
    if not isinstance(added, dict):
        raise ConfigError(f"{options[option]}: additional is not a group of keys")
    more = {**added, **given.get("additional", {})}
    tree = {**{name: resolved(value) for name, value in tree.items()}, **given}
    cluster, found = read_tree({**tree, "additional": more}, Cluster, "cluster.")
    faults += [f"{options[option]}: {fault}" for fault in found]
    return cluster
