"""Hydra-configured sweeps for hierarchical text classification with bi-directional FiLM cascades."""

__version__ = "0.1.0"
