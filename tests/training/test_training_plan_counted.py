"""Bytes by formula against bytes counted on real ranks: equal to the byte, by axis and purpose."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("torch")
pytest.importorskip("deepspeed")

from tests.training.rank_functions_engine import SEQUENCE_LENGTH, Scenario, outcomes_of
from tests.training.ranks import run_ranks
from training.planning.volume import bytes_per_step, rank_volumes
from training.precision import policy

pytestmark = pytest.mark.torch

SCENARIOS = [
    pytest.param(Scenario(pipeline=2, tensor=2, data=2, expert=2, policy="fp8"), id="all-axes-fp8"),
    pytest.param(Scenario(pipeline=2, data=2, schedule="dualpipev", global_sequences=16), id="dualpipev"),
    pytest.param(Scenario(pipeline=2, model="tiny-v3+deep"), id="two-depths-ahead-share-an-embedding"),
    pytest.param(Scenario(data=4, expert=2, policy="fp8"), id="experts-held-twice"),
    pytest.param(Scenario(data=2, policy="fp32"), id="fp32"),
    pytest.param(Scenario(data=2, zero_stage=3), id="zero-3"),
    pytest.param(Scenario(tensor=2, model="tiny-llama+tied"), id="llama-with-a-tied-head"),
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_a_step_sends_is_what_the_plan_says(scenario) -> None:
    """In the second step: in the first, stages also tell each other their shapes."""
    plan, table = scenario.plan, policy(scenario.policy)
    counted = [outcomes[1].bytes_by_name for outcomes in run_ranks(outcomes_of, plan.world_size, scenario, 2)]
    beside = plan.tensor * plan.data
    for rank, volume in enumerate(rank_volumes(plan, scenario.config, SEQUENCE_LENGTH, table)):
        total: Counter[str] = Counter()
        for of_rank in counted[rank * beside : (rank + 1) * beside]:
            total.update(of_rank)
        assert dict(total) == {name: size * beside for name, size in volume.items()}
    by_axis: Counter[str] = Counter()
    for of_rank in counted:
        for name, size in of_rank.items():
            by_axis[name.partition(".")[0]] += size
    assert dict(by_axis) == bytes_per_step(plan, scenario.config, SEQUENCE_LENGTH, table)
