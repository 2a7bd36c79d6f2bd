"""Arguments checked before Hydra starts, help, and what a program prints when something is wrong.

`@hydra.main` alone reports the first fault only, with exit code 1 or a traceback, and lets misspelt keys
inside a YAML file through. Here every override is looked at on its own, then what the YAML files compose to;
all faults come in one message, with exit code 2, before anything is imported, created or run.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import os
import re
import shlex
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hblm.catalogue import Catalogue, is_shipped, read_yaml
from hblm.compose import Composer, Unreadable, parse, plain_tree
from hblm.config import OF_TRAINER, SweepNode
from hblm.errors import ConfigError, DataError, HblmError, close_names, did_you_mean, nearest
from hblm.processes import QUIET, place
from hblm.schema import Leaf, leaves, plain, read_leaf, typed
from hblm.sweep.grid import (
    MOST_VALUES,
    SweepFile,
    axes_of,
    cells_of,
    count_values,
    read_sweep,
    values_of,
)
from hblm.terminal import visible_output

_SHOWN = 500  # characters of an argument that cannot be read
SWEPT = ("train",)  # programs whose runs a sweep file crosses
_STAND_IN = "dataset=wos"  # in place of a missing dataset, so that all the rest can be judged
_CELLS_CHECKED = 200  # of a grid, before it starts; each run is checked again when its turn comes
# Hydra keeps what it was told, and the log, for the first of several processes alone
_NO_FILES = ("hydra.output_subdir=null", "hydra.run.dir=.", "hydra/job_logging=none")
PASSED_ON = ("hydra_help", "version", "shell_completion", "info")  # Hydra answers these by itself


@dataclass(frozen=True)
class Program:
    """A program of the package: `python -m hblm.{name}`, with conf/{name}.yaml as its primary file."""

    name: str
    schema: type
    summary: str
    examples: tuple[str, ...]
    usage: str = "[GROUP=OPTION ...] [KEY=VALUE ...]"
    by_hydra: bool = True  # Hydra's flags and -m are its own, too


def main(
    program: Program,
    task: Callable[[Any], None],
    argv: list[str] | None = None,
    before: Callable[[list[str]], tuple[list[str], list[str]]] = lambda argv: (argv, []),
) -> None:
    """Check the arguments, let Hydra compose them, and run `task` with the typed configuration.

    `before` may look at the arguments first, and returns those to go on with, and faults. Exits with code 2
    and a message for what is the user's to mend, 130 for Ctrl-C.
    """
    argv = at_home(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        print(help_text(program, argv))
        return
    # threads that wait by spinning take the processor from each other where two runs share a CPU
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if place().size > 1:
        os.environ.setdefault(*QUIET)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach the handlers below instead of Hydra's own printer

    failed: list[str] = []

    def job(cfg: DictConfig) -> None:
        try:
            tree = plain_tree(cfg)
            if program.name in SWEPT:  # a grid's node is no part of its runs
                tree.pop("sweep", None)
            config: Any = typed(tree, program.schema)
            name = _contradicted_method(HydraConfig.get().runtime.choices, config)
            if name:
                raise ConfigError(_contradiction(name, config, []))
            task(config)
        except HblmError as error:
            # a grid goes on with its other runs (Hydra keeps the exception); a single run ends here
            if HydraConfig.get().mode != RunMode.MULTIRUN:
                _fail(program, error)
            failed.append(" ".join(HydraConfig.get().overrides.task))
            print(f"{failed[-1]}: {error}", file=sys.stderr)
            raise
        finally:
            _free()

    with visible_output(), answering(program, failed):
        if place().size > 1:
            _require_one_run(program, argv)
        argv, faults = before(argv)
        check(program, argv, faults)
        sys.argv = [sys.argv[0], *argv, *(_NO_FILES if place().rank else [])]
        hydra.main(version_base="1.3", config_path="pkg://hblm.conf", config_name=program.name)(job)()


def _free() -> None:
    """Free what a run of a grid leaves, its model above all, before the next one starts.

    Accelerate leaves reference cycles. Hydra keeps a failed run's exception, and with it the locals of all
    frames that it passed.
    """
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        return
    error = sys.exc_info()[1]
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()


def _require_one_run(program: Program, argv: Sequence[str]) -> None:
    """Refuse what a launcher may not start several times.

    Raises:
        ConfigError: another program than train, or a grid.
    """
    said = f"was started {place().size} times by a launcher; start it without one"
    if program.name not in SWEPT:
        raise ConfigError(f"{program.name} is one process, and {said}")
    if {"-m", "--multirun"} & set(argv):
        raise ConfigError(f"a grid (-m) {said}, and write trainer.processes={place().local_size}")


@contextlib.contextmanager
def answering(program: Program, failed: Sequence[str] = ()) -> Iterator[None]:
    """Turn what is the user's to mend into a message and exit code 2, and Ctrl-C into 130.

    `failed` are the runs of a grid whose faults were said already.
    """
    try:
        yield
    except (HblmError, HydraException, OmegaConfBaseException) as error:
        _fail(program, f"failed, {len(failed)} in all: {'; '.join(failed)}" if failed else error)
    except OSError as error:
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        _fail(program, f"{error.filename or 'writing failed'}: {error.strerror}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def argument(key: str, value: str) -> str:
    """Return key=value as it is written on a shell, quoted for it and for Hydra where that is needed."""
    if re.fullmatch(r"[\w./:@+-]+", value, re.ASCII):
        return f"{key}={value}"
    escaped = re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + ('\\"' if found[2] else ""), value)
    return shlex.quote(f'{key}="{escaped}"')


def at_home(argv: Sequence[str]) -> list[str]:
    """Return the arguments with the home folder where they say ~."""
    return [_at_home(text) for text in argv]


def override(key: str, value: str) -> str:
    """Return key=value as Hydra's parser takes it, once the shell has taken its quotes off."""
    return shlex.split(argument(key, value))[0]


def _at_home(text: str) -> str:
    """Return an argument with the home folder for ~, which shells leave alone behind dataset.path=."""
    found = re.fullmatch(r"([\w.@/+]+=[\"']?)(~(?:/.*)?)", text, re.DOTALL)
    return found[1] + os.path.expanduser(found[2]) if found else text


def _spelt_right(text: str) -> str:
    """Say how an argument that Hydra cannot read is to be written."""
    key, equals, value = text.partition("=")
    if equals and re.fullmatch(r"[\w.@/+]+", key):
        return f"; quote special characters twice: {argument(key, value.strip(chr(34)))}"
    return f"; did you mean {argument('raw', text)}?" if Path(text).exists() else ""


def check(program: Program, argv: list[str], found: Sequence[str] = ()) -> None:
    """Raise one ConfigError with `found`, and each fault of the command line and the YAML it selects."""
    arguments = get_args_parser().parse_args(argv)
    if any(getattr(arguments, name, None) for name in PASSED_ON):
        return
    catalogue = Catalogue(arguments.config_dir)
    faults, refused = [*found], set()
    if arguments.multirun and arguments.cfg:
        faults.append("--cfg shows one run; drop --multirun (-m)")
    good: list[Override] = []
    for text in arguments.overrides:
        try:
            override = parse(text)
        except HydraException:
            override = None
        if override is None or not override.key_or_group:
            hint = _spelt_right(text) if len(text) < _SHOWN else ""
            faults.append(f"{text:.{_SHOWN}} is not of the form key=value{hint}")
            refused.add(text.partition("=")[0])
            continue
        wrong = [*override_faults(program, catalogue, override, arguments.multirun)]
        faults += wrong
        if wrong:
            refused.add(override.key_or_group)
        else:
            good.append(override)
    given = {override.key_or_group for override in good}
    grid = SweepFile("", Path(), {}, SweepNode())
    if "sweep" in given and program.name in SWEPT:
        name = next(str(override.value()) for override in good if override.key_or_group == "sweep")
        try:
            grid = read_sweep(name, catalogue)
        except ConfigError as error:
            faults += str(error).splitlines()
        faults += _grid_faults(grid, name, arguments.multirun)
    needs_dataset = "dataset" in _groups_of(program, catalogue) and not {"experiment", "sweep"} & given
    stand_in = []
    if needs_dataset and "dataset" not in given:
        stand_in = [_STAND_IN]
        if not any(text.startswith("dataset=") for text in arguments.overrides):
            faults.append(f"dataset= is required: one of {', '.join(sorted(catalogue.groups['dataset']))}")
    composer = Composer(program.name, program.schema, catalogue.search_path)
    axes = axes_of(grid, catalogue, [override.input_line or "" for override in good])
    for cell in itertools.islice(cells_of(replace(grid, node=SweepNode()), axes), _CELLS_CHECKED):
        composed = composition_faults(composer, catalogue, good, [*cell.overrides, *stand_in])
        # what was given and refused is not missing
        faults += [fault for fault in composed if fault.partition("= is required")[0] not in refused]
    if faults:
        raise ConfigError("\n".join(dict.fromkeys(faults)))


def _grid_faults(grid: SweepFile, name: str, many: bool) -> Iterator[str]:
    """Yield why a sweep file cannot be run by Hydra's own sweeper as it was asked for."""
    submit = f"python -m hblm.sweep submit sweep={name}"
    if not many:
        yield f"sweep={name} names a grid, not one run; add -m, or write: {submit}"
    elif grid.beyond_hydra:
        said = " and ".join(f"sweep.{key}" for key in grid.beyond_hydra)
        yield f"sweep={name} has {said}, which -m cannot do; write: {submit}"


def override_faults(program: Program, catalogue: Catalogue, override: Override, many: bool) -> Iterator[str]:
    """Yield what is wrong with one override, whatever the others say."""
    key, text = override.key_or_group, override.input_line or ""
    if key == "hydra" or key.startswith(("hydra.", "hydra/")):
        yield from _hydra_faults(override)
        return
    known = {leaf.name: leaf for leaf in leaves(program.schema)}
    groups = set(_groups_of(program, catalogue))
    if override.type == OverrideType.DEL:
        yield f"{text}: a key cannot be removed; give it another value"
        return
    if override.is_sweep_override() and not override.is_discrete_sweep():
        yield f"{text}: write the values one by one, or as range(start,stop)"
        return
    if (count := count_values(override)) > MOST_VALUES:
        yield f"{text} names {count:,} values; at most {MOST_VALUES:,} can be run"
        return
    if override.is_sweep_override() and not many:
        together = (
            f", or write {key}=[...] for all at once" if key in known and known[key].rules["one"] else ""
        )
        yield f"{text} names several values; add -m to run one after the other{together}"
        return
    if key in groups:
        yield from _option_faults(catalogue, override)
    elif key in known:
        yield from _value_faults(known[key], values_of(override, catalogue))
    elif key.rpartition(".")[0] not in (
        name for name, leaf in known.items() if isinstance(leaf.default, dict)
    ):
        option = f"dataset.prepare.{key}"
        meant = [option] if option in _options_of_converters(catalogue) else []
        close = did_you_mean(meant) or _suggest(key, [*known, *groups])
        yield f"{key}={text.partition('=')[2]} is not a key{close}"


def _hydra_faults(override: Override) -> Iterator[str]:
    """Yield why a key of Hydra's own cannot be given; most can."""
    key, text = override.key_or_group, override.input_line or ""
    if key == "hydra.job.chdir" and override.value() not in (False, None):
        yield f"{text}: relative paths start where the program does; leave it out, or write output_dir=DIR"
    elif ("/" in key or key == "hydra") and not isinstance(override.value(), (str, list, type(None))):
        yield f"{text}: the value is the name of an option of Hydra's"


def _options_of_converters(catalogue: Catalogue) -> Iterator[str]:
    for file in catalogue.groups.get("dataset", {}).values():
        options = read_yaml(file).get("prepare")
        yield from (f"dataset.prepare.{name}" for name in options or {})


def _option_faults(catalogue: Catalogue, override: Override) -> Iterator[str]:
    group, options = override.key_or_group, catalogue.groups[override.key_or_group]
    for value in values_of(override, catalogue):
        if not isinstance(value, str) or value not in options:
            close = nearest(str(value), options)
            yield f"{group}={plain(value)} is not one of {', '.join(sorted(options))}{close}"


def _value_faults(leaf: Leaf, values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        group = leaf.rules["option_of"]
        if group:
            yield f"{leaf.name}={plain(value)} is set by choosing the option; write {group}={plain(value)}"
            continue
        if isinstance(value, str) and "${" in value:
            continue  # an interpolation: judged by what it composes to
        _, why = read_leaf(leaf, value)
        if why:
            yield f"{leaf.name}={plain(value)} {why}"


def _suggest(key: str, known: list[str]) -> str:
    """Propose the nearest of all keys: by last part, then inside the same group, then by spelling."""
    prefix, _, last = key.rpartition(".")
    same = [name for name in known if name.rpartition(".")[2] == last]
    inside = [name for name in known if name.startswith(f"{prefix}.")]
    for candidates in (same, inside, known):
        by_last: dict[str, list[str]] = {}
        for name in candidates:
            by_last.setdefault(name.rpartition(".")[2], []).append(name)
        close = close_names(last, by_last)
        if close:
            return did_you_mean(name for found in close for name in by_last[found])
    return nearest(key, known)


def composition_faults(
    composer: Composer, catalogue: Catalogue, overrides: list[Override], cell: list[str]
) -> Iterator[str]:
    """Yield what is wrong in the YAML files that a run's overrides select, and between keys."""
    judged = {override.key_or_group for override in overrides if "${" not in (override.input_line or "")}
    try:
        found = composer.compose(cell)
    except Unreadable as error:
        unknown = re.search(r"Could not override '([\w.]+)\.(\w+)'", str(error))
        if unknown and "prepare" in unknown[1]:
            yield _unknown_option(composer.name, cell, unknown[1], unknown[2])
            return
        yield re.sub(r" To append to your config use \S+", "", str(error))
        return
    for fault in found.faults:
        group = fault.key.partition(".")[0]
        if fault.value == "???":
            context = f" with {group}={found.choices[group]}" if group in found.choices else ""
            yield f"{fault.key}= is required{context}"
        elif fault.key not in judged:
            yield f"{catalogue.place_of(fault.key, dict(found.choices))}{fault}"
    if all(fault.value == "???" for fault in found.faults):
        yield from found.config.conflicts()
        name = _contradicted_method(found.choices, found.config)
        if name:
            yield _contradiction(name, found.config, _causes(composer, name, cell))


def _contradicted_method(choices: Mapping[str, str | None], config: Any) -> str | None:
    """Return the chosen method if the other options make another one.

    A preset of the user's own is not judged: its name says nothing about the model.
    """
    name = choices.get("method")
    return name if name and is_shipped("method", name) and config.method != name else None


def _contradiction(name: str, config: Any, causes: Sequence[str]) -> str:
    """Say that the options beside method=`name` make another method, and how to write that one."""
    others = " and ".join(causes) or "the other options"
    return (
        f"method={name} contradicts {others}: together they make method={config.method}; leave {others} out, "
        f"or write {' '.join([f'method={config.method}', *causes])}"
    )


def _causes(composer: Composer, name: str, cell: Sequence[str]) -> list[str]:
    """Return the overrides of a run that contradict its method, each alone or only together."""
    chosen = f"method={name}"
    others = [text for text in cell if text != chosen]

    def method_of(texts: Sequence[str]) -> str | None:
        try:
            method: str = composer.compose(texts).config.method
        except Unreadable:  # without what was left out
            return None
        return method

    alone = [text for text in others if method_of([chosen, _STAND_IN, text]) not in (name, None)]
    return alone or [text for text in others if method_of([each for each in cell if each != text]) == name]


def _unknown_option(program: str, texts: list[str], group: str, name: str) -> str:
    """Say which keys a free group of keys has, when one that it has not was given."""
    others = [text for text in texts if not text.startswith(f"{group}.")]
    with hydra.initialize_config_module("hblm.conf", version_base="1.3"):
        known = list(OmegaConf.select(hydra.compose(program, others), group) or {})
    has = f"; it has {', '.join(known)}" if known else "; this dataset has none"
    return f"{group}.{name} is not an option of the dataset{nearest(name, known)}{has}"


def _groups_of(program: Program, catalogue: Catalogue) -> list[str]:
    return {"train": catalogue.of_runs, "prepare": ["dataset", "encoder"], "sweep": ["sweep", "cluster"]}.get(
        program.name, []
    )


def _fail(program: Program, error: object) -> NoReturn:
    lines = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, DataError):  # one fault, however many lines it takes to say
        print(f"hblm.{program.name}: {error}", file=sys.stderr)
    elif len(lines) == 1:
        print(f"hblm.{program.name}: {lines[0]}", file=sys.stderr)
    else:
        print(f"hblm.{program.name}: {len(lines)} faults", file=sys.stderr)
        print("\n".join(f"  {line}" for line in lines), file=sys.stderr)
    sys.exit(2)


def help_text(program: Program, argv: Sequence[str] = ()) -> str:
    """Return the --help page: usage, examples, groups with their options, keys with their defaults.

    An option among the arguments, such as dataset=custom, is shown as its YAML file has it.
    """
    catalogue = Catalogue()
    lines = [
        program.summary,
        "",
        f"usage: python -m hblm.{program.name} {program.usage}",
        "",
    ]
    lines += ["examples", *(f"  {example}" for example in program.examples), ""]
    groups = _groups_of(program, catalogue)
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
