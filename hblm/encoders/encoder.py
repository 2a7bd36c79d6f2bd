"""Encoders and tokenizers of `transformers`: loaded, checked, and kept beside a checkpoint.

Everything is float32 in the way `transformers` built it, but for three things: the pooler goes (nothing reads
it, so its parameters would never get a gradient), dropout is drawn by `fast_dropout.py`, and `tiny` is ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import math
import numbers
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

from hblm.encoders.fast_dropout import attend, replace_dropout
from hblm.encoders.pretrained import Pretrained, acting_config, weight_shapes
from hblm.encoders.tokenizer import (
    Tokenizer,
    load_errors,
    load_tokenizer,
    path_or_id,
    quiet_libraries,
    tiny_tokenizer,
)
from hblm.errors import ConfigError

Shapes = Mapping[str, tuple[int, ...]]

# A model may have more parameters than its files have numbers: the pooler, tied weights, packed integers.
_LARGER = 16


_ATTENTION = "hblm_lane_dropout"


_TABLES = ("position_embeddings", "pos_embeddings", "embed_positions", "wpe")


def load_encoder(
    source: Pretrained, *, dropout: float | None, gradient_checkpointing: bool, max_length: int | None = None
) -> nn.Module:
    """Load an encoder in float32, without pooler, in eval mode.

    `forward(input_ids=, attention_mask=)` returns an object with `last_hidden_state`. The weights of tiny
    come from torch's global generator, and so do those of a checkpoint's encoder: its own lie among those of
    the whole model, and follow with them.

    Args:
        source: where its files lie.
        dropout: set all its dropout probabilities; None leaves the checkpoint's own.
        gradient_checkpointing: keep less of the forward pass, compute it again for the gradient.
        max_length: the tokens that documents are cut to, to be refused if they are too many.

    Raises:
        ConfigError: not to be had, not an encoder, weights that do not fit, or an option it does not know.
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
        newer = getattr(encoder, "activation_checkpointing_enable", None)  # the newer name of the same
        (newer or encoder.gradient_checkpointing_enable)({"use_reentrant": False})
    model: nn.Module = encoder.eval()
    return model


def save_encoder(folder: Path, encoder: nn.Module, tokenizer: Tokenizer) -> None:
    """Write config.json and the tokenizer's files, not the weights, so that a checkpoint loads offline."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # whatever the last call asked for is no part of the tokenizer
    backend.no_padding()
    with quiet_libraries():
        encoder.config.save_pretrained(folder)  # type: ignore[union-attr, operator]
        tokenizer.save_pretrained(folder)


def encoder_from_folder(folder: Path, weights: Path | None = None) -> tuple[nn.Module, Tokenizer]:
    """Rebuild what `save_encoder` wrote: the architecture with random weights, and the tokenizer.

    Args:
        folder: with config.json and the tokenizer's files.
        weights: the file of the whole model's weights; a configuration that is far larger is refused.

    Raises:
        ConfigError: missing or damaged files.
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
    """Return how many token ids the encoder has a row for; None where it has no table of tokens."""
    try:
        table = encoder.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # models of images and of characters
        return None
    weight = getattr(table, "weight", None)
    return len(weight) if isinstance(weight, torch.Tensor) else None


def frozen_encoder_hash(encoder: nn.Module) -> str:
    """Return the sha256 of what a loaded encoder computes in eval mode, wherever it came from.

    These are the names, types, shapes and bytes of its tensors, and its configuration without the keys that
    act in training only or not at all.
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
    """Return how many tokens the encoder can hold; None where nothing limits them.

    A table of positions is a hard limit; RoBERTa's counts from its padding index on, so 514 rows hold 512
    tokens. Rotary positions are good for as many as were trained; relative distances are unlimited.
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
    """Refuse more tokens than the encoder can hold.

    Raises:
        ConfigError: both numbers named.
    """
    limit = max_positions(encoder)
    if limit is not None and max_length > limit:
        raise ConfigError(
            f"encoder.max_length={max_length} is more than {type(encoder).__name__} can hold: {limit} "
            f"tokens; write encoder.max_length={limit}"
        )


def _from_config(config: Any) -> Any:
    return _maker(config).from_config(config, dtype=torch.float32)


def _maker(config: Any) -> Any:
    """Return what builds the encoder: of T5 and the like, with or without decoder, the encoder alone."""
    alone: Any = MODEL_FOR_TEXT_ENCODING_MAPPING.get(type(config), None)
    has_class = alone is not None and alone.__name__.endswith("EncoderModel")
    return transformers.AutoModelForTextEncoding if has_class else transformers.AutoModel


def _architecture(source: Pretrained, dropout: float | None) -> Any:
    """Build the encoder that a folder's config.json describes, with random weights."""
    with quiet_libraries(), load_errors(source, "weights"):
        shapes = weight_shapes(source) if source.weights else None
    _require_as_many_layers(source, shapes)
    with quiet_libraries(), load_errors(source, "config.json"):
        config = transformers.AutoConfig.from_pretrained(
            path_or_id(source), trust_remote_code=False, local_files_only=True
        )
    _set_dropout(config, dropout, source)
    with quiet_libraries(), load_errors(source, "configuration"):
        if shapes is not None:
            with _no_larger(source, shapes), torch.device("meta"):  # which takes no memory
                _from_config(config)
        return _from_config(config)


def _load_weights(source: Pretrained, dropout: float | None) -> Any:
    """Load configuration, then weights: what the configuration forbids is not downloaded."""
    where: dict[str, Any] = {"revision": source.revision, "trust_remote_code": False}
    with quiet_libraries(), load_errors(source, "weights"):
        shapes = weight_shapes(source)
    _require_as_many_layers(source, shapes)
    with quiet_libraries(), load_errors(source, "config.json"):
        config = transformers.AutoConfig.from_pretrained(path_or_id(source), **where)
    maker = _maker(config)
    if config.is_encoder_decoder and maker is transformers.AutoModel:
        raise ConfigError(
            f"encoder.model_name={source.model_name} is an encoder-decoder ({config.model_type}), which "
            "needs a decoder's input; give an encoder such as FacebookAI/roberta-large"
        )
    _set_dropout(config, dropout, source)
    with quiet_libraries(), load_errors(source, "encoder"), _no_larger(source, shapes):
        encoder, report = maker.from_pretrained(
            path_or_id(source),
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
            **where,
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
    odd = [name for name, weight in encoder.named_parameters() if not weight.isfinite().all()]
    if odd:
        raise ConfigError(
            f"encoder.model_name={source.model_name}: {len(odd)} of its weights hold values that are not "
            f"finite numbers, such as {', '.join(odd[:3])}; copy the model again"
        )
    return encoder


def _require_as_many_layers(source: Pretrained, shapes: Shapes | None) -> None:
    """Refuse counts of layers in config.json that the weights do not have, before lists of them are made.

    A layer has a stored tensor of its own, and labels a row of one.
    """
    if shapes is None or source.folder is None:
        return
    try:
        values = json.loads((source.folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return  # transformers says what is wrong with it
    most = _LARGER * (len(shapes) + sum(math.prod(shape[:1]) for shape in shapes.values()))
    for name, value in values.items() if isinstance(values, dict) else ():
        if ("layer" in name or "label" in name) and isinstance(value, int) and value > most:
            raise ConfigError(
                f"encoder.model_name={source.model_name}: {name} in its config.json is {value:.3g}, and its "
                f"weights have {len(shapes)} tensors; copy the model again"
            )


@contextlib.contextmanager
def _no_larger(source: Pretrained, shapes: Shapes | None) -> Iterator[None]:
    """Stop the building of a model that is far larger than its stored weights, before it takes the memory.

    Raises:
        ConfigError: there are too many parameters, or too large ones.
    """
    if shapes is None:
        yield
        return
    tensors, numbers_ = len(shapes), sum(math.prod(shape) for shape in shapes.values())
    built = [0, 0]

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        built[0] += 1
        built[1] += 0 if parameter is None else parameter.numel()
        if built[0] > _LARGER * (tensors + 100) or built[1] > _LARGER * (numbers_ + 10_000):
            raise ConfigError(
                f"encoder.model_name={source.model_name}: its config.json describes a model far larger "
                f"than its weights ({tensors} tensors, {numbers_:,} numbers); copy the model again"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _set_dropout(config: Any, dropout: float | None, source: Pretrained) -> None:
    """Set every dropout probability that the configuration has, whatever each model calls them."""
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
    """Take the pooler away, put cheap dropout in."""
    if getattr(encoder, "pooler", None) is not None:
        # None is what `add_pooling_layer=False` leaves; models without that option call their pooler always
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
    """Be sdpa, except where a CPU trains with dropout on plain attention."""
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
