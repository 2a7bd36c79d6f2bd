"""Options of a converter: a NamedTuple declares names, types and defaults; given values are checked."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hblm.config.schema import plain
from hblm.errors import ConfigError, nearest

Options = TypeVar("Options", bound=tuple[Any, ...])


def read_options(schema: type[Options], given: Mapping[str, Any], converter: str) -> Options:
    """Return the given options, and the defaults of the others.

    Args:
        schema: a NamedTuple of fields of type str, int, float, bool, Literal, list, or a union of these.
        given: the keys and values of dataset.prepare.
        converter: its name, for messages.

    Raises:
        ConfigError: all unknown names and wrong types, in one message.
    """
    hints = get_type_hints(schema)
    faults, values = [], {}
    for name, value in given.items():
        if name not in hints:
            faults.append(
                f"dataset.prepare.{name} is not an option of {converter}{nearest(str(name), hints)}; "
                f"it has {', '.join(hints)}"
            )
            continue
        if value == "":
            faults.append(
                f"dataset.prepare.{name}= is empty; a shell keeps > | ; for itself, so write "
                f"'dataset.prepare.{name}=\">\"' with both kinds of quotes"
            )
            continue
        values[name] = _fitted(hints[name], value)
        if values[name] is _MISFIT:
            close = nearest(str(value), get_args(hints[name])) if _is_literal(hints[name]) else ""
            faults.append(f"dataset.prepare.{name}={plain(value)} is not {_spelt(hints[name])}{close}")
    if faults:
        raise ConfigError("\n".join(faults))
    return schema(**values)


_MISFIT = object()


def _fitted(hint: Any, value: Any) -> Any:
    """Return the value in the hint's type, _MISFIT where it does not fit."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        fitted = (_fitted(part, value) for part in inner)
        return next((item for item in fitted if item is not _MISFIT), _MISFIT)
    if origin is Literal:
        return value if value in inner else _MISFIT
    if origin is list:
        items = [_fitted(inner[0], item) for item in value] if isinstance(value, list) else [_MISFIT]
        return _MISFIT if any(item is _MISFIT for item in items) else items
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is type(None):
        return None if value is None else _MISFIT
    return value if type(value) is hint else _MISFIT


def _is_literal(hint: Any) -> bool:
    return get_origin(hint) is Literal


def _spelt(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_spelt(part) for part in inner))
    if origin is Literal:
        return f"one of {', '.join(inner)}"
    if origin is list:
        return "a list such as [a,b]" if inner[0] is str else "a list of numbers"
    return "null" if hint is type(None) else names[hint]
