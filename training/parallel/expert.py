"""Expert parallelism: every rank sends each token to the ranks that hold its experts, and gets the results back.

Counts go first, so nothing is dropped and nothing padded. Out (dispatch): FP8 codes as bytes with FP32 scales where the
table says FP8. Back (combine), and both backward passes: the combine's precision. gloo and NCCL know no float8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.matmul import dequantise_from_wire, quantise_for_wire, torch_dtype
from training.parallel.context import Axis, ParallelContext
from training.parallel.counted import all_to_all
from training.precision import FP8, PrecisionPolicy


@dataclass(frozen=True, slots=True)
class Route:
    """How rows sorted by expert travel to the experts' ranks."""

    send: list[int]
    """Rows for each rank of the expert axis."""

    receive: list[int]
    rows_per_expert: list[int]
    """Of this rank's experts."""

    order: Tensor | None
    """Received rows by sender and expert -> by expert alone; None where there is one sender."""

    back: Tensor | None


def plan_route(rows_per_expert: Tensor, context: ParallelContext) -> Route:
    """`rows_per_expert` int64 [experts]: this rank's rows for every expert of the model. Exchanges the counts."""
    axis = context.expert
    if axis.size == 1:
        counts = rows_per_expert.tolist()
        return Route([sum(counts)], [sum(counts)], counts, None, None)
    sent = rows_per_expert.view(axis.size, -1)
    one = [1] * axis.size
    received = all_to_all(sent, axis, send=one, receive=one, name="counts")
    order = _by_expert(received)
    return Route(
        send=sent.sum(1).tolist(),
        receive=received.sum(1).tolist(),
        rows_per_expert=received.sum(0).tolist(),
        order=order,
        back=torch.argsort(order),
    )


def _by_expert(received: Tensor) -> Tensor:
    """`received` [senders, experts] row counts -> the order that brings rows of one expert together."""
    experts = torch.arange(received.shape[1], device=received.device).repeat(received.shape[0])
    return torch.argsort(experts.repeat_interleave(received.reshape(-1)), stable=True)


def _there(rows: Tensor, route: Route, axis: Axis, name: str) -> Tensor:
    if route.order is None:
        return rows
    return all_to_all(rows, axis, send=route.send, receive=route.receive, name=name)[route.order]


def _home(rows: Tensor, route: Route, axis: Axis, name: str) -> Tensor:
    if route.back is None:
        return rows
    return all_to_all(rows[route.back], axis, send=route.receive, receive=route.send, name=name)


class _Dispatch(torch.autograd.Function):
    """Rounded to the wire's grid even when nobody is on the other side: the loss must not depend on the plan."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, route: Route, policy: PrecisionPolicy, axis: Axis) -> Tensor:
        op = policy.op("moe.dispatch")
        ctx.route, ctx.policy, ctx.axis, ctx.dtype = route, policy, axis, rows.dtype
        output = torch_dtype(op.output)
        if op.wire is FP8:
            payload, scales = quantise_for_wire(rows, policy)
            policy.observer("moe.dispatch", "wire", payload.view(torch.float8_e4m3fn))
            payload, scales = _there(payload, route, axis, "dispatch"), _there(scales, route, axis, "dispatch")
            return dequantise_from_wire(payload, scales, output)
        rows = rows.to(_wire_dtype(policy, "moe.dispatch"))
        policy.observer("moe.dispatch", "wire", rows)
        return _there(rows, route, axis, "dispatch").to(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        gradient = gradient.to(_wire_dtype(ctx.policy, "moe.combine"))
        ctx.policy.observer("moe.dispatch", "input_gradient", gradient)
        return _home(gradient, ctx.route, ctx.axis, "dispatch_backward").to(ctx.dtype), None, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, route: Route, policy: PrecisionPolicy, axis: Axis) -> Tensor:
        ctx.route, ctx.policy, ctx.axis, ctx.dtype = route, policy, axis, rows.dtype
        rows = rows.to(_wire_dtype(policy, "moe.combine"))
        policy.observer("moe.combine", "wire", rows)
        return _home(rows, route, axis, "combine").to(torch_dtype(policy.op("moe.combine").output))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        gradient = gradient.to(_wire_dtype(ctx.policy, "moe.combine"))
        ctx.policy.observer("moe.combine", "input_gradient", gradient)
        return _there(gradient, ctx.route, ctx.axis, "combine_backward").to(ctx.dtype), None, None, None


def _wire_dtype(policy: PrecisionPolicy, name: str) -> torch.dtype:
    wire = policy.op(name).wire
    assert wire is not None, "the table gives every wire a precision"
    return torch_dtype(wire)


def dispatch(rows: Tensor, route: Route, policy: PrecisionPolicy, context: ParallelContext) -> Tensor:
    """rows [rows, hidden] of this rank, sorted by expert -> the rows of this rank's experts, sorted by expert."""
    received = _Dispatch.apply(rows, route, policy, context.expert)
    policy.observer("moe.dispatch", "output", received)
    return received


def combine(rows: Tensor, route: Route, policy: PrecisionPolicy, context: ParallelContext) -> Tensor:
    """The way back: the experts' results, in the order in which `dispatch` was given the rows."""
    returned = _Combine.apply(rows, route, policy, context.expert)
    policy.observer("moe.combine", "output", returned)
    return returned
