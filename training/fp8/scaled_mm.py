"""torch's own block-wise FP8 product (cuBLASLt's, from CUDA 12.9 on), which exists on Hopper only.

What `torch.nn.functional.scaled_mm` demands for a [m, k] times b^T, b [n, k] (ATen/native/cuda/ScaledBlas.cpp): scales
of 1x128 tiles as [m, k / 128] with strides (1, m); scales of 128x128 blocks as [k / 128 rounded up to 4, n / 128] with
strides (1, its number of rows); b^T as a view of b, so that k is contiguous in both. Sizes are padded to 128 here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.fp8.groups import padded
from training.fp8.qtensor import QTensor, bytes_of, codes_of

SCALE_ROWS = 4
"""Block scales come in fours: 16 bytes, the alignment of cuBLASLt."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    capability: tuple[int, int] | None
    """Of the GPU; None: not one of NVIDIA's."""

    cuda: tuple[int, int] | None
    """What torch was built with."""

    has_scaled_mm: bool


def device_facts(device: torch.device) -> DeviceFacts:
    cuda = torch.version.cuda
    return DeviceFacts(
        capability=torch.cuda.get_device_capability(device) if device.type == "cuda" else None,
        cuda=None if cuda is None else (int(cuda.split(".")[0]), int(cuda.split(".")[1])),
        has_scaled_mm=hasattr(functional, "scaled_mm"),
    )


def why_not(facts: DeviceFacts) -> str | None:
    """Why this device cannot do it; None when it should be able to."""
    if facts.capability is None:
        return "no CUDA device"
    if facts.capability[0] != 9:
        return f"block-wise scaled_mm needs compute capability 9, this is {facts.capability[0]}.{facts.capability[1]}"
    if facts.cuda is None or facts.cuda < (12, 9):
        return "block-wise scaled_mm needs a torch built with CUDA 12.9 or newer"
    if not facts.has_scaled_mm:
        return "this torch has no torch.nn.functional.scaled_mm"
    return None


def multiply(a: QTensor, b: QTensor, output: torch.dtype) -> Tensor:
    """a [m, k] with 1x128 tiles, b [n, k] with 1x128 tiles or 128x128 blocks -> a b^T [m, n]; any sizes."""
    kinds = functional.ScalingType
    m, n = a.data.shape[0], b.data.shape[0]
    left, right = _padded(a.data), _padded(b.data)
    in_blocks = b.scale.shape[0] != n
    result = functional.scaled_mm(
        left,
        right.t(),
        tile_scales(a.scale),
        kinds.BlockWise1x128,
        block_scales(b.scale) if in_blocks else tile_scales(b.scale),
        kinds.BlockWise128x128 if in_blocks else kinds.BlockWise1x128,
        output_dtype=output,
    )
    return result[:m, :n]


def tile_scales(scale: Tensor) -> Tensor:
    """[rows, k / 128] -> [rows padded to 128, k / 128] with strides (1, rows)"""
    rows = scale.shape[0]
    return functional.pad(scale.t(), (0, padded(rows) - rows)).contiguous().t()


def block_scales(scale: Tensor) -> Tensor:
    """[n / 128, k / 128] -> [k / 128 rounded up to 4, n / 128] with strides (1, its number of rows)"""
    return functional.pad(scale, (0, -scale.shape[1] % SCALE_ROWS)).contiguous().t()


def _padded(codes: Tensor) -> Tensor:
    rows, columns = codes.shape
    amounts = (0, padded(columns) - columns, 0, padded(rows) - rows)
    raw = bytes_of(codes)
    return codes_of((functional.pad(raw, amounts) if any(amounts) else raw).contiguous())  # byte 0 is the number 0
