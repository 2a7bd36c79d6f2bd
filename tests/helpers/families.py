"""The text models of transformers, each small: width 16, two layers, random weights."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto as auto

_SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size"), 16),
    **dict.fromkeys(("d_embed", "word_embed_proj_dim", "moe_intermediate_size"), 16),
    **dict.fromkeys(("intermediate_size", "d_ff", "d_inner", "ffn_dim", "hidden_dim"), 32),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "num_experts_per_tok"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "d_head"), 8),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_d_state", "mamba_chunk_size", "chunk_size"), 8),
    "mamba_n_heads": 2,
    "mamba_d_ssm": 16,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 64),
    "vocab_size": 300,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
_OWN: dict[str, dict[str, Any]] = {
    "clip": {"text_config": _TOWER, "vision_config": _TOWER},
    "funnel": {"block_sizes": [1, 1]},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "xmod": {"default_language": "en_XX"},
    "gptj": {"rotary_dim": 4},
    "codegen": {"rotary_dim": 4},
}


def text_families() -> list[str]:
    """Return the model types of AutoModel that also have a masked, causal, encoding or sequence head."""
    of_text = {
        *auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        *auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        *auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        *auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
    }
    return [name for name in auto.MODEL_MAPPING_NAMES if name in of_text]


def small(model_type: str) -> Any:
    """Return the family's configuration at width 16."""
    kind = transformers.CONFIG_MAPPING[model_type]
    own = _OWN.get(model_type, {})
    known = {*kind().to_dict(), *kind.attribute_map}
    sizes = {name: size for name, size in _SIZES.items() if name in known and name not in own}
    if model_type == "funnel":
        del sizes["num_hidden_layers"]
    return kind(**sizes, **own)


def small_or_none(model_type: str) -> Any:
    """Return the family's configuration at width 16; None where its sizes must fit otherwise."""
    try:
        config = small(model_type)
        with torch.device("meta"):
            parameters = transformers.AutoModel.from_config(config).num_parameters()
    except Exception:  # each configuration checks itself in its own way
        return None
    return config if parameters < 5_000_000 else None
