"""Llama's attention: grouped queries, rotary positions, heads cut over the tensor axis."""

from __future__ import annotations

from torch import Tensor, nn

from training.matmul import attention_core
from training.model.config import ModelConfig
from training.model.rope import rotate
from training.parallel.context import ParallelContext
from training.parallel.tensor import ColumnLinear, RowLinear, copy_to_tensor_axis
from training.precision import PrecisionPolicy

STORED = ("attention.query", "attention.key", "attention.value")


class GroupedQueryAttention(nn.Module):
    def __init__(self, prefix: str, config: ModelConfig, policy: PrecisionPolicy, context: ParallelContext) -> None:
        super().__init__()
        self.config, self.policy, self.context = config, policy, context
        width = config.head_dim
        queries, keys = config.num_attention_heads * width, config.num_key_value_heads * width
        names = [
            (f"{prefix}q_proj.weight", queries),
            (f"{prefix}k_proj.weight", keys),
            (f"{prefix}v_proj.weight", keys),
        ]
        self.qkv = ColumnLinear(names, config.hidden_size, op="attention.qkv_proj", policy=policy, context=context)
        self.output = RowLinear(
            f"{prefix}o_proj.weight", queries, config.hidden_size, op="attention.o_proj", policy=policy, context=context
        )

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, sequence, hidden], normed -> [batch, sequence, hidden]"""
        rope = self.config.rope
        projected = self.qkv(copy_to_tensor_axis(x, self.context)).split(self.qkv.rows, dim=-1)
        query, key, value = (part.unflatten(-1, (-1, self.config.head_dim)) for part in projected)
        query, key = rotate(query, rope, interleave=False), rotate(key, rope, interleave=False)
        mixed = attention_core(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            op="attention.core",
            stored_ops=STORED,
            policy=self.policy,
            causal=True,
            scale=self.config.head_dim**-0.5,
        )
        return self.output(mixed.transpose(1, 2).flatten(2))
