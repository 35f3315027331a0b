"""Which layers each stage and each rank of a plan holds, and their sizes on one rank. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

from training.model.config import ModelConfig
from training.parallel.partition import contiguous_partition, layer_costs
from training.planning.model_layers import HEAD, PlannedLayer, model_layers
from training.precision import BF16, FP8, FP32, Precision

if TYPE_CHECKING:
    from training.parallel.plan import ParallelPlan

Stage = tuple[PlannedLayer, ...]

BYTES: Mapping[Precision, int] = MappingProxyType({FP8: 1, BF16: 2, FP32: 4})
"""Of one value, without its share of a scale."""


def plan_boundaries(model: ModelConfig, plan: ParallelPlan, sequence_length: int) -> list[int]:
    """Stage s holds layers [boundaries[s], boundaries[s + 1]), as the engine cuts them.

    Raise ConfigError for more stages than layers.
    """
    return contiguous_partition(layer_costs(model, sequence_length), plan.stages)


def stages(model: ModelConfig, boundaries: Sequence[int]) -> tuple[Stage, ...]:
    layers = model_layers(model)
    return tuple(layers[start:stop] for start, stop in pairwise(boundaries))


def stages_of_rank(rank: int, plan: ParallelPlan) -> tuple[int, ...]:
    """Of a pipeline rank; the first is the one that tokens reach first."""
    return (rank,) if plan.chunks == 1 else (rank, 2 * plan.pipeline - 1 - rank)


def layers_of_rank(rank: int, cut: Sequence[Stage], plan: ParallelPlan) -> Stage:
    return tuple(layer for number in stages_of_rank(rank, plan) for layer in cut[number])


@dataclass(frozen=True, slots=True)
class HeldParameters:
    """Of one rank."""

    shared: int
    """Held by every rank of the data axis."""

    expert: int
    """Routed experts': held by plan.data / plan.expert ranks of it."""

    @property
    def total(self) -> int:
        return self.shared + self.expert


def held_parameters(layers: Sequence[PlannedLayer], model: ModelConfig, plan: ParallelPlan) -> HeldParameters:
    """Of a rank that holds `layers`; an embedding that several of them use is one."""
    shared = expert = 0
    for layer in layers:
        shared += layer.vectors
        for gemm in layer.gemms:
            weights = gemm.weights // (plan.tensor if gemm.cut else 1)
            if gemm.experts:
                expert += weights // plan.expert
            elif not (gemm.op == "head" and model.tie_word_embeddings):
                shared += weights
    if uses_embedding(layers, model):
        shared += model.embedding_parameters // plan.tensor
    return HeldParameters(shared, expert)


def uses_embedding(layers: Sequence[PlannedLayer], model: ModelConfig) -> bool:
    tied_head = model.tie_word_embeddings and any(layer.name == HEAD for layer in layers)
    return tied_head or any(layer.is_embedding for layer in layers)
