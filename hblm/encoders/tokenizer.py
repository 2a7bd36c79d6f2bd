"""Tokenizers of `transformers`: loaded and checked."""

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
        ConfigError: not to be had, or not a fast one.
    """
    if source.is_tiny:
        return tiny_tokenizer()
    with quiet_libraries(), load_errors(source, "tokenizer (tokenizer.json, tokenizer_config.json)"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            path_or_id(source), revision=source.revision, trust_remote_code=False
        )
    return _ready(tokenizer, source.model_name)


def _ready(tokenizer: Any, name: str) -> Tokenizer:
    """Refuse a slow or empty tokenizer, and give it something to pad with."""
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            f"encoder.model_name={name}: {type(tokenizer).__name__} is not a fast tokenizer "
            "(tokenizer.json); give an encoder that has one"
        )
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):  # transformers invents such a one
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
        tokenizer.pad_token = tokenizer.eos_token  # masked, and no new row in the embedding
    checked: Tokenizer = tokenizer
    return checked


def path_or_id(source: Pretrained) -> str:
    return source.model_name if source.folder is None else str(source.folder)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence loading reports and bars for a while; a download keeps its bar."""
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
    """Turn what libraries raise while they read an encoder's files into one line that says what to do.

    Only calls of transformers and safetensors stand within. What they raise of a damaged file may be of any
    type: AttributeError, TypeError and ZeroDivisionError among others, of tokenizers a plain Exception.
    """
    try:
        yield
    except HblmError:
        raise
    except Exception as error:
        raise ConfigError(explain(source, what, error)) from error


def tiny_tokenizer() -> Tokenizer:
    """Build a tokenizer whose tokens are bytes, so that nothing is unknown and nothing is downloaded."""
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
