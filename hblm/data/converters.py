"""Converter scripts of datasets/, loaded by path: each converts the raw download of one dataset."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hblm
from hblm.console import StartTask
from hblm.data.writer import Conversion
from hblm.errors import ConfigError
from hblm.files import unfit_as_name

Converter = Callable[["Path | None", Mapping[str, Any], Path, StartTask], Conversion]


def load_converter(name: str) -> Converter:
    """Return the function `convert` of datasets/<name>.py.

    Raises:
        ConfigError: there is no such script.
    """
    convert: Converter = load_script(name).convert
    return convert


@functools.cache
def load_script(name: str) -> Any:
    """Return the module datasets/<name>.py; as a package, its folder would hide Hugging Face's `datasets`.

    Raises:
        ConfigError: there is no such script.
    """
    if why := unfit_as_name(name):  # the name may come from a file
        raise ConfigError(f"dataset.converter={name!r} {why}; write the name of a script in datasets/")
    package = Path(hblm.__file__).resolve().parent
    candidates = (package / "datasets" / f"{name}.py", package.parent / "datasets" / f"{name}.py")
    script = next((path for path in candidates if path.is_file()), None)
    if script is None:
        raise ConfigError(f"dataset.converter={name}: there is no datasets/{name}.py")
    spec = importlib.util.spec_from_file_location(f"hblm_converter_{name}", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # typing.get_type_hints looks up the types of its options there
    spec.loader.exec_module(module)
    return module
