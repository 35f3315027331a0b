"""Between a Hugging Face config.json and the fields of ModelConfig, as plain mappings. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.errors import ConfigError, require
from training.model.rope_config import Rope

FAMILIES = ("deepseek_v3", "llama")

_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_OPTIONAL = (
    "rms_norm_eps",
    "initializer_range",
    "max_position_embeddings",
    "tie_word_embeddings",
    "bos_token_id",
    "mtp_loss_weight",
)
_LATENT = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "rope_interleave")
_EXPERTS = (
    "n_routed_experts",
    "n_shared_experts",
    "num_experts_per_tok",
    "n_group",
    "topk_group",
    "norm_topk_prob",
    "routed_scaling_factor",
    "first_k_dense_replace",
    "moe_intermediate_size",
    "num_nextn_predict_layers",
)
_ALIASES = {"num_nextn_predict_layers": "num_mtp_layers", "n_routed_experts": "num_local_experts"}
_DEFAULTS: Mapping[str, Any] = {
    "q_lora_rank": None,
    "rope_interleave": True,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "num_nextn_predict_layers": 0,
}
_ONLY: Mapping[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "moe_layer_freq": 1,
}
"""Keys that may be missing, but must hold this where they stand."""


def read_sizes(values: Mapping[str, Any]) -> dict[str, Any]:
    """ModelConfig's fields. Raise ConfigError for another family, a missing size, or what we do not compute."""
    family = values.get("model_type")
    require(family in FAMILIES, "model_type", family, f"must be one of {', '.join(FAMILIES)}")
    for key, only in _ONLY.items():
        require(values.get(key) in (only, None), key, values.get(key), f"only {only} can be computed")
    sizes = {key: _read(values, key) for key in _SIZES}
    sizes |= _llama_sizes(values, sizes) if family == "llama" else _deepseek_sizes(values, sizes)
    sizes |= {key: values[key] for key in _OPTIONAL if values.get(key) is not None}
    eos = values.get("eos_token_id")
    sizes["eos_token_id"] = eos[0] if isinstance(eos, list) else eos
    return sizes | {"family": family, "rope": Rope.from_hf(values)}


def _llama_sizes(values: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    heads = sizes["num_attention_heads"]
    return {
        "num_key_value_heads": values.get("num_key_value_heads") or heads,
        "head_dim": values.get("head_dim") or sizes["hidden_size"] // heads,
    }


def _deepseek_sizes(values: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: _read(values, key) for key in (*_LATENT, *_EXPERTS)}
    return own | {"num_key_value_heads": sizes["num_attention_heads"]}


def _read(values: Mapping[str, Any], key: str) -> Any:
    for name in (key, _ALIASES.get(key, key)):
        if values.get(name) is not None:
            return values[name]
    if key not in _DEFAULTS:
        raise ConfigError(f"config.json: {key} is missing")
    return _DEFAULTS[key]


def write_sizes(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """config.json from ModelConfig's fields."""
    family = sizes["family"]
    shared = {key: sizes[key] for key in (*_SIZES, *_OPTIONAL, "eos_token_id", "num_key_value_heads")}
    if family == "llama":
        own = {"architectures": ["LlamaForCausalLM"], "head_dim": sizes["head_dim"], "mlp_bias": False}
    else:
        own = {"architectures": ["DeepseekV3ForCausalLM"], "moe_layer_freq": 1}
        own |= {"scoring_func": "sigmoid", "topk_method": "noaux_tc"}
        own |= {key: sizes[key] for key in (*_LATENT, *_EXPERTS)}
    rope: Rope = sizes["rope"]
    return {"model_type": family, **own, **shared, "attention_bias": False, "hidden_act": "silu", **rope.to_hf()}
