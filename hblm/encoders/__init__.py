"""Pretrained encoders and tokenizers: their files, identity and loading."""
