"""Prepared datasets: written whole or not at all, verified when read, turned into batches."""
