"""The pipeline's cut: exact, even, and the same on every rank because it is pure."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.errors import ConfigError
from training.model.presets import preset
from training.parallel.partition import contiguous_partition, layer_costs


def _stage_costs(costs, boundaries):
    return [sum(costs[start:stop]) for start, stop in pairwise(boundaries)]


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=8).flatmap(
        lambda costs: st.tuples(st.just(costs), st.integers(1, len(costs)))
    )
)
def test_no_other_cut_has_a_cheaper_dearest_stage_or_is_more_even(case):
    costs, stages = case
    boundaries = contiguous_partition(costs, stages)
    found = _stage_costs(costs, boundaries)
    for inner in combinations(range(1, len(costs)), stages - 1):
        other = _stage_costs(costs, [0, *inner, len(costs)])
        assert max(found) <= max(other)
        if max(found) == max(other):
            assert sum(cost**2 for cost in found) <= sum(cost**2 for cost in other)


@given(
    st.lists(st.floats(0.0, 1e15), min_size=1, max_size=30).flatmap(
        lambda costs: st.tuples(st.just(costs), st.integers(1, len(costs)))
    )
)
def test_every_stage_has_a_layer_and_every_layer_a_stage(case):
    costs, stages = case
    boundaries = contiguous_partition(costs, stages)
    assert boundaries[0] == 0
    assert boundaries[-1] == len(costs)
    assert len(boundaries) == stages + 1
    assert all(start < stop for start, stop in pairwise(boundaries))


@pytest.mark.parametrize(
    ("costs", "stages", "boundaries"),
    [
        pytest.param([1, 1, 1, 1], 2, [0, 2, 4], id="equal-layers"),
        pytest.param([0, 4, 4, 4, 0, 0, 5, 2], 2, [0, 3, 8], id="the-heavy-end-gets-fewer-layers"),
        pytest.param([9, 1, 1, 1, 1], 3, [0, 1, 3, 5], id="what-the-dearest-leaves-is-even"),
        pytest.param([0, 0, 0], 3, [0, 1, 2, 3], id="free-layers-still-fill-stages"),
    ],
)
def test_worked_examples(costs, stages, boundaries):
    assert contiguous_partition(costs, stages) == boundaries


def test_more_stages_than_layers_are_refused():
    with pytest.raises(ConfigError, match=r"parallel.pipeline = 3: must be 1 to 2, the model's layers"):
        contiguous_partition([1.0, 1.0], 3)


def test_a_hundred_layers_are_cut_in_no_time():
    assert contiguous_partition([1.0] * 128, 16) == list(range(0, 129, 8))


def test_blocks_with_experts_cost_their_active_weights_only():
    config = preset("tiny-v3")
    more = replace(config, n_routed_experts=8)
    router = 2.0 * 4 * config.hidden_size
    assert [b - a for a, b in zip(layer_costs(config, 64), layer_costs(more, 64), strict=True)] == [
        0, 0, router, router, 0, 0, router, 0,
    ]  # fmt: skip


def test_longer_sequences_make_blocks_dearer_and_nothing_else():
    short, long = (layer_costs(preset("tiny-v3"), length) for length in (64, 128))
    assert [a < b for a, b in zip(short, long, strict=True)] == [False, True, True, True, False, False, True, False]
