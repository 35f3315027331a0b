"""One decoder block: attention and feed-forward, each behind a norm and beside a residual."""

from __future__ import annotations

from torch import Tensor, nn

from training.model.attention import GroupedQueryAttention
from training.model.boundary import boundary
from training.model.config import ModelConfig
from training.model.ffn import FeedForward
from training.model.mla import LatentAttention
from training.model.moe import MixtureOfExperts
from training.model.norm import RmsNorm
from training.parallel.context import ParallelContext
from training.precision import PrecisionPolicy


class Block(nn.Module):
    def __init__(self, config: ModelConfig, policy: PrecisionPolicy, context: ParallelContext, layer: int) -> None:
        """`layer` counts the blocks of multi-token prediction on from num_hidden_layers."""
        super().__init__()
        self.policy, self.latent = policy, config.family == "deepseek_v3"
        prefix, hidden, eps = f"model.layers.{layer}.", config.hidden_size, config.rms_norm_eps
        attention = LatentAttention if self.latent else GroupedQueryAttention
        self.input_norm = RmsNorm(
            f"{prefix}input_layernorm.weight",
            hidden,
            eps,
            op="mla.norm" if self.latent else "block.norm",
            policy=policy,
        )
        self.attention = attention(f"{prefix}self_attn.", config, policy, context)
        self.post_norm = RmsNorm(
            f"{prefix}post_attention_layernorm.weight", hidden, eps, op="block.norm", policy=policy
        )
        self.feed_forward: nn.Module
        if config.is_moe_layer(layer):
            self.feed_forward = MixtureOfExperts(f"{prefix}mlp.", config, policy, context)
        else:
            self.feed_forward = FeedForward(
                f"{prefix}mlp.", hidden, config.intermediate_size, op="ffn.linear", policy=policy, context=context
            )

    def forward(self, hidden: Tensor) -> Tensor:
        """[batch, sequence, hidden] -> the same"""
        if self.latent:
            hidden = boundary(hidden, "mla.input", self.policy)
        hidden = hidden + self.attention(self.input_norm(hidden))
        return hidden + self.feed_forward(self.post_norm(hidden))
