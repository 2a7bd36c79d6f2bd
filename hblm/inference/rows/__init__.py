"""Rows of texts to predict, from files, pipes and standard input; and rows of predictions."""
