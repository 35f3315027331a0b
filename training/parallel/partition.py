"""Cuts the model's layers into pipeline stages of equal cost. Pure: no torch, no process group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from training.errors import require

if TYPE_CHECKING:
    from training.model.config import ModelConfig


def contiguous_partition(costs: Sequence[float], stages: int) -> list[int]:
    """Boundaries `[0, .., len(costs)]`: stage s holds layers [boundaries[s], boundaries[s + 1]), never none.

    The dearest stage is as cheap as it can be; among such cuts the one with the least sum of squared stage costs, so
    that the other stages are even too; then the earliest boundaries. Exact, by dynamic programming. Raise ConfigError
    for more stages than layers.
    """
    require(1 <= stages <= len(costs), "parallel.pipeline", stages, f"must be 1 to {len(costs)}, the model's layers")
    sums = [0.0, *accumulate(costs)]
    dearest, _ = _best_cut(sums, stages, lambda before, cost: max(before, cost))
    _, boundaries = _best_cut(sums, stages, lambda before, cost: before + cost**2 if cost <= dearest else float("inf"))
    return boundaries


def layer_costs(config: ModelConfig, sequence_length: int) -> list[float]:
    """Forward floating-point operations per token of every layer of `training.model.layers.layer_specs`, in its order.

    Two per active weight, and causal attention over half of the sequence on average. Norms and look-ups count nothing.
    """
    widths = config.qk_head_dim + config.value_head_dim
    attention = float(sequence_length * config.num_attention_heads * widths)

    def block(layer: int) -> float:
        return 2.0 * config.layer_parameters(layer, active=True) + attention

    costs = [0.0, *(block(layer) for layer in range(config.num_hidden_layers)), 0.0]
    for depth in range(config.num_nextn_predict_layers):
        costs += [0.0, block(config.num_hidden_layers + depth) + 2.0 * config.mtp_extra_parameters]
    return [*costs, 2.0 * config.embedding_parameters * (1 + config.num_nextn_predict_layers)]


def _best_cut(sums: Sequence[float], stages: int, extend: Callable[[float, float], float]) -> tuple[float, list[int]]:
    """The least score of `extend(score of the stages before, cost of this stage)` over all cuts, and its boundaries."""
    layers = len(sums) - 1
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [0])}
    for stage in range(stages):
        ends = range(stage + 1, layers - (stages - stage - 1) + 1)
        best = {
            end: min(
                (extend(score, sums[end] - sums[start]), [*boundaries, end])
                for start, (score, boundaries) in best.items()
                if start < end
            )
            for end in ends
        }
    return best[layers]
