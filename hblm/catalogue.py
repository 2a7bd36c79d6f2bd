"""The groups and options that stand in YAML files: conf/, multirun/, and a folder of the user's own."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import yaml

from hblm.artifacts import require_file
from hblm.errors import ConfigError

PRESETS = ("experiment", "sweep", "method")  # they set keys of other groups, and come last in the defaults


def is_shipped(group: str, option: str) -> bool:
    """Return whether an option stands in conf/, where Hydra looks before it looks into --config-dir."""
    return (resources.files("hblm.conf") / group / f"{option}.yaml").is_file()


class Catalogue:
    """The groups and options that stand in conf/, multirun/ and --config-dir."""

    def __init__(self, config_dir: str | None = None) -> None:
        self.config_dir = Path(config_dir).resolve() if config_dir else None
        roots = [Path(str(resources.files(package))) for package in ("hblm.conf", "hblm.multirun")]
        if self.config_dir:
            if not self.config_dir.is_dir():
                raise ConfigError(f"--config-dir {config_dir} is not a folder")
            roots.append(self.config_dir)
        self.groups: dict[str, dict[str, Path]] = {}
        for root in roots:
            for file in sorted(root.glob("*/*.yaml")):
                require_file(file)
                self.groups.setdefault(file.parent.name, {})[file.stem] = file

    @property
    def of_runs(self) -> list[str]:
        """Return the groups that a run chooses from; a cluster is none of them."""
        return sorted(self.groups.keys() - {"cluster"})

    @property
    def search_path(self) -> list[str]:
        """Return the override that makes Hydra look into the user's folder, too."""
        if not self.config_dir:
            return []
        return [f"hydra.searchpath=[pkg://hblm.multirun,file://{self.config_dir}]"]

    def place_of(self, key: str, choices: dict[str, str | None]) -> str:
        """Return the YAML file which gives `key` its value, as far as the chosen options tell."""
        node, _, rest = key.partition(".")
        for group, option in sorted(choices.items(), key=lambda choice: choice[0] not in PRESETS):
            file = self.groups.get(group, {}).get(option or "")
            if file is None:
                continue
            tree = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            path = rest.split(".") if group == node and rest else key.split(".")
            while path and isinstance(tree, dict) and path[0] in tree:
                tree, path = tree[path[0]], path[1:]
            if not path:
                return f"{group}/{file.name}: "
        return ""
