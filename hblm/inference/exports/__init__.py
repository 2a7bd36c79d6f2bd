"""Checkpoints for other programs: ONNX folders, and folders for a model hub."""
