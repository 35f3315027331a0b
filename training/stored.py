"""What is kept or sent in FP8 but not multiplied so: stored queries, keys and values, and the dispatch's payload."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.arithmetic import torch_dtype
from training.fp8.quantise import QTensor, bytes_of, codes_of, dequantise, quantise_rows
from training.precision import FP8, PrecisionPolicy


def stored(x: Tensor, *, op: str, policy: PrecisionPolicy) -> Tensor:
    """`x` rounded to the grid that the table stores it on, in the operation's output precision.

    FP8 tiles are 1x128 over the last dimension. The gradient passes straight through. Raise NumericsError as `linear`.
    """
    result: Tensor = _Stored.apply(x, op, policy)
    return result


def keep(x: Tensor, op: str, policy: PrecisionPolicy) -> tuple[Tensor, ...]:
    """What the backward pass keeps of `x`: codes and scales, or the values on the table's grid."""
    box = policy.op(op)
    if box.compute is FP8:
        kept: tuple[Tensor, ...] = quantise_rows(x, op, power_of_two=policy.power_of_two_scales)
    else:
        kept = (x.detach().to(torch_dtype(box.compute)),)
    policy.observer(op, "stored", kept[0])
    return kept


def restore(kept: tuple[Tensor, ...], op: str, policy: PrecisionPolicy) -> Tensor:
    """Back to values, in the operation's output precision."""
    values = dequantise(QTensor(*kept)) if len(kept) == 2 else kept[0]
    return values.to(torch_dtype(policy.op(op).output))


class _Stored(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, op: str, policy: PrecisionPolicy) -> Tensor:
        ctx.dtype = x.dtype
        result = restore(keep(x, op, policy), op, policy)
        policy.observer(op, "output", result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.to(ctx.dtype), None, None


def quantise_for_wire(x: Tensor, policy: PrecisionPolicy) -> tuple[Tensor, Tensor]:
    """x [tokens, h] -> codes as uint8 [tokens, h] (networks know no float8), FP32 scales [tokens, ceil(h / 128)]."""
    q = quantise_rows(x, "moe.dispatch", power_of_two=policy.power_of_two_scales)
    return bytes_of(q.data), q.scale


def dequantise_from_wire(payload: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """What `quantise_for_wire` made -> [tokens, h]"""
    return dequantise(QTensor(codes_of(payload), scales)).to(dtype)


def attention_core(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    op: str,
    stored_ops: tuple[str, str, str],
    policy: PrecisionPolicy,
    causal: bool = True,
    scale: float,
) -> Tensor:
    """softmax(scale q k^T) v: q [batch, heads, sequence, d], k [batch, key heads, sequence, d], v [batch, key heads,
    sequence, d_v] -> [batch, heads, sequence, d_v] in the operation's output precision.

    Heads must be a multiple of key heads. The backward pass keeps q, k and v as the table stores them, nothing else.
    """
    result: Tensor = _Core.apply(q, k, v, op, stored_ops, policy, causal, scale)
    return result


class _Core(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        op: str,
        stored_ops: tuple[str, str, str],
        policy: PrecisionPolicy,
        causal: bool,
        scale: float,
    ) -> Tensor:
        kept = [keep(x, name, policy) for x, name in zip((q, k, v), stored_ops, strict=True)]
        ctx.save_for_backward(*kept[0], *kept[1], *kept[2])
        ctx.op, ctx.stored_ops, ctx.policy, ctx.causal, ctx.scale = op, stored_ops, policy, causal, scale
        ctx.dtypes = q.dtype, k.dtype, v.dtype
        values = [restore(each, name, policy) for each, name in zip(kept, stored_ops, strict=True)]
        for value, name in zip(values, stored_ops, strict=True):
            policy.observer(name, "output", value)
            policy.observer(op, "compute", value)
        total = _attend(*(_wide(value) for value in values), causal=causal, scale=scale)
        if total.dtype is torch.float32:
            policy.observer(op, "accumulate", total)
        result = total.to(torch_dtype(policy.op(op).output))
        policy.observer(op, "output", result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        each = len(ctx.saved_tensors) // 3
        with torch.enable_grad():
            values = [
                _wide(restore(ctx.saved_tensors[i * each : (i + 1) * each], name, ctx.policy)).requires_grad_()
                for i, name in enumerate(ctx.stored_ops)
            ]
            total = _attend(*values, causal=ctx.causal, scale=ctx.scale)
        gradients = torch.autograd.grad(total, values, gradient.to(total.dtype))
        output = torch_dtype(ctx.policy.op(ctx.op).output)
        results = [each.to(output) for each in gradients]
        for result in results:
            ctx.policy.observer(ctx.op, "input_gradient", result)
        return (
            *(result.to(dtype) for result, dtype in zip(results, ctx.dtypes, strict=True)),
            None,
            None,
            None,
            None,
            None,
        )


def _wide(x: Tensor) -> Tensor:
    """On a CPU FP32 is faster than BF16, and a GPU's attention kernel accumulates BF16 operands in FP32 itself."""
    return x.detach().float() if x.device.type == "cpu" else x.detach()


def _attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
    return functional.scaled_dot_product_attention(
        q, k, v, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )
