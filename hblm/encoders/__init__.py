"""Pretrained encoders and tokenizers: where they lie, what identifies them, how they are loaded."""
