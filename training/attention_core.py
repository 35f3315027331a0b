"""softmax(QK^T)V, which keeps nothing for its backward pass but what the table stores of Q, K and V.

The probabilities are computed again going back. Operands are BF16, sums and the softmax FP32; a CPU also leaves the
probabilities in FP32, where a GPU's kernel rounds them to BF16 for the second product.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.arithmetic import torch_dtype
from training.precision import PrecisionPolicy
from training.stored import keep, restore


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
    """q [batch, heads, sequence, d], k [batch, key heads, sequence, d], v [batch, key heads, sequence, d_v] -> [batch,
    heads, sequence, d_v] in the operation's output precision.

    Heads must be a multiple of key heads: each key head serves as many queries' heads, one behind the other. Raise
    NumericsError when something to be stored in FP8 is not finite (on a GPU `raise_if_non_finite` does).
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
        total = _forward(*values, causal=causal, scale=scale)
        if total.dtype is torch.float32:
            policy.observer(op, "accumulate", total)
        result = total.to(torch_dtype(policy.op(op).output))
        policy.observer(op, "output", result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        parts = len(ctx.saved_tensors) // 3
        kept = [ctx.saved_tensors[first : first + parts] for first in range(0, 3 * parts, parts)]
        q, k, v = (restore(each, name, ctx.policy) for each, name in zip(kept, ctx.stored_ops, strict=True))
        output = torch_dtype(ctx.policy.op(ctx.op).output)
        gradients = _backward(q, k, v, gradient, causal=ctx.causal, scale=ctx.scale)
        results = [each.to(output) for each in gradients]
        for result in results:
            ctx.policy.observer(ctx.op, "input_gradient", result)
        cast = (result.to(dtype) for result, dtype in zip(results, ctx.dtypes, strict=True))
        return *cast, None, None, None, None, None


def _forward(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
    if q.device.type != "cpu":
        return _kernel(q, k, v, causal=causal, scale=scale)
    rows = _grouped(q, k)
    return (_probabilities(rows, k, q.shape[2], causal, scale) @ v.float()).view(*q.shape[:-1], v.shape[-1])


def _backward(
    q: Tensor, k: Tensor, v: Tensor, gradient: Tensor, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    if q.device.type != "cpu":
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in (q, k, v)]
            result = _kernel(*leaves, causal=causal, scale=scale)
        gradients: tuple[Tensor, Tensor, Tensor] = torch.autograd.grad(result, leaves, gradient.to(result.dtype))
        return gradients
    rows, along = _grouped(q, k), _grouped(gradient, k)
    p = _probabilities(rows, k, q.shape[2], causal, scale)
    v_gradient = p.transpose(-1, -2) @ along
    inner = along @ v.float().transpose(-1, -2)
    inner.sub_((inner * p).sum(-1, keepdim=True)).mul_(p).mul_(scale)  # the gradient of q k^T
    return (inner @ k.float()).view(q.shape), inner.transpose(-1, -2) @ rows, v_gradient


def _kernel(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
    return functional.scaled_dot_product_attention(
        q, k, v, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )


def _grouped(x: Tensor, k: Tensor) -> Tensor:
    """[batch, heads, sequence, d] -> FP32 [batch, key heads, queries of one key head x sequence, d]"""
    return x.float().reshape(x.shape[0], k.shape[1], -1, x.shape[-1])


def _probabilities(rows: Tensor, k: Tensor, sequence: int, causal: bool, scale: float) -> Tensor:
    """Plain products: for heads of two widths they beat scaled_dot_product_attention on a CPU, both ways."""
    scores = (rows * scale) @ k.float().transpose(-1, -2)
    if causal:
        scores.unflatten(2, (-1, sequence)).masked_fill_(_future(sequence), float("-inf"))
    return scores.softmax(-1)


@functools.cache
def _future(sequence: int) -> Tensor:
    return torch.ones(sequence, sequence, dtype=torch.bool).triu_(1)
