"""The command line of `python -m hblm.sweep`: the verb, its keys, and the overrides of the runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.errors import HydraException

from hblm.cli import check, command_line
from hblm.cli.programs import SWEEP
from hblm.config import overrides
from hblm.config.compose import parse, resolved
from hblm.config.groups import OptionGroups, read_yaml
from hblm.config.hints import word_hint
from hblm.config.schema import Fault, Leaf, leaves, read_leaf, read_tree
from hblm.config.sweep import COMPOSING_VERBS, VERBS, Cluster, SweepConfig
from hblm.errors import ConfigError, nearest
from hblm.sweep.launchers.registry import LAUNCHERS, open_sweep

_KEYS = {leaf.name: leaf for leaf in leaves(SweepConfig)}
_ADDITIONAL = "cluster.additional."  # any option of sbatch may follow


@dataclass(frozen=True)
class SweepArguments:
    """The command line, checked.

    Attributes:
        verb: one of VERBS.
        config: the sweep's own keys, defaults included.
        given: the keys of `config` that the command line sets, with `cluster` for any of its options.
        overrides: those of the runs' keys.
        config_dir: a folder of the user's own options.
    """

    verb: str
    config: SweepConfig
    given: frozenset[str]
    overrides: tuple[str, ...]
    config_dir: str | None

    @property
    def sweep_name(self) -> str:
        """The name of the sweep's folder."""
        return self.config.name or self.config.sweep

    @property
    def command(self) -> str:
        """The arguments that name this sweep in a later command."""
        words = [overrides.override("sweep", self.config.sweep)]
        if self.config.name is not None:
            words.append(overrides.override("name", self.config.name))
        if "output_dir" in self.given:
            words.append(overrides.override("output_dir", self.config.output_dir))
        return " ".join(words)


@dataclass
class _Words:
    """The key=value arguments so far, sorted by what they set.

    Attributes:
        values: the sweep's own keys, checked.
        additional: options of sbatch.
        cluster: the option of the group cluster.
        is_cluster_given: whether cluster= is given.
        of_runs: overrides of the runs' keys.
        faults: what is wrong.
    """

    faults: list[str]
    values: dict[str, Any] = field(default_factory=dict)
    additional: dict[str, Any] = field(default_factory=dict)
    cluster: str = "slurm"
    is_cluster_given: bool = False
    of_runs: list[str] = field(default_factory=list)


def read_arguments(argv: Sequence[str]) -> SweepArguments:
    """Return the command line, checked.

    Raises:
        ConfigError: all faults.
    """
    joined, faults = command_line.without_spaces(argv)
    flags, faults_of_flags = command_line.arguments_of(SWEEP, joined)
    options = OptionGroups(flags.config_dir)
    verb, texts = _split_verb(flags.overrides, options, [*faults, *faults_of_flags])
    words = _Words([*faults, *faults_of_flags])
    for text in texts:
        _read_word(text, options, words)
    if "sweep" not in words.values and not words.faults:
        words.faults.append("sweep= is required: which grid")
    config, given = _config(words, options)
    if verb not in COMPOSING_VERBS:
        words.faults += [
            f"{text}: {verb} takes the keys {', '.join(_KEYS)}{nearest(text.partition('=')[0], _KEYS)}"
            for text in words.of_runs
        ]
    if words.faults:
        raise ConfigError("\n".join(words.faults))
    if "output_dir" in given:
        words.of_runs.append(overrides.override("output_dir", config.output_dir))
    return SweepArguments(verb, config, given, tuple(words.of_runs), flags.config_dir)


def _split_verb(texts: Sequence[str], options: OptionGroups, faults: Sequence[str]) -> tuple[str, list[str]]:
    """Return the verb, and the other arguments.

    Raises:
        ConfigError: the first argument without = is no verb; the faults before it.
    """
    verb = next((text for text in texts if "=" not in text), None)
    if verb not in VERBS:
        given = f"{verb} is not" if verb else "write"
        close = nearest(verb, VERBS) if verb else ""
        if verb in options.groups["sweep"]:
            close = f"; did you mean submit sweep={verb}?"
        raise ConfigError("\n".join([*faults, f"{given} one of {', '.join(VERBS)}{close}"]))
    others = [*texts]
    others.remove(verb)
    return verb, others


def _read_word(text: str, options: OptionGroups, words: _Words) -> None:
    """Add one argument to the words before it, or to the faults."""
    key, is_assigned, value = text.partition("=")
    if key == "cluster":
        words.cluster, words.is_cluster_given = value, True
    elif key.startswith("cluster.") and key not in _KEYS and key.count(".") < 2:
        words.faults.append(f"{text} is not a key{nearest(key, _KEYS)}")
    elif not is_assigned:
        words.faults.append(f"{text} is not of the form key=value{word_hint(text, SWEEP.name, options)}")
    elif key in _KEYS or key.startswith(_ADDITIONAL):
        _read_value(text, _KEYS.get(key), words)
    else:
        words.of_runs.append(text)


def _read_value(text: str, leaf: Leaf | None, words: _Words) -> None:
    """Add the value of one of the sweep's own keys; `leaf` is None for an option of sbatch."""
    key, _, written = text.partition("=")
    try:
        override = parse(text)
        is_list = override.is_sweep_override() and leaf is not None and leaf.rules["one"]
        value = written.split(",") if is_list else override.value()
    except HydraException:
        words.faults.append(f"{text} is not of the form key=value")
        return
    if override.is_sweep_override() and not is_list:
        words.faults.append(f"{text}: {key} takes one value")
    elif leaf is None:
        words.additional[key.rpartition(".")[2]] = value
    else:
        checked, reason = read_leaf(leaf, resolved(value))
        if key == "on" and not reason and checked not in LAUNCHERS:
            reason = f"is not one of {', '.join(LAUNCHERS)}{nearest(str(checked), LAUNCHERS)}"
        if reason:
            words.faults.append(str(Fault(key, value, reason)))
        else:
            words.values[key] = checked


def _config(words: _Words, options: OptionGroups) -> tuple[SweepConfig, frozenset[str]]:
    """Return the sweep's own configuration, and the keys that were given; add faults between keys."""
    values = {key: value for key, value in words.values.items() if not key.startswith("cluster.")}
    of_cluster = {key.removeprefix("cluster."): words.values[key] for key in words.values.keys() - values}
    if words.additional:
        of_cluster["additional"] = {**of_cluster.get("additional", {}), **words.additional}
    if of_cluster or words.is_cluster_given:
        values["cluster"] = _cluster(words.cluster, of_cluster, options, words.faults)
    config = SweepConfig(**values)
    if not words.faults:
        words.faults += [*config.conflicts(), *_nodes_faults(config)]
    return config, frozenset(values)


def _nodes_faults(config: SweepConfig) -> Iterator[str]:
    """Yield the fault of several machines with a launcher that has one."""
    if config.nodes == 1:
        return
    sweep = open_sweep(config.output_dir, config.name or config.sweep)
    able = [name for name, launcher in LAUNCHERS.items() if launcher(sweep).several_nodes]
    if config.on not in able:
        on = " or ".join(f"on={name}" for name in able)
        yield f"nodes={config.nodes} needs {on}; trainer.processes= acts on one machine"


def _cluster(
    option: str, given: Mapping[str, Any], option_groups: OptionGroups, faults: list[str]
) -> Cluster:
    """Return a cluster's options: those of its file in multirun/cluster/, then those of the command line."""
    options = option_groups.groups["cluster"]
    if option not in options:
        faults.append(f"cluster={option} {check.no_option('cluster', option, SWEEP, option_groups)}")
        return Cluster()
    tree = read_yaml(options[option])
    added = tree.get("additional") or {}
    if not isinstance(added, dict):
        raise ConfigError(f"{options[option]}: additional is not a group of keys")
    additional = {**added, **given.get("additional", {})}
    tree = {**{name: resolved(value) for name, value in tree.items()}, **given}
    cluster, file_faults = read_tree({**tree, "additional": additional}, Cluster, "cluster.")
    faults += [f"{options[option]}: {fault}" for fault in file_faults]
    return cluster
