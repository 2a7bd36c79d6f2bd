"""Declaration of configuration keys, and conversion of a composed tree to a dataclass with all faults.

`key`, `option` and `group` declare the fields of a configuration's dataclass. `typed` makes the dataclass
from a tree of plain values, which Hydra composes or a file contains, and collects every fault.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hblm.config.groups import shipped_options
from hblm.errors import ConfigError, close_names, did_you_mean, nearest

T = TypeVar("T")
_OR_NULL = " or null"
_TEXT = "a text"
LARGEST = 2**31 - 1  # bound of a whole number without one of its own; every library accepts it


def key(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    open_low: bool = False,
    choices: tuple[str, ...] = (),
    identity: bool = True,
    by_content: bool = False,
    acts: Mapping[str, tuple[Any, ...]] | None = None,
    inert: Mapping[str, tuple[Any, ...]] | None = None,
    option_of: str | None = None,
    one: bool = False,
) -> Any:
    """Declare one configuration key.

    Args:
        default: the schema's default; a list or dict is copied for each configuration.
        doc: its meaning, for --help.
        low, high, open_low: the closed range, or half-open where `low` itself is not allowed.
        choices: the only values allowed.
        identity: False for a key that cannot change a run's numbers and so stays out of its run id.
        by_content: True for a key that names weights; their content is in the run id, the name is not.
        acts: group or key -> the options or values with which this key acts. Without one of them it changes
            no number, stays out of the run id, and is not passed to the option's class.
        inert: group or key -> the options or values with which this key does not act; with all others, those
            of a new option included, it does.
        option_of: the group whose chosen option this key carries; it is set by choosing the option only.
        one: a list that may be given as its only item.
    """
    metadata = {
        "doc": doc,
        "low": low,
        "high": high,
        "open_low": open_low,
        "choices": choices,
        "identity": identity,
        "by_content": by_content,
        "acts": acts or {},
        "inert": inert or {},
        "option_of": option_of,
        "one": one,
    }
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def option(group: str, default: str, **rules: Any) -> Any:
    """Declare the key that carries a group's chosen option: the name of one of the group's files in conf/."""
    return key(default, "the option", choices=shipped_options(group), option_of=group, **rules)


def group(schema: type, doc: str) -> Any:
    """Declare a group: a node whose keys one option, a YAML file, sets together."""
    return field(default_factory=schema, metadata={"doc": doc})


@dataclass(frozen=True)
class Fault:
    """One fault of a configuration: the key, the value, and the reason."""

    key: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.key}={plain(self.value)} {self.reason}"


def plain(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


class Leaf(NamedTuple):
    """One key of a schema: its dotted name, its dataclass, its field there."""

    name: str
    owner: type
    field: dataclasses.Field[Any]

    @property
    def default(self) -> Any:
        """The schema's default."""
        make = self.field.default_factory
        return make() if make is not dataclasses.MISSING else self.field.default

    @property
    def rules(self) -> Mapping[str, Any]:
        """The arguments of `key`, by name."""
        return self.field.metadata


def nested_schema(fld: dataclasses.Field[Any]) -> type | None:
    """Return the dataclass of a group, None for a plain key."""
    made = fld.default_factory
    return made if isinstance(made, type) and dataclasses.is_dataclass(made) else None


@functools.cache
def leaves(schema: type, prefix: str = "") -> tuple[Leaf, ...]:
    """Return every key of a schema."""
    keys: list[Leaf] = []
    for fld in dataclasses.fields(schema):
        nested = nested_schema(fld)
        keys += leaves(nested, f"{prefix}{fld.name}.") if nested else [Leaf(prefix + fld.name, schema, fld)]
    return tuple(keys)


def defaults(schema: type) -> dict[str, Any]:
    """Return the default of every key, in nested groups; interpolations stay as they are written."""
    return {
        fld.name: defaults(nested) if (nested := nested_schema(fld)) else Leaf(fld.name, schema, fld).default
        for fld in dataclasses.fields(schema)
    }


def typed(tree: Mapping[str, Any], schema: type[T]) -> T:
    """Return a composed tree of plain values as the schema's dataclass.

    Raises:
        ConfigError: all unknown keys, wrong types, values out of range and conflicts, in one message.
    """
    config, faults = read_tree(tree, schema)
    problems = [str(fault) for fault in faults] or (
        config.conflicts() if hasattr(config, "conflicts") else []
    )
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def read_tree(tree: Mapping[str, Any], schema: type[T], prefix: str = "") -> tuple[T, list[Fault]]:
    """Return the typed tree, defaults where a value is faulty or absent, and the faults."""
    values, faults = read_values(tree, schema, prefix)
    return build(values, schema), faults


def build(values: Mapping[str, Any], schema: type[T]) -> T:
    """Return the dataclass of checked values, defaults where a value is absent."""
    nested = {fld.name: nested_schema(fld) for fld in dataclasses.fields(schema)}  # type: ignore[arg-type]
    return schema(
        **{name: build(value, inner) if (inner := nested[name]) else value for name, value in values.items()}
    )


def read_values(
    tree: Mapping[str, Any], schema: type, prefix: str = ""
) -> tuple[dict[str, Any], list[Fault]]:
    """Return the values that fit their keys, in nested groups, and the faults of all others."""
    if not isinstance(tree, Mapping):
        return {}, [Fault(prefix.rstrip(".") or "configuration", tree, "is not a group of keys")]
    fields = {fld.name: fld for fld in dataclasses.fields(schema)}
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, value in tree.items():
        full = f"{prefix}{name}"
        if name not in fields:
            close = did_you_mean(prefix + each for each in close_names(str(name), fields))
            faults.append(Fault(full, value, f"is not a key{close}"))
            continue
        nested = nested_schema(fields[name])
        if nested:
            if isinstance(value, Mapping):
                values[name], inner = read_values(value, nested, f"{full}.")
                faults += inner
            else:
                faults.append(
                    Fault(full, value, "is a group of keys: choose an option or set a key under it")
                )
            continue
        checked, why = read_leaf(Leaf(full, schema, fields[name]), value)
        if why:
            faults.append(Fault(full, value, why))
        else:
            values[name] = checked
    return values, faults


def read_leaf(leaf: Leaf, value: Any) -> tuple[Any, str]:
    """Return one value in its key's type, and the reason why it does not fit ("" where it fits)."""
    if value == "???":
        return None, "is required"
    if leaf.rules["one"] and value is not None and not isinstance(value, (list, dict)):
        value = [value]
    if isinstance(value, numbers.Number) and hasattr(value, "item"):  # a number of numpy
        value = value.item()
    (node, hints), name = _checker(leaf.owner), leaf.field.name
    kind = _kind(hints[name])
    if leaf.rules["one"]:
        kind = f"a text, or {kind}"
    if value == "None" and kind.endswith(_OR_NULL):
        return None, f"is a text; write {leaf.name}=null"
    try:
        if kind.startswith("true or false") and not isinstance(value, (bool, str, type(None))):
            raise ValueError("numbers are not truth values here")
        node[name] = value
        # The interpolations of a composed tree are resolved already. What still looks like one is text. So is
        # everything in a stored configuration, so that no file can read the environment.
        literal = OmegaConf.is_interpolation(node, name)
        if literal and not kind.startswith(_TEXT):
            raise ValueError("an interpolation is not resolved here")
        checked = value if literal else node[name]
    except (OmegaConfBaseException, ValueError, OverflowError, RecursionError):
        return None, f"is not {_wanted(kind, leaf.rules)}"
    checked = OmegaConf.to_container(checked, resolve=False) if OmegaConf.is_config(checked) else checked
    return checked, _out_of_range(leaf.rules, checked, kind)


@functools.cache
def _checker(owner: type) -> tuple[Any, dict[str, Any]]:
    """Return a node that takes only values of the right type, and the types; made once for all cells."""
    return OmegaConf.structured(owner), get_type_hints(owner)


def _out_of_range(rules: Mapping[str, Any], value: Any, kind: str) -> str:
    for item in value if isinstance(value, list) else [value]:
        if item is None:
            continue
        if rules["choices"] and item not in rules["choices"]:
            close = nearest(str(item), rules["choices"])
            if isinstance(value, list):
                return f"holds {item}, which is not one of {', '.join(rules['choices'])}{close}"
            return f"is not one of {', '.join(rules['choices'])}{close}"
        if isinstance(item, str) and not item.strip():
            return f"is empty; write {kind}"
        if isinstance(item, str) and "\0" in item:
            return "holds a NUL character"
        if isinstance(item, float) and not math.isfinite(item):
            return f"is not {_wanted(kind, rules)}"
        low, high = rules["low"], rules["high"]
        if high is None and type(item) is int and abs(item) > LARGEST:
            return f"is out of range; write {_wanted(kind, {**rules, 'high': LARGEST})}"
        if low is not None and (item < low or (rules["open_low"] and item == low)):
            return f"is out of range; write {_wanted(kind, rules)}"
        if high is not None and item > high:
            return f"is out of range; write {_wanted(kind, rules)}"
    return ""


def _wanted(kind: str, rules: Mapping[str, Any]) -> str:
    """Return the kind of value and its range, then null where it is allowed."""
    span = _range(rules)
    if span and kind.endswith(_OR_NULL):
        return f"{kind.removesuffix(_OR_NULL)}{span},{_OR_NULL}"
    return f"{kind}{span}"


def _range(rules: Mapping[str, Any]) -> str:
    low, high, open_low = rules["low"], rules["high"], rules["open_low"]
    if rules["choices"]:
        return f" out of {', '.join(rules['choices'])}"
    if low is None:
        return ""
    if high is None:
        return f" above {low}" if open_low else f" of at least {low}"
    return f" above {low} and at most {high}" if open_low else f" between {low} and {high}"


def _kind(hint: Any) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: _TEXT,
        list[str]: "a list such as [a,b]",
        list[Any]: "a list",
        dict[str, Any]: "a group of keys",
    }
    inner = [part for part in getattr(hint, "__args__", ()) if part is not type(None)]
    if hint not in names and len(inner) == 1:
        return f"{names[inner[0]]}{_OR_NULL}"
    return names[hint]
