"""What a model is made of, read from a Hugging Face config.json, whichever family wrote it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from job_wrappers.serving.errors import ConfigError, require
from training.errors import ConfigError as RopeError
from training.model.rope_config import Rope

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "deepseek_v3")
FP8_BLOCK = 128
_ONLY: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "scoring_func": ("sigmoid",),
    "topk_method": ("noaux_tc",),
    "moe_layer_freq": (1,),
    "partial_rotary_factor": (1.0,),
}
"""Keys that may be missing, but must hold one of these where they stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentSizes:
    """Multi-head latent attention: one compressed key for all heads."""

    query_rank: int | None
    rank: int
    plain_size: int
    """Of a head's query and key: the part that is not rotated."""

    rotary_size: int
    value_size: int
    interleaved: bool
    """Pairs that rotate together lie side by side in the weights; otherwise half a head apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertSizes:
    """Mixture of experts as in DeepSeek-V3."""

    count: int
    shared: int
    per_token: int
    groups: int
    best_groups: int
    normalise: bool
    scale: float
    width: int
    dense_layers: int
    """The first so many layers have no experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    """Of queries and keys as the weights hold them; latent attention: plain and rotary part."""

    rope: Rope
    eps: float
    tied_embeddings: bool
    max_positions: int
    """Longest sequence that is computed as the model was trained; a sliding window is never exceeded."""

    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    query_key_norms: bool = False
    latent: LatentSizes | None = None
    experts: ExpertSizes | None = None
    fp8: bool = False
    """Projections are stored as E4M3 codes with a factor for each 128 x 128 block."""

    stored_dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        for key in ("vocab_size", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "max_positions"):
            require(getattr(self, key) > 0, key, getattr(self, key), "must be positive")
        require(self.heads % self.kv_heads == 0, "num_key_value_heads", self.kv_heads, f"must divide {self.heads}")
        require(self.rotary_size % 2 == 0, "head_dim", self.rotary_size, "the part that is rotated must be even")

    @property
    def rotary_size(self) -> int:
        return self.latent.rotary_size if self.latent else self.head_size

    @property
    def attention_scale(self) -> float:
        factor = self.rope.query_scale if self.latent else 1.0
        return float(factor * self.head_size**-0.5)

    def has_experts(self, layer: int) -> bool:
        return self.experts is not None and layer >= self.experts.dense_layers

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> DecoderConfig:
        """Raise ConfigError, naming key and rule, for what is not computed here."""
        family = values.get("model_type")
        require(family in FAMILIES, "model_type", family, f"must be one of {', '.join(FAMILIES)}")
        for key, allowed in _ONLY.items():
            require(values.get(key) in (None, *allowed), key, values.get(key), f"only {allowed[0]} is computed")
        heads = _size(values, "num_attention_heads")
        latent = _latent(values) if family == "deepseek_v3" else None
        plain_head = values.get("head_dim") or _size(values, "hidden_size") // heads
        bias = bool(values.get("attention_bias", False))
        require(not (latent and bias), "attention_bias", bias, "is not computed for latent attention")
        return cls(
            family=str(family),
            vocab_size=_size(values, "vocab_size"),
            hidden_size=_size(values, "hidden_size"),
            intermediate_size=_size(values, "intermediate_size"),
            layers=_size(values, "num_hidden_layers"),
            heads=heads,
            kv_heads=heads if latent else int(values.get("num_key_value_heads") or heads),
            head_size=latent.plain_size + latent.rotary_size if latent else plain_head,
            rope=_rope(values),
            eps=float(values.get("rms_norm_eps", 1e-6)),
            tied_embeddings=bool(values.get("tie_word_embeddings", False)),
            max_positions=_max_positions(values),
            qkv_bias=family == "qwen2" or bias,
            output_bias=bias and family != "qwen2",
            mlp_bias=bool(values.get("mlp_bias", False)),
            query_key_norms=family == "qwen3",
            latent=latent,
            experts=_experts(values) if family == "deepseek_v3" else None,
            fp8=_is_fp8(values),
            stored_dtype=str(values.get("dtype") or values.get("torch_dtype") or "bfloat16"),
        )


def _size(values: Mapping[str, Any], key: str, *other_names: str) -> int:
    for name in (key, *other_names):
        if values.get(name) is not None:
            return int(values[name])
    raise ConfigError(f"{key} is missing")


def _rope(values: Mapping[str, Any]) -> Rope:
    try:
        return Rope.from_hf(values)
    except RopeError as cause:
        raise ConfigError(str(cause)) from cause


def _latent(values: Mapping[str, Any]) -> LatentSizes:
    return LatentSizes(
        query_rank=values.get("q_lora_rank"),
        rank=_size(values, "kv_lora_rank"),
        plain_size=_size(values, "qk_nope_head_dim"),
        rotary_size=_size(values, "qk_rope_head_dim"),
        value_size=_size(values, "v_head_dim"),
        interleaved=bool(values.get("rope_interleave", True)),
    )


def _experts(values: Mapping[str, Any]) -> ExpertSizes | None:
    count = _size(values, "n_routed_experts", "num_local_experts")
    groups, per_token = int(values.get("n_group") or 1), _size(values, "num_experts_per_tok")
    best_groups = int(values.get("topk_group") or 1)
    require(groups > 0 and count % groups == 0, "n_group", groups, f"must divide n_routed_experts = {count}")
    require(count // groups > 1, "n_group", groups, "must leave at least two experts in a group")
    require(0 < best_groups <= groups, "topk_group", best_groups, f"must be within n_group = {groups}")
    chosen_from = best_groups * count // groups
    require(0 < per_token <= chosen_from, "num_experts_per_tok", per_token, f"must be within {chosen_from}")
    return ExpertSizes(
        count=count,
        shared=int(values.get("n_shared_experts") or 0),
        per_token=per_token,
        groups=groups,
        best_groups=best_groups,
        normalise=bool(values.get("norm_topk_prob", True)),
        scale=float(values.get("routed_scaling_factor", 1.0)),
        width=_size(values, "moe_intermediate_size"),
        dense_layers=_size(values, "first_k_dense_replace"),
    )


def _max_positions(values: Mapping[str, Any]) -> int:
    """Up to its window's width, windowed attention is plain attention; beyond, it is not computed here."""
    longest = _size(values, "max_position_embeddings")
    slides = values.get("use_sliding_window", values.get("model_type") == "mistral")
    window = values.get("sliding_window") if slides else None
    return min(longest, int(window)) if window else longest


def _is_fp8(values: Mapping[str, Any]) -> bool:
    quantisation = values.get("quantization_config")
    if not quantisation:
        return False
    method, block = quantisation.get("quant_method"), quantisation.get("weight_block_size")
    known = method == "fp8" and list(block or ()) == [FP8_BLOCK, FP8_BLOCK]
    rule = f"only fp8 with weight_block_size [{FP8_BLOCK}, {FP8_BLOCK}] can be read"
    require(known, "quantization_config", f"{method} {block}", rule)
    return True
