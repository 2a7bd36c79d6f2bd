"""Where the cells of a sweep run: one file a launcher."""
