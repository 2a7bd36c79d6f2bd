"""Training and scoring: set-up of a model, training loop, scores, processes."""
