"""Python values as overrides, and the checked configuration of a program: the same as on a command line."""

from __future__ import annotations

import math
import numbers
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hblm.cli.check import check
from hblm.cli.programs import Program
from hblm.config.compose import Composer
from hblm.config.groups import OptionGroups
from hblm.config.overrides import at_home, quoted
from hblm.errors import ConfigError

_BARE = re.compile(r"[A-Za-z_./][\w./:@+-]*", re.ASCII)
_NOT_TEXTS = {"null", "true", "false", "nan", "inf"}  # which Hydra reads as other values, in any case
_COMPOSING = threading.Lock()  # Hydra keeps the configuration that it composes in one global place


def words_of(
    overrides: Sequence[str], settings: Mapping[str, Any], text_of: Callable[[str, Any], str] | None = None
) -> list[str]:
    """Return overrides as they are given, then those of keyword arguments.

    Args:
        overrides: key=value, as on a command line.
        settings: options of groups and values of keys. A mapping sets several keys below its name. `dataset`
            may be a prepared folder: a path, or an object with one as `path`.
        text_of: returns the text of a value by its key; None: `text_of_value`, whatever the key.

    Raises:
        ConfigError: an override is not a text of the form key=value, or a value has no text.
    """
    for text in overrides:
        if not isinstance(text, str) or text.startswith("-"):
            raise ConfigError(f"{text!r} is no override; write 'key=value', or keyword arguments")
    words = at_home(list(overrides))
    for key, value in settings.items():
        if key == "dataset" and (folder := _folder_of(value)) is not None:
            words += ["dataset=custom", f"dataset.path={text_of_value(str(folder))}"]
        else:
            words += _assignments(key, value, text_of or (lambda _, given: text_of_value(given)))
    return words


def _assignments(key: str, value: Any, text_of: Callable[[str, Any], str]) -> list[str]:
    """Return the overrides of one keyword argument."""
    if isinstance(value, Mapping):
        return [
            word for name, inner in value.items() for word in _assignments(f"{key}.{name}", inner, text_of)
        ]
    try:
        return [f"{key}={text_of(key, value)}"]
    except TypeError as error:
        raise ConfigError(f"{key}={value!r:.100} {error}") from None


def text_of_value(value: Any) -> str:
    """Return a value as Hydra's parser reads it: an integer as an integer, a text as a text.

    Raises:
        TypeError: it has no such form; the message gives the reason without the value.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, os.PathLike):
        value = str(Path(os.fspath(value)).expanduser())
    if isinstance(value, str):
        is_bare = _BARE.fullmatch(value) and value.casefold() not in _NOT_TEXTS
        return value if is_bare else quoted(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(text_of_value, value))}]"
    if hasattr(value, "item") and not isinstance(value, numbers.Number):  # a tensor or array of one number
        value = value.item()
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        if not math.isfinite(value):
            raise TypeError("is not a finite number")
        return repr(float(value))
    raise TypeError(f"is a {type(value).__name__}; write a text, a number, a bool, None, or a list of these")


def _folder_of(dataset: Any) -> Path | None:
    """Return the prepared folder that is given as a dataset; None for the name of an option, or a mapping."""
    given = dataset if isinstance(dataset, os.PathLike) else getattr(dataset, "path", None)
    return None if given is None else Path(os.fspath(given)).expanduser()


def configuration(
    program: Program,
    words: Sequence[str],
    *,
    config_dir: str | Path | None = None,
    known_faults: Sequence[str] = (),
) -> Any:
    """Return the typed configuration of a program; it is checked as the program's command line is.

    Args:
        program: the program.
        words: key=value arguments.
        config_dir: a folder of the user's own options.
        known_faults: earlier faults, for the same message.

    Raises:
        ConfigError: all faults, a line each.
    """
    flags = [] if config_dir is None else ["--config-dir", str(Path(config_dir).expanduser())]
    with _COMPOSING:
        search_path = OptionGroups(flags[-1] if flags else None).search_path
        composer = Composer(program.name, program.schema, search_path)
        check(program, [*flags, *words], known_faults, composer)
        return composer.compose(words).config
