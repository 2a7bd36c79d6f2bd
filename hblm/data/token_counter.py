"""Counting the tokens of texts for reports, without torch where possible and without a download."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from hblm.config.train import Encoder
from hblm.encoders.pretrained import MINILM, Pretrained, locate, tokenizer_file

Count = Callable[[Sequence[str]], Sequence[int]]  # the number of tokens of each text, special ones included


@dataclass(frozen=True)
class TokenCounter:
    """Counts the tokens of texts.

    Attributes:
        model: the name of the model whose tokenizer counts.
        max_length: the number of tokens that training truncates a document to.
        count: returns the number of tokens of each text; None: there is no tokenizer on this machine.
        why_not: why there is none.
    """

    model: str
    max_length: int
    count: Count | None
    why_not: str = ""


def counter_of(encoder: Encoder) -> TokenCounter:
    """Return a counter of the encoder's tokens; if they are not on this machine, of MiniLM's tokens."""
    wanted = locate(encoder.model_name, encoder.revision)
    count = load_count(wanted)
    if count is not None:
        return TokenCounter(encoder.model_name, encoder.max_length, count)
    why = "is not on this machine" if wanted.folder is None else "cannot be loaded"
    substitute = locate(MINILM)
    count = load_count(substitute)
    if count is None:
        return TokenCounter(encoder.model_name, encoder.max_length, None, f"it {why}; encoder=minilm may be")
    name = f"{substitute.tag}, in place of {encoder.model_name}, which {why}"
    return TokenCounter(name, encoder.max_length, count)


def load_count(source: Pretrained) -> Count | None:
    """Return a function that counts tokens with the tokenizer of a model; None if it cannot be loaded.

    A tokenizer.json is read by the tokenizers library alone, which saves the seconds of loading torch.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    file = tokenizer_file(source)
    try:
        if file is not None:
            backend = Tokenizer.from_file(str(file))
        elif source.is_tiny or source.folder is not None:
            from hblm.encoders.tokenizer import load_tokenizer

            backend = load_tokenizer(source).backend_tokenizer
        else:
            return None
    except Exception:  # the library raises nothing narrower for a damaged file
        return None
    backend.no_truncation()
    backend.no_padding()
    return lambda texts: [len(encoding.ids) for encoding in backend.encode_batch_fast(list(texts))]
