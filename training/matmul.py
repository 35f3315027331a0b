"""The one entry to every matrix product of the model. A call names its operation; the precision table decides the rest.

Forward: tiles of x by blocks of W. Input gradient: tiles of dy by the same blocks. Weight gradient: tiles of dy and of
x along the tokens, both quantised from high precision. Every product accumulates in FP32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from training.arithmetic import Arithmetic, Weight, forward_arithmetic, torch_dtype, weight_gradient_arithmetic
from training.attention_core import attention_core
from training.fp8.finite import raise_if_non_finite
from training.fp8.groups import TokenGroups
from training.precision import PrecisionPolicy
from training.stored import dequantise_from_wire, quantise_for_wire, stored
from training.weight_cache import prepared, weight_cache

__all__ = [
    "attention_core",
    "deposit_gradient",
    "dequantise_from_wire",
    "grouped_linear",
    "linear",
    "quantise_for_wire",
    "raise_if_non_finite",
    "stored",
    "torch_dtype",
    "weight_cache",
]


def linear(x: Tensor, weight: Tensor, *, op: str, policy: PrecisionPolicy, bias: Tensor | None = None) -> Tensor:
    """x [..., in], weight [out, in], bias [out] -> [..., out] in the operation's output precision.

    When `weight.fp32_gradient` is a tensor during the forward pass, the FP32 weight gradient is added to it and the
    weight itself gets none; otherwise it gets one in its own dtype. The same holds for the bias. Raise NumericsError
    when FP8 operands are not finite (on a GPU `raise_if_non_finite` does), ConfigError when `op` is not in the table.
    """
    rows = x.reshape(-1, x.shape[-1])
    groups = TokenGroups((rows.shape[0],))
    return _apply(rows, weight, bias, groups, op, policy).view(*x.shape[:-1], weight.shape[0])


def grouped_linear(
    x: Tensor, weight: Tensor, tokens_per_expert: Sequence[int], *, op: str, policy: PrecisionPolicy
) -> Tensor:
    """x [tokens, in] sorted by expert, weight [experts, out, in] -> [tokens, out]; an expert may have no tokens."""
    return _apply(x, weight, None, TokenGroups.of(tokens_per_expert), op, policy)


def deposit_gradient(weight: Tensor, gradient: Tensor, total: Tensor | None) -> Tensor | None:
    """Add an FP32 gradient to `total` and return None; without it return the gradient in the weight's dtype.

    `total`: what `weight.fp32_gradient` was in the forward pass; a shared weight names another one for each use.
    """
    if total is None:
        return gradient.to(weight.dtype)
    total.add_(gradient)
    return None


def _apply(
    x: Tensor, weight: Tensor, bias: Tensor | None, groups: TokenGroups, op: str, policy: PrecisionPolicy
) -> Tensor:
    keep = torch.is_grad_enabled() and weight.requires_grad
    result: Tensor = _Linear.apply(x, weight, bias, groups, op, policy, keep)
    return result


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        groups: TokenGroups,
        op: str,
        policy: PrecisionPolicy,
        keep: bool,
    ) -> Tensor:
        box = policy.op(op)
        output = torch_dtype(box.output)
        arithmetic = forward_arithmetic(box, policy, x.device)
        prepared_weight = _prepared(weight, arithmetic, op)
        rows = arithmetic.rows(x, f"{op} input")
        total = arithmetic.forward(rows, prepared_weight.operand, groups, output)
        policy.observer(op, "compute", rows[0])
        policy.observer(op, "compute", prepared_weight.values)
        if keep:
            columns = weight_gradient_arithmetic(box, policy, x.device).columns(x, groups, f"{op} input")
            ctx.save_for_backward(*columns)
        ctx.weight, ctx.operand, ctx.arithmetic = weight, prepared_weight.operand, arithmetic
        ctx.total = getattr(weight, "fp32_gradient", None)
        ctx.bias, ctx.bias_total = bias, getattr(bias, "fp32_gradient", None)
        ctx.groups, ctx.op, ctx.policy, ctx.x_dtype = groups, op, policy, x.dtype
        return _leave(total, bias, op, policy, output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradient.contiguous()
        x_gradient = _input_gradient(ctx, gradient) if ctx.needs_input_grad[0] else None
        weight_gradient = _weight_gradient(ctx, gradient) if ctx.needs_input_grad[1] else None
        bias_gradient = None
        if ctx.bias is not None and ctx.needs_input_grad[2]:
            bias_gradient = deposit_gradient(ctx.bias, gradient.float().sum(0), ctx.bias_total)
        return x_gradient, weight_gradient, bias_gradient, None, None, None, None


def _prepared(weight: Tensor, arithmetic: Arithmetic, op: str) -> Weight:
    def make() -> Weight:
        return arithmetic.weight(weight if weight.dim() == 3 else weight.unsqueeze(0), f"{op} weight")

    result: Weight = prepared(weight, arithmetic, make)
    return result


def _leave(total: Tensor, bias: Tensor | None, op: str, policy: PrecisionPolicy, output: torch.dtype) -> Tensor:
    """From the accumulator to what the operation gives out."""
    if bias is not None:
        total = total + bias.to(total.dtype)
    if total.dtype is torch.float32:
        policy.observer(op, "accumulate", total)
    result = total.to(output)
    policy.observer(op, "output", result)
    return result


def _input_gradient(ctx: Any, gradient: Tensor) -> Tensor:
    output = torch_dtype(ctx.policy.op(ctx.op).output)
    rows = ctx.arithmetic.rows(gradient, f"{ctx.op} gradient")
    total = ctx.arithmetic.input_gradient(rows, ctx.operand, ctx.groups, output)
    result = total.to(output)
    ctx.policy.observer(ctx.op, "compute", rows[0])
    ctx.policy.observer(ctx.op, "input_gradient", result)
    return result.to(ctx.x_dtype)


def _weight_gradient(ctx: Any, gradient: Tensor) -> Tensor | None:
    arithmetic = weight_gradient_arithmetic(ctx.policy.op(ctx.op), ctx.policy, gradient.device)
    x = ctx.saved_tensors
    columns = arithmetic.columns(gradient, ctx.groups, f"{ctx.op} gradient")
    result = arithmetic.weight_gradient(columns, x, ctx.groups).view(ctx.weight.shape)
    ctx.policy.observer(ctx.op, "compute", columns[0])
    ctx.policy.observer(ctx.op, "compute", x[0])
    ctx.policy.observer(ctx.op, "weight_gradient", result)
    return deposit_gradient(ctx.weight, result, ctx.total)
