"""Into E4M3 and back, with one FP32 scale per 1x128 tile (activations, gradients) or 128x128 block (weights).

The scale comes from the values themselves each time ("online"), so ranks that hold parts of a tensor need not agree on
anything. Sizes that 128 does not divide are padded with zeros inside; nobody outside sees the padding. The recipe is
DeepSeek-V3's (arXiv 2412.19437, section 3.3).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from training.fp8.finite import WATCH
from training.fp8.groups import TILE, TokenGroups

E4M3 = torch.float8_e4m3fn
E4M3_MAX = 448.0
SMALLEST_AMAX = 2.0**-100
"""Below it a tile is rounded on the grid of this amax: its scale stays finite, and zeros stay zeros."""


class QTensor(NamedTuple):
    """Value = data * scale of its tile."""

    data: Tensor
    """E4M3, shaped as what was quantised."""

    scale: Tensor
    """FP32; a quantised dimension has one entry per 128 begun, the others one per element."""


def quantise_rows(x: Tensor, what: str, *, power_of_two: bool = False) -> QTensor:
    """1x128 tiles along the last dimension: x [..., n] -> data [..., n], scale [..., ceil(n / 128)].

    Raise NumericsError naming `what` when a value is not finite; on a GPU `raise_if_non_finite` does.
    """
    width, tile = x.shape[-1], _tile(x.shape[-1])
    wide = _pad(_wide(x), (0, -width % tile))
    data, scale = _quantise(wide.unflatten(-1, (-1, tile)), (-1,), what, power_of_two)
    return QTensor(_cut(data.flatten(-2), width), scale.squeeze(-1))


def quantise_columns(x: Tensor, groups: TokenGroups, what: str, *, power_of_two: bool = False) -> QTensor:
    """Tiles along the tokens, for a product over tokens: x [tokens, n] -> data [padded tokens, n], scale
    [padded tokens / 128, n]. From the high-precision tensor: codes with scales along n would be rounded twice."""
    wide = groups.pad(_wide(x))
    data, scale = _quantise(wide.unflatten(0, (-1, TILE)), (1,), what, power_of_two)
    return QTensor(data.flatten(0, 1), scale.squeeze(1))


def quantise_blocks(weight: Tensor, what: str, *, power_of_two: bool = False) -> QTensor:
    """128x128 blocks: weight [..., m, n] -> data [..., m, n], scale [..., ceil(m / 128), ceil(n / 128)].

    The transpose needs no second quantisation: a block is the same both ways.
    """
    rows, columns = weight.shape[-2:]
    wide = _pad(_wide(weight), (0, -columns % _tile(columns), 0, -rows % _tile(rows)))
    blocks = wide.unflatten(-1, (-1, _tile(columns))).unflatten(-3, (-1, _tile(rows)))
    data, scale = _quantise(blocks, (-1, -3), what, power_of_two)
    data = data.flatten(-4, -3).flatten(-2)
    return QTensor(_cut(data[..., :rows, :], columns), scale.squeeze(-1).squeeze(-2))


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


def _quantise(tiles: Tensor, dims: tuple[int, ...], what: str, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """`tiles` FP32; `dims` make up a tile. The clamp is there because casts disagree on overflow: some saturate, some
    give NaN; amax itself can land a rounding error above 448."""
    amax = tiles.abs()
    for dim in dims:
        amax = amax.amax(dim, keepdim=True)
    WATCH.look(amax, what)
    scale = amax.clamp_min_(SMALLEST_AMAX).div_(E4M3_MAX)
    if power_of_two:
        scale = _next_power_of_two(scale)
    return (tiles * scale.reciprocal()).clamp_(-E4M3_MAX, E4M3_MAX).to(E4M3), scale


def _next_power_of_two(scale: Tensor) -> Tensor:
    """Rounds up, so that nothing overflows: one more than the exponent unless the mantissa is zero already."""
    return ((scale.view(torch.int32) + 0x007FFFFF) & 0x7F800000).view(torch.float32)


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
