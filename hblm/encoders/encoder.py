"""Encoders of `transformers`: loading, checks of size, and storing beside a checkpoint.

An encoder is in float32 and as `transformers` builds it, with three exceptions: the pooler is removed (its
output is not used, so its parameters would get no gradient), dropout masks come from `fast_dropout.py`, and
`tiny` is defined here.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import numbers
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

from hblm.encoders.fast_dropout import attend, replace_dropout
from hblm.encoders.model_files import acting_config, weight_shapes
from hblm.encoders.pretrained import Pretrained
from hblm.encoders.size_check import no_larger, require_as_many_layers
from hblm.encoders.tokenizer import (
    Tokenizer,
    load_errors,
    load_tokenizer,
    path_or_id,
    quiet_libraries,
    tiny_tokenizer,
)
from hblm.errors import ConfigError

_ATTENTION = "hblm_lane_dropout"
_TABLES = ("position_embeddings", "pos_embeddings", "embed_positions", "wpe")


def load_encoder(
    source: Pretrained, *, dropout: float | None, gradient_checkpointing: bool, max_length: int | None = None
) -> nn.Module:
    """Load an encoder in float32, without pooler, in eval mode.

    `forward(input_ids=, attention_mask=)` returns an object with `last_hidden_state`. The weights of tiny are
    drawn from torch's global generator. So are those of a checkpoint's encoder, which are replaced when the
    weights of the whole model are loaded.

    Args:
        source: its files.
        dropout: sets all dropout probabilities; None keeps those of its config.json.
        gradient_checkpointing: recompute the forward pass for the gradient, to save memory.
        max_length: documents are truncated to this many tokens; None is not checked.

    Raises:
        ConfigError: it cannot be loaded, is not an encoder, has weights of other shapes, does not support an
            option, or cannot take `max_length` tokens.
    """
    if source.is_tiny:
        config = _tiny_config()
        _set_dropout(config, dropout, source)
        encoder = _from_config(config)
    elif source.weights is not None:
        encoder = _architecture(source, dropout)
    else:
        encoder = _load_weights(source, dropout)
    encoder_width(encoder)
    _finish(encoder)
    if max_length is not None:
        check_max_length(encoder, max_length)
    if gradient_checkpointing:
        if not encoder.supports_gradient_checkpointing:
            raise ConfigError(
                f"encoder.gradient_checkpointing=true: {type(encoder).__name__} ({source.model_name}) does "
                "not support it; set it to false"
            )
        newer = getattr(encoder, "activation_checkpointing_enable", None)  # of newer versions of transformers
        (newer or encoder.gradient_checkpointing_enable)({"use_reentrant": False})
    model: nn.Module = encoder.eval()
    return model


def save_encoder(folder: Path, encoder: nn.Module, tokenizer: Tokenizer) -> None:
    """Write config.json and the tokenizer's files, without weights."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # settings of the last call, which would be stored
    backend.no_padding()
    with quiet_libraries():
        encoder.config.save_pretrained(folder)  # type: ignore[union-attr, operator]
        tokenizer.save_pretrained(folder)


def encoder_from_folder(folder: Path, weights: Path | None = None) -> tuple[nn.Module, Tokenizer]:
    """Load the files of `save_encoder`: the architecture, with random weights, and the tokenizer.

    Args:
        folder: with config.json and the tokenizer's files.
        weights: the file of the whole model's weights; a far larger architecture is refused.

    Raises:
        ConfigError: files are missing or damaged.
    """
    source = Pretrained(str(folder), None, folder, weights)
    encoder = _architecture(source, dropout=None)
    _finish(encoder)
    return encoder.eval(), load_tokenizer(source)


def encoder_width(encoder: nn.Module) -> int:
    """Return D, the width of the hidden states."""
    width = getattr(encoder.config, "hidden_size", None)
    if not isinstance(width, int):
        raise ConfigError(
            f"encoder.model_name: {type(encoder).__name__} has no hidden_size, so it is not a text encoder; "
            "give a model such as FacebookAI/roberta-large"
        )
    return width


def embedding_rows(encoder: Any) -> int | None:
    """Return the number of rows of the token embedding; None for an encoder without one."""
    try:
        table = encoder.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # models of images or characters
        return None
    weight = getattr(table, "weight", None)
    return len(weight) if isinstance(weight, torch.Tensor) else None


def frozen_encoder_hash(encoder: nn.Module) -> str:
    """Return a sha256 that identifies a loaded encoder's function in eval mode.

    It is of names, types, shapes and bytes of the tensors, and of the configuration without the keys that are
    used in training only or not at all.
    """
    config: Any = encoder.config
    values = acting_config(json.loads(config.to_json_string(use_diff=False)))
    for name in (*_dropout_names(config), "gradient_checkpointing"):
        values.pop(name, None)
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def max_positions(encoder: nn.Module) -> int | None:
    """Return the maximum number of tokens of a document; None for no limit.

    A table of positions is a hard limit; RoBERTa's starts after its padding index, so that 514 rows are for
    512 tokens. Rotary positions are limited to the length of training; relative distances are not limited.
    """
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _TABLES:
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - skipped - int(getattr(module, "offset", 0))
    trained = getattr(encoder.config, "max_position_embeddings", None)
    if not isinstance(trained, int) or trained <= 0 or getattr(encoder.config, "relative_attention", False):
        return None
    return trained


def check_max_length(encoder: nn.Module, max_length: int) -> None:
    """Refuse more tokens than the encoder can take.

    Raises:
        ConfigError: with both numbers.
    """
    limit = max_positions(encoder)
    if limit is not None and max_length > limit:
        raise ConfigError(
            f"encoder.max_length={max_length} is more than {type(encoder).__name__} can hold: {limit} "
            f"tokens; write encoder.max_length={limit}"
        )


def _from_config(config: Any) -> Any:
    return _auto_class(config).from_config(config, dtype=torch.float32)


def _auto_class(config: Any) -> Any:
    """Return the class of transformers that builds an encoder without its decoder, as for T5."""
    encoder_only: Any = MODEL_FOR_TEXT_ENCODING_MAPPING.get(type(config), None)
    has_class = encoder_only is not None and encoder_only.__name__.endswith("EncoderModel")
    return transformers.AutoModelForTextEncoding if has_class else transformers.AutoModel


def _architecture(source: Pretrained, dropout: float | None) -> Any:
    """Return the encoder of a folder's config.json, with random weights."""
    with quiet_libraries(), load_errors(source, "weights"):
        shapes = weight_shapes(source.folder, source.weights) if source.weights else None
    require_as_many_layers(source, shapes)
    with quiet_libraries(), load_errors(source, "config.json"):
        config = transformers.AutoConfig.from_pretrained(
            path_or_id(source), trust_remote_code=False, local_files_only=True
        )
    _set_dropout(config, dropout, source)
    with quiet_libraries(), load_errors(source, "configuration"):
        if shapes is not None:
            with no_larger(source, shapes), torch.device("meta"):  # where tensors take no memory
                _from_config(config)
        return _from_config(config)


def _load_weights(source: Pretrained, dropout: float | None) -> Any:
    """Load configuration, then weights, so that nothing is downloaded for an invalid configuration."""
    options: dict[str, Any] = {"revision": source.revision, "trust_remote_code": False}
    with quiet_libraries(), load_errors(source, "weights"):
        shapes = weight_shapes(source.folder, source.weights)
    require_as_many_layers(source, shapes)
    with quiet_libraries(), load_errors(source, "config.json"):
        config = transformers.AutoConfig.from_pretrained(path_or_id(source), **options)
    auto_class = _auto_class(config)
    if config.is_encoder_decoder and auto_class is transformers.AutoModel:
        raise ConfigError(
            f"encoder.model_name={source.model_name} is an encoder-decoder ({config.model_type}), which "
            "needs a decoder's input; give an encoder such as FacebookAI/roberta-large"
        )
    _set_dropout(config, dropout, source)
    with quiet_libraries(), load_errors(source, "encoder"), no_larger(source, shapes):
        encoder, report = auto_class.from_pretrained(
            path_or_id(source),
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are refused below, with their names
            output_loading_info=True,
            **options,
        )
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        named = "; ".join(
            f"{name} is {tuple(has)}, needed {tuple(needs)}" for name, has, needs in mismatched[:3]
        )
        raise ConfigError(
            f"encoder.model_name={source.model_name}: {len(mismatched)} of its weights have other shapes "
            f"than config.json says: {named}; are both of the same model?"
        )
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ConfigError(
            f"encoder.model_name={source.model_name}: its weights lack {len(missing)} that the model needs, "
            f"such as {', '.join(missing[:3])}, which would start at random; are config.json and weights of "
            "the same model?"
        )
    not_finite = [name for name, weight in encoder.named_parameters() if not weight.isfinite().all()]
    if not_finite:
        raise ConfigError(
            f"encoder.model_name={source.model_name}: {len(not_finite)} of its weights hold values that "
            f"are not finite numbers, such as {', '.join(not_finite[:3])}; copy the model again"
        )
    return encoder


def _set_dropout(config: Any, dropout: float | None, source: Pretrained) -> None:
    """Set all dropout probabilities of the configuration, whose names differ by model.

    Raises:
        ConfigError: it has none, and the value is above 0.
    """
    if dropout is None:
        return
    names = _dropout_names(config)
    if not names and dropout > 0:
        raise ConfigError(
            f"encoder.dropout={dropout}: {source.model_name} ({config.model_type}) has no dropout to set; "
            "write encoder.dropout=null"
        )
    for name in names:
        setattr(config, name, dropout)


def _dropout_names(config: Any) -> list[str]:
    return [
        name
        for name, value in config.to_dict().items()
        if ("dropout" in name or name.endswith("_pdrop"))
        and isinstance(value, numbers.Real)
        and not isinstance(value, bool)
    ]


def _finish(encoder: Any) -> None:
    """Remove the pooler, and replace dropout by the fast one."""
    if getattr(encoder, "pooler", None) is not None:
        # add_pooling_layer=False gives None; models without that option always call their pooler
        has_option = "add_pooling_layer" in inspect.signature(type(encoder).__init__).parameters
        encoder.pooler = None if has_option else nn.Identity()
    replace_dropout(encoder)
    if encoder.config._attn_implementation == "sdpa":
        encoder.set_attn_implementation(_ATTENTION)


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Compute sdpa, or on a CPU plain attention with dropout by `attend`."""
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    plain = (
        query.device.type == "cpu"
        and dropout > 0
        and query.shape == key.shape == value.shape
        and (attention_mask.dtype == torch.bool if attention_mask is not None else not causal)
        and not any(kwargs.get(name) is not None for name in ("position_bias", "cache", "softcap"))
    )
    if not plain:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs
        )
        return output
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    attended = attend(query, key, value, attention_mask, p=dropout, scale=scale)
    return attended.transpose(1, 2).contiguous(), None


transformers.AttentionInterface.register(_ATTENTION, _attention)


AttentionMaskInterface.register(_ATTENTION, sdpa_mask)


def _tiny_config() -> transformers.BertConfig:
    return transformers.BertConfig(
        vocab_size=len(tiny_tokenizer()),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=512,
        type_vocab_size=1,
    )
