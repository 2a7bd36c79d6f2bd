"""The --help page of a program."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from hblm.cli.command_line import arguments_of
from hblm.cli.programs import Program
from hblm.config.compose import Composer, Unreadable
from hblm.config.groups import STAND_IN, OptionGroups, first_comment, groups_of
from hblm.config.schema import Leaf, leaves, plain
from hblm.process import as_started


def help_text(program: Program, argv: Sequence[str] = ()) -> str:
    """Return the --help page: usage, examples, groups with their options, keys with their values.

    The values are those of the default options, and of the options among the arguments, such as
    dataset=custom; the YAML files of these follow.
    """
    option_groups = OptionGroups(arguments_of(program, argv)[0].config_dir)
    pairs = (text.partition("=")[::2] for text in argv)
    chosen = {group: option for group, option in pairs if option in option_groups.groups.get(group, {})}
    groups = groups_of(program.name, option_groups)
    lines = [program.summary, "", f"usage: python -m hblm.{program.name} {program.usage}", ""]
    lines += ["examples", *(f"  {example}" for example in program.examples), ""]
    if groups:
        lines.append("groups (GROUP=OPTION)")
        for group in groups:
            lines.append(f"  {group}=")
            for option, file in sorted(option_groups.groups[group].items()):
                lines.append(f"    {option:<20} {first_comment(file)}")
        lines.append("")
    lines.append(
        "keys (KEY=VALUE; the values are those of the default options, and of options given beside --help)"
    )
    values = _values(program, chosen, option_groups)
    for leaf in sorted(leaves(program.schema), key=lambda leaf: leaf.default != "???"):  # required keys first
        if not leaf.rules["option_of"]:
            choices = f" [{', '.join(leaf.rules['choices'])}]" if leaf.rules["choices"] else ""
            shown = f"{leaf.name}={plain(values.get(leaf.name, leaf.default))}"
            lines.append(f"  {shown:<44} {leaf.rules['doc']}{choices}")
    lines.append("")
    own = "--config-dir DIR adds options of your own"
    if program.by_hydra:
        lines += ["-m runs every combination of comma-separated values; --cfg job shows what would be run;"]
        own += "; Hydra's flags: --hydra-help"
    lines.append(own)
    lines += [f"GROUP=OPTION --help shows the keys of an option, such as {groups[0]}=..."] if groups else []
    for group, option in chosen.items():
        text = option_groups.groups[group][option].read_text(encoding="utf-8")
        lines += ["", f"{group}={option}", textwrap.indent(text, "  ")]
    return as_started("\n".join(lines))


def _values(program: Program, chosen: Mapping[str, str], option_groups: OptionGroups) -> dict[str, Any]:
    """Return key -> value of all groups but dataset, whose file is shown; {} where they do not compose."""
    groups = groups_of(program.name, option_groups)
    if not program.by_hydra or not groups:
        return {}
    options = [f"{group}={option}" for group, option in chosen.items() if group in groups]
    shown = {*groups} - {"dataset"}
    try:
        composer = Composer(program.name, program.schema, option_groups.search_path)
        values = composer.compose([STAND_IN, *options]).values  # of two datasets the last counts
    except Unreadable:
        return {}

    def value(leaf: Leaf) -> Any:
        group, _, name = leaf.name.partition(".")
        return values.get(group, {}).get(name, leaf.default)

    return {leaf.name: value(leaf) for leaf in leaves(program.schema) if leaf.name.partition(".")[0] in shown}
