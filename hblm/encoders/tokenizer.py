"""Tokenizers of `transformers`: loading and checks; and one line for each error of loading."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from logging import ERROR
from typing import Any

import transformers
from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors
from transformers.utils import logging

from hblm.encoders.pretrained import Pretrained, explain
from hblm.errors import ConfigError, HblmError

Tokenizer = transformers.PreTrainedTokenizerBase


def load_tokenizer(source: Pretrained) -> Tokenizer:
    """Load the encoder's fast tokenizer, with a padding token (the end of text where it has none).

    Raises:
        ConfigError: it cannot be loaded, is not a fast one, is empty, or has no token to pad with.
    """
    if source.is_tiny:
        return tiny_tokenizer()
    with quiet_libraries(), load_errors(source, "tokenizer (tokenizer.json, tokenizer_config.json)"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            path_or_id(source), revision=source.revision, trust_remote_code=False
        )
    return checked(tokenizer, source.model_name)


def checked(tokenizer: Any, name: str) -> Tokenizer:
    """Return the tokenizer with a padding token.

    Raises:
        ConfigError: it is slow or empty, or has no token to pad with.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            f"encoder.model_name={name}: {type(tokenizer).__name__} is not a fast tokenizer "
            "(tokenizer.json); give an encoder that has one"
        )
    # without files transformers makes a tokenizer that has only special tokens
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise ConfigError(
            f"encoder.model_name={name}: no tokenizer beside its configuration; give a folder that also "
            "holds the tokenizer's files, such as tokenizer.json"
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise ConfigError(
                f"encoder.model_name={name}: its tokenizer has neither a padding nor an end token; set "
                "pad_token in its tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked; a new token would need a new row
    fast: Tokenizer = tokenizer
    return fast


def path_or_id(source: Pretrained) -> str:
    """Return the name that transformers loads an encoder by: a folder or a hub id."""
    return source.model_name if source.folder is None else str(source.folder)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence reports and bars of loading in the block; a download keeps its bar."""
    bars: Any = logging  # untyped
    levels = (logging.get_verbosity(), hub_logging.get_verbosity())
    shown, hub_shown = bars.is_progress_bar_enabled(), not are_progress_bars_disabled()
    logging.set_verbosity(ERROR)
    hub_logging.set_verbosity(ERROR)
    bars.disable_progress_bar()
    if hub_shown:
        enable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(levels[0])
        hub_logging.set_verbosity(levels[1])
        if shown:
            bars.enable_progress_bar()


@contextlib.contextmanager
def load_errors(source: Pretrained, what: str) -> Iterator[None]:
    """Raise a ConfigError of one line for any exception in the block.

    The block calls only transformers and safetensors. A damaged file makes them raise exceptions of any type,
    such as AttributeError, TypeError and ZeroDivisionError; tokenizers raises a plain Exception.

    Raises:
        ConfigError: what cannot be loaded, and what to do.
    """
    try:
        yield
    except HblmError:
        raise
    except Exception as error:
        raise ConfigError(explain(source, what, error)) from error


def tiny_tokenizer() -> Tokenizer:
    """Return a tokenizer of bytes: every text has tokens, and nothing is downloaded."""
    symbols = ["[PAD]", "[CLS]", "[SEP]", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {symbol: position for position, symbol in enumerate(symbols)}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    maker: Any = transformers.PreTrainedTokenizerFast
    tokenizer: Tokenizer = maker(
        tokenizer_object=backend,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=512,
    )
    return tokenizer
