"""Models by name: two small ones that a laptop trains, and published shapes to plan with. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from training.errors import ConfigError
from training.model.config import ModelConfig
from training.model.rope_config import Rope

_TINY_V3 = ModelConfig(
    family="deepseek_v3",
    vocab_size=512,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    q_lora_rank=128,
    kv_lora_rank=128,
    qk_nope_head_dim=64,
    qk_rope_head_dim=64,
    v_head_dim=64,
    n_routed_experts=4,
    n_shared_experts=1,
    num_experts_per_tok=2,
    routed_scaling_factor=1.0,
    first_k_dense_replace=1,
    moe_intermediate_size=256,
    num_nextn_predict_layers=1,
    max_position_embeddings=2048,
)
"""2.5 M parameters; every width can be cut in two and the experts in four."""

_TINY_LLAMA = ModelConfig(
    family="llama",
    vocab_size=512,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=3,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=64,
    rms_norm_eps=1e-5,
    max_position_embeddings=2048,
)

PRESETS: Mapping[str, ModelConfig] = MappingProxyType(
    {
        "tiny-v3": _TINY_V3,
        "tiny-llama": _TINY_LLAMA,
        "small-v3": replace(
            _TINY_V3,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=4,
            n_routed_experts=8,
            routed_scaling_factor=2.5,
            n_group=4,
            topk_group=2,
        ),
        # deepseek-ai/DeepSeek-V3, config.json: 671 B parameters and 11.5 B of multi-token prediction beside them
        "deepseek-v3": ModelConfig(
            family="deepseek_v3",
            vocab_size=129_280,
            hidden_size=7168,
            intermediate_size=18_432,
            num_hidden_layers=61,
            num_attention_heads=128,
            num_key_value_heads=128,
            q_lora_rank=1536,
            kv_lora_rank=512,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            n_routed_experts=256,
            n_shared_experts=1,
            num_experts_per_tok=8,
            n_group=8,
            topk_group=4,
            routed_scaling_factor=2.5,
            first_k_dense_replace=3,
            moe_intermediate_size=2048,
            num_nextn_predict_layers=1,
            rope=Rope(
                kind="yarn",
                factor=40.0,
                original_max_position_embeddings=4096,
                beta_fast=32.0,
                beta_slow=1.0,
                mscale=1.0,
                mscale_all_dim=1.0,
            ),
            max_position_embeddings=163_840,
            bos_token_id=0,
            eos_token_id=1,
        ),
        # moonshotai/Moonlight-16B-A3B, config.json: the same family at 16 B
        "moonlight-16b": ModelConfig(
            family="deepseek_v3",
            vocab_size=163_840,
            hidden_size=2048,
            intermediate_size=11_264,
            num_hidden_layers=27,
            num_attention_heads=16,
            num_key_value_heads=16,
            kv_lora_rank=512,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            n_routed_experts=64,
            n_shared_experts=2,
            num_experts_per_tok=6,
            routed_scaling_factor=2.446,
            first_k_dense_replace=1,
            moe_intermediate_size=1408,
            rope=Rope(theta=50_000.0),
            rms_norm_eps=1e-5,
            max_position_embeddings=8192,
        ),
        # meta-llama/Meta-Llama-3-8B, config.json
        "llama-3-8b": ModelConfig(
            family="llama",
            vocab_size=128_256,
            hidden_size=4096,
            intermediate_size=14_336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=128,
            rope=Rope(theta=500_000.0),
            rms_norm_eps=1e-5,
            max_position_embeddings=8192,
            bos_token_id=128_000,
            eos_token_id=128_001,
        ),
    }
)


def preset(name: str) -> ModelConfig:
    """Raise ConfigError for an unknown name."""
    try:
        return PRESETS[name]
    except KeyError:
        raise ConfigError(f"model.preset = {name}: must be one of {', '.join(PRESETS)}") from None
