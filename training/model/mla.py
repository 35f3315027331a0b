"""Multi-head latent attention with decoupled rotary positions (arXiv 2412.19437, section 2.1.1).

Queries, keys and values come from short latents. Those are the same on every tensor rank; what is made of them is cut
by heads, so f stands behind the latents' norms: gradients before it are whole, and equal on every rank.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.matmul import attention_core
from training.model.boundary import boundary
from training.model.config import ModelConfig
from training.model.norm import RmsNorm
from training.model.rope import rotate
from training.parallel.context import ParallelContext
from training.parallel.tensor import ColumnLinear, Linear, RowLinear, copy_all_to_tensor_axis
from training.precision import PrecisionPolicy

STORED = ("mla.query", "mla.key", "mla.value")
LATENT_EPS = 1e-6
"""Of the latents' norms, whatever rms_norm_eps says (transformers, DeepseekV3Attention)."""


class LatentAttention(nn.Module):
    def __init__(self, prefix: str, config: ModelConfig, policy: PrecisionPolicy, context: ParallelContext) -> None:
        super().__init__()
        self.config, self.policy, self.context = config, policy, context
        hidden, heads, q_rank = config.hidden_size, config.num_attention_heads, config.q_lora_rank

        def column(name: str, columns: int, rows: int, op: str) -> ColumnLinear:
            return ColumnLinear([(f"{prefix}{name}.weight", rows)], columns, op=op, policy=policy, context=context)

        def latent_norm(name: str, width: int) -> RmsNorm:
            return RmsNorm(f"{prefix}{name}.weight", width, LATENT_EPS, op="mla.norm", policy=policy)

        self.q_down: Linear | None = None
        if q_rank is not None:
            self.q_down = Linear(f"{prefix}q_a_proj.weight", hidden, q_rank, op="mla.q_proj", policy=policy)
            self.q_norm = latent_norm("q_a_layernorm", q_rank)
        self.q_up = column(
            "q_proj" if q_rank is None else "q_b_proj", q_rank or hidden, heads * config.qk_head_dim, "mla.q_proj"
        )
        self.kv_down = Linear(
            f"{prefix}kv_a_proj_with_mqa.weight",
            hidden,
            config.kv_lora_rank + config.qk_rope_head_dim,
            op="mla.kv_compress",
            policy=policy,
        )
        self.kv_norm = latent_norm("kv_a_layernorm", config.kv_lora_rank)
        kv_rows = heads * (config.qk_nope_head_dim + config.v_head_dim)
        self.kv_up = column("kv_b_proj", config.kv_lora_rank, kv_rows, "mla.kv_proj")
        self.output = RowLinear(
            f"{prefix}o_proj.weight", heads * config.v_head_dim, hidden, op="mla.o_proj", policy=policy, context=context
        )

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, sequence, hidden], normed -> [batch, sequence, hidden]"""
        x = boundary(x, "mla.hidden", self.policy)
        query, key, value = self._heads(*self._latents(x))
        mixed = attention_core(
            query,
            key,
            value,
            op="mla.core",
            stored_ops=STORED,
            policy=self.policy,
            causal=True,
            scale=self.config.qk_head_dim**-0.5 * self.config.rope.query_scale,
        )
        return boundary(self.output(mixed.transpose(1, 2).flatten(2)), "mla.output", self.policy)

    def _latents(self, x: Tensor) -> tuple[Tensor, ...]:
        """What the queries, the keys and values, and the rotated part of every key are made of."""
        for_query = x if self.q_down is None else self.q_norm(self.q_down(x))
        compressed, rotated = self.kv_down(x).split([self.config.kv_lora_rank, self.config.qk_rope_head_dim], dim=-1)
        return copy_all_to_tensor_axis((for_query, self.kv_norm(compressed), rotated), self.context)

    def _heads(self, for_query: Tensor, latent: Tensor, rotated: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key, value of this rank's heads: [batch, heads, sequence, width]"""
        config = self.config
        query = self.q_up(for_query).unflatten(-1, (-1, config.qk_head_dim))
        key_value = self.kv_up(latent).unflatten(-1, (-1, config.qk_nope_head_dim + config.v_head_dim))
        plain_query, query = query.split([config.qk_nope_head_dim, config.qk_rope_head_dim], dim=-1)
        plain_key, value = key_value.split([config.qk_nope_head_dim, config.v_head_dim], dim=-1)
        key = self._rotate(rotated.unsqueeze(2)).expand(-1, -1, plain_key.shape[2], -1)
        query = torch.cat([plain_query, self._rotate(query)], dim=-1)
        key = torch.cat([plain_key, key], dim=-1)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def _rotate(self, x: Tensor) -> Tensor:
        return rotate(x, self.config.rope, interleave=self.config.rope_interleave)
