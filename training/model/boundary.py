"""A named tensor between two operations: it leaves in the precision that the table gives it."""

from __future__ import annotations

from torch import Tensor

from training.matmul import torch_dtype
from training.precision import PrecisionPolicy


def boundary(x: Tensor, op: str, policy: PrecisionPolicy) -> Tensor:
    """`x` in the operation's output precision. The observer sees it, and its gradient when that is there."""
    result = x.to(torch_dtype(policy.op(op).output))
    policy.observer(op, "output", result)
    if result.requires_grad:
        result.register_hook(lambda gradient: policy.observer(op, "input_gradient", gradient))
    return result
