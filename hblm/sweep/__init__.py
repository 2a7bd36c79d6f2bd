"""Sweeps: plans of grids, the state of a sweep as plain files, and launchers. No torch."""
