"""Hydra-configured sweeps for hierarchical text classification with bi-directional FiLM cascades."""

import importlib
from typing import Any

from hblm.version import __version__ as __version__


def __getattr__(name: str) -> Any:
    """Import a name at its first use, so that importing the package loads neither torch nor pandas."""
    if name == "results":
        from hblm.tables.collect import results

        return results
    if name == "load":
        from hblm.inference.model import load

        return load
    if name == "api":
        return importlib.import_module("hblm.api")
    if name == "HBLMClassifier":
        from hblm.api.estimator import HBLMClassifier

        return HBLMClassifier
    raise AttributeError(f"module 'hblm' has no attribute {name!r}")
