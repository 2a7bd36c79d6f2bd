"""The version, and which formulas of model and loss it computes."""

__version__ = "0.2.0"
# In results and checkpoints since 0.2. Raise it, and runs.paths.SCHEMA_VERSION, when a formula changes.
FORMULAS = 2
COMPUTED_BY = {1: "0.1", 2: "0.2"}  # formulas -> version of hblm with these formulas
