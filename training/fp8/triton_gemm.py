"""Our own FP8 product: 1x128 tiles by 128x128 blocks, or tiles by tiles, each 128 of K promoted to FP32.

A Hopper tensor core adds FP8 products up in about 14 bits, so a new sum starts every 128 and is added, scaled, to an
FP32 one (DeepSeek-V3's report, arXiv 2412.19437, section 3.3.2). With TRITON_INTERPRET=1 in the environment before
Triton is first imported, the kernel runs on a CPU, slowly.
"""
# Triton would look annotations other than its own up at compile time.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from training.fp8.groups import TILE
from training.fp8.qtensor import QTensor

BLOCK_M, BLOCK_N, GROUP_M = 128, 128, 8
NUM_WARPS, NUM_STAGES = 8, 3


def interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def multiply(a: QTensor, b: QTensor, output: torch.dtype) -> Tensor:
    """a [m, k] with 1x128 tiles, b [n, k] with 1x128 tiles or 128x128 blocks -> a b^T [m, n]; any sizes."""
    (m, k), n = a.data.shape, b.data.shape[0]
    result = torch.empty(m, n, dtype=output, device=a.data.device)
    grid = (triton.cdiv(m, BLOCK_M) * triton.cdiv(n, BLOCK_N),)
    _kernel[grid](
        a.data,
        b.data,
        result,
        a.scale,
        b.scale,
        m,
        n,
        k,
        *a.data.stride(),
        *b.data.stride(),
        *a.scale.stride(),
        *b.scale.stride(),
        k_tiles=triton.cdiv(k, TILE),
        b_in_blocks=b.scale.shape[0] != n,
        block_m=BLOCK_M,
        block_n=BLOCK_N,
        block_k=TILE,
        group_m=GROUP_M,
        num_warps=NUM_WARPS,
        num_stages=NUM_STAGES,
    )
    return result


@triton.jit
def _kernel(
    a,
    b,
    c,
    a_scale,
    b_scale,
    m,
    n,
    k,
    a_row,
    a_column,
    b_row,
    b_column,
    a_scale_row,
    a_scale_column,
    b_scale_row,
    b_scale_column,
    k_tiles,
    b_in_blocks: tl.constexpr,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
    group_m: tl.constexpr,
):
    first_m, first_n = _place(tl.program_id(0), m, n, block_m, block_n, group_m)
    rows, columns, inner = first_m + tl.arange(0, block_m), first_n + tl.arange(0, block_n), tl.arange(0, block_k)
    total = tl.zeros((block_m, block_n), dtype=tl.float32)
    for tile in tl.range(k_tiles):
        along = tile * block_k + inner
        left = tl.load(
            a + rows[:, None] * a_row + along[None, :] * a_column,
            mask=(rows[:, None] < m) & (along[None, :] < k),
            other=0.0,
        )
        right = tl.load(
            b + columns[None, :] * b_row + along[:, None] * b_column,
            mask=(columns[None, :] < n) & (along[:, None] < k),
            other=0.0,
        )
        left_scale = tl.load(a_scale + rows * a_scale_row + tile * a_scale_column, mask=rows < m, other=0.0)
        right_rows = columns // block_k if b_in_blocks else columns
        right_scale = tl.load(b_scale + right_rows * b_scale_row + tile * b_scale_column, mask=columns < n, other=0.0)
        total += tl.dot(left, right, out_dtype=tl.float32) * left_scale[:, None] * right_scale[None, :]
    where = c + rows[:, None] * n + columns[None, :]
    tl.store(where, total.to(c.dtype.element_ty), mask=(rows[:, None] < m) & (columns[None, :] < n))


@triton.jit
def _place(program, m, n, block_m: tl.constexpr, block_n: tl.constexpr, group_m: tl.constexpr):
    """Programs that run at the same time share rows of a and columns of b in the cache."""
    across = tl.cdiv(n, block_n)
    group = program // (group_m * across)
    high = tl.minimum(tl.cdiv(m, block_m) - group * group_m, group_m)
    inside = program % (group_m * across)
    return (group * group_m + inside % high) * block_m, inside // high * block_n
