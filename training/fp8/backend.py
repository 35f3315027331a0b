"""Who multiplies FP8 operands: emulation anywhere, torch's block-wise `scaled_mm` on Hopper, or our Triton kernel."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from training.fp8.emulate import Emulate
from training.fp8.groups import TokenGroups
from training.fp8.quantise import QTensor


class Backend(Protocol):
    """Results are FP32, the accumulator, or already `output` where the device casts it itself."""

    @property
    def name(self) -> str: ...

    def weight(self, blocks: QTensor) -> Any:
        """What this backend keeps of a weight [groups, out, in] for its products."""
        ...

    def forward(self, x: QTensor, weight: Any, groups: TokenGroups, output: torch.dtype) -> Tensor:
        """x [tokens, in] with tiles along `in` -> [tokens, out]"""
        ...

    def input_gradient(self, gradient: QTensor, weight: Any, groups: TokenGroups, output: torch.dtype) -> Tensor:
        """gradient [tokens, out] with tiles along `out` -> [tokens, in]"""
        ...

    def weight_gradient(self, gradient: QTensor, x: QTensor, groups: TokenGroups) -> Tensor:
        """Both with tiles along the tokens -> FP32 [groups, out, in]"""
        ...


def pick(backend: str, device: torch.device) -> Backend:
    return Emulate()
