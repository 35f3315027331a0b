"""Rotary position embedding (arXiv 2104.09864), computed in FP32."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from training.model.rope_config import Rope, yarn_scale


def inverse_frequencies(rope: Rope, width: int) -> Tensor:
    """FP32 [width / 2], stretched as `rope` says; the formulas are those of transformers' `modeling_rope_utils`."""
    plain = 1.0 / (rope.theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width))
    match rope.kind:
        case "linear":
            return plain / _given(rope.factor)
        case "yarn":
            return _yarn(rope, plain, width)
        case "llama3":
            return _llama3(rope, plain)
        case _:
            return plain


def _given(value: float | None) -> float:
    assert value is not None, "Rope checks what its kind needs"
    return value


def _yarn(rope: Rope, plain: Tensor, width: int) -> Tensor:
    """arXiv 2309.00071: slow dimensions are interpolated, fast ones left, with a ramp between."""
    texts = _given(rope.original_max_position_embeddings)

    def dimension(rotations: float) -> float:
        return width * math.log(texts / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low = max(math.floor(dimension(rope.beta_fast or 32.0)), 0)
    high = min(math.ceil(dimension(rope.beta_slow or 1.0)), width - 1)
    ramp = (torch.arange(width // 2, dtype=torch.float32) - low) / max(high - low, 0.001)
    interpolated = ramp.clamp(0, 1)
    return plain / _given(rope.factor) * interpolated + plain * (1 - interpolated)


def _llama3(rope: Rope, plain: Tensor) -> Tensor:
    factor, low, high = _given(rope.factor), _given(rope.low_freq_factor), _given(rope.high_freq_factor)
    texts = _given(rope.original_max_position_embeddings)
    smooth = ((texts * plain / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
    return (1 - smooth) * plain / factor + smooth * plain


def amplitude(rope: Rope) -> float:
    """By what Yarn multiplies queries and keys."""
    if rope.kind != "yarn":
        return 1.0
    if rope.attention_factor is not None:
        return rope.attention_factor
    factor = _given(rope.factor)
    if rope.mscale and rope.mscale_all_dim:
        return yarn_scale(factor, rope.mscale) / yarn_scale(factor, rope.mscale_all_dim)
    return yarn_scale(factor)


@lru_cache(maxsize=8)
@torch.inference_mode(mode=False)  # kept for later, so whoever trains may use what an inference asked for first
def rotation(rope: Rope, width: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines, FP32 [length, 1, width / 2], of positions 0 to length - 1."""
    angles = torch.arange(length, dtype=torch.float32).outer(inverse_frequencies(rope, width)).unsqueeze(1)
    return (angles.cos() * amplitude(rope)).to(device), (angles.sin() * amplitude(rope)).to(device)


def rotate(x: Tensor, rope: Rope, *, interleave: bool) -> Tensor:
    """x [batch, sequence, heads, width] -> the same shape and dtype, the rotated pairs' first halves in front."""
    cosine, sine = rotation(rope, x.shape[-1], x.shape[1], x.device)
    wide = x.float()
    first, second = (wide[..., 0::2], wide[..., 1::2]) if interleave else wide.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).to(x.dtype)
