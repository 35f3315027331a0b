"""RMSNorm in FP32, whatever comes in and goes out. For its backward pass it keeps its input and one scale a token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from training.matmul import deposit_gradient, torch_dtype
from training.parallel.shards import Part, mark
from training.precision import PrecisionPolicy


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, op: str, policy: PrecisionPolicy) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        result = (wide * scale).mul_(weight.float())
        policy.observer(op, "compute", result)
        ctx.save_for_backward(x, scale)
        ctx.weight, ctx.total, ctx.op, ctx.policy = weight, getattr(weight, "fp32_gradient", None), op, policy
        return result.to(torch_dtype(policy.op(op).output))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        x, scale = ctx.saved_tensors
        normed = x.float() * scale
        wide = gradient.float()
        weight_gradient = (wide * normed).flatten(0, -2).sum(0)
        scaled = wide * ctx.weight.float()
        inner = (scaled * normed).mean(-1, keepdim=True)
        x_gradient = (scaled - normed * inner).mul_(scale).to(x.dtype)
        ctx.policy.observer(ctx.op, "weight_gradient", weight_gradient)
        ctx.policy.observer(ctx.op, "input_gradient", x_gradient)
        return x_gradient, deposit_gradient(ctx.weight, weight_gradient, ctx.total), None, None, None


class RmsNorm(nn.Module):
    def __init__(self, hf_name: str, width: int, eps: float, *, op: str, policy: PrecisionPolicy) -> None:
        super().__init__()
        self.eps, self.op, self.policy = eps, op, policy
        self.weight = nn.Parameter(torch.ones(width, dtype=torch_dtype(policy.parameter)))
        mark(self.weight, [Part(hf_name, (width,))])

    def forward(self, x: Tensor) -> Tensor:
        """x [..., width] -> [..., width] in the operation's output precision"""
        result = _RmsNorm.apply(x, self.weight, self.eps, self.op, self.policy)
        self.policy.observer(self.op, "output", result)
        return result
