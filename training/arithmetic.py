"""The three products of a linear layer (output, input gradient, weight gradient) on the grid that the table names."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from training.fp8.backend import Backend, pick
from training.fp8.groups import TokenGroups
from training.fp8.qtensor import E4M3, QTensor
from training.fp8.quantise import quantise_blocks, quantise_columns, quantise_rows
from training.precision import BF16, FP8, FP32, Op, Precision, PrecisionPolicy
from training.products import multiply, multiply_over_tokens

Operand = tuple[Tensor, ...]
"""A QTensor, or the values alone: what autograd can save."""


class Weight(NamedTuple):
    values: Tensor
    """[groups, out, in] on the grid: what the observer is shown."""

    operand: Any
    """What the products take."""


class Arithmetic(Hashable, Protocol):
    """Products are FP32, the accumulator, or already `output` where the device casts it itself."""

    def rows(self, x: Tensor, what: str) -> Operand:
        """x [tokens, width] for a product over the width."""
        ...

    def columns(self, x: Tensor, groups: TokenGroups, what: str) -> Operand:
        """The same for a product over the tokens."""
        ...

    def weight(self, weight: Tensor, what: str) -> Weight: ...

    def forward(self, x: Operand, weight: Any, groups: TokenGroups, output: torch.dtype) -> Tensor:
        """[tokens, in] -> [tokens, out]"""
        ...

    def input_gradient(self, gradient: Operand, weight: Any, groups: TokenGroups, output: torch.dtype) -> Tensor:
        """[tokens, out] -> [tokens, in]"""
        ...

    def weight_gradient(self, gradient: Operand, x: Operand, groups: TokenGroups) -> Tensor:
        """FP32 [groups, out, in]"""
        ...


@dataclass(frozen=True, slots=True)
class Fp8:
    backend: Backend
    power_of_two: bool

    def rows(self, x: Tensor, what: str) -> Operand:
        return quantise_rows(x, what, power_of_two=self.power_of_two)

    def columns(self, x: Tensor, groups: TokenGroups, what: str) -> Operand:
        return quantise_columns(x, groups, what, power_of_two=self.power_of_two)

    def weight(self, weight: Tensor, what: str) -> Weight:
        blocks = quantise_blocks(weight, what, power_of_two=self.power_of_two)
        return Weight(blocks.data, self.backend.weight(blocks))

    def forward(self, x: Operand, weight: Any, groups: TokenGroups, output: torch.dtype) -> Tensor:
        return self.backend.forward(QTensor(*x), weight, groups, output)

    def input_gradient(self, gradient: Operand, weight: Any, groups: TokenGroups, output: torch.dtype) -> Tensor:
        return self.backend.input_gradient(QTensor(*gradient), weight, groups, output)

    def weight_gradient(self, gradient: Operand, x: Operand, groups: TokenGroups) -> Tensor:
        return self.backend.weight_gradient(QTensor(*gradient), QTensor(*x), groups)


@dataclass(frozen=True, slots=True)
class Plain:
    """BF16 or FP32."""

    dtype: torch.dtype

    def rows(self, x: Tensor, what: str) -> Operand:
        return (x.to(self.dtype),)

    def columns(self, x: Tensor, groups: TokenGroups, what: str) -> Operand:
        return (x.to(self.dtype),)

    def weight(self, weight: Tensor, what: str) -> Weight:
        values = weight.detach().to(self.dtype)
        return Weight(values, values)

    def forward(self, x: Operand, weight: Any, groups: TokenGroups, output: torch.dtype) -> Tensor:
        return multiply(x[0], weight, groups, output)

    def input_gradient(self, gradient: Operand, weight: Any, groups: TokenGroups, output: torch.dtype) -> Tensor:
        return multiply(gradient[0], weight.transpose(-1, -2), groups, output)

    def weight_gradient(self, gradient: Operand, x: Operand, groups: TokenGroups) -> Tensor:
        return multiply_over_tokens(gradient[0], x[0], groups.spans())


def torch_dtype(precision: Precision) -> torch.dtype:
    return _DTYPES[precision]


_DTYPES = {FP8: E4M3, BF16: torch.bfloat16, FP32: torch.float32}


def forward_arithmetic(op: Op, policy: PrecisionPolicy, device: torch.device) -> Arithmetic:
    """For the output and the input gradient."""
    return _arithmetic(op.compute, policy, device)


def weight_gradient_arithmetic(op: Op, policy: PrecisionPolicy, device: torch.device) -> Arithmetic:
    return _arithmetic(policy.weight_gradient if op.compute is FP8 else op.compute, policy, device)


def _arithmetic(precision: Precision, policy: PrecisionPolicy, device: torch.device) -> Arithmetic:
    if precision is FP8:
        return Fp8(pick(policy.backend, device), policy.power_of_two_scales)
    return Plain(torch_dtype(precision))
