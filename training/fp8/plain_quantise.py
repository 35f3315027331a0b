"""The quantisers in torch's own operations, for any device: the reference, and what a CPU runs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training.fp8.groups import TILE
from training.fp8.qtensor import E4M3, E4M3_MAX, bytes_of, codes_of

SMALLEST_AMAX = 2.0**-100
"""Below it a tile is rounded on the grid of this amax: its scale stays finite, and zeros stay zeros."""


def rows(x: Tensor, *, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """x [..., n] -> codes [..., n], scales [..., ceil(n / 128)]; a scale is not finite where a value is not."""
    width, tile = x.shape[-1], _tile(x.shape[-1])
    wide = _pad(_wide(x), (0, -width % tile))
    codes, scale = _quantise(wide.unflatten(-1, (-1, tile)), (-1,), power_of_two)
    return _cut(codes.flatten(-2), width), scale.squeeze(-1)


def columns(x: Tensor, *, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """x [tokens, n], tokens a multiple of 128 -> codes [tokens, n], scales [tokens / 128, n]"""
    codes, scale = _quantise(_wide(x).unflatten(0, (-1, TILE)), (1,), power_of_two)
    return codes.flatten(0, 1), scale.squeeze(1)


def blocks(weight: Tensor, *, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """weight [..., m, n] -> codes [..., m, n], scales [..., ceil(m / 128), ceil(n / 128)]"""
    height, width = weight.shape[-2:]
    wide = _pad(_wide(weight), (0, -width % _tile(width), 0, -height % _tile(height)))
    tiles = wide.unflatten(-1, (-1, _tile(width))).unflatten(-3, (-1, _tile(height)))
    codes, scale = _quantise(tiles, (-1, -3), power_of_two)
    return _cut(codes.flatten(-4, -3).flatten(-2)[..., :height, :], width), scale.squeeze(-1).squeeze(-2)


def _wide(x: Tensor) -> Tensor:
    return x.detach().to(torch.float32, memory_format=torch.contiguous_format)


def _tile(size: int) -> int:
    """Whatever is shorter than a tile is one, without padding; the zeros would change nothing."""
    return max(1, min(size, TILE))


def _pad(x: Tensor, amounts: tuple[int, ...]) -> Tensor:
    return functional.pad(x, amounts) if any(amounts) else x


def _cut(codes: Tensor, width: int) -> Tensor:
    if codes.shape[-1] == width and codes.is_contiguous():
        return codes
    return codes_of(bytes_of(codes)[..., :width].contiguous())


def _quantise(tiles: Tensor, dims: tuple[int, ...], power_of_two: bool) -> tuple[Tensor, Tensor]:
    """`tiles` FP32; `dims` make up a tile. The clamp is there because casts disagree on overflow: some saturate, some
    give NaN; amax itself can land a rounding error above 448."""
    amax = tiles.abs()
    for dim in dims:
        amax = amax.amax(dim, keepdim=True)
    scale = amax.clamp_min_(SMALLEST_AMAX).mul_(1 / E4M3_MAX)  # torch would divide by it so on a GPU, but not on a CPU
    if power_of_two:
        scale = _next_power_of_two(scale)
    return (tiles * scale.reciprocal()).clamp_(-E4M3_MAX, E4M3_MAX).to(E4M3), scale


def _next_power_of_two(scale: Tensor) -> Tensor:
    """Rounds up, so that nothing overflows: one more than the exponent unless the mantissa is zero. NaN -> infinity."""
    return ((scale.view(torch.int32).clamp_max(0x7F800000) + 0x007FFFFF) & 0x7F800000).view(torch.float32)
