"""What a run leaves behind: its id and file names, result, checkpoint, and the environment that made it."""
