"""Bytes that a step hands to sends and collectives, by formula: what training.parallel.counted and .traffic count.

Payload as one rank hands it over, not what an algorithm makes of it on the wire. Not counted: the shapes that stages
agree on in the first step, the few bytes of loss and gradient norm, padding of flat gradient buffers. Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from training.model.config import ModelConfig
from training.planning.instructions import rank_of_stage
from training.planning.model_layers import HEAD, PlannedLayer
from training.planning.stages import (
    BYTES,
    Stage,
    held_parameters,
    layers_of_rank,
    plan_boundaries,
    stages,
    stages_of_rank,
    uses_embedding,
)
from training.precision import FP8, PrecisionPolicy

if TYPE_CHECKING:
    from training.parallel.plan import ParallelPlan

FP32_BYTES, INT64_BYTES = 4, 8
SCALE_TILE = 128
ZERO_3_STAYS_VALUES, ZERO_3_LIVE_VALUES = 100_000, 1_000_000_000

Volume = Mapping[str, float]
"""Bytes by "axis.purpose"."""


def bytes_per_step(
    plan: ParallelPlan,
    model: ModelConfig,
    sequence_length: int,
    policy: PrecisionPolicy,
    *,
    boundaries: Sequence[int] | None = None,
) -> dict[str, float]:
    """Of all ranks together, by axis: "tensor", "pipe", "data", "expert", "expert_data"; silent axes are missing."""
    by_axis: defaultdict[str, float] = defaultdict(float)
    for volume in rank_volumes(plan, model, sequence_length, policy, boundaries=boundaries):
        for name, size in volume.items():
            by_axis[name.partition(".")[0]] += size * plan.tensor * plan.data
    return dict(by_axis)


def rank_volumes(
    plan: ParallelPlan,
    model: ModelConfig,
    sequence_length: int,
    policy: PrecisionPolicy,
    *,
    boundaries: Sequence[int] | None = None,
) -> tuple[Volume, ...]:
    """One for each pipeline rank; ranks beside it on the other axes hand over the same.

    With experts, what a rank sends home depends on where tokens went: there, the mean over the expert axis.
    `boundaries`: how the stages are cut; None: as `plan_boundaries` does.
    """
    cut = stages(model, boundaries or plan_boundaries(model, plan, sequence_length))
    volumes = []
    for rank in range(plan.pipeline):
        volume: defaultdict[str, float] = defaultdict(float)
        for number in stages_of_rank(rank, plan):
            for name, size in _micro_batch(number, cut, plan, sequence_length, policy):
                volume[name] += size * plan.micro_batches
        for name, size in _step(rank, cut, plan, model, policy):
            volume[name] += size
        volumes.append(dict(volume))
    return tuple(volumes)


Item = tuple[str, float]


def _micro_batch(
    number: int, cut: Sequence[Stage], plan: ParallelPlan, sequence_length: int, policy: PrecisionPolicy
) -> Iterator[Item]:
    tokens = plan.micro_sequences * sequence_length
    for layer in cut[number]:
        if plan.tensor > 1:
            yield from _tensor(layer, tokens, policy)
        if plan.expert > 1 and layer.routed:
            yield from _expert(layer, tokens, policy)
    if plan.pipeline > 1:
        yield from _pipe(number, cut, tokens, policy, ranks=plan.pipeline)


def _tensor(layer: PlannedLayer, tokens: int, policy: PrecisionPolicy) -> Iterator[Item]:
    """Megatron's g sums FP32 values going forward, f the FP32 gradients of what passed it coming back."""
    if layer.is_embedding:
        yield "tensor.embedding", tokens * layer.hidden * BYTES[policy.parameter]
    if layer.summed_forward:
        yield "tensor.reduce", tokens * layer.summed_forward * FP32_BYTES
    if layer.summed_backward:
        yield "tensor.copy_backward", tokens * layer.summed_backward * FP32_BYTES
    if layer.name == HEAD:
        # Of every logit row: the highest value, then the sum of exponentials and the label's logit.
        yield "tensor.loss", tokens * layer.streams * 3 * FP32_BYTES


def _expert(layer: PlannedLayer, tokens: int, policy: PrecisionPolicy) -> Iterator[Item]:
    """Rows that stay on their rank are handed over too. Gradients travel as the combine does."""
    values = tokens * layer.routed * layer.hidden
    yield "expert.counts", next(g.experts for g in layer.gemms if g.experts) * INT64_BYTES
    yield "expert.dispatch", values * wire_bytes(policy, "moe.dispatch")
    for name in ("combine", "combine_backward", "dispatch_backward"):
        yield f"expert.{name}", values * wire_bytes(policy, "moe.combine")


def wire_bytes(policy: PrecisionPolicy, op: str) -> float:
    """Of one value of `op` on the network, its share of an FP32 scale included."""
    wire = policy.op(op).wire
    assert wire is not None, "the table gives every wire a precision"
    return BYTES[wire] + (FP32_BYTES / SCALE_TILE if wire is FP8 else 0.0)


def _pipe(number: int, cut: Sequence[Stage], tokens: int, policy: PrecisionPolicy, *, ranks: int) -> Iterator[Item]:
    """All hidden states and the token ids forward, the states' gradients back. DualPipeV turns on the last rank."""
    value_bytes = BYTES[policy.op("embedding").output]
    for other in (number - 1, number + 1):
        if not 0 <= other < len(cut) or rank_of_stage(other, ranks) == rank_of_stage(number, ranks):
            continue
        border = cut[min(number, other)][-1]
        ids = INT64_BYTES if other > number else 0
        yield "pipe.send", tokens * (border.streams * border.hidden * value_bytes + ids)


def _step(
    rank: int, cut: Sequence[Stage], plan: ParallelPlan, model: ModelConfig, policy: PrecisionPolicy
) -> Iterator[Item]:
    layers = layers_of_rank(rank, cut, plan)
    held = held_parameters(layers, model, plan)
    if plan.expert == 1:
        yield from _data("data", held.total, plan.data, layers, plan, policy)
    else:
        yield from _data("data", held.shared, plan.data, layers, plan, policy)
        yield from _data("expert_data", held.expert, plan.data // plan.expert, layers, plan, policy)
    routers = sum(1 for layer in layers if layer.routed)
    if plan.data > 1 and routers:
        yield "data.router_counts", routers * model.n_routed_experts * INT64_BYTES
    yield from _tied(layers, cut, plan, model)


def _data(
    axis: str,
    parameters: int,
    ranks: int,
    layers: Sequence[PlannedLayer],
    plan: ParallelPlan,
    policy: PrecisionPolicy,
) -> Iterator[Item]:
    """ZeRO-1: FP32 gradients once a step, then every rank's part of the new parameters. 2 and 3: gradients after each
    micro-batch."""
    if ranks == 1 or parameters == 0:
        return
    reductions = 1 if plan.zero_stage == 1 else plan.micro_batches
    method = "reduce_scatter_tensor" if plan.zero_stage == 3 else "all_reduce"
    yield f"{axis}.{method}", reductions * parameters * BYTES[policy.op("optimizer.gradient").output]
    gathered = parameters if plan.zero_stage < 3 else _gathered_by_zero_3(layers, parameters, plan.micro_batches)
    yield f"{axis}.all_gather_into_tensor", gathered / ranks * BYTES[policy.parameter]


def _gathered_by_zero_3(layers: Sequence[PlannedLayer], parameters: int, micro_batches: int) -> int:
    """DeepSpeed 0.19's defaults: tensors of up to 1e5 values stay, and are renewed once a step; of the others up to 1e9
    values stay from a forward to its backward pass."""
    sizes = [gemm.weights for layer in layers for gemm in layer.gemms] + [layer.looked_up for layer in layers]
    large = sum(size for size in sizes if size > ZERO_3_STAYS_VALUES)
    passes = micro_batches if large <= ZERO_3_LIVE_VALUES else 2 * micro_batches
    return parameters - large + passes * large


def _tied(
    layers: Sequence[PlannedLayer], cut: Sequence[Stage], plan: ParallelPlan, model: ModelConfig
) -> Iterator[Item]:
    """FP32 gradients of an embedding used on several ranks: summed once for two uses, else use by use, in order."""
    users = {rank_of_stage(number, plan.pipeline) for number, stage in enumerate(cut) if uses_embedding(stage, model)}
    if len(users) < 2 or not uses_embedding(layers, model):
        return
    uses = sum(1 for stage in cut for layer in stage if uses_embedding([layer], model))
    yield "pipe.all_reduce", (1 if uses == 2 else uses) * model.embedding_parameters / plan.tensor * FP32_BYTES
