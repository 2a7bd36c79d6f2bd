"""The version, and which formulas of model and loss it computes."""

__version__ = "0.2.0"
# Results and checkpoints record it; 0.1 did not. Raised, with runs.SCHEMA_VERSION, when a formula changes.
FORMULAS = 2
COMPUTED_BY = {1: "0.1", 2: "0.2"}  # formulas -> the versions that compute them
