"""Multi-token prediction: depth k reads depth k - 1's hidden state and the embedding of the token k places on
(arXiv 2412.19437, section 2.2).

The projection reads [embedding, hidden] and the hidden state is passed on after its norm: so vLLM and transformers'
MtpLayer read the published weights (`eh_proj`, `shared_head.norm`). Embedding and head are the model's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  torch's own name for it
from torch import Tensor, nn

from training.model.block import Block
from training.model.boundary import boundary
from training.model.config import ModelConfig
from training.model.norm import RmsNorm
from training.parallel.context import ParallelContext
from training.parallel.tensor import Linear
from training.precision import PrecisionPolicy


class MtpLayer(nn.Module):
    def __init__(self, config: ModelConfig, policy: PrecisionPolicy, context: ParallelContext, depth: int) -> None:
        """`depth` counts from 1."""
        super().__init__()
        self.policy = policy
        layer = config.num_hidden_layers + depth - 1
        prefix, width, eps = f"model.layers.{layer}.", config.hidden_size, config.rms_norm_eps
        self.enorm = RmsNorm(f"{prefix}enorm.weight", width, eps, op="mtp.norm", policy=policy)
        self.hnorm = RmsNorm(f"{prefix}hnorm.weight", width, eps, op="mtp.norm", policy=policy)
        self.eh_proj = Linear(f"{prefix}eh_proj.weight", 2 * width, width, op="mtp.projection", policy=policy)
        self.block = Block(config, policy, context, layer)
        self.head_norm = RmsNorm(f"{prefix}shared_head.norm.weight", width, eps, op="mtp.norm", policy=policy)

    def forward(self, embedded: Tensor, hidden: Tensor) -> Tensor:
        """Both [batch, sequence, hidden] -> the same, normed: ready for the head and for the next depth"""
        joined = self.eh_proj(torch.cat([self.enorm(embedded), self.hnorm(hidden)], dim=-1))
        result = boundary(self.block(joined), "mtp.block", self.policy)
        return boundary(self.head_norm(result), "mtp.hidden", self.policy)


def ahead(tokens: Tensor, places: int, fill: int) -> Tensor:
    """[..., sequence]: position i holds what stood at i + places; `fill` where the sequence has ended."""
    return F.pad(tokens[..., places:], (0, places), value=fill)
