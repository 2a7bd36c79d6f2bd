"""Files of a run: id and names, result, checkpoint, and the environment that made them."""
