"""An encoder's config.json and tokenizer as files of a text classifier, for programs without hblm."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from hblm.encoders.model_files import CONFIG, TOKENIZER
from hblm.encoders.tokenizer import Tokenizer
from hblm.json_files import write_json

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")


def write_classifier_config(folder: Path, encoder: nn.Module, labels: Sequence[str]) -> None:
    """Write config.json: the encoder's, as a classifier of several labels a text."""
    config: Any = encoder.config
    values = json.loads(config.to_json_string())
    names = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.get(config.model_type)
    architecture = names if isinstance(names, str) else f"{type(encoder).__name__}ForSequenceClassification"
    for name in ("_name_or_path", "transformers_version"):
        values.pop(name, None)
    values |= {
        "architectures": [architecture],
        "model_type": config.model_type,
        "problem_type": "multi_label_classification",
        "id2label": {str(position): label for position, label in enumerate(labels)},
        "label2id": {label: position for position, label in enumerate(labels)},
    }
    write_json(folder / CONFIG, values)


def write_plain_tokenizer(folder: Path, tokenizer: Tokenizer, max_length: int) -> None:
    """Write tokenizer.json and tokenizer_config.json, with the class that every version of transformers has.

    Args:
        folder: where to write.
        tokenizer: a fast one.
        max_length: the tokens that a text is cut to, special tokens included.
    """
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_padding()
    backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    backend.save(str(folder / TOKENIZER))
    special = {name: str(getattr(tokenizer, name)) for name in _SPECIAL if getattr(tokenizer, name, None)}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "padding_side": "right",
        "truncation_side": tokenizer.truncation_side,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **special,
    }
    write_json(folder / "tokenizer_config.json", settings)


def first_tokens_kept(tokenizer: Tokenizer, max_length: int) -> int:
    """Return how many of the tokens of a cut text are its first ones; the others are its last ones.

    Special tokens at both ends are kept; the text between them is cut on the tokenizer's truncation side.
    """
    mask: list[int] = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    if 0 not in mask:
        return max_length
    before, after = mask.index(0), mask[::-1].index(0)
    return before if tokenizer.truncation_side == "left" else max_length - after
