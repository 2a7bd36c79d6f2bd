"""Grids as files, their ledger, and where cells run. No torch."""
