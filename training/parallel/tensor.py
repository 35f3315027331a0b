"""Tensor parallelism: f and g of Megatron-LM (arXiv 1909.08053, section 3) and linears cut by column or row.

Sums over the tensor axis run in FP32: in BF16 a row-parallel product is off by 3.5e-3 instead of 3e-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from training.matmul import linear, torch_dtype
from training.parallel.context import Axis, ParallelContext
from training.parallel.counted import all_reduce
from training.parallel.shards import Part, cut_rows, cut_width, mark
from training.precision import FP32, PrecisionPolicy


class _Copy(torch.autograd.Function):
    """f: the same tensors on every rank; their gradients are summed in one call."""

    @staticmethod
    def forward(ctx: Any, axis: Axis, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.axis = axis
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        flat = torch.cat([gradient.reshape(-1).float() for gradient in gradients])
        all_reduce(flat, ctx.axis, name="copy_backward")
        pieces = flat.split([gradient.numel() for gradient in gradients])
        return None, *(
            piece.view(gradient.shape).to(gradient.dtype) for piece, gradient in zip(pieces, gradients, strict=True)
        )


class _Reduce(torch.autograd.Function):
    """g: the sum over the ranks; its gradient is the same for every summand."""

    @staticmethod
    def forward(ctx: Any, axis: Axis, name: str, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        all_reduce(total, axis, name=name)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        return None, None, gradient


def copy_to_tensor_axis(tensor: Tensor, context: ParallelContext) -> Tensor:
    """f. What a tensor-parallel part reads must pass through it, or gradients before it lack the other ranks' share."""
    return copy_all_to_tensor_axis((tensor,), context)[0]


def copy_all_to_tensor_axis(tensors: Sequence[Tensor], context: ParallelContext) -> tuple[Tensor, ...]:
    """f of several tensors: one all-reduce in the backward pass."""
    if context.tensor.size == 1:
        return tuple(tensors)
    return tuple(_Copy.apply(context.tensor, *tensors))


def reduce_from_tensor_axis(partial: Tensor, context: ParallelContext, dtype: torch.dtype) -> Tensor:
    """g: the FP32 sum of every rank's `partial`, as `dtype`."""
    if context.tensor.size > 1:
        partial = _Reduce.apply(context.tensor, "reduce", partial.float())
    return partial.to(dtype)


def reduce_exactly(partial: Tensor, context: ParallelContext, *, name: str) -> Tensor:
    """g in the dtype of `partial`, where at most one rank's value is not zero."""
    return partial if context.tensor.size == 1 else _Reduce.apply(context.tensor, name, partial)


def new_parameter(shape: Sequence[int], policy: PrecisionPolicy, parts: Sequence[Part]) -> nn.Parameter:
    """Not a number anywhere, so that a value nobody set shows in the first loss."""
    parameter = nn.Parameter(torch.full(tuple(shape), float("nan"), dtype=torch_dtype(policy.parameter)))
    mark(parameter, parts)
    return parameter


class Linear(nn.Module):
    """A weight that every rank of the tensor axis holds whole."""

    def __init__(self, hf_name: str, columns: int, rows: int, *, op: str, policy: PrecisionPolicy) -> None:
        super().__init__()
        self.op, self.policy = op, policy
        self.weight = new_parameter((rows, columns), policy, [Part(hf_name, (rows, columns))])

    def forward(self, x: Tensor) -> Tensor:
        """x [..., columns] -> [..., rows]"""
        return linear(x, self.weight, op=self.op, policy=self.policy)


class ColumnLinear(nn.Module):
    """This rank's rows of one or several weights that read the same x. x must have passed through f."""

    def __init__(
        self,
        names: Sequence[tuple[str, int]],
        columns: int,
        *,
        op: str,
        policy: PrecisionPolicy,
        context: ParallelContext,
    ) -> None:
        """`names` gives each weight's name and its rows over all ranks."""
        super().__init__()
        self.op, self.policy = op, policy
        parts = cut_rows(names, columns, context.tensor)
        self.rows = [rows // context.tensor.size for _, rows in names]
        self.weight = new_parameter((sum(self.rows), columns), policy, parts)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., columns] -> [..., rows of this rank], one weight's behind the other's (`self.rows`)"""
        return linear(x, self.weight, op=self.op, policy=self.policy)


class RowLinear(nn.Module):
    """This rank's columns of a weight: x holds this rank's share of the inner dimension."""

    def __init__(
        self, hf_name: str, columns: int, rows: int, *, op: str, policy: PrecisionPolicy, context: ParallelContext
    ) -> None:
        super().__init__()
        self.context = context
        self.op, self.policy = op, policy if context.tensor.size == 1 else _with_fp32_output(op, policy)
        self.output = torch_dtype(policy.op(op).output)
        axis = context.tensor
        cut_dim = 1 if axis.size > 1 else None
        part = Part(hf_name, (rows, columns), (), cut_dim, axis.rank, axis.size)
        self.weight = new_parameter((rows, cut_width(columns, axis, hf_name)), policy, [part])

    def forward(self, x: Tensor, *, reduce: bool = True) -> Tensor:
        """x [..., columns of this rank] -> [..., rows], the same on every rank.

        Without `reduce`, this rank's summand: FP32 where there are others.
        """
        summand = linear(x, self.weight, op=self.op, policy=self.policy)
        return reduce_from_tensor_axis(summand, self.context, self.output) if reduce else summand


def _with_fp32_output(op: str, policy: PrecisionPolicy) -> PrecisionPolicy:
    """A summand leaves the GEMM as it was accumulated; the sum is rounded, once."""
    return replace(policy, table={**policy.table, op: replace(policy.op(op), output=FP32)})
