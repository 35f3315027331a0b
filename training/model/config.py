"""A model's sizes, under the names of a Hugging Face config.json, and what follows from them alone.

Two families: "deepseek_v3" (latent attention, mixture of experts, multi-token prediction) and "llama" (grouped-query
attention, dense SwiGLU). Pure: this file does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from training.errors import require
from training.model.hf_config import FAMILIES, read_sizes, write_sizes
from training.model.rope_config import Rope

BLOCK = 128
"""Side of a weight's FP8 block; a shard must hold whole blocks, or cutting a weight would change its scales."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Raise ConfigError on construction where sizes do not fit each other."""

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    """Width of a dense layer's SwiGLU."""

    num_hidden_layers: int
    """Decoder layers of the main model; those of multi-token prediction come on top."""

    num_attention_heads: int
    num_key_value_heads: int
    """Llama only; latent attention has one key and value per head."""

    head_dim: int = 0
    """Llama only: width of a head."""

    q_lora_rank: int | None = None
    """None: queries are projected straight from the hidden state."""

    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    rope_interleave: bool = True
    """Rotated dimensions come in pairs (0, 1), (2, 3), ... instead of (0, d/2), (1, d/2 + 1), ..."""

    n_routed_experts: int = 0
    n_shared_experts: int = 0
    num_experts_per_tok: int = 0
    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0
    first_k_dense_replace: int = 0
    """The first so many layers are dense."""

    moe_intermediate_size: int = 0
    num_nextn_predict_layers: int = 0
    """Depth of multi-token prediction."""

    mtp_loss_weight: float = 0.3
    """Share of the mean loss of the multi-token predictions in the loss (arXiv 2412.19437, 4.2: 0.3, later 0.1)."""

    rope: Rope = Rope()
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    max_position_embeddings: int = 4096
    tie_word_embeddings: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | None = None

    def __post_init__(self) -> None:
        require(self.family in FAMILIES, "model_type", self.family, f"must be one of {', '.join(FAMILIES)}")
        for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
            require(getattr(self, key) > 0, key, getattr(self, key), "must be positive")
        require(self.rms_norm_eps > 0, "rms_norm_eps", self.rms_norm_eps, "must be positive")
        require(self.mtp_loss_weight >= 0, "mtp_loss_weight", self.mtp_loss_weight, "must not be negative")
        if self.family == "llama":
            self._check_llama()
        else:
            self._check_deepseek()

    def _check_llama(self) -> None:
        require(self.head_dim > 0 and self.head_dim % 2 == 0, "head_dim", self.head_dim, "must be even and positive")
        require(
            self.num_key_value_heads > 0 and self.num_attention_heads % self.num_key_value_heads == 0,
            "num_key_value_heads",
            self.num_key_value_heads,
            f"must divide num_attention_heads = {self.num_attention_heads}",
        )
        require(self.n_routed_experts == 0, "n_routed_experts", self.n_routed_experts, "a llama model has no experts")
        require(
            self.num_nextn_predict_layers == 0,
            "num_nextn_predict_layers",
            self.num_nextn_predict_layers,
            "a llama model has no multi-token prediction",
        )

    def _check_deepseek(self) -> None:
        for key in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
            require(getattr(self, key) > 0, key, getattr(self, key), "must be positive")
        require(self.qk_rope_head_dim % 2 == 0, "qk_rope_head_dim", self.qk_rope_head_dim, "must be even")
        require(self.q_lora_rank is None or self.q_lora_rank > 0, "q_lora_rank", self.q_lora_rank, "must be positive")
        require(
            0 <= self.first_k_dense_replace <= self.num_hidden_layers,
            "first_k_dense_replace",
            self.first_k_dense_replace,
            f"must be within 0 and num_hidden_layers = {self.num_hidden_layers}",
        )
        if self.has_experts:
            self._check_experts()

    def _check_experts(self) -> None:
        for key in ("n_routed_experts", "moe_intermediate_size", "num_experts_per_tok", "n_group", "topk_group"):
            require(getattr(self, key) > 0, key, getattr(self, key), "must be positive")
        require(self.n_shared_experts >= 0, "n_shared_experts", self.n_shared_experts, "must not be negative")
        in_group, rest = divmod(self.n_routed_experts, self.n_group)
        require(rest == 0, "n_group", self.n_group, f"must divide n_routed_experts = {self.n_routed_experts}")
        # A group's score is the sum of its two best experts.
        require(in_group >= 2, "n_group", self.n_group, "must leave at least two experts in a group")
        require(
            self.topk_group <= self.n_group, "topk_group", self.topk_group, f"must be within n_group = {self.n_group}"
        )
        require(
            self.num_experts_per_tok <= in_group * self.topk_group,
            "num_experts_per_tok",
            self.num_experts_per_tok,
            f"must be within the {in_group * self.topk_group} experts of the {self.topk_group} best groups",
        )

    # What each layer is

    @property
    def has_experts(self) -> bool:
        return self.family == "deepseek_v3" and (
            self.first_k_dense_replace < self.num_hidden_layers or self.num_nextn_predict_layers > 0
        )

    def is_moe_layer(self, layer: int) -> bool:
        """`layer` counts multi-token prediction's blocks on from num_hidden_layers; those are always MoE."""
        return self.family == "deepseek_v3" and layer >= self.first_k_dense_replace

    @property
    def qk_head_dim(self) -> int:
        """Width of one head's query and key."""
        return self.head_dim if self.family == "llama" else self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def value_head_dim(self) -> int:
        return self.head_dim if self.family == "llama" else self.v_head_dim

    # Parameters

    @property
    def embedding_parameters(self) -> int:
        return self.vocab_size * self.hidden_size

    @property
    def head_parameters(self) -> int:
        return 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size

    @property
    def attention_parameters(self) -> int:
        hidden, heads = self.hidden_size, self.num_attention_heads
        if self.family == "llama":
            return self.head_dim * hidden * (2 * heads + 2 * self.num_key_value_heads)
        query = (
            hidden * heads * self.qk_head_dim
            if self.q_lora_rank is None
            else self.q_lora_rank * (hidden + 1 + heads * self.qk_head_dim)
        )
        compression = hidden * (self.kv_lora_rank + self.qk_rope_head_dim) + self.kv_lora_rank
        expansion = self.kv_lora_rank * heads * (self.qk_nope_head_dim + self.v_head_dim)
        return query + compression + expansion + heads * self.v_head_dim * hidden

    @property
    def dense_parameters(self) -> int:
        return 3 * self.hidden_size * self.intermediate_size

    @property
    def expert_parameters(self) -> int:
        """Of one expert."""
        return 3 * self.hidden_size * self.moe_intermediate_size

    def layer_parameters(self, layer: int, *, active: bool = False) -> int:
        """Of one decoder block, its two norms included; `active` counts only the experts a token passes through."""
        shared = self.attention_parameters + 2 * self.hidden_size
        if not self.is_moe_layer(layer):
            return shared + self.dense_parameters
        experts = (self.num_experts_per_tok if active else self.n_routed_experts) + self.n_shared_experts
        return shared + experts * self.expert_parameters + self.n_routed_experts * self.hidden_size

    @property
    def mtp_extra_parameters(self) -> int:
        """Of one depth of multi-token prediction, beside its block: eh_proj and three norms."""
        return 2 * self.hidden_size**2 + 3 * self.hidden_size

    def parameter_count(self, *, active: bool = False) -> int:
        """Every trained value; router biases are not trained and not counted."""
        blocks = range(self.num_hidden_layers + self.num_nextn_predict_layers)
        return (
            self.embedding_parameters
            + self.head_parameters
            + self.hidden_size
            + sum(self.layer_parameters(layer, active=active) for layer in blocks)
            + self.num_nextn_predict_layers * self.mtp_extra_parameters
        )

    # What can be cut

    def cut_widths(self) -> dict[str, int]:
        """Every width that tensor parallelism cuts, by a name that a person finds in config.json."""
        heads = self.num_attention_heads
        widths = {"vocab_size": self.vocab_size}
        if self.family == "llama":
            widths["num_attention_heads * head_dim"] = heads * self.head_dim
            widths["num_key_value_heads * head_dim"] = self.num_key_value_heads * self.head_dim
        else:
            widths["num_attention_heads * (qk_nope_head_dim + qk_rope_head_dim)"] = heads * self.qk_head_dim
            widths["num_attention_heads * (qk_nope_head_dim + v_head_dim)"] = heads * (
                self.qk_nope_head_dim + self.v_head_dim
            )
            widths["num_attention_heads * v_head_dim"] = heads * self.v_head_dim
        if any(not self.is_moe_layer(layer) for layer in range(self.num_hidden_layers)):
            widths["intermediate_size"] = self.intermediate_size
        if self.has_experts:
            widths["moe_intermediate_size"] = self.moe_intermediate_size
        return widths

    def check_cuts(self, *, tensor: int, expert: int = 1) -> None:
        """Raise ConfigError unless the model can be cut so: whole heads, whole FP8 blocks, equal shares of experts."""
        require(tensor > 0, "parallel.tensor", tensor, "must be positive")
        require(expert > 0, "parallel.expert", expert, "must be positive")
        if tensor > 1:
            heads = self.num_key_value_heads if self.family == "llama" else self.num_attention_heads
            require(heads % tensor == 0, "parallel.tensor", tensor, f"must divide the {heads} heads of keys and values")
            for name, width in self.cut_widths().items():
                rule = f"must cut {name} = {width} into multiples of {BLOCK}"
                require(width % (tensor * BLOCK) == 0, "parallel.tensor", tensor, rule)
        if expert > 1:
            require(self.has_experts, "parallel.expert", expert, "the model has no experts")
            rule = f"must divide n_routed_experts = {self.n_routed_experts}"
            require(self.n_routed_experts % expert == 0, "parallel.expert", expert, rule)

    # Hugging Face

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> ModelConfig:
        """From a parsed config.json. Raise ConfigError for a model we cannot build or a missing size."""
        return cls(**read_sizes(values))

    def to_hf(self) -> dict[str, Any]:
        """A config.json that transformers, vLLM and `from_hf` read."""
        return write_sizes({f.name: getattr(self, f.name) for f in fields(self)})
