"""Hydra-configured sweeps for hierarchical text classification with bi-directional FiLM cascades."""

from typing import Any

from hblm.version import __version__ as __version__


def __getattr__(name: str) -> Any:
    """Load what is asked for by name, so that importing the package loads neither torch nor pandas."""
    if name == "results":
        from hblm.tables.collect import results

        return results
    raise AttributeError(f"module 'hblm' has no attribute {name!r}")
