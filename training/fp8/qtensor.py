"""E4M3 codes with their scales, and the way back to numbers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from training.fp8.groups import TILE

E4M3 = torch.float8_e4m3fn
E4M3_MAX = 448.0


class QTensor(NamedTuple):
    """Value = data * scale of its tile."""

    data: Tensor
    """E4M3, shaped as what was quantised."""

    scale: Tensor
    """FP32; a quantised dimension has one entry per 128 begun, the others one per element."""


def dequantise(q: QTensor) -> Tensor:
    """FP32 values. A dimension of `scale` as long as that of `data` has a scale per element, any other one per 128."""
    values = _decode(q.data)
    _multiply(values, q.scale * _FP16_BIAS)
    return values


def bytes_of(codes: Tensor) -> Tensor:
    """E4M3 codes as uint8: what networks and copies can handle."""
    return codes.view(torch.uint8)


def codes_of(raw: Tensor) -> Tensor:
    return raw.view(E4M3)


def _multiply(values: Tensor, scale: Tensor) -> None:
    """In place, tile by tile; a dimension that ends in a part of a tile is done in two pieces."""
    tiled = [dim for dim in (-1, -2)[: values.dim()] if scale.shape[dim] not in (1, values.shape[dim])]
    for dim in tiled:
        full, rest = divmod(values.shape[dim], TILE)
        if rest:
            _multiply(values.narrow(dim, 0, full * TILE), scale.narrow(dim, 0, full))
            _multiply(values.narrow(dim, full * TILE, rest), scale.narrow(dim, full, 1))
            return
    tiles = values
    if -1 in tiled:
        tiles, scale = tiles.unflatten(-1, (-1, TILE)), scale.unsqueeze(-1)
    if -2 in tiled:
        dim = -3 if -1 in tiled else -2
        tiles, scale = tiles.unflatten(dim, (-1, TILE)), scale.unsqueeze(dim)
    tiles.mul_(scale)


def _decode(codes: Tensor) -> Tensor:
    """FP32 values / 256. A CPU's cast from E4M3 is ten times slower than moving its bits into an FP16: 7 bits to the
    left lies the same number with a bias of 15 instead of 7. NaN comes out as 480, but then the scale is not finite."""
    if codes.device.type != "cpu":
        return codes.float().mul_(1 / _FP16_BIAS)
    moved = codes.view(torch.int8).to(torch.int16).mul_(128)  # its sign is in bits 14 and 15
    return moved.bitwise_and_(~0x4000).view(torch.float16).float()


_FP16_BIAS = 256.0
