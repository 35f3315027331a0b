"""First values of a model, the same whatever the plan: each tensor has a generator of its own, seeded by its name."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from training.model.config import ModelConfig
from training.model.hf_names import named_shards


@torch.no_grad()
def initialise(module: nn.Module, config: ModelConfig, seed: int) -> None:
    """Fill every parameter of `module`: N(0, initializer_range), norms one, router biases zero.

    A value depends on the seed, on the tensor's name in Hugging Face files and on its whole shape, never on how it is
    cut or on which rank asks.
    """
    for shard in named_shards(module):
        whole = first_value(shard.hf_name, shard.part.shape, config, seed)
        shard.local.copy_(shard.cut(whole))


def first_value(hf_name: str, shape: tuple[int, ...], config: ModelConfig, seed: int) -> Tensor:
    """The whole tensor, FP32."""
    if hf_name.endswith("norm.weight"):
        return torch.ones(shape)
    if hf_name.endswith("e_score_correction_bias"):
        return torch.zeros(shape)
    digest = hashlib.sha256(f"{seed}:{hf_name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn(shape, generator=generator) * config.initializer_range
