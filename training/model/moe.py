"""Mixture of experts as in DeepSeek-V3: sigmoid scores, groups, a bias that balances, shared experts, nothing dropped.

Routing follows transformers' DeepseekV3TopkRouter; the bias chooses experts but does not weight them
(arXiv 2412.19437, section 2.1.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from training.matmul import grouped_linear, linear, torch_dtype
from training.model.boundary import boundary
from training.model.config import ModelConfig
from training.model.ffn import FeedForward, swiglu
from training.parallel.context import ParallelContext
from training.parallel.counted import all_reduce
from training.parallel.expert import combine, dispatch, plan_route
from training.parallel.shards import Part, cut_width
from training.parallel.tensor import copy_all_to_tensor_axis, new_parameter, reduce_from_tensor_axis
from training.precision import PrecisionPolicy


class Router(nn.Module):
    """Scores every expert for every token. The same on every tensor rank."""

    e_score_correction_bias: Tensor
    token_counts: Tensor

    def __init__(self, prefix: str, config: ModelConfig, policy: PrecisionPolicy) -> None:
        super().__init__()
        self.config, self.policy = config, policy
        experts, hidden = config.n_routed_experts, config.hidden_size
        self.weight = new_parameter((experts, hidden), policy, [Part(f"{prefix}weight", (experts, hidden))])
        self.register_buffer("e_score_correction_bias", torch.zeros(experts, dtype=torch.float32))
        self.register_buffer("token_counts", torch.zeros(experts, dtype=torch.int64), persistent=False)
        self.buffer_parts = {"e_score_correction_bias": Part(f"{prefix}e_score_correction_bias", (experts,))}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Router:
        """The bias moves to another device but not to another precision: steps of 1e-3 would be lost in BF16."""
        bias = self.e_score_correction_bias
        super()._apply(fn, recurse)
        if self.e_score_correction_bias.dtype != bias.dtype:
            self.e_score_correction_bias = bias.to(self.e_score_correction_bias.device)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [tokens, hidden] -> weights FP32 and experts int64, both [tokens, num_experts_per_tok]"""
        scores = linear(x, self.weight, op="moe.router", policy=self.policy).float().sigmoid()
        experts = self._choose(scores.detach() + self.e_score_correction_bias)
        if self.training and torch.is_grad_enabled():
            self.token_counts += torch.bincount(experts.reshape(-1), minlength=self.token_counts.numel())
        weights = scores.gather(1, experts)
        if self.config.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return weights * self.config.routed_scaling_factor, experts

    def _choose(self, scores: Tensor) -> Tensor:
        """The best experts of the best groups; a group counts as the sum of its two best experts."""
        config = self.config
        if config.n_group > 1:
            groups = scores.unflatten(-1, (config.n_group, -1))
            best = groups.topk(2, dim=-1)[0].sum(-1).topk(config.topk_group, dim=-1, sorted=False)[1]
            closed = torch.ones_like(groups[..., 0], dtype=torch.bool).scatter_(1, best, False)
            scores = groups.masked_fill(closed.unsqueeze(-1), float("-inf")).flatten(-2)
        return scores.topk(config.num_experts_per_tok, dim=-1, sorted=False)[1]


class Experts(nn.Module):
    """This rank's routed experts, each cut over the tensor axis."""

    def __init__(self, prefix: str, config: ModelConfig, policy: PrecisionPolicy, context: ParallelContext) -> None:
        super().__init__()
        self.policy = policy
        hidden, width = config.hidden_size, config.moe_intermediate_size
        local = cut_width(width, context.tensor, "moe_intermediate_size")
        count = config.n_routed_experts // context.expert.size
        first = context.expert.rank * count
        cut = (context.tensor.rank, context.tensor.size)
        dims = (0, 1) if context.tensor.size > 1 else (None, None)

        def parts(name: str, shape: tuple[int, int], rows: slice, dim: int | None) -> list[Part]:
            return [
                Part(f"{prefix}{first + index}.{name}.weight", shape, (index, rows), dim, *cut)
                for index in range(count)
            ]

        gate_up = parts("gate_proj", (width, hidden), slice(0, local), dims[0])
        gate_up += parts("up_proj", (width, hidden), slice(local, 2 * local), dims[0])
        down = parts("down_proj", (hidden, width), slice(None), dims[1])
        self.gate_up = new_parameter((count, 2 * local, hidden), policy, gate_up)
        self.down = new_parameter((count, hidden, local), policy, down)
        for weight in (self.gate_up, self.down):
            _mark_expert(weight, range(first, first + count), context)

    def forward(self, x: Tensor, rows_per_expert: list[int]) -> Tensor:
        """x [rows, hidden], sorted by expert -> [rows, hidden], this tensor rank's summand"""
        gate_up = grouped_linear(x, self.gate_up, rows_per_expert, op="moe.expert", policy=self.policy)
        return grouped_linear(swiglu(gate_up), self.down, rows_per_expert, op="moe.expert", policy=self.policy)


def _mark_expert(weight: Any, experts: range, context: ParallelContext) -> None:
    """DeepSpeed reduces gradients marked so over the ranks that hold the same experts, not over the data axis."""
    weight.expert_indices = experts
    if context.expert.size > 1:
        weight.allreduce = False
        weight.group_name = f"ep_size_{context.expert.size}"


class MixtureOfExperts(nn.Module):
    def __init__(self, prefix: str, config: ModelConfig, policy: PrecisionPolicy, context: ParallelContext) -> None:
        super().__init__()
        self.policy, self.context = policy, context
        self.router = Router(f"{prefix}gate.", config, policy)
        self.experts = Experts(f"{prefix}experts.", config, policy, context)
        self.shared: FeedForward | None = None
        if config.n_shared_experts:
            width = config.moe_intermediate_size * config.n_shared_experts
            name = f"{prefix}shared_experts."
            self.shared = FeedForward(name, config.hidden_size, width, op="moe.expert", policy=policy, context=context)

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, sequence, hidden], normed -> [batch, sequence, hidden]"""
        x = boundary(x, "moe.input", self.policy)
        weights, experts = self.router(x.flatten(0, -2))
        hidden, weights = copy_all_to_tensor_axis((x, weights), self.context)
        total = self._routed(boundary(hidden, "moe.hidden", self.policy).flatten(0, -2), weights, experts).view(x.shape)
        if self.shared is not None:
            total = total + self.shared.summand(hidden)
        output = reduce_from_tensor_axis(total, self.context, torch_dtype(self.policy.op("moe.output").output))
        return boundary(output, "moe.output", self.policy)

    def _routed(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """x [tokens, hidden] -> FP32 [tokens, hidden], this tensor rank's summand"""
        order = torch.argsort(experts.reshape(-1), stable=True)
        back = torch.argsort(order)
        counts = torch.bincount(experts.reshape(-1), minlength=self.router.token_counts.numel())
        route = plan_route(counts, self.context)
        sent = dispatch(_Spread.apply(x, order, back, experts.shape[1]), route, self.policy, self.context)
        returned = combine(self.experts(sent, route.rows_per_expert), route, self.policy, self.context)
        by_token = _Permute.apply(returned, back, order).view(*experts.shape, -1)
        return torch.bmm(weights.unsqueeze(1), by_token.float()).squeeze(1)


class _Spread(torch.autograd.Function):
    """Each token once for each of its experts, sorted by expert. Its gradient is a sum in a fixed order, in FP32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor, copies: int) -> Tensor:
        ctx.save_for_backward(back)
        ctx.copies = copies
        return x[order // copies]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (back,) = ctx.saved_tensors
        by_token = gradient[back].unflatten(0, (-1, ctx.copies))
        return by_token.float().sum(1).to(gradient.dtype), None, None, None


class _Permute(torch.autograd.Function):
    """rows[order]; `back` is the inverse, so that the gradient needs no scatter."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return rows[order]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return gradient[back], None, None


def update_router_bias(module: nn.Module, context: ParallelContext, speed: float) -> None:
    """Once an optimiser step: raise the bias of experts with fewer tokens than the mean, lower that of the others.

    The tokens are those of all training forward passes since the last call, over the data axis.
    """
    routers = [part for part in module.modules() if isinstance(part, Router)]
    if not routers:
        return
    counts = torch.stack([router.token_counts for router in routers])
    all_reduce(counts, context.data, name="router_counts")
    loads = counts.float()
    steps = speed * torch.sign(loads.mean(-1, keepdim=True) - loads)
    for router, step in zip(routers, steps, strict=True):
        router.e_score_correction_bias += step
        router.token_counts.zero_()
