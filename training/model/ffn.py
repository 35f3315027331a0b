"""SwiGLU feed-forward: a dense layer's, a shared expert's, and the activation that routed experts use too."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  torch's own name for it
from torch import Tensor, nn

from training.parallel.context import ParallelContext
from training.parallel.tensor import ColumnLinear, RowLinear, copy_to_tensor_axis
from training.precision import PrecisionPolicy


class _SwiGlu(torch.autograd.Function):
    """In FP32 inside; keeps only its input and computes the rest again (arXiv 2412.19437, section 3.3.3)."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.float().chunk(2, dim=-1)
        return F.silu(gate).mul_(up).to(gate_up.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.float().chunk(2, dim=-1)
        wide, sigmoid = gradient.float(), torch.sigmoid(gate)
        activated = gate * sigmoid
        slope = sigmoid + activated * (1 - sigmoid)
        return torch.cat([wide * up * slope, wide * activated], dim=-1).to(gate_up.dtype)


def swiglu(gate_up: Tensor) -> Tensor:
    """[..., 2 * width], the gate in front -> silu(gate) * up [..., width]"""
    return _SwiGlu.apply(gate_up)


class FeedForward(nn.Module):
    def __init__(
        self, prefix: str, hidden: int, width: int, *, op: str, policy: PrecisionPolicy, context: ParallelContext
    ) -> None:
        super().__init__()
        self.context = context
        names = [(f"{prefix}gate_proj.weight", width), (f"{prefix}up_proj.weight", width)]
        self.gate_up = ColumnLinear(names, hidden, op=op, policy=policy, context=context)
        self.down = RowLinear(f"{prefix}down_proj.weight", width, hidden, op=op, policy=policy, context=context)

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., hidden]"""
        return self.down(swiglu(self.gate_up(copy_to_tensor_axis(x, self.context))))

    def summand(self, x: Tensor) -> Tensor:
        """x [..., hidden], which has passed through f -> [..., hidden], this tensor rank's share"""
        return self.down(swiglu(self.gate_up(x)), reduce=False)
