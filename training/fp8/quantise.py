"""Into E4M3, with one FP32 scale per 1x128 tile (activations, gradients) or 128x128 block (weights).

The scale comes from the values themselves each time ("online"), so ranks that hold parts of a tensor need not agree on
anything. Sizes that 128 does not divide are padded with zeros inside; nobody outside sees the padding. The recipe is
DeepSeek-V3's (arXiv 2412.19437, section 3.3). Every function raises NumericsError naming `what` when a value is not
finite; on a GPU `raise_if_non_finite` does.
"""

from __future__ import annotations

from torch import Tensor

from training.fp8 import plain_quantise
from training.fp8.finite import WATCH
from training.fp8.fused import quantisers
from training.fp8.groups import TokenGroups
from training.fp8.qtensor import QTensor, dequantise

__all__ = ["QTensor", "dequantise", "quantise_blocks", "quantise_columns", "quantise_rows"]


def quantise_rows(x: Tensor, what: str, *, power_of_two: bool = False) -> QTensor:
    """1x128 tiles along the last dimension: x [..., n] -> data [..., n], scale [..., ceil(n / 128)]."""
    return _watched(quantisers(x.device).rows(x.detach(), power_of_two=power_of_two), what)


def quantise_columns(x: Tensor, groups: TokenGroups, what: str, *, power_of_two: bool = False) -> QTensor:
    """Tiles along the tokens, for a product over tokens: x [tokens, n] -> data [padded tokens, n], scale
    [padded tokens / 128, n]. From the high-precision tensor: codes with scales along n would be rounded twice."""
    return _watched(quantisers(x.device).columns(groups.pad(x.detach()), power_of_two=power_of_two), what)


def quantise_blocks(weight: Tensor, what: str, *, power_of_two: bool = False) -> QTensor:
    """128x128 blocks: weight [..., m, n] -> data [..., m, n], scale [..., ceil(m / 128), ceil(n / 128)].

    The transpose needs no second quantisation: a block is the same both ways.
    """
    return _watched(plain_quantise.blocks(weight, power_of_two=power_of_two), what)


def _watched(result: tuple[Tensor, Tensor], what: str) -> QTensor:
    q = QTensor(*result)
    WATCH.look(q.scale, what)
    return q
