"""Command lines: flags and arguments, their check before Hydra starts, help, and error messages."""
