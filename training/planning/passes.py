"""How long one micro-batch takes through a layer, each way: GEMMs by the roofline, the rest by memory traffic. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.planning.hardware import Hardware
from training.planning.model_layers import HEAD, Gemm, PlannedLayer
from training.planning.stages import BYTES
from training.planning.volume import wire_bytes
from training.precision import BF16, FP8, PrecisionPolicy

if TYPE_CHECKING:
    from training.parallel.plan import ParallelPlan

CORE_BACKWARD = 2.5
"""Backward over forward FLOPs of attention when softmax is computed again (arXiv 2205.14135, section 3.1)."""

_GRADIENT_BYTES = 8
"""An FP32 weight gradient is read and written."""


@dataclass(frozen=True, slots=True)
class PassTime:
    """Of one rank."""

    compute_s: float = 0.0
    communication_s: float = 0.0
    """Collectives inside the pass; nothing is hidden behind computation."""

    @property
    def total_s(self) -> float:
        return self.compute_s + self.communication_s

    def __add__(self, other: PassTime) -> PassTime:
        return PassTime(self.compute_s + other.compute_s, self.communication_s + other.communication_s)


@dataclass(frozen=True, slots=True)
class Pricing:
    """What a layer's price depends on besides the layer."""

    plan: ParallelPlan
    sequence_length: int
    policy: PrecisionPolicy
    hardware: Hardware

    @property
    def tokens(self) -> int:
        return self.plan.micro_sequences * self.sequence_length

    @property
    def value_bytes(self) -> int:
        return BYTES[self.policy.op("embedding").output]


def forward(layer: PlannedLayer, pricing: Pricing) -> PassTime:
    compute_s = sum(_gemm_forward_s(gemm, pricing) for gemm in layer.gemms)
    compute_s += _core_s(layer, pricing) + _elementwise_s(layer, pricing)
    return PassTime(compute_s, _tensor_s(layer, pricing, is_forward=True) + _expert_s(layer, pricing, is_forward=True))


def backward(layer: PlannedLayer, pricing: Pricing) -> PassTime:
    compute_s = sum(_gemm_backward_s(gemm, pricing) for gemm in layer.gemms)
    compute_s += CORE_BACKWARD * _core_s(layer, pricing) + 2.0 * _elementwise_s(layer, pricing)
    return PassTime(
        compute_s, _tensor_s(layer, pricing, is_forward=False) + _expert_s(layer, pricing, is_forward=False)
    )


def _sizes(gemm: Gemm, pricing: Pricing) -> tuple[float, float, float, float]:
    """Rows, inner, outer and weights of one rank. Experts get equal shares, as the router's bias is to see to."""
    plan = pricing.plan
    inner = gemm.inner / (plan.tensor if gemm.reads_share else 1)
    outer = gemm.outer / (plan.tensor if gemm.cut and not gemm.reads_share else 1)
    weights = inner * outer * (gemm.experts / plan.expert if gemm.experts else 1)
    return pricing.tokens * gemm.rows_per_token, inner, outer, weights


def _gemm_forward_s(gemm: Gemm, pricing: Pricing) -> float:
    rows, inner, outer, weights = _sizes(gemm, pricing)
    op = pricing.policy.op(gemm.op)
    operand, output = BYTES[op.compute], BYTES[op.output]
    product_s = _roofline_s(
        gemm, pricing, 2.0 * rows * inner * outer, (rows * inner + weights) * operand + rows * outer * output
    )
    return product_s + _quantising_s(gemm, pricing, rows * inner)


def _gemm_backward_s(gemm: Gemm, pricing: Pricing) -> float:
    """Gradients of the input and of the weight. FP8 quantises the output's gradient both ways, and x once more."""
    rows, inner, outer, weights = _sizes(gemm, pricing)
    op = pricing.policy.op(gemm.op)
    operand, output, flops = BYTES[op.compute], BYTES[op.output], 2.0 * rows * inner * outer
    input_s = _roofline_s(gemm, pricing, flops, (rows * outer + weights) * operand + rows * inner * output)
    moved_bytes = rows * (inner + outer) * operand + weights * _GRADIENT_BYTES
    weight_s = _roofline_s(gemm, pricing, flops, moved_bytes, is_weight_gradient=True)
    return input_s + weight_s + _quantising_s(gemm, pricing, rows * (2 * outer + inner))


def _roofline_s(
    gemm: Gemm, pricing: Pricing, flops: float, moved_bytes: float, *, is_weight_gradient: bool = False
) -> float:
    compute = pricing.policy.op(gemm.op).compute
    if is_weight_gradient and compute is FP8:
        compute = pricing.policy.weight_gradient
    hardware = pricing.hardware
    return max(flops / hardware.gemm_flops_per_s(compute), moved_bytes / hardware.planned_memory_bytes_per_s)


def _quantising_s(gemm: Gemm, pricing: Pricing, values: float) -> float:
    if pricing.policy.op(gemm.op).compute is not FP8:
        return 0.0
    return values * (BYTES[BF16] + BYTES[FP8]) / pricing.hardware.planned_memory_bytes_per_s


def _core_s(layer: PlannedLayer, pricing: Pricing) -> float:
    if layer.core is None:
        return 0.0
    flops = pricing.tokens * layer.core.flops_per_token(pricing.sequence_length, pricing.plan.tensor)
    return flops / pricing.hardware.gemm_flops_per_s(pricing.policy.op(layer.core.op).compute)


def _elementwise_s(layer: PlannedLayer, pricing: Pricing) -> float:
    """Norms and residual sums of every tensor rank; SwiGLU, rotation and the loss of its share. Read and written."""
    values = 2.0 * layer.norms * layer.hidden + 3.0 * layer.norms * layer.hidden
    values += 3.0 * layer.swiglu_width / pricing.plan.tensor
    values += 4.0 * layer.routed * layer.hidden  # spread over experts, and gathered
    if layer.core is not None:
        values += 2.0 * layer.core.heads * (2 * layer.core.key_width + layer.core.value_width) / pricing.plan.tensor
    if layer.is_embedding:
        values += 2.0 * layer.hidden
    moved_bytes = values * pricing.value_bytes
    if layer.name == HEAD:
        moved_bytes += 3.0 * layer.streams * layer.gemms[0].outer / pricing.plan.tensor * 4
    return pricing.tokens * moved_bytes / pricing.hardware.planned_memory_bytes_per_s


def all_reduce_s(payload_bytes: float, ranks: int, span: int, hardware: Hardware) -> float:
    """A ring moves 2 (n-1)/n of the payload, in 2 (n-1) steps. `span`: how far apart in rank order the ranks lie."""
    if ranks == 1:
        return 0.0
    moved_bytes = 2.0 * (ranks - 1) / ranks * payload_bytes
    return moved_bytes / hardware.link_bytes_per_s(span) + 2 * (ranks - 1) * hardware.link_latency_s


def all_gather_s(part_bytes: float, ranks: int, span: int, hardware: Hardware) -> float:
    """Every rank sends its part around the ring."""
    return (ranks - 1) * (part_bytes / hardware.link_bytes_per_s(span) + hardware.link_latency_s)


def _tensor_s(layer: PlannedLayer, pricing: Pricing, *, is_forward: bool) -> float:
    ranks, summed = pricing.plan.tensor, layer.summed_forward if is_forward else layer.summed_backward
    if ranks == 1:
        return 0.0
    seconds = all_reduce_s(4.0 * pricing.tokens * summed, ranks, ranks, pricing.hardware) if summed else 0.0
    if is_forward and layer.is_embedding:
        payload_bytes = pricing.tokens * layer.hidden * BYTES[pricing.policy.parameter]
        seconds += all_reduce_s(payload_bytes, ranks, ranks, pricing.hardware)
    return seconds


def _expert_s(layer: PlannedLayer, pricing: Pricing, *, is_forward: bool) -> float:
    """Two all-to-alls each way; a rank keeps 1/n of its rows."""
    ranks = pricing.plan.expert
    if ranks == 1 or not layer.routed:
        return 0.0
    out, home = wire_bytes(pricing.policy, "moe.dispatch"), wire_bytes(pricing.policy, "moe.combine")
    value_bytes = out + home if is_forward else 2.0 * home
    moved_bytes = (ranks - 1) / ranks * pricing.tokens * layer.routed * layer.hidden * value_bytes
    link = pricing.hardware.link_bytes_per_s(ranks * pricing.plan.tensor)
    return moved_bytes / link + 2 * pricing.hardware.link_latency_s
