"""What a plan keeps in a GPU's memory, by formula. Pure.

Not counted: the CUDA context, the allocator's fragments, NCCL's buffers, temporaries inside one operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.model.config import ModelConfig
from training.planning.instructions import FORWARD, Stream, computes
from training.planning.model_layers import HEAD, PlannedLayer
from training.planning.schedule import streams
from training.planning.stages import (
    BYTES,
    HeldParameters,
    held_parameters,
    layers_of_rank,
    plan_boundaries,
    stages,
)
from training.precision import FP8, PrecisionPolicy

if TYPE_CHECKING:
    from training.parallel.plan import ParallelPlan

FP32_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Of one rank."""

    parameters_bytes: float
    quantised_bytes: float
    """FP8 copies of weights, kept while a step runs so that micro-batches share them."""

    gradients_bytes: float
    optimizer_bytes: float
    """FP32 master copy and moments."""

    activations_bytes: float
    """Kept for backward passes when most micro-batches are under way."""

    @property
    def total_bytes(self) -> float:
        return (
            self.parameters_bytes
            + self.quantised_bytes
            + self.gradients_bytes
            + self.optimizer_bytes
            + self.activations_bytes
        )


def predicted_memory_bytes(
    plan: ParallelPlan, model: ModelConfig, sequence_length: int, policy: PrecisionPolicy
) -> float:
    """Of the rank that needs most."""
    return max(rank.total_bytes for rank in memory_by_rank(plan, model, sequence_length, policy))


def memory_by_rank(
    plan: ParallelPlan,
    model: ModelConfig,
    sequence_length: int,
    policy: PrecisionPolicy,
    *,
    boundaries: Sequence[int] | None = None,
) -> tuple[MemoryEstimate, ...]:
    """One for each pipeline rank. `boundaries`: how the stages are cut; None: as the engine does."""
    cut = stages(model, boundaries or plan_boundaries(model, plan, sequence_length))
    tokens = plan.micro_sequences * sequence_length
    kept_bytes = [sum(activation_bytes(layer, plan, tokens, policy) for layer in stage) for stage in cut]
    # The peak is reached while the pipeline fills; more micro-batches than that change nothing.
    few = min(plan.micro_batches, 2 * plan.stages)
    orders = streams(plan.schedule, plan.pipeline, few)
    return tuple(
        _rank(
            layers_of_rank(rank, cut, plan),
            plan,
            model,
            policy,
            peak_bytes=peak_activation_bytes(orders[rank], kept_bytes),
        )
        for rank in range(plan.pipeline)
    )


def peak_activation_bytes(order: Stream, kept_bytes: Sequence[float]) -> float:
    """A forward pass of stage s keeps `kept_bytes[s]` until its backward pass is over."""
    now = peak = 0.0
    for compute in computes(order):
        now += kept_bytes[compute.stage] if compute.direction is FORWARD else -kept_bytes[compute.stage]
        peak = max(peak, now)
    return peak


def _rank(
    layers: Sequence[PlannedLayer],
    plan: ParallelPlan,
    model: ModelConfig,
    policy: PrecisionPolicy,
    *,
    peak_bytes: float,
) -> MemoryEstimate:
    held = held_parameters(layers, model, plan)
    moments = 2 * BYTES[policy.op("optimizer.moments").output]
    return MemoryEstimate(
        parameters_bytes=BYTES[policy.parameter] * (_dealt_out(held, plan) if plan.zero_stage >= 3 else held.total),
        quantised_bytes=quantised_weights(layers, plan, policy) * BYTES[FP8],
        gradients_bytes=FP32_BYTES * (_dealt_out(held, plan) if plan.zero_stage >= 2 else held.total),
        optimizer_bytes=(FP32_BYTES + moments) * _dealt_out(held, plan),
        activations_bytes=peak_bytes,
    )


def quantised_weights(layers: Sequence[PlannedLayer], plan: ParallelPlan, policy: PrecisionPolicy) -> float:
    """Weights of a rank that are multiplied in FP8."""
    return sum(
        gemm.weights / (plan.tensor if gemm.cut else 1) / (plan.expert if gemm.experts else 1)
        for layer in layers
        for gemm in layer.gemms
        if policy.op(gemm.op).compute is FP8
    )


def _dealt_out(held: HeldParameters, plan: ParallelPlan) -> float:
    """One rank's part where ranks that hold the same parameters share them out."""
    return held.shared / plan.data + held.expert / (plan.data // plan.expert)


def activation_bytes(layer: PlannedLayer, plan: ParallelPlan, tokens: int, policy: PrecisionPolicy) -> float:
    """What a layer keeps of one micro-batch: every GEMM's input (its transpose is quantised anew from the original),
    what norms and SwiGLU read, and queries, keys and values as the table stores them."""
    value_bytes = BYTES[policy.op("embedding").output]
    kept: float = layer.norms * layer.hidden * value_bytes + FP32_BYTES * layer.norms
    kept += 2 * layer.swiglu_width / plan.tensor * value_bytes
    for gemm in layer.gemms:
        share = plan.tensor if gemm.reads_share else 1
        kept += 0.0 if gemm.same_input else gemm.inner * gemm.rows_per_token / share * value_bytes
    if layer.core is not None:
        kept += _core_values(layer, policy) / plan.tensor
    if layer.routed:
        kept += layer.routed * layer.hidden * FP32_BYTES  # the experts' answers, to be weighted
    if layer.name == HEAD:
        kept += layer.streams * layer.gemms[0].outer / plan.tensor * FP32_BYTES  # probabilities
    return tokens * kept


def _core_values(layer: PlannedLayer, policy: PrecisionPolicy) -> float:
    """Query, key and value of one token in bytes, with the FP32 logarithm of each head's sum."""
    core = layer.core
    assert core is not None
    stored = policy.op(core.op.replace("core", "query"))
    width = 2 * core.key_width + core.value_width
    return core.heads * (width * BYTES[stored.compute] + FP32_BYTES)
