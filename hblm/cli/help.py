"""The --help page of a program."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from hblm.cli.command_line import arguments_of
from hblm.cli.programs import Program
from hblm.config.groups import OptionGroups
from hblm.config.hints import groups_of
from hblm.config.schema import leaves, plain
from hblm.config.train import OF_TRAINER


def help_text(program: Program, argv: Sequence[str] = ()) -> str:
    """Return the --help page: usage, examples, groups with their options, keys with their defaults.

    An option among the arguments, such as dataset=custom, is shown as its YAML file has it.
    """
    catalogue = OptionGroups(arguments_of(program, argv)[0].config_dir)
    lines = [
        program.summary,
        "",
        f"usage: python -m hblm.{program.name} {program.usage}",
        "",
    ]
    lines += ["examples", *(f"  {example}" for example in program.examples), ""]
    groups = groups_of(program.name, catalogue)
    if groups:
        lines.append("groups (GROUP=OPTION)")
        for group in groups:
            lines.append(f"  {group}=")
            for option, file in sorted(catalogue.groups[group].items()):
                lines.append(f"    {option:<20} {_first_comment(file)}")
        lines.append("")
    lines.append("keys (KEY=VALUE; the defaults are those of the default options)")
    left_open = {f"trainer.{name}" for name in OF_TRAINER}  # trainer=auto, the default, leaves them open
    for leaf in leaves(program.schema):
        if leaf.rules["option_of"]:
            continue
        choices = f" [{', '.join(leaf.rules['choices'])}]" if leaf.rules["choices"] else ""
        shown = f"{leaf.name}={plain(None if leaf.name in left_open else leaf.default)}"
        lines.append(f"  {shown:<44} {leaf.rules['doc']}{choices}")
    lines.append("")
    own = "--config-dir DIR adds options of your own"
    if program.by_hydra:
        lines += ["-m runs every combination of comma-separated values; --cfg job shows what would be run;"]
        own += "; Hydra's flags: --hydra-help"
    lines.append(own)
    lines += [f"GROUP=OPTION --help shows an option's own keys, such as {groups[0]}=..."] if groups else []
    for group, _, option in (text.partition("=") for text in argv):
        chosen = catalogue.groups.get(group, {}).get(option)
        if chosen:
            lines += ["", f"{group}={option}", textwrap.indent(chosen.read_text(encoding="utf-8"), "  ")]
    return "\n".join(lines)


def _first_comment(file: Path) -> str:
    comments = (line[1:].strip() for line in file.read_text(encoding="utf-8").splitlines() if line[:1] == "#")
    return next((comment for comment in comments if not comment.startswith("@")), "")
