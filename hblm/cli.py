"""Arguments checked before Hydra starts, help, and what a program prints when something is wrong.

`@hydra.main` alone reports the first fault only, with exit code 1 or a traceback, and lets misspelt keys
inside a YAML file through. Here every override is looked at on its own, then what the YAML files compose to;
all faults come in one message, with exit code 2, before anything is imported, created or run.
"""

from __future__ import annotations

import argparse
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

from hblm.catalogue import Catalogue, is_shipped
from hblm.compose import CHDIR, Composer, Unreadable, parse, plain_tree
from hblm.config import OF_TRAINER, SweepNode
from hblm.errors import ConfigError, DataError, HblmError, nearest
from hblm.hints import argument as argument
from hblm.hints import flag_hint, groups_of, key_hint, option_hint, word_hint
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
from hblm.terminal import outlive_readers, visible_output

_LONGEST_SHOWN = 500  # characters of an argument that cannot be read
SWEPT = ("train",)  # programs whose runs a sweep file crosses
_STAND_IN = "dataset=wos"  # in place of a missing dataset, so that all the rest can be judged
_CELLS_CHECKED = 200  # of a grid, before it starts; each run is checked again when its turn comes
# Hydra keeps what it was told, and the log, for the first of several processes alone
_NO_FILES = ("hydra.output_subdir=null", "hydra.run.dir=.", "hydra/job_logging=none")
# nor where it may not write: a run that is done is shown all the same
_READ_ONLY = (*_NO_FILES[:2], "hydra/job_logging=stdout", "hydra.sweep.dir=.", "hydra.sweep.subdir=.")
_NO_NAME = (
    " is no flag here; keys of your own go into DIR/experiment/NAME.yaml: --config-dir DIR experiment=NAME"
)
_CROSSES = " (-m) is for hblm.train; a sweep crosses all its values without it"
_SHOWN = " is a flag of hblm.train; plan shows what a sweep would run"
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
    outlive_readers()
    argv = at_home(sys.argv[1:] if argv is None else argv)
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
        if arguments_of(program, argv)[0].help:
            print(help_text(program, argv))
            return
        if place().size > 1:
            _require_one_run(program, argv)
        argv, faults = before(argv)
        argv = check(program, argv, faults)
        sys.argv = [sys.argv[0], *argv, *(_NO_FILES if place().rank else _read_only(program, argv))]
        hydra.main(version_base="1.3", config_path="pkg://hblm.conf", config_name=program.name)(job)()


def _read_only(program: Program, argv: Sequence[str]) -> Sequence[str]:
    """Return what keeps Hydra from writing where a run's output folder may not be written."""
    if program.name not in SWEPT or any(text.startswith("hydra.") for text in argv):
        return ()
    given = [text.partition("=")[2] for text in argv if text.startswith("output_dir=")]
    folder = Path(given[-1] if given else program.schema.output_dir).absolute()  # type: ignore[attr-defined]
    while not folder.exists():
        folder = folder.parent
    return () if os.access(folder, os.W_OK | os.X_OK) else _READ_ONLY


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


def _unreadable(
    text: str, program: Program, catalogue: Catalogue, many: bool, given: Mapping[str, str]
) -> Iterator[str]:
    """Yield of an argument that Hydra cannot read what is wrong, and how it is written."""
    key, equals, value = text.partition("=")
    if len(text) > _LONGEST_SHOWN:
        yield f"{text:.{_LONGEST_SHOWN}} is not of the form key=value"
    elif equals and re.fullmatch(r"\+*[\w.@/]+", key):
        quoted = argument(key, value.strip(chr(34)))
        try:
            override = parse(shlex.split(quoted)[0])
        except HydraException:  # the key cannot be read either
            yield f"{text} is not of the form key=value"
            return
        wrong = [*override_faults(program, catalogue, override, many, given)]
        yield from wrong  # quotes alone would not make it right
        if not wrong:
            yield f"{text} is not of the form key=value; quote special characters twice: {quoted}"
    else:
        yield f"{text} is not of the form key=value{word_hint(text, program.name, catalogue)}"


def arguments_of(program: Program, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return flags, and key=value arguments as `overrides`, which may stand in any order; and the faults.

    Raises:
        ConfigError: a flag lacks its value, or cannot have the one given.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists what there is")

    parser.error = refuse  # type: ignore[method-assign]  # which prints a usage of Hydra's, and exits
    long = {f"-{name.replace('_', '-')}" for name in vars(parser.parse_args([]))}
    argv = [f"-{text}" if text.partition("=")[0] in long else text for text in argv]
    unknown = {text for text in parser.parse_known_intermixed_args(argv)[1] if text.startswith("-")}
    faults: list[str] = []
    known: list[str] = []
    words = [*argv]
    while words:
        word = words.pop(0)
        if word not in unknown:
            known.append(word)
            continue
        has_value = words and "=" not in word and "=" not in words[0] and not words[0].startswith("-")
        value = words.pop(0) if has_value else ""
        programs = (program.name,) if program.by_hydra else (program.name, *SWEPT)
        hint = flag_hint(word, value, programs, Catalogue())
        faults.append(f"{' '.join([word, value]).strip()} is not a flag of hblm.{program.name}{hint}")
    arguments = parser.parse_intermixed_args(known)
    refused = {"config_name": _NO_NAME, "config_path": _NO_NAME} | (
        {} if program.by_hydra else {"multirun": _CROSSES, "cfg": _SHOWN, "info": _SHOWN}
    )
    for name, why in refused.items():
        if getattr(arguments, name):
            faults.append(f"--{name.replace('_', '-')}{why}")
            setattr(arguments, name, None)
    return arguments, faults


def without_spaces(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Put arguments together that spaces around = or behind a comma took apart; return the faults, too."""
    found: list[list[str]] = []
    for word in argv:
        last = found[-1][-1] if found else ""
        behind = last[-1:] in ("=", ",") and "=" not in word and word[:1] != "-"
        if (
            found
            and last[:1] != "-"
            and (behind or word[:1] == "," or (word[:1] == "=" and last and "=" not in last))
        ):
            found[-1].append(word)
        else:
            found.append([word])
    faults = [f"{' '.join(each)}: write {''.join(each)}, without spaces" for each in found if len(each) > 1]
    return ["".join(each) for each in found], faults


def check(program: Program, argv: Sequence[str], found: Sequence[str] = ()) -> list[str]:
    """Return the arguments as Hydra takes them, flags first.

    Raises:
        ConfigError: `found`, and each fault of the command line and of the YAML it selects.
    """
    words, faults = without_spaces(argv)
    arguments, of_flags = arguments_of(program, words)
    faults, refused = [*found, *faults, *of_flags], meant_by(of_flags)
    flags = [
        f"--{name.replace('_', '-')}{'' if value is True else f'={value}'}"
        for name, value in vars(arguments).items()
        if name != "overrides" and value
    ]
    if any(getattr(arguments, name, None) for name in PASSED_ON):
        return [*flags, *arguments.overrides]
    catalogue = Catalogue(arguments.config_dir)
    if arguments.multirun and arguments.cfg:
        faults.append("--cfg shows one run; drop --multirun (-m)")
    as_written = {key: value for key, _, value in (text.partition("=") for text in arguments.overrides)}
    good: list[Override] = []
    for text in arguments.overrides:
        try:
            override = parse(text)
        except HydraException:
            override = None
        if override is None or not override.key_or_group:
            wrong = [*_unreadable(text, program, catalogue, arguments.multirun, as_written)]
            faults += wrong
            refused |= {text.partition("=")[0], *meant_by(wrong)}
            continue
        wrong = [*override_faults(program, catalogue, override, arguments.multirun, as_written)]
        faults += wrong
        if wrong:
            refused.add(override.key_or_group)
            refused |= meant_by(wrong)
        else:
            good.append(override)
    given = {override.key_or_group for override in good}
    grid, wrong_values = SweepFile("", Path(), {}, SweepNode()), set[str]()
    if "sweep" in given and program.name in SWEPT:
        name = next(str(override.value()) for override in good if override.key_or_group == "sweep")
        try:
            grid = read_sweep(name, catalogue)
        except ConfigError as error:
            faults += str(error).splitlines()
        faults += _grid_faults(grid, name, arguments.multirun)
        of_axes, wrong_values = axis_faults(program, grid, catalogue)
        faults += of_axes
    needs_dataset = "dataset" in groups_of(program.name, catalogue) and not {"experiment", "sweep"} & given
    stand_in = []
    if needs_dataset and "dataset" not in given:
        stand_in = [_STAND_IN]
        good = [override for override in good if not override.key_or_group.startswith("dataset.prepare.")]
        if not {"dataset", "experiment", "sweep"} & {*as_written, *refused}:
            faults.append(f"dataset= is required: one of {', '.join(sorted(catalogue.groups['dataset']))}")
    composer = Composer(program.name, program.schema, catalogue.search_path)
    axes = axes_of(grid, catalogue, [override.input_line or "" for override in good])
    for cell in itertools.islice(cells_of(replace(grid, node=SweepNode()), axes), _CELLS_CHECKED):
        if wrong_values & {*cell.overrides}:
            continue
        composed = composition_faults(composer, catalogue, good, [*cell.overrides, *stand_in])
        faults += [fault for fault in composed if not _follows(fault, refused)]
    if faults:
        raise ConfigError("\n".join(dict.fromkeys(faults)))
    return [*flags, *arguments.overrides]


def meant_by(faults: Iterable[str]) -> set[str]:
    """Return the keys that faults propose: these are meant, and so not missing."""
    found = {key for fault in faults for key in re.findall(r"([\w.]+)=", fault.partition("; ")[2])}
    return found.union(*(re.findall(r"[\w.]+", each.partition("did you mean")[2]) for each in faults))


def _follows(fault: str, refused: Iterable[str]) -> bool:
    """Return whether a fault speaks of a key that was given and refused: it is neither missing nor judged."""
    return any(re.search(rf"(?<![\w.]){re.escape(key)}=", fault) for key in refused)


def _grid_faults(grid: SweepFile, name: str, many: bool) -> Iterator[str]:
    """Yield why a sweep file cannot be run by Hydra's own sweeper as it was asked for."""
    submit = f"python -m hblm.sweep submit sweep={name}"
    if not many:
        yield f"sweep={name} names a grid, not one run; add -m, or write: {submit}"
    elif grid.beyond_hydra:
        said = " and ".join(f"sweep.{key}" for key in grid.beyond_hydra)
        yield f"sweep={name} has {said}, which -m cannot do; write: {submit}"


def axis_faults(program: Program, grid: SweepFile, catalogue: Catalogue) -> tuple[list[str], set[str]]:
    """Return what is wrong with a sweep file's axes, once and not in each cell; and the key=value of it."""
    found: list[str] = []
    wrong: set[str] = set()
    for axis in axes_of(grid, catalogue):
        values = [f"{axis.key}={text}" for text, _ in axis.values]
        for text in (f"{axis.key}={grid.params[axis.key]}", *values):
            faults = [*override_faults(program, catalogue, parse(text), True, grid.params)]
            if not faults:
                continue
            wrong.add(text)
            if text not in values or len(values) == 1:
                found += (f"{grid.file}: hydra.sweeper.params.{axis.key}: {fault}" for fault in faults)
    return found, wrong


def override_faults(
    program: Program,
    catalogue: Catalogue,
    override: Override,
    many: bool,
    given: Mapping[str, str],
    programs: Sequence[str] = (),
) -> Iterator[str]:
    """Yield what is wrong with one override.

    Args:
        program: whose key it is to be.
        catalogue: the options.
        override: one of the command line's.
        many: whether it may have several values.
        given: all of the command line: key -> value as it is written.
        programs: those whose keys may be meant; the program itself.
    """
    key, text = override.key_or_group, override.input_line or ""
    if key == "hydra" or key.startswith(("hydra.", "hydra/")):
        yield from _hydra_faults(override)
        return
    known = {leaf.name: leaf for leaf in leaves(program.schema)}
    groups = set(groups_of(program.name, catalogue))
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
        value = text.partition("=")[2]
        is_list = key in known and str(known[key].field.type).startswith("list")
        if is_list and not known[key].rules["one"]:
            yield f"{text} is not a list; write {shlex.quote(f'{key}=[{value}]')}"
            return
        together = f", or write {shlex.quote(f'{key}=[{value}]')} for all at once" if is_list else ""
        yield f"{text} names several values; add -m to run one after the other{together}"
        return
    if key in groups:
        data_dir = given.get("data_dir", "data")
        for value in values_of(override, catalogue):
            if isinstance(value, list) and value:
                yield f"{key}={plain(value)} is not one of {', '.join(sorted(catalogue.groups[key]))}" + (
                    _several(key, value, many)
                )
            elif not isinstance(value, str) or value not in catalogue.groups[key]:
                yield f"{key}={plain(value)} {no_option(key, str(value), program, catalogue, data_dir)}"
    elif key in known:
        yield from _value_faults(known[key], values_of(override, catalogue), many)
    elif key.rpartition(".")[0] not in (
        name for name, leaf in known.items() if isinstance(leaf.default, dict)
    ):
        value = text.partition("=")[2]
        datasets = given.get("dataset", "").split(",")
        hint = key_hint(key, value, programs or (program.name,), catalogue, datasets)
        yield f"{key}={value} is not a key{hint}"


def no_option(group: str, value: str, program: Program, catalogue: Catalogue, data_dir: str = "data") -> str:
    """Say that a group does not have an option, and what to write."""
    options = ", ".join(sorted(catalogue.groups[group]))
    return f"is not one of {options}{option_hint(group, value, program.name, catalogue, data_dir)}"


def _hydra_faults(override: Override) -> Iterator[str]:
    """Yield why a key of Hydra's own cannot be given; most can."""
    key, text = override.key_or_group, override.input_line or ""
    if ("/" in key or key == "hydra") and not isinstance(override.value(), (str, list, type(None))):
        yield f"{text}: the value is the name of an option of Hydra's"


def _several(key: str, value: Any, many: bool) -> str:
    """Say how several values are written, where a list or 1-5 was given for one; else ""."""
    how = "" if many else ", with -m"
    span = re.fullmatch(r"(\d+) ?(?:-|:|\.\.|to) ?(\d+)", value) if isinstance(value, str) else None
    if span:
        return (
            f"; several values are written {shlex.quote(f'{key}=range({span[1]},{int(span[2]) + 1})')}{how}"
        )
    if isinstance(value, list) and value:
        return f"; several values are written {key}={','.join(map(plain, value))}{how}"
    return ""


def _value_faults(leaf: Leaf, values: Iterable[Any], many: bool) -> Iterator[str]:
    for value in values:
        group = leaf.rules["option_of"]
        if group:
            yield f"{leaf.name}={plain(value)} is set by choosing the option; write {group}={plain(value)}"
            continue
        if isinstance(value, str) and "${" in value:
            continue  # an interpolation: judged by what it composes to
        _, why = read_leaf(leaf, value)
        if why:
            yield f"{leaf.name}={plain(value)} {why}{_several(leaf.name, value, many)}"


def composition_faults(
    composer: Composer, catalogue: Catalogue, overrides: list[Override], cell: list[str]
) -> Iterator[str]:
    """Yield what is wrong in the YAML files that a run's overrides select, and between keys."""
    judged = {override.key_or_group for override in overrides if "${" not in (override.input_line or "")}
    judged.discard(CHDIR)
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
    catalogue = Catalogue(arguments_of(program, argv)[0].config_dir)
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
