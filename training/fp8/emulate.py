"""The reference: values back from their codes, then one FP32 product. Runs on any device; nothing is faster on a CPU.

FP32 all the way is "FP32 accumulation" exactly, where a tensor core needs its partial sums promoted every 128.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.fp8.groups import TokenGroups
from training.fp8.qtensor import QTensor, dequantise
from training.products import multiply, multiply_over_tokens


class Emulate:
    """All results are FP32: the accumulator itself."""

    name = "emulate"

    def weight(self, blocks: QTensor) -> Tensor:
        return dequantise(blocks)

    def forward(self, x: QTensor, weight: Tensor, groups: TokenGroups, output: torch.dtype) -> Tensor:
        return multiply(dequantise(x), weight, groups)

    def input_gradient(self, gradient: QTensor, weight: Tensor, groups: TokenGroups, output: torch.dtype) -> Tensor:
        return multiply(dequantise(gradient), weight.transpose(-1, -2), groups)

    def weight_gradient(self, gradient: QTensor, x: QTensor, groups: TokenGroups) -> Tensor:
        return multiply_over_tokens(dequantise(gradient), dequantise(x), groups.padded_spans())
