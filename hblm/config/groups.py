"""Groups and their options: the YAML files of conf/, multirun/ and a folder of the user's own."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from hblm.errors import ConfigError
from hblm.files import read_bytes, require_file

PRESETS = ("experiment", "sweep", "method")  # they set keys of other groups, and come last in the defaults

CONVERTER_OPTIONS = "dataset.prepare."  # followed by the name of an option of the dataset's converter

STAND_IN = "dataset=wos"  # in place of a missing dataset, so that all the rest can be composed

_LARGEST = 1 << 20  # bytes of a YAML file
_DEEPEST, _MOST_VALUES = 50, 100_000


@functools.cache
def shipped_options(group: str) -> tuple[str, ...]:
    """Return the options of a group in conf/, where Hydra looks before it looks into --config-dir."""
    names = (file.name for file in (resources.files("hblm.conf") / group).iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the keys of an option's YAML file, empty for an empty one.

    Raises:
        ConfigError: it cannot be read, is not YAML, is no group of keys, is nested too deeply, or has
            references (*name) that unfold to too many values.
    """
    try:
        text = read_bytes(file, _LARGEST).decode("utf-8")
        _require_modest(text)
        tree = yaml.safe_load(text)
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    if tree is not None and not isinstance(tree, dict):
        raise ConfigError(f"{file} cannot be read: it is not a group of keys")
    return tree or {}


def _require_modest(text: str) -> None:
    """Refuse a YAML text that is too deep or too large, before its references are followed.

    Raises:
        ValueError: the limit that it exceeds.
    """
    sizes: dict[str | None, int] = {}  # values below each anchor (&name)
    above: list[tuple[str | None, int]] = []  # open collections: anchor, and the values before it
    total = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            above.append((event.anchor, total))
        if isinstance(event, yaml.CollectionEndEvent):
            name, before = above.pop()
            sizes[name] = total - before
        elif isinstance(event, yaml.AliasEvent):
            if any(name == event.anchor for name, _ in above):
                raise ValueError(f"*{event.anchor} refers to a value that contains it")
            total += sizes.get(event.anchor, 1)
        else:
            total += 1
        if len(above) > _DEEPEST or total > _MOST_VALUES:
            raise ValueError(f"more than {_DEEPEST} levels or {_MOST_VALUES:,} values")


class OptionGroups:
    """The groups and their options in conf/, multirun/ and --config-dir.

    Attributes:
        groups: group -> option -> its YAML file.
        config_dir: the user's own folder, None for none.
    """

    def __init__(self, config_dir: str | None = None) -> None:
        self.config_dir = Path(config_dir).resolve() if config_dir else None
        if self.config_dir and not self.config_dir.is_dir():
            raise ConfigError(f"--config-dir {config_dir} is not a folder")

    @functools.cached_property
    def groups(self) -> dict[str, dict[str, Path]]:
        """The options by group; read when first used, so that no broken file stops what needs none.

        Raises:
            ConfigError: a file of the user's own cannot be read.
        """
        roots = [Path(str(resources.files(package))) for package in ("hblm.conf", "hblm.multirun")]
        groups: dict[str, dict[str, Path]] = {}
        for root in [*roots, *([self.config_dir] if self.config_dir else [])]:
            for file in sorted(root.glob("*/*.yaml")):
                if file.name.startswith("."):  # what editors and file managers leave
                    continue
                require_file(file)
                if root == self.config_dir and file.parent.name in groups:
                    read_yaml(file)  # before Hydra does
                groups.setdefault(file.parent.name, {})[file.stem] = file
        return groups

    @property
    def of_runs(self) -> list[str]:
        """Return the groups of a run; a cluster is none of them."""
        return sorted(self.groups.keys() - {"cluster"})

    @property
    def search_path(self) -> list[str]:
        """Return the override that adds the user's folder to Hydra's search path."""
        if not self.config_dir:
            return []
        return [f"hydra.searchpath=[pkg://hblm.multirun,file://{self.config_dir}]"]

    def left_out(self, choices: Mapping[str, str | None], given: Collection[str]) -> Iterator[str]:
        """Yield the keys that an option's file leaves open (???) and that nothing else sets.

        Hydra does not see them: the default of the dataclass takes the place of ???.

        Args:
            choices: group -> option.
            given: keys that arguments set.
        """
        values: dict[str, list[Any]] = {}
        for group, option in choices.items():
            for key, value in self._keys_of(group, option).items():
                if group in PRESETS and isinstance(value, dict):
                    for name, each in value.items():
                        values.setdefault(f"{key}.{name}", []).append(each)
                else:
                    values.setdefault(key if group in PRESETS else f"{group}.{key}", []).append(value)
        for key, written in values.items():
            if set(map(str, written)) == {"???"} and key not in given:
                yield key

    @functools.lru_cache(maxsize=1024)  # noqa: B019  it lives as long as a command
    def _keys_of(self, group: str, option: str | None) -> dict[str, Any]:
        file = self.groups.get(group, {}).get(option or "")
        return read_yaml(file) if file else {}

    def place_of(self, key: str, choices: dict[str, str | None]) -> str:
        """Return the YAML file that sets `key`, as a prefix of messages; "" where no option sets it."""
        node, _, rest = key.partition(".")
        for group, option in sorted(choices.items(), key=lambda choice: choice[0] not in PRESETS):
            tree: Any = self._keys_of(group, option)
            path = rest.split(".") if group == node and rest else key.split(".")
            while path and isinstance(tree, dict) and path[0] in tree:
                tree, path = tree[path[0]], path[1:]
            if not path:
                return f"{group}/{option}.yaml: "
        return ""


def groups_of(program: str, option_groups: OptionGroups) -> list[str]:
    """Return the groups that a program chooses options from."""
    groups = {
        "train": option_groups.of_runs,
        "prepare": ["dataset", "encoder"],
        "sweep": ["sweep", "cluster"],
    }
    return groups.get(program, [])


@functools.cache  # option groups live as long as a command
def options_of(dataset: str, option_groups: OptionGroups) -> tuple[str, ...]:
    """Return the keys of a dataset's converter, as they are written on the command line."""
    options = read_yaml(option_groups.groups["dataset"][dataset]).get("prepare")
    return tuple(f"{CONVERTER_OPTIONS}{name}" for name in options) if isinstance(options, dict) else ()


def first_comment(file: Path) -> str:
    """Return the comment at the start of an option's YAML file: what the option is; "" for none."""
    comments = (line[1:].strip() for line in file.read_text(encoding="utf-8").splitlines() if line[:1] == "#")
    return next((comment for comment in comments if not comment.startswith("@")), "")
