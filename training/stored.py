"""What is kept or sent in FP8 but not multiplied so: stored queries, keys and values, and the dispatch's payload."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.arithmetic import torch_dtype
from training.fp8.qtensor import QTensor, bytes_of, codes_of, dequantise
from training.fp8.quantise import quantise_rows
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
