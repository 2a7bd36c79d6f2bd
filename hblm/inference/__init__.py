"""The use of trained checkpoints: evaluation, with every setting restored from them."""
