"""Predicted time and energy of one optimiser step of a plan on given hardware. An estimate to rank plans by. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from training.model.config import ModelConfig
from training.planning.hardware import Hardware
from training.planning.memory import memory_by_rank, quantised_weights
from training.planning.model_layers import PlannedLayer, flops_per_token
from training.planning.passes import PassTime, Pricing, all_gather_s, all_reduce_s, backward, forward
from training.planning.replay import StageTimes
from training.planning.stages import (
    BYTES,
    HeldParameters,
    Stage,
    held_parameters,
    layers_of_rank,
    plan_boundaries,
    stages,
)
from training.planning.steady import makespan_s
from training.precision import BF16, FP8, PrecisionPolicy

if TYPE_CHECKING:
    from training.parallel.plan import ParallelPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedStep:
    """Of the whole job, all GPUs together where nothing else is said."""

    step_s: float
    pipeline_s: float
    """From the first forward to the last backward pass."""

    reduce_s: float
    """Gradients and new parameters over the data axis, of the slowest rank."""

    optimizer_s: float
    bubble_fraction: float
    """Share of the pipeline's time in which ranks wait for each other; 0 without a pipeline."""

    stage_times: StageTimes
    boundaries: tuple[int, ...]
    joules: float
    memory_bytes: float
    """Of the rank that needs most."""

    tokens: int
    model_flops: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.step_s

    @property
    def joules_per_token(self) -> float:
        return self.joules / self.tokens

    def model_flops_utilisation(self, peak_flops_per_s: float) -> float:
        """Against a peak of all GPUs together, which the reader must be told: FP8 and BF16 have different ones."""
        return self.model_flops / self.step_s / peak_flops_per_s


def predict_step(
    plan: ParallelPlan, model: ModelConfig, sequence_length: int, policy: PrecisionPolicy, hardware: Hardware
) -> PredictedStep:
    """Stages cut as the engine cuts them; nothing overlaps. The plan must be valid."""
    pricing = Pricing(plan, sequence_length, policy, hardware)
    boundaries = plan_boundaries(model, plan, sequence_length)
    cut = stages(model, boundaries)
    passes = [(_through(stage, pricing, forward), _through(stage, pricing, backward)) for stage in cut]
    times = StageTimes(
        forward_s=tuple(ahead.total_s for ahead, _ in passes), backward_s=tuple(back.total_s for _, back in passes)
    )
    pipeline_s = makespan_s(
        plan.schedule, plan.pipeline, plan.micro_batches, times, exchange_s=_exchange_s(cut, pricing)
    )
    on_ranks = [layers_of_rank(rank, cut, plan) for rank in range(plan.pipeline)]
    held = [held_parameters(layers, model, plan) for layers in on_ranks]
    reduce_s = max(_reduce_s(of_rank, pricing) for of_rank in held)
    optimizer_s = max(_optimizer_s(*of_rank, pricing) for of_rank in zip(on_ranks, held, strict=True))
    step_s = pipeline_s + reduce_s + optimizer_s
    in_passes_s = plan.micro_batches * sum(times.forward_s + times.backward_s)
    computing_s = plan.micro_batches * sum(ahead.compute_s + back.compute_s for ahead, back in passes)
    busy_s = computing_s + plan.pipeline * optimizer_s
    others = plan.tensor * plan.data
    tokens = plan.global_sequences * sequence_length
    return PredictedStep(
        step_s=step_s,
        pipeline_s=pipeline_s,
        reduce_s=reduce_s,
        optimizer_s=optimizer_s,
        bubble_fraction=1.0 - in_passes_s / (plan.pipeline * pipeline_s),
        stage_times=times,
        boundaries=tuple(boundaries),
        joules=others * (busy_s * hardware.busy_watts + (plan.pipeline * step_s - busy_s) * hardware.waiting_watts),
        memory_bytes=max(rank.total_bytes for rank in memory_by_rank(plan, model, sequence_length, policy)),
        tokens=tokens,
        model_flops=tokens * flops_per_token(model, sequence_length),
    )


def _through(stage: Stage, pricing: Pricing, way: Callable[[PlannedLayer, Pricing], PassTime]) -> PassTime:
    return reduce(add, (way(layer, pricing) for layer in stage), PassTime())


def _exchange_s(cut: Sequence[Stage], pricing: Pricing) -> float:
    """Of the widest border; both directions go at once, ids and scales are too few to count."""
    if len(cut) == 1:
        return 0.0
    plan, hardware = pricing.plan, pricing.hardware
    values = max(pricing.tokens * stage[-1].streams * stage[-1].hidden for stage in cut[:-1])
    # Neighbouring stages are a whole data x tensor grid apart.
    link = hardware.link_bytes_per_s(plan.world_size)
    return values * pricing.value_bytes / link + hardware.link_latency_s


def _over_data(held: HeldParameters, plan: ParallelPlan) -> tuple[tuple[int, int], ...]:
    """Parameters, and the number of ranks that hold the same ones."""
    if plan.expert == 1:
        return ((held.total, plan.data),)
    return ((held.shared, plan.data), (held.expert, plan.data // plan.expert))


def _reduce_s(held: HeldParameters, pricing: Pricing) -> float:
    """ZeRO-1: FP32 gradients, then parameters. 2 and 3 reduce after each micro-batch; 3 gathers before each pass."""
    plan, hardware = pricing.plan, pricing.hardware
    span, value_bytes = plan.data * plan.tensor, BYTES[pricing.policy.parameter]
    gradient_bytes = BYTES[pricing.policy.op("optimizer.gradient").output]
    seconds = 0.0
    for parameters, ranks in _over_data(held, plan):
        gather_s = all_gather_s(parameters / ranks * value_bytes, ranks, span, hardware)
        reduce_s = all_reduce_s(parameters * gradient_bytes, ranks, span, hardware)
        match plan.zero_stage:
            case 1:
                seconds += reduce_s + gather_s
            case 2:
                seconds += plan.micro_batches * reduce_s + gather_s
            case _:  # a reduce-scatter is half of an all-reduce
                seconds += plan.micro_batches * (reduce_s / 2 + 2 * gather_s)
    return seconds


def _optimizer_s(layers: Sequence[PlannedLayer], held: HeldParameters, pricing: Pricing) -> float:
    """Read: a rank's part of gradient, master copy and moments; written: the latter two and the parameter. Then weights
    that are multiplied in FP8 are quantised, once for all micro-batches."""
    policy, plan = pricing.policy, pricing.plan
    moments = 2 * BYTES[policy.op("optimizer.moments").output]
    part_bytes = 4 + 2 * (4 + moments) + BYTES[policy.parameter]
    moved_bytes = sum(part_bytes * parameters / ranks for parameters, ranks in _over_data(held, plan))
    moved_bytes += quantised_weights(layers, plan, policy) * (BYTES[BF16] + BYTES[FP8])
    return moved_bytes / pricing.hardware.planned_memory_bytes_per_s
