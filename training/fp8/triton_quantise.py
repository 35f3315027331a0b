"""The quantisers as one kernel each: read once, write codes and scales. Without them a GPU passes over every tensor six
times and FP8 products lose what they won. Same arithmetic as quantise.py, whose plain version is the reference."""

# Triton would look annotations other than its own up at compile time.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from training.fp8.groups import TILE
from training.fp8.plain_quantise import SMALLEST_AMAX
from training.fp8.qtensor import E4M3

ROWS, COLUMNS = 32, 32
NUM_WARPS = 4


def rows(x: Tensor, *, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """x [..., width] -> codes [..., width], scales [..., ceil(width / 128)]"""
    flat, width = x.reshape(-1, x.shape[-1]).contiguous(), x.shape[-1]
    n, tiles = flat.shape[0], triton.cdiv(width, TILE)
    codes = torch.empty(x.shape, dtype=E4M3, device=x.device)
    scales = torch.empty(*x.shape[:-1], tiles, dtype=torch.float32, device=x.device)
    _launch(_rows, (triton.cdiv(n, ROWS), tiles), flat, codes, scales, n, width, tiles, power_of_two, ROWS)
    return codes, scales


def columns(x: Tensor, *, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """x [tokens, width], tokens a multiple of 128 -> codes [tokens, width], scales [tokens / 128, width].

    Both are views of transposes, so that the tokens are contiguous, as a product over them wants it.
    """
    tokens, width = x.shape
    tiles = tokens // TILE
    codes = torch.empty(width, tokens, dtype=E4M3, device=x.device)
    scales = torch.empty(width, tiles, dtype=torch.float32, device=x.device)
    grid = (tiles, triton.cdiv(width, COLUMNS))
    _launch(_columns, grid, x.contiguous(), codes, scales, tokens, width, tiles, power_of_two, COLUMNS)
    return codes.t(), scales.t()


def _launch(kernel, grid, x, codes, scales, length, width, tiles, power_of_two, block) -> None:
    if codes.numel():
        kernel[grid](
            x,
            codes,
            scales,
            length,
            width,
            tiles,
            SMALLEST_AMAX,
            power_of_two=power_of_two,
            block=block,
            tile=TILE,
            num_warps=NUM_WARPS,
            enable_fp_fusion=False,  # a product fused with a sum is rounded once where torch rounds twice
        )


@triton.jit
def _rows(
    x,
    codes,
    scales,
    length,
    width,
    tiles,
    smallest,
    power_of_two: tl.constexpr,
    block: tl.constexpr,
    tile: tl.constexpr,
):
    row, column = tl.program_id(0) * block + tl.arange(0, block), tl.program_id(1) * tile + tl.arange(0, tile)
    where = row.to(tl.int64)[:, None] * width + column[None, :]
    inside = (row[:, None] < length) & (column[None, :] < width)
    values = tl.load(x + where, mask=inside, other=0.0).to(tl.float32)
    scale = _scale(tl.abs(values), 1, smallest, power_of_two)
    tl.store(codes + where, _codes(values, scale[:, None]), mask=inside)
    tl.store(scales + row * tiles + tl.program_id(1), scale, mask=row < length)


@triton.jit
def _columns(
    x,
    codes,
    scales,
    length,
    width,
    tiles,
    smallest,
    power_of_two: tl.constexpr,
    block: tl.constexpr,
    tile: tl.constexpr,
):
    token, column = tl.program_id(0) * tile + tl.arange(0, tile), tl.program_id(1) * block + tl.arange(0, block)
    inside = (token[:, None] < length) & (column[None, :] < width)
    values = tl.load(x + token.to(tl.int64)[:, None] * width + column[None, :], mask=inside, other=0.0).to(tl.float32)
    scale = _scale(tl.abs(values), 0, smallest, power_of_two)
    turned = column.to(tl.int64)[None, :] * length + token[:, None]
    tl.store(codes + turned, _codes(values, scale[None, :]), mask=inside)
    tl.store(scales + column * tiles + tl.program_id(0), scale, mask=column < width)


@triton.jit
def _scale(sizes, axis: tl.constexpr, smallest, power_of_two: tl.constexpr):
    """Not finite where a value is not: a maximum may drop NaN, so it is looked for."""
    amax = tl.max(sizes, axis)
    bad = tl.max((sizes != sizes).to(tl.int32), axis) > 0
    amax = tl.where(bad, float("inf"), tl.where(amax < smallest, smallest, amax))
    scale = amax * (1 / 448)
    if power_of_two:
        scale = ((scale.to(tl.int32, bitcast=True) + 0x007FFFFF) & 0x7F800000).to(tl.float32, bitcast=True)
    return scale


@triton.jit
def _codes(values, scale):
    """Rounded before the cast, to nearest even, so that no cast's own rounding counts (the interpreter's is wrong)."""
    scaled = values * tl.div_rn(1.0, scale)
    bits = scaled.to(tl.int32, bitcast=True)
    normal = (bits + 0x0007FFFF + ((bits >> 20) & 1)) & -0x00100000  # three bits of mantissa stay
    # Below 2^-6 the grid is 2^-9, the last bit of an FP32 near 1.5 * 2^14. The sum forgets the sign of a zero.
    small = ((scaled + 24576.0) - 24576.0).to(tl.int32, bitcast=True) | ((bits >> 31) << 31)
    rounded = tl.where(tl.abs(scaled) < 0.015625, small, normal).to(tl.float32, bitcast=True)
    clamped = tl.where(rounded > 448.0, 448.0, tl.where(rounded < -448.0, -448.0, rounded))  # NaN passes
    return clamped.to(tl.float8e4nv)
