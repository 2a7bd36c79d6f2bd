"""Command lines: arguments checked before Hydra starts, help, and how a program answers a fault."""
